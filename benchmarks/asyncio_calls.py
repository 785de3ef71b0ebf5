"""Calls from an event loop: one at a time, and ten thousand together, beside a raw pipe and the peers.

    python benchmarks/asyncio_calls.py [--json FILE] [--quick] [--only NAME,...]

Each contender has one process for single calls and two for the gathered ones. A call runs `math.sqrt`; the raw pipe
echoes 64 bytes, without a loop.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from time import perf_counter
from typing import Any

import measure
from contenders import RawPipe
from measure import Block, Row, Target
from venvoy import Pool

RAW, ASYNC, BLOCKING = "raw pipe", "venvoy async", "venvoy"
ANYIO, FUTURES = "anyio.to_process", "run_in_executor"
NAMES = (RAW, ASYNC, BLOCKING, ANYIO, FUTURES)

Call = Callable[[float], Awaitable[object]]


async def timed(call: Call, count: int) -> list[float]:
    """Return the seconds of each of so many calls, one after another."""
    times = []
    for _ in range(count):
        begin = perf_counter()
        await call(2.0)
        times.append(perf_counter() - begin)
    return times


async def gathered(call: Call, count: int) -> list[float]:
    """Return the seconds that each of so many calls takes when all are awaited together."""
    begin = perf_counter()
    await asyncio.gather(*[call(float(n)) for n in range(count)])
    return [(perf_counter() - begin) / count]


def blocks_of(run: Any, pools: dict[str, Any], names: Sequence[str], count: int) -> dict[str, Block]:
    """Return a block of single calls for each contender."""
    calls = async_calls(run, pools, names)
    blocks: dict[str, Block] = {
        name: partial(lambda call: run(timed(call, count)), call) for name, call in calls.items()
    }
    if RAW in names:
        blocks[RAW] = partial(measure.each, pools[RAW].call, count)
    if BLOCKING in names:
        blocks[BLOCKING] = partial(measure.each, partial(pools[BLOCKING].call, math.sqrt), count)
    return blocks


def async_calls(run: Any, pools: dict[str, Any], names: Sequence[str]) -> dict[str, Call]:
    """Return what is awaited, by contender."""
    calls: dict[str, Call] = {}
    if ASYNC in names:
        calls[ASYNC] = partial(pools[BLOCKING].aio.call, math.sqrt)
    if ANYIO in names:
        import anyio

        limiter = run(_limiter(pools["workers"]))
        calls[ANYIO] = partial(anyio.to_process.run_sync, math.sqrt, limiter=limiter)
    if FUTURES in names:
        calls[FUTURES] = lambda value: asyncio.get_running_loop().run_in_executor(pools[FUTURES], math.sqrt, value)
    return calls


async def _limiter(workers: int) -> object:
    import anyio

    return anyio.CapacityLimiter(workers)


def targets(table: Sequence[Row], where: str) -> list[Target]:
    """Return what is aimed at, as far as it was measured."""
    ratios = next((row.ratios for row in table if row.name == ASYNC), {})
    aims = [(RAW, 6.0), (ANYIO, 0.5)]
    return [
        measure.at_most(f"AsyncPool.call: x {name}", where, ratios[name], limit)
        for name, limit in aims
        if name in ratios
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    options = measure.arguments(__doc__.splitlines()[0], argv)
    data = measure.report("asyncio_calls", options)
    names, data["skipped"] = measure.chosen(options.only, {name: "anyio" if name == ANYIO else "" for name in NAMES})
    count, many, blocks = (20, 100, 2) if options.quick else (300, 10_000, 10)
    for cpu in measure.passes():
        where = "not pinned" if cpu is None else f"pinned to CPU {cpu}"
        for workers, title in ((1, "one call"), (2, f"each of {many} gathered calls")):
            with measure.pinned(cpu), asyncio.Runner() as runner, Pool(workers=workers) as pool:
                raw, executor = RawPipe(1), ProcessPoolExecutor(workers)
                pools = {RAW: raw, BLOCKING: pool, FUTURES: executor, "workers": workers}
                if workers == 1:
                    of_each = blocks_of(runner.run, pools, names, count)
                else:
                    calls = async_calls(runner.run, pools, names)
                    of_each = {n: partial(lambda call: runner.run(gathered(call, many)), c) for n, c in calls.items()}
                figures = measure.take_turns(of_each, blocks)
                cpus = measure.cpus_of_children()
                executor.shutdown()  # first: its processes were forked, and hold the pipe
                raw.close()
            table = measure.rows(figures, "us", lambda seconds: seconds * 1e6)
            measure.show(f"{title}, {where}", table, (RAW, ASYNC, FUTURES))
            data["passes"].append({"name": title, "cpu": cpu, "cpus_of_children": cpus, "rows": table})
            data["targets"] += targets(table, where) if workers == 1 else gather_targets(table, where)
    measure.show_targets(data["targets"])
    measure.write(data, options.json)


def gather_targets(table: Sequence[Row], where: str) -> list[Target]:
    """Return what is aimed at with many calls together."""
    ratios = next((row.ratios for row in table if row.name == FUTURES), {})
    if ASYNC not in ratios:
        return []
    return [measure.at_least(f"gather: {FUTURES} / {ASYNC}", where, ratios[ASYNC], 3.0)]


if __name__ == "__main__":
    main()
