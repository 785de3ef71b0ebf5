"""Many calls at once: 10,000 futures of a trivial call, and a map over 100,000 values.

    python benchmarks/throughput.py [--json FILE] [--quick] [--only NAME,...]

Each contender has two processes and runs `math.sqrt`. The raw pipe echoes 64 bytes that many times, one after the
other, to one child. Contenders whose `map` leaves the size of chunks to its user are run with several; the best counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import contenders
import measure
from contenders import FUTURES, RAW, VENVOY
from measure import Block, Row, Target

WORKERS = 2


def bursts(running: dict[str, Any], count: int) -> dict[str, Block]:
    """Return a block of one burst for each contender."""
    return {name: partial(measure.once, partial(one.burst, count)) for name, one in running.items()}


def maps(running: dict[str, Any], count: int) -> dict[str, Block]:
    """Return a block of one map for each contender and each size of its chunks."""
    blocks: dict[str, Block] = {}
    for name, contender in running.items():
        for way, run in contender.maps(count).items():
            blocks[f"{name}, {way}"] = partial(measure.once, run)
    return blocks


def best_of_each(table: Sequence[Row]) -> dict[str, Row]:
    """Return the quickest way of each contender."""
    best: dict[str, Row] = {}
    for row in table:
        name = row.name.partition(",")[0]
        if name not in best or row.p50 < best[name].p50:
            best[name] = row
    return best


def submit_targets(table: Sequence[Row], where: str, count: int) -> list[Target]:
    """Return what is aimed at for futures: calls in a second, so the ratio of times is the other way round."""
    found = {row.name: row for row in table}
    if VENVOY not in found or FUTURES not in found:
        return []
    ratio = found[FUTURES].ratios[VENVOY]
    return [measure.at_least(f"{count:,} submits: calls/s of {FUTURES} x", where, ratio, 5.0)]


def map_targets(table: Sequence[Row], where: str) -> list[Target]:
    """Return what is aimed at for maps."""
    best = best_of_each(table)
    if VENVOY not in best or FUTURES not in best:
        return []
    ratio = best[FUTURES].ratios[best[VENVOY].name]
    return [measure.at_least(f"map: calls/s of {FUTURES}'s best x", where, ratio, 1.0)]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    options = measure.arguments(__doc__.splitlines()[0], argv)
    data = measure.report("throughput", options)
    kinds, data["skipped"] = contenders.chosen(options.only)
    submits, items, blocks = (200, 5000, 1) if options.quick else (10_000, 100_000, 7)
    for cpu in measure.passes():
        where = "not pinned" if cpu is None else f"pinned to CPU {cpu}"
        with measure.pinned(cpu), contenders.started(kinds, WORKERS) as running:
            first = measure.take_turns(bursts(running, submits), blocks)
            second = measure.take_turns(maps(running, items), blocks)
            cpus = measure.cpus_of_children()
        table = measure.rows(first, "us/call", lambda seconds: seconds / submits * 1e6)
        measure.show(f"{submits:,} submits, then all results, {where}", table, (RAW, VENVOY, FUTURES))
        print_rates(table)
        mapped = measure.rows(second, "us/call", lambda seconds: seconds / items * 1e6)
        measure.show(f"map over {items:,}, {where}", mapped, (f"{VENVOY}, default",))
        data["passes"].append({"name": "submits", "cpu": cpu, "cpus_of_children": cpus, "rows": table})
        data["passes"].append({"name": "map", "cpu": cpu, "cpus_of_children": cpus, "rows": mapped})
        data["targets"] += submit_targets(table, where, submits) + map_targets(mapped, where)
    measure.show_targets(data["targets"])
    measure.write(data, options.json)


def print_rates(table: Sequence[Row]) -> None:
    """Print calls in a second."""
    print("calls/s: " + ", ".join(f"{row.name} {1e6 / row.p50:,.0f}" for row in table))


if __name__ == "__main__":
    main()
