"""How things are measured here, and how the figures are shown.

The contenders of one run take turns in blocks, so that what else the machine does meets all of them alike; ratios are
medians over the blocks of one contender's figure divided by another's in the same block. One pass has everything
pinned to one CPU (the affinity is inherited by every thread and process started afterwards), another has not: on an
idle multi-core machine the time to wake a sleeping core is larger than a whole call, and differs from run to run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

_SETTLE = 10

Block = Callable[[], Sequence[float]]  # runs one block of a contender and returns its figures

PACKAGES = ("venvoy", "anyio", "numpy", "loky", "joblib", "pebble", "execnet", "venvmux", "subfeed", "rpyc")


@dataclass
class Row:
    """The figures of one contender in one pass.

    Args:
        blocks: the median of each block, in the order in which the blocks ran.
        ratios: of this contender's figure to that of others, by their names.
    """

    name: str
    unit: str
    p50: float
    p99: float
    samples: int
    blocks: list[float]
    ratios: dict[str, float] = field(default_factory=dict)


@dataclass
class Target:
    """A figure that is aimed at; printed as met or missed, never enforced here."""

    what: str
    where: str
    value: float
    limit: float
    is_met: bool


def chosen(only: frozenset[str], needs: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the contenders to be measured, and why each of the others is skipped; say so.

    Args:
        only: their names; all for none.
        needs: all there are, with the module that each needs; "" is none.

    Raises:
        SystemExit: there is no contender of that name.
    """
    if only - set(needs):
        raise SystemExit(f"no contender is called {sorted(only - set(needs))[0]!r}; there are: {', '.join(needs)}")
    taken, skipped = [], {}
    for name, module in needs.items():
        if only and name not in only:
            skipped[name] = "not asked for"
        elif module and importlib.util.find_spec(module) is None:
            skipped[name] = "not installed"
            print(f"{name}: skipped, not installed (pip install 'venvoy[bench]')")
        else:
            taken.append(name)
    return taken, skipped


def arguments(description: str, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's options, which all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures to this file")
    parser.add_argument("--quick", action="store_true", help="few repetitions: does it run?")
    parser.add_argument("--only", metavar="NAME,...", default="", help="measure these contenders only")
    options = parser.parse_args(argv)
    options.only = frozenset(filter(None, options.only.split(",")))
    return options


# --- measuring ------------------------------------------------------------------------------------


def each(call: Callable[[float], object], count: int) -> list[float]:
    """Return the seconds that each of `count` calls took, after a few for the processor's caches that do not count."""
    for _ in range(_SETTLE):
        call(0.0)
    times = []
    for index in range(count):
        begin = perf_counter()
        call(float(index))
        times.append(perf_counter() - begin)
    return times


def once(call: Callable[[], object]) -> list[float]:
    """Return the seconds that one call took, as a list of one."""
    begin = perf_counter()
    call()
    return [perf_counter() - begin]


def take_turns(contenders: Mapping[str, Block], blocks: int) -> dict[str, list[Sequence[float]]]:
    """Run blocks of all contenders in turn; return their figures. A first round of each is thrown away."""
    names = list(contenders)
    for name in names:
        contenders[name]()
    figures: dict[str, list[Sequence[float]]] = {name: [] for name in names}
    for number in range(blocks):
        first = number % len(names) if names else 0
        for name in names[first:] + names[:first]:
            figures[name].append(contenders[name]())
    return figures


def rows(figures: Mapping[str, Sequence[Sequence[float]]], unit: str, convert: Callable[[float], float]) -> list[Row]:
    """Return the rows of a table, with the ratio of each to each.

    Args:
        figures: seconds, block by block, of each contender.
        convert: makes the unit of seconds.
    """
    table = []
    for name, blocks in figures.items():
        values = sorted(convert(value) for block in blocks for value in block)
        medians = [convert(statistics.median(block)) for block in blocks]
        table.append(Row(name, unit, statistics.median(values), percentile(values, 0.99), len(values), medians))
    for row in table:
        for other in table:
            row.ratios[other.name] = statistics.median(
                mine / theirs for mine, theirs in zip(row.blocks, other.blocks, strict=True)
            )
    return table


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value below which a part of the sorted values lies."""
    return values[min(len(values) - 1, int(len(values) * part))]


# --- processors -----------------------------------------------------------------------------------


def passes() -> list[int | None]:
    """Return the CPU of each pass: one pinned, where the system can do that, and one not (None)."""
    return [max(os.sched_getaffinity(0)), None] if hasattr(os, "sched_setaffinity") else [None]


@contextmanager
def pinned(cpu: int | None) -> Iterator[None]:
    """Let this thread, and all threads and processes it starts, run on one CPU; on all for None."""
    if cpu is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpus_of_children() -> list[int]:
    """Return the CPUs on which the children of this process may run: the proof that pinning covers them."""
    cpus: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:  # the thread has just ended
            continue
        for pid in children:
            try:
                cpus |= os.sched_getaffinity(int(pid))
            except ProcessLookupError:
                pass
    return sorted(cpus)


# --- showing --------------------------------------------------------------------------------------


def show(title: str, table: Sequence[Row], against: Sequence[str]) -> None:
    """Print a table: p50, p99, and the ratio to each of the contenders `against`."""
    names = [name for name in against if any(row.name == name for row in table)]
    lines = [["", "p50", "p99", "unit", *(f"x {name}" for name in names)]]
    for row in table:
        ratios = [f"{row.ratios[name]:.2f}" for name in names]
        lines.append([row.name, _digits(row.p50), _digits(row.p99), row.unit, *ratios])
    print(f"\n{title}")
    _print_aligned(lines)


def show_targets(targets: Sequence[Target]) -> None:
    """Print what is aimed at, and whether it is met."""
    lines = [["target", "where", "value", "limit", ""]]
    for target in targets:
        verdict = "met" if target.is_met else "MISSED"
        lines.append([target.what, target.where, f"{target.value:.2f}", f"{target.limit:.2f}", verdict])
    print()
    _print_aligned(lines)


def _print_aligned(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        print("  ".join(cells).rstrip())


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def at_most(what: str, where: str, value: float, limit: float) -> Target:
    """Return a target that is met by a value no larger than the limit."""
    return Target(what, where, value, limit, value <= limit)


def at_least(what: str, where: str, value: float, limit: float) -> Target:
    """Return a target that is met by a value no smaller than the limit."""
    return Target(what, where, value, limit, value >= limit)


# --- writing --------------------------------------------------------------------------------------


def report(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the head of what is written as JSON: what was measured, when, where, with which versions."""
    return {
        "benchmark": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "is_quick": options.quick,
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cpus": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "load": os.getloadavg(),
        },
        "versions": {"python": sys.version.split()[0], **_versions()},
        "skipped": {},
        "passes": [],
        "targets": [],
    }


def write(data: dict[str, Any], path: Path | None) -> None:
    """Write the report to a file, if one was asked for; dataclasses become objects."""
    if path is not None:
        path.write_text(json.dumps(data, indent=1, default=asdict) + "\n")


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
