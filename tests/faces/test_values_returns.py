"""What `options(returns=)` and `bind` make of results: declared types, values for JSON, or an error with a path."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import json
import pathlib
import typing
import uuid
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest

import venvoy as vv
from venvoy.values.returns import converter
from venvoy_worker.contract.arrays import ArrayRecord
from venvoy_worker.contract.codec import CodecError
from venvoy_worker.contract.plain import plain


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Row:
    x: int
    y: str = "default"


@dataclasses.dataclass
class Table:
    rows: list[Row]
    color: Color | None = None


class RowDict(typing.TypedDict):
    x: int
    y: str


class RowStruct(msgspec.Struct):
    x: int
    y: str


class RowTuple(typing.NamedTuple):
    x: int
    y: int


def converted(value: object, wanted: Any) -> Any:
    return converter(wanted, "call")(value)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (list[Row], [Row(1, "a"), Row(2, "b")]),
        (list[RowDict], [{"x": 1, "y": "a"}, {"x": 2, "y": "b"}]),
        (list[RowStruct], [RowStruct(1, "a"), RowStruct(2, "b")]),
        (tuple[Row, ...], (Row(1, "a"), Row(2, "b"))),
        (typing.Any, [{"x": 1, "y": "a"}, {"x": 2, "y": "b"}]),
        (list[dict[str, int | str]], [{"x": 1, "y": "a"}, {"x": 2, "y": "b"}]),
    ],
    ids=["dataclass", "TypedDict", "Struct", "tuple", "Any", "union"],
)
def test_results_are_of_the_type_that_was_asked_for(pool: vv.Pool, wanted: Any, expected: Any) -> None:
    """From call, submit, map and eval alike."""
    view = pool.options(returns=wanted)
    assert view.call("rows") == expected
    assert view.submit("rows").result(20) == expected
    assert list(view.map("rows", ["int", "int"])) == [expected, expected]
    assert view.eval("[dict(x=1, y='a'), dict(x=2, y='b')]") == expected
    with pool.lease() as worker:
        assert worker.options(returns=wanted).call("rows") == expected


def test_plain_forms_of_objects_become_the_hosts_types(pool: vv.Pool, shapes: ModuleType) -> None:
    """A Record becomes a dataclass, a tuple a named tuple, a value a member."""
    assert pool.options(returns=shapes.Item).call("make", "Item", "a") == shapes.Item("a")
    assert pool.options(returns=shapes.Point).call("make", "Point", 1, 2) == shapes.Point(1, 2)
    assert pool.options(returns=shapes.Color).eval("__import__('shapes').Color.RED") is shapes.Color.RED
    assert pool.options(returns=Color).call("builtins:int", 1) is Color.RED
    assert pool.options(returns=shapes.Color).call("builtins:str", "ODD") is shapes.Color.ODD


def test_pydantic_models_are_made(pool: vv.Pool) -> None:
    """And say where a mismatch is."""
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", x=(int, ...), y=(str, ...))
    assert pool.options(returns=list[model]).call("rows")[1].x == 2
    with pytest.raises(vv.EncodingError, match=r"result\[1\]\.x: "):
        pool.options(returns=list[model]).call("rows", "text")


@pytest.mark.parametrize(
    ("value", "wanted", "text"),
    [
        ([{"x": 1}, {"x": "two"}], list[Row], r"result\[1\]\.x: expected `int`, got `str`"),
        ({"rows": [{"x": 1}, {"y": "b"}]}, Table, r"result\.rows\[1\]: .*required field `x`"),
        ("text", int, r"result: expected `int`, got `str`"),
        ({"a": [1, None]}, dict[str, list[int]], r"result\[\.\.\.\]\[1\]"),
        ([object()], list[fractions.Fraction], r"result\[0\]: expected `Fraction`, got `object`"),
        (5, Color, r"result: 5 is not a valid Color"),
        ([5], list[Color], r"result\[0\]: invalid enum value 5"),
    ],
)
def test_mismatches_are_reported_by_path(value: object, wanted: Any, text: str) -> None:
    """An EncodingError with the name of the call."""
    with pytest.raises(vv.EncodingError, match=rf"^call: the result is not what returns= says: {text}"):
        converted(value, wanted)


def test_a_mismatch_in_map_comes_in_its_place(pool: vv.Pool) -> None:
    """After the results before it."""
    results = pool.options(returns=list[Row]).map("rows", ["int", "text", "int"], chunksize=3)
    assert next(results) == [Row(1, "a"), Row(2, "b")]
    with pytest.raises(vv.EncodingError, match=r"result\[1\]\.x"):
        next(results)


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        (np.int64(5), int, 5),
        ({"x": np.int32(1), "y": "a"}, Row, Row(1, "a")),
        (np.array([1.5, 2.5]), list[float], [1.5, 2.5]),
        ({"rows": [{"x": 1, "y": "a"}], "color": Color.RED}, Table, Table([Row(1, "a")], Color.RED)),
        (range(3), list[int], [0, 1, 2]),
        ("a/b", pathlib.Path, pathlib.Path("a/b")),
        (Row(1), Row, Row(1)),
        ([Row(1)], list[Row], [Row(1)]),
        (datetime.datetime(2024, 1, 1), datetime.datetime, datetime.datetime(2024, 1, 1)),
        (np.zeros(1), np.ndarray, np.zeros(1)),
        (vv.Record(x=1, y=2, type_name="a.B"), RowTuple, None),
        ((1, 2), RowTuple, RowTuple(1, 2)),
    ],
    ids=str,
)
def test_values_of_libraries_are_converted_too(value: object, wanted: Any, expected: Any) -> None:
    """Numbers and arrays of numpy, enumeration members, ranges, and what is of the type already."""
    if expected is None:
        with pytest.raises(vv.EncodingError):
            converted(value, wanted)
    else:
        result = converted(value, wanted)
        assert result == expected
        assert type(result) is type(expected)


def test_a_type_nothing_can_be_converted_to_is_named() -> None:
    """A mistake of the caller's, not of the result."""
    with pytest.raises(vv.EncodingError, match="returns="):
        converted(1, typing.Union[list[int], set[int], list[str]])  # noqa: UP007
    with pytest.raises(ValueError, match='returns is a type or "plain"'):
        vv.Pool().options(returns="Plain")


