"""The queue driver: a thread per busy lane that runs jobs on it, several per write, and completes their futures.

Owns the threads, as many as the workers have lanes. A drive owns its lane's call channel from
the first job to the last. Laws: with more than one request unanswered it reads while it writes; small requests only
are sent ahead, and only while calls are measured to be quick; a lane is given back before the futures are
completed, so that whoever waits for a result finds a free worker.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

from venvoy_worker.contract import messages
from venvoy_worker.contract.channel import Channel, milliseconds
from venvoy_worker.contract.frames import Frame, FrameError

from ..errors import EncodingError, ProtocolError, VenvoyError
from ..exchange import Pieces
from ..log import logger
from ..workers.lane import Lane, WorkerLost
from ..workers.state import Reason
from ..workers.talk import poll_of
from . import ahead
from .job_queue import JobQueue
from .jobs import Decoder, Job, run_aside


class Drivers:
    """The threads: one a lane, each asleep until a pair of lane and job is put into `JobQueue.tasks`.

    Args:
        queue: where jobs come from.
        decoder: returns the decoder of the pool's replies; known once it is open.
        name: of the pool, for the threads' names.
    """

    def __init__(self, queue: JobQueue, decoder: Callable[[], Decoder], name: str) -> None:
        self._queue = queue
        self._decoder = decoder
        self._name = name
        self.threads: list[threading.Thread] = []  # changed by the supervisor's thread only

    def grow(self, count: int) -> None:
        """Have at least so many threads."""
        while len(self.threads) < count:
            thread = threading.Thread(target=self._run, name=f"venvoy-driver-{self._name}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # a limit of the system: fewer have to do until there is room again
                logger.warning("pool %r: %s; going on with %d drivers", self._name, error, len(self.threads))
                return
            self.threads.append(thread)

    def close(self) -> None:
        """Let the threads end."""
        for _ in self.threads:
            self._queue.tasks.put(None)

    def _run(self) -> None:
        task = self._queue.tasks.get()
        while task is not None:
            lane, job = task
            del task  # a thread that waits keeps nothing alive
            Drive(self._queue, self._decoder(), lane).run(job)
            del lane, job
            task = self._queue.tasks.get()


class Drive:
    """One drive: a lane and the jobs that are on it.

    Args:
        lane: busy, and ours until it is given back.
    """

    def __init__(self, queue: JobQueue, decoder: Decoder, lane: Lane) -> None:
        self._queue = queue
        self._decoder = decoder
        self._lane = lane
        self._worker = lane.worker
        self._channel: Channel = lane.channel
        self._reading = poll_of(lane.channel)
        self._running: dict[int, Job] = {}  # unanswered, in the order they were sent
        self._room = ahead.ROOM
        self._unsent: Pieces = []
        self._answered: list[tuple[Job, Frame]] = []
        self._done = self._timed_out = 0  # calls since the queue was last told
        self._is_retracting = False
        self._has_deadlines = False  # some job of this drive had one
        self._is_alone = False  # nothing is to be sent ahead of the reply
        self._progress = 0.0  # when the last reply came, while something was sent ahead

    def run(self, job: Job | None) -> None:
        """Run a job and what the queue gives after it, until the worker is given back."""
        try:
            while job is not None:
                if job.ticket is not None:
                    self._adopt(job)
                else:
                    self._is_alone = self._queue.is_alone(self._worker, job.call)  # those sent ahead are not
                    self._send([job])
                self._complete()  # what was answered before: the worker has something to do meanwhile
                while self._running or self._unsent:
                    self._turn()
                job = self._finish()
        except (OSError, EOFError, FrameError, ProtocolError):
            self._lost()
        except BaseException:  # a defect of ours: no future may be left waiting
            logger.exception("internal error of a driver")
            self._worker.kill()
            self._lost()
        self._complete()

    def _adopt(self, job: Job) -> None:
        """Take over a job whose submitter has sent it, from `direct`."""
        assert job.place is not None
        assert job.ticket is not None
        call_id = job.place[1]
        job.ticket.lane = job.ticket = self._lane.direct = None
        self._running[call_id] = job
        self._room -= job.call.size
        self._is_alone = self._queue.is_alone(self._worker, job.call)
        if self._channel.is_torn:
            raise BrokenPipeError
        frame = job.reply or self._channel.parser.last  # what a reader before us has taken off the channel
        if frame is not None:
            self._accept(frame)

    def _send(self, jobs: list[Job]) -> None:
        for job in jobs:
            if job.is_given_up:  # while it was on its way back to the queue
                job.fail_aside(job.cancelled_error())
            elif job.begin():
                try:
                    call_id, pieces = self._lane.begin(job.call)
                except EncodingError as error:
                    job.fail_aside(error)
                    continue
                job.place = (self._lane, call_id)
                if job.call.deadline is not None:
                    self._has_deadlines = True
                self._running[call_id] = job
                self._room -= job.call.size
                self._unsent += pieces
        if len(self._unsent) > 1 and self._room > 0:
            self._unsent = [b"".join(self._unsent)]
        if self._unsent:
            self._write()

    def _turn(self) -> None:
        """Write what fits, take the replies that are there, waiting for one if there is none, and go on."""
        if self._unsent:
            self._write()
            if not self._running and not self._unsent:  # an answer to a call that has ended is written whole, too
                return
        frame = self._channel.buffered()
        if frame is None:
            frame = self._wait_for_frame()
        if frame is not None:
            while frame is not None:
                self._accept(frame)
                frame = self._channel.buffered()
            self._progress = monotonic() if len(self._running) > 1 else 0.0
            if self._done > ahead.UNCOUNTED:
                self._queue.count(self._lane, self._done)
                self._done = 0
        self._send_ahead()
        if self._running:
            self._complete()

    def _write(self) -> None:
        self._unsent = self._channel.offer(self._unsent)

    def _wait_for_frame(self) -> Frame | None:
        """Return the next frame; None when there is something else to do first."""
        patience = self._patience()
        if patience is None and not self._unsent:
            frame = self._channel.receive()
            if frame is None:
                raise EOFError
            return frame
        poll = self._reading
        if self._unsent:
            poll = poll_of(self._channel, for_room=True)
        if not poll.poll(None if patience is None else milliseconds(patience)):
            self._on_time()
            return None
        return self._channel.try_receive(is_there=poll is self._reading)

    def _patience(self) -> float | None:
        """Return the seconds until something is to be done without a reply; None for never."""
        times = []
        if self._has_deadlines:
            for job in self._running.values():
                if job.call.deadline is not None and not job.is_given_up:
                    times.append(job.call.deadline)
        if len(self._running) > 1 and not self._is_retracting:
            times.append(self._progress + ahead.STALL)
        return max(0.0, min(times) - monotonic()) if times else None

    def _on_time(self) -> None:
        now = monotonic()
        started = self._lane.started
        for call_id, job in self._running.items():
            deadline = job.call.deadline
            if deadline is not None and deadline <= now and not job.is_given_up:
                job.is_given_up = True
                self._timed_out += 1
                if self._unsent:  # in part, perhaps: nothing more can be said on this channel
                    self._lane.cut()
                else:
                    if call_id != started:
                        self._retract([call_id])
                    if job.call.options.on_timeout == "cancel":
                        self._lane.stop_call(call_id)  # also if it starts just now; no harm if it is taken back
                job.fail_aside(job.call.timeout_error())
        if len(self._running) > 1 and now >= self._progress + ahead.STALL and not self._is_retracting:
            self._lane.mean_seconds = None  # calls are not quick any more: measure anew before sending ahead
            self._retract([call_id for call_id in self._running if call_id > started])

    def _retract(self, call_ids: list[int]) -> None:
        if call_ids:
            self._is_retracting = True
            self._worker.control.say(messages.RETRACT, body=messages.pack_ids(call_ids))

    def _accept(self, frame: Frame) -> None:
        self._channel.parser.last = None
        job = self._running.get(frame.call_id)
        if job is None or frame.opcode not in messages.TERMINAL:
            self._accept_other(frame, job)
            return
        del self._running[frame.call_id]
        self._room += job.call.size
        self._done += 1
        job.seconds = self._lane.note_duration(frame)
        if frame.opcode == messages.ERROR and not job.is_given_up:
            self._queue.note_failure(self._lane, job.call)
        if job.is_given_up:
            if frame.flags & messages.FLAG_DIRTY:
                self._worker.reason = self._worker.reason or Reason.DRAINED  # its user code may still be at work
            job.fail_aside(job.cancelled_error())  # unless its deadline did that already
        else:
            self._answered.append((job, frame))

    def _accept_other(self, frame: Frame, job: Job | None) -> None:
        """Take a frame that is not the reply to a call of ours."""
        if frame.opcode == messages.RETRACTED:
            self._take_back(messages.read_ids(frame.body))
        elif frame.opcode in messages.INTERIM:
            self._hear(frame, job)
        elif frame.opcode not in messages.TERMINAL or frame.call_id > self._lane.last_id:
            raise ProtocolError(f"unexpected {frame!r}")
        # else of a call that was nested into one of ours and given up

    def _hear(self, frame: Frame, job: Job | None) -> None:
        """Take what a call says before its reply; a function of the host's that it asks for is called here."""
        if job is None:  # of a call that was given up
            return
        if frame.opcode == messages.PROGRESS:
            job.future.progress = self._lane.talk.report(frame, job.call) or job.future.progress
            return
        job.is_answered = True  # a deadline that passes from now on is seen to by `JobQueue.expire`
        if job.call.deadline is not None and monotonic() >= job.call.deadline:
            self._on_time()
            if job.call.options.on_timeout == "cancel":  # its end ends the question, too
                job.is_answered = False
                return
        reply = self._lane.talk.hear(frame, job.call, frame.call_id, self._lane, self._unsent.extend)
        job.is_answered = False
        if reply is not None:
            self._accept(reply)

    def _take_back(self, call_ids: list[int]) -> None:
        self._is_retracting = False
        jobs = []
        for call_id in call_ids:
            job = self._running.pop(call_id, None)
            if job is None:  # of a drive before this one
                continue
            self._room += job.call.size
            if job.is_given_up:
                job.fail_aside(job.cancelled_error())
            else:
                jobs.append(job)
        if jobs:
            self._queue.requeue(jobs)

    def _send_ahead(self) -> None:
        if self._is_retracting or self._unsent or self._is_alone:
            return
        most = ahead.how_many(self._lane, len(self._running))
        jobs = self._queue.more(self._worker, most, self._room, _is_job) if most else None
        if jobs:
            self._progress = monotonic()
            self._send(jobs)

    def _complete(self) -> None:
        """Complete the futures of what was answered.

        Those with callbacks are completed on a thread of their own: a callback may wait for this worker or driver.
        """
        answered, self._answered = self._answered, []
        slow = [pair for pair in answered if pair[0].has_callbacks]
        if slow:
            answered = [pair for pair in answered if not pair[0].has_callbacks]
            run_aside(_complete_all, self._decoder, slow)
        _complete_all(self._decoder, answered)

    def _finish(self) -> Job | None:
        """Tell the queue what was done; return the job to go on with, or None: the worker is given back."""
        done, self._done = self._done, 0
        timed_out, self._timed_out = self._timed_out, 0
        return self._queue.finish(self._lane, done, timed_out)

    def _lost(self) -> None:
        """The worker is gone: what never started goes back to the queue, the rest fails, or is retried if allowed."""
        lane = self._lane
        if not lane.is_cut:
            lane.worker.await_exit()
        again: list[Job] = []
        failed: list[tuple[Job, BaseException]] = []
        for call_id, job in self._running.items():
            try:
                self._queue.may_retry(WorkerLost(lane, job.call, call_id))
            except VenvoyError as error:
                failed.append((job, error))
            else:
                failed.append((job, job.cancelled_error())) if job.is_given_up else again.append(job)
        self._running.clear()
        self._queue.discard(lane)
        self._finish()
        if again:
            self._queue.requeue(again)
        for job, reason in failed:
            job.fail(job.cancelled_error() if job.is_given_up else reason)


def _is_job(entry: object) -> bool:
    return isinstance(entry, Job)


def _complete_all(decoder: Decoder, answered: list[tuple[Job, Frame]]) -> None:
    """Complete futures, in the order of their replies; code of the user's may run here."""
    for job, frame in answered:
        try:
            decoder.complete(job, frame)
        except BaseException as error:  # whatever code of the user's raised on its way here
            job.fail(error)
