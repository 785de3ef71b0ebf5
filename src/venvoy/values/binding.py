"""Typed handles: `pool.bind(Protocol)` has the methods that a protocol declares, and gives their types. Stateless."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

CallAs = Callable[..., Any]
"""Called as `call_as(returns, target, args, kwargs)`: runs a target and converts its result; None converts nothing."""


def bind(protocol: object, call_as: CallAs, prefix: str) -> Any:
    """Return an object with the methods of a protocol, each a call of the function of that name in a worker.

    Args:
        protocol: a class whose public methods say what functions there are, what they take and what they return.
        prefix: "module:" or "", put before each name.

    Raises:
        TypeError: it is no class with public methods, or an annotation cannot be resolved.
    """
    if not isinstance(protocol, type):
        raise TypeError(f"bind() takes a class such as a typing.Protocol, not {protocol!r}")
    methods = {
        name: _method(protocol, name, function, call_as, prefix)
        for base in reversed(protocol.__mro__[:-1])
        for name, function in vars(base).items()
        if inspect.isfunction(function) and not name.startswith("_")
    }
    if not methods:
        raise TypeError(f"bind({protocol.__qualname__}): it declares no public methods")
    members = {**methods, "__slots__": (), "__doc__": protocol.__doc__, "__module__": protocol.__module__}
    members["__repr__"] = lambda self: f"<remote {protocol.__qualname__}: {', '.join(methods)}>"
    return type(f"Bound{protocol.__name__}", (), members)()


def _method(protocol: type, name: str, function: Callable[..., Any], call_as: CallAs, prefix: str) -> Any:
    signature = inspect.signature(function)
    returns = _return_type(protocol, name, function)

    def method(self: object, /, *args: Any, **kwargs: Any) -> Any:
        try:
            signature.bind(self, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{protocol.__qualname__}.{name}(): {error}") from None
        return call_as(returns, prefix + name, args, kwargs)

    method.__name__, method.__doc__ = name, function.__doc__
    method.__qualname__ = f"{protocol.__qualname__}.{name}"
    return method


def _return_type(protocol: type, name: str, function: Callable[..., Any]) -> Any:
    try:
        hints = get_type_hints(function)
    except NameError as error:
        raise TypeError(
            f"bind({protocol.__qualname__}): the annotations of {name}() cannot be resolved: {error}"
        ) from error
    wanted = hints.get("return", Any)
    return None if wanted in (Any, object) else wanted
