"""Iterators among the arguments of a call: they stay here, and the worker draws from them.

A `Drawer` owns one iterator for the time of one call. It is drawn from in the thread that answers the worker's
questions, item by item as long as items are slow to come, else in batches that double: no more is drawn ahead than one.
An `AsyncDrawer` does so on the event loop.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from time import monotonic
from typing import Any

from venvoy_worker.contract import batches
from venvoy_worker.contract.host_functions import PassedIterator

from ..errors import EncodingError
from ..log import logger

_MOST = 1024  # items drawn at a time
_PLAIN = frozenset([type(None), bool, int, float, str, bytes, list, tuple, dict, set])  # none of them is an iterator
_QUICK = 0.001  # seconds that a batch may take to draw, to be doubled


class _Batch:
    """The items of one answer, and when it is full.

    Args:
        most: items at most.
    """

    def __init__(self, most: int) -> None:
        self.items: list[Any] = []
        self._most, self._size, self._begin = most, 0, monotonic()

    def add(self, item: Any) -> bool:
        """Add an item; return True if it is to be the last."""
        plain = batches.plain(item)
        if plain is batches.NOT_PLAIN:  # nobody must have the time to change it
            self.items.append(item)
            return True
        self.items.append(plain)
        self._size += batches.size_of(plain)
        return len(self.items) >= self._most or self._size >= batches.FIRST_BYTES

    def most_next(self) -> int:
        """Return how many items the next one may have."""
        return min(2 * self._most, _MOST) if monotonic() - self._begin < _QUICK else 1


class AnyDrawer:
    """What drawers have in common."""

    def __init__(self) -> None:
        self._most = 1
        self._error: Exception | None = None  # that comes after items which have been drawn
        self.is_drawn = False

    def _open(self) -> _Batch:
        if self._error is not None:
            raise self._error
        self.is_drawn = True
        return _Batch(self._most)

    def _failed(self, batch: _Batch, error: Exception) -> None:
        """The iterator has raised; the items before come first."""
        if not batch.items:
            raise error
        self._error = error

    def close(self) -> None:
        """The call has ended."""

    async def aclose(self) -> None:
        """The call has ended; where that has to be awaited."""


class Drawer(AnyDrawer):
    """See the module; called by the worker, it returns (items, whether these are the last).

    Args:
        iterator: what is drawn from.
    """

    def __init__(self, iterator: Iterator[Any]) -> None:
        super().__init__()
        self._iterator = iterator

    def __call__(self) -> tuple[list[Any], bool]:
        """Return the next items, and whether they are the last.

        Raises:
            Exception: what the iterator raises, once the items before it are there.
        """
        batch = self._open()
        try:
            for item in self._iterator:
                if batch.add(item):
                    break
            else:
                return batch.items, True
        except Exception as error:
            self._failed(batch, error)
        self._most = batch.most_next()
        return batch.items, False

    def close(self) -> None:
        """The call has ended: close the iterator, if it is a generator or the like."""
        try:
            getattr(self._iterator, "close", _nothing)()
        except Exception:  # of its `finally`; or it is being drawn from by a thread that will find its call ended
            logger.exception("closing an iterator among the arguments raised")


class AsyncDrawer(AnyDrawer):
    """A `Drawer` for the event loop.

    Args:
        iterator: what is drawn from.
    """

    def __init__(self, iterator: AsyncIterator[Any]) -> None:
        super().__init__()
        self._iterator = iterator

    async def __call__(self) -> tuple[list[Any], bool]:
        """As that of `Drawer`."""
        batch = self._open()
        try:
            async for item in self._iterator:
                if batch.add(item):
                    break
            else:
                return batch.items, True
        except Exception as error:
            self._failed(batch, error)
        self._most = batch.most_next()
        return batch.items, False

    async def aclose(self) -> None:
        """The call has ended: close the iterator, if it is an asynchronous generator or the like."""
        close = getattr(self._iterator, "aclose", None)
        if close is None:
            return
        try:
            await close()
        except Exception:
            logger.exception("closing an asynchronous iterator among the arguments raised")


def _nothing() -> None:
    """Iterators need not have anything to close."""


def drawn(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments in whose iterators' place there is what makes the worker draw from them.

    Raises:
        EncodingError: one is an open file.
    """
    if not _PLAIN.issuperset(map(type, args)):
        args = tuple([_drawn(f"args[{index}]", value) for index, value in enumerate(args)])
    if kwargs and not _PLAIN.issuperset(map(type, kwargs.values())):
        kwargs = {name: _drawn(f"kwargs[{name!r}]", value) for name, value in kwargs.items()}
    return args, kwargs


def _drawn(where: str, value: Any) -> Any:
    if hasattr(type(value), "__anext__") and not hasattr(type(value), "__venvoy_reduce__"):  # else it is a proxy of one
        return PassedIterator(AsyncDrawer(value))
    if not hasattr(type(value), "__next__"):
        return value
    if isinstance(value, io.IOBase):
        raise EncodingError(
            f"argument {where} is an open file, which cannot travel: "
            "give its name, or its lines as (line for line in file)"
        )
    return PassedIterator(Drawer(value))
