"""The wire format: one frame = header, target, buffer table, body, inline buffers. No I/O here.

Everything is little-endian. The parser owns its receive buffer and nothing else: whoever does the I/O asks
`writable()` where the next bytes belong, says in `counts` how many came, and takes whole frames with
`next_frame()`. Law: a parser that raised `FrameError` is finished, since nothing after a bad byte has a meaning.
"""

from __future__ import annotations

import _struct
import mmap

PROTOCOL_VERSION = 1
OLDEST_PROTOCOL = 1
GREETING_VERSION = (
    1  # in the header of HELLO and of its answer, for ever, so that any two versions can refuse each other
)

HEADER = _struct.Struct("<BBBBIQIIIQ")
HEADER_SIZE = HEADER.size  # 36
ENTRY = _struct.Struct("<IIQQ")  # one row of the buffer table: kind, segment, offset, length
BUFFER_INLINE = 0
BUFFER_SEGMENT = 1  # in a segment
BUFFER_BODY = 2  # no buffer but the body, in a segment
SEGMENT_GIVEN = 1  # flag of SEGMENT: it is used for one frame, and belongs to whoever receives that
SEGMENT_SHARED = 8  # flag of SEGMENT, with GIVEN: it is shared memory, whose bytes every process is to see
SEGMENT_KEPT = 2  # flag of SEGMENT_FREE: the borrower keeps these for good
SEGMENT_GONE = 4  # flag of SEGMENT_FREE: it is the lender who speaks, and has given these up
LANE_SHIFT = 48  # of a call id: from this bit on it is the number of the channel, among several to one worker

_VERSIONS = (PROTOCOL_VERSION, GREETING_VERSION)

MAX_TARGET = 1 << 16
MAX_BUFFERS = 1 << 20
MAX_FRAME = 1 << 42  # 4 TiB: larger than any machine, small enough that sums cannot overflow

_LARGE = 1 << 20  # received pieces from here on are memory maps: no byte of them is touched twice
SMALL_BODY = 1 << 17  # bodies up to this size are bytes that can be searched, wherever they were
SMALL = 1 << 16  # frames up to this size are collected in the reused receive buffer


class FrameError(Exception):
    """Bytes that no frame can begin with, or sizes beyond the limits."""


class Stretch:
    """A part of a frame that lies in a segment: what its row in the buffer table says."""

    __slots__ = ("row",)

    def __init__(self, kind: int, segment: int, offset: int, length: int) -> None:
        self.row = ENTRY.pack(kind, segment, offset, length)


class Unavailable(bytearray):
    """The reason, as text, in place of a part that is in a segment which this side could not map."""


class Frame:
    """One frame, as sent or received; see docs/protocol.md for the meaning of each field."""

    __slots__ = ("body", "buffers", "call_id", "codec", "epoch", "flags", "number", "opcode", "target")

    def __init__(
        self,
        opcode: int,
        flags: int,
        codec: int,
        epoch: int,
        call_id: int,
        number: int,
        target: bytes | bytearray,
        body: Body,
        buffers: list[Buffer],
    ) -> None:
        self.opcode = opcode
        self.flags = flags
        self.codec = codec
        self.epoch = epoch
        self.call_id = call_id
        self.number = number
        self.target = target
        self.body = body
        self.buffers = buffers

    def __repr__(self) -> str:
        return "<Frame op=%d id=%d target=%r body=%d buffers=%d>" % (
            self.opcode,
            self.call_id,
            self.target,
            len(self.body),
            len(self.buffers),
        )


def pack(
    opcode: int,
    flags: int = 0,
    codec: int = 0,
    epoch: int = 0,
    call_id: int = 0,
    number: int = 0,
    target: bytes = b"",
    body: _Pieces = (),
    buffers: Sequence[Part] = (),
) -> list[bytes | bytearray | memoryview]:
    """Return the byte pieces of one frame, in order, without copying large ones.

    Args:
        body: the body as a sequence of bytes-like pieces.
        buffers: out-of-band buffers (contiguous, one byte per item), sent inline after the body; and stretches of
            segments, which have been sent already.

    Raises:
        FrameError: the target or the number of buffers is beyond the limits.
    """
    if len(target) > MAX_TARGET or len(buffers) > MAX_BUFFERS:
        raise FrameError("target of %d bytes, %d buffers: too many" % (len(target), len(buffers)))
    size = len(body[0]) if len(body) == 1 else sum([len(piece) for piece in body])
    head = HEADER.pack(opcode, flags, codec, PROTOCOL_VERSION, epoch, call_id, number, len(target), len(buffers), size)
    if size <= SMALL and not buffers:
        return [b"".join((head, target, *body))]
    return _pieces_of(head + target, size, body, buffers)


