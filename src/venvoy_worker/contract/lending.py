"""The side of segments that lends: large parts of frames are copied into memory that the receiver maps.

Owns its segments and which of them are lent. Laws: a segment is written only while it is not lent; it is lent from
the moment it is taken for a frame until its borrower gives it back, or until the frame is known not to have been
sent; what is lent and what is kept for the next time are together never more than the limits below: larger values are
given away instead, and many small ones go inline.
"""

from __future__ import annotations

import _thread

from . import frames, messages
from .mapping import Mapping, make_file, shared_here, shared_memory

_MOST_SEGMENTS = 8  # each takes one or two descriptors on either side
_MOST_OWN = 4  # parts of one frame that get a segment of their own, so that it can be given back alone
_OWN = 1 << 22  # bytes from which on a part gets one
_GIFT = 1 << 24  # bytes from which on what cannot be lent is given away; less goes inline
_GRAIN = 1 << 16  # bytes; sizes are multiples of it
_SLACK = 4  # a segment serves parts down to this fraction of its size
_ALIGNMENT = 64  # of the parts in a segment


class Segment:
    """Memory that is lent again and again."""

    __slots__ = ("id", "is_known", "memory", "tag", "turn")

    def __init__(self, number: int, memory: Mapping) -> None:
        self.id = number
        self.memory = memory
        self.tag: int | None = None  # of the frame it is lent with; None while it is idle
        self.turn = 0  # when it was lent last
        self.is_known = False  # the borrower has its descriptor


