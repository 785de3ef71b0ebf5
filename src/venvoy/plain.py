"""Values that JSON can say: what `options(returns="plain")` makes of a result. Stateless."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import fractions
import ipaddress
import os
import uuid
from collections.abc import Mapping
from typing import Any

from venvoy_worker.contract.arrays import ArrayRecord

from .errors import EncodingError

_AS_TEXT = (
    decimal.Decimal,
    fractions.Fraction,
    uuid.UUID,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
)


def plain(value: object) -> Any:
    """Return a value made of None, bool, int, float, str, list and dict only, which `json.dumps` takes as it is.

    Dataclasses and other objects with fields become dicts, enumeration members their values, dates and times ISO 8601
    text, Decimal, Fraction, UUID, addresses and paths text, bytes `{"__bytes__": true, "b64": text}`, tuples, sets and
    arrays lists, frames lists of records.

    Raises:
        EncodingError: a part of it has no such form; the message says where it is.
    """
    try:
        return _plain(value, "result", frozenset())
    except RecursionError:
        raise EncodingError("the result is nested too deeply") from None


def _plain(value: Any, path: str, within: frozenset[int]) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if isinstance(value, enum.Enum):
        return _plain(value.value if _has_plain_value(value) else value.name, path, within)
    text = _as_text(value)
    if text is not None:
        return text
    if isinstance(value, bytes | bytearray | memoryview):
        return {"__bytes__": True, "b64": base64.b64encode(value).decode("ascii")}
    if id(value) in within:
        raise EncodingError(f"{path} holds itself, which JSON cannot say")
    within |= {id(value)}
    fields = _fields_of(value)
    if fields is not None:
        return {_key(key, path): _plain(item, f"{path}[{key!r}]", within) for key, item in fields.items()}
    items = _items_of(value)
    if items is not None:
        return [_plain(item, f"{path}[{index}]", within) for index, item in enumerate(items)]
    return _number(value, path, within)


def _number(value: Any, path: str, within: frozenset[int]) -> Any:
    """Return the plain form of subclasses of builtins and of numpy's scalars, the last that is tried."""
    for base in (int, float, str):
        if isinstance(value, base):
            return base(value)
    if hasattr(value, "item") and hasattr(value, "dtype"):
        single = _in_microseconds(value).item()
        if type(single) is not type(value):
            return _plain(single, path, within)
    raise EncodingError(
        f"{path} (a {type(value).__name__}) has no plain form: "
        "it is no number, text, date, container, or object with fields"
    )


def _has_plain_value(member: enum.Enum) -> bool:
    return (
        isinstance(member.value, int | float | str | bytes | tuple | type(None)) or _as_text(member.value) is not None
    )


def _as_text(value: Any) -> str | None:
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return _duration(value)
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    return str(value) if isinstance(value, _AS_TEXT) else None


def _duration(length: datetime.timedelta) -> str:
    """Return ISO 8601 text: days and seconds, as msgspec and pydantic write it."""
    sign, length = ("-", -length) if length < datetime.timedelta(0) else ("", length)
    days = f"{length.days}D" if length.days else ""
    seconds = (
        f"{length.seconds}.{length.microseconds:06d}".rstrip("0").rstrip(".")
        if length.microseconds
        else f"{length.seconds}"
    )
    rest = f"T{seconds}S" if length.seconds or length.microseconds or not days else ""
    return f"{sign}P{days}{rest}"


def _fields_of(value: Any) -> Mapping[Any, Any] | None:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for names in ("__struct_fields__", "__pydantic_fields__"):
        fields = getattr(type(value), names, None)
        if fields is not None:
            return {name: getattr(value, name) for name in fields}
    attributes = getattr(type(value), "__attrs_attrs__", None)
    if attributes is not None:
        return {attribute.name: getattr(value, attribute.name) for attribute in attributes}
    return None


def _items_of(value: Any) -> list[Any] | None:
    if isinstance(value, list | tuple | set | frozenset | range) or type(value).__name__ == "deque":
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
        return array.astype(f"{dtype.kind}8[us]")
    return array


def _key(key: Any, path: str) -> Any:
    if key is None or type(key) in (str, int, float, bool):
        return key
    made = _plain(key, f"{path} key {key!r}", frozenset())
    if isinstance(made, list | dict):
        raise EncodingError(f"{path} key {key!r} (a {type(key).__name__}) has no plain form that could be a key")
    return made
