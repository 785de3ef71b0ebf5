"""Streams both ways, and functions of the host's that a worker calls, beside calls of the same pool.

    python benchmarks/streams.py [--json FILE] [--quick] [--only NAME,...]

Numbers and chunks of 64 KiB are yielded by a generator in a worker, or drawn by the worker from an iterator here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import measure
import venvoy
from measure import Row, Target

CALL, CALLBACK = "call", "callback"
INTS, CHUNKS = "numbers to the host", "chunks to the host"
INTS_IN, CHUNKS_IN = "numbers to the worker", "chunks to the worker"
CHUNK = 65_536


def numbers(count: int) -> Iterator[int]:
    """Yield so many numbers; runs in a worker, and here."""
    yield from range(count)


def chunks(count: int, size: int) -> Iterator[bytes]:
    """Yield so many chunks; runs in a worker, and here."""
    chunk = b"x" * size
    for _ in range(count):
        yield chunk


def drain(items: Iterator[object]) -> None:
    """Take all, in a worker."""
    for _ in items:
        pass


def call_back(function: Callable[[float], object], count: int) -> list[float]:
    """Return how long each of so many callbacks took, measured in the worker."""
    from time import perf_counter

    times = []
    for index in range(count):
        begin = perf_counter()
        function(float(index))
        times.append(perf_counter() - begin)
    return times


def contenders(pool: venvoy.Pool, calls: int, items: int, large: int) -> dict[str, measure.Block]:
    """Return a block of each contender; those of streams return the seconds per item."""

    def taken(make: Callable[[], object], count: int) -> list[float]:
        return [measure.once(make)[0] / count]

    def all_of(stream: Iterator[object]) -> None:
        deque(stream, maxlen=0)

    return {
        CALL: partial(measure.each, partial(pool.call, "math:sqrt"), calls),
        CALLBACK: lambda: pool.call(call_back, venvoy.callback(abs), calls),
        INTS: partial(taken, lambda: all_of(pool.stream(numbers, items)), items),
        CHUNKS: partial(taken, lambda: all_of(pool.stream(chunks, large, CHUNK)), large),
        INTS_IN: partial(taken, lambda: pool.call(drain, numbers(items)), items),
        CHUNKS_IN: partial(taken, lambda: pool.call(drain, chunks(large, CHUNK)), large),
    }


def targets(table: Sequence[Row], where: str) -> list[Target]:
    """Return what is aimed at."""
    found = {row.name: row for row in table}
    aims = []
    if INTS in found:
        aims.append(measure.at_least("numbers/s to the host", where, 1e6 / found[INTS].p50, 500_000))
    if CHUNKS in found:
        aims.append(measure.at_least("GB/s in chunks of 64 KiB", where, CHUNK / found[CHUNKS].p50 / 1000, 1.0))
    if CALLBACK in found and CALL in found:
        aims.append(measure.at_most("callback, x call", where, found[CALLBACK].ratios[CALL], 2.0))
    return aims


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    options = measure.arguments(__doc__.splitlines()[0], argv)
    data = measure.report("streams", options)
    calls, items, large, blocks = (50, 5000, 50, 1) if options.quick else (2000, 500_000, 8000, 5)
    for cpu in measure.passes():
        where = "not pinned" if cpu is None else f"pinned to CPU {cpu}"
        with measure.pinned(cpu), venvoy.Pool(workers=1) as pool:
            chosen = contenders(pool, calls, items, large)
            if options.only:
                chosen = {name: block for name, block in chosen.items() if name in options.only}
            figures = measure.take_turns(chosen, blocks)
            cpus = measure.cpus_of_children()
        table = measure.rows(figures, "us", lambda seconds: seconds * 1e6)
        measure.show(f"Each call, callback or item, {where}", table, (CALL,))
        aims = targets(table, where)
        measure.show_targets(aims)
        data["passes"].append({"name": "streams", "cpu": cpu, "cpus_of_children": cpus, "rows": table})
        data["targets"] += aims
    measure.write(data, options.json)


if __name__ == "__main__":
    main()
