"""The swarm's I/O thread at work: hands blocks to processes that have room, and writes.

Everything here runs on that thread. Law: a process with room takes next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from ..collector import Collector
from .child import Child
from .desk import Desk, State
from .stalls import Stalls
from .writer import Writer

_LINGER = 0.004  # seconds in which what is fed next is gathered into one write; the first item goes at once
_MOST_IN_A_TURN = 4 << 20  # bytes for one process before the others get their turn


class Pump:
    """What moves items.

    Args:
        desk: where blocks wait.
        loop: the thread.
        stalls: told when a process may take no more.
        on_broken: called with a process and its channel that nobody reads any more.
        on_failure: called with what went wrong with a channel, and the exception.
        asks: items are made on request of a process.
    """

    def __init__(
        self,
        desk: Desk,
        loop: Collector,
        stalls: Stalls,
        on_broken: Callable[[Child, Writer], object],
        on_failure: Callable[[str, BaseException], object],
        asks: bool,
    ) -> None:
        self.children: Sequence[Child] = ()
        self._desk = desk
        self._loop = loop
        self._stalls = stalls
        self._on_broken = on_broken
        self._on_failure = on_failure
        self._asks = asks
        self._first = 0
        self._lingers = False  # a turn is to come by itself

    def turn(self) -> None:
        """Look at the desk: let every process with room take, the first one another time around."""
        count = len(self.children)
        self._first = (self._first + 1) % count
        took = False
        for step in range(count):
            took = self.serve(self.children[(self._first + step) % count]) or took
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

    def serve(self, child: Child) -> bool:
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
                self._loop.call_soon(lambda: self.serve(child))
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
                self._on_failure(f"cannot write channel {writer.name!r} of process {child.id}: {error}", error)

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
        if not child.flights or self._desk.may_take_more(child.id):
            return True
        self._stalls.on_bound(child)
        return False

    def _on_nothing_there(self, child: Child) -> None:
        if self._asks:
            rooms = [writer.request() for writer in child.writers if writer.is_paced and writer.is_hungry]
            self._desk.ask(child.id, max(rooms, default=_MOST_IN_A_TURN))

    def _settle(self, child: Child) -> None:
        cost = child.flights.settle(child.written())
        if cost:
            self._desk.received(child.id, cost)
        if self._desk.state is State.ENDING:
            self._end_input(child)
            if cost and self._desk.plan.on_exit == "reroute" and not child.flights:
                self._loop.call_soon(self.end_inputs)

    def end_inputs(self) -> None:
        """Send the end of file to whoever has got everything, once nothing comes any more."""
        if self._desk.state is not State.ENDING:
            return
        for child in self.children:
            self._end_input(child)

    def _end_input(self, child: Child) -> None:
        """Send the end of file on each channel that has got everything, once nothing comes any more."""
        if not child.is_running or child.fault or not self._desk.has_nothing_for(child.id):
            return
        endings = self._desk.endings.pop(child.id, None)
        if endings:
            for writer, ending in zip(child.writers, endings, strict=True):
                writer.push(ending)
            self._flush(child)
        # With its end of file a process may leave: what it does not read itself, files and handles, comes before.
        is_held = any(writer.pending for writer in child.writers if not writer.is_paced)
        for writer in child.writers:
            if writer.is_open and not writer.pending and not writer.is_ended and not (writer.is_paced and is_held):
                writer.end()
                child.progress_at = monotonic()
