"""Values to bodies and back: pickle protocol 5 with out-of-band buffers, portable where pickle is not.

Encoding produces pieces, never one large copy: the C pickler hands large `bytes` to `write()` as they are, and
buffers (numpy arrays, `PickleBuffer`) leave through the buffer callback. How instances of classes travel is said by the
`Table` of the receiver, see `reducers`. Owns the table that is used where none is given. Laws: a value is encoded whole
before a byte of it is sent; every failure is a `CodecError` that says what could not travel.
"""

from __future__ import annotations

import _pickle
import _thread
import sys
from io import BytesIO

from . import reducers
from .frames import SMALL_BODY, Unavailable

NONE = 0  # no pickle: an empty body, or call ids
PICKLE = 1

_PROTOCOL = 5
_OUT_OF_BAND = 32_768  # smaller buffers cost less inside the pickle than as a piece of their own
SCALARS = frozenset([int, float, bool, complex, type(None)])
_SHORT = 8192
_LARGE = SMALL_BODY  # bytes of a body from which on it is not copied to be read
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
_MORE_LEVELS = 5000 if sys.version_info < (3, 12) else 30_000  # of recursion, for deep values; since 3.12 on the heap
_deep_lock = _thread.allocate_lock()  # the recursion limit is one for the interpreter

_table = reducers.HOME


class CodecError(Exception):
    """A value that cannot be encoded, or a body that cannot be decoded."""


class MessageTooLarge(CodecError):
    """A value that takes more bytes than its receiver wants."""

    def __init__(self, text: str, size: int, limit: int) -> None:
        super().__init__(text)
        self.size = size
        self.limit = limit


class _Pieces(list):  # type: ignore[type-arg]
    """A list with the one method of a file that a pickler needs."""

    def write(self, piece: object) -> None:
        # Large bytes come as the object itself; anything else of that size the caller could still change.
        self.append(piece if type(piece) is bytes else bytes(piece))  # type: ignore[call-overload]


def use(table: Table) -> None:
    """Encode for the receiver of this table where none is given."""
    global _table
    _table = table


def encode(value: object, table: Table | None = None) -> Encoded:
    """Return the body pieces and the out-of-band buffers of any value.

    Args:
        table: of the receiver; by default that of `use`.

    Raises:
        CodecError: some part of the value cannot be pickled; the message names its type.
    """
    buffers: list[memoryview] = []
    return _dump(value, buffers, table), buffers


def encode_inline(value: object, table: Table | None = None) -> bytes:
    """Return the body of a value as one piece without out-of-band buffers.

    Raises:
        CodecError: some part of the value cannot be pickled.
    """
    return b"".join(_dump(value, None, table))


def _dump(value: object, buffers: list[memoryview] | None, table: Table | None) -> list[bytes]:
    table = (_table if table is None else table).fresh()
    try:
        return _pickled(_pickle.Pickler, value, buffers, table)
    except RecursionError:
        pass
    except CodecError:
        raise
    except Exception as error:
        raise CodecError(_why(error, "be pickled")) from error
    return _dump_deep(value, buffers, table)


def _dump_deep(value: object, buffers: list[memoryview] | None, table: Table) -> list[bytes]:
    """Encode what is nested more deeply than the recursion limit of this thread allows."""
    import pickle  # start-up time: hardly anything is nested so deeply

    # Since Python 3.12 recursion in C has a limit of its own, which stays; that in Python needs no stack.
    pickler: Any = _pickle.Pickler if sys.version_info < (3, 12) else pickle._Pickler
    with _deep_lock:
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(limit + _MORE_LEVELS)
        try:
            return _pickled(pickler, value, buffers, table)
        except CodecError:
            raise
        except Exception as error:
            raise CodecError(_why(error, "be pickled")) from error
        finally:
            sys.setrecursionlimit(limit)


