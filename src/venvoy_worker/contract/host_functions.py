"""Functions of the host's that a call may call: as the host lends them, and as code in a worker sees them.

Owns, for each thread, the list of what the arguments that it encodes now lend. The runtime has the line to the host.
"""

from __future__ import annotations

import _thread

import venvoy_worker as _face

_encoding = _thread._local()


class Lending:
    """While a thread is in its `with`, the arguments that it encodes may hold callbacks.

    Args:
        lent: gets their functions.
    """

    __slots__ = ("_lent",)

    def __init__(self, lent: list[Callable[..., object]]) -> None:
        self._lent = lent

    def __enter__(self) -> None:
        _encoding.lent = self._lent

    def __exit__(self, *error: object) -> None:
        _encoding.lent = None


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
        lent = getattr(_encoding, "lent", None)
        if lent is None:
            raise TypeError("a callback can travel as an argument of a call only")
        lent.append(self.function)
        return restore_callback, (len(lent) - 1,)

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

    def __call__(self, *args: object, **kwargs: object) -> object:
        if _face._line is None:
            raise RuntimeError("functions of the host's can be called in a worker only")
        return _face._line.ask(self._name, self._call_id, args, kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a function of the host's belongs to the call it came with, and cannot travel")

    def __repr__(self) -> str:
        return "<host function %s>" % self._name


def restore_callback(number: int) -> HostFunction:
    """Return the function that came with the arguments of the running call under this number."""
    return HostFunction(number, _face.call_id())


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable
