"""An event that happens once. Stateless but for what each `Latch` holds."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class Latch(threading.Event):
    """An event that is set once, and also calls back whoever cannot block until then."""

    def __init__(self) -> None:
        super().__init__()
        self._callbacks: deque[Callable[[], object]] = deque()

    def set(self) -> None:
        """Wake whoever waits, and run the callbacks in this thread; they must not block."""
        super().set()
        self._tell()

    def tell(self, callback: Callable[[], object]) -> None:
        """Call back once it is set, from the thread that sets it; here and now if it is set already."""
        self._callbacks.append(callback)  # first: then one of the two sees the other
        if self.is_set():
            self._tell()

    def _tell(self) -> None:
        while True:
            try:
                callback = self._callbacks.popleft()
            except IndexError:
                return
            callback()
