"""The second socket, on its own thread: what the host says while user code runs.

The thread sleeps in a read. It owns the set of calls that were taken back; `claim` and `retract` decide under one
lock whether a call has started, so that a call is either run or given back, never both and never neither.
"""

from __future__ import annotations

import _thread
import os
import select
import sys

from ..contract import codec, frames, messages
from ..contract.failures import main_stack
from ..contract.host_functions import lines
from . import interrupt

_PATIENCE = 1.0  # seconds for a host that does not read its control line
_lock = _thread.allocate_lock()  # guards the two below; nothing else happens under it
_retracted: set[int] = set()
_started: dict[int, int] = {}  # by lane: the newest call that has started


def claim(call_id: int) -> bool:
    """From the thread that runs it: return True if the call may start now, False if it was taken back."""
    with _lock:
        _started[call_id >> frames.LANE_SHIFT] = call_id  # one that was taken back is past, and is not to be once more
        if _retracted and call_id in _retracted:
            _retracted.discard(call_id)
            return False
        return True


def _retract(wanted: list[int]) -> list[int]:
    """Take back those calls that have not started, and return them."""
    with _lock:
        taken = [call_id for call_id in wanted if call_id not in _retracted and _is_ahead(call_id)]
        _retracted.update(taken)
    return taken


def _is_ahead(call_id: int) -> bool:
    return call_id > _started.get(call_id >> frames.LANE_SHIFT, 0)


class Control:
    """The control socket's reader.

    Args:
        channel: the control channel, read by this thread alone.
        replies: send pieces on the call channel of each lane, safe from any thread.
        cancel: stops a call.
    """

    def __init__(
        self, channel: DescriptorChannel, replies: Sequence[Callable[[Pieces], None]], cancel: Callable[[int], None]
    ) -> None:
        self._channel = channel
        self._replies = replies
        self._cancel = cancel
        self.loans: Loans | None = None  # where host and system can share memory
        self._write_lock = _thread.allocate_lock()  # one frame at a time; records come from any thread

    def start(self) -> None:
        """Start the thread."""
        _thread.start_new_thread(self._run, ())

    def send_record(self, pieces: Pieces, patience: float, fd: int | None = None) -> bool:
        """From any thread: write a small frame; return False when the host does not read within `patience` seconds.

        Args:
            fd: a descriptor that goes with it.
        """
        if not self._write_lock.acquire(True, patience):
            return False
        try:
            poll = select.poll()
            poll.register(self._channel.fileno_to_write(), select.POLLOUT)
            if not poll.poll(patience * 1000):
                return False
            if fd is not None:
                return self._channel.try_send_with(pieces, fd) > 0
            self._channel.send(pieces)  # a socket that can be written to has room for it
        except (OSError, ValueError):  # the host is gone, or user code has closed what is not its own
            return False
        finally:
            self._write_lock.release()
        return True

    def tell(self, pieces: Pieces) -> bool:
        """Write a frame about segments; see `loans`."""
        return self.send_record(pieces, _PATIENCE)

    def announce(self, pieces: Pieces, fd: int) -> bool:
        """Write a frame with a descriptor; see `loans`."""
        return self.send_record(pieces, _PATIENCE, fd)

    def send(self, pieces: Pieces) -> None:
        """Write one frame; safe from any thread."""
        with self._write_lock:
            self._channel.send(pieces)

    def _run(self) -> None:
        process = os.getpid()
        try:
            frame = self._channel.receive()
            while frame is not None:
                self._handle(frame)
                frame = self._channel.receive()
        except (OSError, frames.FrameError):
            pass
        finally:
            if os.getpid() == process:
                _die_with_group()

    def _handle(self, frame: Frame) -> None:
        if frame.opcode == messages.CANCEL:
            self._cancel(frame.call_id)
        elif frame.opcode == messages.RETRACT:
            wanted = messages.read_ids(frame.body)
            taken = _retract(wanted)
            reply = self._replies[wanted[0] >> frames.LANE_SHIFT if wanted else 0]
            reply(frames.pack(messages.RETRACTED, body=[messages.pack_ids(taken)]))
        elif frame.opcode == messages.CREDIT:
            lines[frame.call_id >> frames.LANE_SHIFT].credit(frame.call_id, *messages.read_ids(frame.body))
        elif frame.opcode == messages.RELEASE:
            objects = sys.modules.get("venvoy_worker.runtime.objects")  # not imported: there are none
            if objects is not None:
                objects.release(messages.read_ids(frame.body))
        elif frame.opcode == messages.PING:
            self.send(frames.pack(messages.PONG, call_id=frame.call_id))
        elif frame.opcode == messages.DUMP:
            text = main_stack(interrupt.main_thread())
            pieces, _ = codec.encode(text)
            self.send(frames.pack(messages.STACK, codec=codec.PICKLE, body=pieces))
        elif frame.opcode in (messages.SEGMENT, messages.SEGMENT_FREE) and self.loans is not None:
            fd = self._channel.take_descriptor() if frame.opcode == messages.SEGMENT else None
            self.loans.hear(frame, fd)


def _die_with_group() -> None:
    """The host is gone, and the system has no lifeline that would have ended us."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, 9)
    os._exit(1)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, List, Sequence, Union

    from ..contract.descriptors import DescriptorChannel
    from ..contract.frames import Frame
    from ..contract.loans import Loans

    Pieces = List[Union[bytes, bytearray, memoryview]]
