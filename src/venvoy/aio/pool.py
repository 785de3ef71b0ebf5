"""`AsyncPool`: the asyncio face, by itself or as `pool.aio` on the workers of a `Pool`. Nothing is decided here."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from time import monotonic
from types import TracebackType
from typing import Any, Self, Unpack

from ..anypool import AnyPool
from ..options import CallOptionsDict
from ..places import placed
from ..pool.async_calls import reached
from ..pool.core import JOIN_SECONDS, Core
from . import asyncio_port
from .faces import AsyncCalling, AsyncView
from .lease import AsyncLease, Naming, gather


class AsyncPool(AsyncCalling, AnyPool):
    """Warm workers of one environment, for asyncio: the words of `Pool`, awaitable, with no thread for a call.

    A task that is cancelled, by `asyncio.timeout` or a task group too, has its call stopped like one whose deadline
    passed. One pool may serve several event loops, in turn or at once.

    Args:
        env: an `EnvSpec`, an `Env`, the path of a Python or of an environment's folder; None is the host's own.
        module: imported by every worker before it is ready; bare target names are looked up there.
        workers: their number, or a pair (least, most); by default from 1 to the number of processors, at least 2.
        worker: how each is started.
        max_workers: alias of `workers=(1, most)`, as in other executors.
        options: see `PoolOptions`.

    Raises:
        TypeError, ValueError: an argument is not what is described here.
        PoolError: this system cannot run workers.

    Examples:
        >>> import asyncio
        >>> async def main():
        ...     async with vv.AsyncPool() as pool:
        ...         return await pool.call("math:hypot", 3.0, 4.0)
        >>> asyncio.run(main())
        5.0
    """

    def options(self, **options: Unpack[CallOptionsDict]) -> AsyncView:
        """Return a light view of this pool whose calls have these `CallOptions`; as `Pool.options`."""
        return AsyncView(self, self._call_options.replaced(**options))

    def lease(self, *, timeout: float | None = None) -> AsyncLease:
        """Return the exclusive use of one worker, for an `async with` block; as `Pool.lease`."""
        return AsyncLease(self._core, timeout, self._call_options)

    def leases(self, count: int, *, timeout: float | None = None) -> AbstractAsyncContextManager[list[AsyncLease]]:
        """Return the exclusive use of up to `count` workers at once, for an `async with` block; as `Pool.leases`."""
        return gather(self._core, count, timeout, self._call_options)

    def named(self, name: str, create: bool = True, **worker_options: Any) -> Naming:
        """Return the worker of that name, when it is awaited or entered by `async with`; as `Pool.named`."""
        return Naming(self._named.get_on(asyncio_port.running(), name, create, worker_options))

    async def warm(self, workers: int | None = None) -> int:
        """Build, start, and wait until so many workers are ready; return how many are. As `Pool.warm`."""
        return await self._core.async_calls.warm(workers, asyncio_port.running())

    async def reload(self) -> int:
        """Replace all workers by fresh ones that import the code as it is now; as `Pool.reload`."""
        return await asyncio.to_thread(self._core.reload)

    async def define(self, text: str, /) -> None:
        """Add source text to the namespace of all workers, now and later; as `Pool.define`."""
        if not isinstance(text, str):
            raise TypeError(f"define() takes source text, not {type(text).__name__}")
        await asyncio.to_thread(self._define, *placed(text, "define"))

    async def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls and end the workers once all calls are done; as `Pool.shutdown`.

        Args:
            wait: return only when nothing of the pool is left.
            cancel_futures: cancel the calls of `pool.submit` that wait in the queue; running ones are finished.
        """
        cores = self._begin_shutdown(cancel_futures)
        if wait:
            await _ended(cores, None)
            self._ledger.flush()

    async def close(self, timeout: float | None = None) -> None:
        """End the pool within a bounded time; as `Pool.close`. A cancelled close ends everything at once."""
        cores = self._begin_close()
        try:
            is_gone = await _ended(cores, self._core.options.grace_period if timeout is None else timeout)
        except BaseException:
            _kill(cores)
            raise
        if not is_gone:
            _kill(cores)
            await _ended(cores, JOIN_SECONDS)
        self._ledger.flush()

    async def __aenter__(self) -> Self:
        try:
            await self.warm()
        except BaseException:
            await self.close(0)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, GeneratorExit):  # nothing can be awaited any more
            _kill(self._begin_close())
        elif error is None or isinstance(error, Exception):
            try:
                await self.shutdown()
            except BaseException:  # cancelled, while calls were being finished
                _kill(self._begin_close())
                raise
        else:  # cancelled: whoever leaves like this does not wait for calls
            await self.close(0)


def face_of(pool: AnyPool) -> AsyncPool:
    """Return the asyncio face of a pool, which keeps it alive."""
    face = AsyncPool.__new__(AsyncPool)
    face.__dict__.update(pool.__dict__, _pool=pool)
    return face


async def _ended(cores: list[Core], seconds: float | None) -> bool:
    """Wait until nothing of these pools is left; False when that takes too long."""
    port = asyncio_port.running()
    deadline = None if seconds is None else monotonic() + seconds
    for core in cores:
        if not await reached(core.staff.gone, None if deadline is None else deadline - monotonic(), port):
            return False
    for core in cores:
        await asyncio.to_thread(core.join, JOIN_SECONDS)  # its threads are about to end
    return True


def _kill(cores: list[Core]) -> None:
    for core in cores:
        core.staff.end()
