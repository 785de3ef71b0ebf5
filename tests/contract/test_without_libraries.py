"""Arrays and frames where the library that they are of is not installed: lists and records of what was in them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from venvoy_worker.contract import codec, reducers

np = pytest.importorskip("numpy")
STRICT = reducers.Table(False, True)
LIBRARIES = ["numpy", "pandas", "polars", "pyarrow", "pyarrow.ipc"]


@pytest.fixture(scope="module", autouse=True)
def libraries() -> None:
    """Begun: the threads and descriptors that they keep are not left behind by a test."""
    with contextlib.suppress(ImportError):
        import polars

        polars.DataFrame({"a": [1, 2]}).select(polars.col("a").sum()).to_dicts()


@pytest.fixture
def arrive(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Encode a value here, and decode it where some libraries are missing."""

    def arrive(value: object, missing: list[str] = LIBRARIES) -> Any:
        pieces, buffers = codec.encode(value, STRICT)
        with monkeypatch.context() as patched:
            for name in missing:
                patched.setitem(sys.modules, name, None)
            return codec.decode(b"".join(pieces), [bytearray(buffer) for buffer in buffers])

    return arrive


def test_arrays_are_records_of_what_they_were(arrive: Callable[..., Any]) -> None:
    """Which list their elements, and become arrays again where numpy is."""
    masked = arrive(np.ma.masked_array([1, 2, 3], mask=[False, True, False]))
    assert masked.tolist()[0] == 1
    assert masked.mask is not None
    pieces, buffers = codec.encode(masked, STRICT)
    back = codec.decode(b"".join(pieces), [bytearray(buffer) for buffer in buffers])
    assert back.tolist() == [1, None, 3]
    assert arrive(np.array([1.5, 2.5])).tolist() == [1.5, 2.5]


def test_elements_that_python_knows_are_lists_of_them(arrive: Callable[..., Any]) -> None:
    """Of objects, of text, of fields; scalars and text too."""
    assert arrive(np.array([{"a": 1}, None], dtype=object)) == [{"a": 1}, None]
    table = np.array([(1, None), (2, "b")], dtype=[("n", "i4"), ("any", object)])
    assert arrive(table)["any"] == [None, "b"]
    assert arrive(np.str_("text")) == "text"
    assert arrive(np.float64(2.5)) == 2.5
    assert arrive(np.dtype("f8")) is not None
    if hasattr(np.dtypes, "StringDType"):
        assert arrive(np.array(["a", "b"], dtype=np.dtypes.StringDType())) == ["a", "b"]
        assert arrive(np.dtypes.StringDType()) == "T"


def test_columns_and_indexes_of_pandas_are_lists(arrive: Callable[..., Any]) -> None:
    """Of each kind; missing ones are None."""
    pandas = pytest.importorskip("pandas")
    levels = pandas.MultiIndex.from_tuples([("x", 1), ("x", 2), ("y", 1)])
    columns = {
        "category": (pandas.Categorical(["u", None, "u"]), ["u", None, "u"]),
        "masked": (pandas.array([1, None, 3], dtype="Int64"), [1, None, 3]),
        "zoned": (
            pandas.date_range("2024-01-01", periods=3, tz="UTC"),
            [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3)],
        ),
        "interval": (pandas.interval_range(0, 3), [(0, 1), (1, 2), (2, 3)]),
        "moment": (pandas.date_range("2024-01-01", periods=3), [datetime(2024, 1, day) for day in (1, 2, 3)]),
        "length": (pandas.to_timedelta([1, 2, 3], unit="s"), [timedelta(seconds=n) for n in (1, 2, 3)]),
    }
    for kind, (values, expected) in columns.items():
        assert arrive(pandas.Series(values)) == expected, kind
    assert arrive(levels) == [("x", 1), ("x", 2), ("y", 1)]
    assert arrive(pandas.RangeIndex(2, 8, 3)) == [2, 5]
    assert arrive(pandas.Timestamp("2024-01-01", tz="UTC")) == datetime(2024, 1, 1, tzinfo=UTC)
    assert arrive(pandas.Timedelta(seconds=2)) == timedelta(seconds=2)
    assert arrive(pandas.NaT) is None


def test_frames_are_lists_of_rows(arrive: Callable[..., Any]) -> None:
    """Each a dict, whichever library they are of."""
    rows = [{"a": 1, "b": 0.5}, {"a": 2, "b": 1.5}]
    pandas = pytest.importorskip("pandas")
    assert arrive(pandas.DataFrame(rows)) == rows
    assert arrive(pandas.DataFrame([[1, 2], [3, 4]], columns=["a", "b"])) == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    polars = pytest.importorskip("polars")
    assert arrive(polars.DataFrame(rows)) == rows
    moments = polars.Series([datetime(2024, 1, 1, tzinfo=UTC)])
    assert arrive(moments) == [datetime(2024, 1, 1, tzinfo=UTC)]


def test_tables_of_arrow_need_one_of_two_libraries(arrive: Callable[..., Any]) -> None:
    """polars reads them too; without either, the error says what to send."""
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("polars")
    table = pyarrow.table({"a": [1, 2]})
    without = ["pyarrow", "pyarrow.ipc"]
    assert arrive(table, without) == [{"a": 1}, {"a": 2}]
    assert arrive(pyarrow.array([1, None]), without) == [1, None]
    with pytest.raises(codec.CodecError, match=r"pyarrow, which is not installed here: send its to_pylist\(\)"):
        arrive(table)
