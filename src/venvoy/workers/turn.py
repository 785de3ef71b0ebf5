"""Whose turn it is: a lock that a thread or a task of any loop may wait for, first come, first served.

Owns who has it and who waits, under a lock of its own, with the law of the roster's: under it, decide.
"""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic
from typing import Any, Protocol


class Waiter(Protocol):
    """Who wants the turn: a `Ticket`, say."""

    def arm(self) -> None:
        """Locked: get ready to be woken."""

    def grant(self, lane: Any) -> None:
        """Locked: wake it."""


class ThreadWaiter:
    """A thread that wants the turn."""

    def arm(self) -> None:
        """Locked: get ready to be woken."""
        self._event = threading.Lock()
        self._event.acquire()

    def grant(self, lane: Any) -> None:
        """Locked: wake it."""
        self._event.release()

    def wait(self, deadline: float | None) -> None:
        """Sleep until it has the turn; `TimeoutError` at the deadline."""
        patience = -1.0 if deadline is None else min(max(0.0, deadline - monotonic()), threading.TIMEOUT_MAX)
        if not self._event.acquire(timeout=patience):
            raise TimeoutError


class Turn:
    """See the module."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: Waiter | None = None
        self._waiting: deque[Waiter] = deque()

    def take(self, waiter: Waiter) -> bool:
        """Take the turn and return True, or wait for it. Either way `leave` has to follow."""
        with self._lock:
            if self._holder is None:
                self._holder = waiter
                return True
            waiter.arm()
            self._waiting.append(waiter)
            return False

    def leave(self, waiter: Waiter) -> None:
        """Give the turn to the next, or wait for it no longer."""
        with self._lock:
            if self._holder is waiter:
                self._holder = self._waiting.popleft() if self._waiting else None
                if self._holder is not None:
                    self._holder.grant(None)
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
