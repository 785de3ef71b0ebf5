"""The facts of a pool and the decisions about them: workers, idle stack, waiting queue, phase.

Owns ONE lock, which guards everything here. Law of the lock: under it, decide; no I/O, no callback, no process start,
and no future is completed. Every method marked "locked" is called with it held, and returns what is to be done after
it is released. Whatever gives a worker to somebody happens under it, so none is lost between two hands. One thing is
done without it: a job is appended to the queue, by a thread that looks at the facts once more afterwards.
"""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Callable

from ..errors import PoolClosed
from ..options import Size
from ..worker import Worker
from ..worker_state import Reason, State
from .jobs import Job

ErrorMaker = Callable[[], BaseException]


_KEPT_EXITED = 10  # workers whose output can still be read


class Phase(enum.Enum):
    """What the pool as a whole is doing."""

    NEW = "new"  # nothing started; also after a failed opening
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"  # takes no new calls; those it has are finished
    CLOSED = "closed"


class Ticket:
    """One caller's claim on a worker, made before it is asked for; see `engine` for why it is never lost."""

    __slots__ = ("error", "event", "is_waiting", "worker")

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self.error: ErrorMaker | None = None
        self.is_waiting = False
        self.event: threading.Lock | None = None

    def wait_in(self, queue: deque[Ticket | Job] | list[Ticket]) -> None:
        """Locked: get ready to be woken, and join a queue."""
        self.event = threading.Lock()
        self.event.acquire()
        self.is_waiting = True
        queue.append(self)

    def grant(self, worker: Worker | None, error: ErrorMaker | None = None) -> None:
        """Locked: decide this ticket and wake its owner."""
        self.worker, self.error, self.is_waiting = worker, error, False
        if self.event is not None:
            self.event.release()


class Roster:
    """See the module.

    Args:
        size: how many workers at least and at most.
        name: of the pool, for messages.
    """

    def __init__(self, size: Size, name: str) -> None:
        self.lock = threading.Lock()
        self.size = size
        self.name = name
        self.phase = Phase.NEW
        self.has_recipe = False  # what a worker is made of is known: the environment is there
        self.closed_why = f"pool {name!r} is closed: cannot schedule new calls"
        self.workers: dict[int, Worker] = {}
        self.idle: list[Worker] = []  # the last used is on top
        self.waiting: deque[Ticket | Job] = deque()
        self.warming: list[Ticket] = []  # who waits for `goal` ready workers
        self.goal = size.least
        self.wants_drivers = False  # there are jobs, so every worker shall have a driver thread,
        self.has_drivers = False  # and has, or will have as soon as it is spawned
        self.last_number = 0
        self.exited: deque[Worker] = deque(maxlen=_KEPT_EXITED)
        self.calls_done = self.calls_timed_out = self.workers_crashed = self.workers_started = 0

    def check_open(self) -> None:
        """Locked: raise PoolClosed unless calls are taken."""
        if self.phase is Phase.CLOSING or self.phase is Phase.CLOSED:
            raise PoolClosed(self.closed_why)

    def serve_next(self, worker: Worker) -> Job | None:
        """Locked: this worker is free; return the job it takes, if it is a job that takes it."""
        if worker.reason is not None:  # somebody wants it to end
            worker.move(State.RETIRING)
            return None
        worker.move(State.IDLE)
        if self.waiting:
            worker.move(State.BUSY)
            entry = self.waiting.popleft()
            if isinstance(entry, Job):
                return entry
            entry.grant(worker)
        elif self.phase is Phase.OPEN:
            self.idle.append(worker)
        else:
            worker.move(State.RETIRING, Reason.CLOSED)
        return None

    def pair_up(self) -> list[tuple[Worker, Job]]:
        """Locked: give idle workers to those who wait; return the pairs that need a driver."""
        pairs = []
        while self.idle and self.waiting:
            worker = self.idle.pop()
            worker.move(State.BUSY)
            entry = self.waiting.popleft()
            if isinstance(entry, Job):
                pairs.append((worker, entry))
            else:
                entry.grant(worker)
        return pairs

    @property
    def all_at_work(self) -> bool:
        """Not locked: True when all the workers there may be are there, and none is idle."""
        return self.phase is Phase.OPEN and not self.idle and len(self.workers) >= self.size.most

    def may_need_workers(self) -> bool:
        """Locked: return False when it is certain, at a glance, that no worker is to be started."""
        return self.phase is Phase.NEW or (self.has_recipe and len(self.workers) < self.size.most)

    def missing(self) -> int:
        """Locked: return how many workers are to be started now."""
        if not self.has_recipe:
            return 0
        living = len(self.workers) - self.count(State.RETIRING, State.EXITED)
        at_work = self.count(State.BUSY, State.ABANDONED)
        least = self.goal if self.phase is Phase.OPEN else 0
        return min(self.size.most, max(least, at_work + len(self.waiting))) - living

    def count(self, *states: State) -> int:
        """Locked: return how many workers are in one of the states."""
        return sum(worker.state in states for worker in self.workers.values())

    def ready(self) -> int:
        """Locked: return how many workers serve or may serve."""
        return self.count(State.IDLE, State.BUSY, State.ABANDONED)

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
        if len(self.workers) > self.count(State.RETIRING, State.EXITED):
            return []
        return self.fail_waiting(error)

    def fail_waiting(self, error: ErrorMaker) -> list[Job]:
        """Locked: empty the queue; tickets are told here, the jobs are returned to be failed outside."""
        jobs = []
        while self.waiting:
            entry = self.waiting.popleft()
            if isinstance(entry, Job):
                jobs.append(entry)
            else:
                entry.grant(None, error)
        return jobs

    def forget(self, ticket: Ticket) -> None:
        """Locked: take a ticket out of the queue if it is there."""
        if ticket.is_waiting:
            ticket.is_waiting = False
            if ticket in self.waiting:  # else its owner was interrupted on the way in
                self.waiting.remove(ticket)

    @property
    def is_drained(self) -> bool:
        """Locked: True when a closing pool has nothing left."""
        return self.phase is Phase.CLOSING and not self.workers and not self.waiting
