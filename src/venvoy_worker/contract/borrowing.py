"""The side of segments that borrows: maps what the other side lends, and gives it back when nothing refers to it.

Owns the mappings of what was announced, and the list of those that are lent now. Laws: a mapping stays for the next
time, so that its pages need not be found again; what refers to a value in it refers to the mapping, so the number of
references says when it is free; a segment comes into `lent` together with the frame that uses it becoming the
reader's (see `FrameParser`), and leaves it once; what a forked process may still read is never given back.
"""

from __future__ import annotations

import _thread
import os
import sys
from time import monotonic

from . import frames, messages
from .mapping import Mapping, SharedMemory

_PATIENCE = 10.0  # seconds for an announcement that was sent before the frame that needs it


class Borrowed:
    """A segment of the other side."""

    __slots__ = ("flags", "id", "memory")

    def __init__(self, number: int, memory: Mapping | None, flags: int) -> None:
        self.id = number
        self.memory = memory  # None: it could not be mapped
        self.flags = flags


def _references(borrowed: Borrowed) -> int:
    return sys.getrefcount(borrowed.memory)


_ALONE = _references(Borrowed(0, object(), 0))  # type: ignore[arg-type]


class Borrower:
    """What one side knows of the other's segments.

    Args:
        tell: sends a frame of the control line; returns False if it could not.
        is_readonly: values in segments cannot be written.
        pump: called by a reader that misses an announcement, instead of waiting for it, where it is the reader's own
            thread that has to receive it; returns whether that is so.
    """

    def __init__(self, tell: Callable[[Pieces], bool], is_readonly: bool, pump: Callable[[], bool]) -> None:
        self.lent: list[Borrowed] = []
        self._known: dict[int, Borrowed] = {}
        self._tell = tell
        self._is_readonly = is_readonly
        self._pump = pump
        self._newest = 0
        self._is_closed = False
        self._waiting: list[_thread.LockType] = []
        self._leaving: list[Borrowed] = []  # unmapped by who reads next: that takes its time

    # From the thread of the control line.

    def add(self, number: int, flags: int, fd: int | None) -> None:
        """A segment was announced with this descriptor, which is owned from now on; None if it was lost."""
        memory: Mapping | None = None
        if fd is not None:
            try:
                is_shared = flags & frames.SEGMENT_SHARED
                memory = SharedMemory.of(fd) if is_shared else Mapping(fd, self._is_readonly)
            except (OSError, ValueError):
                pass
        self._known[number] = Borrowed(number, memory, flags)
        self._newest = max(self._newest, number)
        self._wake()

    def forget(self, numbers: Sequence[int]) -> None:
        """The other side has given these up while they were not lent."""
        for number in numbers:
            borrowed = self._known.pop(number, None)
            if borrowed is not None:
                self._leaving.append(borrowed)

    def close(self) -> None:
        """Nothing more will be announced; what is lent belongs to those who refer to it."""
        self._is_closed = True
        self._known.clear()
        self._leaving.clear()
        self.lent.clear()
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for lock in waiting:
            lock.release()

    # From whoever reads the call channel.

    def view(self, number: int, offset: int, length: int) -> tuple[Borrowed, memoryview | frames.Unavailable]:
        """Return a stretch of a segment, waiting for its announcement if need be.

        Raises:
            FrameError: there is no such segment, or it is shorter.
        """
        borrowed = self._known.get(number) or self._find(number)
        memory = borrowed.memory
        if memory is None:
            return borrowed, frames.Unavailable(
                b"shared memory could not be mapped here (too many open files, or no memory?)"
            )
        if memory.is_private and not borrowed.flags & frames.SEGMENT_GIVEN:  # a process was forked while it was idle
            memory = borrowed.memory = Mapping(os.dup(memory.fd), self._is_readonly)
        if offset + length > len(memory):
            raise frames.FrameError("a stretch of %d bytes at %d of a smaller segment" % (length, offset))
        return borrowed, memoryview(memory)[offset : offset + length]

    def _find(self, number: int) -> Borrowed:
        deadline = monotonic() + _PATIENCE
        while number > self._newest and not self._is_closed:
            if self._pump():
                break
            lock = _thread.allocate_lock()
            lock.acquire()
            self._waiting.append(lock)
            if number > self._newest and not lock.acquire(timeout=max(0.0, deadline - monotonic())):
                break
        if number not in self._known:
            raise frames.FrameError("segment %d was never announced" % number)
        return self._known[number]

    def let_go(self, used: Sequence[Borrowed]) -> None:
        """Forget those among these that are given away: they belong to what was received in them."""
        for borrowed in used:
            if borrowed.flags & frames.SEGMENT_GIVEN:
                self._known.pop(borrowed.id, None)
                self._leave(borrowed)

    def give_back(self) -> None:
        """Tell the other side which segments nothing refers to any more."""
        self._leaving.clear()
        for is_kept in (False, True):
            done = [one for one in tuple(self.lent) if self._is_done(one, is_kept)]
            done = [one for one in done if self._leave(one)]
            if done:
                numbers = [borrowed.id for borrowed in done]
                if not self._tell(messages.free_segments(numbers, frames.SEGMENT_KEPT if is_kept else 0)):
                    self.lent += done

    def _is_done(self, borrowed: Borrowed, is_kept: bool) -> bool:
        if borrowed.memory is None or borrowed.memory.is_private:
            return is_kept
        return not is_kept and _references(borrowed) == _ALONE

    def _leave(self, borrowed: Borrowed) -> bool:
        """Return True for the one thread that takes it out of the list."""
        try:
            self.lent.remove(borrowed)
        except ValueError:
            return False
        if borrowed.memory is None or borrowed.memory.is_private or borrowed.flags & frames.SEGMENT_GIVEN:
            self._known.pop(borrowed.id, None)
        return not borrowed.flags & frames.SEGMENT_GIVEN


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, List, Sequence, Union

    Pieces = List[Union[bytes, bytearray, memoryview]]
