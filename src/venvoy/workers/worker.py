"""One child as the host sees it: its process, its control line, its start and its end, and its lanes.

Owns why it is to end, and the counts of what it has done. What it is doing is what its lanes do, and calls are theirs
(see `lane`); a worker has one lane, or as many as it runs calls at once.
"""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Protocol

from venvoy_worker.contract import messages
from venvoy_worker.contract.frames import Frame
from venvoy_worker.contract.loans import Loans

from .. import collector as _collector
from ..collector import Collector, Timers
from ..processes.process import Process, Sink, StatusPage, explain
from . import memory_kills
from .authors import Authors
from .ends import ControlLine, Ends
from .lane import Lane
from .limits import Limits
from .start import Launcher, Recipe, Start
from .state import Reason, State
from .talk import Responder

_KEPT_DURATIONS = 256
EXIT_SECONDS = 1.0  # how long a worker whose channel broke may take to be seen exiting
_BUSIEST_FIRST = (State.BUSY, State.ABANDONED, State.IDLE)


class Listener(Protocol):
    """Who is told about a worker; all of it on the collector thread, none of it may block."""

    def worker_ready(self, worker: Worker) -> None:
        """It has greeted and may serve."""

    def lane_answered(self, lane: Lane) -> None:
        """What `arm` waited for has come, or did so before it was disarmed; or nothing will come any more."""

    def lane_freed(self, lane: Lane, is_clean: bool) -> None:
        """An abandoned exchange has ended; `is_clean` says that its user code is known to be gone."""

    def lane_lost(self, lane: Lane) -> None:
        """The grace period of a call is over, and it has not ended; others may be running on the worker."""

    def worker_exited(self, worker: Worker) -> None:
        """Its process is gone and reaped."""

    @property
    def router(self) -> Router:
        """What gets all that it prints and logs."""

    @property
    def responder(self) -> Responder:
        """What answers while a call runs."""


class Router(Protocol):
    """Where output goes; nothing of it may block."""

    def sink(self, worker: Worker, stream: str) -> Sink | None:
        """Return what gets each chunk of its stdout or stderr, on whatever thread reads."""

    def relog(self, worker: Worker, frame: Frame) -> None:
        """On the collector thread: its code has logged something."""


