"""The host's end of one input channel of one process: what waits to be written, written as the process takes it.

Belongs to the swarm's I/O thread. Laws: bytes go out in the order they came; after each write to a pipe the kernel
is asked to say when there is room again, and until then nothing is written; the end of file is sent once.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct
import termios
from collections import deque
from collections.abc import Callable
from time import monotonic

from ..collector import Collector
from ..processes.posix import resize_pipe
from .channels import Channel
from .pace import Pace

_MOST_PIECES = 512  # of one write; IOV_MAX is 1024
_WRITE = 1 << 20  # bytes of one write to what never blocks


class Gate:
    """Who of several writers may write to one open file: what one has begun, it ends before another begins.

    Args:
        loop: the swarm's I/O thread.
    """

    def __init__(self, loop: Collector) -> None:
        self._loop = loop
        self._owner: Writer | None = None
        self._waiting: deque[Writer] = deque()

    def enter(self, writer: Writer) -> bool:
        """Return whether it is this one's turn; if not, it is called when it is."""
        if self._owner in (None, writer):
            self._owner = writer
            return True
        if writer not in self._waiting:
            self._waiting.append(writer)
        return False

    def leave(self, writer: Writer) -> None:
        """It has written what it had, or is gone."""
        if self._owner is writer:
            self._owner = None
            self.call_next()

    def call_next(self) -> None:
        """Where nobody writes: let the next one that waits do so."""
        if self._owner is None and self._waiting:
            self._loop.call_soon(self._waiting.popleft().go_on)


class Writer:
    """One channel of one process.

    Args:
        name: of the channel.
        channel: what kind it is.
        loop: the swarm's I/O thread.
        on_room: called on it when the channel can be written again.
        gate: of a file that others write too.
    """

    def __init__(
        self, name: str, channel: Channel, loop: Collector, on_room: Callable[[], object], gate: Gate | None = None
    ) -> None:
        self._gate = gate
        self.name = name
        self.is_required = channel.required
        self.is_paced = channel.kind in ("pipe", "fifo")
        self.pace = Pace()
        self.pending = 0  # bytes not written yet
        self.written = 0
        self.is_ended = False  # nothing comes any more, and it was told so
        self.is_broken = False  # the process reads it no longer
        self._chunks: deque[bytes | memoryview] = deque()
        self._loop = loop
        self._on_room = on_room
        self._fd = -1
        self._is_waiting = False  # until the kernel says that there is room
        self._is_watched = False
        self._write: Callable[[int, list[bytes | memoryview]], int] = os.writev
        self._file: object = None  # an open file that has no descriptor

    def open(self, fd: int, owner: object = None) -> None:
        """Take over a descriptor, or an open file without one (`fd` is -1, `owner` the file)."""
        self._fd = fd
        self._file = owner
        if fd >= 0 and stat.S_ISSOCK(os.fstat(fd).st_mode):
            self._write = _send
        if self.is_paced:
            os.set_blocking(fd, False)
            self._resize()

    @property
    def is_open(self) -> bool:
        """Whether it can be written, now or once there is room."""
        return self._fd >= 0 or self._file is not None

    @property
    def is_hungry(self) -> bool:
        """Whether the process has room, and nothing is there for it."""
        return self.is_open and not self._is_waiting and not self.pending

    def push(self, data: bytes) -> None:
        """Append bytes; they are thrown away where the process has closed a channel that it need not read."""
        if data and not self.is_broken:
            self._chunks.append(data)
            self.pending += len(data)

    def flush(self) -> bool:
        """Write what there is room for; return whether anything was written.

        Raises:
            BrokenPipeError: nobody reads it any more.
            OSError: a file cannot be written.
        """
        if self._is_waiting or not self.pending or not self.is_open:
            return False
        if self._gate is not None and not self._gate.enter(self):
            return False
        before = self.written
        try:
            self._write_some()
        except BlockingIOError:
            pass
        if self.is_paced or self.pending:
            self._await_room()
        elif self._gate is not None:
            self._gate.leave(self)
        return self.written > before

    def go_on(self) -> None:
        """It is this one's turn at a file that others write too."""
        if self.is_open:
            self._on_room()
        if self._gate is not None:
            self._gate.call_next()  # no-op where this one writes now

    def _write_some(self) -> None:
        if self._file is not None:
            data = b"".join(self._chunks)
            self._file.write(data)  # type: ignore[attr-defined]
            self._forget(len(data))
            return
        while self.pending:
            pieces = [self._chunks[0]]
            if len(self._chunks) > 1:
                pieces = [self._chunks[index] for index in range(min(len(self._chunks), _MOST_PIECES))]
            size = sum(map(len, pieces))
            count = self._write(self._fd, pieces)
            self._forget(count)
            if count < size:
                return

    def _forget(self, count: int) -> None:
        self.pending -= count
        self.written += count
        while count:
            first = self._chunks[0]
            if len(first) > count:
                self._chunks[0] = memoryview(first)[count:]
                return
            count -= len(first)
            self._chunks.popleft()

    def _await_room(self) -> None:
        self._is_waiting = True
        if not self._is_watched:
            self._loop.watch_room(self._fd, self._has_room)
            self._is_watched = True

    def _has_room(self) -> None:
        if not self._is_watched:  # closed by what another event of the same turn brought
            return
        self._is_waiting = False
        if self.is_paced and self.pace.on_room(monotonic(), self.written - self.unread()):
            self._resize()
        self._on_room()
        if not self._is_waiting:
            self.rest()

    def request(self) -> int:
        """Return how many bytes to ask for, from whoever makes them for this process."""
        if self.pace.on_request(monotonic(), self.written):
            self._resize()
        return self.pace.window

    def rest(self) -> None:
        """Nothing is there to be written: do not ask for room until there is."""
        self.pace.restart()
        self._unwatch()

    def _unwatch(self) -> None:
        if self._is_watched:
            self._is_watched = False
            self._loop.unwatch(self._fd)

    def _resize(self) -> None:
        resize_pipe(self._fd, self.pace.pipe_size)

    def unread(self) -> int:
        """Return how many of the bytes written are still in the pipe."""
        if self._fd < 0 or not self.is_paced:
            return 0
        try:
            return int(struct.unpack("i", fcntl.ioctl(self._fd, termios.FIONREAD, b"\0\0\0\0"))[0])
        except OSError:
            return 0

    def end(self) -> None:
        """Send the end of file."""
        self.is_ended = True
        self.close()

    def break_off(self) -> None:
        """The process reads this no longer: forget what it has not got."""
        self.is_broken = True
        self._chunks.clear()
        self.pending = 0
        self.close()

    def close(self) -> None:
        """Close our end."""
        self._unwatch()
        if self._gate is not None:
            self._gate.leave(self)
        self._is_waiting = False
        fd, self._fd = self._fd, -1
        self._file = None
        if fd >= 0:
            os.close(fd)

    def close_in_fork(self) -> None:
        """In a process the host forked: close the copy, and leave the kernel's watch to the parent."""
        self._is_watched = False
        self.close()


def _send(fd: int, pieces: list[bytes | memoryview]) -> int:
    with socket.socket(fileno=os.dup(fd)) as sock:
        return sock.sendmsg(pieces, [], socket.MSG_DONTWAIT)
