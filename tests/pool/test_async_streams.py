"""`async for` over what a generator in a worker yields: while it runs, with back-pressure, and to whatever end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv

MakeAsyncPool = Callable[..., vv.AsyncPool]


def count_to(number: int) -> Iterator[int]:
    yield from range(number)


def slowly(number: int) -> Iterator[float]:
    import time

    for _ in range(number):
        yield time.time()
        time.sleep(0.2)


def fails_after(number: int) -> Iterator[int]:
    yield from range(number)
    raise TimeoutError("the generator's own")


def dies_after(number: int) -> Iterator[int]:
    import os
    import time

    yield from range(number)
    time.sleep(0.3)
    os._exit(5)


def endless(path: str) -> Iterator[int]:
    import itertools
    import pathlib

    try:
        yield from itertools.count()
    finally:
        pathlib.Path(path).write_text("closed")


async def collected(stream: Any) -> list[Any]:
    """Return all items."""
    return [item async for item in stream]


def test_items_come_in_order_while_the_generator_runs(make_async_pool: MakeAsyncPool) -> None:
    """Many small ones, none at all, several streams at once; an item does not wait for the next."""

    async def main() -> None:
        async with make_async_pool(workers=2) as pool:
            assert await collected(pool.stream(vv.by_source(count_to), 20_000)) == list(range(20_000))
            assert await collected(pool.stream(vv.by_source(count_to), 0)) == []
            both = await asyncio.gather(*[collected(pool.stream(vv.by_source(count_to), 500)) for _ in range(4)])
            assert both == [list(range(500))] * 4
            lags = [time.time() - sent async for sent in pool.options(timeout=30).stream(vv.by_source(slowly), 3)]
            assert max(lags) < 0.15
            named = await pool.named("other")
            assert await collected(named.stream(vv.by_source(count_to), 3)) == [0, 1, 2]
            assert await asyncio.wait_for(pool.call("math:sqrt", 4), 10) == 2

    asyncio.run(main())


def test_errors_come_after_the_items_before_them(make_async_pool: MakeAsyncPool) -> None:
    """The generator's own, a crash, a deadline, a result that cannot be iterated over."""

    async def outcome(stream: Any) -> tuple[list[Any], BaseException | None]:
        items: list[Any] = []
        try:
            async for item in stream:
                items.append(item)
        except Exception as error:
            return items, error
        return items, None

    async def main() -> None:
        async with make_async_pool(workers=1) as pool:
            items, error = await outcome(pool.stream(vv.by_source(fails_after), 5))
            assert items == [0, 1, 2, 3, 4]
            assert type(error) is TimeoutError
            items, error = await outcome(pool.stream(vv.by_source(dies_after), 5))
            assert items == [0, 1, 2, 3, 4]
            assert isinstance(error, vv.WorkerCrashed)
            items, error = await outcome(pool.options(timeout=0.5).stream(vv.by_source(slowly), 100))
            assert items
            assert isinstance(error, vv.CallTimeout)
            _, error = await outcome(pool.stream("math:sqrt", 4))
            assert isinstance(error, TypeError)
            assert await asyncio.wait_for(pool.call("math:sqrt", 4), 10) == 2

    asyncio.run(main())


@pytest.mark.parametrize("how", ["aclose", "drop", "cancel"])
def test_stream_that_is_left_early_closes_its_generator(
    make_async_pool: MakeAsyncPool, tmp_path: Path, how: str
) -> None:
    """`async with`, dropping it, and a cancelled consumer; the worker is free again."""
    path = tmp_path / "closed"

    async def consume(stream: Any) -> None:
        async for _ in stream:
            await asyncio.sleep(0)

    async def main() -> None:
        async with make_async_pool(workers=1) as pool:
            stream = pool.stream(vv.by_source(endless), str(path))
            if how == "aclose":
                async with stream:
                    assert [await anext(stream) for _ in range(10)] == list(range(10))
                with pytest.raises(StopAsyncIteration):
                    await anext(stream)
            elif how == "drop":
                assert [await anext(stream) for _ in range(5)] == [*range(5)]
            else:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(consume(stream), 0.3)
            del stream
            assert await asyncio.wait_for(pool.call("math:sqrt", 4), 10) == 2
            assert path.read_text() == "closed"

    asyncio.run(main())


