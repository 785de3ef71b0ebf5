"""Coroutines that a call returns, as coroutine functions do: run to their end, since only their result can travel.

Owns who runs them: `asyncio.run`, which gives each a loop of its own, unless a worker that runs several calls at once
says otherwise.
"""

from __future__ import annotations


async def _sample() -> None:
    """Be looked at."""


_IS_COROUTINE_FUNCTION = 0x80  # inspect.CO_COROUTINE
_coroutine = _sample()
COROUTINE = type(_coroutine)
_coroutine.close()
_finish: Callable[[Any], object] | None = None


def finish(coroutine: Any) -> object:
    """Return what a coroutine returns, having run it, or raise what it raises."""
    if _finish is not None:
        return _finish(coroutine)
    import asyncio  # start-up time: only calls that need it

    return asyncio.run(coroutine)


def finishing(function: Callable[..., object]) -> Callable[..., object]:
    """Return a function itself; for a coroutine function, one that runs its coroutines."""
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if code is None or not code.co_flags & _IS_COROUTINE_FUNCTION:
        return function
    return lambda *args, **kwargs: finish(function(*args, **kwargs))


def has_loop() -> bool:
    """Return True where they all run on one loop, that of a worker which runs several calls at once."""
    return _finish is not None


def finish_with(function: Callable[[Any], object]) -> None:
    """Let this function run them from now on."""
    global _finish
    _finish = function


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable
