"""The workers' side of a pool: workers that come and go, and the end of it all.

It is the `Listener` of every worker, so most of it runs on the collector thread; nothing here blocks, except what says
that it waits. All facts are in the `Roster`, under its lock.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from ..aio.latch import Latch
from ..errors import WorkerError
from ..events import Kind
from ..log import logger
from ..workers.lane import Lane
from ..workers.post_mortem import start_error
from ..workers.state import Reason, State
from ..workers.talk import Responder
from ..workers.worker import Worker
from . import leaving, policy
from .job_queue import Hands, JobQueue
from .jobs import Job
from .output import Router
from .phase import Phase
from .roster import ErrorMaker, Roster
from .suitors import turn_away

_EXITS: dict[Reason, Kind] = {Reason.CRASHED: "crashed", Reason.START_FAILED: "start_failed"}


class Staff:
    """See the module.

    Args:
        roster: the facts.
        queue: takes workers that have become free.
        hands: does what is decided.
        router: gets what workers print and log.
        answered: is told of a reply that nobody waits for.
        responder: answers the workers while a call runs.
    """

    def __init__(
        self,
        roster: Roster,
        queue: JobQueue,
        hands: Hands,
        router: Router,
        answered: Callable[[Lane], None],
        responder: Responder,
    ) -> None:
        self._roster = roster
        self._lock = roster.lock
        self._queue = queue
        self._hands = hands
        self.router = router
        self._answered = answered
        self.responder = responder
        self.gone = Latch()  # set once nothing of the pool is left

    # --- workers come and go ----------------------------------------------------------------

    def may_hire(self) -> tuple[bool, float]:
        """Return whether a worker is missing, and the seconds after which to ask again (0: once something happens)."""
        with self._lock:
            may, wait = policy.may_start(self._roster, monotonic())
            return may or policy.wants_probe(self._roster), wait

    def hire(self, make: Callable[[int, int, int, int], Worker]) -> Worker | None:
        """Register one more worker, not started yet, if one is missing; return it.

        Args:
            make: makes it, given its id, its slot, its generation, and how many calls it runs at once.
        """
        roster = self._roster
        with self._lock:
            now = monotonic()
            probe = roster.probe
            is_probe = policy.wants_probe(roster)
            if not is_probe and not policy.may_start(roster, now)[0]:
                return None
            before = len(policy.staying(roster))
            roster.workers_started += 1
            number = next(roster.numbers)
            worker = roster.workers[number] = make(
                *(number, policy.free_slot(roster), roster.generation, roster.concurrency)
            )
            if is_probe and probe is not None:
                probe.worker = worker
            elif before >= roster.size.least:
                roster.last_grown = now
        if not is_probe and before >= roster.size.least:
            self._hands.emit("scaled", detail=f"{before} -> {before + 1} workers")
        return worker

    def drivers_needed(self) -> int:
        """Return how many driver threads the pool should have, which the caller then sees to."""
        with self._lock:
            self._roster.has_drivers = self._roster.wants_drivers
            lanes = len(self._roster.workers) * self._roster.concurrency
            return lanes if self._roster.wants_drivers else 0

    def spawn_failed(self, worker: Worker | None, error: ErrorMaker, is_to_retry: bool = False) -> None:
        """The process of a worker could not be started at all.

        Args:
            worker: registered; None where there is nothing that one could be forked from.
            is_to_retry: whoever waits for it, waits for the next one.
        """
        with self._lock:
            if worker is not None:
                for lane in worker.lanes:
                    lane.move(State.EXITED, Reason.START_FAILED)
                self._roster.workers.pop(worker.id, None)
                self._hands.emit("start_failed", worker, str(error()))
            failed = self._start_failed(worker, error, is_to_retry)
        logger.warning("pool %r: %s", self._roster.name, error())
        self._hands.fail(failed, error)
        self._hands.attend()
        self.check_gone()

    def spawned(self, worker: Worker) -> None:
        """Its process is there; it may be that it was to be ended while it was being made."""
        with self._lock:
            self._announce(worker)
        if worker.reason is not None:
            worker.kill()

    def _announce(self, worker: Worker) -> None:
        """Locked: tell of its spawn, before anything else of it; it may be ready, or dead, before its start returns."""
        if not worker.is_announced:
            worker.is_announced = True
            self._hands.emit("forked" if worker.recipe.options.start == "zygote" else "spawned", worker)

    def _start_failed(self, worker: Worker | None, error: ErrorMaker, is_to_retry: bool = False) -> list[Job]:
        """Locked: count a failed start and tell those who wait for it; return the jobs that fail with it."""
        roster = self._roster
        if roster.probe is not None and roster.probe.worker is worker:
            roster.probe.ticket.grant(None, error)
            return []
        was_open = roster.restarts.is_open
        was_ready = worker is not None and worker.ready_at is not None
        is_relapse = is_to_retry or was_ready or roster.restarts.is_first_after_success
        roster.restarts.failed(monotonic(), error, is_relapse)
        if roster.restarts.is_open and not was_open:
            self._hands.emit("circuit_opened", detail=f"{roster.rules.restart.max_failures} starts failed")
        if is_relapse and not roster.restarts.is_open and (is_to_retry or not roster.warming):
            return []  # who waits gets the next one: a worker killed by others, idle or starting, costs no call
        return roster.start_failed(error)

    def worker_ready(self, worker: Worker) -> None:
        """A fresh worker may serve."""
        roster = self._roster
        with self._lock:
            if worker.state is not State.STARTING:
                return
            self._announce(worker)
            self._hands.emit("ready", worker)
            worker.ready_at = monotonic()
            was_open = roster.restarts.is_open
            roster.restarts.succeeded()
            if roster.probe is not None and roster.probe.worker is worker:
                roster.begin_generation()
            served = [(lane, roster.serve_next(lane), lane.state) for lane in worker.lanes]
            replaced = leaving.let_due_go(roster)
            roster.tell_warming()
        logger.debug("pool %r: worker %d is ready, pid %d", roster.name, worker.id, worker.process.pid)
        if was_open:
            self._hands.emit("circuit_closed")
        for lane, job, state in served:
            self._queue.after_release(lane, job, state)
        for old in replaced:
            old.retire()
        self._hands.attend()

    def lane_answered(self, lane: Lane) -> None:
        """A reply has come that nobody had begun to wait for."""
        self._answered(lane)

    def lane_freed(self, lane: Lane, is_clean: bool) -> None:
        """An abandoned call has ended; unless its user code is known to be gone, the worker may not stay either."""
        worker = lane.worker
        self._hands.check_limits(worker, worker.calls + 1)
        with self._lock:
            if lane.state is not State.ABANDONED:
                return
            if not is_clean and worker.reason is None:
                worker.reason = Reason.DRAINED
            worker.calls += 1
            job = self._roster.serve_next(lane)
            state = lane.state
        self._queue.after_release(lane, job, state)
        self._hands.attend()

    def lane_lost(self, lane: Lane) -> None:
        """A call has not stopped in time: its worker takes no more, and ends when its others have, or soon."""
        worker = lane.worker
        with self._lock:
            if lane.state is State.RETIRING:
                return  # it has ended just now
            lane.is_lost = True
            worker.reason = worker.reason or Reason.DRAINED
            leaving.withdraw(self._roster, worker)
        worker.condemn()
        self._hands.attend()

    def worker_exited(self, worker: Worker) -> None:
        """The process is gone: replace it, or say why it could not start."""
        roster = self._roster
        failed: list[Job] = []
        with self._lock:
            before = worker.state
            self._announce(worker)
            free = leaving.lose(roster, worker)
            roster.exited.append(worker)
            gone = f"worker {worker.id} is gone: its process {worker.process.exit}"
            turn_away(worker, lambda: WorkerError(gone))
            if policy.counts_as_failed(roster, worker, before, monotonic()):
                failed = self._start_failed(worker, lambda: start_error(worker))
            assert worker.reason is not None
            roster.ended[worker.reason] += 1
            roster.workers_crashed += worker.reason is Reason.CRASHED
            kind = _EXITS.get(worker.reason, "retired")
            self._hands.emit(kind, worker, f"it {worker.process.exit}")  # here: the pool's end is told after it
        _log_exit(roster.name, worker)
        for lane in free:
            lane.channel.close()
        self._hands.attend()
        self._hands.fail(failed, lambda: start_error(worker))
        if roster.rules.is_lone:
            self.close(drop_waiting=True, why=f"{roster.name} is gone: its process {worker.process.exit}")
        self.check_gone()

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
            closed = roster.closed_error()
            if drop_waiting:
                dropped = roster.fail_waiting(lambda: closed)
            if roster.probe is not None:
                roster.probe.ticket.grant(None, lambda: closed)
            for ticket in (*roster.warming, *roster.renewing):
                ticket.grant(None, lambda: closed)
            roster.warming.clear()
            roster.renewing.clear()
            idle, unborn = leaving.leave_idle(roster)
        for worker in idle:
            worker.retire()
        for worker in unborn:
            worker.kill()
        self._hands.mend()  # what was set aside for somebody
        self.check_gone()
        return dropped

    def stop(self, why: str = "") -> None:
        """Take no more calls, and fail those that wait, in this thread; what runs goes on."""
        self._roster.is_ending = True
        for job in self.close(drop_waiting=True, why=why):
            job.fail(self._roster.closed_error())

    def known(self) -> list[Worker]:
        """Return the workers there are."""
        with self._lock:
            return list(self._roster.workers.values())

    def find(self, number: int, with_exited: bool = False, is_to_end: bool = False) -> Worker:
        """Return the worker of that id.

        Args:
            with_exited: also one of the last that ended.
            is_to_end: if it is idle, no call gets it from now on.

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
            if is_to_end:
                leaving.withdraw(self._roster, found, Reason.KILLED)
            return found

    def kill(self, *states: State) -> None:
        """End every worker in one of the states at once; if none is given, all of them, and then the templates."""
        with self._lock:
            workers = [worker for worker in self._roster.workers.values() if not states or worker.state in states]
            for worker in workers:
                worker.reason = worker.reason or Reason.CLOSED
            templates = [] if states else list(self._roster.templates)
        for worker in workers:
            worker.kill()
        for template in templates:
            template.retire(Reason.CLOSED)

    def end(self) -> None:
        """End what is left of a pool that takes no calls, at once. Waits for nothing."""
        self.stop()  # what has come back to the queue meanwhile
        self.kill()

    def check_gone(self) -> None:
        """See whether a closing pool has nothing left, and end it then."""
        with self._lock:
            is_done = policy.has_no_work(self._roster)
            templates = list(self._roster.templates) if is_done else []
            is_last = is_done and not templates
            if is_last:
                self._roster.phase = Phase.CLOSED
        for template in templates:
            template.retire(Reason.CLOSED)
        if is_last:
            self._hands.emit("closed")
            self._hands.all_gone()
            self.gone.set()  # last: whoever waits for it joins the threads then


def _log_exit(pool: str, worker: Worker) -> None:
    is_planned = worker.reason not in (Reason.CRASHED, Reason.START_FAILED)
    say = logger.debug if is_planned else logger.warning
    exit_text = worker.process.exit
    say("pool %r: worker %d (pid %d) %s (%s)", pool, worker.id, worker.process.pid, exit_text, worker.reason)