def test_stream_of_a_lease_runs_on_its_worker_and_has_its_turn(make_async_pool: MakeAsyncPool, tmp_path: Path) -> None:
    """Calls meanwhile are refused, not left waiting; after it, early or late, the lease goes on on the same worker."""

    async def main() -> None:
        async with make_async_pool(module="flowing", workers=2) as pool, pool.lease() as lease:
            pid = lease.pid
            assert await lease.call("noted") == []
            assert await collected(lease.stream("count", 1000)) == list(range(1000))
            path = tmp_path / "closed"
            async with lease.stream(endless, str(path)) as stream:
                assert await anext(stream) == 0
                with pytest.raises(vv.WorkerError, match="a stream of this lease is open"):
                    await lease.call("noted")
                with pytest.raises(vv.WorkerError, match="a stream of this lease is open"):
                    await anext(lease.stream("count", 1))
            assert await asyncio.wait_for(lease.eval("1 + 1"), 10) == 2
            assert path.read_text() == "closed"
            with pytest.raises(TimeoutError, match="own"):
                await collected(lease.stream(fails_after, 3))
            assert await lease.eval("__import__('os').getpid()") == pid == lease.pid

    asyncio.run(main())


def test_lease_whose_stream_dies_or_is_left_open_ends_well(make_async_pool: MakeAsyncPool) -> None:
    """A crash raises after the items before it; leaving the block ends a stream that is open."""

    async def main() -> None:
        async with make_async_pool(module="flowing", workers=1) as pool:
            async with pool.lease() as lease:
                stream = lease.stream(dies_after, 3)
                assert [await anext(stream) for _ in range(3)] == [0, 1, 2]
                with pytest.raises(vv.WorkerCrashed):
                    await anext(stream)
            async with pool.lease() as lease:
                stream = lease.stream("noting")
                assert await anext(stream) == 0
            assert (await asyncio.wait_for(pool.call("noted"), 10))[1:] == ["Cancelled", "closed"]
            async with pool.lease() as lease:
                with pytest.raises(vv.CallTimeout):
                    await collected(lease.options(timeout=0.2).stream(slowly, 100))
            await asyncio.wait_for(pool.call("noted"), 10)

    asyncio.run(main())


def test_asynchronous_iterator_is_an_argument_that_the_worker_draws_from(make_async_pool: MakeAsyncPool) -> None:
    """On the loop, no more than is taken; its errors come after its items; it is closed when the call ends."""
    seen: list[Any] = []

    async def numbers(most: int, fails: bool = False) -> AsyncIterator[int]:
        try:
            for n in range(most):
                await asyncio.sleep(0)
                seen.append(n)
                yield n
            if fails:
                raise KeyError("own")
        finally:
            await asyncio.sleep(0)
            seen.append("closed")

    def first(items: Iterator[int], count: int) -> list[int]:
        return [item for item, _ in zip(items, range(count), strict=False)]

    async def main() -> None:
        async with make_async_pool(workers=1) as pool:
            assert await pool.call("builtins:sum", numbers(1000)) == sum(range(1000))
            assert seen[-1] == "closed"
            seen.clear()
            assert await pool.call(first, numbers(10**9), 3) == [0, 1, 2]
            assert seen[-1] == "closed"
            assert len(seen) < 20
            with pytest.raises(KeyError, match="own"):
                await pool.call("builtins:sum", numbers(5, fails=True))
            assert [item async for item in pool.stream("builtins:map", "{}".format, numbers(3))] == ["0", "1", "2"]
            async with pool.lease() as lease:
                assert await lease.call("builtins:list", numbers(3)) == [0, 1, 2]
            seen.clear()
            async with pool.stream("builtins:iter", numbers(10**9)) as stream:
                assert await anext(stream) == 0
            assert seen[-1] == "closed"

    asyncio.run(main())


def test_blocking_call_refuses_an_asynchronous_iterator(make_pool: Callable[..., vv.Pool]) -> None:
    """There is no loop to draw it on, and the error says who has one."""

    async def numbers() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(TypeError, match="only an AsyncPool"):
        make_pool(workers=1).call("builtins:sum", numbers())
