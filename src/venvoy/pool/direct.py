"""Jobs on workers that were idle: sent by the thread that submits them, read by the one that waits for their result.

So `submit(...).result()` involves no other thread. When nobody waits, the collector sees the reply come, and a driver
reads it. Laws: `Job.reader` is taken once, by whoever reads; a job whose `ticket` holds its worker has not been given
back; whoever is interrupted hands the job to a driver, which looks at these facts and goes on (see `engine` for where
an interrupt can strike).
"""

from __future__ import annotations

from _thread import allocate_lock
from collections.abc import Callable
from time import monotonic

from venvoy_worker.contract import messages
from venvoy_worker.contract.frames import Frame, FrameError

from ..workers.lane import Lane
from ..workers.state import State
from .engine import Engine
from .job_queue import Hands, JobQueue
from .jobs import Decoder, Job, run_aside
from .phase import Phase
from .roster import Roster, Ticket

_OPEN, _BUSY = Phase.OPEN, State.BUSY  # as in `engine`
_LARGEST = 32_768  # bytes of a request that surely fits into a pipe or a socket on which nothing is on its way


class Direct:
    """See the module.

    Args:
        roster: the facts.
        engine: takes workers back.
        queue: gets the jobs that a driver has to see to.
        hands: does what is decided.
        decoder: returns the decoder of the pool's replies; known once it is open.
    """

    def __init__(
        self, roster: Roster, engine: Engine, queue: JobQueue, hands: Hands, decoder: Callable[[], Decoder]
    ) -> None:
        self._roster = roster
        self._lock = roster.lock
        self._engine = engine
        self._queue = queue
        self._hands = hands
        self._decoder = decoder

    def send(self, job: Job) -> bool:
        """Send a job to an idle worker; return False when it has to wait in the queue."""
        call, roster = job.call, self._roster
        if not roster.idle or call.deadline is not None or call.definition is not None or call.size > _LARGEST:
            return False
        if not roster.has_drivers:  # for whatever this thread will not see to itself
            return False
        ticket, is_sent = Ticket(), False
        try:
            idle = roster.idle
            with self._lock:
                if not idle or roster.phase is not _OPEN:
                    return False
                lane = ticket.lane = idle[-1]  # from here on no call, see `engine`
                del idle[-1]
                lane.state = _BUSY
            job.begin()
            call_id, pieces = lane.begin(call)
            job.place = (lane, call_id)
            job.reader = allocate_lock()
            lane.channel.send(pieces)
            is_sent = True  # from here on it is for a reader to give the lane back
            job.ticket = ticket
            lane.direct = job
            lane.arm()
        except (OSError, ValueError):  # it has died
            job.ticket = ticket
            self._let_driver_read(job, lane)
        except BaseException:
            if not is_sent:
                self._engine.astray.append(ticket)
                self._hands.mend()
            else:
                self._let_driver_read(job, lane)
            raise
        return True

    def read(self, job: Job, timeout: float | None) -> None:
        """Read the reply of a job in this thread, if nobody else does yet; it may not have come when this returns.

        Args:
            timeout: seconds to wait for it.
        """
        ticket, place, reader = job.ticket, job.place, job.reader
        if ticket is None or place is None or reader is None:
            return
        lane, call_id = place
        mine: list[bool] = []
        try:
            mine.extend(map(reader.acquire, (False,)))  # one call: no interrupt before we know that it is ours
            if not mine[0]:
                return
            lane.disarm()
            frame = lane.channel.receive(None if timeout is None else monotonic() + timeout)
            if frame is None or frame.opcode not in messages.TERMINAL or frame.call_id != call_id or job.is_given_up:
                raise EOFError  # more than a plain reply: what it means is a driver's business
            job.reply = frame
            if frame.opcode == messages.ERROR:
                self._queue.note_failure(lane, job.call)
            lane.channel.parser.last = lane.direct = None
            lane.open_call = 0
            job.seconds = lane.note_duration(frame)
            self._engine.release(ticket)
            self._complete(job, frame)
        except BaseException as error:  # and perhaps one more, thrown in while we read, at the next call of Python's
            if mine and mine[0]:
                if ticket.lane is not None:
                    self._queue.tasks.put((lane, job))
                else:
                    self._see_to_end(job, ticket)
            if not isinstance(error, (OSError, ValueError, EOFError, FrameError)):  # time-outs too
                raise

    def _see_to_end(self, job: Job, ticket: Ticket) -> None:
        """The reply has come, and the worker was given back; whoever did it may not have got further."""
        if ticket.heir is not None:
            self._engine.give_up(ticket)
        if job.reply is not None and not job.future.done():
            run_aside(self._complete, job, job.reply)

    def _let_driver_read(self, job: Job, lane: Lane) -> None:
        if job.reader is not None and job.reader.acquire(False):
            self._queue.tasks.put((lane, job))

    def answered(self, lane: Lane) -> None:
        """On the collector thread: a reply has come that nobody had begun to wait for."""
        job = lane.direct
        if isinstance(job, Job):
            self._let_driver_read(job, lane)

    def _complete(self, job: Job, frame: Frame) -> None:
        complete = self._decoder().complete
        if job.has_callbacks:
            run_aside(complete, job, frame)
        else:
            complete(job, frame)
