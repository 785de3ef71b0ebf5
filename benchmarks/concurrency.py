"""Several calls at once in one worker: what a lane costs a call, and how far sleeping coroutines overlap.

    python benchmarks/concurrency.py [--json FILE] [--quick] [--only NAME,...]

"call" is a call on a worker that runs one call at a time, "call on a lane" one on a worker that runs eight, "coroutine
on a lane" one of a coroutine function there; all of them alone, one after the other, without and with all processes on
one CPU. "200 naps" are 200 coroutines of 0.1 s submitted at once to one worker of 200 lanes, from the first `submit` to
the last result. `--only` chooses among the cases.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import measure
from measure import Row
from venvoy import Pool, WorkerOptions

PLAIN, LANE, COROUTINE, NAPS = "call", "call on a lane", "coroutine on a lane", "200 naps"
CALLS = (PLAIN, LANE, COROUTINE)
MOST_SECONDS = 0.15  # that 200 naps of 0.1 s may take
WORK = """
import asyncio


def half(number):
    return number / 2


async def async_half(number):
    return number / 2


async def nap(number):
    await asyncio.sleep(0.1)
    return number
"""


def open_pool(stack: ExitStack, folder: Path, concurrency: int) -> Pool:
    """Return a warm pool of one worker that finds the module `work`."""
    options = WorkerOptions(paths=[folder], concurrency=concurrency, output="discard")
    return stack.enter_context(Pool(module="work", workers=1, worker=options))


def call_rows(folder: Path, only: frozenset[str], count: int, blocks: int) -> list[Row]:
    """Return the rows of single calls."""
    with ExitStack() as stack:
        plain, shared = open_pool(stack, folder, 1), open_pool(stack, folder, 8)
        targets = {PLAIN: (plain, "half"), LANE: (shared, "half"), COROUTINE: (shared, "async_half")}
        contenders = {
            name: partial(measure.each, partial(pool.call, target), count)
            for name, (pool, target) in targets.items()
            if not only or name in only
        }
        return measure.rows(measure.take_turns(contenders, blocks), "us", lambda seconds: seconds * 1e6)


def naps(pool: Pool) -> Sequence[float]:
    """Return the seconds that 200 sleeping coroutines take together."""
    begin = perf_counter()
    futures = [pool.submit("nap", number) for number in range(200)]
    results = [future.result() for future in futures]
    seconds = perf_counter() - begin
    if results != list(range(200)):
        raise AssertionError("replies have crossed")
    return [seconds]


def nap_rows(folder: Path, blocks: int) -> list[Row]:
    """Return the row of sleeping coroutines."""
    with ExitStack() as stack:
        pool = open_pool(stack, folder, 200)
        return measure.rows(measure.take_turns({NAPS: partial(naps, pool)}, blocks), "s", lambda seconds: seconds)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the tables, and write the figures if asked to."""
    assert __doc__
    options = measure.arguments(__doc__.partition("\n")[0], argv)
    unknown = sorted(options.only - {*CALLS, NAPS})
    if unknown:
        raise SystemExit(f"there is no case {unknown[0]!r}; there are {', '.join([*CALLS, NAPS])}")
    data: dict[str, Any] = measure.report("concurrency", options)
    count, blocks = (100, 3) if options.quick else (2000, 9)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "work.py").write_text(WORK)
        for cpu in measure.passes() if not options.only or options.only & set(CALLS) else []:
            with measure.pinned(cpu):
                table = call_rows(folder, options.only, count, blocks)
            where = "all CPUs" if cpu is None else f"pinned to CPU {cpu}"
            measure.show(f"single calls, {where}", table, [PLAIN])
            data["passes"].append({"name": "single calls", "cpu": cpu, "rows": table})
        if not options.only or NAPS in options.only:
            table = nap_rows(folder, blocks)
            measure.show("200 coroutines of 0.1 s in one worker", table, [])
            data["passes"].append({"name": NAPS, "cpu": None, "rows": table})
            data["targets"] = [measure.at_most(f"{NAPS}, seconds", "all CPUs", table[0].p50, MOST_SECONDS)]
    measure.show_targets(data["targets"])
    measure.write(data, options.json)


if __name__ == "__main__":
    main()
