"""The one thread that runs user code in the background: output functions, forwarding, late completions.

Owns a queue. Output is bounded and counted when dropped, so that a slow consumer costs no memory; completions of
futures are never dropped. The thread lives while somebody holds it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable

from .log import logger

_MOST_BYTES = 16 << 20  # of output waiting to be delivered


class Notifier:
    """The thread and its queue; use `hold()` to get the running one."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())  # guards all below; no callback under it
        self._queue: deque[tuple[Callable[[], object], int]] = deque()
        self._bytes = 0
        self._is_stopping = False
        self.thread = threading.Thread(target=self._run, name="venvoy-notifier", daemon=True)
        self.thread.start()

    def post(self, callback: Callable[[], object]) -> None:
        """Run a callback on the notifier thread, after those posted before; never dropped."""
        with self._changed:
            self._queue.append((callback, 0))
            self._changed.notify()

    def post_output(self, callback: Callable[[], object], size: int) -> bool:
        """Run a callback that delivers `size` bytes of output; return False if there are too many already."""
        with self._changed:
            if self._bytes + size > _MOST_BYTES:
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


_guard = threading.Lock()  # guards the two below; the thread is started under it, nothing else
_running: Notifier | None = None
_holders = 0


def hold() -> Notifier:
    """Return the process's notifier, starting it for the first holder; pair with `let_go`."""
    global _running, _holders
    with _guard:
        if _running is None:
            _running = Notifier()
        _holders += 1
        return _running


def let_go() -> threading.Thread | None:
    """Give up one hold; the last one stops the thread, which is returned to be joined."""
    global _running, _holders
    with _guard:
        _holders -= 1
        if _holders or _running is None:
            return None
        last, _running = _running, None
    last.stop()
    return last.thread


def _after_fork_in_child() -> None:
    global _guard, _running, _holders
    _guard, _running, _holders = threading.Lock(), None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
