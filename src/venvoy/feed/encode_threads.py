"""Threads that run the encoders instead of the thread that feeds.

Owns a bounded queue of items. Each thread takes what waits, up to a batch, so that an item fed alone is not held back.
"""

from __future__ import annotations

import threading
from collections import deque
from sys import getsizeof
from time import monotonic
from typing import Any

from ..errors import FeedStalled, SwarmClosed
from .core import Core

_MOST_BYTES = 8 << 20  # of items that wait, by sys.getsizeof
_BATCH = 512


class EncodeThreads:
    """The threads and their queue.

    Args:
        core: of the swarm.
        count: of threads.
    """

    def __init__(self, core: Core, count: int) -> None:
        self._core = core
        self._changed = threading.Condition(threading.Lock())  # guards all below; nothing is encoded under it
        self._items: deque[tuple[Any, int]] = deque()
        self._size = 0
        self._is_closed = False
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._run, name="venvoy-feed-encode", daemon=True) for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def feed(self, item: Any, timeout: float | None) -> None:
        """Queue an item.

        Raises:
            BaseException: what an encoder, or the feeding of an item queued before, raised.
            FeedStalled: there was no room in time.
        """
        size = getsizeof(item)
        deadline = None if timeout is None else monotonic() + timeout
        with self._changed:
            while True:
                self._check()
                if self._size < _MOST_BYTES:
                    break
                remaining = None if deadline is None else deadline - monotonic()
                if remaining is not None and remaining <= 0:
                    raise FeedStalled(f"{self._core.plan.name}: no room within {timeout} s; the item was not fed")
                self._changed.wait(remaining)
            self._items.append((item, size))
            self._size += size
            self._changed.notify()

    def _check(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if self._is_closed:
            raise SwarmClosed(f"{self._core.plan.name} takes no items: it is being closed")

    def _run(self) -> None:
        while items := self._take():
            try:
                self._core.feeding.feed_batch(items, None)
            except BaseException as error:  # told to whoever feeds next, or closes
                with self._changed:
                    self._failure = self._failure or error
                    self._changed.notify_all()

    def _take(self) -> list[Any]:
        with self._changed:
            while not self._items and not self._is_closed:
                self._changed.wait()
            taken = [self._items.popleft() for _ in range(min(_BATCH, len(self._items)))]
            self._size -= sum(size for _, size in taken)
            self._changed.notify_all()
            return [item for item, _ in taken]

    def close(self, is_aborted: bool = False) -> None:
        """Encode what is queued, unless aborted, and end the threads.

        Raises:
            BaseException: what an encoder raised.
        """
        with self._changed:
            self._is_closed = True
            if is_aborted:
                with self._core.desk.changed:
                    self._core.desk.lost += [item for item, _ in self._items]
                self._items.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        if self._failure is not None and not is_aborted:
            raise self._failure
