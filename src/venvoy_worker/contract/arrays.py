"""Numpy arrays and scalars in a form that every numpy understands, and that needs none to be received.

numpy's own pickles name private modules (`numpy._core.multiarray`) that other versions do not have. Ours say
(dtype, shape, order, buffer) and are rebuilt by `restore_array`, which exists on both sides. A receiver without
numpy gets an `ArrayRecord`. Stateless; imported when numpy has been imported by somebody else.
"""

from __future__ import annotations

import sys
from _pickle import PickleBuffer

from .standard import MEMORY


class ArrayRecord:
    """An array where numpy is not installed: `dtype` (numpy's string), `shape`, `order`, `data` (a buffer).

    `mask` is another `ArrayRecord` if the array was a masked one.
    """

    __slots__ = ("data", "dtype", "mask", "order", "shape")

    def __init__(self, dtype: object, shape: tuple[int, ...], order: str, data: Any) -> None:
        self.dtype = dtype
        self.shape = shape
        self.order = order
        self.data = data
        self.mask: ArrayRecord | None = None

    def tolist(self) -> Any:
        """Return the elements as nested lists of Python values, as numpy's `tolist` does; masked ones are None.

        Raises:
            TypeError: they are of a kind that only numpy can read.
        """
        from .listing import nested  # only where there is no numpy

        return nested(self)

    def __repr__(self) -> str:
        return "<ArrayRecord dtype=%r shape=%r: numpy is not installed here>" % (self.dtype, self.shape)

    def __reduce__(self) -> tuple[object, ...]:
        form = (restore_array, (self.dtype, self.shape, self.order, PickleBuffer(self.data)))
        if self.mask is None:
            return form
        plain = ArrayRecord(self.dtype, self.shape, self.order, self.data)
        return restore_masked, (plain, self.mask, None, False)


def reducer_of(kind: type, numpy: Numpy) -> Reducer | None:
    """Return how values of one of numpy's classes travel; None where its own way has to do."""
    if kind is numpy.ndarray or kind is numpy.memmap:
        return _reduce_array
    if issubclass(kind, numpy.generic):
        return _reduce_text if issubclass(kind, (str, bytes)) else _reduce_scalar
    if issubclass(kind, numpy.dtype):
        return _reduce_dtype
    if issubclass(kind, numpy.ma.MaskedArray):
        return _reduce_masked
    return _reduce_subclass if kind.__name__ in _SUBCLASSES else None


_MAPPING = "%s.mapping" % __package__
_SUBCLASSES = ("recarray", "matrix", "chararray")


def _reduce_array(array: Numpy) -> tuple[object, ...]:
    dtype = array.dtype
    if dtype.hasobject:
        if dtype.fields:
            columns = {name: array[name] for name in dtype.names}
            return restore_fields, (_portable(dtype), array.shape, columns)
        items = array.ravel().tolist()
        return (restore_strings if dtype.kind == "T" else restore_objects), (array.shape, items)
    mapping = sys.modules.get(_MAPPING)  # where it is not imported, no memory is shared
    if array.base is not None and mapping is not None and mapping.shared_here:
        memory = mapping.shared_memory(array)
        if memory is not None:
            return _reduce_shared(array, memory)
    if dtype.kind in "biufc" and array.nbytes and array.flags.c_contiguous:  # the usual case of what follows
        return restore_array, (dtype.str, array.shape, "C", PickleBuffer(array))
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    # Copies only what is not contiguous; a flat array may have strides, so reshape alone would not do.
    flat = sys.modules["numpy"].ascontiguousarray(array.T if order == "F" else array).reshape(-1)
    data = flat.view("u1") if dtype.itemsize and flat.size else b""  # datetime64 has no buffer of its own
    return restore_array, (_portable(dtype), array.shape, order, PickleBuffer(data) if len(data) else data)


def _reduce_shared(array: Numpy, memory: SharedMemory) -> tuple[object, ...]:
    """An array in shared memory is where it is in it."""
    offset = _address(array) - _address(sys.modules["numpy"].frombuffer(memory, "u1"))
    place = (array.shape, array.strides, offset)
    return restore_shared, (_portable(array.dtype), *place, array.flags.writeable, PickleBuffer(memory))


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
        return restore_item, (sys.modules["numpy"].array(scalar, dtype),)
    plain = scalar.item()
    if dtype.kind in "Mm" and type(plain) is int:  # nanoseconds, of which nobody would know that they are
        plain = scalar.astype("%s8[us]" % dtype.kind).item()
    if type(plain).__module__.partition(".")[0] == "numpy":  # a long double has no plain form
        plain = None
    return restore_scalar, (dtype.str, scalar.tobytes(), plain)


def _reduce_text(text: Numpy) -> tuple[object, ...]:
    # numpy's own str() strips trailing NULs
    plain = str.__str__(text) if isinstance(text, str) else bytes.__getitem__(text, slice(None))
    return restore_text, (plain,)


def _reduce_dtype(dtype: Numpy) -> tuple[object, ...]:
    return restore_dtype, (dtype.char if dtype.kind in "OT" else _portable(dtype),)


def _reduce_masked(array: Numpy) -> tuple[object, ...]:
    numpy = sys.modules["numpy"]
    mask = None if array.mask is numpy.ma.nomask else array.mask
    fill = None if array._fill_value is None else numpy.asarray(array._fill_value)
    return restore_masked, (numpy.asarray(array.data), mask, fill, array.hardmask)


