"""Frozen snapshots of a pool for people and programs."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from ..worker import Worker
from ..worker_state import State
from .roster import Roster


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One worker: `id`, `pid` (None while it is being spawned), `state`, `calls` done, `age` in seconds."""

    id: int
    pid: int | None
    state: str
    calls: int
    age: float


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A pool at one moment.

    `phase` ("new", "opening", "open", "closing", "closed"), `workers` by state, `waiting` calls, and counts since the
    start: `calls_done` (raising included), `calls_timed_out`, `workers_started`, `workers_crashed`.
    """

    name: str
    phase: str
    workers: dict[str, int]
    waiting: int
    calls_done: int
    calls_timed_out: int
    workers_started: int
    workers_crashed: int


def pool_stats(roster: Roster) -> PoolStats:
    """Return the pool's numbers."""
    with roster.lock:
        states = {state.value: roster.count(state) for state in State if state is not State.EXITED}
        return PoolStats(
            name=roster.name,
            phase=roster.phase.value,
            workers=states,
            waiting=len(roster.waiting),
            calls_done=roster.calls_done,
            calls_timed_out=roster.calls_timed_out,
            workers_started=roster.workers_started,
            workers_crashed=roster.workers_crashed,
        )


def worker_infos(roster: Roster) -> list[WorkerInfo]:
    """Return the pool's workers, oldest first."""
    with roster.lock:
        workers = list(roster.workers.values())
    return [info(worker) for worker in workers]


def info(worker: Worker) -> WorkerInfo:
    """Return one worker's snapshot."""
    process = getattr(worker, "process", None)
    return WorkerInfo(
        id=worker.id,
        pid=process.pid if process is not None else None,
        state=worker.state.value,
        calls=worker.calls,
        age=monotonic() - worker.born,
    )
