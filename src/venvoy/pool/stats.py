"""Frozen snapshots of a pool for people and programs."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from ..workers.limits import resident_bytes
from ..workers.state import State
from ..workers.worker import Worker
from .roster import Roster

_AT_WORK = (State.BUSY, State.ABANDONED)
_QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One worker.

    `id`, `pid` (None while it is being spawned), `name` (of a named one), `state`, `slot`, `call` (the target it runs,
    or one of them, else None), how many calls are `running`, `calls` done, `age` in seconds, `rss` in bytes (0 where it
    is not known), `python` (the path of its interpreter).
    """

    id: int
    pid: int | None
    name: str | None
    state: str
    slot: int
    call: str | None
    running: int
    calls: int
    age: float
    rss: int
    python: str = ""


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A pool at one moment.

    The pool's `name`, its `phase` ("new", "opening", "open", "closing", "closed"), `workers` by state, `waiting` calls,
    and counts since the start: `calls_done` (raising included), `calls_failed` (raised), `calls_timed_out`,
    `workers_started`, `workers_crashed`, `workers_ended` by reason. `latency` has the quantiles 0.5, 0.9 and
    0.99 of what recent calls took in their workers, in seconds; `rss` the resident bytes of each worker, by id.
    """

    name: str
    phase: str
    workers: dict[str, int]
    waiting: int
    calls_done: int
    calls_failed: int
    calls_timed_out: int
    workers_started: int
    workers_crashed: int
    workers_ended: dict[str, int]
    latency: dict[float, float]
    rss: dict[int, int]


def pool_stats(roster: Roster) -> PoolStats:
    """Return the pool's numbers."""
    with roster.lock:
        states = {state.value: roster.count(state) for state in State if state is not State.EXITED}
        workers = list(roster.workers.values())
        counts = (roster.calls_done, roster.calls_failed, roster.calls_timed_out)
        ended = {reason.value: number for reason, number in roster.ended.items()}
        fixed = (roster.phase.value, len(roster.waiting), roster.workers_started, roster.workers_crashed)
    phase, waiting, started, crashed = fixed
    done, failed, timed_out = counts
    return PoolStats(
        name=roster.name,
        phase=phase,
        workers=states,
        waiting=waiting,
        calls_done=done,
        calls_failed=failed,
        calls_timed_out=timed_out,
        workers_started=started,
        workers_crashed=crashed,
        workers_ended=ended,
        latency=_quantiles([number for worker in workers for number in worker.durations.copy()]),
        rss={worker.id: resident_bytes(worker.process.pid) for worker in workers if hasattr(worker, "process")},
    )


def _quantiles(microseconds: list[int]) -> dict[float, float]:
    ordered = sorted(microseconds)
    return {q: ordered[int(q * (len(ordered) - 1))] * 1e-6 for q in _QUANTILES} if ordered else {}


def worker_infos(roster: Roster, name: str | None = None) -> list[WorkerInfo]:
    """Return the pool's workers, oldest first."""
    with roster.lock:
        workers = list(roster.workers.values())
    return [info(worker, name) for worker in workers]


def info(worker: Worker, name: str | None) -> WorkerInfo:
    """Return one worker's snapshot."""
    process = getattr(worker, "process", None)
    at_work = [lane for lane in worker.lanes if lane.state in _AT_WORK]
    return WorkerInfo(
        id=worker.id,
        pid=process.pid if process is not None else None,
        name=name,
        state=worker.state.value,
        slot=worker.slot,
        call=at_work[0].call_name or None if at_work else None,
        running=len(at_work),
        calls=worker.calls,
        age=monotonic() - worker.born,
        rss=resident_bytes(process.pid) if process is not None else 0,
        python=worker.recipe.python if process is not None else "",
    )
