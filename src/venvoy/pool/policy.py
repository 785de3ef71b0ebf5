"""How many workers a pool should have, and which may go: read from the facts of the roster, changing none of them.

Every function is called with the roster's lock held, and reads no clock.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from ..workers.state import Reason, State
from ..workers.worker import Worker
from .phase import Phase

if TYPE_CHECKING:
    from .roster import Roster

_QUICK_DEATH = 1.0  # seconds; a worker that dies younger, having done nothing, counts as one that did not start
_SERVING = (State.IDLE, State.BUSY, State.ABANDONED)
_AT_WORK = (State.BUSY, State.ABANDONED)
_LEAVING = (State.RETIRING, State.EXITED)


def staying(roster: Roster) -> list[Worker]:
    """Return the workers that live and are not to be replaced."""
    return [w for w in roster.workers.values() if w.due is None and w.reason is None and w.state not in _LEAVING]


def wanted(roster: Roster) -> int:
    """Return how many workers the pool should have now."""
    lanes = [lane for worker in roster.workers.values() for lane in worker.lanes]
    calls = len(roster.waiting) + sum(lane.state in _AT_WORK or lane.worker.is_aside for lane in lanes)
    calls += len(roster.claims) * roster.concurrency
    least = roster.goal if roster.phase is Phase.OPEN else 0
    return min(roster.size.most, max(least, -(-calls // roster.concurrency)))  # rounded up


def idle(roster: Roster) -> list[Worker]:
    """Return the workers that have nothing to do, the one that has not been used for longest first."""
    return [lane.worker for lane in roster.idle if lane.index == 0 and lane.worker.state is State.IDLE]


def surplus(roster: Roster) -> int:
    """Return how many workers there are above the least number."""
    if roster.phase is not Phase.OPEN or roster.rules.is_lone:
        return 0
    return max(0, len(staying(roster)) - roster.size.least)


def may_start(roster: Roster, now: float) -> tuple[bool, float]:
    """Return whether one more worker is to be started, and if not yet, in how many seconds (else 0)."""
    if not roster.has_recipe or roster.phase is Phase.CLOSED or (roster.rules.is_lone and roster.workers_started):
        return False, 0.0
    number = len(staying(roster))
    if wanted(roster) <= number:
        return False, 0.0
    if roster.restarts.is_hopeless and not (roster.waiting or roster.claims or roster.warming or roster.renewing):
        return False, 0.0  # nobody asks: not to be tried for ever
    wait = roster.restarts.delay(now)
    if number >= roster.size.least and roster.phase is not Phase.CLOSING:
        wait = max(wait, roster.last_grown + roster.rules.scale.cooldown - now)
    return wait <= 0, max(0.0, wait)


def has_no_work(roster: Roster) -> bool:
    """Return True when a closing pool needs no worker any more."""
    return roster.phase is Phase.CLOSING and not (roster.workers or roster.waiting or roster.claims)


def wants_probe(roster: Roster) -> bool:
    """Return whether a reload waits for the first worker of the new generation to be started."""
    return roster.probe is not None and roster.probe.worker is None


def counts_as_failed(roster: Roster, worker: Worker, before: State, now: float) -> bool:
    """Return True if a worker did not start, or died so young that the next one will not live either.

    A start that we ended ourselves counts for those only who try new code with it.

    Args:
        before: its state before its exit was seen.
    """
    if before is State.STARTING or worker.ready_at is None:
        is_probe = roster.probe is not None and roster.probe.worker is worker
        return worker.reason is Reason.START_FAILED or is_probe
    is_young = not worker.has_served and now - worker.ready_at < _QUICK_DEATH
    return worker.reason is Reason.CRASHED and is_young


def cannot_grow(roster: Roster) -> bool:
    """Return True when no more workers may be started, and those that start are for others."""
    there = staying(roster)
    starting = sum(worker.state is State.STARTING for worker in there)
    return len(there) >= roster.size.most and starting * roster.concurrency <= len(roster.waiting)


def free_slot(roster: Roster) -> int:
    """Return the lowest place that nobody who stays has; for one too many, a trial of new code, the oldest one's."""
    there = staying(roster)
    if len(there) >= roster.size.most:
        return there[0].slot
    taken = {worker.slot for worker in there}
    return next(slot for slot in count(roster.rules.first_slot) if slot not in taken)


def due(roster: Roster) -> list[Worker]:
    """Return those that are to be replaced and serve still, the idle ones first."""
    found = [w for w in roster.workers.values() if w.due and not w.reason and w.state in _SERVING]
    return sorted(found, key=lambda worker: worker.state is not State.IDLE)


def spare(roster: Roster) -> int:
    """Return how many of those that are due may go, because others can do their work."""
    ready = sum(worker.state in _SERVING for worker in staying(roster))
    return max(0, ready + len(due(roster)) - wanted(roster))
