"""Values of the standard library between this Python and every other: the same value, both ways."""

from __future__ import annotations

import datetime
import json
import math
import pathlib
import pickle
import subprocess
import sys
import uuid
import zoneinfo
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import venvoy_worker
from venvoy_worker.contract import codec, frames, reducers, standard
from venvoy_worker.contract.codec import CodecError
from venvoy_worker.contract.reducers import Table

FOLDER = str(Path(venvoy_worker.__file__).parents[1])
IMPORTS = (
    "import array, collections, datetime, decimal, enum, fractions, functools, http, io, ipaddress, json, pathlib, re, "
    "socket, string, time, types, urllib.parse, uuid"
)
# What every Python since 3.8 can write down. Each is made on both sides, and each side gets the other's.
EXPRESSIONS = """
None; True; -7; 10 ** 400; -(2 ** 63); 1.5; float("inf"); -0.0; 1e-320; 1 - 2j; ...; NotImplemented
"text"; "\\ud800 lone"; "\\U0001f600"; b"bytes"; bytearray(b"array"); ""; b""
[1, [2]]; (1,); (); {1: {2: 3}}; {(1, "a"): b"x"}; {1, 2}; frozenset([3]); range(1, 10, 3); slice(1, None, 2)
memoryview(b"abc"); memoryview(bytearray(b"abc")); memoryview(array.array("d", [1, 2.5])); memoryview(b"")
memoryview(array.array("i", range(6))).cast("B").cast("i", (2, 3)); memoryview(b"abcdef")[::2]
collections.deque([1, 2], 5); collections.OrderedDict([("b", 1), ("a", 2)]); collections.Counter("abca")
collections.defaultdict(list, {1: [2]}); collections.ChainMap({1: 2}, {3: 4}); collections.UserDict({1: 2})
datetime.date(2024, 2, 29); datetime.time(1, 2, 3, 4, fold=1); datetime.timedelta(-1, 5, 7)
datetime.datetime(2024, 2, 29, 1, 2, 3, 4, fold=1); datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)
datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=2), "x")); datetime.timezone.utc
decimal.Decimal("1.10"); decimal.Decimal("NaN").is_nan(); decimal.Decimal("-Infinity"); fractions.Fraction(1, 3)
uuid.UUID(int=5); pathlib.Path("a/b"); pathlib.PurePosixPath("/x"); pathlib.PureWindowsPath("c:/x"); pathlib.PurePath()
ipaddress.ip_address("::1"); ipaddress.ip_network("10.0.0.0/8"); re.compile("a+", re.I); array.array("h", [1, 2])
types.SimpleNamespace(a=1); types.MappingProxyType({"a": 1}); functools.partial(int, base=2)
http.HTTPStatus.OK; socket.AF_INET; re.I; re.I | re.M; urllib.parse.urlsplit("http://x/y"); time.gmtime(0)
json.loads; math_sqrt; str.upper; dict; collections.OrderedDict; string.ascii_letters; type(None)
KeyError("k"); OSError(2, "no", "file"); UnicodeDecodeError("utf-8", b"x", 0, 1, "no")
""".replace("math_sqrt", '__import__("math").sqrt')
VALUES = [text.strip() for line in EXPRESSIONS.strip().splitlines() for text in line.split("; ")]

PEER = """
import sys; sys.path.insert(0, sys.argv[1])
import json
from venvoy_worker.contract import codec, frames, reducers
IMPORTS
codec.use(reducers.Table(False, True))
texts = json.loads(sys.argv[2])
(frame,) = frames.FrameParser().feed(sys.stdin.buffer.read())
came = codec.decode(frame.body, frame.buffers)
def shown(value):
    return ["%s %s" % (type(value).__name__, value.tolist() if isinstance(value, memoryview) else repr(value))]
pairs = [(text, shown(value), shown(eval(text))) for text, value in zip(texts, came)]
wrong = [pair for pair in pairs if pair[1] != pair[2]]
body, buffers = codec.encode([eval(text) for text in texts])
sys.stdout.buffer.write(json.dumps(wrong).encode() + b"\\n")
sys.stdout.buffer.write(b"".join(frames.pack(4, body=body, buffers=buffers)))
""".replace("IMPORTS", IMPORTS)
SCOPE: dict[str, Any] = {}
exec(IMPORTS, SCOPE)


def made(text: str) -> Any:
    return eval(text, SCOPE)


def shown(value: Any) -> str:
    """Return what tells one value from another, also where `==` does not."""
    return f"{type(value).__name__} {value.tolist() if isinstance(value, memoryview) else repr(value)}"


