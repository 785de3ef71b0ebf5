"""`Stream`: what a generator in a worker yields, while it runs. The blocking driver of a streamed call.

A stream owns the lane that its call runs on, through a `Seat`, from its making to its end. Laws: whoever asks for an
item reads the channel; an end, of whatever kind, comes after the items before it; a stream that is left early leaves
the rest to the collector, and takes no lock for it, since a finalizer may do so.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Protocol, Self

from venvoy_worker.contract import messages
from venvoy_worker.contract.channel import PIPE_SIZE
from venvoy_worker.contract.frames import Frame, FrameError

from ..errors import EncodingError, ProtocolError
from ..exchange import Call, Dialogue, ends
from ..pool.core import Core
from ..pool.roster import Ticket
from ..processes.posix import resize_if_pipe
from ..workers.lane import Lane, WorkerLost
from .flow import Flow

_WIDE = 1 << 20  # bytes that a pipe takes which large items come through


class Seat(Protocol):
    """Where a stream has its lane from, and gives it back to."""

    def take(self, call: Call) -> Lane:
        """Wait for the lane; it is the stream's from then on."""

    def give_back(self) -> None:
        """The call has ended."""

    def leave(self) -> None:
        """The call is to be stopped, behind the consumer's back. Takes no lock."""

    def lose(self, lost: WorkerLost, may_repeat: bool) -> None:
        """The worker is gone; return if the call may be run again.

        Raises:
            WorkerCrashed, PoolClosed: it may not.
        """


class AnyStream:
    """What streams have in common, whoever waits: what is done with a frame, and how they end.

    Args:
        core: the pool.
        seat: where its lane comes from.
        call: what is run.
        owner: what has to live as long as the stream.
    """

    _lane: Lane

    def __init__(self, core: Core, seat: Seat, call: Call, owner: object) -> None:
        self._is_open = False
        self._core, self._seat, self._call, self._owner = core, seat, call, owner
        call.flags |= messages.FLAG_STREAM
        self._dialogue = call.dialogue = call.dialogue or Dialogue()
        self._batch: Iterator[Any] = iter(())
        self._flow = Flow()
        self._is_wide = False
        self._call_id = 0

    def _items(self, frame: Frame) -> Iterator[Any]:
        items = self._core.decoder.arguments(frame, "a stream's items")
        return iter(items) if self._call.convert is None else map(self._call.convert, items)

    def _grant(self, is_waiting: bool) -> None:
        """Tell the worker how far it may go on, if it is time to.

        Args:
            is_waiting: the consumer has taken all that came.
        """
        lane, credit = self._lane, self._flow.credit(is_waiting)
        if credit is None:
            return
        lane.worker.loans.borrower.give_back()  # segments of dropped items serve what comes
        if self._flow.is_large and not self._is_wide:
            self._is_wide = True
            resize_if_pipe(lane.channel.fileno(), _WIDE)
        lane.worker.control.say(messages.CREDIT, self._call_id, credit)

    def _end(self, frame: Frame) -> None:
        """The call has ended: give the worker back, and raise what it raised."""
        lane = self._lane
        if self._is_wide:
            self._is_wide = False
            resize_if_pipe(lane.channel.fileno(), PIPE_SIZE)  # the pipes of one user share a limit
        lane.open_call = 0
        lane.channel.parser.last = None
        lane.note_duration(frame)
        if frame.opcode == messages.ERROR:
            self._core.queue.note_failure(lane, self._call)
        self._seat.give_back()
        self._is_open = False  # now: an interrupt before this leaves once more, which does no harm
        self._dialogue.close()
        if frame.opcode == messages.ERROR:
            raise self._core.decoder.outcome(frame)[1] or EncodingError("the stream ended with an unknown error")

    def close(self) -> None:
        """Leave early: the generator is closed in the worker, which runs its `finally`. A second time does nothing."""
        if self._is_open:
            self._seat.leave()
            self._is_open = False
            self._batch = iter(())
            self._dialogue.close()

    def __del__(self) -> None:
        try:
            self.close()
        finally:
            self.close()  # Python goes on after an interrupt in a finalizer, so there is nobody else to do it

    def __repr__(self) -> str:
        return f"<venvoy.Stream of {self._call.name}, {'open' if self._is_open else 'ended'}>"


