"""Values that JSON can say: what `options(returns="plain")` and the JSON protocol make of a result. Stateless.

Nothing is imported for a kind of value: whose classes are not there cannot be met.
"""

from __future__ import annotations

import binascii
import datetime
import os
import sys
from collections.abc import Mapping

from .arrays import ArrayRecord
from .codec import CodecError
from .records import fields_of

_AS_TEXT = frozenset(
    [
        ("decimal", "Decimal"),
        ("fractions", "Fraction"),
        ("uuid", "UUID"),
        ("ipaddress", "IPv4Address"),
        ("ipaddress", "IPv6Address"),
        ("ipaddress", "IPv4Network"),
        ("ipaddress", "IPv6Network"),
    ]
)


def plain(value: object, is_strict: bool = False) -> Any:
    """Return a value made of None, bool, int, float, str, list and dict only, which `json.dumps` takes as it is.

    Dataclasses and other objects with fields become dicts, enumeration members their values, dates and times ISO 8601
    text, Decimal, Fraction, UUID, addresses and paths text, bytes `{"__bytes__": true, "b64": text}`, tuples, sets and
    arrays (of numpy and of the standard library) lists, frames lists of records.

    Args:
        is_strict: refuse what only Python's own JSON can say: numbers that are none, and infinite ones.

    Raises:
        CodecError: a part of it has no such form; the message says where it is.
    """
    try:
        return _plain(value, "result", frozenset(), is_strict)
    except RecursionError:
        raise CodecError("the result is nested too deeply") from None


def _plain(value: Any, path: str, within: frozenset[int], is_strict: bool) -> Any:
    kind = type(value)
    if kind is float and is_strict and value - value != 0:
        raise CodecError("%s is %r, which JSON cannot say" % (path, value))
    if value is None or kind in (bool, int, float, str):
        return value
    if "enum" in sys.modules and isinstance(value, sys.modules["enum"].Enum):
        return _plain(value.value if _has_plain_value(value) else value.name, path, within, is_strict)
    text = _as_text(value)
    if text is not None:
        return text
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"__bytes__": True, "b64": binascii.b2a_base64(value, newline=False).decode("ascii")}
    if id(value) in within:
        raise CodecError("%s holds itself, which JSON cannot say" % path)
    within = within | {id(value)}
    fields = _fields_of(value)
    if fields is not None:
        return {
            _key(key, path): _plain(item, "%s[%r]" % (path, key), within, is_strict) for key, item in fields.items()
        }
    items = _items_of(value)
    if items is not None:
        return [_plain(item, "%s[%d]" % (path, index), within, is_strict) for index, item in enumerate(items)]
    return _number(value, path, within, is_strict)


def _number(value: Any, path: str, within: frozenset[int], is_strict: bool) -> Any:
    """Return the plain form of subclasses of builtins and of numpy's scalars, the last that is tried."""
    for base in (int, float, str):
        if isinstance(value, base):
            return _plain(base(value), path, within, is_strict)
    if hasattr(value, "item") and hasattr(value, "dtype"):
        single = _in_microseconds(value).item()
        if type(single) is not type(value):
            return _plain(single, path, within, is_strict)
    raise CodecError(
        "%s (a %s) has no plain form: it is no number, text, date, container, or object with fields"
        % (path, type(value).__name__)
    )


def _has_plain_value(member: Any) -> bool:
    value = member.value
    return isinstance(value, (int, float, str, bytes, tuple, type(None))) or _as_text(value) is not None


def _as_text(value: Any) -> str | None:
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return _duration(value)
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    kinds = type(value).__mro__
    return str(value) if any((kind.__module__, kind.__qualname__) in _AS_TEXT for kind in kinds) else None


def _duration(length: datetime.timedelta) -> str:
    """Return ISO 8601 text: days and seconds, as msgspec and pydantic write it."""
    sign, length = ("-", -length) if length < datetime.timedelta(0) else ("", length)
    days = "%dD" % length.days if length.days else ""
    seconds = "%d.%06d" % (length.seconds, length.microseconds) if length.microseconds else "%d" % length.seconds
    if length.microseconds:
        seconds = seconds.rstrip("0").rstrip(".")
    rest = "T%sS" % seconds if length.seconds or length.microseconds or not days else ""
    return "%sP%s%s" % (sign, days, rest)


def _fields_of(value: Any) -> Mapping[Any, Any] | None:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, type):
        return None
    names = fields_of(type(value))
    return None if names is None else {name: getattr(value, name) for name in names}


def _items_of(value: Any) -> list[Any] | None:
    if isinstance(value, (list, tuple, set, frozenset, range)) or type(value).__name__ in ("deque", "array"):
        return list(value)
    top = type(value).__module__.partition(".")[0]
    if isinstance(value, ArrayRecord) or (
        top == "numpy" and hasattr(value, "ndim") and not hasattr(value, "item_size")
    ):
        return _listed(value)
    if top in ("pandas", "polars", "pyarrow"):
        for method in ("to_dicts", "to_pylist"):
            if hasattr(value, method):
                found: list[Any] = getattr(value, method)()
                return found
        if top == "pandas" and hasattr(value, "to_dict") and hasattr(value, "columns"):
            records: list[Any] = value.to_dict("records")
            return records
        if hasattr(value, "to_list"):
            return list(value.to_list())
    return None


def _listed(array: Any) -> list[Any] | None:
    if not getattr(array, "shape", ()):
        return None
    listed: list[Any] = _in_microseconds(array).tolist()
    return listed


def _in_microseconds(array: Any) -> Any:
    """Return times that are finer as Python has them: of these numpy would give the numbers."""
    dtype = array.dtype
    if getattr(dtype, "kind", "") in ("M", "m") and str(dtype).endswith(("ns]", "ps]", "fs]", "as]")):
        return array.astype("%s8[us]" % dtype.kind)
    return array


def _key(key: Any, path: str) -> Any:
    if key is None or type(key) in (str, int, float, bool):
        return key
    made = _plain(key, "%s key %r" % (path, key), frozenset(), False)
    if isinstance(made, (list, dict)):
        raise CodecError("%s key %r (a %s) has no plain form that could be a key" % (path, key, type(key).__name__))
    return made


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