# --- plain ----------------------------------------------------------------------------------------------------------

MIXED = {
    "item": {"name": "a", "parent": None},
    "color": 1,
    "when": "2024-02-29T12:00:00+00:00",
    "day": "2024-02-29",
    "price": "1.10",
    "id": "00000000-0000-0000-0000-000000000005",
    "path": "a/b",
    "data": {"__bytes__": True, "b64": "AP8="},
    "set": [1],
    "tuple": [1, [2]],
    "span": "P1DT2.5S",
    1: 1,
    5: "five",
}


def test_plain_results_can_be_said_in_json(pool: vv.Pool, home_pool: vv.Pool) -> None:
    """From any environment, the same."""
    for each in (pool, home_pool):
        result = each.options(returns="plain").call("mixed")
        assert result == MIXED
        json.dumps(result)
        assert each.options(returns="plain").submit("mixed").result(20) == MIXED
        assert list(each.options(returns="plain").map("echo", [(1,), {2}])) == [[1], [2]]


class Odd(enum.Enum):
    NO_VALUE = object()
    DATE = datetime.date(2024, 1, 1)


class Number(int):
    pass


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Row(1), {"x": 1, "y": "default"}),
        (RowStruct(1, "a"), {"x": 1, "y": "a"}),
        (RowTuple(1, 2), [1, 2]),
        (Odd.NO_VALUE, "NO_VALUE"),
        (Odd.DATE, "2024-01-01"),
        (Number(5), 5),
        (frozenset([1]), [1]),
        (collections.deque([1]), [1]),
        (range(2), [0, 1]),
        (fractions.Fraction(1, 3), "1/3"),
        (datetime.time(1, 2), "01:02:00"),
        (datetime.timedelta(0), "PT0S"),
        (datetime.timedelta(seconds=-5), "-PT5S"),
        (bytearray(b"a"), {"__bytes__": True, "b64": "YQ=="}),
        (memoryview(b"a"), {"__bytes__": True, "b64": "YQ=="}),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (np.array(5), 5),
        (np.float32(1.5), 1.5),
        (np.str_("x"), "x"),
        (np.datetime64("2024-01-01T00:00:00"), "2024-01-01T00:00:00"),
        (np.array(["2024-01-01"], "M8[D]"), ["2024-01-01"]),
        (np.array(["2024-01-01"], "M8[ns]"), ["2024-01-01T00:00:00"]),
        (ArrayRecord("<i4", (2,), "C", b"\1\0\0\0\2\0\0\0"), [1, 2]),
        ({(1): 2, None: 3, uuid.UUID(int=0): 4}, {1: 2, None: 3, "00000000-0000-0000-0000-000000000000": 4}),
        (decimal.Decimal("NaN"), "NaN"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_plain_form_of_each_kind(value: object, expected: object) -> None:
    """As documented; exactly builtin values that JSON has."""
    result = plain(value)
    assert result == expected
    assert type(result) is type(expected)
    json.dumps(result)


def test_frames_are_records(libraries: None) -> None:
    """Of pandas, polars and pyarrow; series and columns are lists."""
    for name in ("pandas", "polars", "pyarrow"):
        library: Any = pytest.importorskip(name)
        if name == "pyarrow":
            assert plain(library.table({"a": [1, None]})) == [{"a": 1}, {"a": None}]
            continue
        frame = library.DataFrame({"a": [1, 2], "d": [datetime.datetime(2024, 1, 1)] * 2})
        assert plain(frame) == [{"a": 1, "d": "2024-01-01T00:00:00"}, {"a": 2, "d": "2024-01-01T00:00:00"}]
        assert plain(frame["a"]) == [1, 2]
        json.dumps(plain(frame))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, object()]}, r"result\['a'\]\[1\] \(a object\) has no plain form"),
        (1j, r"result \(a complex\)"),
        ([len], r"result\[0\]"),
        ({(1, 2): 3}, r"key \(1, 2\)"),
    ],
)
def test_what_has_no_plain_form_says_where(value: object, text: str) -> None:
    """Never a silent repr."""
    with pytest.raises(CodecError, match=text):
        plain(value)


