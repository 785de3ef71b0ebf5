"""What a running call may say to the host before its reply; see `progress`, `questions` and `streams`.

Owns these parts, which are made when they are first needed, since most workers never do.
"""

from __future__ import annotations

import _thread


class Line:
    """See the module.

    Args:
        channel: the call channel.
        send: writes a frame on it, from any thread.
        run_call: runs a nested call, on the thread that calls it.
        is_open: says whether a call runs, or waits for others that run within it.
    """

    def __init__(
        self,
        channel: Channel,
        send: Callable[[Pieces], None],
        run_call: Callable[[Frame], None],
        is_open: Callable[[int], bool],
    ) -> None:
        self._parts = (channel, send, run_call, is_open)
        self._lock = _thread.allocate_lock()  # guards the making of the two below
        self._reporter: Reporter | None = None
        self._questions: Questions | None = None
        self._sender: Sender | None = None  # of the call that is streamed now
        self.is_used = False  # the main loop has to look here, before a reply and for its next frame

    def progress(self, call_id: int, done: float, total: float | None, message: str) -> None:
        """Report how far a call is; 0 is none."""
        if self._reporter is None:
            from .progress import Reporter

            with self._lock:
                self._reporter = self._reporter or Reporter(self._parts[1], self._parts[3])
        self.is_used = True
        self._reporter.report(call_id, done, total, message)

    def ask(self, name: str | int, call_id: int, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """Call a function of the host's; see `Questions.ask`."""
        if self._questions is None:
            from .questions import Questions

            with self._lock:
                self._questions = self._questions or Questions(*self._parts)
        self.is_used = True  # before we look whether the call still runs, which the main loop does the other way round
        return self._questions.ask(name, call_id, args, kwargs)

    def stream(self, call_id: int, source: object, limit: int | None) -> None:
        """Send what an iterable yields; see `streams`."""
        from . import streams

        around, self._sender = self._sender, streams.Sender(call_id, self._parts[1], limit)
        try:
            streams.run(self._sender, source)
        finally:
            self._sender = around

    def credit(self, call_id: int, taken: int, items: int, size: int) -> None:
        """On the control thread: the consumer of a stream takes more."""
        sender = self._sender
        if sender is not None and sender.call_id == call_id:
            sender.credit(taken, items, size)

    def wake(self) -> None:
        """On the control thread: a call that may wait for credit was cancelled."""
        sender = self._sender
        if sender is not None:
            sender.wake()

    def end(self, call_id: int) -> None:
        """Before the reply to a call: nothing more can be said on its behalf."""
        if self._reporter is not None and self._reporter.held is not None:
            self._reporter.flush()
        if self._questions is not None:
            self._questions.end(call_id)

    def next_frame(self) -> Frame | None:
        """Return the next frame of the call channel, for the main loop."""
        if self._questions is None or not self._questions.is_in_use:
            self.is_used = False
            return self._parts[0].receive()
        return self._questions.next_frame()


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, List, Union

    from ..contract.channel import Channel
    from ..contract.frames import Frame
    from .progress import Reporter
    from .questions import Questions
    from .streams import Sender

    Pieces = List[Union[bytes, bytearray, memoryview]]
