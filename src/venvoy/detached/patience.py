"""Waiting for calls that run elsewhere, of whose end nobody tells this process. Owns the locks of who waits here."""

from __future__ import annotations

from _thread import LockType, allocate_lock
from collections.abc import Iterator


def pauses() -> Iterator[float]:
    """Yield the seconds between looks at a call that runs elsewhere, of whose end nobody tells this process."""
    pause = 0.01
    while True:
        yield pause
        pause = min(pause * 1.5, 0.25)


class Patience:
    """The waiters of one pool, which are woken when it ends."""

    def __init__(self) -> None:
        self._waiters: list[LockType] = []
        self._is_over = False

    def wait(self, seconds: float) -> None:
        """Wait for so long, or until the pool ends."""
        waiter = allocate_lock()
        waiter.acquire()
        self._waiters.append(waiter)
        try:
            if not self._is_over:  # looked at after we have become visible to `end`
                waiter.acquire(True, seconds)
        finally:
            try:
                self._waiters.remove(waiter)
            except ValueError:  # it was woken
                pass

    def end(self) -> None:
        """Wake everybody, now and from now on."""
        self._is_over = True
        while self._waiters:
            self._waiters.pop().release()
