"""What is done with a proxy is done with the object, in one round trip."""

from __future__ import annotations

import asyncio
import copy
import math
import operator
import os
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import venvoy as vv

from .conftest import QUIET, THINGS

RoundTrips = Callable[..., int]


def test_a_script_is_a_module_elsewhere_on_every_python(interpreter: str, home: object) -> None:
    """Its functions are called, its values read, its containers changed, its classes used."""
    things = vv.run_script(THINGS, python=interpreter, worker=QUIET)
    try:
        assert vv.worker_info(things).python == interpreter
        assert things.say_hello("earthling") == "hello earthling"
        assert things.foo == "hello world"
        things.odct["b"] = 2
        assert vv.value(things.odct) == {"a": 1, "b": 2}
        thing = things.Thing(3)
        assert (thing.add(4).number, thing + 1, 10 - thing, list(thing.count(3))) == (7, 8, 3, [0, 1, 2])
        assert asyncio.run(_awaited(thing)) == 14
        assert things.is_same(thing, thing)
        with things.Door() as door:
            assert list(door.log) == ["in"]
        with pytest.raises(LookupError, match="no such thing: 7"):
            thing.fail()
    finally:
        vv.close(things)


async def _awaited(thing: Any) -> Any:
    return await thing.later(7)


def test_values_and_proxies(things: Any) -> None:
    """Attributes: a copy of what cannot change. Results: a copy of what is plain. Everything else is a proxy."""
    assert (things.foo, things.pair) == ("hello world", (1, (2, b"3")))
    for name in ("odct", "numbers", "nested", "mixed", "Thing", "say_hello"):
        assert isinstance(getattr(things, name), vv.RemoteProxy), name
    thing = things.Thing(5)
    assert thing.fresh() == [5, {"a": {1, 2}}]
    assert isinstance(thing.child(), vv.RemoteProxy)
    child, one = thing.both()
    assert (child.number, one) == (1, 1)
    things.nested["rows"][0].append(9)
    assert vv.value(things.nested) == {"rows": [[1, 9], [2]]}
    kept = vv.keep(things.say_hello)("you")
    assert isinstance(kept, vv.RemoteProxy)
    assert (kept.upper(), kept + "!", vv.value(kept), kept == "hello you") == (
        "HELLO YOU",
        "hello you!",
        "hello you",
        True,
    )
    assert vv.value("no proxy") == "no proxy"
    with pytest.raises(vv.EncodingError, match="module"):
        vv.value(things)


def test_attributes_are_those_of_the_object(things: Any) -> None:
    """Reads, writes, deletes, `dir`, properties once for each read; names of ours clash with nothing."""
    thing = things.Thing(1)
    assert (thing.read_once, thing.read_once, thing.reads) == (1, 2, 2)
    thing.number = 8
    thing.brand_new = [1]
    assert (thing.number, vv.value(thing.brand_new), hasattr(thing, "nope")) == (8, [1], False)
    del thing.number
    assert vv.value(thing.deleted) == ["number"]
    assert {"number", "read_once", "brand_new", "fresh"} <= set(dir(thing))
    assert (things.names, things.daemon, things.close, things.value) == (
        *("remote names", True, "remote close", "remote value"),
    )
    for name in ("_options", "_reference", "options", "perform", "handle", "kind"):
        setattr(thing, name, name)
        assert getattr(thing, name) == name
    assert (thing.__doc__, thing.__module__, vv.value(thing.__dict__)["number"]) == ("A thing.", "__main__", 8)
    assert thing._names == ("name", "daemon", "options")


def test_a_method_that_is_replaced_is_not_called_any_more(things: Any) -> None:
    """By the host through the proxy, or by the object itself before its proxy is made."""
    thing = things.Thing(1)
    assert thing.fresh() == [1, {"a": {1, 2}}]
    thing.fresh = 5
    assert thing.fresh == 5
    shadowing = things.same(things.Thing(2))
    shadowing.__dict__["child"] = "data"
    assert things.same(shadowing).child == "data" or shadowing.child is not None
    later = things.Shelf(shadowing)[0]
    assert later.child == "data"


def test_methods_are_objects_too(things: Any) -> None:
    """A method can be kept, compared, asked for its name, passed on."""
    thing = things.Thing(4)
    method = thing.add
    assert isinstance(method, vv.RemoteProxy)
    assert (method.__name__, method == thing.add, callable(method), bool(method)) == ("add", True, True, True)
    assert "add" in repr(method)
    assert method(1).number == 5
    assert things.Thing.double(4) == 8
    assert things.Thing.build(3).number == 3
    assert vv.value(things.same(thing.fresh)()) == [5, {"a": {1, 2}}]
    assert list(things.Thing(0).count(2)) == [0, 1]


def test_operators(things: Any) -> None:
    """Both halves, in place, and what Python does when there is none."""
    thing, other = things.Thing(3), things.Thing(4)
    assert (thing + 2, thing + other, 10 - thing, -thing) == (5, 7, 7, -3)
    same = thing
    same += 5
    assert same is thing
    assert thing.number == 8
    matrix = things.Matrix()
    assert (matrix @ 2, matrix**3, pow(matrix, 3, 5), divmod(matrix, 4), matrix & 1, ~matrix, abs(matrix)) == (
        *(("matmul", 2), ("pow", 3, None), ("pow", 3, 5), ("divmod", 4), ("and", 1), "invert", "abs"),
    )
    with pytest.raises(TypeError, match="unsupported operand"):
        thing * 2
    with pytest.raises(TypeError, match="unsupported operand"):
        matrix | 2
    numbers = things.numbers
    four = [4]
    assert (numbers + four, four + numbers, numbers * 2, 2 * numbers) == (
        *([3, 1, 2, 4], [4, 3, 1, 2], [3, 1, 2] * 2, [3, 1, 2] * 2),
    )
    numbers += [5]
    numbers *= 2
    assert vv.value(things.numbers) == [3, 1, 2, 5] * 2


class Polite:
    """An operand that cannot travel, and knows what to do."""

    def __init__(self) -> None:
        self.lock = __import__("threading").Lock()

    def __radd__(self, other: Any) -> str:
        return "mine"

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def test_an_operand_that_cannot_travel_is_asked_itself(things: Any) -> None:
    """As Python does when the left one does not know what to do."""
    thing = things.Thing(3)
    assert thing + Polite() == "mine"
    assert thing == Polite()
    assert Polite() not in things.Shelf(1, 2)
    assert not isinstance(Polite(), things.Thing)


def test_comparison_hash_truth_and_conversion(things: Any) -> None:
    """As the object's own."""
    thing, other = things.Thing(3), things.Thing(4)
    assert thing == things.Thing(3)
    assert thing != other
    assert thing != 3
    assert (thing < other, thing > other, thing < 1, sorted([other, thing])[0].number) == (True, False, False, 3)
    assert (hash(thing), {thing: 1}[things.Thing(3)]) == (4003, 1)
    assert (bool(thing), bool(things.Thing(0)), bool(things.Door())) == (True, False, True)
    assert (int(thing), float(thing), [10, 11, 12, 13][thing], hex(thing)) == (3, 3.5, 13, "0x3")
    assert (f"{thing:03d}", str(thing), os.fspath(thing), math.floor(thing)) == ("thing 003", "a thing", "/thing", 3)
    assert (round(thing), round(thing, 2), math.trunc(thing)) == (("round", None), ("round", 2), 7)
    assert thing(1, a=2) == [(1,), {"a": 2}]
    with pytest.raises(TypeError, match="unhashable"):
        hash(things.numbers)
    with pytest.raises(TypeError, match="not supported"):
        operator.lt(things.Door(), 3)
    assert not callable(things.Door())
    assert isinstance(thing, things.Thing)
    assert not isinstance(3, things.Thing)
    assert issubclass(things.Thing, things.Thing)


def test_containers(things: Any) -> None:
    """Items, slices, length, membership, iteration both ways, deletion."""
    shelf = things.Shelf(1, 2, 3, [4])
    assert (shelf[0], shelf[-2], len(shelf), 2 in shelf, 7 in shelf) == (1, 3, 4, True, False)
    assert vv.value(shelf[1:3]) == [2, 3]
    shelf[0] = "one"
    del shelf[1]
    assert list(shelf)[:2] == ["one", 3]
    assert [vv.value(item) for item in reversed(shelf)] == [[4], 3, "one"]
    for row in things.nested["rows"]:
        row.append(0)
    assert vv.value(things.nested["rows"]) == [[1, 0], [2, 0]]
    assert list(things.numbers) == [3, 1, 2]
    assert isinstance(things.numbers[1:], list)
    assert things.numbers[1:] == [1, 2]
    assert isinstance(things.same(things.odct)["a"], int)
    assert [*reversed(things.numbers)] == [2, 1, 3]
    assert dict(things.odct) == {"a": 1}
    assert sorted(things.numbers) == [1, 2, 3]
    assert operator.length_hint(things.numbers) == 3
    with pytest.raises(IndexError):
        things.numbers[99]
    with pytest.raises(TypeError, match="not iterable"):
        iter(things.Door())
    with pytest.raises(TypeError):
        len(things.Thing())
    assert things.Color["RED"].value == 1
    assert [color.name for color in things.Color] == ["RED"]


def test_iteration_goes_in_batches_and_an_iterator_is_never_drawn_ahead(things: Any, round_trips: RoundTrips) -> None:
    """A thousand items in a few round trips; a generator gives what is asked for, and goes on where it was."""
    numbers = vv.keep(things.same)(list(range(1000)))
    assert round_trips(numbers, lambda: list(numbers)) < 10
    assert list(numbers) == list(range(1000))
    count = things.Thing().count(5)
    for number in count:
        if number == 1:
            break
    assert (next(count), list(count), next(count, "end")) == (2, [3, 4], "end")


def test_an_error_in_the_middle_of_an_iteration_comes_after_the_items_before_it(home: object) -> None:
    """As in a loop over the object itself."""
    broken = vv.run_script(
        "class Broken:\n  def __iter__(self):\n    yield 1\n    yield 2\n    raise OSError('torn')\nbroken = Broken()",
        worker=QUIET,
    )
    items = iter(broken.broken)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(OSError, match="torn"):
        next(items)
    vv.close(broken)


def test_context_managers(things: Any) -> None:
    """What `__enter__` returns, the exception that is told, the one that is swallowed."""
    door = things.Door()
    with door as inside:
        assert inside is door
    with pytest.raises(ZeroDivisionError), door:
        1 / 0  # noqa: B018

    class Own(KeyError):
        pass

    with pytest.raises(Own), door:
        raise Own("x")
    assert vv.value(door.log) == [
        "in",
        None,
        "in",
        ("ZeroDivisionError", "division by zero"),
        "in",
        ("KeyError", "\"'x'\""),
    ]
    with things.Door(forgives=True):
        raise ValueError


def test_coroutines(things: Any) -> None:
    """Awaited, `async with`, `async for`; several in turn, while the host's loop goes on; cancelled, they stop."""

    async def main() -> None:
        thing = things.Thing()
        assert await asyncio.gather(thing.later(1), thing.later(2)) == [2, 4]
        async with things.Door() as door:
            assert list(door.log) == ["in"]
        assert [number async for number in door] == [2, 1, 0]
        task = asyncio.ensure_future(thing.never())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.wait_for(asyncio.ensure_future(thing.later(5)), 5) == 10

    asyncio.run(main())


def test_copies_and_pickles(things: Any) -> None:
    """A copy is made in the worker; a pickle is refused with the way out."""
    shelf = things.Shelf([1])
    shallow, deep = copy.copy(shelf), copy.deepcopy(shelf)
    shelf[0].append(2)
    assert (vv.value(shallow[0]), vv.value(deep[0])) == ([1, 2], [1])
    with pytest.raises(TypeError, match=r"venvoy.value\(proxy\)"):
        pickle.dumps(shelf)
    with pytest.raises(TypeError, match="made by run_script"):
        vv.RemoteProxy()


def test_a_class_and_its_instances_are_different_things(things: Any) -> None:
    """Though both are told by the same class."""
    for name, kind in (("Thing", things.Thing), ("Color", things.Color)):
        shelf = things.Shelf(kind, things.same(kind))
        assert repr(shelf[0]).startswith(f"<RemoteProxy of class __main__.{name} in")
    thing = things.Thing(1)
    assert repr(thing).startswith("<RemoteProxy of __main__.Thing in")
    assert (thing + 1, thing.add(2).number) == (2, 3)
    assert repr(things.Color.RED).startswith("<RemoteProxy of __main__.Color in")
    assert things.Color["RED"] == things.Color.RED