class Lender:
    """Puts large parts of frames into segments.

    Args:
        announce: sends a frame of the control line together with a descriptor; returns False if it could not.
        tell: sends a frame of the control line; returns False if it could not.
        least: bytes from which on a part goes into a segment; None for none but shared memory.
        most: bytes of all segments together.
    """

    def __init__(
        self,
        announce: Callable[[Pieces, int], bool],
        tell: Callable[[Pieces], bool],
        least: int | None,
        most: int,
    ) -> None:
        self._announce = announce
        self._tell = tell
        self.least = frames.MAX_FRAME if least is None else least
        self._most = most
        self._lock = _thread.allocate_lock()  # guards the choice of a segment, and the order of announcements
        self._segments: list[Segment] = []
        self._gone: list[int] = []  # given up here; the borrower has not been told yet
        self._turn = 0
        self._newest = 0
        self._gifts: list[tuple[int, int]] = []  # the last ones, as (tag, number)

    def place(self, tag: int, body: Sequence[Data], buffers: Sequence[Data]) -> tuple[Sequence[Data], Sequence[Part]]:
        """Return body and buffers for `frames.pack`, with what is large put into segments.

        Args:
            tag: of the frame, for `take_back`: the id of the call for CALL and its last reply, else a negative number.
        """
        if not shared_here and sum(map(len, body)) + sum(map(len, buffers)) < self.least:
            return body, buffers
        placed: list[Part] = list(buffers)
        if shared_here:
            self._place_shared(placed)
        for group in self._groups(body, placed):
            size = sum([_aligned(part[3]) for part in group])
            segment = self._lend(size, tag, group)
            if segment is None:
                continue  # it goes inline
            offset = 0
            for kind, index, _, length in group:
                stretch = frames.Stretch(kind, segment, offset, length)
                if kind == frames.BUFFER_BODY:
                    body = ()
                    placed.append(stretch)
                else:
                    placed[index] = stretch
                offset += _aligned(length)
        return body, placed

    def _place_shared(self, placed: list[Part]) -> None:
        """Pass on the shared memory among the buffers; that needs no copy.

        Raises:
            FrameError: it cannot be passed on; a copy would not be shared.
        """
        numbers: dict[int, int | None] = {}
        for index, buffer in enumerate(placed):
            memory = shared_memory(buffer)
            if memory is None:
                continue
            if memory.fd not in numbers:
                with self._lock:
                    flags = frames.SEGMENT_GIVEN | frames.SEGMENT_SHARED
                    numbers[memory.fd] = self._announce_next(memory.fd, flags)
            number = numbers[memory.fd]
            if number is None:
                raise frames.FrameError("shared memory cannot be passed on now: the other process does not listen")
            placed[index] = frames.Stretch(frames.BUFFER_SEGMENT, number, 0, len(memory))

    def _groups(self, body: Sequence[Data], buffers: Sequence[Part]) -> list[list[_Large]]:
        """Return what is large, in groups of parts that share a segment."""
        large: list[_Large] = [
            (frames.BUFFER_SEGMENT, index, (buffer,), len(buffer))
            for index, buffer in enumerate(buffers)
            if not isinstance(buffer, frames.Stretch) and len(buffer) >= self.least
        ]
        size = sum(map(len, body))
        if size >= self.least:
            large.append((frames.BUFFER_BODY, -1, body, size))
        own = [part for part in large if part[3] >= _OWN]
        if len(own) > _MOST_OWN:
            own = []
        rest = [part for part in large if part not in own] if own else large
        return [[part] for part in own] + ([rest] if rest else [])

    def _lend(self, size: int, tag: int, group: list[_Large]) -> int | None:
        """Return the number of a segment that the group has been copied into; None if there is none to be had."""
        try:
            segment, is_gift = self._take(size, tag)
            if segment is None:
                return None
            try:
                offset = 0
                for part in group:
                    segment.memory.fill(offset, part[2])
                    offset += _aligned(part[3])
            except OSError:
                self._forget([segment])
                return None
        except OSError:  # no memory, no descriptor: as if there were no segments
            return None
        return self._number(segment, tag, is_gift)

    def _take(self, size: int, tag: int) -> tuple[Segment | None, bool]:
        """Return a segment for this frame, made if need be, and whether it is given away."""
        with self._lock:
            self._turn += 1
            idle = [segment for segment in self._segments if segment.tag is None]
            fitting = [one for one in idle if size <= len(one.memory) <= _SLACK * size + _GRAIN]
            if fitting:
                segment = min(fitting, key=lambda one: len(one.memory))
                segment.tag, segment.turn = tag, self._turn
                return segment, False
            is_gift = not self._make_room(_rounded(size), idle)
            if is_gift and size < _GIFT:
                return None, False
            segment = Segment(0, Mapping(make_file(_rounded(size)), is_common=True))
            segment.tag, segment.turn = tag, self._turn
            if not is_gift:
                self._segments += (segment,)
            return segment, is_gift

    def _make_room(self, size: int, idle: list[Segment]) -> bool:
        """Give up idle segments, the longest unused first, until one more is allowed; return False if it never is."""
        lent = [segment for segment in self._segments if segment.tag is not None]
        if len(lent) >= _MOST_SEGMENTS or sum([len(one.memory) for one in lent]) + size > self._most:
            return False
        idle.sort(key=lambda one: one.turn)
        leaving = []
        while len(lent) + len(idle) >= _MOST_SEGMENTS or sum([len(s.memory) for s in lent + idle]) + size > self._most:
            leaving.append(idle.pop(0))
        self._forget(leaving)
        return True

    def _forget(self, leaving: list[Segment]) -> None:
        for segment in leaving:
            if segment in self._segments:
                self._segments.remove(segment)
            if segment.is_known:
                self._gone.append(segment.id)
        if self._gone and self._tell(messages.free_segments(self._gone, frames.SEGMENT_GONE)):
            self._gone = []

    def _number(self, segment: Segment, tag: int, is_gift: bool) -> int | None:
        """Return the number of a segment, having told the borrower of it."""
        if segment.is_known:
            return segment.id
        with self._lock:
            number = self._announce_next(segment.memory.fd, frames.SEGMENT_GIVEN if is_gift else 0)
            if number is None:
                segment.tag = None
            else:
                segment.id, segment.is_known = number, True
                if is_gift:
                    self._gifts = [*self._gifts[-_MOST_SEGMENTS:], (tag, number)]
            return number

    def _announce_next(self, fd: int, flags: int) -> int | None:
        self._newest += 1
        pieces = frames.pack(messages.SEGMENT, flags, call_id=self._newest)
        return self._newest if self._announce(pieces, fd) else None

    def take_back(self, tag: int) -> None:
        """The frame of this tag was not sent, and never will be."""
        for segment in tuple(self._segments):
            if segment.tag == tag:
                segment.tag = None
        gifts = [number for owner, number in self._gifts if owner == tag]
        if gifts:
            self._tell(messages.free_segments(gifts, frames.SEGMENT_GONE))

    def free(self, numbers: Sequence[int], is_kept: bool) -> None:
        """The borrower has no use for these any more; or keeps them for good, so that they are not ours any more."""
        for segment in tuple(self._segments):
            if segment.id in numbers:
                if is_kept:
                    self._segments.remove(segment)
                else:
                    segment.tag = None

    def close(self) -> None:
        """The borrower is gone."""
        self._segments.clear()


def _aligned(size: int) -> int:
    return (size + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT


def _rounded(size: int) -> int:
    """Return a size that serves values a little larger, too; memory that is not touched is not there."""
    grain = max(_GRAIN, 1 << max(0, size.bit_length() - 4))
    return (size + grain - 1) // grain * grain


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, List, Sequence, Tuple, Union

    from .frames import Part

    Data = Union[bytes, bytearray, memoryview]
    Pieces = List[Data]
    _Large = Tuple[int, int, Sequence[Data], int]  # kind, index among the buffers, bytes, their number
