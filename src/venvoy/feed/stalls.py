"""Who waits in vain: processes that take no input although there is some, and how that is told from being slow.

Runs on the swarm's I/O thread; owns which processes are being watched for leaving one channel full.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from ..collector import Timers
from .child import Child
from .options import Plan

_SKEW = 1.0  # seconds that a process may leave one channel full while it waits for another one
_SOON = 0.001


class Stalls:
    """What notices stalls.

    Args:
        plan: of the swarm.
        timers: of the swarm's I/O thread.
        is_held_up: whether processes wait for whoever consumes their output.
        tell: called with the process, the channel if one is meant, and what has happened.
    """

    def __init__(
        self,
        plan: Plan,
        timers: Timers,
        is_held_up: Callable[[], bool],
        tell: Callable[[Child, str | None, str], object],
    ) -> None:
        self._plan = plan
        self._timers = timers
        self._is_held_up = is_held_up
        self._tell = tell
        self._skewed: set[Child] = set()

    def on_bound(self, child: Child) -> None:
        """A process has room on a channel, and may be given nothing since others hold too much: watch it."""
        if child not in self._skewed and any(writer.pending for writer in child.writers):
            self._skewed.add(child)
            written = [writer.written for writer in child.writers]
            self._timers.later(_SKEW, lambda: self._check_skew(child, written))

    def _check_skew(self, child: Child, before: list[int]) -> None:
        self._skewed.discard(child)
        if not child.is_running or [writer.written for writer in child.writers] != before:
            return
        full = max(child.writers, key=lambda writer: writer.pending)
        hungry = [writer.name for writer in child.writers if writer.is_hungry and not writer.unread()]
        if full.pending and hungry:
            self._tell(
                child,
                full.name,
                f"process {child.id} waits for channel {hungry[0]!r} and does not read {full.name!r}: {full.pending:,}"
                f" bytes wait there, which is the bound (max_process_bytes={self._plan.max_process_bytes:,},"
                f" max_bytes={self._plan.max_bytes:,})",
            )

    def watch(self, child: Child, pid: int | None) -> None:
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
        self._timers.later(max(again, _SOON), lambda: self.watch(child, pid))

    def _is_expected_to_work(self, child: Child) -> bool:
        return bool(child.flights) or child.has_all_input or any(w.pending or w.unread() for w in child.writers)

    def _on_stall(self, child: Child, idle: float) -> None:
        full = max(child.writers, key=lambda writer: (writer.pending, writer.unread()))
        what = (
            f"process {child.id} has stalled: for {idle:.1f} s it read nothing, wrote nothing, used no processor time"
        )
        if self._is_held_up():
            what += "; its output is not consumed: iterate over Swarm.lines(), and let the function given return"
        if full.pending or full.unread():
            what += f"; {full.pending + full.unread():,} bytes wait for channel {full.name!r}"
        elif child.has_all_input:
            what += "; it has got all its input"
        self._tell(child, full.name if full.pending or full.unread() else None, what + " (stall_timeout)")


def processor_ticks(group: int) -> int:
    """Return the processor time that a process group has used, in clock ticks; 0 where the system does not tell.

    Source: proc(5), /proc/pid/stat, fields 5 (pgrp), 14 to 17 (utime, stime, cutime, cstime).
    """
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields: list[Any] = path.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if len(fields) > 14 and int(fields[2]) == group:
            total += sum(map(int, fields[11:15]))
    return total
