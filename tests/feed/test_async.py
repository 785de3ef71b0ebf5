"""The asynchronous face: the same words, nothing blocks the event loop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from tests.feed.conftest import number, numbers_of

from venvoy.feed import AsyncSwarm, SwarmError


def test_items_of_iterables_of_both_kinds_arrive_once(folder: Path) -> None:
    """One by one, many, asynchronous ones; the report is that of close."""

    async def items() -> AsyncIterator[int]:
        for item in range(200, 300):
            yield item
            await asyncio.sleep(0)

    async def run() -> None:
        async with AsyncSwarm(["cat"], 2, {"stdin": number}, stdout="{id}.out") as swarm:
            for item in range(100):
                await swarm.feed(item)
            assert await swarm.feed_many(range(100, 200)) == 100
            assert await swarm.feed_many(items()) == 100
            assert (await swarm.close()).items == 300
        assert swarm.undelivered == []

    asyncio.run(run())
    assert sorted(numbers_of(folder / "0.out", folder / "1.out")) == list(range(300))


def test_lines_come_while_items_are_fed() -> None:
    """As an asynchronous iterator."""

    async def run() -> list[str]:
        async with AsyncSwarm(["cat"], 2, stdout="lines") as swarm:
            return [line async for _, line in swarm.lines(f"{n}\n" for n in range(1000))]

    assert sorted(map(int, asyncio.run(run()))) == list(range(1000))


def test_waiting_for_room_leaves_the_loop_free_and_may_be_cancelled() -> None:
    """A full swarm suspends whoever feeds; what was cancelled was not taken."""

    async def run() -> None:
        async with AsyncSwarm("sleep 0.5; wc -c", 1, stdout="lines", shell=True, max_bytes=50_000) as swarm:
            fed = 0
            began = monotonic()
            try:
                while True:
                    await swarm.feed("x" * 1000, timeout=0.1)
                    fed += 1
            except TimeoutError:
                pass
            assert monotonic() - began < 0.4
            await swarm.feed("x" * 1000)
            lines = [line async for _, line in swarm.lines()]
            assert [int(line) for line in lines] == [1000 * (fed + 1)]

    asyncio.run(run())


def test_failures_come_out_and_end_everything() -> None:
    """Of a process while somebody waits for room; of the block; by cancelling."""

    async def feed_for_ever(swarm: AsyncSwarm) -> None:
        async with swarm:
            while True:
                await swarm.feed("x" * 1000)

    with pytest.raises(SwarmError, match="status 3"):
        asyncio.run(feed_for_ever(AsyncSwarm("sleep 0.2; exit 3", 1, shell=True, max_bytes=10_000)))

    async def cancelled() -> None:
        async with asyncio.timeout(0.3):
            await feed_for_ever(AsyncSwarm(["sleep", "100"], 1, max_bytes=10_000))

    with pytest.raises(TimeoutError):
        asyncio.run(cancelled())


@pytest.mark.parametrize("options", [{"distribute": "round-robin"}, {"encode_threads": 1}], ids=["turn", "threads"])
def test_items_arrive_whoever_takes_and_encodes_them(options: Any, folder: Path) -> None:
    """Also in numbers beyond those after which the loop has a turn."""
    turns = []

    async def beside() -> None:
        while True:
            turns.append(1)
            await asyncio.sleep(0)

    async def run() -> None:
        async with AsyncSwarm(["cat"], 2, {"stdin": number}, stdout="{id}.out", **options) as swarm:
            other = asyncio.create_task(beside())
            assert await swarm.feed_many(range(3000)) == 3000
            await swarm.end_input()
            other.cancel()
        assert swarm.report.items == 3000

    asyncio.run(run())
    assert sorted(numbers_of(folder / "0.out", folder / "1.out")) == list(range(3000))
    assert len(turns) >= 2


def test_closing_that_is_cancelled_ends_the_processes() -> None:
    """At once, whatever they have to do."""

    async def run() -> None:
        swarm = await AsyncSwarm(["sleep", "60"], 1, grace_period=0.2).start()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await swarm.close()
        assert [process.signal for process in swarm.report.processes] == [signal.SIGTERM]

    asyncio.run(run())