def _reduce_subclass(array: Numpy) -> tuple[object, ...]:
    return restore_kind, (type(array).__name__, array.view(sys.modules["numpy"].ndarray))


def _numpy() -> Numpy | None:
    try:
        import numpy
    except ImportError:
        return None
    if not hasattr(numpy, "ndarray"):
        raise ImportError("numpy is %s here, which is not the library; rename it" % numpy.__file__)
    return numpy


def restore_array(dtype: object, shape: tuple[int, ...], order: str, data: Any) -> object:
    """Return the array of a portable reduction; an `ArrayRecord` where there is no numpy."""
    numpy = _numpy()
    if numpy is None:
        return ArrayRecord(dtype, shape, order, memoryview(data))
    kind = numpy.dtype(dtype)
    if kind.hasobject or not isinstance(data, MEMORY):
        raise ValueError("an array of objects has no buffer, and what is no memory is none")
    if not len(data):
        return numpy.zeros(shape, kind, order)
    if isinstance(data, bytes):
        data = bytearray(data)  # an array that came inside the pickle is writable too
    elif isinstance(data, memoryview) and data.readonly:
        data = _as_received(data, numpy)
    return numpy.frombuffer(data, "u1").view(kind).reshape(shape, order=order)


def restore_shared(
    dtype: object, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, is_writable: bool, data: Numpy
) -> object:
    """Return an array at its place in shared memory; an `ArrayRecord` of a copy where there is no numpy."""
    numpy = _numpy()
    if numpy is None:
        size = shape[0] * strides[0] if shape else len(data) - offset
        return ArrayRecord(dtype, shape, "C", memoryview(data)[offset : offset + size])
    kind = numpy.dtype(dtype)
    if kind.hasobject or not isinstance(data, MEMORY):
        raise ValueError("an array of objects has no memory to share, and what is no memory is none")
    array = numpy.ndarray(shape, kind, memoryview(data), offset, strides)
    array.flags.writeable = is_writable and array.flags.writeable
    return array


def _as_received(view: memoryview, numpy: Numpy) -> Numpy:
    """Return what a view of received memory shows, writable if that is: what was read-only at the sender is ours."""
    whole = numpy.frombuffer(view.obj, "u1")
    start = _address(numpy.frombuffer(view, "u1")) - _address(whole)  # not 0 where several share a segment
    return whole[start : start + len(view)]


def _address(array: Numpy) -> int:
    return array.__array_interface__["data"][0]  # type: ignore[no-any-return]


def restore_objects(shape: tuple[int, ...], items: list[object]) -> object:
    """Return an array of objects; a flat list of them where there is no numpy."""
    numpy = _numpy()
    if numpy is None:
        return items
    flat = numpy.empty(len(items), "O")
    for index, item in enumerate(items):
        flat[index] = item
    return flat.reshape(shape)


def restore_strings(shape: tuple[int, ...], items: list[object]) -> object:
    """Return an array of numpy 2's variable-width strings; of objects in numpy 1, a flat list without numpy."""
    numpy = _numpy()
    kind = getattr(getattr(numpy, "dtypes", None), "StringDType", None)
    if kind is None:
        return restore_objects(shape, items)
    return numpy.array(items, kind()).reshape(shape)  # type: ignore[union-attr]


def restore_fields(dtype: object, shape: tuple[int, ...], columns: dict[str, Any]) -> object:
    """Return an array of records that hold objects; a dict of its columns where there is no numpy."""
    numpy = _numpy()
    if numpy is None:
        return columns
    array = numpy.zeros(shape, numpy.dtype(dtype))
    for name, column in columns.items():
        array[name] = column
    return array


def restore_item(array: Any) -> object:
    """Return the one record in an array of shape (); the array where there is no numpy."""
    return array if _numpy() is None or isinstance(array, (dict, ArrayRecord)) else array[()]


def restore_dtype(dtype: object) -> object:
    """Return a dtype; its portable form where there is no numpy, or one that has none such."""
    numpy = _numpy()
    if numpy is None:
        return dtype
    if dtype == "T":
        kind = getattr(getattr(numpy, "dtypes", None), "StringDType", None)
        return numpy.dtype("O") if kind is None else kind()
    return numpy.dtype(dtype)


def restore_masked(data: Any, mask: Any, fill: Any, is_hard: bool) -> object:
    """Return a masked array; an `ArrayRecord` with a `mask` where there is no numpy."""
    numpy = _numpy()
    if numpy is None:
        if isinstance(data, ArrayRecord):
            data.mask = mask
        return data
    array = numpy.ma.array(data, mask=numpy.ma.nomask if mask is None else mask, copy=False, hard_mask=is_hard)
    if fill is not None:
        array.fill_value = fill
    return array


def restore_kind(kind: str, array: Any) -> object:
    """Return an array as one of numpy's own subclasses; as it is where there is no such class."""
    numpy = _numpy()
    if numpy is None or kind not in _SUBCLASSES:
        return array
    found = numpy.char.chararray if kind == "chararray" else getattr(numpy, kind)
    return array.view(found)


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

    from .mapping import SharedMemory

    Numpy = Any  # the module or an object of it, of whatever version is here
    Reducer = Callable[[Any], Any]
