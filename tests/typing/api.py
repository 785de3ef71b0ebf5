"""What type checkers and editors make of the public names; read by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, assert_type

import venvoy as vv


@dataclass
class Row:
    """What a function of the module returns."""

    name: str
    size: int


class Files(Protocol):
    """A module of the worker's environment."""

    def scan(self, folder: str, *, depth: int = 1) -> list[Row]:
        """Return the files in a folder."""
        ...

    def count(self, folder: str) -> int: ...


def pools(spec: vv.EnvSpec) -> None:
    """Pools, views, futures, handles."""
    with vv.Pool(spec, workers=(1, 4), worker=vv.WorkerOptions(max_calls=10), max_waiting=3) as pool:
        assert_type(pool, vv.Pool)
        assert_type(pool.submit("math:sqrt", 4), vv.CallFuture)
        assert_type(pool.map("math:sqrt", [1, 4]), Iterator[Any])
        assert_type(pool.stats(), vv.PoolStats)
        assert_type(pool.warm(2), int)
        pool.options(timeout=5, retries=2).call("m:f")
    vv.Pool(spec, nonsense=1)  # type: ignore[call-arg]  # pyright: ignore
    pool.options(timout=5)  # type: ignore[call-arg]  # pyright: ignore


def handles(pool: vv.Pool) -> None:
    """A typed handle has the functions and types of its protocol."""
    files = pool.bind(Files)
    assert_type(files, Files)
    assert_type(files.scan(".", depth=2), list[Row])
    assert_type(files.count("."), int)
    files.count(3)  # type: ignore[arg-type]  # pyright: ignore
    files.size(".")  # type: ignore[attr-defined]  # pyright: ignore


def detached(pool: vv.Pool) -> None:
    """Ids are texts."""
    id = pool.detached.start("math:sqrt", 4)
    assert_type(id, str)
    assert_type(pool.detached.peek(id), vv.Peek)
    assert_type(pool.detached.cancel(id), bool)
    assert_type([entry.id for entry in pool.detached.list()], list[str])
    store: vv.CallStore = vv.SqliteCallStore("calls.db", resume=True)
    store = vv.MemoryCallStore(ttl=None)
    vv.Pool(call_store=store)


def fleets() -> None:
    """Pools by name."""
    with vv.Fleet({"one": vv.PoolSpec(workers=1, max_waiting=3), "two": vv.EnvSpec(["numpy"])}) as fleet:
        assert_type(fleet["one"], vv.Pool)
        assert_type(fleet.stats(), dict[str, vv.PoolStats])
    assert_type(vv.Fleet.from_config(), vv.Fleet)
    vv.PoolSpec(nonsense=1)  # type: ignore[call-arg]  # pyright: ignore


@vv.isolated(packages=["numpy<2"], python="3.9")
def area(width: float, height: float = 2.0) -> float:
    """Return a product."""
    return width * height


async def isolated() -> None:
    """A function keeps its parameters and its result."""
    assert_type(await area.aio(3), float)
    assert_type(area(3), float)
    assert_type(area(3, height=4), float)
    assert_type(area.submit(3), vv.CallFuture)
    assert_type(area.map([1, 2]), Iterator[float])
    area("wide")  # type: ignore[arg-type]  # pyright: ignore
