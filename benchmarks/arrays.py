"""Large arrays: as argument, every byte of which is read there; as result, read here while the last is still held.

    python benchmarks/arrays.py [--json FILE] [--quick] [--only NAME,...]

What nothing that hands over a copy can undercut is measured beside it: one `memcpy` between two arrays that are both
warm, and one read of all bytes. All are in a steady state: they have done the same a few times before.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from time import perf_counter
from typing import Any

import numpy

import array_work
import measure
import venvoy
from measure import Block, Row, Target

FLOOR, VENVOY, FUTURES = "memcpy + read", "venvoy", "ProcessPoolExecutor"


class Floor:
    """One copy and one read, in this process."""

    needs = ""

    def __init__(self, size: int) -> None:
        self._room = numpy.ones(size, "u1")

    def send(self, array: Any) -> int:
        """Hand an array over and have every byte of it read."""
        numpy.copyto(self._room, array)
        return array_work.read(self._room)

    def fetch(self, size: int) -> Any:
        """Get an array."""
        numpy.copyto(self._room, array_work.give(size))
        return self._room

    def close(self) -> None:
        """End its processes."""


class Venvoy(Floor):
    """The pool of this package."""

    def __init__(self, size: int) -> None:
        self.pool = venvoy.Pool(workers=1)

    def send(self, array: Any) -> int:
        return int(self.pool.call(array_work.read, array))

    def fetch(self, size: int) -> Any:
        return self.pool.call(array_work.give, size)

    def close(self) -> None:
        self.pool.close()


class Futures(Floor):
    """`concurrent.futures.ProcessPoolExecutor`."""

    def __init__(self, size: int) -> None:
        self._executor: Any = self._make()

    def _make(self) -> Any:
        return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    def send(self, array: Any) -> int:
        return int(self._executor.submit(array_work.read, array).result())

    def fetch(self, size: int) -> Any:
        return self._executor.submit(array_work.give, size).result()

    def close(self) -> None:
        self._executor.shutdown()


class Loky(Futures):
    """loky's executor."""

    needs = "loky"

    def _make(self) -> Any:
        import loky

        return loky.ProcessPoolExecutor(1)


class Joblib(Floor):
    """joblib, which passes large arguments as memory-mapped files; a new array each time."""

    needs = "joblib"

    def __init__(self, size: int) -> None:
        import joblib

        self._parallel = joblib.Parallel(n_jobs=2)
        self._parallel.__enter__()
        self._delayed = joblib.delayed

    def send(self, array: Any) -> int:
        return int(self._parallel([self._delayed(array_work.read)(array.view())])[0])

    def fetch(self, size: int) -> Any:
        return self._parallel([self._delayed(array_work.give)(size)])[0]

    def close(self) -> None:
        self._parallel.__exit__(None, None, None)
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(kill_workers=True)


class ByHand(Floor):
    """`multiprocessing.shared_memory`, with one block for arguments and two for results, and a pipe to say what is."""

    def __init__(self, size: int) -> None:
        from multiprocessing.shared_memory import SharedMemory

        name = f"venvoy-benchmark-{os.getpid()}-"
        self._blocks = [SharedMemory(f"{name}{index}", create=True, size=size) for index in range(3)]
        self._arrays = [numpy.ndarray(size, "u1", block.buf) for block in self._blocks]
        self._connection, far = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=array_work.serve, args=(far, name, size), daemon=True)
        self._process.start()
        self._turn = 1

    def send(self, array: Any) -> int:
        numpy.copyto(self._arrays[0], array)
        self._connection.send(0)
        return int(self._connection.recv())

    def fetch(self, size: int) -> Any:
        self._turn = 3 - self._turn
        self._connection.send(self._turn)
        return self._arrays[self._connection.recv()]

    def close(self) -> None:
        self._connection.send(None)
        self._process.join()
        self._arrays.clear()
        for block in self._blocks:
            block.close()
            block.unlink()


ALL: dict[str, type[Floor]] = {
    FLOOR: Floor,
    VENVOY: Venvoy,
    "shared_memory by hand": ByHand,
    FUTURES: Futures,
    "loky": Loky,
    "joblib": Joblib,
}


def chosen(only: frozenset[str]) -> tuple[dict[str, type[Floor]], dict[str, str]]:
    """Return the contenders to be measured, and why each of the others is skipped; say so."""
    names, skipped = measure.chosen(only, {name: kind.needs for name, kind in ALL.items()})
    return {name: ALL[name] for name in names}, skipped


