"""What the asyncio driver stands on: a few functions of an event loop, so that another loop is one more small class.

A port belongs to one running loop. Everything but `Bell.release` is called on its thread only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from .roster import Ticket

T = TypeVar("T")


class HasFileno(Protocol):
    """A socket, say."""

    def fileno(self) -> int:
        """Return its descriptor."""


class Bell(Protocol):
    """What one task sleeps on, time and again, until somebody rings, from any thread."""

    def release(self) -> None:
        """Ring; named as a lock's is, since a blocked thread sleeps on one of those."""

    def wait(self, seconds: float | None) -> Awaitable[bool]:
        """Sleep until it rings, at once if it has since the last time; return False when the time passes first."""


class Port(Protocol):
    """One event loop.

    `claims` has what its tasks hold or wait for in a pool, each with the function that gives it up, which takes no
    lock: to be called if the loop ends with the tasks unfinished.
    """

    claims: dict[Ticket, Callable[[Ticket], object]]

    def wait_readable(self, source: HasFileno, deadline: float | None) -> Awaitable[None]:
        """Sleep until `source` can be read; it may also return for no reason.

        Args:
            source: the object itself, since the number of one that was closed may be another's.
            deadline: a `time.monotonic` value.

        Raises:
            TimeoutError: it passed first.
        """

    def wait_writable(self, fd: int, deadline: float | None) -> Awaitable[None]:
        """Sleep until `fd` can be written; as `wait_readable`."""

    def until(self, deadline: float, work: Coroutine[Any, Any, T]) -> Awaitable[T]:
        """Run code of the user's, which is cancelled at the deadline; `TimeoutError` then."""

    def bell(self) -> Bell:
        """Return a bell for the task that runs now."""
