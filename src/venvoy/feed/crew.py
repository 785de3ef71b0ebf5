"""The processes of a swarm together: started, replaced, given up, ended; what the exit of one means for the others.

Everything here runs on the swarm's I/O thread. Laws: whatever a process did not receive goes back to the desk before
anything else is decided; the swarm fails once, with the processes as they stood then.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic

from ..collector import Collector, Timers
from ..errors import FeedStalled, SwarmError
from .blocks import Block
from .child import Child
from .desk import Desk, State
from .options import Plan
from .pump import Pump
from .report import ProcessReport, summary
from .routes import Routes
from .stalls import Stalls
from .writer import Gate, Writer


class Crew:
    """All processes of a swarm.

    Args:
        plan: of the swarm.
        desk: where blocks wait.
        loop: the I/O thread.
        routes: where outputs go.
    """

    def __init__(self, plan: Plan, desk: Desk, loop: Collector, routes: Routes) -> None:
        self.is_over = False  # all processes are gone, and none comes
        self.on_over: Callable[[], object] = lambda: None
        self._plan = plan
        self._desk = desk
        self._loop = loop
        self._routes = routes
        self._timers = Timers(loop)
        self._is_ended = False  # by us
        self._stalls = Stalls(plan, self._timers, lambda: routes.is_held_up, self._on_stall)
        self.pump = Pump(desk, loop, self._stalls, self._on_broken, self.fail, routes.has_state)
        gates = {name: Gate(loop) for name, channel in plan.channels.items() if channel.kind == "handle"}
        self.children = [
            Child(plan, number, loop, self.pump.serve, self._on_exit, gates) for number in range(plan.count)
        ]
        self.pump.children = self.children

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
            self._timers.later(self._plan.stall_timeout, partial(self._stalls.watch, child, child.pid))
        self.pump.serve(child)

    @staticmethod
    def _note_output(child: Child) -> Callable[[], object]:
        def note() -> None:
            child.progress_at = monotonic()

        return note

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
        blocks, cost = child.flights.take_back(child.written(), is_well)
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
            self._loop.call_soon(self.pump.turn)
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
            self.pump.end_inputs()
            return
        if self._desk.state is State.RUNNING and not self._is_ended:
            self.fail("every process has ended and takes no more input")
        if self._desk.state is State.ENDING and not all(child.needs_nothing for child in self.children):
            missing = len(self._desk.left())
            if missing:
                self.fail(f"{missing:,} items were not received when the last process ended")
        self.is_over = True
        self._timers.drop()
        with self._desk.changed:
            self._desk.changed.notify_all()
        self.on_over()

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

    def _on_stall(self, child: Child, channel: str | None, what: str) -> None:
        reports = self.reports()
        text = summary(self._plan.name, what, reports)
        self._fail(FeedStalled(text, processes=reports, process_id=child.id, channel=channel))