def _pickled(make: Any, value: object, buffers: list[memoryview] | None, table: Table) -> list[bytes]:
    def keep(buffer: PickleBuffer) -> bool:
        view = buffer.raw()
        source = view.obj
        if view.nbytes < _OUT_OF_BAND and not getattr(source, "is_common", False):  # shared memory is never copied
            return True
        if isinstance(source, memoryview) and source.format == "B" and source.shape == view.shape:
            view = source  # a view that exports to a view crashes Python's collector if both are in a cycle: gh-77894
        buffers.append(view)  # type: ignore[union-attr]
        return False

    if buffers:
        buffers.clear()  # of an attempt that failed
    pieces = _Pieces()
    pickler = make(pieces, _PROTOCOL, buffer_callback=None if buffers is None else keep)
    pickler.dispatch_table = table
    pickler.dump(value)
    return pieces


def encode_call(args: tuple[object, ...], kwargs: dict[str, object], table: Table | None = None) -> Encoded:
    """Return body and buffers of a call's arguments; calls with few small scalars take a short cut.

    Raises:
        CodecError: an argument cannot be pickled.
    """
    return encode_small((args, {})) if not kwargs and is_small(args) else encode((args, kwargs), table)


def encode_small(value: object) -> Encoded:
    """Return body and buffers of a value of scalars and short strings."""
    return (_pickle.dumps(value, _PROTOCOL),), ()


def encode_result(value: object) -> Encoded:
    """Return body and buffers of a call's result; small scalars take a short cut.

    Raises:
        CodecError: the result cannot be pickled.
    """
    if type(value) in SCALARS or is_small((value,)):
        return encode_small(value)
    return encode(value)


def encode_by(make: Any, value: object) -> Encoded:
    """Return body and buffers of a value made by a pickler of the caller's, whose exceptions pass through.

    Args:
        make: a subclass of `_pickle.Pickler`.
    """
    buffers: list[memoryview] = []
    return _pickled(make, value, buffers, _table.fresh()), buffers


def failing_part(value: object, table: Table | None = None) -> tuple[str, object]:
    """Return where in a value that cannot be encoded the reason is, as in `['rows'][3]`, and the part that is there."""
    from .where import locate  # only after a failure

    def fails(part: object) -> bool:
        try:
            encode(part, table)
        except CodecError as error:
            return not isinstance(error.__cause__, RecursionError)  # each level of it would be an answer
        return False

    try:
        return locate(value, fails)
    except Exception:  # of a property or the like: the failure itself is what matters
        return "", value


def size_of(encoded: Encoded) -> int:
    """Return how many bytes of an encoded value have to be sent: all but those in memory that is shared."""
    pieces, buffers = encoded
    sent = [buffer for buffer in buffers if not getattr(getattr(buffer, "obj", None), "is_common", False)]
    return sum(map(len, pieces)) + sum(map(len, sent))


def is_small(values: tuple[object, ...]) -> bool:
    """Return True when all values are scalars or short strings, for which one C call does everything."""
    for value in values:
        kind = type(value)
        if kind in SCALARS:
            continue
        if (kind is str or kind is bytes) and len(value) < _SHORT:  # type: ignore[arg-type]
            continue
        return False
    return True


def decode_frame(frame: Frame, find_class: FindClass | None = None, load: Load | None = None) -> Any:
    """Return the value of a frame's body; see `decode`.

    Raises:
        CodecError: it is not in a codec of ours, damaged, or names what this side does not have.
    """
    body: Any = frame.body
    is_short = load is None and not frame.buffers and len(body) < _SHORT
    if is_short and frame.codec == PICKLE and body.find(_STACK_GLOBAL) < 0:
        try:
            return _pickle.loads(body)
        except _DAMAGE as error:
            raise CodecError(_why(error, "be unpickled")) from error
    if frame.codec != PICKLE:
        raise CodecError("is in codec %d, which is not known here" % frame.codec)
    for buffer in frame.buffers:
        if isinstance(buffer, Unavailable):
            raise CodecError("cannot be read: %s" % buffer.decode())
    return decode(frame.body, frame.buffers, find_class, load)


