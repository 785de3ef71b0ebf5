"""`AsyncDetachedCalls`: those of `detached`, awaitable. Stateless.

The store is asked on the event loop: a result that was taken in another thread for a task that has left would be lost.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from ..checks import check_seconds
from ..detached.calls import DetachedCalls, Peek
from ..detached.ledger import Ledger
from ..detached.patience import pauses
from ..detached.store import DetachedCall
from ..errors import ResultNotReady
from ..options import Target
from . import asyncio_port


class AsyncDetachedCalls:
    """Starts, awaits and stops calls that nobody needs to wait for; made by `AsyncPool.detached`. See `DetachedCalls`.

    Args:
        calls: does all but the waiting.
        ledger: wakes who waits.
    """

    def __init__(self, calls: DetachedCalls, ledger: Ledger) -> None:
        self._calls = calls
        self._ledger = ledger

    async def start(self, target: Target, /, *args: Any, **kwargs: Any) -> str:
        """Let a target be run in a worker, and return the id of the call at once; as `DetachedCalls.start`."""
        return self._calls.start(target, *args, **kwargs)

    async def result(self, id: str, timeout: float | None = None) -> Any:
        """Wait for the result of a call and return it; as `DetachedCalls.result`. A cancelled wait takes nothing."""
        if timeout is not None:
            check_seconds("timeout", timeout)
        port, deadline = asyncio_port.running(), None if timeout is None else monotonic() + timeout
        for pause in pauses():
            bell: Any = port.bell()
            try:
                if self._ledger.join(id, bell):
                    await bell.wait(None if deadline is None else deadline - monotonic())
            finally:
                self._ledger.leave(id, bell)
            try:
                return self._calls.result(id, 0)
            except ResultNotReady:
                if deadline is not None and monotonic() >= deadline:
                    raise
            # It runs elsewhere, so nobody rings.
            await port.bell().wait(pause if deadline is None else min(pause, deadline - monotonic()))
        raise AssertionError  # there is always another pause

    async def peek(self, id: str) -> Peek:
        """Return what a call has come to, without waiting for it and without taking it; as `DetachedCalls.peek`."""
        return self._calls.peek(id)

    async def cancel(self, id: str) -> bool:
        """Stop a call; `result` raises `CallCancelled` then. As `DetachedCalls.cancel`."""
        return self._calls.cancel(id)

    async def list(self) -> list[DetachedCall]:
        """Return the calls whose results have not been fetched, the oldest first."""
        return [*self._calls.list()]
