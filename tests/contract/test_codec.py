"""Values to bodies and back: what goes in comes out, large bytes are not copied, every failure is a CodecError."""

from __future__ import annotations

import collections
import datetime
import enum
import fractions
import ipaddress
import math
import pathlib
import pickle
import re
import sys
import threading
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from venvoy_worker.contract import codec
from venvoy_worker.contract.codec import CodecError


def travel(value: object, **options: Any) -> Any:
    """Encode a value, and decode it from fresh buffers as a receiver would."""
    pieces, buffers = codec.encode(value)
    return codec.decode(b"".join(pieces), [bytearray(buffer) for buffer in buffers], **options)


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.complex_numbers(allow_nan=False)
)
texts = st.one_of(st.text(), st.binary(), st.binary().map(bytearray), st.text().map(lambda text: text * 1000))
moments = st.one_of(st.dates(), st.times(), st.datetimes(timezones=st.none() | st.just(datetime.UTC)))
others = st.one_of(
    moments,
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.ip_addresses(),
    st.text(max_size=5).map(pathlib.PurePosixPath),
    st.integers(0, 9).map(range),
)
keys = st.one_of(st.text(), st.integers(), st.binary(), st.uuids(), st.tuples(st.integers(), st.text()))
values = st.recursive(
    st.one_of(scalars, texts, others),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(keys, inner, max_size=5),
        st.dictionaries(keys, inner, max_size=5).map(collections.OrderedDict),
        st.lists(inner, max_size=5).map(collections.deque),
    ),
    max_leaves=15,
)


@settings(max_examples=200, deadline=None)
@given(values)
def test_values_survive(value: object) -> None:
    """Builtin and standard library values of any shape come back equal and of the same type."""
    result = travel(value)
    assert result == value
    assert type(result) is type(value)


@settings(max_examples=50, deadline=None)
@given(st.lists(values, max_size=3).map(tuple), st.dictionaries(st.text(), values, max_size=3), values)
def test_calls_and_results_survive(args: tuple[object, ...], kwargs: dict[str, object], result: object) -> None:
    """Whatever short cut was taken, arguments and results are the same."""
    pieces, buffers = codec.encode_call(args, kwargs)
    assert codec.decode(b"".join(pieces), [bytearray(buffer) for buffer in buffers]) == (args, kwargs)
    pieces, buffers = codec.encode_result(result)
    assert codec.decode(b"".join(pieces), [bytearray(buffer) for buffer in buffers]) == result
    assert codec.decode(codec.encode_inline(result), []) == result


@pytest.mark.parametrize(
    "value",
    [
        float("inf"),
        -0.0,
        10**5000,
        "\ud800 lone surrogate",
        {1, 2, 3},
        frozenset(["a"]),
        slice(1, None, 2),
        ...,
        NotImplemented,
        re.compile("a+", re.I),
        collections.Counter("abca"),
        collections.defaultdict(list, {1: [2]}),
        datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone(datetime.timedelta(hours=2), "x")),
        fractions.Fraction(1, 3),
        ipaddress.ip_network("10.0.0.0/8"),
        uuid.UUID(int=5),
        enum.Enum,
        math.sqrt,
        len,
        datetime.datetime.fromisoformat,
    ],
    ids=lambda value: type(value).__name__,
)
def test_particular_values_survive(value: object) -> None:
    """Values with corners of their own come back equal."""
    assert travel(value) == value


def test_nan_and_signed_zero_survive() -> None:
    """Floats keep all their bits."""
    assert math.isnan(travel(float("nan")))
    assert math.copysign(1, travel(-0.0)) == -1


def test_identity_and_cycles_survive() -> None:
    """An object that is there twice, or that holds itself, is so afterwards."""
    shared, cycle = [1], []  # type: ignore[var-annotated]
    cycle.append(cycle)
    first, second, third = travel((shared, shared, cycle))
    assert first is second
    assert third[0] is third


def test_named_objects_are_themselves() -> None:
    """Functions and classes go by name."""
    assert travel((math.sqrt, collections.Counter, str.upper)) == (math.sqrt, collections.Counter, str.upper)


# --- copies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [1, x], lambda x: {"a": (x, "b")}], ids=["bare", "list", "in"])
def test_large_bytes_are_not_copied(wrap: Any) -> None:
    """The very object is among the pieces, wherever in the value it was."""
    large = bytes(200_000)
    for pieces, _ in (
        codec.encode(wrap(large)),
        codec.encode_call((wrap(large),), {}),
        codec.encode_result(wrap(large)),
    ):
        assert any(piece is large for piece in pieces)


