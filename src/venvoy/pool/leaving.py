"""How workers leave the roster: they are replaced, their process has ended, or the pool has and nobody needs them.

Every function is called with the roster's lock held, and returns what is to be done after it is released.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..workers.lane import Lane
from ..workers.state import Reason, State
from ..workers.worker import Worker
from . import policy

if TYPE_CHECKING:
    from .roster import Roster


def lose(roster: Roster, worker: Worker) -> list[Lane]:
    """The process of a worker is gone; return the lanes to be closed, since nobody holds them who would do it."""
    before = worker.state
    reason = Reason.START_FAILED if before is State.STARTING else Reason.CRASHED
    free = [lane for lane in worker.lanes if lane.state is not State.BUSY]
    for lane in worker.lanes:
        if lane.state is State.IDLE:
            take_out(roster, lane)
        lane.move(State.EXITED, reason)
    worker.held.update(worker.lanes if not worker.is_leased else ())
    worker.held.difference_update(free)
    if not worker.held:  # else it counts until its holders have let go of it
        roster.workers.pop(worker.id, None)
    return free


def let_go(roster: Roster, lane: Lane) -> None:
    """Who held this lane of a worker that is gone does so no more; the last one ends its being counted."""
    lane.worker.held.discard(lane)
    if not lane.worker.held:
        roster.workers.pop(lane.worker.id, None)


def leave_idle(roster: Roster) -> tuple[list[Worker], list[Worker]]:
    """Nobody needs the idle ones, nor, when nothing waits, those that are starting; return both."""
    leaving = []
    for worker in list(dict.fromkeys([lane.worker for lane in roster.idle])):
        withdraw(roster, worker)
        if worker.is_done:
            worker.reason = worker.reason or Reason.CLOSED
            leaving.append(worker)
    is_starting = [worker for worker in roster.workers.values() if worker.state is State.STARTING]
    unborn = is_starting if not (roster.waiting or roster.claims) else []
    for worker in unborn:
        worker.reason = Reason.CLOSED
    return leaving, unborn


def take_out(roster: Roster, lane: Lane) -> None:
    """Nobody gets this lane from the idle stack."""
    if lane in roster.idle:
        roster.idle.remove(lane)


def withdraw(roster: Roster, worker: Worker, reason: Reason | None = None) -> None:
    """The idle lanes of a worker take no more calls."""
    for lane in worker.lanes:
        if lane.state is State.IDLE:
            take_out(roster, lane)
            lane.move(State.RETIRING, reason)


def let_due_go(roster: Roster, all_of_them: bool = False) -> list[Worker]:
    """Of those to be replaced, let go as many as others can do the work of; return the idle ones."""
    due = policy.due(roster)
    leaving = []
    for worker in due[: len(due) if all_of_them else policy.spare(roster)]:
        if worker.state is State.IDLE:
            withdraw(roster, worker, worker.due)
            leaving.append(worker)
        else:
            withdraw(roster, worker)
            worker.reason = worker.due
    if roster.renewing and not any(worker.due and not worker.reason for worker in roster.workers.values()):
        for ticket in roster.renewing:
            ticket.grant(None)
        roster.renewing.clear()
    return leaving
