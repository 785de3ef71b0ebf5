"""Which way the outputs of a swarm's processes go: into files by themselves, or through us.

Decides once, for both streams; owns the mailboxes and the thread that delivers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from ..collector import Collector
from ..errors import SwarmError
from .channels import Destination
from .child import Child
from .delivery import Delivery, Sink, cut_lines, sink_for
from .encoding import have_state
from .options import Plan
from .outputs import Kept, Mailbox, Reader

_STREAMS = ("stdout", "stderr")


class Routes:
    """The ways of all outputs.

    Args:
        plan: of the swarm.
        loop: its I/O thread.
        on_failure: called with what a user's function or file raised.
    """

    def __init__(self, plan: Plan, loop: Collector, on_failure: Callable[[BaseException], object]) -> None:
        self.has_state = have_state(plan.channels)
        self.destinations = {"stdout": plan.stdout, "stderr": plan.stdout if plan.merge else plan.stderr}
        self.direct = {} if plan.merge else self._direct(plan)
        self.lines_box = Mailbox(loop)
        self._loop = loop
        self._is_merged = plan.merge
        self._delivery: Delivery | None = None
        if any(self._is_delivered(stream) for stream in _STREAMS):
            self._delivery = Delivery(Mailbox(loop), on_failure)

    def _direct(self, plan: Plan) -> dict[str, Destination]:
        """Return the outputs that each process writes by itself."""
        direct = {}
        for stream, destination in self.destinations.items():
            is_own_file = destination.kind == "file" and (destination.is_per_process_file or plan.count == 1)
            if is_own_file or (destination.kind == "discard" and stream == "stdout"):
                direct[stream] = destination
        if len(direct) == 2 and direct["stdout"].target == direct["stderr"].target is not None:
            return {}  # one file for both: in whole lines, through us
        return direct

    def _is_delivered(self, stream: str) -> bool:
        kind = self.destinations[stream].kind
        if stream in self.direct or kind in ("discard", "lines"):
            return False
        return kind != "collect" or self._is_merged

    @property
    def is_held_up(self) -> bool:
        """Whether processes wait for whoever consumes their output."""
        return self.lines_box.is_full or (self._delivery is not None and self._delivery.box.is_full)

    def open_files(self) -> None:
        """Open the files that all processes share.

        Raises:
            OSError: one cannot be opened.
        """
        for stream, destination in self.destinations.items():
            is_shared = destination.kind == "file" and not destination.is_per_process_file
            if self._delivery is not None and self._is_delivered(stream) and is_shared:
                self._delivery.file_of(destination, 0, False)

    def connect(self, child: Child, outputs: dict[str, int], on_progress: Callable[[], object]) -> None:
        """Let the outputs of a process that was just started be read."""
        child.readers = {}
        for stream, fd in outputs.items():
            if fd < 0:
                continue
            destination = self.destinations[stream]
            if destination.kind == "collect" and not (self._is_merged and stream == "stderr"):
                child.kept.setdefault(stream, Kept(destination.limit))
            child.readers[stream] = self._reader(child, stream, fd, on_progress)

    def _reader(self, child: Child, stream: str, fd: int, on_progress: Callable[[], object]) -> Reader:
        kept = child.kept.get("stdout" if self._is_merged else stream)
        if self._delivery is not None and self._is_delivered(stream):
            reader = Reader(child.id, fd, self._loop, self._delivery.box.put, on_progress)
            self._delivery.connect(reader, self._sink(self._delivery, child, stream, kept))
            return reader
        take: Callable[[Reader, bytes], object] = _ignore
        if kept is not None:
            take = _keeper(kept)
        elif self.destinations[stream].kind == "lines":
            take = self.lines_box.put
        return Reader(child.id, fd, self._loop, take, on_progress)

    def _sink(self, delivery: Delivery, child: Child, stream: str, kept: Kept | None) -> Sink:
        destination = self.destinations[stream]
        file = destination.target
        if destination.kind == "file":
            file = delivery.file_of(destination, child.id, child.restarts > 0)
        if self._is_merged and destination.kind == "call_blocks":
            destination = replace(destination, kind="call_lines", encoding=None)
        return sink_for(destination, stream, file, kept)

    def check_lines(self) -> None:
        """Raise where there are no lines to be had.

        Raises:
            SwarmError: no output goes there.
        """
        if self._lines() is None:
            raise SwarmError("lines() needs a swarm with stdout='lines' or stderr='lines'")

    def _lines(self) -> Destination | None:
        found = [destination for destination in self.destinations.values() if destination.kind == "lines"]
        return found[0] if found else None

    def lines(self) -> Iterator[tuple[int, Any]]:
        """Yield (process id, line) until all processes have ended."""
        destination = self._lines()
        encoding = destination.encoding if destination is not None else None
        for reader, data in self.lines_box:
            whole = reader.splitter.whole_lines(data) if data else reader.splitter.rest()
            for line in cut_lines(whole, encoding):
                yield reader.process_id, line

    def finish(self) -> None:
        """Deliver what is there, and let consumers know that this was all."""
        self.lines_box.close()
        if self._delivery is not None:
            self._delivery.finish()


def _ignore(reader: Reader, data: bytes) -> None:
    pass


def _keeper(kept: Kept) -> Callable[[Reader, bytes], object]:
    return lambda reader, data: kept.add(data) if data else None
