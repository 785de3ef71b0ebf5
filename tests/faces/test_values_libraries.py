"""numpy and pandas of the last major version in the worker, of the newest in the host: one environment, built once."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import venvoy as vv


@pytest.fixture(scope="module")
def old(interpreters: list[str], home: Path) -> Iterator[vv.Pool]:
    """A pool whose workers have numpy 1 and pandas 1, on the oldest Python there is that pandas 1 runs on."""
    version = _version_of(interpreters[0])
    if int(version.partition(".")[2]) > 11:
        pytest.skip("pandas 1 needs Python 3.11 or older")
    spec = vv.EnvSpec(packages=["numpy<2", "pandas<2"], python=version)
    worker = vv.WorkerOptions(output="discard", grace_period=0.6)
    with vv.Pool(spec, workers=1, worker=worker, name="old libraries") as pool:
        assert pool.submit("builtins:abs", -1).result(20) == 1
        yield pool


def _version_of(python: str) -> str:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def echo(value: object) -> object:
    """Return what came."""
    return value


def there_and_back(pool: vv.Pool, value: object) -> Any:
    return pool.call(vv.by_source(echo), value)


ARRAYS = {
    "numbers": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "strided": np.arange(20_000)[::-2],
    "big-endian": np.arange(3, dtype=">i4"),
    "large": np.arange(100_000),
    "records": np.array([(1, "x")], [("a", "i4"), ("b", "U3")]),
    "text": np.array(["é", ""]),
    "times": np.array(["2024-02-29", "NaT"], "M8[ns]"),
    "shape ()": np.array(5.5),
    "empty": np.zeros((0, 3), "f4"),
    "complex": np.array([1 + 2j], "c8"),
    "bool": np.array([True, False]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_go_between_numpy_1_and_2(old: vv.Pool, name: str) -> None:
    """Dtype, shape, order and contents, in both directions."""
    array = ARRAYS[name]
    result = there_and_back(old, array)
    assert result.dtype == array.dtype
    assert result.shape == array.shape
    assert np.array_equal(result, array, equal_nan=array.dtype.kind in "fcM")
    assert result.flags.writeable
    assert result.flags.f_contiguous == np.ascontiguousarray(array).flags.f_contiguous or name == "fortran"


def test_other_values_of_numpy_go_between_numpy_1_and_2(old: vv.Pool) -> None:
    """Arrays of objects, records of objects, masked arrays, subclasses, scalars and dtypes."""
    objects = np.array([{"a": 1}, None, [2]], object)
    records = np.array([(1, {"q": 1})], [("a", "i4"), ("o", object)])
    masked = np.ma.array([1, 2], mask=[0, 1], fill_value=9)
    rec = np.rec.array([(1, 2.0)], names="a,b")
    values = [objects, records, masked, rec, np.float32(1.5), np.str_("x"), np.dtype([("a", ">i4")]), records[0]]
    back = there_and_back(old, values)
    assert [type(value) for value in back] == [type(value) for value in values]
    assert back[0].tolist() == objects.tolist()
    assert back[1].tolist() == records.tolist()
    assert (back[2].tolist(), back[2].fill_value) == ([1, None], 9)
    assert back[3].a[0] == 1
    assert back[4:7] == values[4:7]
    assert old.eval("__import__('numpy').__version__").startswith("1.")
    made = old.eval("[__import__('numpy').ma.array([1, 2], mask=[1, 0]), __import__('numpy').float64(2)]")
    assert made[0].tolist() == [None, 2]
    assert (type(made[1]), made[1]) == (np.float64, 2.0)


def test_frames_go_between_pandas_1_and_the_newest(old: vv.Pool) -> None:
    """A frame of many kinds of columns there, worked on there, and back."""
    pandas: Any = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "int": [1, 2, 3],
            "text": ["x", None, "z"],
            "category": pandas.Categorical(["u", "v", "u"]),
            "zoned": pandas.date_range("2024-01-01", periods=3, tz="Europe/Berlin"),
            "nullable": pandas.array([1, None, 3], dtype="Int64"),
            "flag": pandas.array([True, None, False], dtype="boolean"),
            "period": pandas.period_range("2024-01", periods=3, freq="M"),
            "interval": pandas.interval_range(0, 3),
        },
        index=pandas.MultiIndex.from_tuples([("x", 1), ("x", 2), ("y", 1)], names=["k", "l"]),
    )
    assert old.eval("__import__('pandas').__version__").startswith("1.")
    result = there_and_back(old, frame)
    assert result.shape == frame.shape
    pandas.testing.assert_index_equal(result.index, frame.index, exact=False)
    for label in frame.columns:
        assert result[label].astype(object).where(result[label].notna(), None).tolist() == (
            frame[label].astype(object).where(frame[label].notna(), None).tolist()
        )
    assert str(result["category"].dtype) == "category"
    assert str(result["nullable"].dtype) == "Int64"
    assert str(result["zoned"].dtype).endswith("Europe/Berlin]")
    total = old.call(vv.by_source(total_of), frame)
    assert total == {"x": 3, "y": 3}


def total_of(frame: Any) -> dict[str, int]:
    """Work with a frame as one of the worker's pandas."""
    return {key: int(value) for key, value in frame.groupby(level="k")["int"].sum().items()}


def test_frames_made_by_pandas_1_arrive(old: vv.Pool) -> None:
    """With the dtypes it has; Timestamp, NaT and an index with a frequency."""
    pandas: Any = pytest.importorskip("pandas")
    frame, stamp, missing, index = old.call(vv.by_source(make_frame))
    assert frame["a"].tolist() == [1, 2]
    assert frame["b"].tolist()[0] == "x"
    assert frame.index.tolist() == [10, 20]
    assert stamp == pandas.Timestamp("2024-01-01", tz="UTC")
    assert missing is pandas.NaT
    assert (len(index), index.freqstr) == (3, "D")
    assert index[0] == datetime.datetime(2024, 1, 1)


def make_frame() -> Any:
    """Return values of the worker's pandas."""
    import pandas

    frame = pandas.DataFrame({"a": [1, 2], "b": ["x", None]}, index=[10, 20])
    return frame, pandas.Timestamp("2024-01-01", tz="UTC"), pandas.NaT, pandas.date_range("2024-01-01", periods=3)


def test_a_host_without_the_libraries_gets_plain_values(old: vv.Pool, run_script: Any) -> None:
    """Records and lists, in a host that cannot import them."""
    python = old.eval("__import__('sys').executable")
    done = run_script(WITHOUT, python)
    assert done.stdout.splitlines() == ["[{'a': 1, 'b': 1.5}, {'a': 2, 'b': 2.5}]", "['x', 'y']", "[[0, 1], [2, 3]]"], (
        done.stderr
    )


WITHOUT = """
    import sys
    import venvoy as vv

    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ("numpy", "pandas"):
                raise ModuleNotFoundError(name)

    sys.meta_path.insert(0, Missing())
    with vv.Pool(sys.argv[1], workers=1) as pool:
        print(pool.eval("__import__('pandas').DataFrame({'a': [1, 2], 'b': [1.5, 2.5]})"))
        print(pool.eval("__import__('pandas').Series(['x', 'y'])"))
        print(pool.eval("__import__('numpy').arange(4).reshape(2, 2)").tolist())
"""