def timed(run: Callable[[], object], count: int) -> list[float]:
    """Return the seconds that each of some runs took."""
    return [seconds for _ in range(count) for seconds in measure.once(run)]


def blocks_of(running: dict[str, Any], size: int, way: str, count: int) -> dict[str, Block]:
    """Return a block of a few transfers for each contender.

    Args:
        way: "argument" or "result".
    """
    array = numpy.ones(size, "u1")
    held: dict[str, Any] = {}

    def fetch(name: str, one: Any) -> None:
        result = one.fetch(size)
        array_work.read(result)
        held[name] = result  # until the next has been read

    found: dict[str, Block] = {}
    for name, one in running.items():
        run = partial(one.send, array) if way == "argument" else partial(fetch, name, one)
        found[name] = partial(timed, run, count)
    return found


def small_calls(pool: venvoy.Pool, count: int) -> dict[str, Block]:
    """Return blocks of a trivial call, of one with an array of 4 KB, and of one with a shared array."""
    small = numpy.ones(4096, "u1")
    return {
        "trivial call": lambda: measure.each(lambda _: pool.call("builtins:len", ""), count),
        "4 KB array": lambda: measure.each(lambda _: pool.call("builtins:len", small), count),
    }


def shared_calls(pool: venvoy.Pool, size: int, count: int) -> dict[str, Block]:
    """Return a block of calls with a shared array."""
    shared = venvoy.shared_array(size, "u1")
    return {"1 GB shared_array": lambda: measure.each(lambda _: pool.call(array_work.look, shared), count)}


def targets_of(table: Sequence[Row], way: str, where: str) -> list[Target]:
    """Return what is aimed at for large arrays."""
    found = {row.name: row for row in table}
    targets = []
    if VENVOY in found and FLOOR in found:
        targets.append(measure.at_most(f"{way}: memcpy + read x", where, found[VENVOY].ratios[FLOOR], 1.5))
    if VENVOY in found and FUTURES in found:
        targets.append(measure.at_least(f"{way}: {FUTURES} / venvoy", where, found[FUTURES].ratios[VENVOY], 20.0))
    return targets


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    begin = perf_counter()
    options = measure.arguments(__doc__.splitlines()[0], argv)
    data = measure.report("arrays", options)
    kinds, data["skipped"] = chosen(options.only)
    size, shared, blocks, count = (1 << 22, 1 << 23, 2, 2) if options.quick else (1 << 28, 1 << 30, 4, 3)
    for cpu in measure.passes():
        where = "not pinned" if cpu is None else f"pinned to CPU {cpu}"
        with measure.pinned(cpu), ExitStack() as stack:
            running: dict[str, Any] = {name: kind(size) for name, kind in kinds.items()}
            for one in running.values():
                stack.callback(one.close)
            for way in ("argument", "result"):
                figures = measure.take_turns(blocks_of(running, size, way, count), blocks)
                table = measure.rows(figures, "ms", lambda seconds: seconds * 1e3)
                measure.show(f"{size >> 20} MB {way}, {where}", table, (FLOOR, VENVOY, FUTURES))
                data["passes"].append({"name": way, "cpu": cpu, "cpus_of_children": [], "rows": table})
                data["targets"] += targets_of(table, way, where)
            if VENVOY in running:
                more_of_ours(data, running[VENVOY].pool, shared, where, 20 if options.quick else 300)
    measure.show_targets(data["targets"])
    measure.write(data, options.json)
    print(f"\n{perf_counter() - begin:.0f} s")


def more_of_ours(data: dict[str, Any], pool: venvoy.Pool, shared: int, where: str, count: int) -> None:
    """Measure what only this package has, and what small arrays cost."""
    figures = measure.take_turns({**small_calls(pool, count), **shared_calls(pool, shared, count)}, 5)
    table = measure.rows(figures, "us", lambda seconds: seconds * 1e6)
    measure.show(f"small and shared arrays, {where}", table, ("trivial call",))
    data["passes"].append({"name": "small and shared", "cpu": None, "cpus_of_children": [], "rows": table})
    found = {row.name: row for row in table}
    ratio = found["4 KB array"].ratios["trivial call"]
    data["targets"].append(measure.at_most("4 KB array: trivial call x", where, ratio, 1.6))
    data["targets"].append(measure.at_most("1 GB shared_array, us", where, found["1 GB shared_array"].p50, 1000.0))


if __name__ == "__main__":
    main()
