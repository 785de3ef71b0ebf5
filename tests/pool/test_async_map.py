"""`async for` over maps and batches: order, windows, errors, early ends, and a loop that is never blocked."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator

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
