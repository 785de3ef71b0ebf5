"""A pool without its face: the parts put together, their threads started and stopped.

Owns the pool's share of the process-wide threads (collector, notifier), its supervisor and its drivers. It holds no
reference to the `Pool` object, so that dropping that one can end this one.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from .. import collector as _collector
from .. import notifier as _notifier
from .. import strays as _strays
from ..collector import Collector
from ..envs import Cancel, Env, home_folder, resolve
from ..errors import PoolClosed, PoolError
from ..notifier import Notifier
from ..options import Size, WorkerOptions
from ..worker_start import Recipe
from ..worker_state import State
from .direct import Direct
from .drivers import Drivers
from .engine import Engine
from .job_queue import JobQueue
from .jobs import Decoder, Job
from .output import Router
from .recipe import EncodedInitializer, make_recipe
from .roster import ErrorMaker, Phase, Roster
from .staff import Staff
from .supervisor import Supervisor

_JOIN_SECONDS = 2.0
_EXIT_PATIENCE = 0.4  # seconds that workers get at interpreter exit before they are killed


class Core:
    """See the module.

    Args:
        size: how many workers.
        name: for messages.
        env: what `envs.resolve` accepts.
        module: where bare target names live, or "".
        options: of the workers.
        initializer: kind, name, definition and encoded arguments, or None.
        home, progress, build_timeout: as in `build`.
    """

    def __init__(
        self,
        size: Size,
        name: str,
        env: Any,
        *,
        module: str,
        options: WorkerOptions,
        initializer: EncodedInitializer | None,
        home: Any,
        progress: Callable[[Any], object] | None,
        build_timeout: float,
    ) -> None:
        self._env, self._module, self._options = env, module, options
        self._initializer, self._home = initializer, home
        self._progress, self._build_timeout = progress, build_timeout
        self.roster = Roster(size, name)
        self.queue = JobQueue(self.roster, self)
        self.engine = Engine(self.roster, self.queue, self)
        self.direct = Direct(self.roster, self.engine, self.queue, self, lambda: self.decoder)
        self._router = Router(options.output, name)
        self.staff = Staff(self.roster, self.queue, self, self._router, self.direct.answered)
        self.decoder = Decoder(is_home=False)
        self.env: Env | None = None
        self._start_lock = threading.Lock()  # guards the starting and stopping of the threads below
        self._collector: Collector | None = None
        self._threads: list[threading.Thread] = []
        _collector.tell_after_fork(self)

    # --- threads ----------------------------------------------------------------------------

    def _start(self) -> None:
        """Start the threads, once."""
        with self._start_lock:
            if self._collector is not None or self.staff.gone.is_set():
                return
            _exit_with(self)
            self._notifier: Notifier = _notifier.hold()
            self._drivers = Drivers(self.queue, lambda: self.decoder, self.roster.name)
            collector = _collector.hold()
            self._router.open(self._notifier, collector)
            self._supervisor = Supervisor(self.roster.name, self.staff, self._drivers, collector, self._open)
            self._collector = collector

    def all_gone(self) -> None:
        """Nothing of the pool is left: stop its threads."""
        with self._start_lock:
            if self._collector is not None and not self._threads:
                self._supervisor.close()
                self._threads = [self._supervisor.thread, *self._drivers.threads]
                self._threads += filter(None, (_collector.let_go(), *_notifier.let_go(), _strays.walker()))
            self.staff.gone.set()

    def join(self, timeout: float | None) -> bool:
        """Wait until nothing of the pool is left, its threads included; False when that takes too long."""
        if threading.current_thread() in self._own_threads():
            return False  # a future's callback: it would wait for itself
        if not self.staff.gone.wait(timeout):
            return False
        deadline = monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - monotonic()))
        return True

    def _own_threads(self) -> list[threading.Thread]:
        if self._collector is None:
            return []
        return [self._collector.thread, *self._notifier.threads, self._supervisor.thread, *self._drivers.threads]

    def call_later(self, delay: float, callback: Callable[[], object]) -> _collector.Timer:
        """Run a callback on the collector thread `delay` seconds from now."""
        self._start()
        assert self._collector is not None
        return self._collector.call_later(delay, callback)

    # --- calls with a future ------------------------------------------------------------------

    def enqueue(self, job: Job) -> None:
        """Send a job to an idle worker, or let it wait for one.

        Raises:
            PoolClosed: the pool takes no calls.
        """
        job.future._runner, job.future._job = self, job
        if not self.direct.send(job):
            self.queue.enqueue(job)
        if job.call.deadline is not None:
            job.timer = self.call_later(job.call.deadline - monotonic(), partial(self.queue.expire, job))
            if job.future.done():  # meanwhile; nobody else will forget the timer then
                job.timer.cancel()

    def stop(self, job: Job) -> bool:
        """Cancel a job whose future is RUNNING; return False when it has ended meanwhile."""
        return self.queue.stop(job)

    def read(self, job: Job, timeout: float | None) -> None:
        """Read the reply of a job in this thread, if nobody else does yet."""
        self.direct.read(job, timeout)

    # --- hands ------------------------------------------------------------------------------

    def attend(self) -> None:
        """See, soon, whether the pool is to be opened or workers are to be started."""
        if self._collector is None:
            self._start()
        if self._collector is not None:
            self._supervisor.attend()

    def mend(self) -> None:
        """Let the collector thread call `Engine.settle`, soon."""
        collector = self._collector
        if collector is not None:
            collector.call_soon(self.engine.settle)

    def check_gone(self) -> None:
        """See whether a closing pool has nothing left."""
        self.staff.check_gone()

    def fail(self, jobs: Iterable[Job], error: ErrorMaker) -> None:
        """Complete futures with an error, on the thread for completions."""
        for job in jobs:
            self._notifier.post(lambda job=job: job.fail_aside(error()))  # type: ignore[misc]

    def _open(self, cancel: Cancel) -> Recipe:
        env = resolve(self._env, home=self._home, progress=self._progress, timeout=self._build_timeout, cancel=cancel)
        self.env = env
        self.decoder = Decoder(is_home=env.is_current)
        home = Path(home_folder(self._home))
        return make_recipe(env, self._options, home, self._module, self._initializer)

    def output(self, number: int | None, stream: str | None) -> str:
        """Return the last output of one worker, or of all there are, as text.

        Raises:
            LookupError: there is no such worker or stream.
        """
        if stream not in (None, "stdout", "stderr"):
            raise LookupError(f"a worker has the streams 'stdout' and 'stderr', not {stream!r}")
        workers = self.staff.known() if number is None else [self.staff.find(number, with_exited=True)]
        return "".join(worker.process.tail_text(stream) for worker in workers if hasattr(worker, "process"))

    # --- ending -----------------------------------------------------------------------------

    def drop(self) -> None:
        """From a finalizer: end when the work is done. Takes no lock."""
        collector = self._collector
        if collector is not None:
            collector.call_soon(lambda: self.staff.close(drop_waiting=False))

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        """Take no more calls; end when the work is done."""
        for job in self.staff.close(drop_waiting=cancel_futures):
            job.cancel()
        if wait:
            self.join(None)

    def close(self, timeout: float | None) -> None:
        """End within a bounded time."""
        for job in self.staff.close(drop_waiting=True):
            job.fail(PoolClosed(self.roster.closed_why))
        patience = self._options.grace_period if timeout is None else timeout
        if not self.join(patience) and threading.current_thread() not in self._own_threads():
            self.staff.kill()
            self.join(_JOIN_SECONDS)

    def abort(self, why: str) -> int:
        """End everything now; return how many waiting calls were dropped."""
        jobs = self.staff.close(drop_waiting=True, why=why)
        dropped = sum(not job.future.cancelled() for job in jobs)
        for job in jobs:
            job.cancel()
        self.staff.kill(State.BUSY, State.ABANDONED, State.STARTING)
        if not self.staff.gone.wait(_EXIT_PATIENCE):
            self.staff.kill()
        self.join(_EXIT_PATIENCE)
        return dropped

    def after_fork_in_child(self) -> None:
        """In a process the host forked: nothing of this pool is ours."""
        lock = threading.Lock()
        self.roster.lock = self.engine._lock = self.queue._lock = self.staff._lock = lock
        self._start_lock = threading.Lock()
        self._collector = None
        self.roster.phase = Phase.CLOSED
        self.roster.closed_why = f"pool {self.roster.name!r} belongs to the process that this one was forked from"
        self.staff.gone = threading.Event()  # the old one's lock may be held by a thread that is not here
        self.staff.gone.set()


def check_platform() -> None:
    """Raise PoolError where workers cannot be run."""
    import os

    if os.name != "posix":
        raise PoolError("venvoy runs workers on Linux (and, untested, macOS); on Windows it can only be imported")


# --- interpreter exit -----------------------------------------------------------------------------

_alive: weakref.WeakSet[Core] = weakref.WeakSet()
_is_registered = False


def _exit_with(core: Core) -> None:
    """End a pool when the interpreter exits: before it waits for threads, which may wait for us."""
    global _is_registered
    _alive.add(core)
    if not _is_registered:
        _is_registered = True
        try:
            threading._register_atexit(_at_exit)  # type: ignore[attr-defined]  # as concurrent.futures does
        except (AttributeError, RuntimeError):
            import atexit

            atexit.register(_at_exit)


def _at_exit() -> None:
    dropped = sum(core.abort("the interpreter is exiting") for core in list(_alive))
    if dropped:
        what = "1 waiting call was" if dropped == 1 else f"{dropped} waiting calls were"
        warnings.warn(f"venvoy: {what} dropped at interpreter exit", RuntimeWarning, stacklevel=1)
