"""The swarm's I/O thread at work: hands blocks to processes that have room, writes, notices ends, applies policies.

Everything here runs on that thread. Laws: a process with room takes next; whatever a process did not receive goes
back to the desk before anything else is decided; the swarm fails once, with the processes as they stood then.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from ..collector import Collector, Timers
from ..errors import FeedStalled, SwarmError
from .blocks import Block
from .child import Child, processor_ticks
from .desk import Desk, State
from .options import Plan
from .report import ProcessReport, summary
from .routes import Routes
from .writer import Writer

_LINGER = 0.004  # seconds in which what is fed next is gathered into one write; the first item goes at once
_SKEW = 1.0  # seconds that a process may leave one channel full while it waits for another one
_MOST_IN_A_TURN = 4 << 20  # bytes for one process before the others get their turn


class Pump:
    """What the I/O thread does for a swarm.

    Args:
        plan: of the swarm.
        desk: where blocks wait.
        loop: the thread.
        routes: where outputs go.
    """

    def __init__(self, plan: Plan, desk: Desk, loop: Collector, routes: Routes) -> None:
        self.children = [Child(plan, number, loop, self._serve, self._on_exit) for number in range(plan.count)]
        self.is_over = False  # all processes are gone, and none comes
        self._plan = plan
        self._desk = desk
        self._loop = loop
        self._routes = routes
        self._timers = Timers(loop)
        self._first = 0
        self._lingers = False  # a turn is to come by itself
        self._skewed: set[Child] = set()
        self._is_ended = False  # by us
        self.on_over: Callable[[], object] = lambda: None

    # Starting.

    def start(self, child: Child) -> None:
        """Start a process; what goes wrong is decided like an exit."""
        if self._is_ended or self._desk.failure is not None:
            return
        try:
            outputs = child.start(self._routes.direct)
            self._routes.connect(child, outputs, self._note_output(child))
        except Exception as error:  # OSError, and what env_vars= may raise
            child.abandon()
            argv = self._plan.argv_of(child.id)
            child.fault = self._plan.explain_start(argv, error) if isinstance(error, OSError) else repr(error)
            self._on_gone(child)
            return
        with self._desk.changed:
            self._desk.has_started = True
            self._desk.changed.notify_all()
        if self._plan.stall_timeout is not None:
            self._timers.later(self._plan.stall_timeout, lambda pid=child.pid: self._check_stall(child, pid))  # type: ignore[misc]
        self._serve(child)

    @staticmethod
    def _note_output(child: Child) -> Callable[[], object]:
        def note() -> None:
            child.progress_at = monotonic()

        return note

    # Writing.

    def turn(self) -> None:
        """Look at the desk: let every process with room take, the first one another time around."""
        count = len(self.children)
        self._first = (self._first + 1) % count
        took = False
        for step in range(count):
            took = self._serve(self.children[(self._first + step) % count]) or took
        with self._desk.changed:
            if took and self._desk.state is State.RUNNING:
                self._linger()
            elif not self._lingers:
                self._desk.is_awake = False

    def _linger(self) -> None:
        if not self._lingers:
            self._lingers = True
            self._loop.call_later(_LINGER, self._after_lingering)

    def _after_lingering(self) -> None:
        self._lingers = False
        self.turn()

    def _serve(self, child: Child) -> bool:
        """Give a process what it has room for; return whether it took anything."""
        if not child.is_running or child.fault:
            return False
        budget = _MOST_IN_A_TURN
        took = False
        while True:
            self._flush(child)
            limits = child.limits()
            if limits is None or not self._may_take(child):
                break
            given = self._give(child, limits)
            if not given:
                self._on_nothing_there(child)
                break
            took = True
            budget -= given
            if budget <= 0:
                self._loop.call_soon(lambda: self._serve(child))
                break
        self._settle(child)
        return took

    def _flush(self, child: Child) -> None:
        for writer in child.writers:
            try:
                if writer.flush():
                    child.progress_at = monotonic()
            except BrokenPipeError:
                self._on_broken(child, writer)
            except OSError as error:
                self.fail(f"cannot write channel {writer.name!r} of process {child.id}: {error}", error)

    def _give(self, child: Child, limits: list[int | None]) -> int:
        """Move blocks from the desk to a process, until its room is filled; return their bytes."""
        given = 0
        room = list(limits)
        while True:
            block = self._desk.take(child.id, room)
            if block is None:
                return given
            sizes = child.push(block)
            given += sum(sizes) + 1
            room = [None if left is None else left - size for left, size in zip(room, sizes, strict=True)]
            if given >= _MOST_IN_A_TURN or any(left is not None and left <= 0 for left in room):
                return given

    def _may_take(self, child: Child) -> bool:
        if not child.has_flights or self._desk.may_take_more(child.id):
            return True
        if child not in self._skewed and any(writer.pending for writer in child.writers):
            self._skewed.add(child)
            written = [writer.written for writer in child.writers]
            self._timers.later(_SKEW, lambda: self._check_skew(child, written))
        return False

    def _on_nothing_there(self, child: Child) -> None:
        if self._routes.has_state:
            rooms = [writer.request() for writer in child.writers if writer.is_paced and writer.is_hungry]
            self._desk.ask(child.id, max(rooms, default=_MOST_IN_A_TURN))

    def _settle(self, child: Child) -> None:
        cost = child.settle()
        if cost:
            self._desk.received(child.id, cost)
        if self._desk.state is State.ENDING:
            self._end_inputs(child)
            if cost and self._plan.on_exit == "reroute" and not child.has_flights:
                self._loop.call_soon(self._end_all_inputs)

    def _end_all_inputs(self) -> None:
        if self._desk.state is not State.ENDING:
            return
        for child in self.children:
            self._end_inputs(child)

    def _end_inputs(self, child: Child) -> None:
        """Send the end of file on each channel that has got everything, once nothing comes any more."""
        if not child.is_running or child.fault or not self._desk.has_nothing_for(child.id):
            return
        endings = self._desk.endings.pop(child.id, None)
        if endings:
            for writer, ending in zip(child.writers, endings, strict=True):
                writer.push(ending)
            self._flush(child)
        for writer in child.writers:
            if writer.is_open and not writer.pending and not writer.is_ended:
                writer.end()
                child.progress_at = monotonic()

    # Ends of processes.

    def _on_broken(self, child: Child, writer: Writer) -> None:
        writer.break_off()
        if writer.is_required and not child.fault:
            child.fault = f"closed its channel {writer.name!r} before the end of the input"
            self._timers.later(self._plan.grace_period, lambda: self._kill_faulty(child))

    def _kill_faulty(self, child: Child) -> None:
        if child.fault:
            child.signal(9)

    def _on_exit(self, child: Child) -> None:
        child.reap()
        self._on_gone(child)

    def _on_gone(self, child: Child) -> None:
        """A process is gone, or could not be started: say what it did not receive, and decide what follows."""
        is_well = self._is_well(child)
        blocks, cost = child.take_back(is_well)
        self._desk.received(child.id, cost)
        child.is_early = not is_well
        if not is_well and not child.fault and child.exit is not None:
            child.fault = "after its input" if child.has_all_input else "before the end of its input"
        is_restarted = not is_well and self._restarts(child)
        with self._desk.changed:
            self._desk.generation[child.id] += 1
            self._desk.is_alive[child.id] = is_restarted
            self._desk.demand[child.id] = 0
            self._give_back(child, blocks, is_restarted)
            self._desk.changed.notify_all()
        if is_restarted:
            child.restarts += 1
            child.forget_channels()
            self._loop.call_soon(lambda: self.start(child))
        elif not is_well:
            self._on_early_exit(child)
        self._loop.call_soon(self._look_whether_over)

    def _is_well(self, child: Child) -> bool:
        """Return whether it ended when it should."""
        if child.exit is None or child.fault:
            return False
        if child.has_all_input:
            return child.exit.status == 0 or not self._plan.at_least_once
        return child.needs_nothing and child.exit.status == 0

    def _restarts(self, child: Child) -> bool:
        return (
            self._plan.on_exit == "restart"
            and child.restarts < self._plan.max_restarts
            and self._desk.failure is None
            and not self._is_ended
        )

    def _on_early_exit(self, child: Child) -> None:
        if self._desk.failure is not None or self._is_ended:
            return
        if self._plan.on_exit == "reroute" and any(self._desk.is_alive):
            self._loop.call_soon(self.turn)
            return
        ended = f"process {child.id} {child.exit} {child.fault}"
        if not child.fault.startswith(("before", "after")):
            ended = f"process {child.id} {child.fault}, and {child.exit}"
        self.fail(ended if child.exit else f"process {child.id} could not be started: {child.fault}")

    def _give_back(self, child: Child, blocks: list[Block], is_restarted: bool) -> None:
        """Under the desk's lock: what a process did not receive comes first for whoever is to receive it."""
        desk = self._desk
        if desk.failure is not None or self._is_ended or not any(desk.is_alive):
            for block in blocks:
                desk.lost += block.rest()
            return
        own = desk.lanes[child.id]
        if self._routes.has_state:
            blocks = [*blocks, *own.take_all()]
            desk.raw.extend(block.rest() for block in blocks)
            return
        lane = desk.shared
        if self._plan.distribute != "ready":
            lane = own if is_restarted else desk.lanes[desk.substitute(child.id)]
            blocks = blocks if is_restarted else [*blocks, *own.take_all()]
        for block in reversed(blocks):
            lane.put_back(block)
        desk.wake()

    def _look_whether_over(self) -> None:
        """See whether the last process is gone; items that come now, nobody takes."""
        if self.is_over or any(self._desk.is_alive) or any(child.is_running for child in self.children):
            self._end_all_inputs()
            return
        if self._desk.state is State.RUNNING and not self._is_ended:
            self.fail("every process has ended and takes no more input")
        self.is_over = True
        self._timers.drop()
        with self._desk.changed:
            self._desk.changed.notify_all()
        self.on_over()

    # Failing and ending.

    def reports(self) -> tuple[ProcessReport, ...]:
        """Return how each process stands."""
        return tuple(child.report() for child in self.children)

    def fail(self, what: str, cause: BaseException | None = None) -> None:
        """Let the swarm have failed: tell everybody, and end all processes."""
        reports = self.reports()
        error = SwarmError(summary(self._plan.name, what, reports), processes=reports)
        error.__cause__ = cause
        self._fail(error)

    def _fail(self, error: SwarmError) -> None:
        if self._desk.fail(error):
            self.end_processes()

    def end_processes(self) -> None:
        """Ask all processes to end, and kill them after the grace period; their input is cut off only then."""
        if self._is_ended:
            return
        self._is_ended = True
        with self._desk.changed:
            for child in self.children:
                self._desk.is_alive[child.id] = child.is_running
        for child in self.children:
            child.fault = child.fault or ("ended by the swarm" if child.is_running else "")
            child.signal(15)
        self._loop.call_later(self._plan.grace_period, self._kill)
        self._loop.call_soon(self._look_whether_over)

    def _kill(self) -> None:
        for child in self.children:
            child.signal(9)

    # Stalls.

    def _stall(self, child: Child, channel: str | None, what: str) -> None:
        reports = self.reports()
        text = summary(self._plan.name, what, reports)
        self._fail(FeedStalled(text, processes=reports, process_id=child.id, channel=channel))

    def _check_skew(self, child: Child, before: list[int]) -> None:
        self._skewed.discard(child)
        if not child.is_running or [writer.written for writer in child.writers] != before:
            return
        full = max(child.writers, key=lambda writer: writer.pending)
        hungry = [writer.name for writer in child.writers if writer.is_hungry and not writer.unread()]
        if full.pending and hungry:
            self._stall(
                child,
                full.name,
                f"process {child.id} waits for channel {hungry[0]!r} and does not read {full.name!r}: {full.pending:,}"
                f" bytes wait there, which is the bound (max_process_bytes={self._plan.max_process_bytes:,},"
                f" max_bytes={self._plan.max_bytes:,})",
            )

    def _check_stall(self, child: Child, pid: int | None) -> None:
        """Look at a process once it has made no progress for the time that is allowed; else look again later."""
        timeout = self._plan.stall_timeout
        if timeout is None or not child.is_running or child.pid != pid:
            return
        idle = monotonic() - child.progress_at
        again = timeout
        if idle < timeout:
            again = timeout - idle
        elif self._is_expected_to_work(child) and child.pid is not None:
            ticks = processor_ticks(child.pid)
            if child.ticks == ticks:
                self._on_stall(child, idle)
                return
            child.ticks = ticks
        self._timers.later(max(again, _LINGER), lambda: self._check_stall(child, pid))

    def _is_expected_to_work(self, child: Child) -> bool:
        return child.has_flights or child.has_all_input or any(w.pending or w.unread() for w in child.writers)

    def _on_stall(self, child: Child, idle: float) -> None:
        full = max(child.writers, key=lambda writer: (writer.pending, writer.unread()))
        what = (
            f"process {child.id} has stalled: for {idle:.1f} s it read nothing, wrote nothing, used no processor time"
        )
        if self._routes.is_held_up:
            what += "; its output is not consumed: iterate over Swarm.lines(), and let the function given return"
        if full.pending or full.unread():
            what += f"; {full.pending + full.unread():,} bytes wait for channel {full.name!r}"
        elif child.has_all_input:
            what += "; it has got all its input"
        self._stall(child, full.name if full.pending or full.unread() else None, what + " (stall_timeout)")
