"""A framed channel on a stream socket: the same class on both ends.

Owns the bytes in flight. Law: the socket always blocks (O_NONBLOCK belongs to the open file, which both ends of
a fork share); an operation that must not block says so with MSG_DONTWAIT. One thread reads at a time and one
writes at a time; who that is, is the owner's business.
"""

from __future__ import annotations

import _socket
from _struct import Struct
from time import monotonic

from .frames import FrameError, FrameParser

_DONTWAIT = getattr(_socket, "MSG_DONTWAIT", 0)
_WAITING, _NOW = ((0,), (0,)), ((0,), (_DONTWAIT,))  # further arguments of recv_into: size (all there is), flags
_TIMEVAL = Struct("@ll")
_IOV_MAX = 512  # the system allows 1024 pieces a write


class Channel:
    """Frames over a connected stream socket.

    Args:
        sock: a blocking stream socket, owned by the channel from now on.
        out: another one to write to, if there is one for each direction. That is faster: on a single socket, the
            kernel wakes a thread that waits for an answer when the other end has only taken the question.
    """

    __slots__ = ("_out", "_recv_into", "is_torn", "parser", "sends", "sock")

    def __init__(self, sock: _socket.socket, out: _socket.socket | None = None) -> None:
        self.sock = sock
        self._recv_into = sock.recv_into
        self._out = sock if out is None else out
        self.parser = FrameParser()
        self.sends = 0  # that were finished
        self.is_torn = False  # a frame was written in part: nothing more can be said on this channel

    def fileno(self) -> int:
        """Return the descriptor that is read from, -1 once closed."""
        return self.sock.fileno()

    def fileno_to_write(self) -> int:
        """Return the descriptor that is written to, -1 once closed."""
        return self._out.fileno()

    def close(self) -> None:
        """Close the sockets; a second close is harmless."""
        self.sock.close()
        self._out.close()

    def forget(self) -> None:
        """Give the sockets up as they are; for a forked process that has closed their descriptors."""
        self.sock.detach()
        self._out.detach()

    def shut(self) -> None:
        """Wake whoever reads or writes this channel, on both ends, with end-of-file."""
        for sock in (self.sock, self._out):
            try:
                sock.shutdown(_socket.SHUT_RDWR)
            except OSError:
                pass

    def shut_writing(self) -> None:
        """Let the other end meet end-of-file once it has read what was sent."""
        try:
            self._out.shutdown(_socket.SHUT_WR)
        except OSError:
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
        self.is_torn = True  # an exception from here on leaves it so
        if deadline is None and len(pieces) == 1:
            self._out.sendall(pieces[0])
        else:
            while pieces:
                if deadline is None:
                    sent = self._out.sendmsg(pieces[:_IOV_MAX])
                else:
                    sent = self._send_until(pieces, deadline)
                pieces = rest_of(pieces, sent)
        self.is_torn = False
        self.sends += 1

    def _send_until(self, pieces: list[bytes | bytearray | memoryview], deadline: float) -> int:
        while True:
            sent = self.try_send(pieces)
            if sent:
                return sent
            wait(self._out.fileno(), deadline, for_writing=True)

    def try_send(self, pieces: list[bytes | bytearray | memoryview]) -> int:
        """Write what fits now, without waiting, and return the number of bytes written."""
        try:
            if len(pieces) == 1:
                return self._out.send(pieces[0], _DONTWAIT)
            return self._out.sendmsg(pieces[:_IOV_MAX], (), _DONTWAIT)
        except BlockingIOError:
            return 0

    def receive(self, deadline: float | None = None) -> Frame | None:
        """Wait for the next frame and return it; None at the end of the stream.

        Args:
            deadline: a `time.monotonic` value.

        Raises:
            TimeoutError: the deadline passed first; what came so far is kept.
            FrameError: the bytes are no frames, or the stream ends inside one.
        """
        parser = self.parser
        idle = parser.idle_buffer() if deadline is None else None
        if idle is not None:  # the usual case, as `_receive_some` below
            counts = parser.counts
            try:
                counts.extend(map(self._recv_into, idle))
            except ConnectionResetError:
                return None
            if not counts[0]:
                return None
        frame = parser.next_frame()
        while frame is None:
            if deadline is not None:
                wait(self.sock.fileno(), deadline, for_writing=False)
            if not self._receive_some(_WAITING):
                return None
            frame = parser.next_frame()
        return frame

    def _receive_some(self, how: Tuple[Tuple[int], Tuple[int]]) -> bool:
        """Receive once into the parser; return False at the end of the stream.

        An exception may strike this thread after any call, and must not lose bytes, since another thread may read on:
        `extend(map(...))` receives and notes the count in one.
        """
        parser = self.parser
        counts = parser.counts
        try:
            counts.extend(map(self._recv_into, (parser.writable(),), *how))
        except ConnectionResetError:
            return False
        if counts[0]:
            return True
        self._check_end()
        return False

    def gather(self, least: int, seconds: float) -> Frame | None:
        """Sleep until `least` bytes have come or `seconds` have passed; return the first whole frame, if any.

        The kernel does the counting (SO_RCVLOWAT), so many small frames cost one wake-up of this thread.

        Raises:
            EOFError: the stream has ended.
            FrameError: the bytes are no frames, or the stream ends inside one.
        """
        sock = self.sock
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVLOWAT, least)
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1e6)))
        try:
            if not self._receive_some(_WAITING):
                raise EOFError
        except BlockingIOError:
            return None
        finally:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVLOWAT, 1)
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, _TIMEVAL.pack(0, 0))
        return self.parser.next_frame()

    def buffered(self) -> Frame | None:
        """Return the next frame if all its bytes have been read already; never touches the socket."""
        return self.parser.next_frame()

    def try_receive(self) -> Frame | None:
        """Return the next frame if it is here already, else None; never waits.

        Raises:
            EOFError: the stream has ended.
            FrameError: the bytes are no frames, or the stream ends inside one.
        """
        parser = self.parser
        idle = parser.idle_buffer()
        frame = parser.next_frame() if idle is None else None
        while frame is None:
            try:
                if idle is not None:  # the usual case, as `_receive_some` below
                    counts = parser.counts
                    counts.extend(map(self._recv_into, idle, *_NOW))
                    idle = None
                    if not counts[0]:
                        raise EOFError
                elif not self._receive_some(_NOW):
                    raise EOFError
            except BlockingIOError:
                return None
            frame = parser.next_frame()
        return frame

    def _check_end(self) -> None:
        if not self.parser.is_between_frames:
            raise FrameError("the stream ended inside a frame")


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


def wait(fd: int, deadline: float, for_writing: bool) -> None:
    """Wait until the descriptor is ready.

    Raises:
        TimeoutError: the deadline (a `time.monotonic` value) passed first.
    """
    import select  # start-up time: a worker never waits with a deadline

    poll = select.poll()
    poll.register(fd, select.POLLOUT if for_writing else select.POLLIN)
    while not poll.poll(milliseconds(deadline - monotonic())):
        if monotonic() >= deadline:
            raise TimeoutError


def milliseconds(seconds: float) -> float:
    """Return what `poll` takes for a time to wait: never negative, rounded up, and at most a day at a time."""
    return min(max(0.0, seconds), 86_400.0) * 1000 + 0.5


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Tuple

    from .frames import Frame
