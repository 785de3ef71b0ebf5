"""One child as the host sees it: its state, its channels, and the road on which a call is stopped.

Owns its state and the ids of the calls on its channel. Laws: `move` is called under the engine's lock; an illegal
move raises; the call channel is read by whoever holds the worker (BUSY: a driver, ABANDONED and STARTING: the
collector) and closed by the holder, or by the collector where there is none.
"""

from __future__ import annotations

import signal
from collections import deque
from functools import partial
from time import monotonic
from typing import Protocol

from venvoy_worker.contract import codec, messages
from venvoy_worker.contract.channel import Channel
from venvoy_worker.contract.frames import Frame, FrameError

from . import collector as _collector
from . import memory_kills
from .collector import Collector, Timers
from .errors import EncodingError, ProtocolError
from .exchange import Call, Pieces, SourceMemory, ends
from .limits import Limits
from .process import Process, Sink, StatusPage, explain
from .worker_ends import ControlLine, Ends
from .worker_start import Recipe, Start, spawn
from .worker_state import MOVES, Reason, State

_KEPT_DURATIONS = 256
_WEIGHT = 0.2  # of the newest call in the moving average
EXIT_SECONDS = 1.0  # how long a worker whose channel broke may take to be seen exiting


class Listener(Protocol):
    """Who is told about a worker; all of it on the collector thread, none of it may block."""

    def worker_ready(self, worker: Worker) -> None:
        """It has greeted and may serve."""

    def worker_answered(self, worker: Worker) -> None:
        """What `arm` waited for has come, or did so before it was disarmed."""

    def worker_freed(self, worker: Worker, is_clean: bool) -> None:
        """An abandoned exchange has ended; `is_clean` says that its user code is known to be gone."""

    def worker_exited(self, worker: Worker) -> None:
        """Its process is gone and reaped."""

    @property
    def router(self) -> Router:
        """What gets all that it prints and logs."""


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
    """

    recipe: Recipe  # these from `start()` on
    process: Process
    channel: Channel
    control: ControlLine
    page: StatusPage
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
    ) -> None:
        self.id = number
        self.slot = slot
        self.generation = generation
        self.state = State.STARTING
        self.reason: Reason | None = None  # why it is to end as soon as it is free
        self.due: Reason | None = None  # why it is to end as soon as others can do its work
        self.limits: Limits | None = None
        self.is_leased = False  # whoever holds it may do so for ever
        self.born = monotonic()
        self.ready_at: float | None = None
        self.is_announced = False  # its listener has told of its spawn
        self.calls = 0
        self.mean_seconds: float | None = None  # of recent calls, as the worker measured them
        self.durations: deque[int] = deque(maxlen=_KEPT_DURATIONS)  # of recent calls, in microseconds
        self.call_name = ""  # the target of the call that was begun last
        self.last_id = 0
        self.open_call = 0  # the call that a blocked caller has begun here and not seen the end of
        self._sends_before = 0  # of the channel, when it was begun
        self.direct: object = None  # the job of `pool.direct` that is on it
        self.author = (0, "")  # id and target of the call that what it prints belongs to, if anybody wants to know
        self.oom_hint = ""  # once it has exited
        self._sources = SourceMemory()
        self._collector = collector
        self._listener = listener
        self._timers = Timers(collector)

    # --- start ----------------------------------------------------------------------------

    def start(self, recipe: Recipe) -> None:
        """Spawn the process and greet it; `worker_ready` or `worker_exited` will follow.

        Args:
            recipe: what it is made of.

        Raises:
            OSError: the process cannot be started; the text names a limit that was hit.
        """
        self._kills_before = memory_kills.read()
        self.recipe = recipe
        self.limits = Limits.of(recipe.options)
        self.is_attributed = recipe.is_attributed
        router = self._listener.router
        sinks = (router.sink(self, "stdout"), router.sink(self, "stderr"))
        with _collector.opening:
            try:
                ends = self._ends = Ends(partial(spawn, self.recipe, self._collector, sinks, self._on_exit))
            except OSError as error:
                raise explain(error) from error
            self.channel, self.control, self.page, self.process = ends.channel, ends.control, ends.page, ends.process
            _collector.tell_after_fork(self)
        self.birth = Start(ends, self.recipe, self._collector, self._on_ready, partial(router.relog, self))
        self.birth.begin()

    def _on_ready(self) -> None:
        self.channel.parser.last = None  # its greeting
        self._collector.expect(self.channel.fileno(), lambda: self._listener.worker_answered(self))
        self._listener.worker_ready(self)

    # --- state and calls ------------------------------------------------------------------

    def arm(self) -> None:
        """Let `worker_answered` be told, once, when its reply comes.

        Raises:
            OSError, ValueError: it is gone.
        """
        self._collector.arm(self.channel.fileno())

    def disarm(self) -> None:
        """Undo `arm`; the listener may still be told.

        Raises:
            OSError, ValueError: it is gone.
        """
        self._collector.disarm(self.channel.fileno())

    def move(self, state: State, reason: Reason | None = None) -> None:
        """Change the state, under the engine's lock.

        Raises:
            RuntimeError: the table does not allow it, which is a defect of venvoy.
        """
        if state not in MOVES[self.state]:
            raise RuntimeError(f"worker {self.id}: illegal move from {self.state.name} to {state.name}")
        self.state = state
        if reason is not None and self.reason is None:
            self.reason = reason

    def begin(self, call: Call) -> tuple[int, Pieces]:
        """Give a call its id here; return it and the pieces to be written.

        Raises:
            EncodingError: its source text or its target does not fit into a frame.
        """
        call_id = self.open_call = self.last_id = self.last_id + 1
        self._sends_before = self.channel.sends
        self.call_name = call.name
        try:
            pieces = call.request(call_id)
            if call.definition is not None:
                pieces = self._sources.pieces_for(call.definition) + pieces
        except (FrameError, codec.CodecError) as error:
            self.open_call = 0
            raise EncodingError(f"{call.name[:200]}: {error}") from error
        if self.is_attributed:
            self.author = (call_id, call.name)
        return call_id, pieces

    def run(self, call: Call) -> Frame:
        """Run a call and wait for its reply in this thread: the blocking driver.

        Raises:
            TimeoutError: the call's deadline passed. The worker has to be settled then, as after any error.
            WorkerLost: the worker is gone, or its channel is broken.
        """
        call_id, pieces = self.begin(call)
        channel, deadline = self.channel, call.deadline
        try:
            channel.send(pieces, deadline)
            while True:
                frame = channel.receive(deadline)
                if frame is None:
                    raise WorkerLost(self, call, call_id)
                if ends(frame, call_id):
                    self.open_call = 0
                    channel.parser.last = None
                    self.durations.append(frame.number)
                    if self.is_attributed:
                        _end_output(self)
                    return frame
        except TimeoutError:
            raise
        except (OSError, FrameError, ProtocolError) as error:
            raise WorkerLost(self, call, call_id) from error

    @property
    def was_sent(self) -> bool:
        """True when the call that was begun last has been written, by a thread that may have been interrupted then."""
        return self.channel.sends > self._sends_before

    def note_duration(self, frame: Frame) -> float:
        """Return the seconds that a call took in the worker, as its reply says; they go into `mean_seconds`."""
        self.durations.append(frame.number)
        if self.is_attributed:
            _end_output(self)
        seconds, mean = frame.number * 1e-6, self.mean_seconds
        self.mean_seconds = seconds if mean is None else mean + _WEIGHT * (seconds - mean)
        return seconds

    # --- stopping -------------------------------------------------------------------------

    def stop_call(self, call_id: int) -> None:
        """The one road: cancel now, once more after a quarter of the grace period, kill at its end."""
        grace = self.recipe.grace_period
        self.control.say(messages.CANCEL, call_id)
        self._timers.later(grace / 4, lambda: self._insist(call_id, is_last=False))
        self._timers.later(grace, lambda: self._insist(call_id, is_last=True))

    def _insist(self, call_id: int, is_last: bool) -> None:
        is_running = self.page.finished < call_id == self.page.started
        if not is_last and is_running:
            self.control.say(messages.CANCEL, call_id)
        if is_last and (is_running or (self.state is State.ABANDONED and self.last_id == call_id)):
            self.process.kill_tree()

    def abandon_call(self, is_to_stop: bool) -> None:
        """On the collector thread: stop the call whose driver left, if it is to stop, and read until it has ended."""
        call_id = self.last_id
        if is_to_stop:
            self.stop_call(call_id)
        if self.state is State.ABANDONED:
            self._collector.watch(self.channel.fileno(), lambda: self._on_abandoned(call_id))
            self._on_abandoned(call_id)  # the reply may be here, and no byte more will come

    def _on_abandoned(self, call_id: int) -> None:
        frame = self.channel.parser.last  # that the driver may not have got to see
        try:
            while frame is None or frame.opcode not in messages.TERMINAL or frame.call_id != call_id:
                frame = self.channel.try_receive()
                if frame is None:
                    return
        except (EOFError, OSError, FrameError):
            self._collector.unwatch(self.channel.fileno())
            self._timers.later(EXIT_SECONDS, self.process.kill_tree)  # usually it is exiting already
            return
        self._collector.unwatch(self.channel.fileno())
        self._timers.drop()
        self.channel.parser.last = None
        if self.is_attributed:
            _end_output(self)
        self._listener.worker_freed(self, not frame.flags & messages.FLAG_DIRTY)

    def retire(self) -> None:
        """Let it end after what it does now; killed if it is not gone within the grace period."""
        self.channel.shut_writing()
        self._timers.later(self.recipe.grace_period, self.process.kill_tree)

    def terminate(self) -> None:
        """Cancel what it does, then SIGTERM, then SIGKILL at the end of the grace period."""
        self.reason = self.reason or Reason.KILLED
        if hasattr(self, "process"):  # else who is starting it will see the reason
            self.control.say(messages.CANCEL, self.page.started)
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
        self._collector.unexpect(self.channel.fileno())
        self._collector.unwatch(self.channel.fileno())  # an abandoned call's
        self.channel.shut()  # whoever reads wakes, even if a forked process holds the other end
        self._ends.close(self._collector)
        exit = self.process.exit
        if exit is not None and exit.signal == signal.SIGKILL and not exit.is_ours:
            self.oom_hint = self._kills_before.hint(memory_kills.read())
        self._listener.worker_exited(self)

    def await_exit(self) -> None:
        """In the thread of a call that lost its worker: wait for the exit to be seen, and make sure there is one."""
        if not self.process.exited.wait(EXIT_SECONDS):
            self.process.kill_tree()  # alive with a broken channel: of no use to anybody
            self.process.exited.wait(EXIT_SECONDS)

    def after_fork_in_child(self) -> None:
        """In a process the host forked: close our ends, so that the worker still sees its host die."""
        self.channel.close()
        self._ends.close_in_fork()


def _end_output(worker: Worker) -> None:
    """The call has ended: what is in the pipes was written before its reply was, so it is its own."""
    for output in worker.process.outputs.values():
        output.drain()
    worker.author = (0, "")


class WorkerLost(Exception):
    """The worker that ran a call is gone: an event for the pool, which retries the call or makes an error of it."""

    def __init__(self, worker: Worker, call: Call, call_id: int) -> None:
        super().__init__(worker.id)
        self.worker = worker
        self.call = call
        self.call_id = call_id

    @property
    def started(self) -> bool:
        """False when the call's code cannot have run."""
        return self.worker.page.started >= self.call_id
