"""`map`: drawn lazily, sent in chunks sized by what calls are measured to take, yielded in order.

Owns the window of chunks in flight. The first window is drawn by the call itself, as `Executor.map` does, the rest as
results are taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import TimeoutError as FutureTimeout
from itertools import islice
from time import monotonic
from typing import Any

from ..errors import CallTimeout
from .jobs import Job

_CHUNK_SECONDS = 0.01  # a chunk should keep a worker busy so long: a thousand times the cost of sending it
_MOST_ITEMS = 8192  # of one chunk
_GROWTH = 16  # a chunk is at most so many times as large as the last measured one


class Mapping:
    """One `map` in progress; an iterator of its results is `results()`.

    Args:
        items: what to map over; tuples of arguments if `is_starred`.
        submit: sends a chunk of items, returns its job, whose result is (values, error or None).
        workers: how many may be busy at once.
        chunksize: items per chunk; None measures.
        buffersize: results drawn ahead of the consumer, at most; None is two chunks a worker.
    """

    def __init__(
        self,
        items: Iterable[Any],
        submit: Callable[[list[Any]], Job],
        workers: int,
        chunksize: int | None,
        buffersize: int | None,
    ) -> None:
        self._items = iter(items)
        self._submit = submit
        self._most_chunks = 2 * workers
        self._size = chunksize or 1
        self._is_fixed = chunksize is not None
        self._room = buffersize
        self._chunks: deque[tuple[Job, int]] = deque()
        self._is_exhausted = False
        self._error: Exception | None = None

    def fill(self) -> None:
        """Draw and send chunks until the window is full."""
        while not self._is_exhausted and len(self._chunks) < self._most_chunks:
            size = self._size if self._room is None else min(self._size, self._room)
            if size < 1:
                return
            chunk = self._draw(size)
            if chunk:
                if self._room is not None:
                    self._room -= len(chunk)
                self._chunks.append((self._submit(chunk), len(chunk)))

    def _draw(self, size: int) -> list[Any]:
        """Return the next items; an error of the user's iterable is kept until the results before it are taken."""
        chunk: list[Any] = []
        try:
            chunk.extend(islice(self._items, size))  # keeps what came before an error
        except Exception as error:
            self._error = error
        self._is_exhausted = len(chunk) < size
        return chunk

    def results(self, deadline: float | None) -> Iterator[Any]:
        """Yield the results in order; leaving early cancels what has not begun.

        Raises:
            CallTimeout: a result was not there at the deadline, a `time.monotonic` value.
        """
        try:
            while self._chunks:
                job, size = self._chunks.popleft()
                values, error = self._await(job, deadline)
                self._measure(job, size)
                self.fill()
                job = None  # type: ignore[assignment]  # its future holds the results until then
                values.reverse()
                while values:
                    if self._room is not None:
                        self._room += 1
                        self.fill()
                    yield values.pop()
                if error is not None:
                    raise error
            if self._error is not None:
                raise self._error
        finally:
            for job, _ in self._chunks:
                job.future.cancel()

    def _await(self, job: Job, deadline: float | None) -> tuple[list[Any], BaseException | None]:
        try:
            reply: tuple[list[Any], BaseException | None] = job.future.result(
                None if deadline is None else max(0.0, deadline - monotonic())
            )
        except FutureTimeout:
            if job.future.done():
                raise  # the call's own
            job.future.cancel()
            raise CallTimeout("map: a result was not there before the timeout") from None
        except BaseException:  # Ctrl-C in the waiting thread, as well as the call's own error
            job.future.cancel()
            raise
        return reply

    def _measure(self, job: Job, size: int) -> None:
        if not self._is_fixed:
            wanted = int(size * _CHUNK_SECONDS / job.seconds) if job.seconds else size * _GROWTH
            self._size = max(1, min(wanted, size * _GROWTH, _MOST_ITEMS))
