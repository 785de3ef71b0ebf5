"""`unpickle="safe"`: whatever a worker sends, the host constructs values and nothing else."""

from __future__ import annotations

import array as stdlib_array
import collections
import copyreg
import datetime
import decimal
import fractions
import ipaddress
import os
import pathlib
import pickle
import re
import types
import uuid
import zoneinfo
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import venvoy as vv
from venvoy.exchange import Call
from venvoy.pool.jobs import Decoder, Job
from venvoy.values.classes import Classes
from venvoy_worker.contract import codec, frames, messages, reducers, standard
from venvoy_worker.contract.codec import CodecError
from venvoy_worker.contract.failures import snapshot

VALUES = Path(__file__).with_name("values")
SAFE = Classes(is_safe=True)
STRICT = reducers.Table(False, True)


def decoded(body: bytes, classes: Classes = SAFE) -> Any:
    return codec.decode(body, [], classes.find_class, classes.load)


def travel(value: object, classes: Classes = SAFE) -> Any:
    pieces, buffers = codec.encode(value, STRICT)
    return codec.decode(b"".join(pieces), list(map(bytearray, buffers)), classes.find_class, classes.load)


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def named(module: str, name: str) -> bytes:
    """STACK_GLOBAL."""
    return text(module) + text(name) + b"\x93"


def calling(module: str, name: str, *arguments: object, tail: bytes = b"") -> bytes:
    """Return a pickle that calls what is named."""
    args = pickle.dumps(arguments, 5)[2:-1]
    return b"\x80\x05" + named(module, name) + args + b"R" + tail + b"."


class Reduced:
    """Pickles as whatever it is told."""

    def __init__(self, *reduction: Any) -> None:
        self.reduction = reduction

    def __reduce__(self) -> Any:
        return self.reduction


MARK = "venvoy-was-here"
CONTRACT = "venvoy_worker.contract"
HOSTILE = {
    "os.system": pickle.dumps(Reduced(os.system, (f"touch {MARK}",)), 5),
    "old protocol": pickle.dumps(Reduced(os.system, (f"touch {MARK}",)), 0),
    "GLOBAL opcode": b"cos\nsystem\n(S'touch " + MARK.encode() + b"'\ntR.",
    "INST opcode": b"(S'touch " + MARK.encode() + b"'\nios\nsystem\n.",
    "OBJ opcode": b"(cos\nsystem\nS'touch " + MARK.encode() + b"'\no.",
    "eval": pickle.dumps(Reduced(eval, ("__import__('os').getcwd()",)), 5),
    "getattr": pickle.dumps(Reduced(getattr, ("", "join")), 5),
    "import": calling("builtins", "__import__", "os"),
    "dotted": calling("collections", "abc.sys.exit", 1),
    "through a class": calling("datetime", "datetime.__subclasses__"),
    "type": calling("builtins", "type", "X", (), {}),
    "object with new": b"\x80\x05" + named("subprocess", "Popen") + b")\x81.",
    "partial": calling("functools", "partial", print, 1),
    "codec": calling("_codecs", "encode", "x", "rot13"),
    "find": calling(f"{CONTRACT}.records", "importable", "os:system"),
    "importer": calling(f"{CONTRACT}.codec", "import_global", "os", "system"),
    "register": calling(f"{CONTRACT}.reducers", "register", "x"),
    "module of ours": calling("venvoy.pool.core", "Core"),
    "contract's imports": calling(f"{CONTRACT}.standard", "sys.exit", 1),
    "hidden by prefix": calling(f"{CONTRACT}.standard.os", "restore_path", 1),
    "group that is none": calling(f"{CONTRACT}.standard", "restore_group", "eval", "1", []),
    "path that is none": calling(f"{CONTRACT}.standard", "restore_path", "os", "x"),
    "undeclared class": calling("shapes", "Opaque"),
    "numpy": calling("numpy", "load", "x"),
    "numpy objects": calling(f"{CONTRACT}.arrays", "restore_array", "O", (1,), "C", b"x" * 8),
    "exit": calling("builtins", "SystemExit", 1),
    "base exception": calling("builtins", "KeyboardInterrupt"),
    "persistent id": b"\x80\x05Pos\n.",
    "extension": b"\x80\x05\x82\x01.",
    "damaged": b"\x80\x05\x95",
    "empty": b"",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_body_constructs_nothing(body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error of that call, and nothing has happened."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CodecError):
        decoded(body)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["os.system", "GLOBAL opcode", "old protocol"])
def test_the_bodies_are_hostile(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the allow-list these do what they say."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(HOSTILE[name])
    assert [path.name for path in tmp_path.iterdir()] == [MARK]


# --- bodies that reach beyond the values they name ----------------------------------------------------------------


def raw(value: object) -> bytes:
    """Return the opcodes of a builtin value, without those that remember it."""
    return pickle.dumps(value, 2)[2:-1].replace(b"q\x00", b"").replace(b"q\x01", b"").replace(b"q\x02", b"")


def made(module: str, name: str, *arguments: bytes) -> bytes:
    """REDUCE of what is named with arguments that are opcodes."""
    return named(module, name) + b"(" + b"".join(arguments) + b"tR"


def filled(target: bytes, name: str, value: bytes) -> bytes:
    """BUILD with one attribute."""
    return target + b"}" + text(name) + value + b"sb"


BYTE = raw("|u1")


def masked(data: bytes) -> bytes:
    return made(f"{CONTRACT}.arrays", "restore_masked", data, b"N", b"N", b"\x89")


def array(dtype: bytes = BYTE, data: bytes = b"C\x08" + b"x" * 8) -> bytes:
    return made(
        f"{CONTRACT}.arrays", "restore_array", dtype, raw((len(data) - 2 if dtype == BYTE else 1,)), raw("C"), data
    )


SECRET = bytearray(b"only the host knows")
WINDOW = pickle.dumps(
    {
        "data": (np.frombuffer(SECRET, "u1").__array_interface__["data"][0], False),
        "shape": (len(SECRET),),
        "typestr": "|u1",
        "version": 3,
    },
    2,
)[2:-1]
OBJECTS = made(f"{CONTRACT}.arrays", "restore_objects", raw((1,)), b"(" + text("x") + b"l")
DTYPE = made(f"{CONTRACT}.arrays", "restore_dtype", pickle.dumps({"names": ["a"], "formats": ["u8"]}, 2)[2:-1])
POINTERS = (
    b"(K\x03" + text("|") + b"N" + text("a") + b"\x85}" + text("a")
    + made(f"{CONTRACT}.arrays", "restore_dtype", text("O")) + b"K\x00\x86sK\x08K\x01K\x00t"
)  # fmt: skip
REPORT = {
    "type": "a.B", "bases": ["ValueError"], "message": "x", "args": (), "notes": [], "pickled": None, "traceback": None
}  # fmt: skip
REACHING = {
    "memory by a namespace": masked(filled(named("types", "SimpleNamespace") + b")R", "__array_interface__", WINDOW)),
    "memory by an argument": masked(
        made("types", "SimpleNamespace", b"}" + text("__array_interface__") + WINDOW + b"s")
    ),
    "memory by an exception": masked(filled(named("builtins", "ValueError") + b")R", "__array_interface__", WINDOW)),
    "memory by a counter": masked(filled(named("collections", "Counter") + b")R", "__array_interface__", WINDOW)),
    "memory by a number": masked(
        made(
            f"{CONTRACT}.records",
            "restore_subclass",
            text("http:HTTPStatus"),
            b"K\x05",
            b"}" + text("__array_interface__") + WINDOW + b"s",
        )
    ),
    "memory of objects as numbers": array(raw("|u8"), OBJECTS),
    "memory of objects as a view": array(
        raw("|u8"), made(f"{CONTRACT}.standard", "restore_view", OBJECTS, text("B"), raw((8,)), b"\x89")
    ),
    "layout of a dtype": DTYPE + POINTERS + b"b",
    "state of an array": array() + raw((1, (1,), None, False, b"x")) + b"b",
    "item of an array": array() + b"K\x00K\x01s",
    "items of an array": array() + b"(K\x00K\x01u",
    "attribute of an array": made(f"{CONTRACT}.records", "fill_object", array(), b"}" + text("shape") + b"K\x05s"),
    "state of a partial": named("builtins", "list") + b"(" + named("builtins", "bytes") + b"K\x05\x85}Ntb",
    "class of an object": named("builtins", "list") + b")\x81",
    "function of polars": made(
        f"{CONTRACT}.arrow_values",
        "restore_polars_series",
        b"(" + text("x") + b"(" + text("List") + b"(" + text("read_csv") + text("/etc/passwd") + b"tt]t",
    ),
}


@pytest.mark.parametrize("opcodes", REACHING.values(), ids=REACHING)
def test_a_body_reaches_nothing_that_it_did_not_make(opcodes: bytes) -> None:
    """Neither memory of the host's, nor the layout of a dtype, nor functions of libraries."""
    if b"polars" in opcodes:
        pytest.importorskip("polars")
    with pytest.raises(CodecError):
        decoded(b"\x80\x05" + opcodes + b".")
    assert SECRET == b"only the host knows"


def test_records_and_errors_offer_no_protocol_to_libraries() -> None:
    """A field or an attribute by whose name numpy would read memory is an ordinary one, or none."""
    window = pickle.loads(b"\x80\x02" + WINDOW + b".")
    record = decoded(calling(f"{CONTRACT}.records", "make_record", "a.B", {"__array_interface__": window, "a": 1}))
    assert record["__array_interface__"] == window
    assert (record.a, np.asarray(record).dtype) == (1, np.dtype("O"))
    error = decoded(
        calling(
            f"{CONTRACT}.records", "restore_error", {**REPORT, "attributes": {"__array_interface__": window, "a": 1}}
        )
    )
    assert (error.a, np.asarray(error).dtype) == (1, np.dtype("O"))


def test_a_declared_class_is_not_changed(shapes: types.ModuleType) -> None:
    """It is handed out as it is, since objects are made of it; its objects have attributes and states, it has not."""
    classes = Classes(declared=("shapes",), is_safe=True)
    for state in (b"N}" + text("extra") + b"K\x05s\x86", b"}" + text("extra") + b"K\x05s"):
        with pytest.raises(CodecError, match="class Item"):
            decoded(b"\x80\x05" + named("shapes", "Item") + state + b"b.", classes)
    assert not hasattr(shapes.Item, "extra")


def test_the_extension_registry_is_not_asked() -> None:
    """What the host itself has put there, and used, would be handed out without its name being looked at."""
    copyreg.add_extension("posix", "getcwd", 240)  # type: ignore[arg-type]
    try:
        assert pickle.loads(pickle.dumps(os.getcwd, 2)) is os.getcwd  # now it is in the cache
        with pytest.raises(CodecError, match="extension registry"):
            decoded(b"\x80\x05\x82\xf0)R.")
    finally:
        copyreg.remove_extension("posix", "getcwd", 240)  # type: ignore[arg-type]
        copyreg.clear_extension_cache()


def test_a_table_whose_parts_lie_elsewhere_is_refused() -> None:
    """Offsets of a text column that point behind its text."""
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"a": ["x", "yy"]})
    assert travel(table).equals(table)
    offsets, data = pyarrow.py_buffer(np.array([0, 10_000_000, 3], "i4")), pyarrow.py_buffer(b"xyy")
    forged = pyarrow.table([pyarrow.StringArray.from_buffers(2, offsets, data)], names=["a"])
    with pytest.raises(CodecError):
        travel(forged)


