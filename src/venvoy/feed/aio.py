"""The asynchronous face of a swarm: the same words, awaitable; encoders run in the event loop's thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from types import TracebackType
from typing import Any, Self

from .report import SwarmReport
from .swarm import Swarm


class AsyncSwarm:
    """`Swarm` for asyncio.

    Args:
        args, options: those of `Swarm`; an option that is a function is called on threads of the swarm.

    Examples:
        >>> import asyncio
        >>> from venvoy.feed import AsyncSwarm
        >>> async def main():
        ...     async with AsyncSwarm(["sort", "-n"], stdout="lines") as swarm:
        ...         return [line async for _, line in swarm.lines(["10\\n", "9\\n"])]
        >>> asyncio.run(main())
        ['9', '10']
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._swarm = Swarm(*args, **options)
        self._core = self._swarm._core

    async def start(self) -> Self:
        """Start the processes, as `Swarm.start`."""
        await asyncio.to_thread(self._swarm.start)
        return self

    async def feed(self, item: Any, timeout: float | None = None) -> None:
        """Feed an item, as `Swarm.feed`; a cancelled one was not taken."""
        async with asyncio.timeout(timeout):
            await self._feed(item)

    async def _feed(self, item: Any) -> None:
        core = self._core
        if core.feeding.encoders is None or core.plan.distribute != "ready" or self._swarm._threads is not None:
            await asyncio.to_thread(self._swarm.feed, item)
            return
        pieces = core.feeding.encoders.one(item)
        loop = asyncio.get_running_loop()
        while True:
            room = asyncio.Event()
            if core.feeding.intake.try_put_one(item, pieces, lambda room=room: loop.call_soon_threadsafe(room.set)):  # type: ignore[misc]
                return
            await room.wait()

    async def feed_many(self, iterable: Iterable[Any] | AsyncIterable[Any]) -> int:
        """Feed all items of an iterable or asynchronous iterable, and return how many there were."""
        count = 0
        if isinstance(iterable, AsyncIterable):
            async for item in iterable:
                await self._feed(item)
                count += 1
            return count
        for item in iterable:
            await self._feed(item)
            count += 1
            if not count % 1024:
                await _turn_of_others()
        return count

    async def lines(self, items: Iterable[Any] | None = None) -> AsyncIterator[tuple[int, Any]]:
        """Yield `(process_id, line)`, as `Swarm.lines`."""
        lines = self._swarm.lines(items)
        try:
            while (batch := await asyncio.to_thread(_some_of, lines)) is not None:
                for line in batch:
                    yield line
        finally:
            await asyncio.to_thread(lines.close)  # type: ignore[attr-defined]

    async def end_input(self) -> None:
        """Take no more items, as `Swarm.end_input`."""
        await asyncio.to_thread(self._swarm.end_input)

    async def close(self, timeout: float | None = None) -> SwarmReport:
        """Close, as `Swarm.close`; a cancelled one aborts."""
        try:
            return await asyncio.to_thread(self._swarm.close, timeout)
        except asyncio.CancelledError:
            await asyncio.to_thread(self._swarm.abort)
            raise

    async def abort(self) -> None:
        """End all processes now, as `Swarm.abort`."""
        await asyncio.to_thread(self._swarm.abort)

    @property
    def undelivered(self) -> list[Any]:
        """As `Swarm.undelivered`."""
        return self._swarm.undelivered

    @property
    def report(self) -> SwarmReport:
        """As `Swarm.report`."""
        return self._swarm.report

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.close()
        else:
            await self.abort()


def _some_of(lines: Any) -> list[tuple[int, Any]] | None:
    """Return the next line, alone, since waiting for another might take long; None at the end."""
    for line in lines:
        return [line]
    return None


async def _turn_of_others() -> None:
    """Let everything else that is ready on the event loop run."""
    loop = asyncio.get_running_loop()
    turn = loop.create_future()
    loop.call_soon(turn.set_result, None)
    await turn
