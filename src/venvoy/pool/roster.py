"""The facts of a pool and the decisions about them: workers, idle stack, waiting queue, phase.

Owns ONE lock, which guards everything here. Law of the lock: under it, decide; no I/O, no callback, no process start,
and no future is completed; an event may be put into the notifier's queue, so that events are in order. Every method
marked "locked" is called with it held, and returns what is to be done after it is released. Whatever gives a worker to
somebody happens under it, so none is lost between two hands. One thing is done without it: a job is appended to the
queue, by a thread that looks at the facts once more afterwards.
"""

from __future__ import annotations

import threading
from bisect import bisect
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from time import monotonic
from typing import Any

from ..errors import PoolClosed, TooManyWaiting, VenvoyError
from ..options import Size
from ..policies import RestartPolicy, ScalePolicy
from ..workers.lane import Lane
from ..workers.state import Reason, State
from ..workers.template import Template
from ..workers.worker import Worker
from . import exclusive, leaving, policy
from .jobs import Job
from .phase import Phase
from .restarts import Restarts
from .suitors import queue_of, turn_away

ErrorMaker = Callable[[], BaseException]


_OPEN = Phase.OPEN  # as in `engine`
_KEPT_EXITED = 10  # workers whose output can still be read


@dataclass(frozen=True, slots=True)
class Rules:
    """What a pool was told about its workers' number and their replacement.

    Args:
        is_lone: the only worker there will ever be is the one that is started first.
        closed_error: what a call raises that comes too late.
        numbers: where the ids of workers come from; None counts from 1.
        first_slot: the lowest of the places that its workers take.
    """

    scale: ScalePolicy = field(default_factory=ScalePolicy)
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    max_waiting: int | None = None
    is_lone: bool = False
    closed_error: Callable[[str], VenvoyError] = PoolClosed
    numbers: Iterator[int] | None = None
    first_slot: int = 0


class Ticket:
    """One caller's claim on a lane of a worker, made before it is asked for; see `engine` for why it is never lost."""

    # Of the class, so that a ticket which is served at once costs next to nothing.
    lane: Lane | None = None
    error: ErrorMaker | None = None
    is_waiting = False
    is_whole = False  # the worker is to have no other call on any lane
    is_to_stop = True  # the call, when its caller leaves early
    event: Any = None  # a lock, or what a task sleeps on: `release()` wakes the owner
    queue: deque[Any] | list[Ticket]  # that it waits in
    heir: Ticket | None = None  # who gets its lane just now, and is to be woken

    def wait_in(self, queue: deque[Any] | list[Ticket]) -> None:
        """Locked: get ready to be woken, and join a queue."""
        self.arm()
        self.queue = queue
        queue.append(self)

    def arm(self) -> None:
        """Locked: get ready to be woken."""
        self.event = threading.Lock()
        self.event.acquire()
        self.is_waiting = True

    def grant(self, lane: Lane | None, error: ErrorMaker | None = None) -> None:
        """Locked: decide this ticket and wake its owner; the first decision stands."""
        if not self.is_waiting:
            return
        self.lane, self.error, self.is_waiting = lane, error, False
        if self.event is not None:
            self.event.release()

    def wake_again(self) -> None:
        """Wake the owner, which a thread that was interrupted may not have done; to release a lock is one step."""


class Probe:
    """The trial of a new generation: one worker that has to become ready before the others are replaced."""

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self.ticket = Ticket()


