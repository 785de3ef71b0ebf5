"""A framed channel on a stream socket, or on two pipes: the same class on both ends.

Owns the bytes in flight. Laws: what is read from always blocks (O_NONBLOCK belongs to the open file, which both ends of
a fork share), and an operation that must not wait says so with MSG_DONTWAIT, or looks first whether something is there;
the end of a pipe that the host writes to never blocks. One thread reads at a time and one writes at a time; who that
is, is the owner's business. An exception may strike that thread after any call, so what was received or written is
noted together with the call that did it: `counts += map(...)` is one step of Python's.
"""

from __future__ import annotations

import _socket
import os
import stat
from _io import FileIO
from functools import partial
from time import monotonic

from .frames import FrameError, FrameParser

_DONTWAIT = getattr(_socket, "MSG_DONTWAIT", 0)
_WAITING, _NOW = ((0,), (0,)), ((0,), (_DONTWAIT,))  # further arguments of recv_into: size (all there is), flags
_OWN_FILES = "/proc/self/fd"
PIPE_SIZE = 1 << 16  # bytes that a pipe takes
_IOV_MAX = 512  # the system allows 1024 pieces a write


class PipeEnd(FileIO):
    """One end of a pipe; like that of a socket, its number is -1 once it is closed."""

    def fileno(self) -> int:
        return -1 if self.closed else super().fileno()


