"""The threads of the background: one runs the user's output functions, forwards and logs, another completes futures.

Two roads, since an output function that blocks must not hold up the time-out of a call. Output is bounded and counted
when dropped, so that a slow consumer costs no memory; completions of futures are never dropped. The threads live while
somebody holds them.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable

from .held import Held
from .log import logger

_MOST_BYTES = 16 << 20  # of output waiting to be delivered


class Road:
    """A thread and its queue.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._changed = threading.Condition(threading.Lock())  # guards all below; no callback under it
        self._queue: deque[tuple[Callable[[], object], int]] = deque()
        self._bytes = 0
        self._is_stopping = False
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def post(self, callback: Callable[[], object], size: int) -> bool:
        """Run a callback after those posted before; return False if it has a size and too much is waiting already."""
        with self._changed:
            if size and self._bytes + size > _MOST_BYTES:
                return False
            self._bytes += size
            self._queue.append((callback, size))
            self._changed.notify()
        return True

    def stop(self) -> None:
        """Let the thread end after what is queued now."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._is_stopping:
                    self._changed.wait()
                if not self._queue:
                    return
                callback, size = self._queue.popleft()
                self._bytes -= size
            try:
                callback()
            except BaseException:  # sys.exit() in a callback must not end everybody's notifications
                logger.exception("a background callback raised")
            callback = None  # type: ignore[assignment]  # what it refers to must not outlive it


class Notifier:
    """The two roads; use `hold()` to get the running ones."""

    def __init__(self) -> None:
        self._completions = Road("venvoy-completions")
        self._outputs = Road("venvoy-notifier")

    @property
    def threads(self) -> list[threading.Thread]:
        """Both threads."""
        return [self._completions.thread, self._outputs.thread]

    def post(self, callback: Callable[[], object]) -> None:
        """Run a callback that completes futures; never dropped."""
        self._completions.post(callback, 0)

    def post_output(self, callback: Callable[[], object], size: int) -> bool:
        """Run a callback that delivers `size` bytes of output; return False if there are too many already."""
        return self._outputs.post(callback, size)

    def stop(self) -> None:
        """Let the threads end after what is queued now."""
        self._completions.stop()
        self._outputs.stop()


_held = Held(Notifier)
hold, let_go = _held.hold, _held.let_go

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_held.forget)
