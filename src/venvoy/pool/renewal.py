"""Workers that are replaced or ended by plan: limits reached, idle for too long, newer code to run.

Owns what the last look saw of idle workers. `look` runs on the supervisor's thread; a worker that is due goes on
serving until its replacement is ready.
"""

from __future__ import annotations

import threading
from time import monotonic

from ..errors import PoolClosed
from ..workers.state import Reason, State
from ..workers.worker import Worker
from . import leaving, policy
from .job_queue import Hands
from .roster import Probe, Roster, Ticket

_LOOKS = 4  # in the time after which an idle worker is ended,
_LEAST_REST = 0.05  # seconds; but not more often


class Renewal:
    """See the module.

    Args:
        roster: the facts.
        hands: does what is decided.
    """

    def __init__(self, roster: Roster, hands: Hands) -> None:
        self._roster = roster
        self._lock = roster.lock
        self._hands = hands
        self._turn = threading.Lock()  # one reload at a time
        self._idle_since: dict[int, tuple[int, float]] = {}  # by worker: calls it had done, and when that was seen

    # --- at any time ------------------------------------------------------------------------

    def check(self, worker: Worker, calls: int) -> None:
        """See whether a worker, by whoever holds it, has done enough with so many calls."""
        if worker.limits is None or worker.tenants:
            return
        spent, due = worker.limits.check(calls, worker.process.pid)
        worker.reason = worker.reason or spent
        if due is not None and worker.due is None:
            worker.due = due
            self._hands.attend()

    def look(self) -> float:
        """Let go whoever may go; return the seconds after which to look again, 0 for never."""
        with self._lock:
            now = monotonic()
            waits = self._find_old(now)
            ending = leaving.let_due_go(self._roster)
            before = len(policy.staying(self._roster))
            idle, wait = self._find_idle(now)
            ending += idle
        for worker in ending:
            worker.retire()
        if idle:
            self._hands.emit("scaled", detail=f"{before} -> {before - len(idle)} workers")
        return min([wait for wait in [wait, *waits] if wait > 0], default=0.0)

    def reap(self) -> int:
        """End the idle workers above the least number now, the one idle longest first; return how many."""
        with self._lock:
            idle = [worker for worker in policy.idle(self._roster) if not worker.tenants]
            ending = self._shrink(idle[: policy.surplus(self._roster)])
        for worker in ending:
            worker.retire()
        return len(ending)

    def _find_old(self, now: float) -> list[float]:
        """Locked: mark those past their age; return in how many seconds others will be."""
        waits = []
        for worker in policy.staying(self._roster):
            age = worker.limits.age if worker.limits is not None else None
            if age is not None and worker.state is not State.STARTING and not worker.tenants:
                if now >= worker.born + age:
                    worker.due = Reason.AGE
                else:
                    waits.append(worker.born + age - now)
        return waits

    def _find_idle(self, now: float) -> tuple[list[Worker], float]:
        """Locked: end those idle for too long; return them, and in how many seconds to look again.

        Nobody notes when a worker becomes idle: one that has done no further call since an earlier look was idle.
        """
        timeout = self._roster.rules.scale.idle_timeout
        seen, self._idle_since = self._idle_since, {}
        surplus = policy.surplus(self._roster)
        if not surplus:
            return [], 0.0
        late = []
        for worker in policy.idle(self._roster):
            calls, since = seen.get(worker.id, (-1, now))
            since = since if calls == worker.calls else now
            self._idle_since[worker.id] = (worker.calls, since)
            if now - since >= timeout and not worker.tenants:
                late.append(worker)
        ending = self._shrink(late[:surplus])
        return ending, max(_LEAST_REST, timeout / _LOOKS) if surplus > len(ending) else 0.0

    def _shrink(self, workers: list[Worker]) -> list[Worker]:
        """Locked: take these out of service."""
        roster = self._roster
        for worker in workers:
            leaving.withdraw(roster, worker, Reason.IDLE)
        if workers:
            roster.goal = roster.size.least
        return list(workers)

    # --- reload -----------------------------------------------------------------------------

    def reload(self, patience: float) -> int:
        """Replace all workers by fresh ones, which import the code as it is now; return how many are ready.

        Args:
            patience: seconds to wait for the others once the first fresh one is ready.

        Raises:
            WorkerStartError: the first fresh one did not start; the old ones go on serving.
            PoolClosed: the pool takes no calls.
        """
        roster, probe = self._roster, Probe()
        with self._turn:
            with self._lock:
                roster.check_open()
                roster.restarts.reset()
                roster.generation += 1
                if not roster.workers and not roster.waiting:
                    return 0  # whoever is started from now on has the new code
                probe.ticket.arm()
                roster.probe = probe
            self._hands.attend()
            self._await(probe)
            self._await_the_others(patience)
            with self._lock:
                ready = sum(worker.generation == roster.generation for worker in policy.staying(roster))
        self._hands.emit("reloaded", detail=f"{ready} workers have the new code")
        return ready

    def _await(self, probe: Probe) -> None:
        assert probe.ticket.event is not None
        try:
            probe.ticket.event.acquire()
            self._raise(probe.ticket, probe.worker)
        finally:
            with self._lock:
                self._roster.probe = None

    def _raise(self, ticket: Ticket, worker: Worker | None = None) -> None:
        if ticket.error is not None:
            error = ticket.error()
            if not isinstance(error, PoolClosed):
                self._hands.emit("reload_failed", worker, str(error))
            raise error

    def _await_the_others(self, patience: float) -> None:
        """Wait until every older worker has a successor, or for so many seconds; then none takes another call."""
        ticket = Ticket()
        with self._lock:
            ticket.wait_in(self._roster.renewing)
        self._hands.attend()
        assert ticket.event is not None
        ticket.event.acquire(timeout=patience)
        with self._lock:
            if ticket in self._roster.renewing:
                self._roster.renewing.remove(ticket)
        self._raise(ticket)
        with self._lock:
            ending = leaving.let_due_go(self._roster, all_of_them=True)
        for worker in ending:
            worker.retire()
