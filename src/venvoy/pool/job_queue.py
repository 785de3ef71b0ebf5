"""The calls that have a future: how jobs get workers, and what becomes of those that never started.

`enqueue` runs on callers' threads, which may be interrupted anywhere (see `engine`); everything else runs on threads of
the pool. All facts are in the `Roster`, under its lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from typing import Any, Protocol

from venvoy_worker.contract import messages

from ..errors import TooManyWaiting
from ..events import Kind
from ..exchange import Call
from ..workers.lane import Lane, WorkerLost
from ..workers.nesting import Place, place_within
from ..workers.post_mortem import crash_error
from ..workers.state import Reason, State
from ..workers.template import Template
from ..workers.worker import Worker
from . import ahead, leaving
from .jobs import Job
from .phase import Phase
from .roster import ErrorMaker, Roster, Ticket

_MOST_FREE_RETRIES = 5  # of a call that never started: workers that die while idle do not come in hundreds

Tasks = SimpleQueue[tuple[Lane, Job] | None]


class Hands(Protocol):
    """Who does, outside the lock, what was decided under it."""

    def attend(self) -> None:
        """See, soon, whether the pool is to be opened or workers are to be started."""

    def emit(self, kind: Kind, worker: Worker | Template | None = None, detail: str = "") -> None:
        """Tell `on_event` of a change; it runs on the notifier thread, in order."""

    def check_limits(self, worker: Worker, calls: int) -> None:
        """See whether a worker, by whoever holds it, has done enough with so many calls."""

    def mend(self) -> None:
        """Let the collector thread call `Engine.settle`, soon."""

    def fail(self, jobs: Iterable[Job], error: ErrorMaker) -> None:
        """Complete futures with an error, on a thread where user code may run."""

    def check_gone(self) -> None:
        """See whether a closing pool has nothing left."""

    def all_gone(self) -> None:
        """Nothing of the pool is left: stop its threads."""


class JobQueue:
    """See the module.

    Args:
        roster: the facts.
        hands: does what is decided.
    """

    def __init__(self, roster: Roster, hands: Hands) -> None:
        self._roster = roster
        self._lock = roster.lock
        self._hands = hands
        self.tasks: Tasks = SimpleQueue()  # pairs of lane and job that a driver is to run

    def enqueue(self, job: Job) -> None:
        """Give a job to an idle worker, or let it wait for one.

        Raises:
            PoolClosed: the pool takes no calls.
        """
        roster = self._roster
        if roster.has_drivers and roster.all_at_work and not roster.is_picky and job.call.options.queue_timeout is None:
            roster.waiting.append(job)  # without the lock; whoever changes one of the facts sees the job, or
            self._reconsider(job)  # we see the change
            return
        idle = roster.idle
        roster.wants_drivers = True
        is_short = not roster.has_drivers
        with self._lock:
            if idle and roster.phase is Phase.OPEN:
                lane = idle[-1]  # from here on no call but the last, see the module
                del idle[-1]
                lane.state = State.BUSY
                self.tasks.put((lane, job))
            else:
                roster.check_may_wait(job.call.options.queue_timeout)
                roster.waiting.append(job)
                is_short = is_short or roster.may_need_workers()
        if is_short:
            self._hands.attend()

    def _reconsider(self, job: Job) -> None:
        """See to a job that joined the queue if something changed meanwhile."""
        roster = self._roster
        if roster.all_at_work:
            return
        with self._lock:
            if roster.phase in (Phase.CLOSING, Phase.CLOSED) and job in roster.waiting:
                roster.waiting.remove(job)
                roster.check_open()
            pairs = roster.pair_up()
        for pair in pairs:
            self.tasks.put(pair)
        self._hands.attend()

    def may_add(self, worker: Worker, call: Call) -> bool:
        """Return True if something waits that could be sent ahead of the reply to this call."""
        return bool(self._roster.waiting) and call.size <= ahead.LARGEST and not self.is_alone(worker, call)

    def more(self, worker: Worker, most: int, room: int, is_ours: Callable[[Ticket | Job], bool]) -> list[Any]:
        """Return what a driver may add from the head of the queue to what its lane of a worker has.

        Args:
            most: entries at most.
            room: bytes of requests at most, in all.
            is_ours: tells whether the driver runs an entry; nobody else who waits is passed by.
        """
        taken: list[Any] = []
        waiting = self._roster.waiting
        if worker.limits is not None or worker.suitors or worker.is_aside:  # it is let go after each
            return taken
        with self._lock:
            others = len(self._roster.workers) * self._roster.concurrency  # who are to get their share
            most = min(most, 1 + len(waiting) // max(1, others))
            while waiting and len(taken) < most and worker.reason is None and is_ours(waiting[0]):
                call = waiting[0].call  # type: ignore[union-attr]
                if call.size > min(room, ahead.LARGEST) or self.is_alone(worker, call):
                    break
                room -= call.size
                taken.append(waiting.popleft())
        return taken

    def finish(self, lane: Lane, done: int, timed_out: int) -> Job | None:
        """A driver has nothing left on its lane: return the job it goes on with, or None: it was given back.

        Args:
            done, timed_out: how many calls since the last time.
        """
        worker = lane.worker
        if worker.limits is not None:
            self._hands.check_limits(worker, worker.calls + done)
        with self._lock:
            worker.calls += done
            self._roster.calls_done += done
            self._roster.calls_timed_out += timed_out
            lane.open_call = 0
            job = self._roster.serve_next(lane) if lane.state is State.BUSY else None
            state = lane.state
        if job is None:
            self.after_release(lane, None, state)
        return job

    def requeue(self, entries: Sequence[Job | Ticket]) -> None:
        """Put what never started, or is to run again, back to the head of the queue, in order."""
        roster = self._roster
        with self._lock:
            is_over = roster.phase is Phase.CLOSED or roster.is_ending
            for entry in reversed(entries):
                if isinstance(entry, Job):
                    entry.place = None
                else:
                    entry.is_waiting, entry.queue = True, roster.waiting
                if not is_over:
                    roster.waiting.appendleft(entry)
                elif not isinstance(entry, Job):
                    entry.grant(None, roster.closed_error)
            pairs = roster.pair_up()
        if is_over:  # meanwhile; here and now, since the pool's threads may have ended
            for entry in entries:
                if isinstance(entry, Job):
                    entry.fail_aside(roster.closed_error())
            return
        for pair in pairs:
            self.tasks.put(pair)
        self._hands.attend()

    def expire(self, job: Job) -> None:
        """The deadline of a job passed: if it waits still, it will never run.

        A running one is its driver's, unless that runs a function of the user's now, which may take its time.
        """
        if not self.withdraw(job):
            if not job.is_answered or job.is_given_up:
                return
            job.is_given_up = True
            if job.call.options.on_timeout == "cancel":
                self.stop(job)
        with self._lock:
            self._roster.calls_timed_out += 1
        self._hands.fail([job], job.call.timeout_error)

    def tire(self, job: Job) -> None:
        """The `queue_timeout` of a job passed: if it waits still, it will never run."""
        if self.withdraw(job):
            self._hands.fail([job], lambda: self.tired_error(job.call))

    def tired_error(self, call: Call) -> TooManyWaiting:
        """Return the error of a call that does not want to wait any longer."""
        seconds = call.options.queue_timeout
        return TooManyWaiting(f"{call.name}: no worker of pool {self._roster.name!r} was free within {seconds} s")

    def count(self, lane: Lane, done: int) -> None:
        """Calls have ended on a lane that is still held."""
        if done:
            with self._lock:
                lane.worker.calls += done
                self._roster.calls_done += done

    def note_failure(self, lane: Lane | None, call: Call) -> None:
        """A call has raised, on a lane that somebody holds."""
        with self._lock:
            self._roster.calls_failed += 1
        if lane is not None and lane.worker.reason is None and self.kills(lane.worker, call):
            lane.worker.reason = Reason.DRAINED

    def kills(self, worker: Worker, call: Call) -> bool:
        """Return True if the worker is to end should the call raise."""
        wish = call.options.kill_on_exception
        return worker.recipe.options.kill_on_exception if wish is None else wish

    def is_alone(self, worker: Worker, call: Call) -> bool:
        """Return True if nothing is to be sent to the worker before the reply to this call."""
        return self.kills(worker, call) or call.dialogue is not None or worker.listener.responder.is_asked

    def stop(self, job: Job) -> bool:
        """Cancel a job whose future is RUNNING; return False when it has ended meanwhile."""
        if self.withdraw(job):  # taken back from a worker before it started
            self._hands.fail([job], job.cancelled_error)
            return True
        place = job.place
        if place is None or job.future.done():
            return False
        job.is_given_up = True
        lane, call_id = place
        lane.worker.control.say(messages.RETRACT, body=messages.pack_ids([call_id]))
        lane.stop_call(call_id)
        return True

    def place_within(self, job: Job) -> Place | None:
        """Return where a waiting job is to run now, since this thread is what its workers wait for; it is taken out."""
        roster = self._roster
        place = place_within(roster.workers) if roster.all_at_work else None
        return place if place is not None and self.withdraw(job) else None

    def withdraw(self, job: Job) -> bool:
        """Take a job out of the queue; return False if it is not there any more."""
        with self._lock:
            try:
                self._roster.waiting.remove(job)
            except ValueError:
                return False
            return True

    def discard(self, lane: Lane) -> None:
        """A driver found its worker dead or unusable: it is not given to anybody again."""
        with self._lock:
            if lane.state is State.BUSY:
                lane.move(State.RETIRING, Reason.CRASHED)
        if lane.state is State.RETIRING and not lane.is_cut:
            lane.worker.process.kill_tree()

    def after_release(self, lane: Lane, job: Job | None, state: State) -> None:
        """Outside the lock: do what giving back a lane led to.

        Args:
            state: the lane's when the lock was held; it may be somebody else's now.
        """
        if job is not None:
            self.tasks.put((lane, job))
        elif state is State.EXITED:
            lane.channel.close()
            with self._lock:
                leaving.let_go(self._roster, lane)
            self._hands.check_gone()
        elif state is State.RETIRING and lane.worker.is_done:
            lane.worker.retire()
            self._hands.attend()

    def may_retry(self, lost: WorkerLost) -> None:
        """Return if the call may be run again, having counted the attempt.

        Raises:
            WorkerCrashed: it may not.
            PoolClosed: the worker was ended because the pool is.
        """
        call = lost.call
        call.attempts += not lost.is_bystander  # however many others end the worker they share
        if lost.worker.reason is Reason.CLOSED:
            raise self._roster.closed_error() from None
        if not lost.started and call.attempts <= _MOST_FREE_RETRIES:
            return
        if lost.started and call.can_repeat:
            call.retries -= 1
            return
        raise crash_error(lost) from None
