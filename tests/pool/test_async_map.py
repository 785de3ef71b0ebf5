"""`async for` over maps and batches: order, windows, errors, early ends, and a loop that is never blocked."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

import venvoy as vv

MakeAsyncPool = Callable[..., vv.AsyncPool]


async def collected(results: object) -> list[object]:
    """Return all items of an asynchronous iterator."""
    return [item async for item in results]  # type: ignore[attr-defined]


def test_results_come_in_order_or_as_they_are_done(make_async_pool: MakeAsyncPool) -> None:
    """As from the blocking face, with several iterables, keyword maps and batches too."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=2) as pool:
            assert await collected(pool.map("double", range(1000))) == [2 * n for n in range(1000)]
            assert await collected(pool.map("math:hypot", [3, 5], [4, 12], chunksize=1)) == [5, 13]
            naps = pool.map("nap", [0.5, 0.01], ["slow", "quick"], chunksize=1, ordered=False)
            assert await collected(naps) == ["quick", "slow"]
            keywords = pool.map_kwargs("with_timeout_name", [{"timeout": n} for n in range(5)])
            assert await collected(keywords) == list(range(5))
            requests = [("double", (1,)), ("math:sqrt", (16,)), ("with_timeout_name", (), {"timeout": 3})]
            assert await collected(pool.call_many(requests)) == [2, 4, 3]
            assert await collected(pool.options(timeout=30).map("double", [4])) == [8]
            assert await collected(pool.map("double", [])) == []

    asyncio.run(main())


def test_errors_stand_in_the_place_of_a_result(make_async_pool: MakeAsyncPool) -> None:
    """Raised after the results before them, or yielded."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            seen = []
            results = pool.map("fails_on", [1, 2, 3, 4], itertools.repeat(3), chunksize=4)
            with pytest.raises(KeyError):
                seen.extend([item async for item in results])
            async for item in pool.map("fails_on", [1, 2, 3, 4], itertools.repeat(3), return_exceptions=True):
                seen.append(item)
            assert [str(item) for item in seen] == ["1", "2", "3", "4"]
            with pytest.raises(vv.CallTimeout):
                await collected(pool.map("nap", [30], timeout=0.2))
            assert await asyncio.wait_for(pool.call("double", 1), 10) == 2

    asyncio.run(main())


def test_infinite_input_is_drawn_within_the_window_and_an_early_end_cancels(make_async_pool: MakeAsyncPool) -> None:
    """Ten taken: at most these and what is ahead have been drawn; then the pool is free."""
    drawn = 0

    def endless() -> Iterator[int]:
        nonlocal drawn
        for n in itertools.count():
            drawn += 1
            yield n

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            results = pool.map("double", endless(), buffersize=8, chunksize=1)
            taken = [await anext(results) for _ in range(10)]
            await results.aclose()  # type: ignore[attr-defined]
            assert taken == [2 * n for n in range(10)]
            assert drawn <= 10 + 8
            assert await asyncio.wait_for(pool.call("double", 1), 10) == 2

    asyncio.run(main())


def test_loop_goes_on_while_a_map_waits(make_async_pool: MakeAsyncPool) -> None:
    """Waiting for the next result blocks nobody; a cancelled consumer leaves at once."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            await pool.call("pid")
            ticks = 0
            waiting = asyncio.create_task(collected(pool.map("nap", [0.2, 0.2], chunksize=1)))
            while not waiting.done():
                await asyncio.sleep(0.01)
                ticks += 1
            assert ticks >= 5
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(collected(pool.map("nap", [30, 30], chunksize=1)), 0.2)
            assert await asyncio.wait_for(pool.call("double", 1), 10) == 2
            assert time.monotonic() - began < 5

    asyncio.run(main())


async def numbers(most: int, seen: list[int] | None = None, pause: float = 0.0) -> AsyncIterator[int]:
    """Count, as an asynchronous source; note what was drawn."""
    for n in range(most):
        await asyncio.sleep(pause)
        if seen is not None:
            seen.append(n)
        yield n


def test_map_draws_from_asynchronous_sources(make_async_pool: MakeAsyncPool) -> None:
    """One, or several beside ordinary ones; keyword maps and batches; in order or as they are done; none at all."""

    async def kwargs() -> AsyncIterator[dict[str, int]]:
        for n in range(5):
            yield {"timeout": n}

    async def requests() -> AsyncIterator[tuple[object, ...]]:
        yield ("double", (1,))
        yield ("double", [2])

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=2) as pool:
            assert await collected(pool.map("double", numbers(2000))) == [2 * n for n in range(2000)]
            assert await collected(pool.map("math:hypot", numbers(3), [4, 12, 1, 9], chunksize=2)) == [
                4,
                145**0.5,
                5**0.5,
            ]
            unordered = pool.map("double", numbers(300), ordered=False, buffersize=7)
            assert sorted(await collected(unordered)) == [2 * n for n in range(300)]  # type: ignore[type-var]
            assert await collected(pool.map_kwargs("with_timeout_name", kwargs())) == list(range(5))
            assert await collected(pool.call_many(requests())) == [2, 4]
            assert await collected(pool.map("double", numbers(0))) == []

    asyncio.run(main())


def test_item_of_a_slow_source_does_not_wait_for_the_next(make_async_pool: MakeAsyncPool) -> None:
    """Its result is there before the source has given another, although chunks have become large."""

    async def main() -> None:
        gate = asyncio.Event()

        async def source() -> AsyncIterator[int]:
            for n in range(500):
                yield n
            await gate.wait()
            yield 500

        async with make_async_pool(module="poolwork", workers=2) as pool:
            results = pool.map("double", source())
            async with asyncio.timeout(10):
                assert [await anext(results) for _ in range(500)] == [2 * n for n in range(500)]
            gate.set()
            assert await collected(results) == [1000]

    asyncio.run(main())


def test_endless_source_is_drawn_as_far_as_results_are_taken(make_async_pool: MakeAsyncPool) -> None:
    """And is ended with the map; so is its task."""
    seen: list[int] = []

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            results = pool.map("double", numbers(10**9, seen), buffersize=8)
            assert [await anext(results) for _ in range(10)] == [2 * n for n in range(10)]
            await asyncio.sleep(0.05)
            assert len(seen) <= 10 + 8 + 1
            await results.aclose()  # type: ignore[attr-defined]
            drawn = len(seen)
            await asyncio.sleep(0.05)
            assert len(seen) == drawn
            assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_error_of_a_source_comes_after_the_results_before_it(make_async_pool: MakeAsyncPool) -> None:
    """And what no call can be made for, or a result that is late, ends the map, whatever the source does."""

    async def fails() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0.01)
        yield 2
        raise KeyError("own")

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            results = pool.map("double", fails())
            assert [await anext(results), await anext(results)] == [2, 4]
            with pytest.raises(KeyError, match="own"):
                await anext(results)
            with pytest.raises(vv.CallTimeout):
                await collected(pool.map("double", numbers(5, pause=30), timeout=0.1))
            with pytest.raises(ValueError, match="0"):
                await collected(pool.map("fail", numbers(5)))
            errors = await collected(pool.map("fail", numbers(3), return_exceptions=True))
            assert [type(error) for error in errors] == [ValueError] * 3
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(collected(pool.map("nap", numbers(10**9))), 0.2)
        with pytest.raises(vv.PoolClosed):
            await collected(pool.map("double", numbers(5)))
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
