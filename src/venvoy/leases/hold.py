"""What a lease holds from its `with` to its end: the ticket of a lane, whose turn it is there, and what was submitted.

Owns the turn: one call, or one stream, at a time on the lane. A stream that is left early keeps it until the collector
thread has read to the call's end.
"""

from __future__ import annotations

import itertools
import threading
from functools import partial
from queue import SimpleQueue
from time import monotonic
from typing import Any

from venvoy_worker.contract.frames import Frame

from ..errors import VenvoyError, WorkerError
from ..exchange import Call, Dialogue
from ..objects.references import Residence
from ..pool.calls import result_of
from ..pool.core import Core
from ..pool.jobs import Job
from ..pool.roster import Ticket
from ..workers.lane import Lane, WorkerLost
from ..workers.nesting import place_on
from ..workers.post_mortem import crash_error

_numbers = itertools.count(1)


class Hold:
    """What a lease and its views share: the ticket, whose turn it is, and the thread that runs what was submitted."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.ticket = Ticket()
        self.ticket.is_whole = core.roster.concurrency > 1
        self.session = f"lease-{next(_numbers)}"
        self.turn = threading.Lock()  # one call at a time on the worker's channel
        self.lane: Lane | None = None
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._residence: Residence | None = None
        self._again: Job | None = None  # its call raised, and is to run once more before any other
        self.stream: LeaseSeat | None = None  # what has its turn now, if that is a stream
        self._is_dropping = False

    def living(self) -> Lane:
        """Return the lane of the worker.

        Raises:
            WorkerError: there is none, or no longer.
        """
        lane = self.lane
        is_astray = self.ticket in self.core.engine.astray  # a call has failed, and the collector is to see to it
        if lane is None or is_astray or self.ticket.lane is not lane or lane.worker.process.exited.is_set():
            raise WorkerError(
                "this lease has no worker: it has not begun, has ended, or a call on it timed out, crashed or was "
                "interrupted"
            )
        return lane

    def run(self, call: Call) -> Any:
        """Run a call when it is its turn, and return its result."""
        try:
            return result_of(call, self._run_once, self.core)
        finally:
            if call.dialogue is not None:
                call.dialogue.close()

    def _run_once(self, call: Call) -> Frame:
        place = place_on((self.living(),))
        if place is not None:  # the worker waits for an answer of this very thread, whose turn it is
            return self.core.engine.run_within(place, call)
        self.check_streams()
        with self.turn:
            self.living()
            return self.core.engine.run_on(self.ticket, call)

    def check_streams(self) -> None:
        """Raise WorkerError while a stream runs: whoever has it may be the very thread that would wait for its end."""
        if self.stream is not None and not self.stream.is_left:
            raise WorkerError("a stream of this lease is open: exhaust it or close it first")

    def residence(self) -> Residence:
        """Return what knows the objects that are made during the lease."""
        if self._residence is None or self._residence.why:
            self._residence = Residence(self.core, self.living().worker, self._run_once, set(), lambda: None)
        return self._residence

    def enqueue(self, job: Job) -> None:
        """Let the thread run a job after those before it.

        Raises:
            WorkerError: there is no worker.
        """
        self.living()
        job.future._runner, job.future._job = self, job
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="venvoy-lease", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def _work(self) -> None:
        job = self._jobs.get()
        while job is not None:
            if self._is_dropping:
                job.cancel()
            elif job.begin():
                self._run_job(job)
            job, self._again = self._again, None  # a thread that waits keeps nothing alive
            if job is None:
                job = self._jobs.get()

    def _run_job(self, job: Job) -> None:
        try:
            with self.turn:
                lane = self.living()
                job.place = (lane, lane.last_id + 1)
                dialogue = job.call.dialogue = job.call.dialogue or Dialogue()
                dialogue.listener = partial(setattr, job.future, "progress")
                frame = self.core.engine.run_on(self.ticket, job.call)
        except VenvoyError as error:
            job.fail(job.cancelled_error() if job.is_given_up else error)
            return
        self.core.decoder.complete(job, frame)

    def stop(self, job: Job) -> bool:
        """Cancel a job whose future is RUNNING; return False when it has ended meanwhile."""
        if job.place is None or job.future.done():
            return False
        job.is_given_up = True
        lane, call_id = job.place
        lane.stop_call(call_id)
        return True

    def repeat(self, job: Job) -> None:
        """Run a job again, from within `_run_job`."""
        self._again = job

    def read(self, job: Job, timeout: float | None) -> None:
        """Nothing: the thread reads."""

    def end(self, is_error: bool) -> None:
        """Finish what was submitted, or drop it after an error, and give the worker back."""
        if self._thread is not None:
            self._is_dropping = is_error
            lane = self.ticket.lane
            if is_error and lane is not None:
                lane.stop_call(lane.last_id)
            self._jobs.put(None)
            self._thread.join()
        stream = self.stream
        if stream is not None:
            stream.leave()
        with self.turn:
            if self._residence is not None:
                self._residence.end("the lease has ended")
            if self.lane is not None:
                worker = self.lane.worker
                worker.is_leased = False
                self.core.check_limits(worker, worker.calls)
            self.lane = None  # at once; the collector takes the worker back a moment later
            self.core.engine.give_up(self.ticket)
            if self.core.staff.gone.is_set():
                self.core.engine.settle()  # the collector may have ended


class LeaseSeat:
    """The turn of a stream on the lane of a lease; see `streams.Seat`.

    It has the turn while `Hold.stream` is this object; whoever finds that no longer so has nothing to give back. So
    each method may be interrupted anywhere, and be called again.
    """

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._lane: Lane | None = None
        self.is_left = False  # by its consumer; the turn comes back when the collector has seen to the rest

    def take(self, call: Call) -> Lane:
        """Wait until it is the stream's turn."""
        hold = self._hold
        hold.check_streams()
        patience = -1.0 if call.deadline is None else max(0.0, call.deadline - monotonic())
        taken: list[bool] = []
        try:
            taken.extend(map(hold.turn.acquire, (True,), (patience,)))  # one call: no interrupt before it is known
            if not taken[0]:
                raise call.timeout_error()
            hold.stream = self
            self._lane = hold.living()
            return self._lane
        except BaseException:
            if taken and taken[0]:
                hold.stream = None
                hold.turn.release()
            raise

    def give_back(self) -> None:
        """The call has ended."""
        if self._lane is not None:
            self._lane.worker.calls += 1
        self._release()

    def leave(self) -> None:
        """Let the collector stop the call; the turn is the lease's again when that has ended. Takes no lock."""
        hold, lane = self._hold, self._lane
        if hold.stream is not self or lane is None:
            return
        self.is_left = True
        if lane.channel.is_torn:
            hold.core.engine.give_up(hold.ticket)
            self._release()
        else:
            lane.road.drain(lane.open_call, self._release)

    def lose(self, lost: WorkerLost, may_repeat: bool) -> None:
        """The worker is gone, and with it the lease."""
        engine = self._hold.core.engine
        engine.give_up(self._hold.ticket)
        self._release()
        lost.worker.await_exit()
        raise crash_error(lost) from None

    def _release(self) -> None:
        hold = self._hold
        if hold.stream is self:
            hold.stream = None  # no call, and so no interrupt, before the next
            hold.turn.release()