def exchange(interpreter: str, value: object, code: str = PEER, *arguments: str) -> tuple[Any, Any]:
    """Send a value to a bare interpreter; return the JSON line and the value it answers with."""
    body, buffers = codec.encode(value, reducers.ARGUMENTS)
    data = b"".join(frames.pack(4, body=body, buffers=buffers))
    command = [interpreter, "-I", "-S", "-c", code, FOLDER, *arguments]
    done = subprocess.run(command, input=data, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    line, _, rest = done.stdout.partition(b"\n")
    (frame,) = frames.FrameParser().feed(rest)
    return json.loads(line), codec.decode(frame.body, frame.buffers)


def test_values_of_the_standard_library_go_both_ways(interpreter: str) -> None:
    """Every value of the table, made here and there, is what the other side would have made."""
    texts = [text for text in VALUES if _is_alike(text)]
    wrong, came = exchange(interpreter, [made(text) for text in texts], PEER, json.dumps(texts))
    assert wrong == []
    differing = [
        (text, shown(value)) for text, value in zip(texts, came, strict=True) if shown(value) != shown(made(text))
    ]
    assert differing == []
    assert len(texts) > 60


def _is_alike(text: str) -> bool:
    # Shown otherwise by other versions of Python, not different: compared below by what it does.
    return not text.startswith(("http.", "re.", "socket.", "memoryview", "OSError", "collections.deque(["))


def test_values_that_versions_show_differently_are_the_same(interpreter: str) -> None:
    """Enumerations, patterns, views and errors are compared by their parts."""
    code = PEER.replace('return ["', "return [str(getattr(value, 'value', '')) + \"").replace("repr(value)", "''")
    texts = [text for text in VALUES if not _is_alike(text)]
    wrong, came = exchange(interpreter, [made(text) for text in texts], code, json.dumps(texts))
    assert wrong == []
    for text, value in zip(texts, came, strict=True):
        expected = made(text)
        assert type(value) is type(expected)
        if isinstance(value, memoryview):
            assert (value.tolist(), value.format, value.shape) == (expected.tolist(), expected.format, expected.shape)
            assert value.readonly is expected.readonly
        elif isinstance(value, Exception):
            assert value.args == expected.args
        else:
            assert value == expected


@pytest.mark.parametrize("interpreter", [sys.executable])
def test_the_table_would_notice_a_difference(interpreter: str) -> None:
    """A peer that gets another value says so."""
    wrong, _ = exchange(interpreter, [1, 2.0], PEER, json.dumps(["1", "2"]))
    assert [text for text, _, _ in wrong] == ["2"]


NEWER = """
import sys; sys.path.insert(0, sys.argv[1])
import json, datetime
from venvoy_worker.contract import codec, frames, reducers
(frame,) = frames.FrameParser().feed(sys.stdin.buffer.read())
came = codec.decode(frame.body, frame.buffers)
moment, zone, group = came
names = [type(moment.tzinfo).__name__, str(zone), type(group).__name__]
facts = [moment.isoformat(), group.message, [str(error) for error in group.exceptions]]
body, buffers = codec.encode(came, reducers.Table(False, True))
sys.stdout.buffer.write(json.dumps([names, facts]).encode() + b"\\n")
sys.stdout.buffer.write(b"".join(frames.pack(4, body=body, buffers=buffers)))
"""


def test_zones_and_groups_reach_pythons_that_have_none(interpreter: str) -> None:
    """A moment keeps its offset, a group its errors; what has them gets the real ones."""
    zone = zoneinfo.ZoneInfo("Europe/Berlin")
    value = [
        datetime.datetime(2024, 7, 1, 12, tzinfo=zone),
        zone,
        ExceptionGroup("two", [ValueError("a"), KeyError(1)]),
    ]
    (names, facts), came = exchange(interpreter, value, NEWER)
    assert facts == ["2024-07-01T12:00:00+02:00", "two", ["a", "1"]]
    assert names[1] == "Europe/Berlin"
    assert names[0] in ("ZoneInfo", "timezone")
    assert names[2] in ("ExceptionGroup", "GroupRecord")
    assert came[0] == value[0]
    if names[0] == "ZoneInfo":
        assert came[0].tzinfo is zone
        assert came[1] is zone


# --- here ---------------------------------------------------------------------------------------------------------


def travel(value: object, table: Table = reducers.ARGUMENTS) -> Any:
    pieces, buffers = codec.encode(value, table)
    return codec.decode(b"".join(pieces), [bytearray(buffer) for buffer in buffers])


def test_nothing_private_of_a_version_is_named() -> None:
    """Paths, time zones, views and UUIDs name functions of ours."""
    zone = zoneinfo.ZoneInfo("Europe/Berlin")
    value = [pathlib.Path("a"), datetime.datetime(2024, 1, 1, tzinfo=zone), zone, memoryview(b"x"), uuid.UUID(int=1)]
    asked = set()

    def find(module: str, name: str) -> object:
        asked.add(module)
        return codec.import_global(module, name)

    pieces, buffers = codec.encode(value, reducers.ARGUMENTS)
    assert codec.decode(b"".join(pieces), list(map(bytearray, buffers)), find) == value
    assert asked == {"venvoy_worker.contract.standard", "datetime"}


@pytest.mark.parametrize("levels", [1000, 1500])
@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"a": v}, lambda v: (v, 1)], ids=["list", "dict", "tuple"])
def test_a_thousand_levels_survive(levels: int, wrap: Any) -> None:
    """Deep values travel, although the interpreter's recursion limit is lower."""
    value: Any = "innermost"
    for _ in range(levels):
        value = wrap(value)
    limit = sys.getrecursionlimit()
    result = travel(value)
    assert sys.getrecursionlimit() == limit
    for _ in range(levels):
        assert type(result) is type(value)
        result = result["a"] if isinstance(result, dict) else result[0]
    assert result == "innermost"


