"""Calls on an event loop: the waiting of `engine` and `Lane.run` without a thread, on a `Port`.

What is decided is decided there; here is only how a task waits. A task that leaves, cancelled or not, does as a thread
that is interrupted: its ticket goes astray, and the collector mends the rest.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from time import monotonic
from typing import Any

from venvoy_worker.contract import messages
from venvoy_worker.contract.frames import Frame, FrameError

from ..aio.latch import Latch
from ..errors import ProtocolError
from ..exchange import Call, Dialogue, Pieces, ends
from ..workers.lane import Lane, WorkerLost
from ..workers.nesting import Place
from ..workers.post_mortem import crash_error
from ..workers.talk import Serving, serving
from ..workers.turn import Turn
from ..workers.worker import EXIT_SECONDS, Worker
from . import ahead
from .calls import Later
from .convoy import Convoy, Rider, TaskTicket, send
from .engine import Engine
from .job_queue import JobQueue
from .jobs import CallFuture, Watcher
from .mapping import Mapping
from .opening import Opening
from .port import Port
from .roster import Ticket

_FOR_EVER: tuple[float | None, Callable[[], BaseException]] = (None, TimeoutError)  # patience, and what comes after it
_SMALL = 4096  # bytes that a channel takes at once, on which nothing is on its way


class AsyncCalls:
    """See the module.

    Args:
        engine, queue: decide.
        opening: opens the pool.
        pool: has the decoder, once it is open.
    """

    def __init__(self, engine: Engine, queue: JobQueue, opening: Opening, pool: Later) -> None:
        self._engine = engine
        self._queue = queue
        self._opening = opening
        self._pool = pool

    async def result(self, call: Call, run: Callable[[Call, Port], Awaitable[Frame]], port: Port) -> Any:
        """Run a call, as often as its options say, and return its result; `calls.result_of` for tasks.

        Args:
            run: runs it once and returns its reply.

        Raises:
            As `run`; besides this, what the call raises.
        """
        try:
            while True:
                value, error = self._pool.decoder.outcome(await run(call, port), call.convert)
                if error is None:
                    return value
                if not call.may_repeat(error):
                    raise error
        finally:
            if call.dialogue is not None:
                await close(call.dialogue)

    async def run(self, call: Call, port: Port) -> Frame:
        """Run a call on a worker and return its reply; as `Engine.run`."""
        engine = self._engine
        may_share = call.dialogue is None and call.options.on_timeout == "cancel"
        while True:
            ticket = Rider(port, call) if may_share else TaskTicket(port)
            port.claims[ticket] = engine.give_up
            try:
                lane = engine.ask(ticket, call, may_nest=True)
                if lane is None:
                    got = await (self._ride(ticket) if isinstance(ticket, Rider) else self._granted(ticket, call))
                    if isinstance(got, Frame):
                        return got
                    lane = got
                elif isinstance(lane, Place):
                    return await self._within(lane, call, port)
                frame = await drive(lane, call, port)
                if frame.opcode == messages.ERROR:
                    self._queue.note_failure(lane, call)
                engine.release(ticket)
                return frame
            except WorkerLost as lost:
                engine.give_up(ticket)
                await exit_of(lost.worker, port)
                self._queue.may_retry(lost)
            except BaseException as error:
                self._leave(ticket, call, error)
                raise
            finally:
                port.claims.pop(ticket, None)

    async def _ride(self, rider: Rider) -> Frame | Lane:
        """Wait in the queue; return the reply to the call, if it is sent together with those of others, else a lane."""
        call, queue = rider.call, self._queue
        is_timed = call.deadline is not None or bool(call.options.queue_timeout)
        while rider.outcome is None:
            lane = rider.lane
            if lane is not None:
                if not queue.may_add(lane.worker, call):
                    return lane
                rider.convoy = Convoy(self._engine, queue, rider, hear, self._pool.call_soon)
            if rider.is_leading and rider.convoy is not None:
                await rider.convoy.lead(rider)
            else:
                patience, error = self._engine.patience(call) if is_timed else _FOR_EVER
                if is_timed and rider.convoy is not None:  # it is no more in the queue
                    patience = None if call.deadline is None else call.deadline - monotonic()
                self._heed(rider, await rider.event.wait(patience), error)
        if isinstance(rider.outcome, Exception):
            raise rider.outcome
        return rider.outcome

    def _heed(self, rider: Rider, is_rung: bool, error: Callable[[], BaseException]) -> None:
        """Go on after a rider's wait, for a lane or for its reply.

        Raises:
            TimeoutError: its deadline passed. Besides this, as `Engine.acquire`.
        """
        if rider.convoy is not None or rider.outcome is not None:
            deadline = rider.call.deadline
            if not is_rung and deadline is not None and rider.outcome is None and monotonic() >= deadline:
                raise TimeoutError
        elif not (is_rung and rider.is_waiting):  # else it was rung for what is past
            self._engine.granted(rider, None if is_rung else error)

    async def run_on(self, ticket: Ticket, call: Call, port: Port) -> Frame:
        """Run a call on the lane that a ticket holds and goes on holding; as `Engine.run_on`."""
        lane = ticket.lane
        assert lane is not None
        if call.deadline is not None and monotonic() >= call.deadline:
            raise self._engine.timed_out(call, TimeoutError())  # it has not begun, which costs nobody the worker
        try:
            frame = await drive(lane, call, port)
            self._engine.note_done(lane, call, frame)
            return frame
        except WorkerLost as lost:
            self._engine.give_up(ticket)
            await exit_of(lost.worker, port)
            raise crash_error(lost) from None
        except BaseException as error:
            self._leave(ticket, call, error)
            raise

    async def run_within(self, place: Place, call: Call, port: Port) -> Frame:
        """Run a call on a worker that waits for an answer of this task; as `Engine.run_within`."""
        try:
            return await self._within(place, call, port)
        except WorkerLost as lost:
            await exit_of(lost.worker, port)
            raise crash_error(lost) from None
        except TimeoutError as error:
            raise self._engine.timed_out(call, error) from None

    async def acquire(self, ticket: Ticket, call: Call) -> Lane:
        """Wait for a lane and return it; as `Engine.acquire`."""
        try:
            return self._engine.ask(ticket, call) or await self._granted(ticket, call)
        except BaseException:
            self._engine.give_up(ticket)
            raise

    async def warm(self, workers: int | None, port: Port) -> int:
        """As `Opening.warm`."""
        ticket = TaskTicket(port)
        try:
            self._opening.ask(ticket, workers)
            if ticket.event is not None:
                await ticket.event.wait(None)
        finally:
            self._opening.leave(ticket)
        return self._opening.ready(ticket)

    def ticket(self, port: Port) -> TaskTicket:
        """Return a ticket for the running task, which is given up should its loop end first."""
        ticket = TaskTicket(port)
        port.claims[ticket] = self._engine.give_up
        return ticket

    async def _granted(self, ticket: Ticket, call: Call) -> Lane:
        bell: Any = ticket.event
        patience, error = self._engine.patience(call)
        return self._engine.granted(ticket, None if await bell.wait(patience) else error)

    async def _within(self, place: Place, call: Call, port: Port) -> Frame:
        """Run a call on a worker that waits for an answer of this task, or of one that it started; when it is its turn.

        Raises:
            As `Place.run`.
        """
        ticket, deadline = TaskTicket(port), place.deadline_of(call)
        try:
            patience = None if deadline is None else deadline - monotonic()
            if not place.turn.take(ticket) and not await ticket.event.wait(patience):
                raise TimeoutError
            return await drive_within(place, call, port)
        finally:
            place.turn.leave(ticket)

    def _leave(self, ticket: Ticket, call: Call, error: BaseException) -> None:
        """Let go of whatever a ticket has, because of an error.

        Raises:
            CallTimeout: in the place of a `TimeoutError`.
        """
        is_late = isinstance(error, TimeoutError)
        ticket.is_to_stop = not is_late or call.options.on_timeout == "cancel"
        if isinstance(ticket, Rider):
            ticket.is_gone = True  # a convoy may find it in the queue before the collector takes it out
        if isinstance(ticket, Rider) and ticket.convoy is not None:
            ticket.convoy.leave(ticket)
        else:
            self._engine.give_up(ticket)
        if is_late:
            raise self._engine.timed_out(call, error) from None


async def arriving(mapping: Mapping, port: Port) -> AsyncIterator[Any]:
    """Yield the results of a mapping that was begun; `Mapping.results` for tasks."""
    results = mapping.results()
    try:
        while True:
            futures = mapping.awaited()
            if futures:
                await first_done(futures, mapping.patience(), port)
            try:
                value = next(results)  # which waits no longer
            except StopIteration:
                return
            yield value
    finally:
        results.close()
        mapping.cancel()  # `results` may not have begun


async def first_done(futures: list[CallFuture], seconds: float | None, port: Port) -> None:
    """Wait until one of these is done, or for so many seconds."""
    bell = port.bell()
    watcher = Watcher(bell.release)
    try:
        if not watcher.watch(futures):
            await bell.wait(seconds)
    finally:
        watcher.leave(futures)


async def drive(lane: Lane, call: Call, port: Port) -> Frame:
    """Run a call on a lane that is ours and return its reply: `Lane.run` for tasks.

    Raises:
        TimeoutError: the call's deadline passed. The lane has to be settled then, as after any error.
        WorkerLost: the worker is gone, or this channel is broken.
    """
    call_id, pieces = lane.begin(call)
    channel, deadline = lane.channel, call.deadline
    try:
        if len(pieces) == 1 and len(pieces[0]) <= _SMALL:
            channel.send(pieces)
        else:
            await send(channel, pieces, deadline, port)
        reply = await reply_to(call, call_id, lane, deadline, port)
        lane.open_call, channel.parser.last = 0, None
        lane.note_duration(reply)
        return reply
    except TimeoutError:
        raise
    except (OSError, EOFError, FrameError, ProtocolError) as error:
        raise WorkerLost(lane, call, call_id) from error


async def drive_within(place: Place, call: Call, port: Port) -> Frame:
    """Run a call within another and return its reply; `Place.run` for tasks."""
    lane, deadline = place.lane, place.deadline_of(call)
    call_id, pieces = lane.begin(call, is_nested=True)
    try:
        await write(pieces, lane, deadline, call, call_id, port)
        return await reply_to(call, call_id, lane, deadline, port)
    except TimeoutError:
        if call.options.on_timeout == "cancel":
            lane.stop_call(call_id)
        raise
    except (OSError, EOFError, FrameError, ProtocolError) as error:
        raise WorkerLost(lane, call, call_id) from error
    except BaseException:
        lane.stop_call(call_id)
        raise


async def reply_to(call: Call, call_id: int, lane: Lane, deadline: float | None, port: Port) -> Frame:
    """Read until the reply is there, and return it.

    Raises:
        TimeoutError, OSError, EOFError, FrameError, ProtocolError: as whoever reads is used to.
    """
    channel = lane.channel
    frame = channel.buffered()
    while True:
        while frame is not None:
            if ends(frame, call_id, lane.last_id):
                return frame
            reply = await hear(frame, call, call_id, lane, port)
            if reply is not None:
                return reply
            frame = channel.buffered()
        await port.wait_readable(channel, deadline)
        frame = channel.try_receive()


async def hear(frame: Frame, call: Call, call_id: int, lane: Lane, port: Port) -> Frame | None:
    """Take a frame that is not the reply; return the reply if that came meanwhile. `Talk.hear` for tasks."""
    talk, chain = lane.talk, serving.get()
    if frame.opcode != messages.ASK:
        return talk.hear(frame, call, call_id, lane)
    try:
        for owner, ask in talk.asked(frame, call, call_id):
            token = serving.set((*chain, Serving(lane, owner.deadline, Turn())))
            try:
                answer = talk.responder.answer_on_loop(owner, ask, lane)
                pieces = await (answer if owner.deadline is None else port.until(owner.deadline, answer))
                if owner.deadline is not None and monotonic() >= owner.deadline:
                    raise TimeoutError
            except BaseException:
                lane.answers.withdraw(ask.number)
                raise
            finally:
                serving.reset(token)
            await write(pieces, lane, owner.deadline, call, call_id, port)
    finally:
        reply = talk.answered(call_id)
    return reply


async def write(pieces: Pieces, lane: Lane, deadline: float | None, call: Call, call_id: int, port: Port) -> None:
    """Write to a worker that may be writing, too; `Talk.write` for tasks."""
    channel = lane.channel
    pieces = channel.offer(pieces)
    while pieces:
        stalled = monotonic() + ahead.STALL  # a port waits for one of the two at a time
        try:
            await port.wait_writable(channel.fileno_to_write(), stalled if deadline is None else min(stalled, deadline))
        except TimeoutError:
            if deadline is not None and monotonic() >= deadline:
                raise
            frame = channel.try_receive()
            while frame is not None:
                lane.talk.note(frame, call, call_id)
                frame = channel.buffered()
        pieces = channel.offer(pieces)


async def close(dialogue: Dialogue) -> None:
    """The call has ended: close the iterators among its arguments, asynchronous ones too."""
    dialogue.close()
    if not isinstance(sys.exc_info()[1], GeneratorExit):  # then nothing can be awaited any more
        await dialogue.aclose()


async def exit_of(worker: Worker, port: Port) -> None:
    """Wait for the exit of a lost worker to be seen, and make sure there is one; `Worker.await_exit` for tasks."""
    if not await reached(worker.process.exited, EXIT_SECONDS, port):
        worker.process.kill_tree()  # alive with a broken channel: of no use to anybody
        await reached(worker.process.exited, EXIT_SECONDS, port)


async def reached(latch: Latch, seconds: float | None, port: Port) -> bool:
    """Wait for a latch; return False when the time passes first."""
    bell = port.bell()
    latch.tell(bell.release)
    return await bell.wait(seconds)
