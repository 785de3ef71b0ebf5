"""Errors travel as plain values: whatever was raised there can be raised here, and nothing gets in the way."""

from __future__ import annotations

import builtins
import importlib
import json
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from venvoy import errors
from venvoy.values.failures import rebuild
from venvoy_worker.contract import codec
from venvoy_worker.contract.failures import failure, snapshot

NOWHERE = "/no/such/folder/"
PLAIN = (type(None), bool, int, float, complex, str, bytes, tuple, list, dict)


def caught(error: BaseException, hidden: str = NOWHERE) -> dict[str, Any]:
    """Raise an error and return its snapshot, as it comes out of a frame."""
    try:
        raise error
    except BaseException as raised:
        pieces, _ = codec.encode(snapshot(raised, hidden))
    result: Any = codec.decode(b"".join(pieces), [], _refuse)
    return result  # type: ignore[no-any-return]


def _refuse(module: str, name: str) -> object:
    raise AssertionError(f"a snapshot names {module}.{name}")


class TwoArguments(Exception):
    def __init__(self, code: int, what: str) -> None:
        super().__init__(f"{what} ({code})")
        self.number = code


class Prefixed(Exception):
    """Pickles into something else: its constructor changes its argument."""

    def __init__(self, name: str) -> None:
        super().__init__("no " + name)


