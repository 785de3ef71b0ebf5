"""What values are on the other side of a call: the same, or their plain form, or an error that says where."""

from __future__ import annotations

import copy
import datetime
import decimal
import json
import pathlib
import threading
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

import venvoy as vv
from venvoy_worker.contract import codec

VALUES = Path(__file__).with_name("values")
QUIET: dict[str, Any] = {"paths": [VALUES / "worker"], "output": "discard", "grace_period": 0.6}


# --- classes from another environment -----------------------------------------------------------------------------


def test_instances_arrive_in_their_plain_form(pool: vv.Pool, shapes: ModuleType) -> None:
    """Whatever is importable here: a class of that name may be another version of it."""
    result = pool.call("every")
    assert result == {
        "enum": 1,
        "tuple enum": (1, "b"),
        "odd enum": "ODD",
        "flag": 3,
        "int enum": 1,
        "named": (1, 2),
        "pair": ("l", "r"),
        "dataclass": {"name": "a", "parent": {"name": "b", "parent": None}},
        "slots": {"a": 1, "b": "x"},
        "mapping": {"a": 1},
        "text": "t",
        "whole": 5,
        "items": [1, {"name": "c", "parent": None}],
        "dumped": {"inner": {"name": "d", "parent": None}, "kind": "dumped"},
        "json": [1, 2],
    }
    kinds = {key: type(value) for key, value in result.items()}
    assert kinds["dataclass"] is kinds["slots"] is kinds["dumped"] is vv.Record
    assert [kinds[key] for key in ("enum", "named", "mapping", "text", "whole", "items")] == [
        int,
        tuple,
        dict,
        str,
        int,
        list,
    ]
    assert result["dataclass"].type_name == "shapes.Item"
    assert result["dataclass"].parent.name == "b"


def test_plain_forms_keep_cycles_and_identity(pool: vv.Pool) -> None:
    """Two objects that hold each other do so afterwards."""
    first, second, again = pool.call("cycle")
    assert first.parent is second
    assert second.parent is first
    assert again is first


def test_objects_can_be_keys_and_members(pool: vv.Pool) -> None:
    """A Record can be where the frozen object was, and is found there."""
    mapping, members, frozen = pool.call("as_keys")
    assert mapping[vv.Record(a=1, b="a")] == 1
    assert members == {vv.Record(a=2, b="b"), 1}
    assert frozen == {(1, 2)}
    with pytest.raises(TypeError, match="unhashable"):
        hash(vv.Record(a=[]))


@pytest.mark.parametrize("entry", ["shapes", "shapes:Item", "class"])
def test_a_declared_class_is_itself(others: list[str], shapes: ModuleType, entry: str, home: Path) -> None:
    """By module, by name, or by the class itself; what is not declared stays plain."""
    declared = [shapes.Item if entry == "class" else entry]
    with vv.Pool(others[0], "shapes", worker=vv.WorkerOptions(**QUIET), workers=1, classes=declared) as pool:
        first, second, again = pool.call("cycle")
        assert type(first) is shapes.Item
        assert first.parent is second
        assert again is first
        assert type(pool.call("make", "Changed", "x")) is vv.Record  # another field in the host's version
        whole_module = entry == "shapes"
        assert type(pool.call("make", "Point", 1, 2)) is (shapes.Point if whole_module else tuple)
        assert (pool.call("every")["enum"] is shapes.Color.RED) is whole_module
        if whole_module:
            assert type(pool.call("make", "Guarded", 5)) is shapes.Guarded
            assert pool.call("make", "Opaque", 5).number == 5
            assert {type(value) for value in pool.call("every").values()} >= {
                shapes.Frozen,
                shapes.Mapping,
                shapes.Text,
            }


