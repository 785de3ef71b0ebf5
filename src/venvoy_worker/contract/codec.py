"""Values to bodies and back: pickle protocol 5 with out-of-band buffers, portable where pickle is not.

Encoding produces pieces, never one large copy: the C pickler hands large `bytes` to `write()` as they are, and
buffers (numpy arrays, `PickleBuffer`) leave through the buffer callback. Laws: a value is encoded whole before a
byte of it is sent; every failure is a `CodecError` that says what could not travel.
"""

from __future__ import annotations

import _pickle
import sys
from io import BytesIO

from . import arrays

NONE = 0  # no pickle: an empty body, or call ids
PICKLE = 1

_PROTOCOL = 5
_OUT_OF_BAND = 4096  # smaller buffers cost less inside the pickle than as a piece of their own
_SCALARS = frozenset([int, float, bool, complex, type(None)])
_SHORT = 8192
_DAMAGE = (
    _pickle.UnpicklingError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
)
_STACK_GLOBAL = b"\x93"  # the only opcode of protocol 5 by which our picklers name a class or function


class CodecError(Exception):
    """A value that cannot be encoded, or a body that cannot be decoded."""


class _Pieces(list):  # type: ignore[type-arg]
    """A list with the one method of a file that a pickler needs."""

    def write(self, piece: object) -> None:
        # Large bytes come as the object itself; anything else of that size the caller could still change.
        self.append(piece if type(piece) is bytes else bytes(piece))  # type: ignore[call-overload]


def encode(value: object) -> Encoded:
    """Return the body pieces and the out-of-band buffers of any value.

    Raises:
        CodecError: some part of the value cannot be pickled; the message names its type.
    """
    buffers: list[memoryview] = []

    def keep(buffer: PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < _OUT_OF_BAND:
            return True
        buffers.append(view)
        return False

    return _dump(value, keep), buffers


def encode_inline(value: object) -> bytes:
    """Return the body of a value as one piece without out-of-band buffers.

    Raises:
        CodecError: some part of the value cannot be pickled.
    """
    return b"".join(_dump(value, None))


def _dump(value: object, keep: Callable[[PickleBuffer], bool] | None) -> list[bytes]:
    pieces = _Pieces()
    pickler = _pickle.Pickler(pieces, _PROTOCOL, buffer_callback=keep)
    table = arrays.reducers()
    if table is not None:
        pickler.dispatch_table = table
    try:
        pickler.dump(value)
    except Exception as error:
        raise CodecError(_why(error, "be pickled")) from error
    return pieces


def encode_call(args: tuple[object, ...], kwargs: dict[str, object]) -> Encoded:
    """Return body and buffers of a call's arguments; calls with few small scalars take a short cut.

    Raises:
        CodecError: an argument cannot be pickled.
    """
    if not kwargs and is_small(args):
        return (_pickle.dumps((args, kwargs), _PROTOCOL),), ()
    return encode((args, kwargs))


def encode_result(value: object) -> Encoded:
    """Return body and buffers of a call's result; small scalars take a short cut.

    Raises:
        CodecError: the result cannot be pickled.
    """
    if type(value) in _SCALARS or is_small((value,)):
        return (_pickle.dumps(value, _PROTOCOL),), ()
    return encode(value)


def is_small(values: tuple[object, ...]) -> bool:
    """Return True when all values are scalars or short strings, for which one C call does everything."""
    for value in values:
        kind = type(value)
        if kind in _SCALARS:
            continue
        if (kind is str or kind is bytes) and len(value) < _SHORT:  # type: ignore[arg-type]
            continue
        return False
    return True


def decode_frame(frame: Frame, find_class: FindClass | None = None) -> Any:
    """Return the value of a frame's body; see `decode`.

    Raises:
        CodecError: it is not in a codec of ours, damaged, or names what this side does not have.
    """
    if frame.codec != PICKLE:
        raise CodecError("is in codec %d, which is not known here" % frame.codec)
    return decode(frame.body, frame.buffers, find_class)


def decode(body: Body, buffers: Sequence[Room], find_class: FindClass | None = None) -> Any:
    """Return the value of a body.

    Args:
        find_class: called as `find_class(module, name)` for every class or function the body names;
            None imports them as pickle does.

    Raises:
        CodecError: the body is damaged, or names what this side does not have.
    """
    names_something = body.find(_STACK_GLOBAL) >= 0
    # Code of the user's may raise anything; without any, another error comes from a signal handler and is not ours.
    expected = Exception if names_something else _DAMAGE
    try:
        if find_class is None or not names_something:
            return _pickle.loads(body, buffers=buffers)
        return _Unpickler(body, buffers, find_class).load()
    except CodecError:
        raise
    except expected as error:
        raise CodecError(_why(error, "be unpickled")) from error


class _Unpickler(_pickle.Unpickler):
    def __init__(self, body: Body, buffers: Sequence[Room], find_class: FindClass) -> None:
        super().__init__(BytesIO(body), buffers=buffers)
        self._find_class = find_class

    def find_class(self, module: str, name: str) -> object:
        return self._find_class(module, name)


def import_global(module: str, name: str) -> object:
    """Return a class or function by name, importing its module; the `find_class` of pickle itself.

    Raises:
        ImportError, AttributeError: it is not here.
    """
    __import__(module)
    found: object = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _why(error: Exception, what: str) -> str:
    try:
        text = str(error) or type(error).__name__
    except Exception:
        text = "<no text>"
    if "__main__" in text:
        text += " (classes of a script's __main__ do not exist elsewhere: put them into a module)"
    if isinstance(error, RecursionError):
        text = "it is nested too deeply (%s)" % text
    return "cannot %s: %s: %s" % (what, type(error).__name__, text)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from pickle import PickleBuffer
    from typing import Any, Callable, Sequence, Tuple

    from .frames import Body, Frame, Room

    Encoded = Tuple[Sequence[bytes], Sequence[memoryview]]  # body pieces, out-of-band buffers
    FindClass = Callable[[str, str], object]