def test_what_holds_itself_has_no_plain_form() -> None:
    """But the same part twice has."""
    shared = [1]
    assert plain([shared, shared]) == [[1], [1]]
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(CodecError, match=r"result\[0\] holds itself"):
        plain(cycle)
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(CodecError, match="nested too deeply"):
        plain(deep)


# --- bind -----------------------------------------------------------------------------------------------------------


class Shapes(typing.Protocol):
    """What the worker's module has."""

    def rows(self, kind: str = "int") -> list[Row]:
        """Return rows."""
        ...

    def blob(self, size: int) -> bytes: ...

    def echo(self, value): ...  # type: ignore[no-untyped-def]

    def make(self, name: str, *args: object) -> typing.Any: ...

    def remember(self, value: bytes) -> tuple[int, int]: ...


def test_a_bound_protocol_calls_and_converts(pool: vv.Pool) -> None:
    """Each method is the function of that name, and gives what it declares."""
    bound = pool.bind(Shapes)
    assert bound.rows() == [Row(1, "a"), Row(2, "b")]
    assert bound.blob(size=3) == b"xxx"
    assert bound.echo((1, 2)) == (1, 2)  # nothing is declared, nothing converted
    assert type(bound.make("Item", "a")) is vv.Record
    assert bound.rows.__doc__ == "Return rows."
    assert repr(bound) == "<remote Shapes: rows, blob, echo, make, remember>"
    assert pool.bind(Shapes, "shapes").blob(1) == b"x"
    assert pool.options(timeout=20).bind(Shapes).blob(1) == b"x"


def test_a_bound_protocol_reports_mismatches(pool: vv.Pool) -> None:
    """Of results by path; of arguments before anything is sent."""
    bound = pool.bind(Shapes)
    with pytest.raises(vv.EncodingError, match=r"rows: .*result\[1\]\.x"):
        bound.rows("text")
    with pytest.raises(vv.EncodingError, match=r"remember: .*`array` of length 2, got 3"):
        bound.remember(b"abc")
    for wrong in (bound.blob, lambda: bound.blob(1, 2), lambda: bound.blob(length=1)):  # type: ignore[call-arg]
        with pytest.raises(TypeError, match=r"Shapes\.blob\(\): "):
            wrong()
    with pytest.raises(AttributeError):
        bound.missing  # type: ignore[attr-defined]  # noqa: B018


def test_a_bound_protocol_of_another_module(pool: vv.Pool) -> None:
    """By the module's name."""

    class Math(typing.Protocol):
        def sqrt(self, x: float) -> float: ...

    assert pool.bind(Math, "math").sqrt(16) == 4.0
    with pytest.raises(vv.TargetNotFound):
        pool.bind(Math).sqrt(16)


def test_what_cannot_be_bound_is_refused() -> None:
    """Without a worker."""

    class Empty(typing.Protocol):
        pass

    class Unknown(typing.Protocol):
        def f(self) -> "NoSuchName": ...  # type: ignore[name-defined]  # noqa: F821, UP037

    for protocol, text in [(Empty, "no public methods"), (Unknown, "NoSuchName"), (5, "takes a class")]:
        with pytest.raises(TypeError, match=text):
            vv.Pool().bind(protocol)  # type: ignore[type-var]
