"""One call on one worker as a state machine without I/O: frames in, events out.

A driver (a blocked caller, a queue thread, the collector for an exchange whose driver left) moves the bytes and asks
here what they mean. Laws: an exchange ends exactly once, by the terminal frame with its own id; before that, its
interim frames (`messages.INTERIM`) are for `talk`; a frame of another exchange that was begun here is discarded, one of
an exchange that never was is a protocol error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from venvoy_worker.contract import codec, frames, messages
from venvoy_worker.contract.frames import Frame
from venvoy_worker.contract.loans import Loans

from .errors import CallTimeout, ProtocolError
from .options import CallOptions, Progress

if TYPE_CHECKING:
    from venvoy_worker.contract.frames import Part

_SMALL = 4096  # bytes of target and body
_MOST_SOURCES = 256  # texts a worker holds at a time
Pieces = list[bytes | bytearray | memoryview]
Placed = tuple[Sequence[bytes | bytearray | memoryview], Sequence["Part"]]  # body and buffers, for `frames.pack`
Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Definition:
    """Source text that a worker needs before it can run a call: (digest, text, file name, values)."""

    digest: str
    text: str
    filename: str
    values: dict[str, Any]

    def pieces(self, forgotten: list[str]) -> Pieces:
        """Return the DEFINE frame; `forgotten` are digests the worker may drop."""
        target = " ".join([self.digest, *forgotten]).encode()
        return frames.pack(messages.DEFINE, codec=codec.PICKLE, target=target, body=[self.encoded()])

    def encoded(self) -> bytes:
        """Return the body of DEFINE."""
        return codec.encode_inline((self.text, self.filename, self.values))


class SourceMemory:
    """Which source texts one worker has been sent; it is told to forget the oldest when there are too many."""

    def __init__(self) -> None:
        self._digests: dict[str, None] = {}  # the last used is last

    def pieces_for(self, definition: Definition) -> Pieces:
        """Return what the worker must be told before a call of this text: nothing, the second time."""
        known = self._digests
        if definition.digest in known:
            known[definition.digest] = known.pop(definition.digest)
            return []
        forgotten = list(known)[: max(0, len(known) + 1 - _MOST_SOURCES)]
        pieces = definition.pieces(forgotten)
        for digest in forgotten:
            del known[digest]
        known[definition.digest] = None
        return pieces


@runtime_checkable
class Closing(Protocol):
    """What draws from an iterator among the arguments."""

    is_drawn: bool

    def close(self) -> object:
        """Nobody will draw any more."""

    async def aclose(self) -> object:
        """As `close`, where that has to be awaited."""


@dataclass(slots=True)
class Dialogue:
    """What can be said between a call and its reply; a plain call has none.

    Args:
        passed: functions of the host's that are among the arguments, by their number.
        items: frames of a stream that came while another was read for, or while its consumer was interrupted.
        news: the newest progress, until `on_progress` has been told of it.
        listener: told of progress besides that, by whoever reads; it must not block.
    """

    passed: list[Any] = field(default_factory=list)
    items: deque[Frame] = field(default_factory=deque)
    news: deque[Progress] = field(default_factory=lambda: deque(maxlen=1))
    listener: Callable[[Progress], object] | None = None

    def close(self) -> None:
        """The call has ended, or nobody waits for it any more: close the iterators among its arguments."""
        for function in self.passed:
            if isinstance(function, Closing):
                function.close()

    async def aclose(self) -> None:
        """As `close`: those that have to be awaited."""
        for function in self.passed:
            if isinstance(function, Closing):
                await function.aclose()

    @property
    def is_drawn(self) -> bool:
        """True when an iterator among the arguments has given something, which it cannot give again."""
        return any(isinstance(function, Closing) and function.is_drawn for function in self.passed)


class Call:
    """One unit of work, encoded, before it has a worker.

    Args:
        name: what to show for its target.
        flags: kind of target, and whether the body is a chunk.
        target: as it goes into the frame.
        body, buffers: the encoded arguments.
        definition: source text it needs, if any.
        options: of this call.

    `convert` makes of the result what the caller asked for, None leaves it as it is; `dialogue` is None where nothing
    but the reply is expected; `reply` is what a blocked caller got, for those who are interrupted before they can look
    at it; `keeps` is what has to live until the call has ended; `attempts` counts those that have failed.
    """

    # Of the class, so that the calls that have nothing of the kind do not pay for it.
    deadline: float | None = None
    attempts = 0
    convert: Convert | None = None
    dialogue: Dialogue | None = None
    reply: Frame | None = None
    keeps: object = None
    _small = b""  # target and body together, of a call that fits into one small piece

    def __init__(
        self,
        name: str,
        flags: int,
        target: bytes,
        encoded: codec.Encoded,
        definition: Definition | None = None,
        options: CallOptions = CallOptions(),  # noqa: B008 - it is frozen
    ) -> None:
        self.name = name
        self.flags = flags
        self.target = target
        self.body, self.buffers = encoded
        self.definition = definition
        self.options = options
        self.retries = options.retries
        if options.timeout is not None:
            self.deadline = monotonic() + options.timeout
        if options.on_progress is not None:
            self.dialogue = Dialogue()
        if len(self.body) == 1 and not self.buffers:
            self.size = len(target) + len(self.body[0])
            if self.size <= _SMALL:
                self._small = target + self.body[0]
        else:
            self.size = len(target) + sum(map(len, self.body)) + sum(map(len, self.buffers))

    def request(self, call_id: int, loans: Loans | None = None, flags: int = 0) -> Pieces:
        """Return the CALL frame under the id it has on one worker.

        Args:
            loans: with that worker; what is large goes into them.
            flags: come to those of the call.
        """
        remaining = 0
        if self.deadline is not None:
            remaining = min(max(1, int((self.deadline - monotonic()) * 1000)), 0xFFFFFFFF)
        flags |= self.flags
        body: Sequence[bytes | bytearray | memoryview] = self.body
        buffers: Sequence[Part] = self.buffers
        if loans is not None and (buffers or self.size >= loans.lender.least):
            body, buffers = loans.lender.place(call_id, body, self.buffers)
        elif self._small:
            size = len(self.target)
            return frames.pack_small(messages.CALL, flags, codec.PICKLE, call_id, remaining, size, self._small)
        return frames.pack(messages.CALL, flags, codec.PICKLE, 0, call_id, remaining, self.target, body, buffers)

    def may_repeat(self, error: BaseException) -> bool:
        """Return True, having counted the attempt, if the call is to be run again after this error of its own."""
        if self.can_repeat and isinstance(error, self.options.retry_on):  # () is none
            self.retries -= 1
            return True
        return False

    @property
    def can_repeat(self) -> bool:
        """True when it has attempts left, and arguments."""
        return self.retries > 0 and not (self.dialogue is not None and self.dialogue.is_drawn)

    def timeout_error(self) -> CallTimeout:
        """Return the error of a call whose deadline passed."""
        return CallTimeout(f"{self.name} did not finish before its deadline")


def ends(frame: Frame, call_id: int, newest: int) -> bool:
    """Return True when a frame of the call channel ends the exchange of that id.

    Else it is interim, or of another exchange, or to be passed over; see `talk`.

    Args:
        call_id: the number of the call on its worker.
        newest: the largest there is.

    Raises:
        ProtocolError: the worker may not send this now.
    """
    if frame.opcode in messages.TERMINAL:
        if frame.call_id == call_id:
            return True
        if frame.call_id <= newest:
            return False  # of an exchange that was given up, or of one around this
    elif frame.opcode in messages.INTERIM or frame.opcode == messages.RETRACTED:
        return False
    raise ProtocolError(f"unexpected {frame!r} while waiting for call {call_id}")
