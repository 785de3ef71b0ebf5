"""pandas frames, series, indexes and scalars, column by column: for any version of pandas, and for receivers without.

pandas's own pickles name private modules and block layouts that change between its versions. Ours name columns: arrays
of numpy as they are, without a copy where they are contiguous, other kinds by what they are made of. Where there is no
pandas a frame is a list of records, a series or an index a list. Stateless.
"""

from __future__ import annotations

import sys

from . import pandas_columns as columns
from .standard import in_zone


def reducer_of(kind: type, pandas: Any) -> Reducer | None:
    """Return how values of one of pandas's classes travel; None where its own way has to do."""
    if kind is pandas.DataFrame:
        return _reduce_frame
    if kind is pandas.Series:
        return _reduce_series
    if issubclass(kind, pandas.Index):
        return lambda index: (restore_index, (columns.index_form(index),))
    if issubclass(kind, pandas.api.extensions.ExtensionArray):
        return lambda array: (restore_column, (columns.form_of(array),))
    if kind is pandas.Interval:
        return lambda value: (restore_interval, (value.left, value.right, value.closed))
    if kind in (type(pandas.NaT), type(pandas.NA)):
        return lambda value: (restore_missing, ("NA" if value is pandas.NA else "NaT",))
    return {"Timestamp": _reduce_stamp, "Timedelta": _reduce_delta, "Period": _reduce_period}.get(kind.__name__)


def _reduce_frame(frame: Any) -> tuple[object, ...]:
    numpy = sys.modules["numpy"]
    dtypes = list(frame.dtypes)
    labels, index = columns.index_form(frame.columns), columns.index_form(frame.index)
    attributes = dict(getattr(frame, "attrs", None) or {})
    if dtypes and len(set(dtypes)) == 1 and isinstance(dtypes[0], numpy.dtype) and dtypes[0].kind not in "OMm":
        return restore_block, (frame.to_numpy(copy=False), labels, index, attributes)
    forms = [columns.form_of(frame.iloc[:, place].array) for place in range(len(dtypes))]
    return restore_frame, (forms, labels, index, attributes)


def _reduce_series(series: Any) -> tuple[object, ...]:
    form = columns.form_of(series.array)
    return restore_series, (form, columns.index_form(series.index), series.name, dict(series.attrs or {}))


def _reduce_stamp(stamp: Any) -> tuple[object, ...]:
    zone = None if stamp.tzinfo is None else str(stamp.tzinfo)
    return restore_stamp, (stamp.to_datetime64(), zone)


def _reduce_delta(delta: Any) -> tuple[object, ...]:
    return restore_delta, (delta.to_timedelta64(),)


def _reduce_period(period: Any) -> tuple[object, ...]:
    return restore_period, (str(period), period.freqstr)


# --- what bodies name ---------------------------------------------------------------------------------------------


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        return None
    return pandas


def restore_frame(forms: list[Form], labels: Form, index: Form, attributes: dict[Any, Any]) -> object:
    """Return a DataFrame; a list of records where there is no pandas."""
    pandas = _pandas()
    if pandas is None:
        names = columns.items_of_index(labels)
        lists = [columns.items_of(form) for form in forms]
        return [dict(zip(names, row)) for row in zip(*lists)]
    arrays = {place: columns.array_of(form, pandas) for place, form in enumerate(forms)}
    frame = pandas.DataFrame(arrays, index=columns.index_of(index, pandas), copy=False)
    frame.columns = columns.index_of(labels, pandas)
    frame.attrs.update(attributes)
    return frame


def restore_block(values: Any, labels: Form, index: Form, attributes: dict[Any, Any]) -> object:
    """Return a DataFrame all of whose columns are of one dtype; a list of records where there is no pandas."""
    pandas = _pandas()
    if pandas is None:
        names = columns.items_of_index(labels)
        return [dict(zip(names, row)) for row in values.tolist()]
    frame = pandas.DataFrame(
        values, columns=columns.index_of(labels, pandas), index=columns.index_of(index, pandas), copy=False
    )
    frame.attrs.update(attributes)
    return frame


def restore_series(form: Form, index: Form, name: Any, attributes: dict[Any, Any]) -> object:
    """Return a Series; a list where there is no pandas."""
    pandas = _pandas()
    if pandas is None:
        return columns.items_of(form)
    series = pandas.Series(columns.array_of(form, pandas), index=columns.index_of(index, pandas), name=name, copy=False)
    series.attrs.update(attributes)
    return series


def restore_index(form: Form) -> object:
    """Return an Index; a list where there is no pandas."""
    pandas = _pandas()
    return columns.items_of_index(form) if pandas is None else columns.index_of(form, pandas)


def restore_column(form: Form) -> object:
    """Return one of pandas's arrays; a list where there is no pandas."""
    pandas = _pandas()
    if pandas is None:
        return columns.items_of(form)
    array = columns.array_of(form, pandas)
    return pandas.Series(array, copy=False).array if form[0] in ("numpy", "objects") else array


def restore_stamp(moment: Any, zone: str | None) -> object:
    """Return a Timestamp; a datetime where there is no pandas."""
    pandas = _pandas()
    if pandas is None:
        return in_zone(columns.moment_of(moment), zone)
    stamp = pandas.Timestamp(moment)
    return stamp if zone is None else stamp.tz_localize("UTC").tz_convert(zone)


def restore_delta(length: Any) -> object:
    """Return a Timedelta; a timedelta where there is no pandas."""
    pandas = _pandas()
    return columns.moment_of(length) if pandas is None else pandas.Timedelta(length)


def restore_period(text: str, freq: str) -> object:
    """Return a Period; its text where there is no pandas."""
    pandas = _pandas()
    return text if pandas is None else pandas.Period(text, freq=freq)


def restore_interval(left: Any, right: Any, closed: str) -> object:
    """Return an Interval; the pair of its ends where there is no pandas."""
    pandas = _pandas()
    return (left, right) if pandas is None else pandas.Interval(left, right, closed)


def restore_missing(name: str) -> object:
    """Return pandas's `NaT` or `NA`; None where there is no pandas."""
    pandas = _pandas()
    return None if pandas is None or name not in ("NaT", "NA") else getattr(pandas, name)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from .pandas_columns import Form

    Reducer = Callable[[Any], Any]
