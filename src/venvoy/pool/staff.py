"""The workers' side of a pool: opening, workers that come and go, warming, closing.

It is the `Listener` of every worker, so most of it runs on the collector thread; nothing here blocks, except what says
that it waits. All facts are in the `Roster`, under its lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

from venvoy_worker.contract.frames import Frame

from ..errors import CallTimeout, PoolClosed
from ..log import logger
from ..post_mortem import start_error
from ..process import Sink
from ..worker import Worker
from ..worker_state import Reason, State
from .job_queue import Hands, JobQueue
from .jobs import Job
from .output import Router
from .roster import Phase, Roster, Ticket

_QUICK_DEATH = 1.0  # seconds; a worker that dies younger, having done nothing, is replaced only when calls wait


class Staff:
    """See the module.

    Args:
        roster: the facts.
        queue: takes workers that have become free.
        hands: does what is decided.
        router: gets what workers print and log.
        answered: is told of a reply that nobody waits for.
    """

    def __init__(
        self,
        roster: Roster,
        queue: JobQueue,
        hands: Hands,
        router: Router,
        answered: Callable[[Worker], None],
    ) -> None:
        self._roster = roster
        self._lock = roster.lock
        self._queue = queue
        self._hands = hands
        self._router = router
        self._answered = answered
        self.gone = threading.Event()  # set once nothing of the pool is left

    # --- opening --------------------------------------------------------------------------

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
        self._hands.fail(failed, lambda: error)
        self.check_gone()

    def warm(self, workers: int | None, timeout: float | None = None) -> int:
        """Open the pool, wait until so many workers are ready (the least it keeps by default), return how many are.

        Raises:
            ValueError: more than the pool may have.
            CallTimeout: they are not ready in time. Besides these, why one could not be started.
        """
        roster = self._roster
        wanted = roster.size.least if workers is None else workers
        if not 0 <= wanted <= roster.size.most:
            raise ValueError(f"warm({workers}): this pool has at most {roster.size.most} workers")
        ticket = Ticket()
        with self._lock:
            roster.check_open()
            roster.goal = max(roster.goal, wanted)
            if roster.phase is not Phase.OPEN or roster.ready() < wanted:
                ticket.wait_in(roster.warming)
        self._hands.attend()
        try:
            if ticket.event is not None and not ticket.event.acquire(timeout=-1 if timeout is None else timeout):
                raise CallTimeout(f"{wanted} workers were not ready within {timeout:g} s")
            if ticket.error is not None:
                raise ticket.error()
        finally:
            self._leave_warming(ticket)
        with self._lock:
            return roster.ready()

    def _leave_warming(self, ticket: Ticket) -> None:
        with self._lock:
            if ticket in self._roster.warming:
                self._roster.warming.remove(ticket)

    # --- workers come and go ----------------------------------------------------------------

    def hire(self, make: Callable[[int], Worker]) -> Worker | None:
        """Register one more worker, not started yet, if one is missing."""
        roster = self._roster
        with self._lock:
            if roster.phase is Phase.CLOSED or roster.missing() < 1:
                return None
            roster.last_number += 1
            roster.workers_started += 1
            worker = roster.workers[roster.last_number] = make(roster.last_number)
            return worker

    def drivers_needed(self) -> int:
        """Return how many driver threads the pool should have, which the caller then sees to."""
        with self._lock:
            self._roster.has_drivers = self._roster.wants_drivers
            return len(self._roster.workers) if self._roster.wants_drivers else 0

    def spawn_failed(self, worker: Worker, error: BaseException) -> None:
        """The process of a registered worker could not be started at all."""
        with self._lock:
            worker.move(State.EXITED, Reason.START_FAILED)
            self._roster.workers.pop(worker.id, None)
            failed = self._roster.start_failed(lambda: error)
        logger.warning("pool %r: %s", self._roster.name, error)
        self._hands.fail(failed, lambda: error)
        self.check_gone()

    def worker_ready(self, worker: Worker) -> None:
        """A fresh worker may serve."""
        with self._lock:
            if worker.state is not State.STARTING:
                return
            job = self._roster.serve_next(worker)
            state = worker.state
            self._roster.tell_warming()
        logger.debug("pool %r: worker %d is ready, pid %d", self._roster.name, worker.id, worker.process.pid)
        self._queue.after_release(worker, job, state)

    def worker_answered(self, worker: Worker) -> None:
        """A reply has come that nobody had begun to wait for."""
        self._answered(worker)

    def worker_freed(self, worker: Worker, is_clean: bool) -> None:
        """The call of an abandoned worker has ended; unless its user code is known to be gone, neither may it stay."""
        with self._lock:
            if worker.state is not State.ABANDONED:
                return
            if not is_clean and worker.reason is None:
                worker.reason = Reason.DRAINED
            worker.calls += 1
            job = self._roster.serve_next(worker)
            state = worker.state
        self._queue.after_release(worker, job, state)
        self._hands.attend()

    def worker_logged(self, worker: Worker, frame: Frame) -> None:
        """Its code has logged something."""
        self._router.relog(worker, frame)

    def sink(self, worker: Worker, stream: str) -> Sink | None:
        """Return what gets its output."""
        return self._router.sink(worker, stream)

    def worker_exited(self, worker: Worker) -> None:
        """The process is gone: replace it, or say why it could not start."""
        roster = self._roster
        failed: list[Job] = []
        with self._lock:
            before = worker.state
            worker.move(State.EXITED, Reason.START_FAILED if before is State.STARTING else Reason.CRASHED)
            if before is not State.BUSY:  # else it counts until its holder has let go of it
                roster.workers.pop(worker.id, None)
            roster.exited.append(worker)
            if before is State.IDLE:
                roster.idle.remove(worker)
            if before is State.STARTING:
                failed = roster.start_failed(lambda: start_error(worker))
            is_crash = worker.reason is Reason.CRASHED
            roster.workers_crashed += is_crash
            died_young = is_crash and not worker.last_id and monotonic() - worker.born < _QUICK_DEATH
            if died_young and roster.warming:
                failed = roster.start_failed(lambda: start_error(worker))
        self._log_exit(worker)
        if before is not State.BUSY:  # else its holder closes it
            worker.channel.close()
        if before is not State.STARTING and not died_young:
            self._hands.attend()
        self._hands.fail(failed, lambda: start_error(worker))
        self.check_gone()

    def _log_exit(self, worker: Worker) -> None:
        is_planned = worker.reason in (Reason.CLOSED, Reason.DRAINED, Reason.KILLED)
        say = logger.debug if is_planned else logger.warning
        text = "pool %r: worker %d (pid %d) %s (%s)"
        say(text, self._roster.name, worker.id, worker.process.pid, worker.process.exit, worker.reason)

    # --- closing ----------------------------------------------------------------------------

    def close(self, *, drop_waiting: bool, why: str = "") -> list[Job]:
        """Take no more calls, end what is idle; the rest ends when its work is done. Waits for nothing.

        Args:
            drop_waiting: do not run what waits; its jobs are returned, to be completed by the caller.
        """
        roster = self._roster
        with self._lock:
            dropped: list[Job] = []
            if roster.phase is Phase.CLOSED:
                return dropped
            roster.phase = Phase.CLOSING
            roster.closed_why = why or roster.closed_why
            closed = PoolClosed(roster.closed_why)
            if drop_waiting:
                dropped = roster.fail_waiting(lambda: closed)
            for ticket in roster.warming:
                ticket.grant(None, lambda: closed)
            roster.warming.clear()
            leaving, unborn = self._leave_idle()
        for worker in leaving:
            worker.retire()
        for worker in unborn:
            worker.kill()
        self.check_gone()
        return dropped

    def _leave_idle(self) -> tuple[list[Worker], list[Worker]]:
        """Locked: nobody needs the idle ones, nor, when nothing waits, those that are starting."""
        roster = self._roster
        leaving = list(roster.idle)
        roster.idle.clear()
        for worker in leaving:
            worker.move(State.RETIRING, Reason.CLOSED)
        is_starting = [worker for worker in roster.workers.values() if worker.state is State.STARTING]
        unborn = is_starting if not roster.waiting else []
        for worker in unborn:
            worker.reason = Reason.CLOSED
        return leaving, unborn

    def known(self) -> list[Worker]:
        """Return the workers there are."""
        with self._lock:
            return list(self._roster.workers.values())

    def find(self, number: int, with_exited: bool = False) -> Worker:
        """Return the worker of that id.

        Raises:
            LookupError: there is none.
        """
        with self._lock:
            found = self._roster.workers.get(number)
            if found is None and with_exited:
                found = next((worker for worker in self._roster.exited if worker.id == number), None)
            if found is None:
                known = sorted(self._roster.workers)
                raise LookupError(f"pool {self._roster.name!r} has no worker {number!r}; it has {known}")
            return found

    def kill(self, *states: State) -> None:
        """End every worker in one of the states at once; every worker, if none is given."""
        with self._lock:
            workers = [worker for worker in self._roster.workers.values() if not states or worker.state in states]
            for worker in workers:
                worker.reason = worker.reason or Reason.CLOSED
        for worker in workers:
            worker.kill()

    def check_gone(self) -> None:
        """See whether a closing pool has nothing left, and end it then."""
        with self._lock:
            is_last = self._roster.is_drained
            if is_last:
                self._roster.phase = Phase.CLOSED
        if is_last:
            self._hands.all_gone()  # which sets `gone` once the threads to be joined are known