def test_later_changes_of_a_bytearray_do_not_travel() -> None:
    """What was encoded stays as it was, even if the caller empties his buffer before it is sent."""
    large = bytearray(b"x" * 200_000)
    pieces, buffers = codec.encode(large)
    large.clear()
    assert codec.decode(b"".join(pieces), [bytearray(buffer) for buffer in buffers]) == b"x" * 200_000


@pytest.mark.parametrize("size", [codec._OUT_OF_BAND - 1, codec._OUT_OF_BAND, 1_000_000])
@pytest.mark.parametrize("make", [bytes, bytearray])
def test_pickle_buffers_leave_the_body_from_a_size_on(make: Any, size: int) -> None:
    """Small buffers stay inside; larger ones are sent from the memory they live in."""
    owner = make(b"\x07" * size)
    pieces, buffers = codec.encode([pickle.PickleBuffer(owner), "rest"])
    if size < codec._OUT_OF_BAND:
        assert buffers == []
    else:
        assert [view.obj is owner for view in buffers] == [True]
        assert sum(map(len, pieces)) < 200
    assert travel([pickle.PickleBuffer(owner), "rest"]) == [owner, "rest"]


def test_buffers_come_back_in_their_order() -> None:
    """Each out-of-band buffer finds its place in the value."""
    owners = [bytearray([number]) * 40_000 for number in range(20)]
    assert travel({number: pickle.PickleBuffer(owner) for number, owner in enumerate(owners)}) == dict(
        enumerate(owners)
    )


def test_a_decoded_buffer_is_the_received_memory() -> None:
    """Decoding copies no buffer."""
    received = bytearray(40_000)
    pieces, _ = codec.encode(pickle.PickleBuffer(bytearray(40_000)))
    assert codec.decode(b"".join(pieces), [received]) is received


def test_inline_encoding_keeps_buffers_inside() -> None:
    """One piece holds all, for places that have no buffer table."""
    body = codec.encode_inline(((pickle.PickleBuffer(bytes(100_000)),), {}))
    assert type(body) is bytes
    assert codec.decode(body, []) == ((bytes(100_000),), {})


# --- the short cut for small values -------------------------------------------------------------------------------


class Text(str):
    """A subclass, which may pickle as it likes."""


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), True),
        ((1, 2.5, True, None, 1j, "text", b"bytes"), True),
        (("x" * (codec._SHORT - 1), b"x" * (codec._SHORT - 1)), True),
        (("x" * codec._SHORT,), False),
        ((b"x" * codec._SHORT,), False),
        ((bytearray(),), False),
        (([],), False),
        ((1, ()), False),
        ((Text("x"),), False),
        ((enum.IntEnum("E", "A").A,), False),  # type: ignore[attr-defined]
    ],
)
def test_small_values_are_recognised(values: tuple[object, ...], expected: bool) -> None:
    """Scalars and short strings of exactly the builtin types are small, nothing else."""
    assert codec.is_small(values) is expected


def test_the_short_cut_is_one_piece() -> None:
    """A usual call and a usual result are one piece without buffers."""
    assert [len(codec.encode_call((1, "a"), {})[0]), len(codec.encode_result(2.5)[0])] == [1, 1]
    assert codec.encode_call((1,), {"key": 2})[1] == []


# --- find_class ---------------------------------------------------------------------------------------------------


def refuse(module: str, name: str) -> object:
    raise CodecError(f"no {module}.{name}")


@pytest.mark.parametrize("value", [math.sqrt, [uuid.UUID(int=1)], {"a": collections.Counter}, re.compile("a")])
def test_every_class_goes_through_find_class(value: object) -> None:
    """Classes and functions anywhere in the value are asked for, and its error is the error."""
    with pytest.raises(CodecError, match=r"^no \w+"):
        travel(value, find_class=refuse)


@pytest.mark.parametrize("value", [None, [1, "a", b"\x93"], {"a": {1.5, frozenset()}}, ()])
def test_values_without_classes_need_no_find_class(value: object) -> None:
    """Builtin values name nothing, not even when their bytes look like it."""
    assert travel(value, find_class=refuse) == value


def test_find_class_gets_module_and_qualified_name() -> None:
    """It decides what the names mean here."""
    asked: list[tuple[str, str]] = []

    def find(module: str, name: str) -> object:
        asked.append((module, name))
        return codec.import_global(module, name)

    assert travel(datetime.UTC, find_class=find) == datetime.UTC
    assert ("datetime", "timezone") in [(module.lstrip("_"), name) for module, name in asked]