class Stream(AnyStream, Iterator[Any]):
    """An iterator over what a call in a worker yields; made by `stream()` of pools, leases and named workers.

    It holds a worker until it is exhausted or closed: `with`, `close()`, or dropping it. Closing it early runs the
    generator's `finally` in the worker.

    Args:
        core: the pool.
        seat: where its lane comes from.
        call: what is run.
        owner: what has to live as long as the stream.
    """

    def __init__(self, core: Core, seat: Seat, call: Call, owner: object) -> None:
        super().__init__(core, seat, call, owner)
        self._turn = threading.Lock()  # one thread at a time asks for more
        self._begin()

    def _begin(self) -> None:
        self._flow = Flow()
        self._call_id = 0
        self._is_open = True
        try:
            self._lane = self._seat.take(self._call)
            self._call_id, pieces = self._lane.begin(self._call)
            self._lane.channel.send(pieces, self._call.deadline)
        except (OSError, FrameError) as error:
            self._on_error(error)
            self._begin()
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        for item in self._batch:
            return item
        return self._more()

    def _more(self) -> Any:
        """Return the first item of the next frame.

        Raises:
            StopIteration: there is none.
        """
        if not self._turn.acquire(False):
            raise ValueError(
                "another thread, or a function that the worker calls, is at the stream's next item already"
            )
        try:
            while self._is_open:
                frame = self._next_frame()
                if frame is None:
                    self._begin()
                elif frame.opcode == messages.ITEMS:
                    self._batch = iter(self._items(frame))
                    for item in self._batch:
                        return item
                else:
                    self._end(frame)
        except BaseException:
            self.close()
            raise
        finally:
            self._turn.release()
        raise StopIteration

    def _next_frame(self) -> Frame | None:
        """Return the next frame of items, or the reply; None when the call has to be begun again."""
        lane, call, items = self._lane, self._call, self._dialogue.items
        try:
            while True:
                frame = items.popleft() if items else lane.channel.buffered()
                self._grant(is_waiting=frame is None)
                frame = frame or lane.channel.receive(call.deadline)
                if frame is None:
                    raise WorkerLost(lane, call, self._call_id)
                if frame.opcode == messages.ITEMS and frame.call_id == self._call_id:
                    self._flow.came(frame)
                    return frame
                if not ends(frame, self._call_id, lane.last_id):
                    frame = lane.talk.hear(frame, call, self._call_id, lane)
                if frame is not None:
                    return frame
        except (OSError, FrameError, ProtocolError, WorkerLost) as error:
            self._on_error(error)
            return None

    def _on_error(self, error: Exception) -> None:
        """Return if the call may be run again.

        Raises:
            CallTimeout: its deadline has passed.
            WorkerCrashed, PoolClosed: the worker is gone.
        """
        if isinstance(error, TimeoutError):
            self.close()
            raise self._core.engine.timed_out(self._call, error) from None
        lost = error if isinstance(error, WorkerLost) else WorkerLost(self._lane, self._call, self._call_id)
        self._seat.lose(lost, may_repeat=not self._flow.has_begun)
        self._is_open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class PoolSeat:
    """A worker of a pool, as for a call.

    Args:
        core: the pool.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self.ticket = Ticket()

    def take(self, call: Call) -> Lane:
        """Wait for a worker."""
        self.ticket = Ticket()
        return self._core.engine.acquire(self.ticket, call)

    def give_back(self) -> None:
        """Give it to others."""
        self._core.engine.release(self.ticket)

    def leave(self) -> None:
        """Let the collector stop the call, and then give the worker to others."""
        self._core.engine.give_up(self.ticket)

    def lose(self, lost: WorkerLost, may_repeat: bool) -> None:
        """The worker is gone; return if the call may be run again."""
        self._core.engine.astray.append(self.ticket)
        if not may_repeat:
            lost.call.retries = 0
        self._core.engine.leave(lost)
