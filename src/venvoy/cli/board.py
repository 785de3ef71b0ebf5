"""What `venvoy up` shows: a table that fills a terminal and is drawn anew, a line for each change elsewhere."""

from __future__ import annotations

import threading
from time import monotonic

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

import venvoy as vv

_COLUMNS = ("pool", "state", "workers", "waiting", "calls/s", "p50", "p99", "memory", "crashes", "last output")
_NARROW = 100  # characters of width, below which only what a person looks for first is shown
_FEWER = {"pool", "state", "workers", "calls/s", "crashes", "last output"}


class Board:
    """The pools of a fleet, as far as a person wants to see them.

    Args:
        names: of the pools.
    """

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._console = Console(highlight=False)
        self._seen: dict[str, tuple[float, int]] = {}  # when, and how many calls there had been
        self._told: dict[str, str] = {}
        self.is_live = self._console.is_terminal and not self._console.is_dumb_terminal

    def run(self, fleet: vv.Fleet, refresh: float) -> None:
        """Show the fleet until an exception comes, as Ctrl-C is one.

        Args:
            refresh: seconds between two looks.
        """
        pause = threading.Lock()
        pause.acquire()
        if not self.is_live:
            while not pause.acquire(timeout=refresh if self._told else 0):
                self._tell(fleet)
            return
        try:
            # On a screen of its own, as `top` has: a terminal that is resized breaks lines that stand on it anew.
            with Live(self._table(fleet), console=self._console, auto_refresh=False, screen=True) as live:
                while not pause.acquire(timeout=refresh):
                    live.update(self._table(fleet), refresh=True)
        finally:
            self._console.print(self._table(fleet))  # what there was at the end stays to be read

    def _tell(self, fleet: vv.Fleet) -> None:
        """Print what has changed of each pool."""
        for name, cells in self._rows(fleet):
            line = f"{name}: {cells[0]}, workers {cells[1]}, crashes {cells[7]}"
            if cells[0] == "failed":
                line = f"{name}: failed: {cells[8]}"
            if self._told.get(name) != line:
                self._told[name] = line
                self._console.print(line, soft_wrap=True, markup=False)

    def _table(self, fleet: vv.Fleet) -> Group:
        is_narrow = self._console.width < _NARROW
        shown = [column for column in _COLUMNS if not is_narrow or column in _FEWER]
        table = Table(*shown, box=None, pad_edge=False)
        reasons = []
        for name, cells in self._rows(fleet):
            if cells[0] == "failed":  # a cell has no room for the reason
                reasons.append(Text(f"\n{name}: {cells[8]}"))
                cells = [*cells[:8], ""]
            texts = dict(zip(_COLUMNS, [name, *cells], strict=True))
            table.add_row(*(Text(texts[column], no_wrap=True, overflow="ellipsis") for column in shown))
        return Group(table, *reasons)

    def _rows(self, fleet: vv.Fleet) -> list[tuple[str, list[str]]]:
        errors, stats = fleet.errors(), fleet.stats()
        rows = []
        for name in self._names:
            if name in errors:
                rows.append((name, ["failed", *["-"] * 7, str(errors[name])]))
            elif name in stats:
                rows.append((name, [*self._numbers(name, stats[name]), _last_line(fleet[name])]))
        return rows

    def _numbers(self, name: str, stats: vv.PoolStats) -> list[str]:
        workers = ", ".join(f"{count} {state}" for state, count in stats.workers.items() if count)
        quantiles = [_duration(stats.latency[q]) if q in stats.latency else "-" for q in (0.5, 0.99)]
        rate, memory = f"{self._rate(name, stats.calls_done):.1f}", f"{sum(stats.rss.values()) / 1e6:.0f} MB"
        return [
            stats.phase,
            workers or "none",
            str(stats.waiting),
            rate,
            *quantiles,
            memory,
            str(stats.workers_crashed),
        ]

    def _rate(self, name: str, calls: int) -> float:
        """Return the calls per second since the last look."""
        now = monotonic()
        when, before = self._seen.get(name, (now, calls))
        self._seen[name] = (now, calls)
        return max(0, calls - before) / (now - when) if now > when else 0.0


def _duration(seconds: float) -> str:
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _last_line(pool: vv.Pool) -> str:
    lines = pool.output().splitlines()
    return lines[-1] if lines else ""