class Channel:
    """Frames over a connected stream socket, or over one end for each direction; they are owned from now on.

    On a single socket, the kernel wakes a thread that waits for an answer when the other end has only taken the
    question. Pipes are faster than two sockets.

    Args:
        sock: what is read from, a blocking stream socket or the end of a pipe.
        out: what is written to, if that is another one: the end of a pipe, on the host one that does not block.
        kept: on the host, the other end of that pipe. As long as it is held here, a worker's death neither raises
            SIGPIPE here nor leaves a writer asleep because a forked process holds that end too.
    """

    __slots__ = (
        "_is_broken",
        "_is_shut",
        "_is_spoiled",
        "_kept",
        "_left",
        "_out",
        "_poll",
        "_recv_into",
        "_size",
        "_write",
        "parser",
        "sends",
        "sock",
        "written",
    )

    def __init__(self, sock: End, out: End | None = None, kept: PipeEnd | None = None) -> None:
        self.sock: Any = sock
        self._out: Any = sock if out is None else out
        self._kept = kept
        self._recv_into: Any = sock.readinto if isinstance(sock, PipeEnd) else sock.recv_into
        self._poll = _poll_of(sock) if isinstance(sock, PipeEnd) else None  # of what is read from, if it is a pipe
        self._write: Any = self._out.write if isinstance(self._out, PipeEnd) else self._out.send
        self.parser = FrameParser()
        self.sends = 0  # that were finished, and taken note of
        self.written: list[int | None] = []  # of bytes written and not taken note of: one at most
        self._left = 0  # bytes of what is being sent that were not written when note was taken last,
        self._size = 0  # and all of it
        self._is_broken = False  # it could not be written to
        self._is_shut = False
        self._is_spoiled = False  # the last byte to be read is ours, see `_wake_reader`

    @property
    def is_torn(self) -> bool:
        """True when a frame was written in part, or could not be: nothing more can be said on this channel."""
        left = self._left
        if self.written:  # no call here, so that what a thread is doing meanwhile is seen before or after
            left -= self.written[0] or 0
        return self._is_broken or 0 < left < self._size

    @property
    def is_whole(self) -> bool:
        """True when what was sent last has been written whole, and no note of that was taken."""
        return self.written[0] == self._left if self.written else False

    def fileno(self) -> int:
        """Return the descriptor that is read from, -1 once closed."""
        return int(self.sock.fileno())

    def fileno_to_write(self) -> int:
        """Return the descriptor that is written to, -1 once closed."""
        return int(self._out.fileno())

    def close(self) -> None:
        """Close all ends; a second close is harmless."""
        for end in (self.sock, self._out, self._kept):
            if end is not None:
                end.close()
        if self._poll is not None:  # who goes on, in a forked process say, meets no ValueError, as with a socket
            self._recv_into, self._write = _nothing, partial(os.write, -1)

    def forget(self) -> None:
        """Give the ends up as they are; for a forked process that has closed their descriptors."""
        for end in (self.sock, self._out):
            end.close() if isinstance(end, PipeEnd) else end.detach()  # `inherited` files close no descriptor

    def shut(self) -> None:
        """Wake whoever reads or writes this channel with end-of-file; on both ends, if it is a socket."""
        self._is_shut = True
        try:
            if self._kept is not None:
                if _poll_of(self._kept).poll(0):
                    self._kept.read(PIPE_SIZE)  # who waits for room goes on, and sees that it is shut
                self._wake_reader()
            elif self._poll is None:
                self.sock.shutdown(_socket.SHUT_RDWR)
        except (OSError, ValueError):
            pass

    def _wake_reader(self) -> None:
        """Where a forked process holds the other end of a pipe, there is no end-of-file: write a byte there."""
        import select  # as in `wait`

        if not any(events & select.POLLHUP for _, events in _poll_of(self.sock).poll(0)):
            self._is_spoiled = True
            name = "%s/%d" % (_OWN_FILES, self.sock.fileno())
            try:
                fd = os.open(name, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # too many files are open: one fewer
                self._kept.close()  # type: ignore[union-attr]
                fd = os.open(name, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(fd, b"\0")
            except BlockingIOError:  # it is full, so nobody waits, nor will who sees that it is shut
                self._is_spoiled = False
            finally:
                os.close(fd)

    def shut_writing(self) -> None:
        """Let the other end meet end-of-file once it has read what was sent. Never at the time of a `close`."""
        try:
            if self._kept is None:
                self._out.shutdown(_socket.SHUT_WR)
            elif not self.is_torn:  # else somebody waits for room, and would wait for ever
                os.dup2(self._kept.fileno(), self._out.fileno(), False)  # the number stays taken; to write is EBADF
        except (OSError, ValueError):
            pass

    def send(self, pieces: list[bytes | bytearray | memoryview], deadline: float | None = None) -> None:
        """Write the pieces of one or several frames whole.

        Args:
            pieces: as `frames.pack` returns them.
            deadline: a `time.monotonic` value.

        Raises:
            TimeoutError: the deadline passed; the channel is torn if a part was written.
            OSError: the other end is gone.
        """
        counts = self.written
        if counts:
            self.note()
        if len(pieces) == 1 and (deadline is None or self._kept is not None):  # the usual case
            self._size = self._left = len(pieces[0])
            try:
                counts += map(self._write, pieces)
            except OSError:
                self._is_broken = True
                raise
            if counts[0] == self._left:
                self.sends += 1  # as `note`
                self._size = self._left = 0
                del counts[0]
                return
            pieces = rest_of(pieces, self.note())
        while pieces:
            pieces = self.offer(pieces)
            if pieces:
                wait(self._out.fileno(), deadline, for_writing=True)

    def offer(self, pieces: list[bytes | bytearray | memoryview]) -> list[bytes | bytearray | memoryview]:
        """Write what fits now, without waiting, and return what is to be offered next.

        Raises:
            OSError: the other end is gone.
        """
        if self.written:
            self.note()
        left = sum(map(len, pieces))
        self._size, self._left = self._size + left - self._left, left
        try:
            if self._is_shut:
                raise BrokenPipeError
            if not isinstance(self._out, PipeEnd):
                self.written += map(self._out.sendmsg, (pieces[:_IOV_MAX],), ((),), (_DONTWAIT,))
            else:
                self.written += map(os.writev, (self._out.fileno(),), (pieces[:_IOV_MAX],))
            rest = rest_of(pieces, self.note())
            if rest and self._is_shut:  # perhaps before we have filled it: nobody else will make room
                raise BrokenPipeError
            return rest
        except BlockingIOError:
            return pieces
        except OSError:
            self._is_broken = True
            raise

    def note(self) -> int:
        """Take note of what was written last, perhaps by a thread that was interrupted; return the number of bytes."""
        counts, count = self.written, 0
        if counts:  # no call from here on
            count = counts[0] or 0
            self._left -= count
            if not self._left:
                self.sends += 1
                self._size = 0
            del counts[0]
        return count

    def receive(self, deadline: float | None = None) -> Frame | None:
        """Wait for the next frame and return it; None at the end of the stream.

        Args:
            deadline: a `time.monotonic` value.

        Raises:
            TimeoutError: the deadline passed first; what came so far is kept.
            FrameError: the bytes are no frames, or the stream ends inside one.
        """
        parser = self.parser
        idle = parser.idle_buffer() if deadline is None and not self._is_shut else None
        if idle is not None:  # the usual case, as `_receive_some` below
            counts = parser.counts
            try:
                counts += map(self._recv_into, idle)
            except ConnectionResetError:
                return None
            if not counts[0]:
                return None
        frame = self.buffered() if self._is_spoiled else parser.next_frame()
        while frame is None:
            if deadline is not None and not self._is_shut:
                wait(self.sock.fileno(), deadline, for_writing=False)
            if not self._receive_some(_WAITING):
                return None
            frame = self.buffered()
        return frame

    def _receive_some(self, how: Tuple[Tuple[int], Tuple[int]]) -> bool:
        """Receive once into the parser; return False at the end of the stream."""
        parser = self.parser
        counts = parser.counts
        room = parser.idle_buffer() or (parser.writable(),)
        try:
            if self._poll is None:
                counts += map(self._recv_into, room, *how)
            else:
                if how is _NOW or self._is_shut:
                    self._check_readable()
                counts += map(self._recv_into, room)
        except ConnectionResetError:
            return False
        if not counts[0] and not parser.is_between_frames:
            raise FrameError("the stream ended inside a frame")
        return bool(counts[0])

    def _check_readable(self) -> None:
        """Before a pipe is read: raise BlockingIOError where that would have to wait, FrameError if it was shut."""
        if not self._poll.poll(0):  # type: ignore[union-attr]
            if self._is_shut:
                self._recv_into = _nothing  # for good, whatever of ours has been read
                raise FrameError("the other end is gone")
            raise BlockingIOError

    def buffered(self) -> Frame | None:
        """Return the next frame if all its bytes have been read already."""
        frame = self.parser.next_frame()
        if self._is_spoiled and frame is not None and self.parser.is_between_frames and not self._has_bytes():
            self.parser.last = None  # the byte that was ours has completed it
            self._recv_into = _nothing
            raise FrameError("the other end is gone")
        return frame

    def try_receive(self, is_there: bool = False) -> Frame | None:
        """Return the next frame if it is here already, else None; never waits.

        Args:
            is_there: this very thread has just seen that something is there to be read.

        Raises:
            EOFError: the stream has ended.
            FrameError: the bytes are no frames, or the stream ends inside one.
        """
        frame = self.buffered()
        while frame is None:
            try:
                if not self._receive_some(_WAITING if is_there else _NOW):
                    raise EOFError
            except BlockingIOError:
                return None
            is_there = False
            frame = self.buffered()
        return frame

    def _has_bytes(self) -> bool:
        import select  # as in `wait`

        return any(events & select.POLLIN for _, events in self._poll.poll(0))  # type: ignore[union-attr]


def inherited(fds: Sequence[int]) -> Channel:
    """Return the channel of a worker: of one descriptor for both directions, or of those to read from and to write to.

    Which of them are sockets and which are pipes is the host's choice.
    """
    ends = [_end(fd, mode) for fd, mode in zip(fds, ("r", "w"))]
    return Channel(ends[0], ends[-1])


def _end(fd: int, mode: str) -> End:
    is_pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)
    return PipeEnd(fd, mode, closefd=False) if is_pipe else _socket.socket(fileno=fd)


def _nothing(room: memoryview) -> int:
    """Read nothing, as at the end of a stream."""
    return 0


def can_wake_readers() -> bool:
    """Return True where the host can have a channel of two pipes: where `Channel.shut` can open their other ends."""
    reader, writer = os.pipe()
    try:
        os.close(os.open("%s/%d" % (_OWN_FILES, reader), os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    finally:
        os.close(reader)
        os.close(writer)
    return True


def _poll_of(file: PipeEnd) -> select.poll:
    import select  # as in `wait`

    poll = select.poll()
    poll.register(file, select.POLLIN)
    return poll


def rest_of(pieces: list[bytes | bytearray | memoryview], sent: int) -> list[bytes | bytearray | memoryview]:
    """Return what remains of `pieces` after `sent` bytes of them were written."""
    index = 0
    while index < len(pieces) and sent >= len(pieces[index]):
        sent -= len(pieces[index])
        index += 1
    rest = pieces[index:]
    if sent:
        rest[0] = memoryview(rest[0])[sent:]
    return rest


def wait(fd: int, deadline: float | None, for_writing: bool) -> None:
    """Wait until the descriptor is ready.

    Raises:
        TimeoutError: the deadline (a `time.monotonic` value) passed first.
    """
    import select  # start-up time: who only wants to know what a frame is does without

    poll = select.poll()
    poll.register(fd, select.POLLOUT if for_writing else select.POLLIN)
    while not poll.poll(None if deadline is None else milliseconds(deadline - monotonic())):
        if deadline is not None and monotonic() >= deadline:
            raise TimeoutError


def milliseconds(seconds: float) -> float:
    """Return what `poll` takes for a time to wait: never negative, rounded up, and at most a day at a time."""
    return min(max(0.0, seconds), 86_400.0) * 1000 + 0.5


TYPE_CHECKING = False
if TYPE_CHECKING:
    import select
    from typing import Any, Sequence, Tuple, Union

    from .frames import Frame

    End = Union[_socket.socket, PipeEnd]
