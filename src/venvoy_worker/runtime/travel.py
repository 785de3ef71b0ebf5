"""Which results travel as a copy, and which stay in the worker behind a reference. Stateless.

A copy is made of what cannot be told from one: `is_frozen` for what an object gives access to (attributes, items),
where a change to a copy would be lost; `copy_of` for what a call has made, which may be changed by whoever gets it.
"""

from __future__ import annotations

import _pickle
import sys

from ..contract import codec

_SCALARS = frozenset([type(None), bool, int, float, complex, str, bytes, range])
_CONTAINERS = frozenset([list, tuple, dict, set, frozenset, bytearray, slice])
_VALUE_MODULES = frozenset(
    ["datetime", "decimal", "fractions", "uuid", "pathlib", "pathlib._local", "ipaddress", "zoneinfo"]
)
_OURS = "venvoy_worker.contract."


class _NotPlain(Exception):
    """Something in a value is not to be copied."""


class _PlainPickler(_pickle.Pickler):
    """A pickler that stops at the first thing that has to stay; builtin values never get here, they are done in C."""

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if kind in _CONTAINERS or kind in _SCALARS or _is_value(kind) or _is_array(kind) or _is_of_a_reducer(value):
            return NotImplemented
        raise _NotPlain


def _is_value(kind: type) -> bool:
    return kind.__module__ in _VALUE_MODULES


def _is_array(kind: type) -> bool:
    """Return True for numpy's arrays and numbers."""
    if not str(kind.__module__).startswith("numpy"):
        return False
    numpy = sys.modules["numpy"]
    return kind in (numpy.ndarray, numpy.ma.MaskedArray) or issubclass(kind, numpy.generic)


def _is_of_a_reducer(value: Any) -> bool:
    """Return True for what the forms of values name: functions of ours, classes of values, constants."""
    if value is NotImplemented or value is Ellipsis:
        return True
    module = str(getattr(value, "__module__", None))
    if isinstance(value, type):
        return module in _VALUE_MODULES or module == "builtins"
    return module.startswith(_OURS) and type(value) is type(_is_value)


def is_frozen(value: object) -> bool:
    """Return True when nobody can change the value, so that a copy of it is as good."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is tuple or kind is frozenset:
        return all(map(is_frozen, value))  # type: ignore[call-overload]
    if kind is slice or value is NotImplemented or value is Ellipsis:
        return True
    if str(kind.__module__).startswith("numpy"):
        numpy = sys.modules["numpy"]
        return issubclass(kind, numpy.generic) and kind is not numpy.void
    return _is_value(kind)


def copy_of(value: Any) -> codec.Encoded | None:
    """Return body and buffers of a plain value, builtin and standard values and arrays all through, None of others."""
    kind = type(value)
    if codec.is_small((value,)) or value is NotImplemented or value is Ellipsis:
        return codec.encode_result(value)
    if kind not in _CONTAINERS and kind not in _SCALARS and not _is_value(kind) and not _is_array(kind):
        return None
    try:
        return codec.encode_by(_PlainPickler, value)
    except Exception:  # whatever it is that does not travel: it stays
        return None


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