class BadText(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")

    __repr__ = __str__


class LeavingText(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class BadProperties(Exception):
    @property
    def code(self) -> int:
        raise RuntimeError("code")

    path = name = errno = code


class BadArgs(Exception):
    @property
    def args(self) -> tuple[Any, ...]:  # type: ignore[override]
        raise RuntimeError("args")


class LeavingConstructor(Exception):
    def __init__(self, text: str = "") -> None:
        if text:
            sys.exit(text)
        super().__init__("made")


class BadReduce(Exception):
    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


class Untrue(Exception):
    def __bool__(self) -> bool:
        raise RuntimeError("neither")


class MyValueError(ValueError):
    pass


class Several(KeyError, AttributeError):
    pass


class MyOSError(OSError):
    pass


class MyDecodeError(UnicodeDecodeError):
    pass


class MyGroup(ExceptionGroup[Exception]):
    pass


class MyExit(SystemExit):
    pass


class Base(BaseException):
    pass


class MyImportError(ImportError):
    pass


class MySyntaxError(SyntaxError):
    pass


def with_value(notes: Any) -> BaseException:
    error = MyValueError("x")
    error.__notes__ = notes
    return error


def cyclic() -> BaseException:
    one, two = MyValueError("one"), MyValueError("two")
    one.__cause__, two.__cause__ = two, one
    return one


def chained(length: int) -> BaseException:
    error: BaseException = ValueError("first")
    for number in range(length):
        later = MyValueError(str(number))
        later.__cause__ = error
        error = later
    return error


def with_attributes(**attributes: object) -> BaseException:
    error = MyValueError("has attributes")
    error.__dict__.update(attributes)
    return error


ODD: dict[str, Callable[[], BaseException]] = {
    "two arguments": lambda: TwoArguments(5, "bad"),
    "bad text": BadText,
    "leaving text": LeavingText,
    "bad properties": lambda: BadProperties("x"),
    "bad args": lambda: BadArgs("x"),
    "leaving constructor": LeavingConstructor,
    "bad reduce": lambda: BadReduce("x"),
    "untrue": lambda: _cause(ValueError("x"), Untrue("y")),
    "notes": lambda: with_value(["one", "two"]),
    "bad note": lambda: with_value([BadText()]),
    "notes that are none": lambda: with_value(5),
    "notes that are nothing": lambda: with_value(None),
    "cyclic": cyclic,
    "long chain": lambda: chained(3000),
    "not picklable": lambda: with_attributes(lock=__import__("threading").Lock(), number=1),
    "bad chained text": lambda: _cause(ValueError("x"), BadText()),
    "group": lambda: ExceptionGroup("several", [ValueError(1), MyGroup("inner", [TypeError(2)])]),
    "group of foreign": lambda: ExceptionGroup("several", [MyValueError(1)]),
    "my group": lambda: MyGroup("several", [ValueError(1)]),
    "surrogates": lambda: ValueError("\ud800"),
    "huge": lambda: MyValueError("x" * 10**6),
    "argument that cannot be shown": lambda: MyValueError(BadText()),
    "no arguments": MyValueError,
    "decode error": lambda: MyDecodeError("utf-8", b"\xff", 0, 1, "no"),
    "os error": lambda: MyOSError(2, "nope", "a file"),
    "import error": lambda: MyImportError("no", name="a.b", path="/x"),
    "syntax error": lambda: MySyntaxError("bad", ("file.py", 3, 1, "text", 3, 2)),
    "several bases": lambda: Several("both"),
    "stop iteration": lambda: StopIteration(5),
    "exit": lambda: SystemExit(3),
    "my exit": lambda: MyExit("bye"),
    "interrupt": KeyboardInterrupt,
    "generator exit": GeneratorExit,
    "base": lambda: Base("base"),
}


def _cause(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.fixture(params=ODD)
def odd(request: pytest.FixtureRequest) -> BaseException:
    """Each odd exception in turn."""
    return ODD[request.param]()


def only_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and only_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(only_plain, value))
    return type(value) in PLAIN


def test_a_snapshot_is_plain(odd: BaseException) -> None:
    """No exception, however odd, keeps its own report from being made of builtin values only."""
    report = caught(odd)
    assert only_plain(report)
    keys = {"type", "bases", "message", "args", "attributes", "notes", "exceptions", "pickled", "traceback"}
    assert set(report) == keys
    assert report["type"] == f"{type(odd).__module__}.{type(odd).__qualname__}"
    assert report["bases"] == [base.__name__ for base in type(odd).__mro__ if base.__module__ == "builtins"]
    assert type(odd).__name__ in report["traceback"]


@pytest.mark.parametrize("is_home", [False, True])
def test_a_rebuilt_error_can_be_caught_as_what_it_was(odd: BaseException, is_home: bool) -> None:
    """Whatever was raised there, an Exception is raised here, of the same builtin family, with the traceback."""
    report = caught(odd)
    error = rebuild(report, is_home=is_home)
    assert isinstance(error, Exception)
    assert isinstance(error, errors.RemoteError) or type(error) is type(odd)
    assert isinstance(error.__cause__, errors.RemoteTraceback)
    assert type(odd).__name__ in str(error.__cause__)
    if isinstance(error, errors.RemoteError):
        assert error.type_name == report["type"]
        assert error.code == "remote_error"
        assert str(error) == (report["message"] or report["type"])
        assert type(error).__name__ == type(odd).__name__
    str(error), repr(error)


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (MyValueError("x"), ValueError),
        (Several("x"), LookupError),
        (MyOSError(2, "nope"), OSError),
        (MyDecodeError("utf-8", b"", 0, 1, "no"), ValueError),
        (MyImportError("x"), ImportError),
        (MySyntaxError("x"), SyntaxError),
        (TwoArguments(1, "x"), Exception),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_a_foreign_error_is_of_its_builtin_base(error: BaseException, base: type[BaseException]) -> None:
    """`except ValueError` around a call works for classes nobody has here."""
    rebuilt = rebuild(caught(error), is_home=False)
    assert isinstance(rebuilt, errors.RemoteError)
    assert isinstance(rebuilt, base)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x", 2),
        KeyError("k"),
        FileNotFoundError(2, "no", "f"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
        ExceptionGroup("two", [ValueError(1), KeyError(2)]),
        json.JSONDecodeError("bad", "doc", 1),
        subprocess.CalledProcessError(3, ["cmd"], b"out"),
        ModuleNotFoundError("no", name="m"),
        StopIteration(3),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("is_home", [False, True])
def test_errors_of_the_standard_library_are_themselves(error: Exception, is_home: bool) -> None:
    """Class, arguments and attributes of what every Python has."""
    rebuilt = rebuild(caught(error), is_home=is_home)
    assert type(rebuilt) is type(error)
    assert (str(rebuilt), repr(rebuilt)) == (str(error), repr(error))
    for name in ("errno", "filename", "name", "returncode", "object", "pos"):
        assert getattr(rebuilt, name, None) == getattr(error, name, None)


def test_classes_of_ones_own_are_themselves_at_home() -> None:
    """In the host's own environment a class goes by name, if a copy of the error is the same."""
    assert type(rebuild(caught(MyValueError("x")), is_home=True)) is MyValueError
    assert type(rebuild(caught(MyValueError("x")), is_home=False)) is not MyValueError


@pytest.mark.parametrize("is_home", [False, True])
@pytest.mark.parametrize("error", [Prefixed("milk"), TwoArguments(5, "bad"), MyOSError(2, "nope", "f")])
def test_the_message_is_never_another(error: Exception, is_home: bool) -> None:
    """A class whose copy would say something else does not speak for the error."""
    assert str(rebuild(caught(error), is_home=is_home)) == str(error)


def test_attributes_arrive() -> None:
    """Plain attributes, those in slots of builtin classes included, are those of the error."""
    assert rebuild(caught(TwoArguments(5, "x")), is_home=False).number == 5  # type: ignore[attr-defined]
    error = rebuild(caught(MyOSError(2, "nope", "a file")), is_home=False)
    assert isinstance(error, OSError)
    assert (error.errno, error.strerror, error.filename) == (2, "nope", "a file")
    assert (error.type_name, error.remote_args) == (f"{__name__}.MyOSError", (2, "nope"))  # type: ignore[attr-defined]


def test_two_errors_of_one_class_are_of_one_class() -> None:
    """The class made for a foreign exception is made once, under the name it has there."""
    one, two = (rebuild(caught(MyValueError(text)), is_home=False) for text in "ab")
    assert type(one) is type(two)
    assert f"{type(one).__module__}.{type(one).__qualname__}" == f"{__name__}.MyValueError"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), MyExit(1), Base()])
