"""How far the running call is: at most so many frames a second go to the host, and never without the last.

Owns what is held back, and the thread that sends it when its time has come. Law: frames are written in the order in
which they were made, so it happens under the lock.
"""

from __future__ import annotations

import _pickle
import _thread
from time import monotonic

from ..contract import codec, frames, messages
from . import interrupt, stdio

_INTERVAL = 0.05  # seconds


class Reporter:
    """See the module.

    Args:
        send: writes a frame, from any thread.
        is_open: says whether a call runs.
    """

    def __init__(self, send: Callable[[Pieces], None], is_open: Callable[[int], bool]) -> None:
        self._send = send
        self._is_open = is_open
        self._lock = _thread.allocate_lock()  # guards all below, and the order of writes
        self.held: Report | None = None
        self._call_id = 0  # of the newest report
        self._next = 0.0  # when another may be sent
        self._is_timed = False  # there is a thread that will send what is held

    def report(self, call_id: int, done: float, total: float | None, message: str) -> None:
        """From any thread: send a report, or hold it back for a moment.

        Raises:
            TypeError: it is not made of numbers and a text.
        """
        report = (call_id, _number("done", done), None if total is None else _number("total", total), str(message))
        if call_id and not stdio.is_fork():
            interrupt.shielded(self._take, report)

    def _take(self, report: Report) -> None:
        with self._lock:
            now = monotonic()
            if report[0] == self._call_id and now < self._next:
                self.held = report
                if not self._is_timed:
                    self._is_timed = True
                    _thread.start_new_thread(self._send_later, ())
                return
            self._call_id, self._next = report[0], now + _INTERVAL
            self._write(report)

    def flush(self) -> None:
        """Send what is held back: the call ends."""
        with self._lock:
            if self.held is not None:
                self._write(self.held)

    def _send_later(self) -> None:
        """On a thread of its own: send what is held when its time has come, unless that has been done by then."""
        never = _thread.allocate_lock()
        never.acquire()
        while True:
            with self._lock:
                wait = self._next - monotonic()
                if self.held is None or wait <= 0:
                    self._is_timed = False
                    if self.held is not None and self._is_open(self.held[0]):
                        self._next = monotonic() + _INTERVAL
                        self._write(self.held)
                    return
            never.acquire(True, wait)

    def _write(self, report: Report) -> None:
        self.held = None
        call_id, *news = report
        body = _pickle.dumps(tuple(news), 5)
        try:
            self._send(frames.pack(messages.PROGRESS, 0, codec.PICKLE, call_id=call_id, body=[body]))
        except OSError:  # the host is gone, or user code has closed what is not its own
            pass


def _number(name: str, value: object) -> float:
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) or hasattr(value, "__float__"):
        return float(value)
    raise TypeError("progress(): %s is a number, not %r" % (name, value))


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, List, Optional, Tuple, Union

    Pieces = List[Union[bytes, bytearray, memoryview]]
    Report = Tuple[int, float, Optional[float], str]  # call id, done, total, message
