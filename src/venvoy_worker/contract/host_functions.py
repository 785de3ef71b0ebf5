"""Functions of the host's that a call may call: as the host passes them, and as code in a worker sees them.

Owns, for each thread, the list of what is passed with the arguments that it encodes now. In a worker, the runtime puts
here what asks the host.
"""

from __future__ import annotations

import _thread

from .frames import LANE_SHIFT

lines: list[Any] = []  # in a worker: what asks the host, by lane
_encoding = _thread._local()


def running() -> int:
    """Return the number of the call that runs in this thread; a worker puts its own function here."""
    return 0


class Passing:
    """While a thread is in its `with`, the arguments that it encodes may hold callbacks.

    Args:
        passed: gets their functions.
    """

    __slots__ = ("_lent",)

    def __init__(self, passed: list[Callable[..., object]]) -> None:
        self._lent = passed

    def __enter__(self) -> None:
        _encoding.passed = self._lent

    def __exit__(self, *error: object) -> None:
        _encoding.passed = None


class Callback:
    """A function of the host's among the arguments of a call; made by `venvoy.callback`.

    Args:
        function: called in the host.
    """

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., object]) -> None:
        if not callable(function):
            raise TypeError("callback() takes a function, not %r" % (function,))
        self.function = function

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self.function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        passed = getattr(_encoding, "passed", None)
        if passed is None:
            raise TypeError("a callback can travel as an argument of a call only")
        passed.append(self.function)
        return restore_callback, (len(passed) - 1,)

    def __repr__(self) -> str:
        return "callback(%r)" % (self.function,)


class HostFunction:
    """Calls a function of the host's while the call that it belongs to runs.

    Args:
        name: that the pool exposes it by, or its number among the functions that came with the arguments.
        call_id: the call whose arguments it came with, 0 for one that is exposed to all.
    """

    __slots__ = ("_call_id", "_name")

    def __init__(self, name: str | int, call_id: int = 0) -> None:
        if not isinstance(name, (str, int)):
            raise TypeError("host() takes the name of a function, not %r" % (name,))
        self._name = name
        self._call_id = call_id

    def __call__(self, *args: object, **kwargs: object) -> Any:
        if not lines:
            raise RuntimeError("functions of the host's can be called in a worker only")
        line = lines[(self._call_id or running()) >> LANE_SHIFT]
        return line.ask(self._name, self._call_id, args, kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a function of the host's belongs to the call it came with, and cannot travel")

    def __repr__(self) -> str:
        return "<host function %s>" % self._name


class PassedIterator(Callback):
    """An iterator of the host's among the arguments of a call; its function draws from it."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return (restore_iterator, *super().__reduce__()[1:])


class HostIterator:
    """Draws from an iterator of the host's while the call that it belongs to runs.

    Args:
        draw: returns the next items, and whether they are the last.
    """

    __slots__ = ("_draw", "_is_over", "_items")

    def __init__(self, draw: HostFunction) -> None:
        self._draw = draw
        self._items: Iterator[object] = iter(())
        self._is_over = False

    def __iter__(self) -> HostIterator:
        return self

    def __next__(self) -> object:
        while True:
            for item in self._items:
                return item
            if self._is_over:
                raise StopIteration
            items, self._is_over = self._draw()
            self._items = iter(items)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("an iterator of the host's belongs to the call it came with, and cannot travel")


def restore_iterator(number: int) -> HostIterator:
    """Return what draws from the iterator that came with the arguments of the running call under this number."""
    return HostIterator(restore_callback(number))


def restore_callback(number: int) -> HostFunction:
    """Return the function that came with the arguments of the running call under this number."""
    return HostFunction(number, running())


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterator
