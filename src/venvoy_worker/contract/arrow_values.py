"""polars frames and series, pyarrow tables and arrays: for any version of these, and for receivers without.

polars travels column by column, each a numpy array or a list with the name of its type; where there is no polars a
frame is a list of records, a series a list. pyarrow travels in Arrow's own stream format. Stateless.
"""

from __future__ import annotations

import sys
from _pickle import PickleBuffer

from .codec import CodecError
from .standard import in_zone


def reducer_of(kind: type, module: Any) -> Reducer | None:
    """Return how values of a class of polars or pyarrow travel; None where its own way has to do."""
    if module.__name__ == "polars":
        if kind is module.DataFrame:
            return lambda frame: (restore_polars_frame, ([_column(series) for series in frame.get_columns()],))
        return (lambda series: (restore_polars_series, (_column(series),))) if kind is module.Series else None
    if kind in (module.Table, module.RecordBatch):
        return lambda table: (restore_table, (kind.__name__, _stream(table)))
    if issubclass(kind, (module.Array, module.ChunkedArray)):
        is_chunked = issubclass(kind, module.ChunkedArray)
        name = "ChunkedArray" if is_chunked else "Array"
        return lambda array: (restore_table, (name, _stream(module.table([array], names=[""]))))
    return None


# --- polars -------------------------------------------------------------------------------------------------------


def _column(series: Any) -> tuple[Any, ...]:
    dtype = series.dtype
    if dtype.is_numeric() and not series.null_count() and type(dtype).__name__ != "Decimal" and _has_numpy():
        return series.name, _described(dtype), series.to_numpy()
    described = _described(dtype)
    if _zone(described) is not None:  # older polars needs packages to list moments with a zone
        series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return series.name, described, series.to_list()


def _zone(described: tuple[Any, ...]) -> str | None:
    return described[2] if described[0] == "Datetime" else None


def _has_numpy() -> bool:
    try:
        import numpy
    except ImportError:
        return False
    return bool(numpy)


def _described(dtype: Any) -> tuple[Any, ...]:
    """Return a type of polars as its name and what it is made of."""
    name = dtype.__name__ if isinstance(dtype, type) else type(dtype).__name__
    if name == "List":
        return (name, _described(dtype.inner))
    if name == "Array":
        return (name, _described(dtype.inner), tuple(dtype.shape))
    if name == "Struct":
        return (name, [(field.name, _described(field.dtype)) for field in dtype.fields])
    if name == "Enum":
        return (name, dtype.categories.to_list())
    if name == "Decimal":
        return (name, dtype.precision, dtype.scale)
    if name in ("Datetime", "Duration"):
        return (name, dtype.time_unit, getattr(dtype, "time_zone", None))
    return (name,)


def _dtype_of(described: Any, polars: Any) -> Any:
    """Return the type that was described; AttributeError where this polars has none of that name."""
    name, *parts = described
    if name not in _POLARS_TYPES:  # a name that comes from elsewhere could be that of any function
        raise CodecError("holds a column of the unknown type %r" % (described,))
    kind = getattr(polars, name)
    if name == "List":
        return kind(_dtype_of(parts[0], polars))
    if name == "Array":
        inner = _dtype_of(parts[0], polars)
        for size in reversed(parts[1]):
            inner = kind(inner, size)
        return inner
    if name == "Struct":
        return kind([polars.Field(field, _dtype_of(inner, polars)) for field, inner in parts[0]])
    if name == "Duration":
        return kind(parts[0])
    return kind(*parts) if parts else kind


def _series(column: tuple[Any, ...], polars: Any) -> Any:
    name, described, data = column
    data = data.tolist() if type(data).__name__ == "ArrayRecord" else data
    zone = _zone(described)
    if zone is not None:
        series = polars.Series(name, data, dtype=polars.Datetime(described[1]))
        return series.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    try:
        dtype = _dtype_of(described, polars)
    except (AttributeError, TypeError):  # newer than this polars: it finds a type by itself
        dtype = None
    return polars.Series(name, data, dtype=dtype)


# fmt: off
_POLARS_TYPES = frozenset([
    "Int8", "Int16", "Int32", "Int64", "Int128", "UInt8", "UInt16", "UInt32", "UInt64", "UInt128",
    "Float16", "Float32", "Float64", "Boolean", "String", "Utf8", "Binary", "Date", "Time", "Datetime",
    "Duration", "Categorical", "Enum", "List", "Array", "Struct", "Decimal", "Null", "Object", "Unknown"
])
# fmt: on


def _polars() -> Any:
    try:
        import polars
    except ImportError:
        return None
    return polars


def _items(column: tuple[Any, ...]) -> list[Any]:
    _, described, data = column
    items: list[Any] = data.tolist() if hasattr(data, "tolist") else data
    zone = _zone(described)
    return items if zone is None else [in_zone(item, zone) for item in items]


def restore_polars_frame(columns: list[tuple[Any, ...]]) -> object:
    """Return a DataFrame of polars; a list of records where there is no polars."""
    polars = _polars()
    if polars is not None:
        return polars.DataFrame([_series(column, polars) for column in columns])
    names = [name for name, _, _ in columns]
    return [dict(zip(names, row)) for row in zip(*map(_items, columns))]


def restore_polars_series(column: tuple[Any, ...]) -> object:
    """Return a Series of polars; a list where there is no polars."""
    polars = _polars()
    return _items(column) if polars is None else _series(column, polars)


# --- pyarrow ------------------------------------------------------------------------------------------------------


def _stream(table: Any) -> Any:
    pyarrow = sys.modules["pyarrow"]
    sink = pyarrow.BufferOutputStream()
    with __import__("pyarrow.ipc").ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return PickleBuffer(sink.getvalue())


def restore_table(kind: str, data: Any) -> object:
    """Return a Table, RecordBatch, ChunkedArray or Array of pyarrow; without pyarrow records or a list by polars.

    Raises:
        CodecError: neither is installed here.
    """
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        return _listed_table(kind, data)
    reader = pyarrow.ipc.open_stream(pyarrow.py_buffer(data))
    table = reader.read_all()
    if kind == "Table":
        return table
    if kind == "RecordBatch":
        batches = table.combine_chunks().to_batches()
        return batches[0] if batches else pyarrow.RecordBatch.from_pylist([], schema=table.schema)
    column = table.column(0)
    return column if kind == "ChunkedArray" else column.combine_chunks()


def _listed_table(kind: str, data: Any) -> object:
    polars = _polars()
    if polars is None:
        raise CodecError("holds a %s of pyarrow, which is not installed here: send its to_pylist()" % kind)
    frame = polars.read_ipc_stream(bytes(data))
    return frame.to_dicts() if kind in ("Table", "RecordBatch") else frame.to_series(0).to_list()


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    Reducer = Callable[[Any], Any]
