"""`AsyncStream`: what a generator in a worker yields, for `async for`. The waiting of `streams` on an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Protocol, Self

from venvoy_worker.contract import messages
from venvoy_worker.contract.frames import Frame, FrameError

from ..errors import ProtocolError
from ..exchange import Call, ends
from ..pool.async_calls import close, exit_of, hear
from ..pool.convoy import send
from ..pool.core import Core
from ..pool.port import Port
from ..streams.flow import Flow
from ..streams.stream import AnyStream, PoolSeat, Seat
from ..workers.lane import Lane, WorkerLost


class AsyncSeat(Seat, Protocol):
    """Where an asynchronous stream has its lane from."""

    async def take_on(self, call: Call) -> Lane:
        """Wait for the lane; as `take`."""

    async def lose_on(self, lost: WorkerLost, may_repeat: bool) -> None:
        """The worker is gone; return if the call may be run again. As `lose`."""


class TaskSeat(PoolSeat):
    """A worker of a pool, as for a call of a task."""

    def __init__(self, core: Core, port: Port) -> None:
        super().__init__(core)
        self._port = port

    async def take_on(self, call: Call) -> Lane:
        """Wait for a worker; as `take`."""
        calls = self._core.async_calls
        self.ticket = calls.ticket(self._port)
        return await calls.acquire(self.ticket, call)

    async def lose_on(self, lost: WorkerLost, may_repeat: bool) -> None:
        """The worker is gone; return if the call may be run again. As `lose`."""
        self.leave()
        if not may_repeat:
            lost.call.retries = 0
        await exit_of(lost.worker, self._port)
        self._core.queue.may_retry(lost)

    def give_back(self) -> None:
        """Give it to others."""
        self._port.claims.pop(self.ticket, None)
        super().give_back()

    def leave(self) -> None:
        """Let the collector stop the call, and then give the worker to others."""
        self._port.claims.pop(self.ticket, None)
        super().leave()


class AsyncStream(AnyStream, AsyncIterator[Any]):
    """An asynchronous iterator over what a call in a worker yields; made by `stream()` of an `AsyncPool`.

    It takes a worker when the first item is asked for, and holds it until it is exhausted or closed: `async with`,
    `aclose()`, or dropping it. See `Stream`.

    Args:
        core: the pool.
        seat: where its lane comes from.
        port: of the running loop.
        call: what is run.
        owner: what has to live as long as the stream.
    """

    _seat: AsyncSeat

    def __init__(self, core: Core, seat: AsyncSeat, port: Port, call: Call, owner: object) -> None:
        super().__init__(core, seat, call, owner)
        self._port = port
        self._is_new, self._is_asked = True, False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        for item in self._batch:
            return item
        if self._is_asked:
            raise ValueError("another task, or a function that the worker calls, is at the stream's next item already")
        self._is_asked = True
        try:
            return await self._more()
        except StopAsyncIteration:
            raise
        except BaseException:
            self.close()
            raise
        finally:
            self._is_asked = False
            if not self._is_open:
                await close(self._dialogue)

    async def _more(self) -> Any:
        """Return the first item of the next frame."""
        if self._is_new:
            self._is_new = False
            await self._begin()
        while self._is_open:
            try:
                frame = await self._next_frame()
            except TimeoutError as error:
                self.close()
                raise self._core.engine.timed_out(self._call, error) from None
            except (OSError, EOFError, FrameError, ProtocolError) as error:
                await self._lose(WorkerLost(self._lane, self._call, self._call_id), error)
                continue
            if frame.opcode != messages.ITEMS:
                self._end(frame)
                break
            self._batch = iter(self._items(frame))
            for item in self._batch:
                return item
        raise StopAsyncIteration

    async def _begin(self) -> None:
        self._flow = Flow()
        self._lane = await self._seat.take_on(self._call)
        self._is_open = True
        self._call_id, pieces = self._lane.begin(self._call)
        try:
            await send(self._lane.channel, pieces, self._call.deadline, self._port)
        except TimeoutError as error:
            self.close()
            raise self._core.engine.timed_out(self._call, error) from None
        except OSError as error:
            await self._lose(WorkerLost(self._lane, self._call, self._call_id), error)

    async def _lose(self, lost: WorkerLost, error: Exception) -> None:
        """The worker is gone: begin again, if that may be.

        Raises:
            WorkerCrashed, PoolClosed: it may not.
        """
        self._is_open = False
        lost.__cause__ = error
        await self._seat.lose_on(lost, may_repeat=not self._flow.has_begun)
        await self._begin()

    async def _next_frame(self) -> Frame:
        """Return the next frame of items, or the reply."""
        lane, call, items = self._lane, self._call, self._dialogue.items
        while True:
            frame = items.popleft() if items else lane.channel.buffered()
            self._grant(is_waiting=frame is None)
            if frame is None:
                await self._port.wait_readable(lane.channel, call.deadline)
                frame = lane.channel.try_receive()
            if frame is None:
                continue
            if frame.opcode == messages.ITEMS and frame.call_id == self._call_id:
                self._flow.came(frame)
                return frame
            is_reply = ends(frame, self._call_id, lane.last_id)
            reply = frame if is_reply else await hear(frame, call, self._call_id, lane, self._port)
            if reply is not None:
                return reply

    async def aclose(self) -> None:
        """Leave early: the generator is closed in the worker, which runs its `finally`. A second time does nothing."""
        self._is_new = False
        self.close()
        await close(self._dialogue)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