class Worker:
    """A child process that speaks the protocol.

    Args:
        number: its id in the pool.
        slot: which of the places of the pool it takes; the one who replaces it takes the same.
        generation: how often the pool had been reloaded when it was made.
        concurrency: how many calls it runs at once.
    """

    recipe: Recipe  # these from `start()` on
    process: Process
    control: ControlLine
    page: StatusPage
    loans: Loans
    birth: Start
    _ends: Ends
    _kills_before: memory_kills.Kills

    def __init__(
        self,
        number: int,
        collector: Collector,
        listener: Listener,
        slot: int = 0,
        generation: int = 0,
        concurrency: int = 1,
    ) -> None:
        self.id = number
        self.slot = slot
        self.generation = generation
        self.listener = listener
        self.reason: Reason | None = None  # why it is to end as soon as it is free
        self.due: Reason | None = None  # why it is to end as soon as others can do its work
        self.limits: Limits | None = None
        self.is_aside = False  # it takes no calls from the queue: it is, or is to become, one user's alone,
        self.occupant: Any = None  # who then has this ticket
        self.is_leased = False  # whoever holds it may do so for ever
        self.born = monotonic()
        self.ready_at: float | None = None
        self.is_announced = False  # its listener has told of its spawn
        self.calls = 0
        self.durations: deque[int] = deque(maxlen=_KEPT_DURATIONS)  # of recent calls, in microseconds
        self.suitors: deque[Any] = deque()  # tickets of those who wait for this very worker, see `pool.pinned`
        self.is_suitors_turn = False
        self.tenants: set[int] = set()  # handles of objects in it for whose sake it is not replaced
        self.residence: Any = None  # what knows them, see `references`
        self.authors = Authors(concurrency)
        self.oom_hint = ""  # once it has exited; and who held a lane then, and has not let go of it
        self.held: set[Lane] = set()
        self._collector = collector
        self._timers = Timers(collector)
        self.lanes = tuple([Lane(self, index, collector) for index in range(concurrency)])

    # --- start ----------------------------------------------------------------------------

    def start(self, recipe: Recipe, launch: Launcher) -> None:
        """Let the process be made and greet it; `worker_ready` or `worker_exited` will follow.

        Args:
            recipe: what it is made of.
            launch: makes it.

        Raises:
            OSError: the process cannot be started; the text names a limit that was hit. Besides this, as `launch`.
        """
        self._kills_before = memory_kills.read()
        self.recipe = recipe
        self.limits = Limits.of(recipe.options)
        router = self.listener.router
        sinks = (router.sink(self, "stdout"), router.sink(self, "stderr"))
        with _collector.opening:
            try:
                start = partial(launch, self.recipe, self._collector, sinks, self._on_exit)
                ends = self._ends = Ends(start, len(self.lanes))
            except OSError as error:
                raise explain(error) from error
            self.control, self.page, self.process = ends.control, ends.page, ends.process
            for lane, channel in zip(self.lanes, ends.channels, strict=True):
                lane.open(channel, recipe.is_attributed)
            _collector.tell_after_fork(self)
        self.loans = Loans(self.control, recipe.options.segments, self._hear_now)
        self.birth = Start(ends, self.recipe, self._collector, self._on_ready, self._on_said)
        self.birth.begin()

    def _on_ready(self) -> None:
        if self.birth.shares_memory:
            self.control.loans = self.loans
        for lane in self.lanes:
            lane.expect(self.control.loans)
        self.listener.worker_ready(self)

    def _hear_now(self) -> bool:
        """Where a frame needs a segment: on the collector thread, read what is said of it; no other thread may."""
        is_ours = threading.get_ident() == self._collector.thread.ident
        if is_ours:
            self.control.read(self._collector)
        return is_ours

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Run a callback on the collector thread. Takes no lock: finalizers may call it."""
        self._collector.call_soon(callback)

    def call_later(self, delay: float, callback: Callable[[], object]) -> None:
        """Run a callback on the collector thread in so many seconds, unless the worker has exited before."""
        self._timers.later(delay, callback)

    @property
    def state(self) -> State:
        """What it is doing: the busiest of its lanes says so."""
        states = [lane.state for lane in self.lanes]
        return next((state for state in _BUSIEST_FIRST if state in states), states[0])

    @property
    def is_done(self) -> bool:
        """True when none of its lanes takes a call or runs one that may still be of use."""
        return all(lane.is_lost or lane.state in (State.RETIRING, State.EXITED) for lane in self.lanes)

    @property
    def is_stuck(self) -> bool:
        """True when a call runs on it that has not stopped in time."""
        return any(lane.is_lost and lane.state is not State.RETIRING for lane in self.lanes)

    @property
    def was_condemned(self) -> bool:
        """True when it was ended because a call on it did not stop."""
        exit = self.process.exit
        return exit is not None and exit.is_ours and any(lane.is_lost for lane in self.lanes)

    @property
    def has_served(self) -> bool:
        """True when a call has been begun on it."""
        return any(lane.has_served for lane in self.lanes)

    def _on_said(self, frame: Frame) -> None:
        if frame.opcode == messages.RECORD:
            self.listener.router.relog(self, frame)
        else:
            stream = "stderr" if frame.flags & messages.FLAG_STDERR else "stdout"
            self.process.outputs[stream].put(bytes(frame.body), (frame.call_id, self.authors.name_of(frame.call_id)))

    # --- ending -----------------------------------------------------------------------------

    def retire(self) -> None:
        """Let it end after what it does now; killed if it is not gone within the grace period."""
        if self.is_stuck and self.is_done:
            self.process.kill_tree()
            return
        self._collector.call_soon(self._say_no_more)
        self._timers.later(self.recipe.grace_period, self.process.kill_tree)

    def _say_no_more(self) -> None:
        """On the collector thread, which sees the exit, so that nobody closes a channel meanwhile."""
        if self.process.exit is None:
            for lane in self.lanes:
                lane.channel.shut_writing()

    def condemn(self) -> None:
        """A call has not stopped in time: end it once the others have ended, or after one more grace period."""
        if self.is_done:
            self.process.kill_tree()
        else:
            self._timers.later(self.recipe.grace_period, self.process.kill_tree)

    def terminate(self) -> None:
        """Cancel what it does, then SIGTERM, then SIGKILL at the end of the grace period."""
        self.reason = self.reason or Reason.KILLED
        if hasattr(self, "process"):  # else who is starting it will see the reason
            for lane in self.lanes:
                lane.cancel()
            self.retire()
            self._timers.later(self.recipe.grace_period / 2, self.process.terminate)

    def kill(self) -> None:
        """End it and its whole process group at once."""
        self.reason = self.reason or Reason.KILLED
        if hasattr(self, "process"):
            self.process.kill_tree()

    # --- the end --------------------------------------------------------------------------

    def _on_exit(self) -> None:
        self._timers.drop()
        self.birth.end()
        for lane in self.lanes:
            lane.end()
        self._ends.close(self._collector)
        exit = self.process.exit
        if exit is not None and exit.signal == signal.SIGKILL and not exit.is_ours:
            self.oom_hint = self._kills_before.hint(memory_kills.read())
        self.listener.worker_exited(self)

    def await_exit(self) -> None:
        """In the thread of a call that lost its worker: wait for the exit to be seen, and make sure there is one."""
        if not self.process.exited.wait(EXIT_SECONDS):
            self.process.kill_tree()  # alive with a broken channel: of no use to anybody
            self.process.exited.wait(EXIT_SECONDS)

    def after_fork_in_child(self) -> None:
        """In a process the host forked: close our ends, so that the worker still sees its host die."""
        for lane in self.lanes:
            lane.channel.close()
        self._ends.close_in_fork()
