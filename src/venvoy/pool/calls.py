"""The two ways to run a call on a pool: here and now, or as a job with a future."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Protocol

from venvoy_worker.contract.frames import Frame

from ..collector import Timer
from ..errors import VenvoyError
from ..exchange import Call
from ..workers.talk import serving
from .direct import Direct
from .engine import Engine
from .job_queue import JobQueue
from .jobs import Decoder, Job


class Later(Protocol):
    """What calls need of their pool."""

    decoder: Decoder

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Run a callback on the collector thread `delay` seconds from now."""

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Run a callback on the collector thread. Takes no lock: finalizers may call it."""


def result_of(call: Call, run: Callable[[Call], Frame], pool: Later) -> Any:
    """Run a call, as often as its options say, and return its result.

    Args:
        run: runs it once and returns its reply.

    Raises:
        As `run`; besides this, what the call raises.
    """
    while True:
        frame = run(call)  # which opens the pool, and only then its decoder is known
        value, error = pool.decoder.outcome(frame, call.convert)
        if error is None:
            return value
        if not call.may_repeat(error):
            raise error


class Calls:
    """See the module; the `Runner` of the futures of a pool.

    Args:
        engine, queue, direct: do it.
        pool: has the decoder, once it is open, and the timers.
    """

    def __init__(self, engine: Engine, queue: JobQueue, direct: Direct, pool: Later) -> None:
        self._engine = engine
        self._queue = queue
        self._direct = direct
        self._pool = pool

    def run(self, call: Call) -> Any:
        """Run a call, as often as its options say, and return its result.

        Raises:
            As `Engine.run`; besides this, what the call raises.
        """
        if call.dialogue is None:
            return result_of(call, self._engine.run, self._pool)
        try:
            return result_of(call, self._engine.run, self._pool)
        finally:
            call.dialogue.close()

    def enqueue(self, job: Job) -> None:
        """Send a job to an idle worker, or let it wait for one.

        Raises:
            PoolClosed, TooManyWaiting: the pool takes no calls, or not so many.
        """
        job.future._runner, job.future._job = self, job
        if not self._direct.send(job):
            self._queue.enqueue(job)
            if job.call.options.queue_timeout:
                self._pool.call_later(job.call.options.queue_timeout, partial(self._queue.tire, job))
        if job.call.deadline is not None:
            job.timer = self._pool.call_later(job.call.deadline - monotonic(), partial(self._queue.expire, job))
            if job.future.done():  # meanwhile; nobody else will forget the timer then
                job.timer.cancel()

    def stop(self, job: Job) -> bool:
        """Cancel a job whose future is RUNNING; return False when it has ended meanwhile."""
        return self._queue.stop(job)

    def repeat(self, job: Job) -> None:
        """Run a job again."""
        job.reply = job.ticket = job.reader = job.place = None  # as if nobody had ever sent it
        self._queue.requeue([job])

    def read(self, job: Job, timeout: float | None) -> None:
        """Read the reply of a job in this thread, if nobody else does yet.

        One that waits for a worker which waits for an answer of this very thread is run there, now.
        """
        place = self._queue.place_within(job) if serving.get() else None
        if place is None:
            self._direct.read(job, timeout)
        elif job.begin():
            try:
                frame = self._engine.run_within(place, job.call)
            except VenvoyError as error:
                job.fail(error)
            except BaseException:
                job.fail(job.cancelled_error())
                raise
            else:
                self._pool.decoder.complete(job, frame)
