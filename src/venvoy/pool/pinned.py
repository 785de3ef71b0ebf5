"""Calls on one very worker of a pool: those of objects that live there, beside the calls of everybody else.

Whoever comes while the worker is busy waits in its `suitors`, whose turn alternates with that of the pool's queue. Owns
nothing. Law: a worker with `tenants` is not replaced by plan, neither for its limits nor for being idle nor by a
reload; what is in it ends with a crash, `kill`, an interrupt that it did not take cleanly, or the pool.
"""

from __future__ import annotations

from collections.abc import Callable

from venvoy_worker.contract import messages
from venvoy_worker.contract.frames import Frame

from ..errors import CallTimeout, WorkerError
from ..exchange import Call
from ..workers.lane import Lane, WorkerLost
from ..workers.nesting import place_on
from ..workers.post_mortem import crash_error
from ..workers.state import Reason, State
from ..workers.worker import Worker
from .engine import Engine
from .job_queue import Hands, JobQueue
from .phase import Phase
from .roster import Roster, Ticket

_FOR_GOOD = (Reason.CLOSED, Reason.KILLED, Reason.CRASHED)


class Pinned:
    """See the module.

    Args:
        roster: the facts.
        engine: takes workers back.
        queue: counts failures.
        hands: does what is decided.
    """

    def __init__(self, roster: Roster, engine: Engine, queue: JobQueue, hands: Hands) -> None:
        self._roster = roster
        self._lock = roster.lock
        self._engine = engine
        self._queue = queue
        self._hands = hands

    def run(self, worker: Worker, call: Call) -> Frame:
        """Run a call on this worker, in this thread, and return its reply.

        Raises:
            WorkerError: the worker is gone.
            WorkerCrashed: it ended while it ran this.
            CallTimeout: the deadline passed; a call that was running is stopped behind the caller's back.
            PoolClosed: the pool takes no calls.
        """
        place = place_on(worker.lanes)
        if place is not None:  # it waits for an answer of this very thread, which must not wait for it
            return self._engine.run_within(place, call)
        ticket = Ticket()
        try:
            return self._run(ticket, self._take(ticket, worker, call), call)
        except BaseException as error:
            self._engine.astray.append(ticket)
            raise self._left(ticket, call, error) from error.__cause__

    def start(self, call: Call, settle_in: Callable[[Worker, Frame], None]) -> Frame:
        """Run a call on any worker, return its reply, and let somebody settle there before the worker is given back.

        Args:
            settle_in: given the worker and the reply, unless that is an error.

        Raises:
            As `Engine.run`.
        """
        while True:
            ticket, lane = Ticket(), None
            try:
                lane = self._engine.acquire(ticket, call)
                return self._run(ticket, lane, call, settle_in)
            except WorkerLost as lost:
                self._engine.astray.append(ticket)
                self._engine.leave(lost)
            except TimeoutError as error:
                ticket.is_to_stop = call.options.on_timeout == "cancel"
                self._engine.astray.append(ticket)
                raise self._left(ticket, call, error) from None
            except BaseException as error:
                self._engine.astray.append(ticket)
                if lane is not None and call.reply is not None and call.reply.opcode == messages.RESULT:
                    lane.worker.control.say(messages.RELEASE, body=call.reply.target)
                raise self._left(ticket, call, error) from error.__cause__

    def _take(self, ticket: Ticket, worker: Worker, call: Call) -> Lane:
        roster = self._roster
        idle = roster.idle
        with self._lock:
            roster.check_open()
            for lane in worker.lanes:
                if lane.state is State.IDLE and not worker.is_aside:
                    index = idle.index(lane)
                    ticket.lane = lane  # from here on no call, see `engine`
                    del idle[index]
                    lane.state = State.BUSY
                    return lane
            if worker.is_done:
                how = worker.process.exit or "is about to end"
                raise WorkerError(f"worker {worker.id} is gone: its process {how}")
            ticket.wait_in(worker.suitors)
        if self._engine.astray:
            self._hands.mend()
        return self._engine.await_turn(ticket, call)

    def _run(
        self, ticket: Ticket, lane: Lane, call: Call, settle_in: Callable[[Worker, Frame], None] | None = None
    ) -> Frame:
        frame = lane.run(call)
        if frame.opcode == messages.ERROR:
            self._queue.note_failure(lane, call)
        elif settle_in is not None:
            settle_in(lane.worker, frame)
            self._keep(lane.worker)
        self._engine.release(ticket)
        return frame

    def _keep(self, worker: Worker) -> None:
        """It has tenants now, so what was planned for it is not."""
        with self._lock:
            worker.due = None
            if worker.reason not in _FOR_GOOD and self._roster.phase is Phase.OPEN:
                worker.reason = None

    def _left(self, ticket: Ticket, call: Call, error: BaseException) -> BaseException:
        """Return what a caller raises that leaves early, whose ticket is astray."""
        self._hands.mend()
        if isinstance(error, WorkerLost):
            error.worker.await_exit()
            return crash_error(error)
        if isinstance(error, TimeoutError) and not isinstance(error, CallTimeout):
            return self._engine.timed_out(call, error)
        return error
