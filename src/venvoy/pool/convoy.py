"""Calls of several tasks of one event loop that are on one lane together, each sent ahead of the replies before it.

The tasks are `Rider`s. One of them leads: it reads for all, and sends what waits behind; the others sleep until their
replies are there. A `Convoy` owns the lane, and who of its riders is unanswered. Laws: the leader is one that still
waits, the last for choice, since replies come in order; a rider that leaves has its call taken back, or stopped if it
has begun; when nobody is left who waits, the collector gets the lane; everything here is done on the loop's thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic

from venvoy_worker.contract import messages
from venvoy_worker.contract.channel import Channel
from venvoy_worker.contract.frames import Frame, FrameError

from ..errors import EncodingError, ProtocolError
from ..exchange import Call, Pieces, ends
from ..workers.lane import Lane, WorkerLost
from ..workers.state import Reason
from . import ahead
from .engine import Engine
from .job_queue import JobQueue
from .port import Port
from .roster import Ticket


class TaskTicket(Ticket):
    """The ticket of a task.

    Args:
        port: of its loop.
    """

    __slots__ = ("port",)

    def __init__(self, port: Port) -> None:
        super().__init__()
        self.port = port

    def arm(self) -> None:
        """Locked: get ready to be woken."""
        self.event = self.port.bell()
        self.is_waiting = True

    def wake_again(self) -> None:
        """Ring, where somebody has been interrupted who was to: a bell takes several steps."""
        self.event.release()


class Rider(TaskTicket):
    """A task that waits for the reply to a call, which may share a lane with those of other tasks."""

    __slots__ = ("call", "convoy", "is_gone", "is_leading", "outcome")

    def __init__(self, port: Port, call: Call) -> None:
        super().__init__(port)
        self.call = call
        self.convoy: Convoy | None = None  # while its call is sent
        self.outcome: Frame | WorkerLost | EncodingError | None = None
        self.is_leading = self.is_gone = False

    def done(self, outcome: Frame | WorkerLost | EncodingError) -> None:
        """Tell the task what has become of its call."""
        self.convoy, self.outcome = None, outcome
        if self.event is not None and not self.is_gone:
            self.event.release()


Hear = Callable[[Frame, Call, int, Lane, Port], Awaitable[Frame | None]]


class Convoy:
    """See the module.

    Args:
        lane: of the leader, which rides first.
        hear: takes what a call says before its reply.
        call_soon: runs a callback on the collector thread; takes no lock.
    """

    def __init__(
        self,
        engine: Engine,
        queue: JobQueue,
        leader: Rider,
        hear: Hear,
        call_soon: Callable[[Callable[[], object]], object],
    ) -> None:
        lane = leader.lane
        assert lane is not None
        self._engine, self._queue, self._lane, self._port = engine, queue, lane, leader.port
        self._hear, self._call_soon = hear, call_soon
        self._riders: dict[int, Rider] = {}  # unanswered, in the order in which they were sent
        self._room = min(ahead.ROOM, lane.capacity)
        self._answered = 0  # calls since the pool was last told
        self._progress = 0.0  # when the last reply came
        self._is_retracting = False
        self._stopped = 0  # the call that was, last
        self._is_over = False  # the lane is somebody else's
        self._holder = holder = TaskTicket(leader.port)
        leader.is_leading = True
        leader.event = leader.event or leader.port.bell()
        holder.lane, leader.lane = lane, None  # no call in between: it is always somebody's
        leader.port.claims[holder] = lambda ticket: call_soon(self._desert)

    async def lead(self, leader: Rider) -> None:
        """Read for all until there is an answer for this rider, or it is to wait for a worker again."""
        channel, port = self._lane.channel, self._port
        try:
            if not self._riders:
                await self._send([leader, *self._more()])
            while leader.convoy is self:
                try:
                    await port.wait_readable(channel, self._patience(leader.call.deadline))
                except TimeoutError:
                    self._on_time(leader.call.deadline)
                    continue
                frame = channel.try_receive()
                while frame is not None:
                    if frame.opcode in messages.TERMINAL:
                        self._accept(frame)
                    else:
                        await self._heed(frame)
                    frame = channel.buffered()
                self._progress = monotonic()
                if self._answered > ahead.UNCOUNTED:
                    self._queue.count(self._lane, self._answered)
                    self._answered = 0
                self._stop_first()
                await self._send(self._more())
        except TimeoutError:
            raise
        except (OSError, EOFError, FrameError, ProtocolError) as error:
            self._lose(error)
        except BaseException:
            leader.convoy = self  # which it leaves, even if it has its reply and was sending for others
            raise
        self._pass_on(leader)

    def _more(self) -> list[Rider]:
        """Return waiting calls that may be sent ahead now."""
        is_to_rest = self._is_retracting or bool(self._lane.news)  # which can be long, see `_is_ours`
        most = 0 if is_to_rest else ahead.how_many(self._lane, len(self._riders))
        return self._queue.more(self._lane.worker, most, self._room, self._is_ours) if most else []

    def _is_ours(self, entry: object) -> bool:
        if not isinstance(entry, Rider) or entry.port is not self._port:
            return False
        # A long text might have to wait for a worker that waits for us.
        return self._lane.sources.has(entry.call.definition)

    async def _send(self, riders: list[Rider]) -> None:
        pieces: Pieces = []
        for rider in riders:
            rider.is_waiting = False
            if rider.is_gone:
                continue
            try:
                call_id, request = self._lane.begin(rider.call)
            except EncodingError as error:
                rider.done(error)
                continue
            rider.convoy = self
            self._riders[call_id] = rider
            self._room -= rider.call.size
            pieces += request
        if pieces:
            self._progress = monotonic()
            await send(self._lane.channel, [b"".join(pieces)] if len(pieces) > 1 else pieces, None, self._port)

    def _patience(self, deadline: float | None) -> float | None:
        """Return when something is to be done without a reply; None for never."""
        if len(self._riders) == 1 or self._is_retracting:
            return deadline
        stalled = self._progress + ahead.STALL
        return stalled if deadline is None else min(deadline, stalled)

    def _on_time(self, deadline: float | None) -> None:
        """No reply has come for a while: calls are not quick any more, so take back what has not begun.

        Raises:
            TimeoutError: it is the leader's deadline that has passed.
        """
        now = monotonic()
        if deadline is not None and now >= deadline:
            raise TimeoutError
        if now >= self._progress + ahead.STALL:
            self._lane.mean_seconds, self._progress = None, now
            started = self._lane.started
            self._retract([call_id for call_id in self._riders if call_id > started])

    def _retract(self, call_ids: list[int]) -> None:
        if call_ids:
            self._is_retracting = True
            self._lane.worker.control.say(messages.RETRACT, body=messages.pack_ids(call_ids))

    async def _heed(self, frame: Frame) -> None:
        """Take a frame that is no reply, and the reply if that came meanwhile."""
        self._lane.channel.parser.last = None
        if frame.opcode == messages.RETRACTED:
            self._take_back(messages.read_ids(frame.body))
            return
        ends(frame, 0, self._lane.last_id)  # an error, if it may not come now
        rider = self._riders.get(frame.call_id)
        if rider is None:  # of a call before ours that was given up
            return
        try:
            reply = await self._hear(frame, rider.call, frame.call_id, self._lane, self._port)
        except TimeoutError:  # its own, which is no business of who leads: its task sees to it
            return
        if reply is not None:
            self._accept(reply)

    def _accept(self, frame: Frame) -> None:
        """Take a reply."""
        self._lane.channel.parser.last = None
        rider = self._riders.pop(frame.call_id, None)
        if rider is None:  # of a call before ours that was given up
            ends(frame, 0, self._lane.last_id)
            return
        if rider.is_gone and frame.flags & messages.FLAG_DIRTY:
            self._lane.worker.reason = self._lane.worker.reason or Reason.DRAINED  # user code may still be at work
        self._room += rider.call.size
        self._answered += 1
        self._lane.note_duration(frame)
        if frame.opcode == messages.ERROR and not rider.is_gone:
            self._queue.note_failure(self._lane, rider.call)
        rider.done(frame)

    def _take_back(self, call_ids: list[int]) -> None:
        self._is_retracting = False
        back: list[Rider] = []
        for call_id in call_ids:
            rider = self._riders.pop(call_id, None)
            if rider is not None:
                self._room += rider.call.size
                rider.convoy = None
                if not rider.is_gone:
                    back.append(rider)
        if back:
            self._queue.requeue(back)
        for waiting in back:
            if waiting.call.options.queue_timeout:
                waiting.event.release()  # it has not minded its time in the queue while it was here
        self._stop_first()

    def _stop_first(self) -> None:
        """Stop the call that runs, or will be the next to do so, if nobody waits for it."""
        call_id, rider = next(iter(self._riders.items()), (0, None))
        if rider is not None and rider.is_gone and call_id != self._stopped and not self._is_over:
            self._stopped = call_id
            self._lane.stop_call(call_id)

    def leave(self, rider: Rider) -> None:
        """A rider is gone."""
        if self._is_over:
            return
        first = next(iter(self._riders.values()), None)
        if rider.is_leading and self._lane.channel.is_torn:
            self._lose(BrokenPipeError("the request before was written in part"))
        elif rider.is_leading and all(other.is_gone for other in self._riders.values()):
            pass  # nobody is left to lead
        elif rider is first:
            self._stop_first()
        else:
            self._retract([call_id for call_id, other in self._riders.items() if other is rider])
        self._pass_on(rider)

    def _pass_on(self, leader: Rider) -> None:
        """Let another rider lead; give the worker back if there is none."""
        if self._is_over or not leader.is_leading:
            return
        leader.is_leading = False
        heir = next((rider for rider in reversed(self._riders.values()) if not rider.is_gone), None)
        if heir is not None:
            heir.is_leading = True
            heir.event.release()
        elif self._riders:
            self._desert()
        else:
            self._is_over = True
            self._lane.open_call = 0
            self._queue.count(self._lane, self._answered - 1)
            self._engine.release(self._holder)
            self._port.claims.pop(self._holder, None)

    def _desert(self) -> None:
        """Nobody waits any longer: let the collector read to the end of what is unanswered."""
        if self._is_over:
            return
        call_ids, lane = list(self._riders), self._lane
        if call_ids:
            lane.open_call, lane.sent_ahead = call_ids[0], call_ids[1:]
            self._retract(call_ids[1:])
        self._give_up()

    def _lose(self, error: Exception) -> None:
        """The worker is gone: each rider sees to its call."""
        self._give_up()
        riders, self._riders = self._riders, {}
        for call_id, rider in riders.items():
            lost = WorkerLost(self._lane, rider.call, call_id)
            lost.__cause__ = error
            rider.done(lost)

    def _give_up(self) -> None:
        self._is_over = True
        self._call_soon(partial(self._queue.count, self._lane, self._answered))  # not now: it takes a lock
        self._engine.give_up(self._holder)
        self._port.claims.pop(self._holder, None)


async def send(channel: Channel, pieces: Pieces, deadline: float | None, port: Port) -> None:
    """Write the pieces of a frame whole; `Channel.send` for tasks."""
    pieces = channel.offer(pieces)
    while pieces:
        await port.wait_writable(channel.fileno_to_write(), deadline)
        pieces = channel.offer(pieces)