@pytest.mark.parametrize("is_home", [False, True])
def test_a_worker_cannot_end_the_host(error: BaseException, is_home: bool) -> None:
    """What leaves a program there is an ordinary error here."""
    rebuilt = rebuild(caught(error), is_home=is_home)
    assert isinstance(rebuilt, errors.RemoteError)
    assert not isinstance(rebuilt, SystemExit | KeyboardInterrupt | GeneratorExit)


def test_notes_arrive_once() -> None:
    """Notes are shown below the error, whether or not its copy brings its own."""
    for error in (ValueError("x"), MyValueError("x")):
        error.add_note("first")
        error.add_note("second")
        for is_home in (False, True):
            assert rebuild(caught(error), is_home=is_home).__notes__ == ["first", "second"]


def test_the_traceback_is_the_users() -> None:
    """Frames of ours at the top are left out, those below and the chain of causes are kept."""
    scope: dict[str, Any] = {}
    exec(compile("def outer(f): f()", "/ours/serve.py", "exec"), scope)

    def users() -> None:
        raise ValueError("deep") from KeyError("why")

    try:
        scope["outer"](users)
    except ValueError as error:
        error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]
        text = snapshot(error, "/ours/")["traceback"]
    assert isinstance(text, str)
    assert "/ours/" not in text
    assert "in users" in text
    assert text.index("KeyError") < text.index("direct cause") < text.index("ValueError: deep")


@pytest.mark.parametrize("name", ["timeout", "retries"])
def test_options_given_to_the_target_are_hinted_at(name: str) -> None:
    """`call(f, timeout=5)` where `f` has no such parameter: the error says where options go."""
    error = rebuild(caught(TypeError(f"f() got an unexpected keyword argument '{name}'")), is_home=False)
    assert any("options(" in note and name in note for note in error.__notes__)
    assert not hasattr(
        rebuild(caught(TypeError("f() got an unexpected keyword argument 'x'")), is_home=False), "__notes__"
    )


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("target_not_found", errors.TargetNotFound),
        ("encoding_error", errors.EncodingError),
        ("protocol_error", errors.ProtocolError),
        ("call_cancelled", errors.CallCancelled),
        ("something_newer", errors.RemoteError),
    ],
)
@pytest.mark.parametrize("traceback", ["", "where it was"])
def test_failures_of_our_own_are_our_errors(code: str, kind: type[BaseException], traceback: str) -> None:
    """A failure that is not the user's has a code, and is the error of that code here."""
    error = rebuild(failure(code, "the message", traceback), is_home=False)
    assert type(error) is kind
    assert str(error) == "the message"
    assert traceback in str(error.__cause__ or "")


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[types.ModuleType]:
    """A module that would be importable here, but is not wanted here."""
    (tmp_path / "foreign_models.py").write_text("class Item: pass\nclass Failure(ValueError): pass\n")
    sys.path.insert(0, str(tmp_path))
    yield importlib.import_module("foreign_models")
    sys.path.remove(str(tmp_path))
    sys.modules.pop("foreign_models", None)


@pytest.mark.parametrize("make", ["ValueError(Item())", "Failure(1)", "ValueError(Failure)"])
def test_an_error_imports_nothing_into_the_host(foreign: types.ModuleType, make: str) -> None:
    """What an error of another environment holds is not looked up here, even where it could be."""
    report = caught(eval(make, {**vars(builtins), **vars(foreign)}))
    del sys.modules["foreign_models"]
    assert isinstance(rebuild(report, is_home=False), ValueError)
    assert "foreign_models" not in sys.modules
