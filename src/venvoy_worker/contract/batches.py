"""Items on their way to the other process, many in a frame: what may wait for others, and how much may be sent.

Stateless. An item may wait in a batch only if nobody can change it meanwhile: code that yields one list again and
again, each time with other contents, must not see them all become the last.
"""

from __future__ import annotations

FIRST_ITEMS = 16  # that a sender may send before it is given credit
FIRST_BYTES = 1 << 20
LARGEST_BATCH = 1 << 16  # bytes, roughly: then it goes, whatever else there is
MOST_ITEMS = 1 << 14  # in a batch, or allowed ahead of the receiver
NOT_PLAIN = object()

_SCALARS = frozenset([int, float, bool, complex, type(None)])
_FEW = 64


def plain(value: object) -> object:
    """Return a value that may wait, a copy of it if it could be changed, or `NOT_PLAIN`."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is str or kind is bytes:
        return value
    if kind is tuple or kind is list:
        if len(value) <= _FEW and _are_small(value):  # type: ignore[arg-type]
            return value if kind is tuple else value[:]  # type: ignore[index]
    elif kind is dict and len(value) <= _FEW and _are_small(value.values()) and _are_small(value):  # type: ignore
        return value.copy()  # type: ignore[attr-defined]
    return NOT_PLAIN


def _are_small(values: Iterable[object]) -> bool:
    for value in values:
        kind = type(value)
        if kind not in _SCALARS and ((kind is not str and kind is not bytes) or len(value) > 256):  # type: ignore
            return False
    return True


def size_of(value: object) -> int:
    """Return roughly how many bytes a plain value takes."""
    kind = type(value)
    if kind in _SCALARS:
        return 8
    size = len(value)  # type: ignore[arg-type]
    return size if kind is str or kind is bytes else 32 * (size + 1)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable
