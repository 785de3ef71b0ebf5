"""`map` and its kin: drawn lazily, sent in chunks sized by what calls are measured to take.

A `Window` says what may be drawn and sent, without any I/O; a `Mapping` is the blocking iterator above it, and owns the
chunks in flight. The first window is drawn by the call itself, as `Executor.map` does, the rest as results are taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Any

from ..errors import CallTimeout, EnvError, PoolError, WorkerStartError
from .jobs import CallFuture, Job

_CHUNK_SECONDS = 0.01  # a chunk should keep a worker busy so long: a thousand times the cost of sending it
_MOST_ITEMS = 8192  # of one chunk
_GROWTH = 16  # a chunk is at most so many times as large as the last measured one
_NO_CALL_CAN_BE_MADE = (PoolError, EnvError, WorkerStartError)  # these are nobody's result

Outcome = tuple[list[Any], BaseException | None]
"""The values of a chunk, and the error that ended it early."""


@dataclass(frozen=True, slots=True)
class MapOptions:
    """How a `map` goes about it; see `Calling.map`."""

    timeout: float | None = None
    chunksize: int | None = None
    buffersize: int | None = None
    ordered: bool = True
    return_exceptions: bool = False

    def __post_init__(self) -> None:
        for name in ("chunksize", "buffersize"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} must be >= 1")
        for name in ("ordered", "return_exceptions"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} is True or False, not {getattr(self, name)!r}")


class Window:
    """What may be drawn from the input of one `map`, and in pieces of which size.

    Args:
        items: what to map over.
        most_chunks: how many may be in flight.
        chunksize: items per chunk; None measures.
        buffersize: results drawn ahead of the consumer, at most; None is `most_chunks` chunks.

    Raises:
        TypeError: `items` cannot be iterated over.
    """

    def __init__(self, items: Iterable[Any], most_chunks: int, chunksize: int | None, buffersize: int | None) -> None:
        self._items = iter(items)
        self._most_chunks = most_chunks
        self._size = chunksize or 1
        self._is_fixed = chunksize is not None
        self._room = buffersize
        self._is_exhausted = False
        self.error: Exception | None = None  # of the user's iterable: it comes after the results before it

    @property
    def is_bounded(self) -> bool:
        """True if `taken` has to be told of each result."""
        return self._room is not None

    def draw(self, in_flight: int) -> list[Any]:
        """Return the items of the next chunk; none when no more may be sent now, or there are no more.

        Args:
            in_flight: how many chunks are.
        """
        size = self._size_of_next(in_flight)
        if self._is_exhausted or size < 1:
            return []
        chunk: list[Any] = []
        try:
            chunk.extend(islice(self._items, size))  # keeps what came before an error
        except Exception as error:
            self.error = error
        self._is_exhausted = len(chunk) < size
        self._drawn(len(chunk))
        return chunk

    def _size_of_next(self, in_flight: int) -> int:
        """Return how many items the next chunk may have."""
        if in_flight >= self._most_chunks:
            return 0
        return self._size if self._room is None else min(self._size, self._room)

    def _drawn(self, count: int) -> None:
        if self._room is not None:
            self._room -= count

    def taken(self) -> None:
        """The consumer has taken a result."""
        if self._room is not None:
            self._room += 1

    def measured(self, size: int, seconds: float) -> None:
        """A chunk of that size has taken so long in its worker."""
        if not self._is_fixed:
            wanted = int(size * _CHUNK_SECONDS / seconds) if seconds else size * _GROWTH
            self._size = max(1, min(wanted, size * _GROWTH, _MOST_ITEMS))


def is_result(error: BaseException) -> bool:
    """Return True if an error may stand in the place of a result, False if it says that no call can be made."""
    return isinstance(error, Exception) and not isinstance(error, _NO_CALL_CAN_BE_MADE)


class Mapping:
    """One `map` in progress; an iterator of its results is `results()`.

    Args:
        window: over the input.
        submit: sends a chunk of items; returns its jobs, usually one, each with its number of items.
        options: how.
        outcome: what the result of a job means; by default it is an `Outcome`.
    """

    def __init__(
        self,
        window: Window,
        submit: Callable[[list[Any]], Iterable[tuple[Job, int]]],
        options: MapOptions,
        outcome: Callable[[Any], Outcome] | None = None,
    ) -> None:
        self.window = window
        self._submit = submit
        self._outcome = outcome
        self._is_ordered = options.ordered
        self._is_tolerant = options.return_exceptions
        self._sent: deque[tuple[Job, int]] = deque()
        self._values: list[Any] = []  # of the chunk that is being yielded, the next one last
        self._error: BaseException | None = None  # that ends it
        self._deadline = None if options.timeout is None else monotonic() + options.timeout

    def fill(self) -> None:
        """Draw and send chunks until the window is full."""
        window, sent = self.window, self._sent
        chunk = window.draw(len(sent))
        while chunk:
            sent.extend(self._submit(chunk))
            chunk = window.draw(len(sent))

    def results(self) -> Generator[Any, None, None]:
        """Yield the results; leaving early, or dropping the iterator, cancels what has not ended.

        Raises:
            CallTimeout: a result was not there in time.
        """
        window = self.window
        is_bounded = window.is_bounded
        try:
            while self._sent:
                self._values, self._error = values, error = self._next()
                self.fill()
                values.reverse()
                while values:
                    if is_bounded:
                        window.taken()
                        self.fill()
                    yield values.pop()
                if error is not None:
                    raise error
            if window.error is not None:
                raise window.error
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Cancel what has not ended."""
        for job, _ in self._sent:
            job.future.cancel()

    @property
    def in_flight(self) -> int:
        """How many chunks are."""
        return len(self._sent)

    @property
    def has_value(self) -> bool:
        """True when the next result, or the error that ends it, is there already."""
        return bool(self._values) or self._error is not None

    def awaited(self) -> list[CallFuture]:
        """Return the futures of which one has to be done for the next result; none if that is there already."""
        if self.has_value:
            return []
        futures = [job.future for job, _ in self._sent]
        return futures[:1] if self._is_ordered else futures

    def patience(self) -> float | None:
        """Return the seconds until a result must be there; None for ever."""
        return None if self._deadline is None else max(0.0, self._deadline - monotonic())

    def _next(self) -> Outcome:
        """Wait for the next chunk that is to be yielded, and return what came of it."""
        pair = self._sent[0] if self._is_ordered else self._first_done()
        job, size = pair
        outcome = self._await(job, size)
        self._sent.remove(pair)
        return outcome

    def _first_done(self) -> tuple[Job, int]:
        done, _ = wait([job.future for job, _ in self._sent], self.patience(), FIRST_COMPLETED)
        if not done:
            raise too_late()
        return next(pair for pair in self._sent if pair[0].future in done)

    def _await(self, job: Job, size: int) -> Outcome:
        future = job.future
        try:
            result = future.result(self.patience())
        except Exception as error:
            if error is not future._exception:  # not the call's own
                if isinstance(error, FutureTimeout):
                    raise too_late() from None
                raise
            if not self._is_tolerant or not is_result(error):
                raise
            return [error] * size, None
        self.window.measured(size, job.seconds)
        return result if self._outcome is None else self._outcome(result)


def too_late() -> CallTimeout:
    """Return the error of a map whose result was not there in time."""
    return CallTimeout("map: a result was not there before the timeout")