SET_ATTRIBUTE = b"N}" + text("restore_path") + b"K\x05s\x86b."  # BUILD with (None, {name: 5})


@pytest.mark.parametrize(
    ("module", "name", "attribute"),
    [(f"{CONTRACT}.standard", "restore_path", "restore_path"), ("fractions", "Fraction", "restore_path")],
)
def test_a_body_cannot_change_what_it_names(module: str, name: str, attribute: str) -> None:
    """BUILD sets attributes on anything; what it gets is not the host's own function or class."""
    body = b"\x80\x05" + named(module, name) + SET_ATTRIBUTE
    try:
        decoded(body)
    except CodecError:
        pass
    assert not hasattr(fractions.Fraction, attribute)
    assert not hasattr(standard.restore_path, attribute)
    filled = calling(f"{CONTRACT}.records", "fill_object", 1, {"a": 1})
    with pytest.raises(CodecError):
        decoded(filled)
    forged = (
        b"\x80\x05" + named(f"{CONTRACT}.records", "fill_object") + named(f"{CONTRACT}.standard", "restore_path")
        + b"}" + text("x") + b"K\x05s\x86R."
    )  # fmt: skip
    try:
        decoded(forged)
    except CodecError:
        pass
    assert not hasattr(standard.restore_path, "x")


