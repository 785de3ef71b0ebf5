"""pandas, polars and pyarrow: the same frame on the other side, plain lists and records where the library is not."""

from __future__ import annotations

import datetime
import decimal
import json
import subprocess
import sys
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import venvoy_worker
from venvoy.values import guarded
from venvoy.values.classes import Classes
from venvoy_worker.contract import codec, frames, reducers
from venvoy_worker.contract.arrays import ArrayRecord

FOLDER = str(Path(venvoy_worker.__file__).parents[1])
STRICT = reducers.Table(False, True)
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


def travel(value: object) -> Any:
    """Through the table for results, and with the host's strictest idea of what may be named."""
    pieces, buffers = codec.encode(value, STRICT)
    find_class = Classes(is_safe=True).find_class
    return codec.decode(b"".join(pieces), [bytearray(buffer) for buffer in buffers], find_class, guarded.load)


def pandas_frame(pandas: Any) -> Any:
    index = pandas.MultiIndex.from_tuples([("x", 1), ("x", 2), ("y", 1)], names=["k", "l"])
    columns = {
        "int": [1, 2, 3],
        "float": [1.5, float("nan"), 3.0],
        "text": ["x", None, "z"],
        "category": pandas.Categorical(["u", "v", "u"], categories=["v", "u"], ordered=True),
        "zoned": pandas.date_range("2024-01-01", periods=3, tz="Europe/Berlin"),
        "moment": pandas.date_range("2024-01-01", periods=3),
        "length": pandas.to_timedelta([1, 2, 3], unit="s"),
        "nullable": pandas.array([1, None, 3], dtype="Int64"),
        "flag": pandas.array([True, None, False], dtype="boolean"),
        "string": pandas.array(["q", None, "r"], dtype="string"),
        "object": [{"k": 1}, [2], None],
        "period": pandas.period_range("2024-01", periods=3, freq="M"),
        "interval": pandas.interval_range(0, 3),
        "sparse": pandas.arrays.SparseArray([0, 0, 1]),
        5: [b"x", b"y", b"z"],
    }
    frame = pandas.DataFrame(columns)
    frame.index = index
    frame.attrs["unit"] = "m"
    return frame


@pytest.fixture(scope="module")
def pandas() -> Any:
    return pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def polars() -> Any:
    library: Any = pytest.importorskip("polars")
    library.DataFrame({"a": [1, 2]}).select(library.col("a").sum()).to_dicts()  # its threads are not left behind
    return library


def test_a_frame_of_every_kind_of_column_survives(pandas: Any) -> None:
    """Values, dtypes, both indexes and attributes."""
    frame = pandas_frame(pandas)
    result = travel(frame)
    pandas.testing.assert_frame_equal(result, frame)
    assert list(result.dtypes) == list(frame.dtypes)
    assert result.attrs == frame.attrs


