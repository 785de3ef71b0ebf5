"""Whose turn it is: a lock that a thread or a task of any loop may wait for, first come, first served.

Owns who has it and who waits, under a lock of its own, with the law of the roster's: under it, decide.
"""

from __future__ import annotations

import threading
from collections import deque

from .roster import Ticket


class Turn:
    """See the module."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: Ticket | None = None
        self._waiting: deque[Ticket] = deque()

    def take(self, ticket: Ticket) -> bool:
        """Take the turn and return True, or let the ticket wait for it. Either way `leave` has to follow."""
        with self._lock:
            if self._holder is None:
                self._holder = ticket
                return True
            ticket.arm()
            self._waiting.append(ticket)
            return False

    @property
    def is_free(self) -> bool:
        """Not locked: True when nobody has it."""
        return self._holder is None

    def leave(self, ticket: Ticket) -> None:
        """Give the turn to the next, or wait for it no longer."""
        with self._lock:
            if self._holder is ticket:
                self._holder = self._waiting.popleft() if self._waiting else None
                if self._holder is not None:
                    self._holder.grant(None)
            elif ticket in self._waiting:
                self._waiting.remove(ticket)
