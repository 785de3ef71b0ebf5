"""The comparison of the README, in one run: venvoy beside its peers, printed as the Markdown table that stands there.

    python benchmarks/compare.py [--json FILE] [--quick] [--only NAME,...]

One call and many futures run `math.sqrt`; "one CPU" has everything pinned to one. The array is an argument, every byte
of which is read in the worker. The start is that of a pool or connection with one process, until its first result. A
crash is `os._exit` in a call: what its caller gets, and the time from then until the next call has its result, with
whatever has to be made anew for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from queue import Empty, Queue
from time import perf_counter
from typing import Any

import psutil

import contenders
import measure
from contenders import RAW, VENVOY, Contender
from measure import Block, Row
from start import first_result_blocks

PINNED, CALL, SUBMITS, ARRAY, START = "one call, one CPU", "one call", "submits", "array", "start"
PATIENCE = 2.0  # seconds after which a call is said to be never answered
_LIMIT = 100.0  # seconds for an array


class Crash:
    """What a crashed call leaves behind it.

    Args:
        outcome: the error that its caller gets, or None: it waits for ever.
        goes_on: the same pool serves the next call; None if that waits for ever too.
        seconds: until the next call has its result.
    """

    def __init__(self, kind: type[Contender]) -> None:
        self.outcome: str | None = None
        self.goes_on: bool | None = True
        before = set(psutil.Process().children(recursive=True))
        one = kind(1)
        try:
            within(PATIENCE, partial(one.crash, PATIENCE))
        except TimeoutError:
            pass
        except Exception as error:
            self.outcome = type(error).__name__
        begin = perf_counter()
        try:
            within(PATIENCE, partial(one.call, 4.0))
        except TimeoutError:
            self.goes_on = None
        except Exception:
            self.goes_on = False
            with closing(kind(1)) as another:
                another.call(4.0)
        self.seconds = perf_counter() - begin
        try:
            within(PATIENCE, one.close)
        except Exception:  # it has been broken, and does not get over it
            for process in set(psutil.Process().children(recursive=True)) - before:
                process.kill()

    def __str__(self) -> str:
        if self.outcome is None:
            return "its caller waits for ever" + (", as does the next" if self.goes_on is None else "")
        made = "" if self.goes_on else ", all made anew"
        return f"`{self.outcome}`, {self.seconds * 1e3:.0f} ms{made}"


def within(seconds: float, function: Callable[[], object]) -> None:
    """Run a function, and raise what it raises, or TimeoutError after so many seconds; then it is left to itself."""
    done: Queue[BaseException | None] = Queue()

    def run() -> None:
        try:
            function()
        except BaseException as error:
            done.put(error)
        else:
            done.put(None)

    threading.Thread(target=run, daemon=True).start()
    try:
        error = done.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if error is not None:
        raise error


def calls(running: Mapping[str, Any], count: int) -> dict[str, Block]:
    """Return a block of calls, one after the other, of each contender."""
    return {name: partial(measure.each, one.call, count) for name, one in running.items()}


def bursts(running: Mapping[str, Any], count: int) -> dict[str, Block]:
    """Return a block of futures, made and then collected, of each contender."""
    return {name: partial(measure.once, partial(one.burst, count)) for name, one in running.items() if name != RAW}


def arrays(running: Mapping[str, Any], size: int) -> dict[str, Block]:
    """Return a block of one transfer of each contender that can take an array."""
    import numpy  # here, since processes that are spawned import what this file imports

    import array_work

    array = numpy.ones(size, "u1")
    able = [name for name, one in running.items() if type(one).run is not Contender.run]
    return {name: partial(measure.once, partial(running[name].run, array_work.read, array, _LIMIT)) for name in able}


def table(rows: Mapping[str, Mapping[str, Row]], crashes: Mapping[str, Crash], submits: int, size: int) -> list[str]:
    """Return the lines of the Markdown table.

    Args:
        rows: what was measured, and then of whom.
        submits: how many futures were made at once.
        size: of the array, in bytes.
    """
    array = f"{size >> 20} MB array"
    lines = [
        f"| | one call, one CPU | two | {submits:,} `submit`s | {array} | start | its worker dies; next result |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for name in rows[CALL]:
        cells = [
            _cell(rows[PINNED].get(name), lambda row: f"{row.p50:.0f} µs"),
            _cell(rows[CALL].get(name), lambda row: f"{row.p50:.0f} µs"),
            _cell(rows[SUBMITS].get(name), lambda row: f"{1e6 / row.p50:,.0f} a second"),
            _cell(rows[ARRAY].get(name), lambda row: f"{row.p50:,.0f} ms"),
            _cell(rows[START].get(name), lambda row: f"{row.p50:,.0f} ms"),
            str(crashes[name]) if name in crashes else "",
        ]
        if name == VENVOY:
            name, *cells = (f"**{cell}**" for cell in [name, *cells])
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _cell(row: Row | None, text: Any) -> str:
    return "" if row is None else str(text(row))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    options = measure.arguments(__doc__.splitlines()[0], argv)
    data = measure.report("compare", options)
    kinds, data["skipped"] = contenders.chosen(options.only)
    count, submits, size, blocks = (20, 200, 1 << 22, 2) if options.quick else (300, 10_000, 1 << 28, 5)
    found: dict[str, dict[str, Row]] = {}

    def note(what: str, unit: str, factor: float, figures: dict[str, list[Sequence[float]]]) -> None:
        rows = measure.rows(figures, unit, lambda seconds: seconds * factor)
        measure.show(what, rows, (RAW, VENVOY))
        found[what] = {row.name: row for row in rows}
        data["passes"].append({"name": what, "cpu": None, "cpus_of_children": [], "rows": rows})

    with measure.pinned(measure.passes()[0]), contenders.started(kinds, 1) as running:
        note(PINNED, "us", 1e6, measure.take_turns(calls(running, count), blocks * 4))
    with contenders.started(kinds, 1) as running:
        note(CALL, "us", 1e6, measure.take_turns(calls(running, count), blocks * 4))
        note(ARRAY, "ms", 1e3, measure.take_turns(arrays(running, size), blocks))
    with contenders.started(kinds, 2) as running:
        note(SUBMITS, "us/call", 1e6 / submits, measure.take_turns(bursts(running, submits), blocks))
    note(START, "ms", 1e3, measure.take_turns(first_result_blocks(kinds), blocks))
    crashes = {name: crash_of(kind, blocks) for name, kind in kinds.items() if name != RAW}
    data["crashes"] = {name: vars(crash) for name, crash in crashes.items()}
    print("\n" + "\n".join(table(found, crashes, submits, size)))
    measure.write(data, options.json)


def crash_of(kind: type[Contender], count: int) -> Crash:
    """Return the crash whose recovery took the median time of a few."""
    crashes = [Crash(kind)]
    if crashes[0].outcome is not None:
        crashes += [Crash(kind) for _ in range(count - 1)]
    return sorted(crashes, key=lambda crash: crash.seconds)[len(crashes) // 2]


if __name__ == "__main__":
    main()
