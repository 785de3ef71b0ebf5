"""`map` over asynchronous iterables: a task draws from the source while results are awaited.

A `FedWindow` owns what was drawn and not sent yet. Law: an item does not wait for the next one: what is here when the
source takes its time is sent as it is, however small a chunk.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any

from ..pool.jobs import Watcher
from ..pool.mapping import Mapping, Window, too_late
from ..pool.port import Port

AnyIterable = Iterable[Any] | AsyncIterable[Any]


class FedWindow(Window):
    """A window over an asynchronous source.

    Args:
        source: what to map over. The others are those of `Window`.
    """

    def __init__(
        self, source: AsyncIterable[Any], most_chunks: int, chunksize: int | None, buffersize: int | None
    ) -> None:
        super().__init__((), most_chunks, chunksize, buffersize)
        self.source = aiter(source)
        self.is_over = False  # nothing more will be drawn
        self.broken: BaseException | None = None  # why nothing more can be sent
        self._here: deque[Any] = deque()
        self.is_pausing = False  # the source takes its time

    def lacks(self, in_flight: int) -> bool:
        """Return True if one more item may be drawn."""
        return len(self._here) < self._size_of_next(in_flight)

    def put(self, item: Any) -> None:
        """An item was drawn."""
        self.is_pausing = False
        self._here.append(item)

    def draw(self, in_flight: int) -> list[Any]:
        """Return the items of the next chunk; none when there are not enough yet."""
        size = self._size_of_next(in_flight)
        if len(self._here) < size and not (self.is_pausing or self.is_over):
            return []
        chunk = [self._here.popleft() for _ in range(min(size, len(self._here)))]
        self._drawn(len(chunk))
        return chunk

    def send(self, mapping: Mapping) -> None:
        """Send what is here, if it is enough; whatever stands in the way is the error of the map."""
        try:
            mapping.fill()
        except BaseException as error:
            self.broken = error


async def fed(mapping: Mapping, window: FedWindow, port: Port) -> AsyncIterator[Any]:
    """Yield the results of a mapping whose input is drawn meanwhile; as `async_calls.arriving`."""
    bell, room = port.bell(), asyncio.Event()
    pump = asyncio.get_running_loop().create_task(_draw(mapping, window, bell.release, room))
    results = mapping.results()
    try:
        while True:
            await _something(mapping, window, bell)
            if window.broken is not None:
                raise window.broken
            try:
                value = next(results)
            except StopIteration:
                return
            room.set()
            yield value
    finally:
        pump.cancel()
        results.close()
        mapping.cancel()
        await asyncio.wait([pump])


async def _something(mapping: Mapping, window: FedWindow, bell: Any) -> None:
    """Wait until there is a result, or will be none.

    Raises:
        CallTimeout: there is nothing in time.
    """
    while window.broken is None:
        futures = mapping.awaited()
        if mapping.has_value or any(future.done() for future in futures) or (window.is_over and not futures):
            return
        watcher = Watcher(bell.release)
        try:
            if not watcher.watch(futures) and not await bell.wait(mapping.patience()):
                raise too_late()
        finally:
            watcher.leave(futures)


async def _draw(mapping: Mapping, window: FedWindow, tell: Callable[[], object], room: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def on_pause() -> None:
        window.is_pausing = True
        window.send(mapping)
        tell()

    try:
        while True:
            while not window.lacks(mapping.in_flight):
                room.clear()
                await room.wait()
            pause = loop.call_soon(on_pause)  # which comes to pass if the source does not go on at once
            try:
                item = await anext(window.source)
            finally:
                pause.cancel()
            window.put(item)
            window.send(mapping)
            tell()
    except StopAsyncIteration:
        pass
    except Exception as error:
        window.error = error
    finally:
        window.is_over = True
        on_pause()


def is_asynchronous(items: object) -> bool:
    """Return True if something is to be iterated over with `async for`."""
    return hasattr(type(items), "__aiter__")


async def zipped(iterables: tuple[AnyIterable, ...]) -> AsyncIterator[tuple[Any, ...]]:
    """`zip` of iterables, some of which are asynchronous."""
    iterators: list[Any] = [aiter(some) if is_asynchronous(some) else iter(some) for some in iterables]  # type: ignore[arg-type]
    while True:
        items = []
        for iterator in iterators:
            try:
                items.append(await anext(iterator) if is_asynchronous(iterator) else next(iterator))
            except (StopIteration, StopAsyncIteration):
                return
        yield tuple(items)


async def each(function: Callable[[Any], Any], items: AsyncIterable[Any]) -> AsyncIterator[Any]:
    """`map` of a function over an asynchronous iterable, here."""
    async for item in items:
        yield function(item)
