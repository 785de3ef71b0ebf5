"""Who serves whom: the calls' side of a pool.

Callers bring a `Ticket` (and run the call themselves on the lane it gets), `submit` and `map` bring a `Job` (which a
driver thread runs). Both wait in the one queue of the `Roster`; nothing here waits while holding its lock.

Callers may be interrupted anywhere, by Ctrl-C or by an exception thrown into their thread, even in the middle of giving
a lane back. Python delivers such an exception after a call or at the start of a function or loop, so: (1) where a
caller's thread takes or gives a lane, the assignments stand together without a call between them; (2) whatever leaves
early first appends its ticket to `astray`, one C call, and the collector thread, which nobody interrupts, looks at the
facts and mends them (`settle`). No lane is lost, and no half-read channel is given to anybody.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Literal, overload

from venvoy_worker.contract import messages
from venvoy_worker.contract.frames import Frame

from ..errors import CallTimeout
from ..exchange import Call
from ..workers.lane import Lane, WorkerLost
from ..workers.nesting import Place, place_within
from ..workers.post_mortem import crash_error
from ..workers.state import Reason, State
from . import exclusive, leaving
from .job_queue import Hands, JobQueue
from .jobs import Job
from .phase import Phase
from .roster import Roster, Ticket
from .suitors import queue_of

_OPEN, _BUSY, _IDLE = Phase.OPEN, State.BUSY, State.IDLE  # a member of an enum is found by Python's slowest road


class Engine:
    """See the module.

    Args:
        roster: the facts.
        queue: gets lanes that a job waits for.
        hands: does what is decided.
    """

    def __init__(self, roster: Roster, queue: JobQueue, hands: Hands) -> None:
        self._roster = roster
        self._lock = roster.lock
        self._hands = hands
        self._queue = queue
        self.astray: deque[Ticket] = deque()  # whose owner left early

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
                frame = (self.ask(ticket, call, may_nest=True) or self.await_turn(ticket, call)).run(call)
                if frame.opcode == messages.ERROR:
                    self._queue.note_failure(ticket.lane, call)
                if ticket.lane is not None:
                    self.release(ticket)
                return frame
            except WorkerLost as lost:
                self.astray.append(ticket)
                self.leave(lost)
            except TimeoutError as error:
                ticket.is_to_stop = call.options.on_timeout == "cancel"
                self.astray.append(ticket)
                self._hands.mend()
                raise self.timed_out(call, error) from None
            except BaseException:
                self.astray.append(ticket)
                self._hands.mend()
                raise

    def run_on(self, ticket: Ticket, call: Call) -> Frame:
        """Run a call on the lane that a ticket holds and goes on holding, unless an error takes it away.

        Raises:
            As `run`.
        """
        lane = ticket.lane
        assert lane is not None
        if call.deadline is not None and monotonic() >= call.deadline:
            raise self.timed_out(call, TimeoutError())  # it has not begun, which costs nobody the worker
        try:
            frame = lane.run(call)
            self.note_done(lane, call, frame)
            return frame
        except WorkerLost as lost:
            self.astray.append(ticket)
            self._hands.mend()
            lost.worker.await_exit()
            raise crash_error(lost) from None
        except TimeoutError as error:
            ticket.is_to_stop = call.options.on_timeout == "cancel"
            self.astray.append(ticket)
            self._hands.mend()
            raise self.timed_out(call, error) from None
        except BaseException:
            self.astray.append(ticket)
            self._hands.mend()
            raise

    def note_done(self, lane: Lane, call: Call, frame: Frame) -> None:
        """A call has ended on a lane that its caller goes on holding."""
        with self._lock:
            lane.worker.calls += 1
            self._roster.calls_done += 1
        if frame.opcode == messages.ERROR:
            self._queue.note_failure(lane, call)

    def run_within(self, place: Place, call: Call) -> Frame:
        """Run a call on a worker that waits for an answer of this thread.

        Raises:
            CallTimeout: its deadline passed, or that of the call it runs within.
            WorkerCrashed: the worker ended.
        """
        try:
            return place.run(call)
        except WorkerLost as lost:
            lost.worker.await_exit()
            raise crash_error(lost) from None
        except TimeoutError as error:
            raise self.timed_out(call, error) from None

    def timed_out(self, call: Call, error: BaseException) -> CallTimeout:
        """Count a time-out and return its error."""
        with self._lock:
            self._roster.calls_timed_out += 1
        return error if isinstance(error, CallTimeout) else call.timeout_error()

    def leave(self, lost: WorkerLost) -> None:
        """Turn away from a worker that is gone; return if its call may be run again.

        Raises:
            WorkerCrashed: it may not.
            PoolClosed: the worker was ended because the pool is.
        """
        self._hands.mend()
        lost.worker.await_exit()
        self._queue.may_retry(lost)

    def acquire(self, ticket: Ticket, call: Call) -> Lane:
        """Wait for a lane of a worker and return it; it belongs to the ticket until `release` or `settle`.

        Raises:
            CallTimeout: the deadline passed first.
            TooManyWaiting: it may not wait, or not for so long.
            PoolClosed: the pool takes no calls. Besides these, why no worker could be started.
        """
        return self.ask(ticket, call) or self.await_turn(ticket, call)

    @overload
    def ask(self, ticket: Ticket, call: Call) -> Lane | None: ...

    @overload
    def ask(self, ticket: Ticket, call: Call, may_nest: Literal[True]) -> Lane | Place | None: ...

    def ask(self, ticket: Ticket, call: Call, may_nest: bool = False) -> Lane | Place | None:
        """Return an idle lane, which belongs to the ticket now; else put the ticket into the queue.

        Args:
            may_nest: if all are at work, one that waits for an answer of this thread will do.

        Raises:
            TooManyWaiting: it may not wait.
            PoolClosed: the pool takes no calls. Besides these, why no worker can be started.
        """
        roster = self._roster
        idle = roster.idle
        with self._lock:
            if idle and roster.phase is _OPEN and not ticket.is_whole:
                lane = ticket.lane = idle[-1]  # from here on no call, see the module
                del idle[-1]
                lane.state = _BUSY
                return lane
            place = place_within(roster.workers, may_nest) if roster.all_at_work else None
            if place is not None:
                return place
            roster.check_may_wait(call.options.queue_timeout)
            if ticket.is_whole:
                exclusive.claim(roster, ticket)
            else:
                ticket.wait_in(roster.waiting)
            is_short = roster.may_need_workers()
        if is_short:
            self._hands.attend()
        if self.astray:
            self._hands.mend()
        return None

    def await_turn(self, ticket: Ticket, call: Call) -> Lane:
        """Wait until a ticket that has joined a queue is served, and return its lane.

        Raises:
            As `acquire`.
        """
        assert ticket.event is not None
        patience, error = self.patience(call)
        is_granted = ticket.event.acquire(timeout=-1 if patience is None else min(patience, threading.TIMEOUT_MAX))
        return self.granted(ticket, None if is_granted else error)

    def patience(self, call: Call) -> tuple[float | None, Callable[[], BaseException]]:
        """Return for how many seconds a call may wait in the queue (None: for ever), and what it raises then."""
        left = None if call.deadline is None else max(0.0, call.deadline - monotonic())
        in_queue = call.options.queue_timeout or None  # 0 was seen to on the way in
        if in_queue is not None and (left is None or in_queue < left):
            return in_queue, partial(self._queue.tired_error, call)
        return left, partial(CallTimeout, f"{call.name}: no worker was free before the deadline")

    def granted(self, ticket: Ticket, error: Callable[[], BaseException] | None) -> Lane:
        """Return the lane that a ticket was granted.

        Args:
            error: what to raise if there is none: the time to wait in the queue is over.

        Raises:
            As `acquire`.
        """
        if error is not None:
            with self._lock:
                if ticket.is_waiting:
                    self._roster.forget(ticket)
                    raise error()
        if ticket.error is not None:
            raise ticket.error()
        assert ticket.lane is not None
        return ticket.lane

    def release(self, ticket: Ticket) -> None:
        """Give back the lane that the ticket holds."""
        roster, lane = self._roster, ticket.lane
        if lane is None:
            self.give_up(ticket)
            return
        idle, queue, worker = roster.idle, roster.waiting, lane.worker
        if worker.limits is not None:
            self._hands.check_limits(worker, worker.calls + 1)
        with self._lock:
            place = roster.place_of(lane) if lane.index else -1
            if lane.state is _BUSY:
                worker.calls += 1
                roster.calls_done += 1
                is_staying = worker.reason is None and worker.due is None and not worker.is_aside
                if is_staying and roster.phase is _OPEN:
                    if worker.suitors:
                        queue = queue_of(worker, queue)
                    entry = queue[0] if queue else None
                    is_job = entry is not None and isinstance(entry, Job)
                    if entry is None:
                        lane.state = _IDLE  # no call from here to the end of each branch, see the module
                        if place < 0:
                            idle += (lane,)
                        else:
                            idle[place:place] = (lane,)
                        ticket.lane = None
                    elif is_job:
                        del queue[0]
                        ticket.lane = None
                        self._queue.tasks.put((lane, entry))  # type: ignore[arg-type]
                    else:
                        del queue[0]
                        entry.lane = lane  # type: ignore[union-attr]
                        entry.is_waiting = False  # type: ignore[union-attr]
                        ticket.lane, ticket.heir = None, entry  # type: ignore[assignment]
                        entry.event.release()  # type: ignore[union-attr]
                        ticket.heir = None
                    return
        self.give_up(ticket)

    def give_up(self, ticket: Ticket) -> None:
        """Let the collector thread take from a ticket whatever it has."""
        self.astray.append(ticket)
        self._hands.mend()

    def settle(self) -> None:
        """On the collector thread: take from those who left early what they had, and see to it."""
        while self.astray:
            try:
                self._settle(self.astray[0])
            finally:
                self.astray.popleft()
        if self._roster.concurrency > 1:
            with self._lock:
                served = exclusive.mend(self._roster)
            for lane, job, state in served:
                self._queue.after_release(lane, job, state)

    def _settle(self, ticket: Ticket) -> None:
        roster = self._roster
        job, is_torn = None, False
        heir, ticket.heir = ticket.heir, None
        if heir is not None:
            heir.wake_again()
        with self._lock:
            roster.forget(ticket)
            lane, ticket.lane = ticket.lane, None
            if lane is not None and lane.state is _BUSY:
                is_torn = lane.channel.is_torn  # later it may be somebody else who is sending
                if is_torn:
                    lane.move(State.RETIRING, Reason.DRAINED)
                    leaving.withdraw(roster, lane.worker)
                elif lane.open_call and lane.was_sent:
                    lane.move(State.ABANDONED)
                else:
                    lane.take_back()
                    job = roster.serve_next(lane)
            state = lane.state if lane is not None else None
        if lane is None or state is None:
            return
        if is_torn:
            lane.cut()
        if state is State.ABANDONED:
            lane.abandon_call(ticket.is_to_stop)
        self._queue.after_release(lane, job, state)
        self._hands.attend()
