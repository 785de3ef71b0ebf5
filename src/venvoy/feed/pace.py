"""How much a process is sent ahead of what it has read: decisions only, no clock and no I/O.

Whatever lies in a pipe has been given to one process for good. So a process that takes a second for an item must not
get a mebibyte of them, and one that copies bytes should get nothing less. The window begins at one item, doubles while
a windowful is read in well under `GOAL` seconds, and shrinks in proportion when it takes much longer; it is also the
size of the pipe, so that the kernel says when it has been read, and nobody has to ask.
"""

from __future__ import annotations

GOAL = 0.02  # seconds that a windowful should last
LARGEST = 1 << 20  # bytes; what an unprivileged process may make of a pipe
PAGE = 4096


class Pace:
    """The window of one channel of one process."""

    __slots__ = ("_asked", "_begin", "_read", "window")

    def __init__(self) -> None:
        self.window = 1  # bytes; at least one item is always sent
        self._begin: float | None = None
        self._read = 0
        self._asked = (0.0, 0)

    def on_request(self, now: float, written: int) -> bool:
        """Take notice that a windowful is asked for from whoever makes it; return whether the window has changed.

        Where the items' bytes are made on request, nothing ever waits for the process, and `on_room` learns nothing.
        """
        (at, before), self._asked = self._asked, (now, written)
        if now - at > GOAL or written - before < self.window or self.window == LARGEST:
            return False
        self.window = min(2 * self.window, LARGEST)
        return True

    def restart(self) -> None:
        """The process had nothing to read: the time until its next read says nothing about it."""
        self._begin = None

    def on_room(self, now: float, read: int) -> bool:
        """Take notice that there is room again; return whether the window has changed.

        Args:
            now: seconds of a monotonic clock.
            read: bytes that the process has read since it began.
        """
        if self._begin is None:
            self._begin, self._read = now, read
            return False
        if read - self._read < self.window:
            return False
        took = (now - self._begin) * self.window / (read - self._read)
        self._begin, self._read = now, read
        before = self.window
        if took < GOAL / 2:
            self.window = min(2 * self.window, LARGEST)
        elif took > 2 * GOAL:
            self.window = max(1, int(self.window * GOAL / took))
        return self.window != before

    @property
    def pipe_size(self) -> int:
        """Bytes that the pipe should hold: a power of two of pages."""
        return max(PAGE, 1 << (self.window - 1).bit_length())
