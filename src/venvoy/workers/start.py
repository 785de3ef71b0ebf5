"""The start of a worker: from a recipe to READY, or to what stands in the way.

Owns the start's deadline and what the child answered. All of it runs on the collector thread, except `begin`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

from venvoy_worker.contract import codec, frames, messages
from venvoy_worker.contract.frames import Frame, FrameError

from ..collector import Collector, Timers
from ..options import WorkerOptions
from ..processes import strays
from ..processes.process import Process, Sink, Spawned
from .ends import Ends

Lanes = list[tuple[int, ...]]
_STACK_SECONDS = 0.5  # how long a worker that is to be killed may take to say where it is


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything needed to start one more worker of a pool, the same each time."""

    python: str
    environment: str  # its key, for reports
    flags: tuple[str, ...]
    main_file: str
    pycache: str
    slot: int | None  # None for a template, from which those of all slots are forked
    environ: dict[str, str]
    env_vars: frozenset[str]  # the names in it that were asked for
    cwd: str | None
    settings: Callable[[], dict[str, Any]]
    options: WorkerOptions

    @property
    def is_attributed(self) -> bool:
        """True when somebody wants to know which call wrote what."""
        return self.options.attributes_output

    @property
    def keep(self) -> int:
        """Bytes of each stream that are kept."""
        return self.options.output_tail_bytes

    @property
    def grace_period(self) -> float:
        """Seconds between asking and SIGKILL."""
        return self.options.grace_period

    @property
    def start_timeout(self) -> float:
        """Seconds from the start until it must be ready."""
        return self.options.start_timeout


def command_line(lanes: Lanes, others: Sequence[int]) -> list[str]:
    """Return the arguments by which a worker knows the descriptors it inherits, as `spawn` has them."""
    return [":".join([",".join(map(str, lane)) for lane in lanes]), *map(str, others)]


def spawn(
    recipe: Recipe,
    collector: Collector,
    sinks: tuple[Sink | None, Sink | None],
    on_exit: Callable[[], object],
    lanes: Lanes,
    others: tuple[int, int, int],
    mode: tuple[str, ...] = (),
) -> Process:
    """Start the process of a worker with the descriptors it inherits.

    Args:
        lanes: those of each call channel, one for both directions or (to read, to write).
        others: control, lifeline, status page.
        mode: further arguments on its command line.

    Raises:
        OSError: it cannot be started.
    """
    argv = [recipe.python, *recipe.flags, recipe.main_file, recipe.pycache, *command_line(lanes, others), *mode]
    inherited = [*(fd for lane in lanes for fd in lane), *others]

    def launch(mark: str, outputs: tuple[int, int]) -> Spawned:
        return Spawned(argv, {**recipe.environ, strays.VARIABLE: mark}, recipe.cwd, inherited, outputs)

    return Process(
        launch,
        keep=recipe.keep,
        sinks=sinks,
        on_exit=on_exit,
        collector=collector,
    )


Launcher = Callable[
    [Recipe, Collector, tuple[Sink | None, Sink | None], Callable[[], object], Lanes, tuple[int, int, int]], Process
]
"""Makes the process of a worker, as `spawn` does."""


class Start:
    """One worker's start.

    Args:
        ends: connected to the process.
        on_ready: called once when it is ready; when it is not, the process is killed, and its exit says so.
        on_record: called with each RECORD, for the whole life of the worker.
        on_other: called with each other frame on the control line that is not about the start.
        ask_where: makes it say where it is, once it is too late.
    """

    def __init__(
        self,
        ends: Ends,
        recipe: Recipe,
        collector: Collector,
        on_ready: Callable[[], object],
        on_record: Callable[[Frame], object],
        on_other: Callable[[Frame], object] | None = None,
        ask_where: Callable[[], object] | None = None,
    ) -> None:
        self.frame: Frame | None = None  # READY, or the ERROR in its place
        self.stack: Frame | None = None  # where the main thread was when the time was over
        self.is_late = False
        self._ends = ends
        self._recipe = recipe
        self._collector = collector
        self._on_ready = on_ready
        self._on_record = on_record
        self._on_other = on_other
        self._ask_where = ask_where or partial(ends.control.say, messages.DUMP)
        self._is_over = False
        self._timers = Timers(collector)

    def begin(self) -> None:
        """Greet the child, and let the collector wait for its answer and for its end."""
        self._ends.process.watch()
        self._collector.call_soon(self._watch)
        self._timers.later(self._recipe.start_timeout, self._on_late)
        body, buffers = codec.encode(self._recipe.settings())
        target = messages.greeting(frames.OLDEST_PROTOCOL, frames.PROTOCOL_VERSION, messages.capabilities())
        hello = frames.pack(messages.HELLO, codec=codec.PICKLE, target=target, body=body, buffers=buffers)
        try:
            self._ends.channels[0].send(hello, monotonic() + self._recipe.start_timeout)
        except (OSError, TimeoutError):  # it died at once, or hangs: the exit watch or the timer will say so
            pass

    @property
    def shares_memory(self) -> bool:
        """True when the worker has said that it can, and so can we."""
        said = "" if self.frame is None else messages.read_greeting(self.frame.target)[2]
        return "segments" in said and "segments" in messages.capabilities()

    def end(self) -> None:
        """Watch no longer, because it is over or because the process has exited."""
        self._is_over = True
        self._timers.drop()
        self._collector.unwatch(self._ends.channels[0].fileno())

    def _watch(self) -> None:
        if not self._is_over:
            self._collector.watch(self._ends.channels[0].fileno(), self._on_readable)
            self._ends.control.listen(self._collector, self._on_control)

    def _on_readable(self) -> None:
        try:
            frame = self._ends.channels[0].try_receive()
        except (EOFError, OSError, FrameError):
            self.end()
            self._timers.later(_STACK_SECONDS, self._ends.process.kill_tree)  # usually it is exiting already
            return
        if frame is None:
            return
        self.frame = frame
        self.end()
        if frame.opcode == messages.READY and _speaks_ours(frame):
            self._on_ready()
        else:
            self._ends.process.kill_tree()  # it has said why; whatever its import left running goes too

    def _on_late(self) -> None:
        self.is_late = True
        self._ask_where()
        self._timers.later(_STACK_SECONDS, self._ends.process.kill_tree)

    def _on_control(self, frame: Frame) -> None:
        if frame.opcode in (messages.RECORD, messages.PRINTED):
            self._on_record(frame)
        elif frame.opcode == messages.STACK and not self._is_over:  # else it became ready at the last moment
            self.stack = frame
            self._ends.process.kill_tree()
        elif self._on_other is not None:
            self._on_other(frame)


def _speaks_ours(ready: Frame) -> bool:
    try:
        oldest, newest, _ = messages.read_greeting(ready.target)
    except ValueError:
        return False
    return oldest <= frames.PROTOCOL_VERSION <= newest