def pack_small(
    opcode: int, flags: int, codec: int, call_id: int, number: int, target_size: int, rest: bytes
) -> list[bytes | bytearray | memoryview]:
    """Return what `pack` would for a small frame without buffers, whose target and body are together in `rest`."""
    size = len(rest) - target_size
    return [HEADER.pack(opcode, flags, codec, PROTOCOL_VERSION, 0, call_id, number, target_size, 0, size) + rest]


def _pieces_of(head: bytes, size: int, body: _Pieces, buffers: Sequence[Part]) -> list[bytes | bytearray | memoryview]:
    table = b"".join(
        [
            buffer.row if isinstance(buffer, Stretch) else ENTRY.pack(BUFFER_INLINE, 0, 0, len(buffer))
            for buffer in buffers
        ]
    )
    inline = [buffer for buffer in buffers if not isinstance(buffer, Stretch) and len(buffer)]
    if size + sum(map(len, inline)) <= SMALL:
        return [b"".join((head, table, *body, *inline))]
    return [head + table, *body, *inline]


def room_for(size: int) -> Room:
    """Return writable memory for that many bytes; large memory costs nothing before bytes arrive in it."""
    return bytearray(size) if size < _LARGE else mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class FrameParser:
    """Incremental parser of a byte stream into frames.

    Law: an exception may strike the reading thread after any call (Ctrl-C, or one thrown into it), and another
    thread then reads on. So whatever is changed together is assigned without a call in between, and the frame that
    was returned last is kept in `last`, for a reader that never got to see it.

    Args:
        limit: the largest frame accepted, in bytes.
    """

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self.borrower: Borrower | None = None  # knows the other side's segments
        self._buffer = bytearray(SMALL)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0
        self.counts: list[int] = []  # of bytes received and not taken note of: one at most
        self.last: Frame | None = None
        self._large: Frame | None = None  # a frame whose body and buffers are received in place
        self._holes: list[memoryview] = []  # what of it is still missing, in order

    @property
    def is_between_frames(self) -> bool:
        """True when no byte of an unfinished frame has been received."""
        return self._large is None and self._start == self._end

    def writable(self) -> memoryview:
        """Return where the next received bytes belong; never empty."""
        if self._holes:
            return self._holes[0]
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == len(self._buffer):
            self._make_room(len(self._buffer) - self._start + 1)
        return self._view[self._end :]

    def idle_buffer(self) -> tuple[memoryview] | None:
        """Return what `writable` would, as a tuple, if nothing is being received; else None."""
        if self._start != self._end or self._large is not None or self.counts:
            return None
        self._start = self._end = 0
        return (self._view,)

    def absorb(self) -> None:
        """Take note of the bytes that were put into the view that `writable` returned: their number is in `counts`."""
        counts, holes = self.counts, self._holes
        if not counts:
            return
        if holes:
            rest = holes[0][counts[0] :]
            if rest:
                holes[0] = rest
            else:
                del holes[0]
        else:
            self._end += counts[0]
        del counts[0]

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Parse `data` and return the frames it completes; for bytes that come from elsewhere than a socket.

        Raises:
            FrameError: the stream is not one of frames.
        """
        frames = []
        view = memoryview(data)
        while len(view):
            room = self.writable()
            count = min(len(room), len(view))
            room[:count] = view[:count]
            self.counts.append(count)
            view = view[count:]
            frame = self.next_frame()
            while frame is not None:
                frames.append(frame)
                frame = self.next_frame()
        return frames

    def next_frame(self) -> Frame | None:
        """Return the next whole frame, or None until more bytes come.

        Raises:
            FrameError: the stream is not one of frames.
        """
        if self._large is not None:
            return self._next_large()
        if self.counts:  # as `absorb`
            self._end += self.counts[0]
            del self.counts[0]
        start = self._start
        available = self._end - start
        if available < HEADER_SIZE:
            return None
        header = HEADER.unpack_from(self._buffer, start)
        opcode, flags, codec, version, epoch, call_id, number, target_size, buffer_count, body_size = header
        if version not in _VERSIONS or target_size > MAX_TARGET or buffer_count > MAX_BUFFERS:
            raise FrameError("not a frame header: %s" % bytes(self._buffer[start : start + HEADER_SIZE]).hex())
        if body_size > self._limit:
            raise FrameError("a body of %d bytes is beyond the limit of %d" % (body_size, self._limit))
        meta_end = start + HEADER_SIZE + target_size
        if buffer_count == 0 and HEADER_SIZE + target_size + body_size <= SMALL:
            end = meta_end + body_size
            if end > self._end:
                self._make_room(end - start)
                return None
            data = self._buffer
            target = data[start + HEADER_SIZE : meta_end] if target_size else b""
            frame = Frame(opcode, flags, codec, epoch, call_id, number, target, data[meta_end:end], [])
            self._start = end
            self.last = frame
            return frame
        return self._begin_large(header, meta_end)

    def _next_large(self) -> Frame | None:
        self.absorb()
        if self._start < self._end:  # left behind by a reader that was interrupted
            self._fill_holes()
        if self._holes:
            return None
        frame = self.last = self._large
        self._large = None
        return frame

    def _begin_large(self, header: tuple[int, ...], meta_end: int) -> Frame | None:
        opcode, flags, codec, _, epoch, call_id, number, target_size, buffer_count, body_size = header
        table_end = meta_end + ENTRY.size * buffer_count
        if table_end > self._end:
            self._make_room(table_end - self._start)
            return None
        rows = list(ENTRY.iter_unpack(self._view[meta_end:table_end]))
        total = body_size + sum([row[3] for row in rows])
        if total > self._limit:
            raise FrameError("a frame of %d bytes is beyond the limit" % total)
        target = bytes(self._buffer[meta_end - target_size : meta_end])
        if table_end + total <= self._end and not any(row[0] for row in rows):
            return self._take_whole((opcode, flags, codec, epoch, call_id, number, target), table_end, body_size, rows)
        try:
            rooms: list[Room] = [room_for(size) for size in [body_size, *[row[3] for row in rows if not row[0]]]]
        except (MemoryError, OSError, OverflowError):
            raise FrameError("no memory for a frame of %d bytes" % total) from None
        frame = Frame(opcode, flags, codec, epoch, call_id, number, target, rooms[0], rooms[1:])  # type: ignore[arg-type]
        used = self._add_stretches(frame, rows) if len(rooms) <= len(rows) else None
        holes = [memoryview(piece) for piece in rooms if len(piece)]
        borrower = self.borrower
        self._start = table_end
        self._large, self._holes = frame, holes
        if used and borrower is not None:
            borrower.lent += used  # together with the frame becoming ours, see the law
            borrower.let_go(used)
        self._fill_holes()
        return self.next_frame()

    def _take_whole(
        self, fields: Tuple[Any, ...], start: int, body_size: int, rows: Sequence[tuple[int, ...]]
    ) -> Frame:
        """Return a frame with buffers, all bytes of which have come."""
        pieces: list[Buffer] = []
        for size in [body_size, *[row[3] for row in rows]]:
            pieces.append(self._buffer[start : start + size])
            start += size
        frame = Frame(*(*fields, pieces[0], pieces[1:]))
        self._start = start
        self.last = frame
        return frame

    def _add_stretches(self, frame: Frame, rows: Sequence[tuple[int, ...]]) -> list[Borrowed]:
        """Put what is in segments into a frame, in its place; return the segments."""
        used: list[Borrowed] = []
        for index, (kind, segment, offset, length) in enumerate(rows):
            if kind == BUFFER_INLINE:
                continue
            if self.borrower is None or kind not in (BUFFER_SEGMENT, BUFFER_BODY):
                raise FrameError("buffer of unknown kind %d" % kind)
            borrowed, view = self.borrower.view(segment, offset, length)
            if borrowed not in used:
                used.append(borrowed)
            if kind == BUFFER_BODY and not isinstance(view, Unavailable):
                frame.body = view if len(view) > SMALL_BODY else bytearray(view)
            else:
                frame.buffers.insert(index, view)
        return used

    def _fill_holes(self) -> None:
        """Move what already arrived behind the table to its place."""
        holes = self._holes
        while holes and self._start < self._end:
            hole = holes[0]
            count = min(len(hole), self._end - self._start)
            hole[:count] = self._view[self._start : self._start + count]
            self._start += count
            rest = hole[count:]
            if rest:
                holes[0] = rest
            else:
                del holes[0]

    def _make_room(self, size: int) -> None:
        """Let `size` bytes from the start of the current frame fit into the receive buffer."""
        if self._start + size <= len(self._buffer):
            return
        pending = bytes(self._view[self._start : self._end])
        count = len(pending)
        buffer = bytearray(max(size, 2 * len(self._buffer))) if size > len(self._buffer) else self._buffer
        view = memoryview(buffer)
        view[:count] = pending
        self._buffer, self._view = buffer, view
        self._start, self._end = 0, count


TYPE_CHECKING = False  # `typing` costs the child 3 ms; checkers understand this name without it
if TYPE_CHECKING:
    from typing import Any, Sequence, Tuple, Union

    from .borrowing import Borrowed, Borrower

    Room = Union[bytearray, mmap.mmap]
    Buffer = Union[Room, memoryview]
    Body = Union[bytes, bytearray, mmap.mmap, memoryview]
    Part = Union[bytes, bytearray, memoryview, Stretch]
    _Pieces = Sequence[Union[bytes, bytearray, memoryview]]