def decode(body: Body, buffers: Sequence[Buffer], find_class: FindClass | None = None, load: Load | None = None) -> Any:
    """Return the value of a body.

    Args:
        find_class: called as `find_class(module, name)` for every class or function the body names;
            None imports them as pickle does.
        load: reads the body in place of pickle, as a host does that cannot trust a pickler of ours to have made it.

    Raises:
        CodecError: the body is damaged, or names what this side does not have.
    """
    if load is not None:
        return _decode_otherwise(load, body, buffers, find_class or import_global)
    if len(body) > _LARGE:  # and will have that byte somewhere
        return _decode_large(body, buffers, find_class or import_global)
    names_something = body.find(_STACK_GLOBAL) >= 0  # type: ignore[union-attr]
    # Code of the user's may raise anything; without any, another error comes from a signal handler and is not ours.
    expected = Exception if names_something else _DAMAGE
    try:
        if find_class is None or not names_something:
            return _pickle.loads(body, buffers=buffers)
        return Unpickler(body, buffers, find_class).load()
    except CodecError:
        raise
    except expected as error:
        raise CodecError(_why(error, "be unpickled")) from error


def _decode_large(body: Body, buffers: Sequence[Buffer], find_class: FindClass) -> Any:
    unpickler = Unpickler(body, buffers, find_class)
    try:
        return unpickler.load()
    except CodecError:
        raise
    except Exception as error:
        if not unpickler.has_named and not isinstance(error, _DAMAGE):
            raise  # of a signal handler, as above
        raise CodecError(_why(error, "be unpickled")) from error


def _decode_otherwise(load: Load, body: Body, buffers: Sequence[Buffer], find_class: FindClass) -> Any:
    try:
        return load(body, buffers, find_class)
    except CodecError:
        raise
    except Exception as error:
        raise CodecError(_why(error, "be unpickled")) from error


class _Reader:
    """A large body as the file that an unpickler reads: large bytes are copied once, to where they belong."""

    def __init__(self, body: Body) -> None:
        self._view = memoryview(body)
        self._at = 0

    def read(self, size: int) -> memoryview:
        data = self._view[self._at : self._at + size]
        self._at += len(data)
        return data

    def readinto(self, room: memoryview) -> int:
        data = self.read(len(room))
        room[: len(data)] = data
        return len(data)

    def readline(self) -> bytes:  # of protocols before ours
        rest = bytes(self._view[self._at : self._at + _LARGE])
        return bytes(self.read(rest.find(b"\n") + 1))


class Unpickler(_pickle.Unpickler):
    """Pickle's own, which asks for what a body names.

    Args:
        body, buffers, find_class: as for `decode`.
    """

    def __init__(self, body: Body, buffers: Sequence[Buffer], find_class: FindClass) -> None:
        file: Any = BytesIO(body) if len(body) <= _LARGE else _Reader(body)
        super().__init__(file, buffers=buffers)
        self._find_class = find_class
        self.has_named = False  # a class or function, whose code may run from then on

    def find_class(self, module: str, name: str) -> object:
        """Return what a name means."""
        self.has_named = True
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
    elif isinstance(error, ModuleNotFoundError):
        text += " (a value of a class of that module; where it is not installed, give its folder with paths=[...])"
    elif "generator" in text:
        text += " (stream() takes the items of a generator one by one)"
    if isinstance(error, RecursionError):
        text = "it is nested too deeply (%s)" % text
    return "cannot %s: %s: %s" % (what, type(error).__name__, text)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from pickle import PickleBuffer
    from typing import Any, Callable, Sequence, Tuple

    from .frames import Body, Buffer, Frame
    from .reducers import Table

    Encoded = Tuple[Sequence[bytes], Sequence[memoryview]]  # body pieces, out-of-band buffers
    FindClass = Callable[[str, str], object]
    Load = Callable[[Body, Sequence[Buffer], FindClass], object]
