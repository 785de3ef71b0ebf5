"""Instances of classes of other libraries: pydantic, attrs, msgspec, as themselves where the fields are the same."""

from __future__ import annotations

import copyreg
import pickle
from typing import Any

import msgspec
import pytest

from venvoy_worker.contract import codec, records, reducers
from venvoy_worker.contract.codec import CodecError
from venvoy_worker.contract.records import Record

STRICT = reducers.Table(False, True)


class Struct(msgspec.Struct):
    x: int
    y: Any = None


class Frozen(msgspec.Struct, frozen=True):
    x: int


def made_by_attrs() -> Any:
    attr = pytest.importorskip("attr")
    return attr.make_class("Attrs", {"x": attr.ib(), "y": attr.ib(default=None)}, slots=True)


def made_by_pydantic() -> Any:
    pydantic = pytest.importorskip("pydantic")
    return pydantic.create_model("Model", x=(int, ...), y=(object, None))


MAKERS = {
    "msgspec": lambda: Struct,
    "frozen msgspec": lambda: Frozen,
    "attrs": made_by_attrs,
    "pydantic": made_by_pydantic,
}


@pytest.fixture(params=MAKERS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Each class in turn, importable by its name."""
    made = MAKERS[request.param]()
    monkeypatch.setattr(made, "__module__", __name__, raising=False)
    monkeypatch.setitem(globals(), made.__name__, made)
    return made


def travel(value: object, table: reducers.Table, find: Any = None) -> Any:
    pieces, buffers = codec.encode(value, table)
    return codec.decode(b"".join(pieces), list(map(bytearray, buffers)), find)


@pytest.mark.parametrize("table", [STRICT, reducers.ARGUMENTS, reducers.HOME], ids=["results", "arguments", "home"])
def test_an_object_with_fields_is_itself_where_it_can_be(kind: Any, table: reducers.Table) -> None:
    """By the same fields, shared parts being shared afterwards."""
    value = kind(x=5)
    first, second = travel([value, value], table)
    assert type(first) is kind
    assert first == value
    assert first is second


def test_an_object_with_fields_is_a_record_elsewhere(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no such class, or one with other fields."""
    pieces, _ = codec.encode(kind(x=5), STRICT)
    body = b"".join(pieces)

    class Other:
        __struct_fields__ = ("x", "z")

    for replacement in (Other, None):
        if replacement is None:
            monkeypatch.delitem(globals(), kind.__name__)
        else:
            monkeypatch.setitem(globals(), kind.__name__, replacement)
        result = codec.decode(body, [])
        assert type(result) is Record
        assert result.x == 5
        assert result.type_name == f"{__name__}.{kind.__name__}"


class Hidden:
    """No fields, no plain form."""


class Computed:
    """Says what it is, by a method."""

    def model_dump(self) -> dict[str, int]:
        return {"a": 1}


class Registered:
    """Registered with `copyreg`, as old libraries do."""


def test_a_strict_table_refuses_what_has_no_plain_form() -> None:
    """A lenient one names it, and a declared one is named by both."""
    with pytest.raises(CodecError, match=r"Hidden is not declared.*classes="):
        codec.encode([Hidden()], STRICT)
    for table in (reducers.ARGUMENTS, reducers.Table(False, True, (__name__,))):
        assert type(travel(Hidden(), table)) is Hidden
    declared = reducers.Table(False, True, (f"{__name__}:Hidden",))
    assert type(travel(Hidden(), declared)) is Hidden
    assert type(travel(Computed(), declared)) is Record


class Misleading:
    """Cannot be sent, nor be looked at."""

    __slots__ = ("part",)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        raise RuntimeError("look away")

    def __reduce__(self) -> Any:
        raise ValueError("not me")


def test_looking_for_the_place_never_hides_the_error() -> None:
    """An object that fails when it is looked at is where the search ends."""
    assert codec.failing_part([Misleading()])[0] in ("", "[0]")
    with pytest.raises(CodecError, match="not me"):
        codec.encode([Misleading()])


def test_declared_is_by_whole_names() -> None:
    """A package declares what is in it, not what begins like it."""
    for module, name, declared, expected in [
        ("app.models", "Item", ["app"], True),
        ("app.models", "Item", ["app.models"], True),
        ("app.models", "Item", ["app.models:Item"], True),
        ("application", "Item", ["app"], False),
        ("app", "Item", ["app.models"], False),
        ("app.models", "Other", ["app.models:Item"], False),
    ]:
        assert reducers.is_declared(module, name, declared) is expected


def test_a_copyreg_registration_holds_at_home() -> None:
    """At any time, as for pickle."""
    assert type(travel(Registered(), reducers.HOME)) is Registered
    copyreg.pickle(Registered, lambda value: (str, ("by copyreg",)))  # type: ignore[arg-type, return-value]
    try:
        assert travel(Registered(), reducers.HOME) == "by copyreg"
    finally:
        copyreg.dispatch_table.pop(Registered)


def test_tables_do_not_keep_ever_new_classes() -> None:
    """A program that makes classes again and again does not grow by that."""
    table = reducers.Table(False, True)
    for number in range(3):
        table._seen = table.fresh()._seen
        for index in range(reducers._MOST_KINDS):
            table[type(f"Kind{number}_{index}", (), {})]
        codec.encode({}, table)
    assert len(table) <= reducers._MOST_KINDS + 1


def test_a_record_goes_through_any_pickler() -> None:
    """Plain pickle, in both of its forms."""
    record = Record({"a": 1}, type_name="app.Item")
    for dump in (pickle.dumps, pickle._dumps):  # type: ignore[attr-defined]
        copy = pickle.loads(dump(record))
        assert (copy, copy.type_name, type(copy)) == (record, "app.Item", Record)


def test_no_class_of_a_script_or_function_is_looked_for() -> None:
    """They are elsewhere by another name, or not at all."""
    for name in ("__main__:Item", "app:f.<locals>.Item", "", "no_such_module_here:Item", "json:loads", "json:Nothing"):
        assert records.importable(name) is None
