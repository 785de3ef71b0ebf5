"""The calling methods of `AsyncPool` and its views: those of `faces`, awaitable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ..calling import keywords_of, make_call, make_eval
from ..detached.calls import DetachedCalls
from ..detached.ledger import Ledger
from ..errors import EncodingError
from ..exchange import Call
from ..faces import Begins, Module
from ..options import CallOptions, Target
from ..pool.async_calls import arriving
from ..pool.mapping import MapOptions
from ..pool.mapping import Mapping as PoolMapping
from . import asyncio_port
from .detached import AsyncDetachedCalls
from .streams import AsyncStream, TaskSeat

T = TypeVar("T")


class AsyncCalling(Begins):
    """The calling methods, of an asynchronous pool and of its views alike."""

    _ledger: Ledger

    async def call(self, target: Target, /, *args: Any, **kwargs: Any) -> Any:
        """Run a target in a worker and return its result; as `Pool.call`.

        A task that is cancelled while it waits here has its call stopped, as at a deadline.
        """
        return await self._run(make_call(target, args, kwargs, self._call_options, self._core.table))

    def submit(self, target: Target, /, *args: Any, **kwargs: Any) -> asyncio.Task[Any]:
        """Run a target in a worker and return a task of the running loop, which has its result.

        Cancelling the task stops the call.

        Raises:
            RuntimeError: no loop runs. What `call` raises is raised by awaiting the task.
        """
        return begun(self._run, make_call, target, args, kwargs, self._call_options, self._core.table)

    def stream(self, target: Target, /, *args: Any, **kwargs: Any) -> AsyncStream:
        """Run a target that is a generator function, or returns an iterable; an asynchronous iterator of its items.

        As `Pool.stream`; a worker is taken when the first item is asked for.

        Examples:
            >>> import asyncio
            >>> async def main():
            ...     async with vv.AsyncPool() as pool:
            ...         return [pair async for pair in pool.stream("itertools:pairwise", "abc")]
            >>> asyncio.run(main())
            [('a', 'b'), ('b', 'c')]
        """
        call = make_call(target, args, kwargs, self._call_options, self._core.table)
        port = asyncio_port.running()
        return AsyncStream(self._core, TaskSeat(self._core, port), port, call, self)

    def map(
        self,
        target: Target,
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncIterator[Any]:
        """Run a target for each item, or each tuple of items; an asynchronous iterator of the results, as `Pool.map`.

        The input is drawn on the event loop, as results are taken.
        """
        options = MapOptions(timeout, chunksize, buffersize, ordered, return_exceptions)
        return self._arriving(self._mapping(target, iterables, options))

    def map_kwargs(
        self,
        target: Target,
        items: Iterable[Mapping[str, Any]],
        /,
        *,
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncIterator[Any]:
        """Run a target for each dict of keyword arguments; otherwise as `map`."""
        options = MapOptions(timeout, chunksize, buffersize, ordered, return_exceptions)
        return self._arriving(self._chunks(target, map(keywords_of, items), True, options))

    def call_many(
        self,
        requests: Iterable[Sequence[Any]],
        /,
        *,
        timeout: float | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncIterator[Any]:
        """Run different calls, each given as `(target, args, kwargs)`; asynchronously as `Pool.call_many`."""
        options = MapOptions(timeout, None, buffersize, ordered, return_exceptions)
        return self._arriving(self._batch(requests, options))

    async def eval(self, text: str, /, **values: Any) -> Any:
        """Evaluate a Python expression in a worker, or statements with a `return`; as `Pool.eval`."""
        return await self._run(make_eval(text, values, "eval", "", self._call_options))

    async def exec(self, text: str, /, **values: Any) -> Any:
        """Execute Python statements in a worker; return what they `return`, else None. As `Pool.exec`."""
        return await self._run(make_eval(text, values, "exec", "", self._call_options))

    def module(self, name: str, /) -> Module:
        """Return a handle whose attributes are functions of a module, as `Pool.module`; await its calls."""
        return Module(self.call, name, ())

    def bind(self, protocol: type[T], module: str | None = None) -> T:
        """Return a typed handle, as `Pool.bind`; its methods are awaitable, so declare them with `async def`."""
        return self._bound(protocol, module, self._run)

    @property
    def detached(self) -> AsyncDetachedCalls:
        """Calls that outlive whoever started them: `start`, `result`, `peek`, `cancel`, `list`."""
        calls = DetachedCalls(self, self._core, self._ledger, self._call_options)
        return AsyncDetachedCalls(calls, self._ledger)

    def _arriving(self, mapping: PoolMapping) -> AsyncIterator[Any]:
        return arriving(mapping, asyncio_port.running())

    def _run(self, call: Call) -> Coroutine[Any, Any, Any]:
        calls = self._core.async_calls
        return calls.result(call, calls.run, asyncio_port.running())


class AsyncView(AsyncCalling):
    """An asynchronous pool with other options for its calls; made by `AsyncPool.options()`."""

    def __init__(self, pool: AsyncCalling, options: CallOptions) -> None:
        self._pool = pool  # keeps it alive
        self._core = pool._core
        self._ledger = pool._ledger
        self._call_options = options


def begun(run: Any, make: Any, *args: Any) -> asyncio.Task[Any]:
    """Return a task that runs a call, which is made here and now; what that raises is the task's error.

    Args:
        run: takes the call.
        make: returns it.
    """
    loop = asyncio.get_running_loop()
    try:
        work: Coroutine[Any, Any, Any] = run(make(*args))
    except EncodingError as error:
        work = _raise(error)
    return loop.create_task(work)


async def _raise(error: Exception) -> None:
    raise error
