"""Errors of the host's functions, as they are raised in a worker. Owns the classes made for those that it has not."""

from __future__ import annotations

import builtins

from ..contract import codec
from ..contract.failures import nearest_builtin

_made: dict[tuple[str, str], type] = {}


class HostError(Exception):
    """An exception of the host whose class cannot be rebuilt here; its class also inherits the nearest builtin one."""


class HostTraceback(Exception):
    """The traceback as text, from the host; the `__cause__` of an error raised there."""

    def __str__(self) -> str:
        return "\n\n%s" % self.args[0]


def rebuild(snapshot: dict[str, Any]) -> BaseException:
    """Return the exception that an error snapshot describes, with the host's traceback as its cause."""
    error = _same_class(snapshot) or _class_for(snapshot["type"], snapshot["bases"])(snapshot["message"])
    error.__cause__ = HostTraceback(snapshot["traceback"])
    return error


def _same_class(snapshot: dict[str, Any]) -> BaseException | None:
    """Return the exception itself, where its class and all it holds are here."""
    if snapshot["pickled"] is None or "Exception" not in snapshot["bases"]:
        return None
    try:
        error = codec.decode(snapshot["pickled"], [])
    except codec.CodecError:
        return None
    return error if isinstance(error, Exception) else None


def _class_for(type_name: str, bases: list[str]) -> type:
    """Return a class for a foreign exception: `HostError` and the nearest builtin that can be made from a text."""
    base = nearest_builtin(bases)
    if (type_name, base) not in _made:
        parents = (HostError,) if base == "Exception" else (HostError, getattr(builtins, base))
        module, _, name = type_name.rpartition(".")
        _made[type_name, base] = type(name, parents, {"__module__": module})
    return _made[type_name, base]


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
