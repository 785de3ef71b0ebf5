"""What became of a swarm and of each of its processes: frozen snapshots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..processes.process import Exit


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """One process of a swarm.

    Args:
        id: its number in the swarm, from 0.
        pid: of the last process with this id; None if none could be started.
        status: its exit status; None while it runs, if it was killed, or if it is unknown.
        signal: the number of the signal that killed it.
        reason: in words, how it stands.
        items: that it received whole.
        written: bytes, for each channel.
        stderr_tail: the last of what it wrote there, as text.
        is_early: it ended before the end of its input.
        restarts: how often it was started again.
        stdout: what it wrote, where that is collected; `stdout_dropped` bytes before it were not kept.
        stderr: the same of the other stream, with `stderr_dropped`.
    """

    id: int
    pid: int | None
    status: int | None
    signal: int | None
    reason: str
    items: int
    written: Mapping[str, int]
    stderr_tail: str = ""
    is_early: bool = False
    restarts: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_dropped: int = 0
    stderr_dropped: int = 0

    def __str__(self) -> str:
        written = ", ".join(f"{count:,} bytes to {name}" for name, count in self.written.items())
        text = f"process {self.id}: {self.reason}; {self.items:,} items, {written}"
        if self.restarts:
            text += f"; restarted {self.restarts} times"
        tail = "".join(f"\n    {line}" for line in self.stderr_tail.splitlines()[-10:])
        return f"{text}; the end of its stderr:{tail}" if tail else text


@dataclass(frozen=True, slots=True)
class SwarmReport:
    """What became of a whole swarm.

    Args:
        processes: one after the other, by their numbers.
        items: that they received whole.
        written: bytes, to all of them.
        undelivered: items that nobody received whole.
        seconds: from its start until now, or its end.
    """

    processes: tuple[ProcessReport, ...]
    items: int
    written: int
    undelivered: int
    seconds: float

    def __str__(self) -> str:
        head = f"{self.items:,} items, {self.written:,} bytes, {self.seconds:.1f} s"
        if self.undelivered:
            head += f", {self.undelivered:,} items undelivered"
        return "\n".join([head, *(str(process) for process in self.processes)])


def summary(name: str, what: str, processes: Sequence[ProcessReport]) -> str:
    """Return the message of an error about a swarm."""
    return "\n".join([f"{name}: {what}", *(f"  {process}" for process in processes)])


def describe(exit_: Exit | None, is_running: bool) -> str:
    """Return how a process stands, in words."""
    return str(exit_) if exit_ is not None else "is running" if is_running else "was not started"
