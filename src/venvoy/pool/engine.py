"""Who serves whom: the calls' side of a pool.

Callers bring a `Ticket` (and run the call themselves on the worker it gets), `submit` and `map` bring a `Job` (which a
driver thread runs). Both wait in the one queue of the `Roster`; nothing here waits while holding its lock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from time import monotonic
from typing import Protocol

from venvoy_worker.contract import messages
from venvoy_worker.contract.frames import Frame

from ..errors import CallTimeout, PoolClosed
from ..exchange import Call
from ..post_mortem import crash_error
from ..worker import Worker, WorkerLost
from ..worker_state import Reason, State
from .jobs import Job
from .roster import ErrorMaker, Roster, Ticket

_MOST_FREE_RETRIES = 5  # of a call that never started: workers that die while idle do not come in hundreds


class Hands(Protocol):
    """Who does, outside the lock, what was decided under it."""

    def order(self, workers: int) -> None:
        """Start so many workers; or open the pool, for `OPEN`."""

    def drive(self, worker: Worker, job: Job) -> None:
        """Run a job on a worker that was made busy for it, and go on with what waits."""

    def fail(self, jobs: Iterable[Job], error: ErrorMaker) -> None:
        """Complete futures with an error, on a thread where user code may run."""

    def all_gone(self) -> None:
        """Nothing of the pool is left: stop its threads."""


class Engine:
    """See the module.

    Args:
        roster: the facts.
        hands: does what is decided.
    """

    def __init__(self, roster: Roster, hands: Hands) -> None:
        self._roster = roster
        self._lock = roster.lock
        self._hands = hands

    # --- callers that run their call themselves -------------------------------------------

    def run(self, call: Call) -> Frame:
        """Run a call on a worker, in this thread, and return its reply.

        Raises:
            CallTimeout: the deadline passed; the call is stopped behind the caller's back.
            WorkerCrashed: the worker ended and no attempt is left.
            PoolClosed: the pool takes no calls. Besides these, why no worker could be started.
        """
        while True:
            ticket = Ticket()
            try:
                worker = self.acquire(ticket, call.deadline, call.name)
                return self.run_on(ticket, worker, call)
            except WorkerLost as lost:
                self.may_retry(lost)
            finally:
                self.release(ticket)

    def run_on(self, ticket: Ticket, worker: Worker, call: Call) -> Frame:
        """Run a call on the ticket's worker; whatever leaves here early leaves no half-read channel behind.

        Raises:
            CallTimeout: the deadline passed.
            WorkerLost: the worker is gone.
        """
        try:
            return worker.run(call)
        except WorkerLost:
            worker.await_exit()
            self.discard(worker)
            raise
        except TimeoutError:
            self.abandon(ticket)
            self.count_timeout()
            raise call.timeout_error() from None
        except BaseException:  # Ctrl-C, or an exception thrown into this thread
            self.abandon(ticket)
            raise

    def may_retry(self, lost: WorkerLost) -> None:
        """Return if the call may be run again, having counted the attempt.

        Raises:
            WorkerCrashed: it may not.
            PoolClosed: the worker was ended because the pool is.
        """
        call = lost.call
        call.attempts += 1
        if lost.worker.reason is Reason.CLOSED:
            raise PoolClosed(self._roster.closed_why) from None
        if not lost.started and call.attempts <= _MOST_FREE_RETRIES:
            return
        if lost.started and call.retries > 0:
            call.retries -= 1
            return
        raise crash_error(lost) from None

    def acquire(self, ticket: Ticket, deadline: float | None, name: str) -> Worker:
        """Wait for a worker and return it; it belongs to the ticket until `release`.

        Raises:
            CallTimeout: the deadline passed first.
            PoolClosed: the pool takes no calls. Besides these, why no worker could be started.
        """
        roster = self._roster
        with self._lock:
            roster.check_open()
            worker = roster.take_idle()
            if worker is not None:
                ticket.worker = worker
                return worker
            ticket.wait_in(roster.waiting)
            orders = roster.plan()
        if orders:
            self._hands.order(orders)
        return self._await(ticket, deadline, name)

    def _await(self, ticket: Ticket, deadline: float | None, name: str) -> Worker:
        assert ticket.event is not None
        patience = -1.0 if deadline is None else min(max(0.0, deadline - monotonic()), threading.TIMEOUT_MAX)
        if not ticket.event.acquire(timeout=patience):
            with self._lock:
                if ticket.is_waiting:
                    self._roster.forget(ticket)
                    self._roster.calls_timed_out += 1
                    raise CallTimeout(f"{name}: no worker was free before the deadline")
        if ticket.error is not None:
            raise ticket.error()
        assert ticket.worker is not None
        return ticket.worker

    def release(self, ticket: Ticket) -> None:
        """Give back what the ticket holds: a worker, a place in the queue, or nothing any more."""
        with self._lock:
            worker, ticket.worker = ticket.worker, None
            if worker is None:
                self._roster.forget(ticket)
                return
            job = None
            if worker.state is State.BUSY:
                worker.calls += 1
                self._roster.calls_done += 1
                job = self._roster.serve_next(worker)
        self.after_release(worker, job)

    def after_release(self, worker: Worker, job: Job | None) -> None:
        """Outside the lock: do what giving back a worker led to."""
        if job is not None:
            self._hands.drive(worker, job)
        elif worker.state is State.EXITED:
            worker.channel.close()
        elif worker.state is State.RETIRING:
            worker.retire()

    def abandon(self, ticket: Ticket) -> None:
        """The driver of the ticket's worker leaves in the middle of a call: the collector sees it to its end."""
        with self._lock:
            worker, ticket.worker = ticket.worker, None
            if worker is None:
                return
            is_torn = worker.channel.is_torn
            if worker.state is State.BUSY:
                worker.move(*((State.RETIRING, Reason.DRAINED) if is_torn else (State.ABANDONED,)))
            orders = self._roster.plan()
        if worker.state is State.ABANDONED:
            worker.abandon_call()
        elif is_torn:
            worker.process.kill_tree()
        else:
            self.after_release(worker, None)
        if orders:
            self._hands.order(orders)

    def discard(self, worker: Worker) -> None:
        """A driver found its worker dead or unusable: it is not given to anybody again."""
        with self._lock:
            if worker.state is State.BUSY:
                worker.move(State.RETIRING, Reason.CRASHED)
        if worker.state is State.RETIRING:
            worker.process.kill_tree()

    # --- jobs ------------------------------------------------------------------------------

    def enqueue(self, job: Job) -> None:
        """Give a job to an idle worker, or let it wait for one.

        Raises:
            PoolClosed: the pool takes no calls.
        """
        roster, orders = self._roster, 0
        with self._lock:
            roster.check_open()
            worker = roster.take_idle()
            if worker is None:
                roster.waiting.append(job)
                orders = roster.plan()
        if worker is not None:
            self._hands.drive(worker, job)
        elif orders:
            self._hands.order(orders)

    def more_jobs(self, worker: Worker, most: int, room: int, largest: int) -> list[Job]:
        """Return waiting jobs that a driver may add to those its worker has; callers with tickets go first.

        Args:
            most: number of jobs at most.
            room: bytes of requests at most, in all.
            largest: bytes of one request at most.
        """
        jobs: list[Job] = []
        waiting = self._roster.waiting
        with self._lock:
            while waiting and len(jobs) < most and worker.reason is None:
                entry = waiting[0]
                if not isinstance(entry, Job) or entry.call.size > min(room, largest):
                    break
                room -= entry.call.size
                jobs.append(entry)
                waiting.popleft()
        return jobs

    def finish(self, worker: Worker, done: int) -> Job | None:
        """A driver has nothing left on its worker: return the job it goes on with, or None: it was given back.

        Args:
            done: how many calls it has done since the last time.
        """
        with self._lock:
            worker.calls += done
            self._roster.calls_done += done
            job = self._roster.serve_next(worker) if worker.state is State.BUSY else None
        if job is None:
            self.after_release(worker, None)
        return job

    def requeue(self, jobs: list[Job]) -> None:
        """Put jobs that never started back to the head of the queue, in order."""
        with self._lock:
            for job in reversed(jobs):
                job.place = None
                self._roster.waiting.appendleft(job)
            pairs = self._roster.pair_up()
            orders = self._roster.plan()
        if orders:
            self._hands.order(orders)
        for worker, job in pairs:
            self._hands.drive(worker, job)

    def expire(self, job: Job) -> None:
        """The deadline of a job passed: if it waits still, it will never run. A running one is its driver's."""
        if self._withdraw(job):
            self.count_timeout()
            self._hands.fail([job], job.call.timeout_error)

    def stop(self, job: Job) -> bool:
        """Cancel a job whose future is RUNNING; return False when it has ended meanwhile."""
        if self._withdraw(job):  # taken back from a worker before it started
            self._hands.fail([job], job.cancelled_error)
            return True
        place = job.place
        if place is None or job.future.done():
            return False
        job.is_given_up = True
        worker, call_id = place
        worker.say(messages.RETRACT, body=messages.pack_ids([call_id]))
        worker.stop_call(call_id)
        return True

    def count_timeout(self) -> None:
        """A driver has let a call time out."""
        with self._lock:
            self._roster.calls_timed_out += 1

    def _withdraw(self, job: Job) -> bool:
        with self._lock:
            try:
                self._roster.waiting.remove(job)
            except ValueError:
                return False
            return True