DEEP = """
import sys; sys.path.insert(0, sys.argv[1])
import json
from venvoy_worker.contract import codec, frames
(frame,) = frames.FrameParser().feed(sys.stdin.buffer.read())
value = codec.decode(frame.body, frame.buffers)
body, buffers = codec.encode(value)
sys.stdout.buffer.write(json.dumps(len(body)).encode() + b"\\n")
sys.stdout.buffer.write(b"".join(frames.pack(4, body=body, buffers=buffers)))
"""


def test_every_interpreter_sends_deep_values(interpreter: str) -> None:
    """A thousand levels, there and back."""
    value: Any = []
    for _ in range(1000):
        value = [value, "x"]
    _, result = exchange(interpreter, value, DEEP)
    depth = 0
    while result:
        result, depth = result[0], depth + 1
    assert depth == 1000


def test_buffers_of_deep_values_are_sent_once() -> None:
    """The attempt that failed leaves nothing behind."""
    value: Any = pickle.PickleBuffer(bytes(50_000))
    for _ in range(1000):
        value = [value]
    _, buffers = codec.encode([pickle.PickleBuffer(bytes(40_000)), value])
    assert [len(buffer) for buffer in buffers] == [40_000, 50_000]


@pytest.mark.parametrize(
    ("value", "text"),
    [({}.keys(), "dict_keys"), ((i for i in ()), "generator"), (memoryview(b"abcd").cast("B"), None)],
    ids=["view of a dict", "generator", "view of memory"],
)
def test_what_has_no_form_says_so(value: object, text: str | None) -> None:
    """Iterators and views of dicts are refused by name, in every table."""
    for table in (reducers.HOME, reducers.ARGUMENTS, reducers.Table(False, True)):
        if text is None:
            assert travel(value, table) == value
        else:
            with pytest.raises(CodecError, match=text):
                codec.encode(value, table)


def test_a_received_view_is_the_receivers_own() -> None:
    """It may be written into if it could be where it came from, and nobody else sees it."""
    owner = bytearray(10_000)
    result = travel(memoryview(owner))
    result[0] = 7
    assert owner[0] == 0
    with pytest.raises(TypeError):
        travel(memoryview(bytes(10_000)))[0] = 7


def test_the_constants_of_hostile_bodies_are_checked() -> None:
    """What a body may say is a short list, not any name."""
    with pytest.raises(ValueError, match="path"):
        standard.restore_path("os", "x")
    with pytest.raises(ValueError, match="group"):
        standard.restore_group("eval", "1", [])
    assert standard.restore_zone("No/Such") == "No/Such"


leaves = st.one_of(st.none(), st.integers(), st.floats(), st.text(st.characters()), st.binary(), st.uuids())
surrogates = st.text(st.characters(categories=["Cs", "L"]), max_size=5)
nested = st.recursive(
    leaves | surrogates, lambda inner: st.lists(inner) | st.dictionaries(surrogates, inner), max_leaves=20
)


@settings(max_examples=100, deadline=None)
@given(nested)
def test_nested_values_survive(value: Any) -> None:
    """Of any shape, with lone surrogates and floats that equal nothing; every table gives the same."""
    for table in (reducers.HOME, reducers.ARGUMENTS, reducers.Table(False, True)):
        assert repr(travel(value, table)) == repr(value)


def test_shared_and_cyclic_values_keep_their_shape() -> None:
    """One object stays one, and what holds itself holds itself."""
    shared: list[Any] = [1]
    shared.append(shared)
    mapping: dict[str, Any] = {"list": shared}
    mapping["self"] = mapping
    result = travel([shared, shared, mapping])
    assert result[0] is result[1]
    assert result[0][1] is result[0]
    assert result[2]["self"] is result[2]
    assert result[2]["list"] is result[0]
    assert math.isnan(travel(float("nan")))