FRAMES: dict[str, Callable[[Any], Any]] = {
    "one dtype": lambda pandas: pandas.DataFrame(np.arange(6.0).reshape(3, 2), columns=["a", "b"]),
    "same names": lambda pandas: pandas.DataFrame([[1, "x"]], columns=["a", "a"]),
    "empty": lambda pandas: pandas.DataFrame(),
    "no rows": lambda pandas: pandas.DataFrame({"a": [], "b": []}),
    "no columns": lambda pandas: pandas.DataFrame(index=[1, 2]),
    "range index": lambda pandas: pandas.DataFrame({"x": [1, 2]}, index=pandas.RangeIndex(5, 9, 2, name="r")),
    "labels in levels": lambda pandas: pandas.DataFrame(
        [[1, 2]], columns=pandas.MultiIndex.from_tuples([("a", 1), ("b", 2)])
    ),
    "moments": lambda pandas: pandas.DataFrame({"a": pandas.date_range("2024", periods=2)}),
    "dates as index": lambda pandas: pandas.DataFrame(
        {"a": [1, 2]}, index=pandas.date_range("2024", periods=2, freq="D")
    ),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames_of_every_shape_survive(pandas: Any, name: str) -> None:
    """The odd ones too."""
    frame = FRAMES[name](pandas)
    result = travel(frame)
    pandas.testing.assert_frame_equal(result, frame)
    assert getattr(result.index, "freq", None) == getattr(frame.index, "freq", None)


def test_series_indexes_and_arrays_survive(pandas: Any) -> None:
    """Each column by itself, with its name."""
    frame = pandas_frame(pandas)
    for label in frame.columns:
        pandas.testing.assert_series_equal(travel(frame[label]), frame[label])
        pandas.testing.assert_extension_array_equal(travel(frame[label].array), frame[label].array)
        index = pandas.Index(frame[label], name="n") if label != "object" else frame.index
        pandas.testing.assert_index_equal(travel(index), index)


def test_scalars_of_pandas_survive(pandas: Any) -> None:
    """With nanoseconds, zones and the values for what is missing."""
    for value in [
        pandas.Timestamp("2024-02-29 12:00:00.123456789"),
        pandas.Timestamp("2024-01-01", tz="Europe/Berlin"),
        pandas.Timedelta("1s"),
        pandas.Period("2024-01", "M"),
        pandas.Interval(0, 1, "both"),
    ]:
        assert travel(value) == value
        assert type(travel(value)) is type(value)
    assert travel(pandas.NaT) is pandas.NaT
    assert travel(pandas.NA) is pandas.NA


def test_columns_of_numbers_are_not_copied(pandas: Any) -> None:
    """They leave the body as the memory they are in, and become the memory of the result."""
    frame = pandas.DataFrame({"a": np.arange(10_000), "b": np.arange(10_000.0)})
    pieces, buffers = codec.encode(frame, STRICT)
    assert len(buffers) == 2
    assert sum(map(len, pieces)) < 2000
    assert all(np.shares_memory(np.asarray(buffer).view("i8"), frame[label].to_numpy().view("i8"))
               for buffer, label in zip(buffers, "ab", strict=True))  # fmt: skip


def test_arrow_columns_survive(pandas: Any) -> None:
    """Where pyarrow is; elsewhere they would be objects."""
    pytest.importorskip("pyarrow")
    series = pandas.Series([1, None, 3], dtype="int64[pyarrow]")
    pandas.testing.assert_series_equal(travel(series), series)


def test_a_kind_of_column_that_is_not_here_is_of_objects(pandas: Any) -> None:
    """Nothing is lost but the dtype."""
    from venvoy_worker.contract import pandas_values

    series: Any = pandas_values.restore_series(
        ("extension", "no such dtype", [1, None]), ("range", 0, 2, 1, None), "x", {}
    )
    assert series.tolist() == [1, None]
    assert series.dtype == object


def polars_frame(polars: Any) -> Any:
    frame = polars.DataFrame(
        {
            "int": [1, 2],
            "float": [1.5, 2.5],
            "text": ["x", None],
            "list": [[1], [2, 3]],
            "day": [datetime.date(2024, 1, 1), None],
            "zoned": [datetime.datetime(2024, 1, 1, tzinfo=BERLIN), None],
            "moment": [datetime.datetime(2024, 1, 1), None],
            "struct": [{"q": 1, "r": "a"}, {"q": 2, "r": None}],
            "decimal": [decimal.Decimal("1.5"), None],
            "flag": [True, None],
            "bytes": [b"x", None],
            "length": [datetime.timedelta(1), None],
            "time": [datetime.time(1, 2), None],
        }
    )
    return frame.with_columns(
        polars.col("text").cast(polars.Categorical).alias("category"),
        polars.col("text").cast(polars.Enum(["x"])).alias("enum"),
        polars.lit(None).alias("null"),
        polars.Series("array", [[1, 2], [3, 4]], dtype=polars.Array(polars.Int16, 2)),
        polars.Series("small", [1, 2], dtype=polars.UInt8),
    )


def test_a_frame_of_polars_survives(polars: Any) -> None:
    """Every type of column, series, and what is empty."""
    frame = polars_frame(polars)
    result = travel(frame)
    assert result.schema == frame.schema
    assert result.equals(frame)
    for series in frame.get_columns():
        assert travel(series).equals(series)
    assert travel(polars.DataFrame()).shape == (0, 0)
    assert travel(frame.head(0)).schema == frame.schema


def test_numbers_of_polars_are_not_copied(polars: Any) -> None:
    """A column without gaps is one buffer."""
    _, buffers = codec.encode(polars.DataFrame({"a": range(10_000), "b": [1.5] * 10_000}), STRICT)
    assert len(buffers) == 2


def test_tables_of_pyarrow_survive() -> None:
    """Tables, batches, arrays; with dictionaries, gaps and metadata."""
    pyarrow: Any = pytest.importorskip("pyarrow")
    table = pyarrow.table({"a": [1, None], "s": ["x", "y"], "d": pyarrow.array(["u", "u"]).dictionary_encode()})
    table = table.replace_schema_metadata({"key": "value"})
    assert travel(table).equals(table)
    assert travel(table).schema.metadata == table.schema.metadata
    empty = table.slice(0, 0)
    for value in (empty, table.to_batches()[0], pyarrow.array([1, None]), pyarrow.chunked_array([[1], [2]])):
        result = travel(value)
        assert result.equals(value)
        assert isinstance(result, type(value).__mro__[-3 if isinstance(value, pyarrow.Array) else 0])


BARE = """
import sys; sys.path.insert(0, sys.argv[1])
import json
from venvoy_worker.contract import codec, frames
(frame,) = frames.FrameParser().feed(sys.stdin.buffer.read())
value = codec.decode(frame.body, frame.buffers)
assert not {"pandas", "polars", "numpy"} & set(sys.modules)
def shown(value):
    if isinstance(value, dict):
        return {str(key): shown(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(item) for item in value]
    if isinstance(value, bytes):
        return value.decode()
    if hasattr(value, "timestamp"):
        return value.isoformat() if value.tzinfo is None else value.timestamp()
    return value if value is None or type(value) in (int, float, bool, str) else str(value)
print(json.dumps(shown(value)))
"""


def received(interpreter: str, value: object) -> Any:
    """Send a value to a bare interpreter; return what it got, as JSON."""
    body, buffers = codec.encode(value, reducers.ARGUMENTS)
    data = b"".join(frames.pack(4, body=body, buffers=buffers))
    command = [interpreter, "-I", "-S", "-c", BARE, FOLDER]
    done = subprocess.run(command, input=data, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_without_pandas_a_frame_is_records(interpreter: str, pandas: Any) -> None:
    """On every Python, and without numpy: a dict for each row, a list for a series or an index; never an error."""
    frame = pandas_frame(pandas)
    records, series, index, stamp, missing, block, nan = received(
        interpreter,
        [
            frame,
            frame["int"],
            frame.index,
            pandas.Timestamp("2024-01-01", tz="UTC"),
            [pandas.NaT, pandas.NA],
            pandas.DataFrame(np.arange(4).reshape(2, 2), columns=["a", "b"]),
            pandas.Series(["a", "b"]),
        ],
    )
    first = records[0]
    assert len(records) == 3
    assert list(first) == [str(label) for label in frame.columns]
    assert (first["int"], first["float"], first["text"], first["category"]) == (1, 1.5, "x", "u")
    assert (first["nullable"], first["flag"], first["string"], first["object"]) == (1, True, "q", {"k": 1})
    assert (first["period"], first["interval"], first["sparse"], first["5"]) == ("2024-01", [0, 1], 0, "x")
    assert (first["moment"], first["length"]) == ("2024-01-01T00:00:00", "0:00:01")
    assert first["zoned"] == pandas.Timestamp("2024-01-01", tz="Europe/Berlin").timestamp()
    assert records[1]["nullable"] is records[1]["flag"] is records[1]["string"] is None
    assert series == [1, 2, 3]
    assert index == [["x", 1], ["x", 2], ["y", 1]]
    assert stamp == 1704067200.0
    assert missing == [None, None]
    assert block == [{"a": 0, "b": 1}, {"a": 2, "b": 3}]
    assert nan == ["a", "b"]


def test_without_polars_a_frame_is_records(interpreter: str, polars: Any) -> None:
    """On every Python."""
    frame = polars_frame(polars)
    records, series = received(interpreter, [frame, frame["text"]])
    assert list(records[0]) == frame.columns
    assert (records[0]["int"], records[0]["text"], records[0]["list"]) == (1, "x", [1])
    assert records[0]["zoned"] == datetime.datetime(2024, 1, 1, tzinfo=BERLIN).timestamp()
    assert records[1]["text"] is None
    assert series == ["x", None]


# --- what an array is without numpy -----------------------------------------------------------------------------------

LISTED = [
    np.arange(6, dtype=">i2").reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array([[["a"], ["bc"]]]),
    np.array([b"a", b""]),
    np.array([True, False]),
    np.array([1.5, -2], "f2"),
    np.array([1, 2], ">f4"),
    np.array([1 + 2j]),
    np.array(5),
    np.zeros((2, 0)),
    np.zeros((0, 2)),
    np.array([2**64 - 1], "u8"),
    np.array(["2024-02-29", "NaT"], "M8[D]"),
    np.array(["2024-02-29T12:00:00.5"], "M8[ms]"),
    np.array([90], "m8[m]"),
]


def record_of(array: Any) -> ArrayRecord:
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    return ArrayRecord(array.dtype.str, array.shape, order, array.tobytes(order))


@pytest.mark.parametrize("array", LISTED, ids=lambda array: f"{array.dtype} {array.shape}")
def test_a_record_lists_its_elements_as_numpy_does(array: Any) -> None:
    """Of every kind that Python has a value for."""
    assert record_of(array).tolist() == array.tolist()


def test_a_record_lists_masked_elements_as_none() -> None:
    """And nanoseconds as times, which numpy does not."""
    record = record_of(np.array([1, 2]))
    record.mask = record_of(np.array([False, True]))
    assert record.tolist() == [1, None]
    moments = np.array(["2024-01-01T00:00:00.000000500", "2262-01-01"], "M8[ns]")
    assert record_of(moments).tolist()[0] == datetime.datetime(2024, 1, 1)
    assert record_of(np.array([10**18], "M8[D]")).tolist() == [10**18]


@pytest.mark.parametrize("dtype", ["<f16", "|V3", "nonsense", "O"])
def test_a_kind_only_numpy_can_read_says_so(dtype: str) -> None:
    """By its dtype."""
    with pytest.raises(TypeError, match="without numpy"):
        ArrayRecord(dtype, (1,), "C", bytes(16)).tolist()
    with pytest.raises(TypeError, match="without numpy"):
        ArrayRecord({"names": ["a"]}, (1,), "C", bytes(16)).tolist()


def test_a_python_is_there() -> None:
    """The tests above use each interpreter of the machine, this one at least."""
    assert received(sys.executable, [1, "x"]) == [1, "x"]
