"""Leases of workers that run several calls at once: such a worker is for its user alone.

Every function is called with the roster's lock held. Owns `Roster.claims`, the tickets that want a whole worker, and
which workers are set aside for them. Law: a worker that is set aside takes no calls from the queue, and its idle lanes
are not in the idle stack; it is let to a claim as soon as nothing runs on it, and taken back by `mend` alone, on the
collector thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..workers.lane import Lane
from ..workers.state import State
from ..workers.worker import Worker
from . import leaving, policy

if TYPE_CHECKING:
    from .jobs import Job
    from .roster import Roster, Ticket

_AT_WORK = (State.BUSY, State.ABANDONED)


def claim(roster: Roster, ticket: Ticket) -> None:
    """Let a ticket have a whole worker, now or as soon as there is one with nothing to do."""
    ticket.wait_in(roster.claims)
    look(roster)


def look(roster: Roster) -> None:
    """Let workers to those who want one; where too few are free, and no more may be, set some aside to become so."""
    there = [worker for worker in policy.staying(roster) if worker.occupant is None and not worker.is_leased]
    free = [worker for worker in there if all(lane.state is State.IDLE for lane in worker.lanes)]
    while free and roster.claims:
        _let(roster, free.pop(), roster.claims.pop(0))
    if len(roster.workers) >= roster.size.most:
        missing = len(roster.claims) - sum(worker.is_aside for worker in there)
        others = [worker for worker in there if not worker.is_aside and worker.state in _AT_WORK]
        for worker in sorted(others, key=_load)[: max(0, missing)]:
            _set_aside(roster, worker)


def mend(roster: Roster) -> list[tuple[Lane, Job | None, State]]:
    """Take workers back from users that have left, and those that nobody wants any more.

    Returns:
        What was done with their lanes: (lane, the job it got, its state).
    """
    aside = [worker for worker in roster.workers.values() if worker.is_aside]
    unwanted = sum(worker.occupant is None for worker in aside) - len(roster.claims)
    over = [worker for worker in aside if worker.occupant is not None and worker.occupant.lane is None]
    over += [worker for worker in aside if worker.occupant is None][: max(0, unwanted)]
    for worker in over:
        worker.is_aside, worker.occupant = False, None
    served = []
    for lane in [lane for worker in over for lane in worker.lanes if lane.state is State.IDLE]:
        if not lane.worker.is_aside:  # else the lane before it has led to a new user
            lane.move(State.BUSY)
            served.append((lane, roster.serve_next(lane), lane.state))
    return served


def _load(worker: Worker) -> int:
    return sum(lane.state in _AT_WORK for lane in worker.lanes)


def _set_aside(roster: Roster, worker: Worker) -> None:
    worker.is_aside = True
    for lane in worker.lanes:
        leaving.take_out(roster, lane)


def _let(roster: Roster, worker: Worker, ticket: Ticket) -> None:
    _set_aside(roster, worker)
    worker.occupant = ticket
    worker.lanes[0].move(State.BUSY)
    ticket.grant(worker.lanes[0])