@pytest.mark.parametrize(
    "value",
    [
        [1, 2.5, None, True, "x", b"y", {1: (2,)}, {3}, 10**400, 1j],
        [..., NotImplemented, range(3), slice(1), frozenset([1]), bytearray(b"x")],
        [datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), datetime.date(2024, 1, 1), datetime.timedelta(1)],
        datetime.datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        [decimal.Decimal("1.1"), fractions.Fraction(1, 3), uuid.UUID(int=5), ipaddress.ip_address("::1")],
        [pathlib.Path("a"), pathlib.PureWindowsPath("c:/a"), re.compile("a"), types.SimpleNamespace(a=1)],
        [collections.OrderedDict(a=1), collections.deque([1], 5), collections.Counter("aab")],
        types.MappingProxyType({1: 2}),
        stdlib_array.array("i", [1, 2]),
        [list(range(50_000)), datetime.date(2024, 1, 1), bytearray(200_000), "x" * 200_000],
    ],
    ids=["builtins", "more", "times", "zone", "numbers", "paths", "collections", "proxy", "array", "large"],
)
def test_values_pass(value: object) -> None:
    """Builtins and the standard library's value types."""
    result = travel(value)
    assert result == value
    assert type(result) is type(value)


def test_arrays_and_frames_pass(libraries: None) -> None:
    """Of every kind, masked and of objects too."""
    pandas = pytest.importorskip("pandas")
    assert travel(np.arange(3)).tolist() == [0, 1, 2]
    assert travel(np.array([{"a": 1}, None], object)).tolist() == [{"a": 1}, None]
    assert travel(np.ma.array([1, 2], mask=[0, 1])).tolist() == [1, None]
    assert travel(np.float32(1.5)) == 1.5
    assert travel(np.dtype([("a", "<i4")])) == np.dtype([("a", "<i4")])
    frame = pandas.DataFrame({"a": [1, 2], "b": ["x", None]})
    assert travel(frame).equals(frame)


def test_a_default_factory_is_a_call_of_its_own() -> None:
    """A defaultdict works, but what it holds is not the builtin itself."""
    result = travel(collections.defaultdict(list, {1: [2]}))
    assert result == {1: [2]}
    assert result["new"] == []


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("k"), ExceptionGroup("g", [ValueError("x")])])
def test_errors_are_raised_as_usual(error: Exception) -> None:
    """Builtin ones as themselves, others of their builtin base."""
    rebuilt = SAFE.rebuild(_plain(snapshot(error, "/none/")))
    assert isinstance(rebuilt, type(error))
    assert str(rebuilt) == str(error)


def _plain(report: dict[str, Any]) -> Any:
    return travel(report)


@pytest.mark.parametrize(
    "report",
    [
        None,
        5,
        {},
        {"type": 5, "bases": 5},
        {"code": "encoding_error"},
        {"code": [], "message": "x"},
        {
            "type": "a.B",
            "bases": ["ValueError"],
            "message": "x",
            "args": (),
            "attributes": {"__class__": 5},
            "notes": 5,
            "pickled": None,
            "traceback": 7,
        },
    ],
)
def test_a_forged_error_is_an_error(report: Any) -> None:
    """Of the host's own kind, whatever is wrong with the report."""
    frame = frames.Frame(messages.ERROR, 0, codec.PICKLE, 0, 1, 0, b"", codec.encode_inline(report), [])
    with pytest.raises((vv.EncodingError, vv.RemoteError)):
        Decoder(SAFE).value(frame)


def test_the_pickle_within_an_error_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception's own pickle is one more way in."""
    monkeypatch.chdir(tmp_path)
    report = {**snapshot(ValueError("x"), "/none/"), "pickled": HOSTILE["GLOBAL opcode"]}
    assert isinstance(SAFE.rebuild(report), ValueError)
    assert list(tmp_path.iterdir()) == []


def test_a_pool_refuses_what_its_worker_forges(others: list[str], tmp_path: Path, home: Path) -> None:
    """A real worker whose reply is a hostile pickle: an EncodingError, and the next call is served."""
    options = vv.WorkerOptions(paths=[VALUES / "worker"], output="discard", grace_period=0.6)
    mark = str(tmp_path / "mark")
    for is_safe in (True, False):
        with vv.Pool(others[1], "forger", worker=options, workers=1, unpickle="safe" if is_safe else "full") as pool:
            if is_safe:
                with pytest.raises(vv.EncodingError, match='unpickle="safe" does not allow'):
                    pool.call("forge", mark)
                assert not os.path.exists(mark)
                assert pool.call("builtins:abs", -1) == 1
            else:
                pool.call("forge", mark)
                assert os.path.exists(mark)


