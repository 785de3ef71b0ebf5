"""Iterators among the arguments of a call: they stay here, and the worker draws from them.

A `Drawer` owns one iterator for the time of one call. It is drawn from in the thread that answers the worker's
questions, item by item as long as items are slow to come, else in batches that double: no more is drawn ahead than one.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from time import monotonic
from typing import Any

from venvoy_worker.contract import batches
from venvoy_worker.contract.host_functions import PassedIterator

from ..errors import EncodingError
from ..log import logger

_MOST = 1024  # items drawn at a time
_QUICK = 0.001  # seconds that a batch may take to draw, to be doubled


class Drawer:
    """See the module; called by the worker, it returns (items, whether these are the last).

    Args:
        iterator: what is drawn from.
    """

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator
        self._most = 1
        self._error: Exception | None = None  # that comes after items which have been drawn
        self.is_drawn = False

    def __call__(self) -> tuple[list[Any], bool]:
        """Return the next items, and whether they are the last.

        Raises:
            Exception: what the iterator raises, once the items before it are there.
        """
        if self._error is not None:
            raise self._error
        self.is_drawn = True
        items: list[Any] = []
        begin, size = monotonic(), 0
        try:
            for item in self._iterator:
                plain = batches.plain(item)
                items.append(item if plain is batches.NOT_PLAIN else plain)
                if plain is batches.NOT_PLAIN:  # nobody must have the time to change it
                    break
                size += batches.size_of(plain)
                if len(items) >= self._most or size >= batches.FIRST_BYTES:
                    break
            else:
                return items, True
        except Exception as error:
            if not items:
                raise
            self._error = error
        self._most = min(2 * self._most, _MOST) if monotonic() - begin < _QUICK else 1
        return items, False

    def close(self) -> None:
        """The call has ended: close the iterator, if it is a generator or the like."""
        try:
            getattr(self._iterator, "close", _nothing)()
        except Exception:  # of its `finally`; or it is being drawn from by a thread that will find its call ended
            logger.exception("closing an iterator among the arguments raised")


def _nothing() -> None:
    """Iterators need not have anything to close."""


def drawn(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments in whose iterators' place there is what makes the worker draw from them.

    Raises:
        EncodingError: one is an open file.
    """
    args = tuple([_drawn(f"args[{index}]", value) for index, value in enumerate(args)])
    return args, {name: _drawn(f"kwargs[{name!r}]", value) for name, value in kwargs.items()}


def _drawn(where: str, value: Any) -> Any:
    if not hasattr(type(value), "__next__"):
        return value
    if isinstance(value, io.IOBase):
        raise EncodingError(
            f"argument {where} is an open file, which cannot travel: "
            "give its name, or its lines as (line for line in file)"
        )
    return PassedIterator(Drawer(value))