def test_arrays(home: object) -> None:
    """Results are copies, attributes and items are not, since views are written through; numpy takes proxies."""
    numpy = pytest.importorskip("numpy")
    there = vv.run_module("numpy", worker=QUIET)
    try:
        assert there.arange(3).tolist() == [0, 1, 2]
        array = vv.keep(there.zeros)(4)
        array[1:3] = 5
        array[1:3] += 1
        assert (array.shape, array.mean(), array[1], (array * 2).tolist()) == ((4,), 3.0, 6.0, [0, 12, 12, 0])
        assert (numpy.ones(4) + array).tolist() == [1, 7, 7, 1]
        assert numpy.asarray(array).tolist() == vv.value(array).tolist() == [0, 6, 6, 0]
        assert there.dot(array, array) == 72
    finally:
        vv.close(there)


def test_a_proxy_says_what_it_is(things: Any) -> None:
    """In its `repr`, also when it is stale; `isinstance`."""
    thing = things.Thing(6)
    assert repr(thing) == f"<RemoteProxy of __main__.Thing in process {thing.pid()}: Thing(6)>"
    assert repr(things).startswith("<RemoteProxy of module __main__ in process")
    vv.close(thing)
    assert repr(thing) == "<RemoteProxy of __main__.Thing, stale: it was closed>"
    assert isinstance(thing, vv.RemoteProxy)


def test_proxies_as_arguments_are_the_objects(things: Any, pool: vv.Pool) -> None:
    """In their own worker, however deep in the arguments; anywhere else it is a clear error."""
    thing = things.Thing(2)
    assert things.is_same(thing, thing)
    shelf = things.Shelf({"x": [thing]})
    assert things.is_same(shelf[0]["x"][0], thing)
    assert things.is_same(things.same(thing.add), 3) is False
    with pytest.raises(vv.EncodingError, match="in this worker"):
        pool.call("builtins:repr", thing)
    alien = pool.object("things:Thing", 1)
    with pytest.raises(vv.EncodingError, match="in another worker"):
        things.same(alien)
    assert thing != alien
    vv.close(thing)
    with pytest.raises(vv.StaleProxy):
        things.same(thing)
    with pytest.raises(vv.StaleProxy):
        pool.call("builtins:repr", [thing])
    assert pool.call("things:say_hello", "you") == "hello you"


def test_each_operation_is_one_round_trip(things: Any, round_trips: RoundTrips) -> None:
    """Counted in frames, from the first use of each on."""
    thing, shelf, door, kind, odct = things.Thing(5), things.Shelf(1, 2), things.Door(), things.Thing, things.odct
    keep_fresh = vv.keep(thing.fresh)
    operations: dict[str, Callable[[], object]] = {
        "function": lambda: things.say_hello("you"),
        "class": lambda: things.Thing(2),
        "method": lambda: thing.add(0),
        "static method": lambda: thing.double(2),
        "value": lambda: things.foo,
        "attribute": lambda: thing.number,
        "property": lambda: thing.read_once,
        "write": lambda: setattr(thing, "label", "x"),
        "delete": lambda: delattr(thing, "label"),
        "nothing": lambda: hasattr(thing, "nope"),
        "dir": lambda: dir(thing),
        "copied": lambda: vv.value(odct),
        "kept": keep_fresh,
        "+": lambda: thing + 1,
        "reflected": lambda: 10 - thing,
        "in place": lambda: operator.iadd(thing, 1),
        "==": lambda: thing == 3,
        "!=": lambda: thing != 3,
        "<": lambda: thing < 3,
        "hash": lambda: hash(thing),
        "bool": lambda: bool(thing),
        "str": lambda: str(thing),
        "repr": lambda: repr(thing),
        "format": lambda: f"{thing:d}",
        "int": lambda: int(thing),
        "index": lambda: operator.index(thing),
        "call": lambda: thing(1),
        "item": lambda: shelf[0],
        "slice": lambda: shelf[0:1],
        "set item": lambda: operator.setitem(shelf, 0, 2),
        "len": lambda: len(shelf),
        "in": lambda: 2 in shelf,
        "for": lambda: list(iter(shelf)),
        "reversed": lambda: list(reversed(shelf)),
        "enter": lambda: type(door).__enter__(door),
        "exit": lambda: type(door).__exit__(door, None, None, None),
        "copy": lambda: copy.copy(shelf),
        "deepcopy": lambda: copy.deepcopy(shelf),
        "isinstance": lambda: isinstance(thing, kind),
    }
    counts = {name: round_trips(things, operation) for name, operation in operations.items()}
    assert {name: count for name, count in counts.items() if count != 1} == {"isinstance": 2}  # the class is fetched