def test_at_home_too_objects_come_in_plain_form(home_pool: vv.Pool, home: Path) -> None:
    """A pool of the host's own environment whose replies are not trusted."""
    options = vv.WorkerOptions(paths=[VALUES / "worker"], output="discard", grace_period=0.6)
    with vv.Pool(module="shapes", worker=options, workers=1, unpickle="safe") as pool:
        spec = pool.eval("__import__('venvoy').WorkerOptions(grace_period=1.0)")
        assert (type(spec), spec.type_name, spec.grace_period) == (vv.Record, "venvoy.options.WorkerOptions", 1.0)
    assert type(home_pool.eval("__import__('venvoy').WorkerOptions()")) is vv.WorkerOptions


def test_declared_and_registered_classes_pass(others: list[str], shapes: types.ModuleType, home: Path) -> None:
    """The owner of the host has named them."""
    options = vv.WorkerOptions(paths=[VALUES / "worker"], output="discard", grace_period=0.6)
    with vv.Pool(others[1], "shapes", worker=options, workers=1, unpickle="safe", classes=["shapes"]) as pool:
        assert type(pool.call("make", "Item", "a")) is shapes.Item
        assert pool.call("every")["enum"] is shapes.Color.RED
        assert type(pool.call("make", "Guarded", 5)) is shapes.Guarded
    with vv.Pool(others[1], "shapes", worker=options, workers=1, unpickle="safe") as pool:
        assert pool.call("make", "Item", "a") == vv.Record(name="a", parent=None)
        assert pool.call("every")["enum"] == 1


@pytest.mark.parametrize("is_safe", [True, False])
@pytest.mark.parametrize("name", ["enum.Enum", "dataclasses.dataclass", "typing.NamedTuple", "no_such_name"])
def test_a_declared_module_does_not_open_what_it_imports(shapes: types.ModuleType, is_safe: bool, name: str) -> None:
    """`shapes` imports other modules; what is in them is not declared by that, neither called nor made."""
    classes = Classes(declared=("shapes",), is_safe=is_safe)
    assert classes.find_class is not None
    with pytest.raises((CodecError, AttributeError)):
        classes.find_class("shapes", name)
    assert decoded(calling(f"{CONTRACT}.records", "restore_enum", f"shapes:{name}", "x", True, 5), classes) == 5
    assert decoded(calling(f"{CONTRACT}.records", "new_container", f"shapes:{name}", "dict"), classes) == {}
    assert classes._class_named(f"shapes:{name}") is None
    assert classes._class_named("shapes:Item") is shapes.Item


def test_replies_are_decoded_name_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever opcode names something, in results and in chunks of them."""
    monkeypatch.chdir(tmp_path)
    for name in ("GLOBAL opcode", "INST opcode", "old protocol"):
        frame = frames.Frame(messages.RESULT, 0, codec.PICKLE, 0, 1, 0, b"", HOSTILE[name], [])
        with pytest.raises(vv.EncodingError):
            Decoder(SAFE).value(frame)
        chunk = frames.Frame(messages.RESULT, messages.FLAG_CHUNK, codec.PICKLE, 0, 1, 0, b"", HOSTILE[name], [])
        job = Job(Call("f", messages.FLAG_CHUNK, b"", ((b"",), ())))
        Decoder(SAFE).complete(job, chunk)
        assert isinstance(job.future.exception(0), vv.EncodingError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["Safe", None, True, "none"])
def test_a_wrong_choice_is_refused(value: Any) -> None:
    """With the two there are."""
    with pytest.raises(ValueError, match='"full" or "safe"'):
        vv.Pool(unpickle=value)


@pytest.mark.parametrize(
    ("classes", "error"),
    [("shapes", TypeError), (Path, TypeError), ([5], TypeError), (["no name"], ValueError), (["a:b:c"], ValueError)],
)
def test_wrong_declarations_are_refused(classes: Any, error: type[Exception]) -> None:
    """What is neither a class nor the name of one or of a module."""
    with pytest.raises(error, match="classes"):
        vv.Pool(classes=classes)


def test_a_class_of_a_script_cannot_be_declared() -> None:
    """No worker could have it."""

    class Local:
        pass

    with pytest.raises(ValueError, match="Local"):
        vv.Pool(classes=[Local])
