"""The calling methods of `AsyncPool` and its views: those of `faces`, awaitable."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from . import asyncio_port
from .binding import bind
from .calling import make_call, make_eval
from .errors import EncodingError
from .exchange import Call
from .faces import Module
from .options import CallOptions, Target
from .pool.core import Core

T = TypeVar("T")


class AsyncCalling:
    """The calling methods, of an asynchronous pool and of its views alike."""

    _core: Core
    _call_options: CallOptions

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

    async def eval(self, text: str, /, **values: Any) -> Any:
        """Evaluate a Python expression in a worker and return its value; as `Pool.eval`."""
        return await self._run(make_eval(text, values, "eval", "", self._call_options))

    def module(self, name: str, /) -> Module:
        """Return a handle whose attributes are functions of a module of the worker's environment; await its calls."""
        return Module(self.call, name, ())

    def bind(self, protocol: type[T], module: str | None = None) -> T:
        """Return a typed handle, as `Pool.bind`; its methods are awaitable, so declare them with `async def`."""
        options, core = self._call_options, self._core

        def call_as(returns: Any, target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            wanted = options if returns is None else replace(options, returns=returns)
            return self._run(make_call(target, args, kwargs, wanted, core.table))

        bound: T = bind(protocol, call_as, f"{module}:" if module else "")
        return bound

    def _run(self, call: Call) -> Coroutine[Any, Any, Any]:
        calls = self._core.async_calls
        return calls.result(call, calls.run, asyncio_port.running())


class AsyncView(AsyncCalling):
    """An asynchronous pool with other options for its calls; made by `AsyncPool.options()`."""

    def __init__(self, pool: AsyncCalling, options: CallOptions) -> None:
        self._pool = pool  # keeps it alive
        self._core = pool._core
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
