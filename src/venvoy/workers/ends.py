"""The host's ends of what connects it to one child: call channel, control line, lifeline, status page.

`Ends` are opened together or not at all. The lifeline is a pipe that carries no data: when the host is gone, the kernel
closes our end and tells the child so, whatever the child is doing.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial

from venvoy_worker.contract import frames, messages
from venvoy_worker.contract.channel import PIPE_SIZE, Channel, PipeEnd, can_wake_readers
from venvoy_worker.contract.descriptors import DescriptorChannel
from venvoy_worker.contract.frames import Frame, FrameError
from venvoy_worker.contract.loans import Loans

from ..collector import Collector
from ..processes.process import Process, StatusPage

Pieces = list[bytes | bytearray | memoryview]
_has_pipes = cache(can_wake_readers)


class ControlLine:
    """The control socket: small frames that are written at once or not at all, from any thread.

    Args:
        sock: our end, owned from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._channel = DescriptorChannel(sock)
        self._lock = threading.Lock()  # one frame at a time, and none after the close; nothing else under it
        self._is_torn = False  # a frame was written in part
        self._on_frame: Callable[[Frame], object] | None = None
        self.loans: Loans | None = None  # what is said about segments, and by whom

    def say(self, opcode: int, call_id: int = 0, body: bytes | bytearray = b"") -> bool:
        """Write one frame; return False if it is not heard: the child is gone, or has not listened for very long."""
        return self.tell(frames.pack(opcode, call_id=call_id, body=[body]))

    def tell(self, pieces: Pieces) -> bool:
        """Write one frame; return False if the worker does not hear it."""
        return self._write(partial(self._channel.try_send_with, pieces), pieces)

    def announce(self, pieces: Pieces, *descriptors: int) -> bool:
        """Write one frame with descriptors; return False if the worker does not get them."""
        return self._write(partial(self._channel.try_send_with, pieces, *descriptors), pieces)

    def say_no_more(self) -> None:
        """Let the child meet end-of-file once it has read what was said."""
        with self._lock:
            self._channel.shut_writing()

    def _write(self, send: Callable[[], int], pieces: Pieces) -> bool:
        size = sum(map(len, pieces))
        with self._lock:
            if self._is_torn or self._channel.fileno() < 0:
                return False
            try:
                sent = send()
            except OSError:
                return False
            self._is_torn = 0 < sent < size
            return sent == size

    @property
    def is_open(self) -> bool:
        """True while a worker may still hear what is said."""
        return not self._is_torn and self._channel.fileno() >= 0

    def listen(self, collector: Collector, on_frame: Callable[[Frame], object]) -> None:
        """On the collector thread: call back with each frame from now on."""
        fd = self._channel.fileno()
        if fd >= 0:
            self._on_frame = on_frame
            collector.watch(fd, lambda: self.read(collector))

    def read(self, collector: Collector) -> None:
        """On the collector thread: take what is there now."""
        try:
            frame = self._channel.try_receive()
            while frame is not None and self._on_frame is not None:
                if frame.opcode not in (messages.SEGMENT, messages.SEGMENT_FREE):
                    self._on_frame(frame)
                elif self.loans is not None:
                    fd = self._channel.take_descriptor() if frame.opcode == messages.SEGMENT else None
                    self.loans.hear(frame, fd)
                frame = self._channel.try_receive()
        except (EOFError, OSError, FrameError):
            collector.unwatch(self._channel.fileno())

    def forget_lock(self) -> None:
        """In a process the host forked: the thread that may have held the lock is not there."""
        self._lock = threading.Lock()

    def close(self, collector: Collector | None) -> None:
        """Close our end; on the collector thread if it was listened to, and what has been said is heard first."""
        if collector is not None and self._on_frame is not None:
            self.read(collector)
        with self._lock:
            if collector is not None:
                collector.unwatch(self._channel.fileno())
            self._channel.close()
        if self.loans is not None:
            self.loans.close()


def socket_pair(undo: ExitStack, childs: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Return (our end, the child's end) of a new connection, each to be closed by its stack."""
    ours, childs_own = socket.socketpair()
    undo.callback(ours.close)
    childs.callback(childs_own.close)
    return ours, childs_own


def _open_lanes(undo: ExitStack, childs: ExitStack, number: int) -> tuple[list[Channel], list[tuple[int, ...]]]:
    """Return our channels and, for each, the child's descriptors, to read and to write; one where it is the same."""
    if number == 1 and _has_pipes() and (lane := _open_pipes(undo, childs)):  # they are faster, see `Channel`
        return [lane[0]], [lane[1]]
    pairs = [socket_pair(undo, childs) for _ in range(number)]
    return [Channel(ours) for ours, _ in pairs], [(childs_own.fileno(),) for _, childs_own in pairs]


def _open_pipes(undo: ExitStack, childs: ExitStack) -> tuple[Channel, tuple[int, int]] | None:
    """As `_open_lanes`, of one; None where the system gives small pipes only, as to a user who has very many."""
    import fcntl  # missing on Windows, where `import venvoy` has to work

    with ExitStack() as undo_these, ExitStack() as childs_own:
        answers, answers_child = os.pipe()
        childs_own.callback(os.close, answers_child)
        reader = PipeEnd(answers)
        undo_these.callback(reader.close)
        calls_child, calls = os.pipe()
        channel = Channel(reader, PipeEnd(calls, "w"), PipeEnd(calls_child))
        undo_these.callback(channel.close)
        os.set_blocking(calls, False)
        if min(fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) for fd in (answers, calls)) < PIPE_SIZE:
            return None  # what is sent ahead would not fit
        undo.enter_context(undo_these.pop_all())
        childs.enter_context(childs_own.pop_all())
    return channel, (calls_child, answers_child)


class Ends:
    """What the host holds of one child.

    Args:
        spawn: starts the process, given the descriptors it inherits: those of the lanes, as on the command line; and
            control, lifeline, status page.
        lanes: how many calls it runs at once.

    Raises:
        OSError: a descriptor or the process cannot be had; nothing is left open then.
    """

    def __init__(self, spawn: Callable[[list[tuple[int, ...]], tuple[int, int, int]], Process], lanes: int) -> None:
        with ExitStack() as undo, ExitStack() as childs:
            self.channels, lanes_child = _open_lanes(undo, childs, lanes)
            control, control_child = socket_pair(undo, childs)
            lifeline_child, self._lifeline = os.pipe()
            undo.callback(os.close, self._lifeline)
            childs.callback(os.close, lifeline_child)
            self.page = StatusPage()
            undo.callback(self.page.freeze)
            childs.callback(self.page.close_descriptor)
            self.control = ControlLine(control)
            self.process = spawn(lanes_child, (control_child.fileno(), lifeline_child, self.page.fd))
            undo.pop_all()

    def close_in_fork(self) -> None:
        """In a process the host forked: close what is the host's, whatever locks its threads were holding."""
        self.control.forget_lock()
        self.close(None)

    def close(self, collector: Collector | None) -> None:
        """Close everything but the call channels, which whoever reads them closes."""
        self.control.close(collector)
        self.page.freeze()
        lifeline, self._lifeline = self._lifeline, -1
        if lifeline >= 0:
            os.close(lifeline)