def test_objects_as_arguments_are_the_workers_own(pool: vv.Pool, shapes: ModuleType) -> None:
    """A worker that has the class with these fields gets an object of it, else a Record; a Record goes home again."""
    item = shapes.Item("a")
    item.parent = item
    for value, kind in [
        (item, "shapes.Item"),
        (shapes.Frozen(1, "x"), "shapes.Frozen"),
        (shapes.Point(1, 2), "shapes.Point"),
        (shapes.Color.RED, "shapes.Color"),
        (shapes.Access.READ | shapes.Access.WRITE, "shapes.Access"),
        (shapes.Mapping(a=1), "shapes.Mapping"),
        (shapes.Text("x"), "shapes.Text"),
        (shapes.Guarded(1), "shapes.Guarded"),
        (shapes.Opaque(1), "shapes.Opaque"),
        (shapes.Changed("x", 5), "venvoy_worker.contract.records.Record"),
        (pool.call("make", "Item", "there"), "shapes.Item"),
    ]:
        assert pool.call("kind_of", value) == kind
    assert pool.call("fields_of", shapes.Changed("x", 5)) == {"name": "x", "added": 5}
    for value in (shapes.Mapping(a=1), shapes.Items([1]), shapes.Text("x"), item):
        value.extra = "more"  # what is in an instance beside its fields
        assert pool.call("builtins:getattr", value, "extra") == "more"
    assert pool.call("echo", item).parent.parent.name == "a"


def test_an_object_without_a_plain_form_is_an_error_that_says_where(pool: vv.Pool) -> None:
    """The path to it, its class, and what can be done; the worker goes on."""
    pid = pool.call("os:getpid")
    for target, path, kind in [
        ("opaque_inside", "result['rows'][3]['x']", "shapes.Opaque"),
        ("lock_inside", "result[1]['lock'][0]", "lock"),
    ]:
        with pytest.raises(vv.EncodingError) as caught:
            pool.call(target)
        assert path in str(caught.value)
        assert kind in str(caught.value)
    with pytest.raises(vv.EncodingError, match=r"the result \(a Opaque\) has no plain form.*classes="):
        pool.call("make", "Opaque")
    with pytest.raises(vv.EncodingError, match=r"shapes\.Opaque.*classes="):
        pool.call("class_inside")
    assert pool.call("os:getpid") == pid


@pytest.mark.parametrize(
    ("args", "kwargs", "path"),
    [
        (({"x": [0, 1, 2, threading.Lock()]},), {}, "args[0]['x'][3]"),
        ((1, [lambda: 1]), {}, "args[1][0]"),
        ((1,), {"key": {"a": threading.Lock()}}, "kwargs['key']['a']"),
        ((vv.callback(print), [threading.Lock()]), {}, "args[1][0] (a lock)"),
        (([threading],), {}, "args[0][0] (a module)"),
    ],
    ids=["list in dict", "lambda", "keyword", "beside a callback", "module"],
)
def test_an_argument_that_cannot_travel_says_where(pool: vv.Pool, args: Any, kwargs: Any, path: str) -> None:
    """Before a worker is taken."""
    for call in (pool.call, lambda *args, **kwargs: pool.submit(*args, **kwargs).result(20)):
        with pytest.raises(vv.EncodingError) as caught:
            call("echo", *args, **kwargs)
        assert path in str(caught.value)


def test_a_million_items_are_searched_by_halving(pool: vv.Pool) -> None:
    """The path to one bad item among many is found in time."""
    items: list[Any] = list(range(300_000))
    items[200_001] = threading.Lock()
    with pytest.raises(vv.EncodingError, match=r"args\[0\]\[200001\]"):
        pool.call("echo", items)


def test_items_of_map_that_cannot_travel_say_which(pool: vv.Pool) -> None:
    """Arguments by their place among the items, results as those of a call, after the values before them."""
    with pytest.raises(vv.EncodingError, match=r"items\[2\]"):
        list(pool.map("echo", [1, 2, threading.Lock()], chunksize=3))
    results = pool.map("make", ["Item", "Item", "Opaque"], [1, 2, 3], chunksize=3)
    assert [next(results).name, next(results).name] == [1, 2]
    with pytest.raises(vv.EncodingError, match="plain form"):
        next(results)


# --- the host's own environment -----------------------------------------------------------------------------------


def test_at_home_classes_are_themselves_where_both_can_import_them(home_pool: vv.Pool) -> None:
    """As with pickle, custom pickling included."""
    value = [uuid.UUID(int=5), decimal.Decimal(1), vv.EnvSpec(packages=["x"])]
    assert home_pool.call("builtins:list", value) == value


