"""One thing for the whole process, made for the first who holds it and stopped by the last who lets go."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Stoppable(Protocol):
    """What can be held."""

    @property
    def threads(self) -> list[threading.Thread]:
        """Those that end after `stop`."""

    def stop(self) -> None:
        """Let the threads end after what is queued now."""


T = TypeVar("T", bound=Stoppable)


class Held(Generic[T]):
    """See the module.

    Args:
        make: makes it, and starts its threads.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._guard = threading.Lock()  # guards the two below; the thing is made under it, nothing else
        self._running: T | None = None
        self._holders = 0

    def hold(self) -> T:
        """Return the running one, making it for the first holder; pair with `let_go`."""
        with self._guard:
            if self._running is None:
                self._running = self._make()
            self._holders += 1
            return self._running

    def let_go(self) -> list[threading.Thread]:
        """Give up one hold; the last one stops the thing, whose threads are returned to be joined."""
        with self._guard:
            self._holders -= 1
            if self._holders or self._running is None:
                return []
            last, self._running = self._running, None
        last.stop()
        return last.threads

    def forget(self) -> T | None:
        """In a process that was forked: start anew, and return what the parent goes on with."""
        last = self._running
        self._guard, self._running, self._holders = threading.Lock(), None, 0
        return last
