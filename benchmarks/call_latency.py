"""One call to a warm worker and back: how long it takes, beside a raw pipe and the peers.

    python benchmarks/call_latency.py [--json FILE] [--quick] [--only NAME,...]

Each contender has one process. A call runs `math.sqrt`; the raw pipe echoes 64 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import contenders
import measure
from contenders import FUTURES, PEERS, RAW, SUBMIT, VENVOY
from measure import Block, Row, Target


def blocks_of(running: dict[str, Any], count: int) -> dict[str, Block]:
    """Return a block of `count` calls for each contender, and one of venvoy's futures."""
    blocks: dict[str, Block] = {}
    for name, contender in running.items():
        blocks[name] = partial(measure.each, contender.call, count)
        if name == VENVOY:
            blocks[SUBMIT] = partial(measure.each, contender.submit, count)
    return blocks


def targets(table: Sequence[Row], where: str) -> list[Target]:
    """Return what is aimed at, as far as it was measured."""
    found = {row.name: row for row in table}
    aims = []
    if VENVOY in found:
        ratios = found[VENVOY].ratios
        if RAW in ratios:
            aims.append(measure.at_most("pool.call: x raw pipe", where, ratios[RAW], 3.5))
        aims += [
            measure.at_most(f"pool.call: x {name}", where, ratios[name], 1 / 3) for name in PEERS if name in ratios
        ]
    if SUBMIT in found and FUTURES in found:
        ratio = found[SUBMIT].ratios[FUTURES]
        aims.append(measure.at_most(f"submit().result(): x {FUTURES}", where, ratio, 1 / 3))
    return aims


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    options = measure.arguments(__doc__.splitlines()[0], argv)
    data = measure.report("call_latency", options)
    kinds, data["skipped"] = contenders.chosen(options.only)
    count, blocks = (20, 2) if options.quick else (300, 20)
    for cpu in measure.passes():
        where = "not pinned" if cpu is None else f"pinned to CPU {cpu}"
        with measure.pinned(cpu), contenders.started(kinds, 1) as running:
            figures = measure.take_turns(blocks_of(running, count), blocks)
            cpus = measure.cpus_of_children()
        table = measure.rows(figures, "us", lambda seconds: seconds * 1e6)
        measure.show(f"one call, {where}", table, (RAW, VENVOY, SUBMIT))
        data["passes"].append({"name": "call", "cpu": cpu, "cpus_of_children": cpus, "rows": table})
        data["targets"] += targets(table, where)
    measure.show_targets(data["targets"])
    measure.write(data, options.json)


if __name__ == "__main__":
    main()
