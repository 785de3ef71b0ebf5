"""The elements of an array as Python values, without numpy. Stateless."""

from __future__ import annotations

import datetime
import sys
from _struct import Struct

_FORMATS = {"i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q", "b1": "?"}
_FLOATS = {"f2": "e", "f4": "f", "f8": "d"}
_EPOCH = datetime.datetime(1970, 1, 1)
_NO_TIME = -(2**63)
_SECONDS = {"W": 604_800, "D": 86_400, "h": 3600, "m": 60, "s": 1}
_PARTS = {"ms": 1000, "us": 10**6, "ns": 10**9}  # of a second


def nested(record: ArrayRecord) -> Any:
    """Return the elements of an array as nested lists, masked ones as None; the one element of an array of shape ().

    Raises:
        TypeError: they are of a kind that only numpy can read.
    """
    items = items_of(record.dtype, bytes(record.data))
    if record.mask is not None:
        masked = items_of(record.mask.dtype, bytes(record.mask.data))
        items = [None if hidden else item for item, hidden in zip(items, masked)]
    shape = record.shape
    if not shape:
        return items[0]
    if record.order == "F":
        return _columns(items, shape)
    for size in reversed(shape[1:]):
        items = [items[start : start + size] for start in range(0, len(items), size)] if size else [[]] * shape[0]
    return items


def _columns(items: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """Nest elements of which the first index runs fastest."""
    if len(shape) == 1:
        return items
    return [_columns(items[first :: shape[0]], shape[1:]) for first in range(shape[0])]


def items_of(dtype: object, data: bytes) -> list[Any]:
    """Return the elements in a buffer.

    Args:
        dtype: numpy's string, as in "<f8" or "<M8[ns]".

    Raises:
        TypeError: it is of a kind that only numpy can read.
    """
    text = str(dtype)
    order, kind, code = text[:1].replace("|", "<"), text[1:2], text[1:].partition("[")[0]
    if not isinstance(dtype, str) or order not in "<>" or code == "f16":
        raise TypeError("elements of dtype %r cannot be read without numpy" % (dtype,))
    size = int(code[1:])
    if kind in "SU" and not size:
        return []
    if kind == "S":
        return [data[start : start + size].rstrip(b"\0") for start in range(0, len(data), size)]
    if kind == "U":
        codec = "utf-32-le" if order == "<" else "utf-32-be"
        pieces = [data[start : start + 4 * size] for start in range(0, len(data), 4 * size)]
        return [piece.decode(codec, "surrogatepass").rstrip("\0") for piece in pieces]
    if kind == "c" and size in (8, 16):
        parts = _numbers(order, "f" if size == 8 else "d", data)
        return [complex(real, imaginary) for real, imaginary in zip(parts[::2], parts[1::2])]
    if kind in "Mm":
        return [_moment(kind, number, text.partition("[")[2][:-1]) for number in _numbers(order, "q", data)]
    form = _FORMATS.get(code) or _FLOATS.get(code)
    if form is None:
        raise TypeError("elements of dtype %r cannot be read without numpy" % (dtype,))
    return _numbers(order, form, data)


def _numbers(order: str, form: str, data: bytes) -> list[Any]:
    if (order == "<") == (sys.byteorder == "little") and form != "e":
        view: Any = memoryview(data)
        return list(view.cast(form).tolist())
    one = Struct(order + form)
    return [number for (number,) in one.iter_unpack(data)]


def _moment(kind: str, number: int, unit: str) -> Any:
    """Return a date, datetime, timedelta; None for "not a time", the number where Python has no value for it."""
    if number == _NO_TIME:
        return None
    count = int("".join(filter(str.isdigit, unit)) or 1)
    unit = unit.lstrip("0123456789")
    if unit not in _SECONDS and unit not in _PARTS:
        return number
    try:
        if unit in _SECONDS:
            length = datetime.timedelta(seconds=number * count * _SECONDS[unit])
        else:
            length = datetime.timedelta(microseconds=number * count * 10**6 // _PARTS[unit])
        if kind == "m":
            return length
        return (_EPOCH + length).date() if unit in "WD" else _EPOCH + length
    except OverflowError:
        return number


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .arrays import ArrayRecord