def test_a_find_class_that_fails_is_a_codec_error() -> None:
    """Whatever it raises, the caller meets one class of error."""

    def find(module: str, name: str) -> object:
        raise LookupError("not here")

    with pytest.raises(CodecError, match="cannot be unpickled: LookupError: not here"):
        travel(math.sqrt, find_class=find)


def test_names_are_imported() -> None:
    """`import_global` finds nested names and says what is missing in the import system's own words."""
    assert codec.import_global("collections", "OrderedDict.fromkeys") == collections.OrderedDict.fromkeys
    with pytest.raises(ModuleNotFoundError):
        codec.import_global("no_such_module_here", "x")
    with pytest.raises(AttributeError):
        codec.import_global("collections", "NoSuchThing")


# --- failures -----------------------------------------------------------------------------------------------------


class Unwilling:
    """An object that cannot be pickled, for whatever reason."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> tuple[object, ...]:
        raise self.error


class Speechless(Exception):
    """An exception that cannot even be printed."""

    def __str__(self) -> str:
        raise ValueError("no words")


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("encode", [codec.encode, codec.encode_inline, codec.encode_result])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (lambda: 1, "lambda"),
        (sys, "module"),
        ([iter(()), (n for n in ())], "generator"),
        ({"f": threading.Lock()}, "lock"),
        (Unwilling(ValueError("I will not")), "ValueError: I will not"),
        (Unwilling(KeyError()), "KeyError"),
        (Unwilling(Speechless()), "Speechless"),
        (nested(200_000), "nested too deeply"),
        (pickle.PickleBuffer(memoryview(bytearray(99_999))[::2]), "contiguous"),
    ],
    ids=["lambda", "module", "generator", "lock", "unwilling", "empty text", "speechless", "deep", "strided"],
)
def test_what_cannot_be_pickled_says_so(encode: Any, value: object, text: str) -> None:
    """Every failure is a CodecError that starts alike, names the cause and carries it."""
    with pytest.raises(CodecError, match=r"^cannot be pickled: \w+: ") as caught:
        encode(value)
    assert text in str(caught.value)
    assert isinstance(caught.value.__cause__, Exception)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupts_are_not_hidden(error: type[BaseException]) -> None:
    """Ctrl-C while encoding stays Ctrl-C."""
    with pytest.raises(error):
        codec.encode(Unwilling(error()))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "EOFError"),
        (b"\x80\x05", "EOFError"),
        (b"garbage", "UnpicklingError"),
        (pickle.dumps([1, 2, 3], 5)[:-3], "Error"),
        (b"\x80\xff.", "protocol"),
        (pickle.dumps(math.sqrt, 5).replace(b"sqrt", b"sqr_"), "AttributeError"),
        (pickle.dumps(collections.Counter, 5).replace(b"collections", b"collektions"), "ModuleNotFoundError"),
        (pickle.dumps(pickle.PickleBuffer(b"x"), 5, buffer_callback=lambda _: False), "buffer"),
    ],
)
@pytest.mark.parametrize("find_class", [None, codec.import_global])
def test_a_damaged_body_says_so(body: bytes, text: str, find_class: Any) -> None:
    """Whatever is wrong with a body, decoding it is a CodecError."""
    with pytest.raises(CodecError, match=r"^cannot be unpickled: \w+: ") as caught:
        codec.decode(body, [], find_class)
    assert text in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60).map(lambda tail: b"\x80\x05" + tail + b"."), st.lists(st.binary(), max_size=2))
def test_arbitrary_bodies_raise_nothing_else(body: bytes, buffers: list[bytes]) -> None:
    """Damaged bytes are a CodecError, or happen to mean something."""
    tamed = body.translate(bytes.maketrans(b"ciRr", b"____"))  # no strange calls, no memo of 2**32 places
    try:
        codec.decode(tamed, list(map(bytearray, buffers)), refuse)
    except CodecError:
        pass


def test_a_class_of_main_comes_with_a_hint() -> None:
    """The usual mistake, a class in the script itself, is explained."""
    main = sys.modules["__main__"]
    body = pickle.dumps(collections.Counter, 5).replace(b"\x8c\x0bcollections", b"\x8c\x08__main__")
    body = pickle.PROTO + b"\x05" + body[body.index(b"\x8c") :]
    assert not hasattr(main, "Counter")
    with pytest.raises(CodecError, match="put them into a module"):
        codec.decode(body, [])
