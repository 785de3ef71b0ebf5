"""The way of a pool from new to open: its environment is there, and so many workers are ready."""

from __future__ import annotations

from ..errors import CallTimeout
from .job_queue import Hands
from .phase import Phase
from .roster import Roster, Ticket


class Opening:
    """See the module.

    Args:
        roster: the facts.
        hands: does what is decided.
    """

    def __init__(self, roster: Roster, hands: Hands) -> None:
        self._roster = roster
        self._lock = roster.lock
        self._hands = hands

    def begin_opening(self) -> bool:
        """Return True if the pool is to be opened now, which the caller then does."""
        roster = self._roster
        with self._lock:
            is_wanted = roster.phase is Phase.NEW or (roster.phase is Phase.CLOSING and bool(roster.waiting))
            if roster.has_recipe or roster.phase is Phase.OPENING or not is_wanted:
                return False
            if roster.phase is Phase.NEW:
                roster.phase = Phase.OPENING
            return True

    def opened(self) -> None:
        """The environment is there."""
        with self._lock:
            self._roster.has_recipe = True
            if self._roster.phase is Phase.OPENING:
                self._roster.phase = Phase.OPEN
            self._roster.tell_warming()

    def opening_failed(self, error: BaseException) -> None:
        """Fail everybody who waits; the next call tries again."""
        with self._lock:
            if self._roster.phase is Phase.OPENING:
                self._roster.phase = Phase.NEW
            failed = self._roster.start_failed(lambda: error)
            if self._roster.probe is not None:
                self._roster.probe.ticket.grant(None, lambda: error)
        self._hands.fail(failed, lambda: error)
        self._hands.check_gone()

    def warm(self, workers: int | None, timeout: float | None = None) -> int:
        """Open the pool, wait until so many workers are ready (the least it keeps by default), return how many are.

        Raises:
            ValueError: more than the pool may have.
            CallTimeout: they are not ready in time. Besides these, why one could not be started.
        """
        ticket = Ticket()
        wanted = self.ask(ticket, workers)
        try:
            if ticket.event is not None and not ticket.event.acquire(timeout=-1 if timeout is None else timeout):
                raise CallTimeout(f"{wanted} workers were not ready within {timeout:g} s")
        finally:
            self.leave(ticket)
        return self.ready(ticket)

    def ask(self, ticket: Ticket, workers: int | None) -> int:
        """Begin to open the pool and to start so many workers; return their number.

        Args:
            ticket: armed if there is something to wait for.
            workers: by default the least number it keeps.

        Raises:
            ValueError: more than the pool may have.
            PoolClosed: it takes no calls.
        """
        roster = self._roster
        wanted = roster.size.least if workers is None else workers
        if not 0 <= wanted <= roster.size.most:
            raise ValueError(f"warm({workers}): this pool has at most {roster.size.most} workers")
        with self._lock:
            roster.check_open()
            roster.restarts.reset()
            roster.goal = max(roster.goal, wanted)
            if roster.phase is not Phase.OPEN or roster.ready() < wanted:
                ticket.wait_in(roster.warming)
        self._hands.attend()
        return wanted

    def ready(self, ticket: Ticket) -> int:
        """Return how many workers are ready, after what was asked for has been decided; raises why there are none."""
        if ticket.error is not None:
            raise ticket.error()
        with self._lock:
            return self._roster.ready()

    def leave(self, ticket: Ticket) -> None:
        """Wait no longer."""
        with self._lock:
            if ticket in self._roster.warming:
                self._roster.warming.remove(ticket)
