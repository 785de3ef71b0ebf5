"""Numpy arrays and scalars in a form that every numpy understands, and that needs none to be received.

numpy's own pickles name private modules (`numpy._core.multiarray`) that other versions do not have. Ours say
(dtype, shape, order, buffer) and are rebuilt by `restore_array`, which exists on both sides. A receiver without
numpy gets an `ArrayRecord`. Owns the dispatch table, made once numpy has been imported by somebody else.
"""

from __future__ import annotations

import sys
from _pickle import PickleBuffer
from copyreg import dispatch_table as _default_table

_table: Any = None


class ArrayRecord:
    """An array where numpy is not installed: `dtype` (numpy's string), `shape`, `order`, `data` (a buffer)."""

    __slots__ = ("data", "dtype", "order", "shape")

    def __init__(self, dtype: object, shape: tuple[int, ...], order: str, data: Any) -> None:
        self.dtype = dtype
        self.shape = shape
        self.order = order
        self.data = data

    def __repr__(self) -> str:
        return "<ArrayRecord dtype=%r shape=%r: numpy is not installed here>" % (self.dtype, self.shape)

    def __reduce__(self) -> tuple[object, ...]:
        return restore_array, (self.dtype, self.shape, self.order, PickleBuffer(self.data))


def reducers() -> Any:
    """Return the pickler's dispatch table, or None while nobody here uses numpy."""
    global _table
    if _table is None and "numpy" in sys.modules:
        _table = _make_table(sys.modules["numpy"])
    return _table


class _Table(dict):  # type: ignore[type-arg]
    """Our reducers; for other classes those registered with `copyreg`, at any time."""

    def __missing__(self, kind: type) -> Reducer:
        return _default_table[kind]


def _make_table(numpy: Numpy) -> Any:
    generic = getattr(numpy, "generic", None)
    if generic is None:  # another thread is in the middle of importing it
        return None
    table = _Table()
    table[numpy.ndarray] = _reduce_array
    for scalar in set(numpy.sctypeDict.values()):
        table[scalar] = _reduce_scalar
    table[numpy.str_] = table[numpy.bytes_] = _reduce_text
    return table


def _reduce_array(array: Numpy) -> tuple[object, ...]:
    dtype = array.dtype
    if dtype.hasobject:
        if dtype.fields:
            return array.__reduce__()  # type: ignore[no-any-return]  # records of objects: numpy's own form
        return restore_objects, (array.shape, array.ravel().tolist())
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    # Copies only what is not contiguous; a flat array may have strides, so reshape alone would not do.
    flat = sys.modules["numpy"].ascontiguousarray(array.T if order == "F" else array).reshape(-1)
    data = flat.view("u1") if dtype.itemsize and flat.size else b""  # datetime64 has no buffer of its own
    return restore_array, (_portable(dtype), array.shape, order, PickleBuffer(data) if len(data) else data)


def _portable(dtype: Numpy) -> object:
    """Return a dtype as builtin values: its string; with fields the dict form, which every numpy reads."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return (_portable(base), shape)
    if not dtype.fields:
        return dtype.str
    fields = [dtype.fields[name] for name in dtype.names]
    described: dict[str, object] = {
        "names": list(dtype.names),
        "formats": [_portable(field[0]) for field in fields],
        "offsets": [field[1] for field in fields],
        "itemsize": dtype.itemsize,
    }
    if any(len(field) > 2 for field in fields):
        described["titles"] = [field[2] if len(field) > 2 else None for field in fields]
    return described


def _reduce_scalar(scalar: Numpy) -> tuple[object, ...]:
    dtype = scalar.dtype
    if dtype.hasobject or dtype.fields:
        return scalar.__reduce__()  # type: ignore[no-any-return]
    plain = scalar.item()
    if type(plain).__module__.partition(".")[0] == "numpy":  # a long double has no plain form
        plain = None
    return restore_scalar, (dtype.str, scalar.tobytes(), plain)


def _reduce_text(text: Numpy) -> tuple[object, ...]:
    # numpy's own str() strips trailing NULs
    plain = str.__str__(text) if isinstance(text, str) else bytes.__getitem__(text, slice(None))
    return restore_text, (plain,)


def _numpy() -> Numpy | None:
    try:
        import numpy
    except ImportError:
        return None
    return numpy


def restore_array(dtype: object, shape: tuple[int, ...], order: str, data: Numpy) -> object:
    """Return the array of a portable reduction; an `ArrayRecord` where there is no numpy."""
    numpy = _numpy()
    if numpy is None:
        return ArrayRecord(dtype, shape, order, memoryview(data))
    kind = numpy.dtype(dtype)
    if not len(data):
        return numpy.empty(shape, kind, order)
    if isinstance(data, bytes):
        data = bytearray(data)  # an array that came inside the pickle is writable too
    elif isinstance(data, memoryview) and data.readonly:
        data = data.obj  # what was read-only at the sender is the receiver's own
    return numpy.frombuffer(data, "u1").view(kind).reshape(shape, order=order)


def restore_objects(shape: tuple[int, ...], items: list[object]) -> object:
    """Return an array of objects; a flat list of them where there is no numpy."""
    numpy = _numpy()
    if numpy is None:
        return items
    flat = numpy.empty(len(items), "O")
    for index, item in enumerate(items):
        flat[index] = item
    return flat.reshape(shape)


def restore_scalar(dtype: str, data: bytes, plain: object) -> object:
    """Return a numpy scalar; where there is no numpy the Python value it equals, or an `ArrayRecord` of shape ()."""
    numpy = _numpy()
    if numpy is not None:
        return numpy.frombuffer(data, dtype)[0]
    return ArrayRecord(dtype, (), "C", memoryview(data)) if plain is None else plain


def restore_text(plain: str | bytes) -> object:
    """Return numpy's own string or bytes scalar; the plain one where there is no numpy."""
    numpy = _numpy()
    if numpy is None:
        return plain
    return numpy.str_(plain) if isinstance(plain, str) else numpy.bytes_(plain)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    Numpy = Any  # the module or an object of it, of whatever version is here
    Reducer = Callable[[Any], Any]
