"""A pool without its face: the parts put together, their threads started and stopped.

Owns the pool's share of the process-wide threads (collector, notifier), its supervisor and its drivers. It holds no
reference to the `Pool` object, so that dropping that one can end this one.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from venvoy_worker.contract import reducers

from .. import collector as _collector
from .. import notifier as _notifier
from ..aio.latch import Latch
from ..collector import Collector
from ..envs import Cancel, Env, EnvLease, hold, home_folder
from ..errors import PoolError
from ..events import Event, Kind
from ..notifier import Notifier
from ..options import Size, WorkerOptions
from ..processes import strays as _strays
from ..values.classes import Classes
from ..workers.state import State
from ..workers.template import Template, check_forkable
from ..workers.turn import Turn
from ..workers.worker import Worker
from .async_calls import AsyncCalls
from .calls import Calls
from .direct import Direct
from .drivers import Drivers
from .engine import Engine
from .job_queue import JobQueue
from .jobs import Decoder, Job
from .opening import Opening
from .output import Router
from .phase import Phase
from .pinned import Pinned
from .recipe import EncodedInitializer, make_recipe
from .renewal import Renewal
from .responder import Responder
from .roster import ErrorMaker, Roster, Rules
from .sources import Sources
from .staff import Staff
from .supervisor import Opened, Supervisor
from .templates import Templates
from .watch import Watcher, code_places, forget_bytecode

JOIN_SECONDS = 2.0
_EXIT_PATIENCE = 0.4  # seconds that workers get at interpreter exit before they are killed


@dataclass(frozen=True)
class Setup:
    """What a pool was told besides its size, environment and workers.

    Args:
        initializer: kind, name, definition and encoded arguments, or None.
        home, progress, build_timeout: as in `build`.
        on_event: is told of changes, on the notifier thread.
        label: of a named worker.
        watch: reload when the code changes.
        classes: names of the classes that results may become.
        is_safe: replies are decoded with an allow-list.
        sources: that every worker has; shared with named workers.
        expose: functions of the host's that running calls may call, by name.
        templates: what a named worker is forked from, if it is its pool's.
    """

    rules: Rules = field(default_factory=Rules)
    initializer: EncodedInitializer | None = None
    home: Any = None
    progress: Callable[[Any], object] | None = None
    build_timeout: float = 600.0
    on_event: Callable[[Event], object] | None = None
    label: str | None = None
    watch: bool = False
    classes: tuple[str, ...] = ()
    is_safe: bool = False
    sources: Sources = field(default_factory=Sources)
    expose: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    templates: Templates | None = None


class Core:
    """See the module.

    Args:
        size: how many workers.
        name: for messages.
        env: what `envs.resolve` accepts.
        module: where bare target names live, or "".
        options: of the workers.
        setup: the rest.

    Raises:
        PoolError: this system cannot fork workers.
    """

    def __init__(
        self, size: Size, name: str, env: Any, module: str, options: WorkerOptions, setup: Setup = Setup()
    ) -> None:
        if options.start == "zygote":
            check_forkable()
        self._env, self.module, self.options, self.setup = env, module, options, setup
        self.gathering = Turn()  # of who takes several leases
        self.roster = Roster(size, name, setup.rules, options.concurrency)
        self.queue = JobQueue(self.roster, self)
        self.engine = Engine(self.roster, self.queue, self)
        self.pinned = Pinned(self.roster, self.engine, self.queue, self)
        self.direct = Direct(self.roster, self.engine, self.queue, self, lambda: self.decoder)
        self.calls = Calls(self.engine, self.queue, self.direct, self)
        self.opening = Opening(self.roster, self)
        self.async_calls = AsyncCalls(self.engine, self.queue, self.opening, self)
        self.renewal = Renewal(self.roster, self)
        self._router = Router(options.output, name)
        is_home = env is None or getattr(env, "is_current", False)
        self.table = reducers.HOME if is_home else reducers.ARGUMENTS  # how arguments are encoded
        self.responder = Responder(
            setup.expose, self.table, lambda: self.decoder, lambda tell: self._notifier.post_output(tell, 0)
        )
        self.staff = Staff(self.roster, self.queue, self, self._router, self.direct.answered, self.responder)
        self.decoder: Decoder = Decoder(Classes(is_home, setup.classes, setup.is_safe))
        self.env: Env | None = None
        self.templates = setup.templates  # what workers are forked from, if they are, once the pool is open
        self.on_open: Callable[[], object] = lambda: None  # before the first worker is started
        self.on_reload: Callable[[], object] = lambda: None  # after the workers have been replaced
        self._watcher: Watcher | None = None
        self._env_lease: EnvLease | None = None  # nobody removes the environment before the pool is gone
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
            parts = (self.opening, self.staff, self.renewal, self._drivers)
            self._supervisor = Supervisor(self.roster.name, *parts, collector, self._open)
            self._collector = collector

    def all_gone(self) -> None:
        """Nothing of the pool is left: stop its threads, let the environment go."""
        with self._start_lock:
            if self._collector is None or self._threads:
                return
            self._supervisor.close()
            if self._watcher is not None:
                self._watcher.stop()
            self._threads = [self._supervisor.thread, *self._drivers.threads]
            self._threads += filter(None, (*_collector.let_go(), *_notifier.let_go(), _strays.walker()))
            if self._env_lease is not None:
                self._env_lease.release()

    def join(self, timeout: float | None) -> bool:
        """Wait until nothing of the pool is left, its threads included; False when that takes too long."""
        if threading.current_thread() in self._own_threads():
            return False  # a future's callback: it would wait for itself
        if not self.staff.gone.wait(timeout):
            return False
        self.all_gone()  # whoever has set the event is about to do the same, and may be later than we are
        deadline = monotonic() + JOIN_SECONDS
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

    # --- hands ------------------------------------------------------------------------------

    def attend(self) -> None:
        """See, soon, whether the pool is to be opened or workers are to be started."""
        if self._collector is None:
            self._start()
        if self._collector is not None:
            self._supervisor.attend()

    def mend(self) -> None:
        """Let the collector thread call `Engine.settle`, soon."""
        self.call_soon(self.engine.settle)

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Run a callback on the collector thread, while there is one. Takes no lock: finalizers may call it."""
        collector = self._collector
        if collector is not None:
            collector.call_soon(callback)

    def emit(self, kind: Kind, worker: Worker | Template | None = None, detail: str = "") -> None:
        """Tell `on_event` of a change; it runs on the notifier thread, in order."""
        tell = self.setup.on_event
        if tell is None or self._collector is None:
            return
        pid = worker.process.pid if worker is not None and hasattr(worker, "process") else None
        reason = worker.reason.value if worker is not None and worker.reason is not None else None
        number = worker.id if isinstance(worker, Worker) else None
        event = Event(kind, self.roster.name, number, pid, self.setup.label, reason, detail)
        self._notifier.post_output(lambda: tell(event), 0)  # never dropped, and in order

    def check_limits(self, worker: Worker, calls: int) -> None:
        """See whether a worker, by whoever holds it, has done enough with so many calls."""
        self.renewal.check(worker, calls)

    def check_gone(self) -> None:
        """See whether a closing pool has nothing left."""
        self.staff.check_gone()

    def fail(self, jobs: Iterable[Job], error: ErrorMaker) -> None:
        """Complete futures with an error, on the thread for completions."""
        for job in jobs:
            self._notifier.post(lambda job=job: job.fail_aside(error()))  # type: ignore[misc]

    def _open(self, cancel: Cancel) -> Opened:
        setup = self.setup
        env, lease = hold(
            self._env, home=setup.home, progress=setup.progress, timeout=setup.build_timeout, cancel=cancel
        )
        self.env, self._env_lease = env, lease
        if self._threads:  # closed meanwhile
            lease.release()
        classes = Classes(env.is_current, setup.classes, setup.is_safe)
        self.decoder = Decoder(classes)
        home = Path(home_folder(setup.home))
        if setup.watch and self._watcher is None:
            places = code_places(self.options, self.module, env)
            with self._start_lock:
                self._watcher = Watcher(places, self.reload, self.roster.name)
                if self._threads:  # it was closed meanwhile
                    self._watcher.stop()
        self.on_open()
        recipes = partial(make_recipe, env, self.options, home, self.module, setup.initializer, classes, setup.sources)
        if self.options.start == "zygote" and self.templates is None:
            assert self._collector is not None
            self.templates = Templates(self.roster, self, partial(recipes, None), self._router, self._collector)
        return Opened(recipes, self.templates)

    def reload(self) -> int:
        """Replace the workers by fresh ones with the code as it is now; return how many are ready.

        Raises:
            WorkerStartError: the first fresh one did not start; the old ones go on serving.
        """
        if self.env is not None:
            forget_bytecode(code_places(self.options, self.module, self.env))
        ready = self.renewal.reload(self.options.start_timeout)
        for worker in self.staff.known():
            if (worker.is_leased or worker.tenants) and worker.generation < self.roster.generation:
                self.emit("outdated", worker, "it is leased, or has objects, and keeps the code it has loaded")
        self.on_reload()
        return ready

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

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        """Take no more calls; end when the work is done."""
        for job in self.staff.close(drop_waiting=cancel_futures):
            job.cancel()
        if wait:
            self.join(None)

    def close(self, timeout: float | None) -> None:
        """End within a bounded time."""
        self.staff.stop()
        patience = self.options.grace_period if timeout is None else timeout
        if not self.join(patience) and threading.current_thread() not in self._own_threads():
            self.staff.end()
            self.join(JOIN_SECONDS)

    def abort(self, why: str) -> int:
        """End everything now; return how many waiting calls were dropped."""
        self.roster.is_ending = True
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
        parts = (self.engine, self.queue, self.direct, self.pinned, self.staff, self.opening, self.renewal)
        for part in parts:
            part._lock = lock
        self.roster.lock = lock
        self._start_lock = threading.Lock()
        self.gathering = Turn()
        self.renewal._turn, self.setup.sources.turn = threading.Lock(), threading.Lock()
        self._collector = None
        self.roster.phase = Phase.CLOSED
        self.roster.closed_why = f"pool {self.roster.name!r} belongs to the process that this one was forked from"
        self.staff.gone = Latch()  # the old one's lock may be held by a thread that is not here
        self.staff.gone.set()


def drop(core: Core) -> None:
    """From a finalizer: end a pool when its work is done. Takes no lock."""
    core.call_soon(partial(core.staff.close, drop_waiting=False))


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