class Roster:
    """See the module.

    Args:
        size: how many workers at least and at most.
        name: of the pool, for messages.
        rules: of starting and ending them.
        concurrency: how many lanes each has.
    """

    def __init__(self, size: Size, name: str, rules: Rules, concurrency: int = 1) -> None:
        self.lock = threading.Lock()
        self.size = size
        self.concurrency = concurrency
        self.name = name
        self.rules = rules
        self.restarts = Restarts(rules.restart)
        self.phase = Phase.NEW
        self.is_ending = False  # what runs may end, but nothing is run again
        self.is_picky = rules.max_waiting is not None  # not every call may join the queue
        self.has_recipe = False  # what a worker is made of is known: the environment is there
        self.closed_why = f"pool {name!r} is closed: cannot schedule new calls"
        self.numbers = rules.numbers or count(1)
        self.workers: dict[int, Worker] = {}
        self.templates: set[Template] = set()  # that live, the older ones included
        self.idle: list[Lane] = []  # first lanes on top, so that workers share the work; of these, the last used
        self.waiting: deque[Ticket | Job] = deque()
        self.claims: list[Ticket] = []  # who waits for a whole worker; see `exclusive`
        self.warming: list[Ticket] = []  # who waits for `goal` ready workers
        self.renewing: list[Ticket] = []  # who waits for the last worker of an older generation to be replaced
        self.goal = size.least
        self.wants_drivers = False  # there are jobs, so every worker shall have a driver thread,
        self.has_drivers = False  # and has, or will have as soon as it is spawned
        self.generation = 0  # how often the pool was reloaded
        self.probe: Probe | None = None  # the first worker of a new generation, while it is on trial
        self.last_grown = 0.0
        self.exited: deque[Worker] = deque(maxlen=_KEPT_EXITED)
        self.calls_done = self.calls_failed = self.calls_timed_out = 0
        self.workers_crashed = self.workers_started = 0
        self.ended: Counter[Reason] = Counter()  # workers, by reason

    def check_open(self) -> None:
        """Locked: raise PoolClosed unless calls are taken."""
        if self.phase is Phase.CLOSING or self.phase is Phase.CLOSED:
            raise self.closed_error()

    def closed_error(self) -> VenvoyError:
        """Return the error of calls that come too late."""
        return self.rules.closed_error(self.closed_why)

    def check_may_wait(self, queue_timeout: float | None) -> None:
        """Locked: raise unless one more call may join the queue.

        Raises:
            PoolClosed: the pool takes no calls.
            TooManyWaiting: the queue is full, or the call does not want to wait in it.
            WorkerStartError: no worker lives, and none is to be started soon.
        """
        self.check_open()
        most = self.rules.max_waiting
        if most is not None and len(self.waiting) >= most:
            raise TooManyWaiting(f"pool {self.name!r}: {most} calls wait already (max_waiting)")
        if queue_timeout == 0 and self.phase is Phase.OPEN and policy.cannot_grow(self):
            raise TooManyWaiting(f"pool {self.name!r}: all its {self.size.most} workers are busy (queue_timeout=0)")
        if not self.workers:
            self.restarts.check(monotonic())

    def serve_next(self, lane: Lane) -> Job | None:
        """Locked: this lane is free; return the job it takes, if it is a job that takes it."""
        worker = lane.worker
        if worker.due is not None and not worker.tenants and policy.spare(self):
            worker.reason = worker.reason or worker.due
        if worker.reason is not None:  # somebody wants it to end
            lane.move(State.RETIRING)
            leaving.withdraw(self, worker)
            return None
        lane.move(State.IDLE)
        if self.claims:
            exclusive.look(self)
        if worker.is_aside:
            return None
        queue = queue_of(worker, self.waiting) if worker.suitors else self.waiting
        if queue:
            lane.move(State.BUSY)
            entry = queue.popleft()
            if isinstance(entry, Job):
                return entry
            entry.grant(lane)
        elif self.phase is Phase.OPEN:
            place = self.place_of(lane)
            self.idle[place:place] = [lane]
        else:
            lane.move(State.RETIRING)
            if worker.is_done:
                worker.reason = Reason.CLOSED
        return None

    def place_of(self, lane: Lane) -> int:
        """Locked: return where a lane belongs in the idle stack."""
        return len(self.idle) if not lane.index else bisect(self.idle, -lane.index, key=lambda other: -other.index)

    def pair_up(self) -> list[tuple[Lane, Job]]:
        """Locked: give idle lanes to those who wait; return the pairs that need a driver."""
        pairs = []
        while self.idle and self.waiting:
            lane = self.idle.pop()
            lane.move(State.BUSY)
            entry = self.waiting.popleft()
            if isinstance(entry, Job):
                pairs.append((lane, entry))
            else:
                entry.grant(lane)
        return pairs

    @property
    def all_at_work(self) -> bool:
        """Not locked: True when all the workers there may be are there, and none is idle."""
        return self.phase is _OPEN and not self.idle and len(self.workers) >= self.size.most

    def may_need_workers(self) -> bool:
        """Locked: return False when it is certain, at a glance, that no worker is to be started."""
        return self.phase is Phase.NEW or (self.has_recipe and len(self.workers) < self.size.most)

    def count(self, *states: State) -> int:
        """Locked: return how many workers are in one of the states."""
        return sum(worker.state in states for worker in self.workers.values())

    def ready(self) -> int:
        """Locked: return how many workers serve or may serve."""
        return self.count(State.IDLE, State.BUSY, State.ABANDONED)

    def begin_generation(self) -> None:
        """Locked: the probe is ready: all older workers are to be replaced, and whoever asked for it is told."""
        probe, self.probe = self.probe, None
        for worker in self.workers.values():
            if worker.generation < self.generation and worker.state is not State.EXITED and not worker.tenants:
                worker.due = worker.due or Reason.DRAINED
        if probe is not None:
            probe.ticket.grant(None)

    def tell_warming(self) -> None:
        """Locked: wake those who wait for the goal if it is reached."""
        if self.warming and self.ready() >= self.goal:
            for ticket in self.warming:
                ticket.grant(None)
            self.warming.clear()

    def start_failed(self, error: ErrorMaker) -> list[Job]:
        """Locked: tell those who warm, and, when nobody is left to serve them, those who wait; return the jobs."""
        for ticket in self.warming:
            ticket.grant(None, error)
        self.warming.clear()
        self.goal = self.size.least
        self._keep_old(error)
        if len(self.workers) > self.count(State.RETIRING, State.EXITED):
            return []
        return self.fail_waiting(error)

    def _keep_old(self, error: ErrorMaker) -> None:
        """Locked: the code has become worse while workers are being replaced: the others stay as they are."""
        if not self.renewing:
            return
        for ticket in self.renewing:
            ticket.grant(None, error)
        self.renewing.clear()
        for worker in policy.due(self):
            if worker.due is Reason.DRAINED:
                worker.due = None

    def fail_waiting(self, error: ErrorMaker) -> list[Job]:
        """Locked: empty the queue; tickets are told here, the jobs are returned to be failed outside."""
        jobs = []
        for ticket in self.claims:
            ticket.grant(None, error)
        self.claims.clear()
        while self.waiting:
            entry = self.waiting.popleft()
            if isinstance(entry, Job):
                jobs.append(entry)
            else:
                entry.grant(None, error)
        for worker in self.workers.values():
            turn_away(worker, error)
        return jobs

    def forget(self, ticket: Ticket) -> None:
        """Locked: take a ticket out of the queue if it is there."""
        if ticket.is_waiting:
            ticket.is_waiting = False
            if ticket in ticket.queue:  # else its owner was interrupted on the way in
                ticket.queue.remove(ticket)
