"""What is said between a call and its reply: a worker asks for a function of the host's, or reports progress.

`Talk` belongs to one lane of a worker and owns the calls whose driver is busy with an answer right now, and the replies
that come to such a call meanwhile. Law: a function that answers a question may call the pool.
When no other worker is free, that call is nested: it runs on the very lane that waits for the answer, which the
context variable `serving` knows (see `nesting`). A thread reads for all the calls that it drives, so each frame goes to
its call by id.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from time import monotonic
from typing import NamedTuple, Protocol

from venvoy_worker.contract import codec, messages
from venvoy_worker.contract.channel import Channel, milliseconds
from venvoy_worker.contract.frames import Frame
from venvoy_worker.contract.loans import Loans

from ..exchange import Call, Pieces, Placed
from ..options import Progress
from .turn import Turn

_MOST_INTERLEAVED = 8  # answers within answers to other threads of the same call


class Answers:
    """What is large of the answers to one lane goes into segments.

    Args:
        loans: with the worker; None if there are none.
        index: of the lane; each numbers its questions.
    """

    def __init__(self, loans: Loans | None, index: int) -> None:
        self._loans = loans
        self._index = index

    def place(self, number: int, encoded: codec.Encoded) -> Placed:
        """Return body and buffers of the answer to a question, for `frames.pack`."""
        return encoded if self._loans is None else self._loans.lender.place(self._tag(number), *encoded)

    def withdraw(self, number: int) -> None:
        """The answer to a question was not sent, and never will be."""
        if self._loans is not None:
            self._loans.lender.take_back(self._tag(number))

    def _tag(self, number: int) -> int:
        return -2 - (self._index << 32 | number)


class Asker(Protocol):
    """A lane of a worker, as far as is needed here."""

    channel: Channel

    answers: Answers


class Serving(NamedTuple):
    """A lane whose call waits for an answer.

    Args:
        deadline: of that call.
        turn: of those that run calls there meanwhile: threads or tasks may have been started for the answer.
    """

    lane: Asker
    deadline: float | None
    turn: Turn


serving: ContextVar[tuple[Serving, ...]] = ContextVar("venvoy_serving", default=())  # outermost first


class Responder(Protocol):
    """What a pool has to say to the calls of its workers."""

    is_asked: bool
    """True when any call may have questions."""

    def answer(self, call: Call, frame: Frame, lane: Asker, is_caller: bool) -> Pieces:
        """Call the function that an ASK is for, and return the ANSWER.

        Args:
            lane: which asks.
            is_caller: this thread waits for the call, so what is meant to end the thread goes through to it.
        """

    async def answer_on_loop(self, call: Call, frame: Frame, lane: Asker) -> Pieces:
        """As `answer`, for a task that waits for the call; what the function returns is awaited if it can be."""

    def failure(self, ask: Frame, error: BaseException) -> Pieces:
        """Return the ANSWER that raises an error in the worker."""

    def report(self, call: Call, frame: Frame, is_caller: bool) -> Progress | None:
        """Return what a PROGRESS says, None if that is not to be understood, and tell whoever wants to know.

        Args:
            is_caller: tell here and now; else in the background.
        """


class Talk:
    """See the module.

    Args:
        responder: of the worker's pool.
    """

    def __init__(self, responder: Responder) -> None:
        self.responder = responder
        self.is_uninterruptible = False  # a cancellation does not end the wait for an answer there
        self._driven: dict[int, Call] = {}
        self._replies: dict[int, Frame] = {}
        self._asked: list[Frame] = []  # and not answered yet

    def hear(
        self, frame: Frame, call: Call, call_id: int, lane: Asker, send: Callable[[Pieces], object] | None = None
    ) -> Frame | None:
        """Take a frame that is not the reply to a call; return the reply if that came meanwhile.

        Args:
            call: the innermost call that this thread drives.
            send: takes the ANSWERs, if this thread is not that of whoever waits for the call.

        Raises:
            TimeoutError: the call's deadline passed meanwhile.
            OSError: the worker is gone. Besides this, what a function of the host's raises to end this thread.
        """
        if frame.opcode == messages.ASK:
            try:
                self._answer(self.asked(frame, call, call_id), (call, call_id), lane, send)
            finally:
                reply = self.answered(call_id)
            return reply
        self.note(frame, call, call_id, is_caller=send is None)
        return None

    def note(self, frame: Frame, call: Call, call_id: int, is_caller: bool = True) -> None:
        """Take a frame that is seen to later: a question by whoever answers now, a reply by `answered`."""
        if frame.opcode == messages.ASK:
            self._asked.append(frame)
            return
        owner = call if frame.call_id == call_id else self._driven.get(frame.call_id)
        if owner is None:  # of a call that was given up
            return
        if frame.opcode == messages.PROGRESS:
            self.responder.report(owner, frame, is_caller=is_caller)
        elif frame.opcode == messages.ITEMS and owner.dialogue is not None:
            owner.dialogue.items.append(frame)
        elif frame.opcode in messages.TERMINAL:
            self._replies[frame.call_id] = frame

    def write(self, pieces: Pieces, channel: Channel, deadline: float | None, call: Call, call_id: int) -> None:
        """Write to a worker that may be writing, too, and reads on only once that has been read.

        Such is one whose call has ended while threads of its own still wait for answers.

        Args:
            call: the innermost call that this thread drives.

        Raises:
            As `Channel.send`; besides this, FrameError, as whoever reads is used to.
        """
        pieces = channel.offer(pieces)
        while pieces:
            left = None if deadline is None else milliseconds(deadline - monotonic())
            if not poll_of(channel, for_room=True).poll(left) and deadline is not None and monotonic() >= deadline:
                raise TimeoutError
            try:
                frame = channel.try_receive()
            except EOFError:
                raise BrokenPipeError from None
            while frame is not None:
                self.note(frame, call, call_id)
                frame = channel.buffered()
            pieces = channel.offer(pieces)

    def asked(self, ask: Frame, call: Call, call_id: int) -> Iterator[tuple[Call, Frame]]:
        """Take an ASK; yield what is to be answered now, each with its call. `answered` has to follow.

        While a nested call is waited for, other threads of the outer calls may ask too. They are answered within it, up
        to a depth that no chain of such accidents exceeds; then they are put off until it is done.

        Args:
            call: the innermost call that is driven here.
        """
        self._driven[call_id] = call
        self._asked.append(ask)
        return self._questions(call_id, len(serving.get()) >= _MOST_INTERLEAVED)

    def _questions(self, call_id: int, is_deep: bool) -> Iterator[tuple[Call, Frame]]:
        while True:
            ask = next((ask for ask in self._asked if not is_deep or ask.call_id == call_id), None)
            if ask is None:
                return
            self._asked.remove(ask)
            owner = self._driven.get(ask.call_id)
            if owner is not None:  # else of a call that was given up
                yield owner, ask

    def answered(self, call_id: int) -> Frame | None:
        """Go on after answers; return the reply if that came meanwhile."""
        self._driven.pop(call_id, None)
        return self._replies.pop(call_id, None)

    def _answer(
        self,
        questions: Iterator[tuple[Call, Frame]],
        driven: tuple[Call, int],
        lane: Asker,
        send: Callable[[Pieces], object] | None,
    ) -> None:
        chain = serving.get()
        for owner, ask in questions:
            token = serving.set((*chain, Serving(lane, owner.deadline, Turn())))
            try:
                pieces = self.responder.answer(owner, ask, lane, is_caller=send is None)
                if send is None and owner.deadline is not None and monotonic() >= owner.deadline:
                    raise TimeoutError
            except BaseException:
                lane.answers.withdraw(ask.number)
                if self.is_uninterruptible:
                    self.refuse(ask, lane.channel)
                raise
            finally:
                serving.reset(token)
            if send is None:
                self.write(pieces, lane.channel, owner.deadline, *driven)
            else:
                send(pieces)

    def report(self, frame: Frame, owner: Call) -> Progress | None:
        """Return what a PROGRESS says, and tell whoever wants to know, in the background."""
        return self.responder.report(owner, frame, is_caller=False)

    def refuse(self, ask: Frame, channel: Channel) -> bool:
        """Answer a call that goes on unseen and must not wait for ever; return False if that cannot be written."""
        pieces = self.responder.failure(ask, RuntimeError("nobody waits for this call any more"))
        return not channel.offer(pieces)

    def forget(self) -> None:
        """The calls have been given up."""
        self._driven.clear()
        self._replies.clear()
        self._asked.clear()


def poll_of(channel: Channel, for_room: bool = False) -> select.poll:
    """Return what waits until a channel can be read, or `for_room`, until it can be read or written to."""
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    if for_room:
        is_one = channel.fileno() == channel.fileno_to_write()  # a socket, and what is registered last counts
        poll.register(channel.fileno_to_write(), select.POLLOUT | (select.POLLIN if is_one else 0))
    return poll
