"""One column or index of pandas as a tuple of a kind and what it is made of; to that and back, and to a list.

A form is `(kind, parts…)`; docs/protocol.md has the table. Stateless.
"""

from __future__ import annotations

import sys

from .standard import in_zone

# --- to forms -----------------------------------------------------------------------------------------------------


def form_of(array: Any) -> Form:
    """Return the form of one of pandas's arrays, as of `Series.array`."""
    numpy = sys.modules["numpy"]
    dtype = array.dtype
    if type(dtype).__name__ in ("PandasDtype", "NumpyEADtype"):  # pandas's thin wrapper around an array of numpy
        dtype = dtype.numpy_dtype
    if isinstance(dtype, numpy.dtype):
        if dtype.kind == "O":
            return ("objects", list(numpy.asarray(array, dtype=object)))
        return ("numpy", numpy.asarray(array))
    maker = _FORMS.get(type(dtype).__name__)
    if maker is not None:
        return maker(array)
    if hasattr(dtype, "numpy_dtype") and hasattr(array, "_mask"):
        data = array.to_numpy(dtype=dtype.numpy_dtype, na_value=dtype.numpy_dtype.type(0))
        return ("masked", str(dtype), data, numpy.asarray(array.isna()))
    return _extension(array)


def _extension(array: Any) -> Form:
    missing = array.isna()
    return ("extension", str(array.dtype), [None if gone else item for item, gone in zip(array, missing)])


def _categories(array: Any) -> Form:
    numpy = sys.modules["numpy"]
    return ("category", numpy.asarray(array.codes), form_of(array.categories.array), bool(array.ordered))


def _zoned(array: Any) -> Form:
    unit = getattr(array.dtype, "unit", "ns")
    return ("zoned", sys.modules["numpy"].asarray(array, dtype="M8[%s]" % unit), str(array.dtype.tz))


def _periods(array: Any) -> Form:
    missing = array.isna()
    return (
        "period",
        [None if gone else str(item) for item, gone in zip(array, missing)],
        str(array.dtype)[len("period[") : -1],
    )


def _intervals(array: Any) -> Form:
    return ("interval", form_of(array.left.array), form_of(array.right.array), array.closed)


def _sparse(array: Any) -> Form:
    return ("sparse", sys.modules["numpy"].asarray(array), array.fill_value)


_FORMS = {
    "CategoricalDtype": _categories,
    "DatetimeTZDtype": _zoned,
    "PeriodDtype": _periods,
    "IntervalDtype": _intervals,
    "SparseDtype": _sparse,
    "StringDtype": _extension,
}


def index_form(index: Any) -> Form:
    """Return the form of an index."""
    pandas = sys.modules["pandas"]
    if isinstance(index, pandas.RangeIndex):
        return ("range", index.start, index.stop, index.step, index.name)
    if isinstance(index, pandas.MultiIndex):
        numpy = sys.modules["numpy"]
        levels = [form_of(level.array) for level in index.levels]
        return ("multi", levels, [numpy.asarray(codes) for codes in index.codes], list(index.names))
    return ("index", form_of(index.array), index.name, getattr(index, "freqstr", None))


# --- back ---------------------------------------------------------------------------------------------------------


def array_of(form: Form, pandas: Any) -> Any:
    """Return the array of a form; of objects where this pandas has no such kind."""
    kind, *parts = form
    if kind == "numpy":
        return parts[0]
    if kind == "objects":
        return _objects(parts[0])
    if kind == "category":
        codes, categories, is_ordered = parts
        values = pandas.Index(array_of(categories, pandas))
        return pandas.Categorical.from_codes(codes, categories=values, ordered=is_ordered)
    if kind == "masked":
        name, data, mask = parts
        array = pandas.array(data, dtype=name)
        array[mask] = pandas.NA
        return array
    if kind == "zoned":
        moments, zone = parts
        return pandas.DatetimeIndex(moments).tz_localize("UTC").tz_convert(zone).array
    if kind == "period":
        texts, freq = parts
        return pandas.PeriodIndex([pandas.NaT if text is None else text for text in texts], freq=freq).array
    if kind == "interval":
        left, right, closed = parts
        ends = [pandas.Index(array_of(end, pandas)) for end in (left, right)]
        return pandas.arrays.IntervalArray.from_arrays(*ends, closed=closed)
    if kind == "sparse":
        return pandas.arrays.SparseArray(parts[0], fill_value=parts[1])
    return _extension_array(parts[0], parts[1], pandas)