def test_at_home_classes_of_the_workers_own_folders_come_in_plain_form(home_pool: vv.Pool) -> None:
    """A module that only the worker can import; the same object goes back as itself."""
    result = home_pool.call("apart:thing")
    assert (type(result), result) == (vv.Record, {"name": "a", "kind": 1})
    assert home_pool.call("apart:kind_of", result) == ("Thing", "int")


def test_classes_of_a_shipped_function_come_in_plain_form(home_pool: vv.Pool, pool: vv.Pool) -> None:
    """They live in a module that is on the worker's side only."""
    for each in (home_pool, pool):
        result = each.call(vv.by_source(local_class))
        assert [type(part) for part in result] == [vv.Record, int]
        assert result[0].value == 5


def local_class() -> object:
    """Return what only this function knows."""
    import dataclasses
    import enum

    result = dataclasses.make_dataclass("Local", ["value"])(5), enum.Enum("Kind", "A").A
    for part in result:
        type(part).__module__ = __name__
    return result


SCRIPT_CLASSES = """
    import dataclasses, sys
    import venvoy as vv

    @dataclasses.dataclass
    class Mine:
        x: int

    def look(value):
        return type(value).__name__, value.x

    if __name__ == "__main__":
        for env in [None, *sys.argv[1:]]:
            with vv.Pool(env, workers=1) as pool:
                print(pool.call(look, Mine(5)))
"""


def test_classes_of_a_script_reach_workers_as_records(run_script: Any, others: list[str]) -> None:
    """No worker can import `__main__` of the host."""
    done = run_script(SCRIPT_CLASSES, *others[:1])
    assert done.stdout.splitlines() == ["('Record', 5)"] * 2, done.stderr


# --- register -----------------------------------------------------------------------------------------------------


@pytest.fixture
def registered(shapes: ModuleType) -> Any:
    """`Money` is registered here under the name that the worker uses."""
    vv.register(
        shapes.Money, lambda money: {"amount": money.amount}, lambda form: shapes.Money(form["amount"]), name="Money"
    )
    yield shapes.Money
    from venvoy_worker.contract import reducers

    del reducers._registered[shapes.Money], reducers._decoders["Money"]
    reducers._changes += 1


def test_a_registered_class_travels_both_ways(others: list[str], registered: Any, home: Path) -> None:
    """Registered by an initializer it holds for all calls of the worker; inside other values too."""
    options = vv.WorkerOptions(**QUIET, initializer="shapes:register_money")
    with vv.Pool(others[0], "shapes", worker=options, workers=1) as pool:
        for amount in (5, 6):
            result = pool.call("money", amount)
            assert (type(result), result.amount) == (registered, amount)
        shared = registered(7)
        first, second = pool.call("echo", [shared, shared])
        assert first is second
        assert pool.call("amount_of", shared) == ("Money", 7)


def test_a_class_registered_on_one_side_only_is_what_it_was_encoded_as(
    others: list[str], shapes: ModuleType, home: Path
) -> None:
    """The receiver gets a Record of what `encode` returned."""
    options = vv.WorkerOptions(**QUIET, initializer="shapes:register_money")
    with vv.Pool(others[0], "shapes", worker=options, workers=1) as pool:
        assert pool.call("money", 5) == vv.Record(amount=5)


def test_a_registration_holds_from_then_on(shapes: ModuleType) -> None:
    """Also where instances of the class have travelled before it was registered."""
    from venvoy_worker.contract import reducers

    class Late(shapes.Opaque):  # type: ignore[name-defined, misc]
        pass

    strict = reducers.Table(False, True)
    with pytest.raises(codec.CodecError):
        codec.encode(Late(), strict)
    try:
        vv.register(Late, lambda late: late.number, Late, name="late")
        for table in (strict, reducers.HOME, reducers.ARGUMENTS):
            copy = codec.decode(codec.encode_inline(Late(7), table), [])
            assert (type(copy), copy.number) == (Late, 7)
    finally:
        reducers._registered.pop(Late, None)
        reducers._decoders.pop("late", None)
        reducers._changes += 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((5, str, str), "takes a class"),
        ((int, str, str), "builtin int"),
        ((dict, str, str), "builtin dict"),
        ((Path, str, None), "functions"),
        ((Path, 5, str), "functions"),
    ],
)
def test_wrong_registrations_are_refused(arguments: Any, text: str) -> None:
    """With the reason."""
    with pytest.raises(TypeError, match=text):
        vv.register(*arguments)


