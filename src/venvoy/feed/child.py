"""One process of a swarm under its id: its start, channels, outputs, what it has received, and how it ended.

Belongs to the swarm's I/O thread; reports may be made elsewhere. Laws: the group is killed before its leader is reaped;
which items it has received is told by `flights`.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic

from ..collector import Collector
from ..processes import posix as _platform
from ..processes.process import Exit, exit_of
from .blocks import Block
from .channels import Destination
from .flights import Flights
from .options import Plan
from .outputs import Kept, Reader
from .plumbing import Ends, FifoOpening, open_ends, tie_to_host
from .report import ProcessReport, describe
from .writer import Gate, Writer

_TAIL = 4096  # bytes of stderr shown in a report


class Child:
    """One process.

    Args:
        plan: of the swarm.
        process_id: its number there.
        loop: the swarm's I/O thread.
        on_room: called when a channel can be written again.
        on_exit: called when it has ended, not reaped yet.
        gates: of the channels that all processes write to one open file.
    """

    def __init__(
        self,
        plan: Plan,
        process_id: int,
        loop: Collector,
        on_room: Callable[[Child], object],
        on_exit: Callable[[Child], object],
        gates: Mapping[str, Gate],
    ) -> None:
        self.id = process_id
        self.pid: int | None = None
        self.exit: Exit | None = None
        self.is_running = False
        self.fault = ""  # why it is to be ended, or what was wrong with its start
        self.is_early = False  # it ended before the end of its input
        self.restarts = 0
        self.flights = Flights(len(plan.channels), plan.at_least_once)
        self.writers: list[Writer] = []
        self.readers: dict[str, Reader] = {}
        self.kept: dict[str, Kept] = {}
        self.progress_at = monotonic()
        self.ticks = -1  # processor time of the group when it was last looked at
        self._bytes = dict.fromkeys(plan.channels, 0)  # written to former processes of this id
        self._plan = plan
        self._loop = loop
        self._on_room = on_room
        self._on_exit = on_exit
        self._gates = gates
        self._ends = Ends()
        self._fifos: list[FifoOpening] = []
        self._lock = threading.Lock()  # held while a signal is sent or the child is reaped: never a stranger's pid
        self._popen: subprocess.Popen[bytes] | None = None
        self._end_watch: Callable[[], None] = lambda: None

    # Its start.

    def start(self, direct: dict[str, Destination]) -> dict[str, int]:
        """Start the process; return the read ends of its outputs.

        Args:
            direct: destinations of the outputs that it writes by itself.

        Raises:
            OSError: it cannot be started.
        """
        self.fault, self.exit, self.is_early = "", None, False
        is_again = self.restarts > 0
        self._ends, undo, childs = open_ends(self._plan.channels, direct, self.id, is_again)
        with undo, childs:
            try:
                self._popen = self._spawn()
            except BaseException:
                self._ends = Ends(fifos=self._ends.fifos)  # the others are closed right now
                raise
            tie_to_host(self._ends.lifeline[0], self._popen.pid)
            undo.pop_all()
        self.pid = self._popen.pid
        self.is_running = True
        self.progress_at = monotonic()
        self._open_writers()
        self._end_watch = _platform.watch_exit(self._loop, self.pid, lambda: self._on_exit(self))
        return self._ends.outputs

    def _spawn(self) -> subprocess.Popen[bytes]:
        stdin, stdout, stderr = self._ends.stdio
        environ = {**os.environ, **self._plan.environ_of(self.id), **self._ends.environ}
        try:
            return subprocess.Popen(
                self._plan.argv_of(self.id),
                env=environ,
                cwd=self._plan.cwd,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=self._ends.inherited,
                start_new_session=True,
            )
        except OSError as error:
            raise _platform.explain(error) from error

    def _open_writers(self) -> None:
        self.writers = []
        self.flights.begin()
        for name, channel in self._plan.channels.items():
            writer = Writer(name, channel, self._loop, lambda: self._on_room(self), self._gates.get(name))
            self.writers.append(writer)
            if name in self._ends.fifos:
                self._fifos.append(FifoOpening(self._ends.fifos[name], self._opener(writer)))
            else:
                writer.open(self._ends.ours.get(name, -1), self._ends.files.get(name))

    def _opener(self, writer: Writer) -> Callable[[int], object]:
        def on_open(fd: int) -> None:
            self._loop.call_soon(lambda: opened(fd))

        def opened(fd: int) -> None:
            if not self.is_running or writer.is_ended or writer.is_broken:
                os.close(fd)
                return
            writer.open(fd)
            self._on_room(self)

        return on_open

    # Its input.

    def limits(self) -> list[int | None] | None:
        """Return how many bytes each channel may get now; None if no channel has room."""
        if not self.is_running or self.fault:
            return None
        paced = [writer for writer in self.writers if writer.is_paced and not writer.is_broken]
        if paced and not any(writer.is_hungry for writer in paced):
            return None
        return [writer.pace.window if writer.is_paced and writer.is_hungry else None for writer in self.writers]

    @property
    def has_all_input(self) -> bool:
        """Whether the end of file was sent on every channel it has to read."""
        return all(w.is_ended or not (w.is_required or (w.is_open and not w.is_broken)) for w in self.writers)

    @property
    def needs_nothing(self) -> bool:
        """Whether it may leave whenever it likes."""
        return all(not writer.is_required for writer in self.writers)

    def push(self, block: Block) -> list[int]:
        """Give it a block; return the bytes for each channel."""
        pieces = self.flights.add(block)
        for writer, data in zip(self.writers, pieces, strict=True):
            writer.push(data)
        return [len(data) for data in pieces]

    def written(self) -> list[int]:
        """Return the bytes written on each channel; -1 where it does not matter any more."""
        return [-1 if w.is_broken and not w.is_required else w.written for w in self.writers]

    # Its end.

    def reap(self) -> None:
        """It has ended: kill its group, learn how it ended, take what it wrote, close everything."""
        popen = self._popen
        assert popen is not None
        self._end_watch()
        with self._lock:
            _platform.kill_group(popen.pid)
            is_known = _platform.can_be_waited_for(popen.pid)
            code = popen.wait()
            self._popen = None
        self.exit = exit_of(code, is_ours=False) if is_known else Exit(None, None)
        self.is_running = False
        for reader in self.readers.values():
            reader.finish()
        for writer in self.writers:
            if not writer.is_required:
                writer.break_off()  # whatever it has not read there does not matter
        self.close()

    def abandon(self) -> None:
        """Its start failed: if it runs nevertheless, it is to end; close everything."""
        self.signal(9)
        if self._popen is not None:
            self.reap()
        self.close()

    def close(self) -> None:
        """Close all descriptors and remove named pipes; the counts stay."""
        for opening in self._fifos:
            opening.give_up()
        self._fifos.clear()
        for writer in self.writers:
            writer.close()
        for path in self._ends.fifos.values():
            Path(path).unlink(missing_ok=True)
        self._ends.fifos.clear()
        lifeline = self._ends.lifeline[1]
        self._ends.lifeline = (-1, -1)
        if lifeline >= 0:
            os.close(lifeline)

    def forget_channels(self) -> None:
        """Before it is started again: add up what was written."""
        for writer in self.writers:
            self._bytes[writer.name] += writer.written
        self.writers = []

    def signal(self, number: int) -> None:
        """Send a signal to its whole group; harmless when it is gone."""
        with self._lock:
            if self._popen is not None:
                _platform.kill_group(self._popen.pid, number)

    def close_in_fork(self) -> None:
        """In a process the host forked: close the copies of what is the host's."""
        if self._popen is not None:
            self._popen.returncode = 0  # never waited for here: it is not our child
        self._lock = threading.Lock()
        closes: list[Callable[[], object]] = [writer.close_in_fork for writer in self.writers]
        closes += [reader.close_in_fork for reader in self.readers.values()]
        closes.append(lambda: os.close(self._ends.lifeline[1]))
        for close in closes:
            try:
                close()
            except OSError:  # the thread that opens and closes them was in the middle of it
                pass

    # Its report.

    def report(self) -> ProcessReport:
        """Return how it stands."""
        written = dict(self._bytes)
        for writer in self.writers:
            written[writer.name] += writer.written
        out, err = (self.kept[stream].value() if stream in self.kept else (b"", 0) for stream in ("stdout", "stderr"))
        reason = describe(self.exit, self.is_running)
        return ProcessReport(
            id=self.id,
            pid=self.pid,
            status=self.exit.status if self.exit else None,
            signal=self.exit.signal if self.exit else None,
            reason=f"{reason} ({self.fault})" if self.fault else reason,
            items=self.flights.items,
            written=written,
            stderr_tail=self._stderr_tail(),
            is_early=self.is_early,
            restarts=self.restarts,
            stdout=out[0],
            stdout_dropped=out[1],
            stderr=err[0],
            stderr_dropped=err[1],
        )

    def _stderr_tail(self) -> str:
        reader = self.readers.get("stderr")
        if reader is not None:
            return reader.tail.value()[0][-_TAIL:].decode("utf-8", "replace")
        destination = self._plan.stderr
        if destination.kind != "file":
            return ""
        try:
            with open(os.fspath(destination.target).replace("{id}", str(self.id)), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""