def _extension_array(name: Any, items: Any, pandas: Any) -> Any:
    if name == "str" and int(pandas.__version__.partition(".")[0]) < 3:  # means text of numpy there
        return _objects([float("nan") if item is None else item for item in items])
    try:
        return pandas.array(items, dtype=name)
    except (TypeError, ValueError, ImportError):  # a kind that this pandas, or what is installed with it, has not
        return _objects(items)


def _objects(items: list[Any]) -> Any:
    numpy = sys.modules["numpy"]
    array = numpy.empty(len(items), "O")
    for place, item in enumerate(items):
        array[place] = item
    return array


def index_of(form: Form, pandas: Any) -> Any:
    """Return the index of a form."""
    kind, *parts = form
    if kind == "range":
        start, stop, step, name = parts
        return pandas.RangeIndex(start, stop, step, name=name)
    if kind == "multi":
        levels, codes, names = parts
        values = [pandas.Index(array_of(level, pandas)) for level in levels]
        return pandas.MultiIndex(levels=values, codes=codes, names=names)
    array, name, freq = parts
    index = pandas.Index(array_of(array, pandas), name=name)
    if freq is not None and hasattr(index, "freq") and not hasattr(index, "ordinal"):
        try:
            index.freq = freq
        except (ValueError, AttributeError):  # called otherwise in this version of pandas
            pass
    return index


# --- to lists -----------------------------------------------------------------------------------------------------


def items_of(form: Form) -> list[Any]:
    """Return the elements of a form as Python values; missing ones are None, or NaN where they were."""
    kind, *parts = form
    if kind in ("numpy", "sparse"):
        return _listed(parts[0])
    if kind == "category":
        values = items_of(parts[1])
        return [values[code] if code >= 0 else None for code in _listed(parts[0])]
    if kind == "masked":
        return [None if gone else item for item, gone in zip(_listed(parts[1]), _listed(parts[2]))]
    if kind == "zoned":
        return [in_zone(moment, parts[1]) for moment in _listed(parts[0])]
    if kind == "interval":
        return list(zip(items_of(parts[0]), items_of(parts[1])))
    found: list[Any] = parts[0] if kind in ("objects", "period") else parts[1]
    return found


def items_of_index(form: Form) -> list[Any]:
    """Return the elements of the form of an index as Python values."""
    kind, *parts = form
    if kind == "range":
        return list(range(*parts[:3]))
    if kind == "multi":
        levels = [items_of(level) for level in parts[0]]
        columns = [
            [level[code] if code >= 0 else None for code in _listed(codes)] for level, codes in zip(levels, parts[1])
        ]
        return list(zip(*columns))
    return items_of(parts[0])


def _listed(array: Any) -> list[Any]:
    kind = getattr(array.dtype, "kind", "")
    if kind in ("M", "m"):  # of numpy, which lists nanoseconds as plain numbers
        array = array.astype("%s8[us]" % kind)
    items: list[Any] = array.tolist()
    return items


def moment_of(value: Any) -> Any:
    """Return a datetime or timedelta of numpy as Python's; what is one already as it is."""
    if hasattr(value, "astype"):
        return value.astype("%s8[us]" % value.dtype.kind).item()
    return value.tolist() if hasattr(value, "tolist") else value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Tuple

    Form = Tuple[Any, ...]