# --- Record -------------------------------------------------------------------------------------------------------


def test_a_record_is_a_dict_with_attributes() -> None:
    """It can be read, written, copied, compared, shown and made into JSON."""
    record = vv.Record({"name": "a", "items": [1]}, type_name="app.models.Item")
    assert (record.name, record["items"], record.type_name) == ("a", [1], "app.models.Item")
    record.name = "b"
    record.new = 5
    del record.new
    assert record == {"name": "b", "items": [1]}
    assert repr(record) == "Record(app.models.Item: {'name': 'b', 'items': [1]})"
    assert json.loads(json.dumps(record)) == record
    assert "name" in dir(record)
    for other in (copy.copy(record), copy.deepcopy(record), record.copy()):
        assert (other, other.type_name, type(other)) == (record, record.type_name, vv.Record)
        assert other is not record
    with pytest.raises(AttributeError, match=r"Record of app.models.Item has no field 'nam'; it has name, items"):
        record.nam  # noqa: B018
    with pytest.raises(AttributeError):
        del record.nam
    record.self = record
    assert "..." in repr(record)
    assert vv.Record(a=1).type_name == ""


# --- limits -------------------------------------------------------------------------------------------------------


def test_oversized_arguments_and_results_are_refused(pool: vv.Pool) -> None:
    """With their size and the limit; nothing is sent, the worker is the same."""
    pid = pool.call("os:getpid")
    view = pool.options(max_bytes=1000)
    for call in (view.call, lambda *args: view.submit(*args).result(20)):
        for target, argument in [("blob", 5000), ("remember", bytes(5000))]:
            with pytest.raises(vv.MessageTooLarge, match=r"takes? 50\d\d bytes, but at most 1000") as caught:
                call(target, argument)
            assert 5000 < caught.value.size < 5100
            assert caught.value.limit == 1000
            assert caught.value.code == "message_too_large"
    assert view.call("blob", 900) == b"x" * 900
    assert view.eval("5 * b'x'") == b"xxxxx"
    with pytest.raises(vv.MessageTooLarge):
        view.eval("5000 * b'x'")
    with pytest.raises(vv.MessageTooLarge):
        view.eval("value", value=bytes(5000))
    assert pool.call("os:getpid") == pid
    assert len(pool.call("blob", 5000)) == 5000


def test_the_limit_is_exact(pool: vv.Pool) -> None:
    """It counts the encoded bytes, buffers included."""
    size = codec.size_of(codec.encode_result(b"x" * 5000))
    assert len(pool.options(max_bytes=size).call("blob", 5000)) == 5000
    with pytest.raises(vv.MessageTooLarge):
        pool.options(max_bytes=size - 1).call("blob", 5000)


def test_the_limit_of_map_is_that_of_each_item(pool: vv.Pool) -> None:
    """Many small ones in one message are fine; one too large is the error in its place."""
    view = pool.options(max_bytes=1000)
    assert [len(blob) for blob in view.map("blob", [400] * 20, chunksize=10)] == [400] * 20
    results = view.map("blob", [1, 2, 5000, 3], chunksize=4)
    assert [next(results), next(results)] == [b"x", b"xx"]
    with pytest.raises(vv.MessageTooLarge):
        next(results)
    with pytest.raises(vv.MessageTooLarge):
        list(view.map("remember", [b"x", bytes(5000)], chunksize=2))


def test_a_pool_has_a_limit_of_its_own(others: list[str], home: Path) -> None:
    """It holds for calls, leases and views; a view can only lower it."""
    options = vv.WorkerOptions(**QUIET, max_message_bytes=1000)
    with vv.Pool(others[0], "shapes", worker=options, workers=1) as pool:
        for each in (pool, pool.options(timeout=20), pool.options(max_bytes=2000)):
            assert len(each.call("blob", 900)) == 900
            with pytest.raises(vv.MessageTooLarge, match="at most 1000"):
                each.call("blob", 1500)
        with pytest.raises(vv.MessageTooLarge, match="at most 50"):
            pool.options(max_bytes=50).call("blob", 100)
        with pool.lease() as worker:
            with pytest.raises(vv.MessageTooLarge):
                worker.call("blob", 1500)
            with pytest.raises(vv.MessageTooLarge):
                worker.options(max_bytes=5000).eval("b'x' * 1500")


def test_an_error_beyond_the_limit_is_cut_not_lost(pool: vv.Pool) -> None:
    """Its class and message arrive, however large its arguments are."""
    with pytest.raises(ValueError, match="invalid literal") as caught:
        pool.options(max_bytes=1000).call("builtins:int", "y" * 900)
    assert "y" in str(caught.value)
    with pytest.raises(KeyError) as large:
        pool.options(max_bytes=20_000).eval("{}['x' * 100_000]")
    assert len(str(large.value)) < 20_000


@pytest.mark.parametrize("value", ["5", 0, -1, True, 1.5])
def test_limits_that_are_none_are_refused(value: Any) -> None:
    """By name, before anything starts."""
    with pytest.raises((TypeError, ValueError), match="max_bytes is a number of bytes"):
        vv.Pool().options(max_bytes=value)
    with pytest.raises((TypeError, ValueError), match="max_message_bytes is a number of bytes"):
        vv.WorkerOptions(max_message_bytes=value)


# --- sizes --------------------------------------------------------------------------------------------------------

THRESHOLD = codec._OUT_OF_BAND


@pytest.mark.parametrize("size", [0, 1, THRESHOLD - 1, THRESHOLD, THRESHOLD + 1, 65_535, 65_536, 1 << 20])
@pytest.mark.parametrize("make", [bytes, bytearray, memoryview], ids=lambda make: make.__name__)
def test_binary_values_of_every_size(pool: vv.Pool, make: Any, size: int) -> None:
    """On both sides of each threshold, as argument and as result."""
    data = bytes(range(256)) * (size // 256 + 1)
    value = make(data[:size])
    result = pool.call("echo", value)
    assert type(result) is make
    assert result == value


def test_a_hundred_megabytes(others: list[str], home: Path) -> None:
    """There and back."""
    with vv.Pool(others[0], "shapes", worker=vv.WorkerOptions(**QUIET), workers=1) as pool:
        assert pool.call("remember", bytes(100_000_000)) == (100_000_000, b"\0", b"\0")
        assert len(pool.call("blob", 100_000_000)) == 100_000_000


@pytest.mark.slow
def test_more_than_four_gigabytes(others: list[str], home: Path) -> None:
    """Sizes are of 64 bits, in both directions."""
    size = 4_100_000_000
    if psutil.virtual_memory().available < 5 * size:
        pytest.skip("needs 20 GB of free memory")
    with vv.Pool(others[0], "shapes", worker=vv.WorkerOptions(**QUIET), workers=1) as pool:
        assert pool.call("remember", bytes(size)) == (size, b"\0", b"\0")
        result = pool.call("blob", size)
        assert (len(result), result[:1], result[-1:]) == (size, b"x", b"x")


# --- other values -------------------------------------------------------------------------------------------------


def test_usual_values_come_back_the_same(pool: vv.Pool, home_pool: vv.Pool) -> None:
    """From any environment."""
    value = [
        pathlib.Path("a"),
        datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC),
        decimal.Decimal("1.1"),
        {1: {(2, 3): b"x"}},
        10**400,
        "\ud800",
        bytearray(b"x"),
        uuid.UUID(int=7),
        slice(1, 2),
    ]
    for each in (pool, home_pool):
        assert each.call("echo", value) == value
        assert next(iter(each.map("echo", [value]))) == value
        assert each.eval("value", value=value) == value
