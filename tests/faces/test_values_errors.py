"""Exceptions of a worker: caught as what they are, with the place in the worker's file where they came from."""

from __future__ import annotations

import inspect
import subprocess
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import venvoy as vv

VALUES = Path(__file__).with_name("values")
FILE = VALUES / "worker" / "mishaps.py"
LINES = FILE.read_text(encoding="utf-8").splitlines()

# name: (class caught, whether it is that very class, text, attributes)
TABLE: dict[str, tuple[type[BaseException], bool, str, dict[str, Any]]] = {
    "builtin": (ValueError, True, "('plain', 5)", {"args": ("plain", 5)}),
    "two_arguments": (Exception, False, "bad (5)", {"number": 5, "remote_args": ("bad (5)",)}),
    "keyword_only": (ValueError, False, "because", {"reason": "because"}),
    "foreign_key": (KeyError, False, "'k'", {"remote_args": ("k",)}),
    "foreign_os": (OSError, False, "[Errno 2] nope: 'a file'", {"errno": 2, "filename": "a file"}),
    "chained": (KeyError, False, "'later'", {}),
    "context": (RuntimeError, True, "while handling", {}),
    "notes": (ValueError, True, "noted", {"__notes__": ["first note", "second note"]}),
    "group": (ExceptionGroup, True, "several (2 sub-exceptions)", {"message": "several"}),
    "own_group": (ExceptionGroup, False, "own (1 sub-exception)", {}),
    "leave": (vv.RemoteError, False, "3", {"remote_args": (3,)}),
    "interrupt": (vv.RemoteError, False, "builtins.KeyboardInterrupt", {}),
    "generator_exit": (vv.RemoteError, False, "builtins.GeneratorExit", {}),
    "base": (vv.RemoteError, False, "all the way", {}),
    "recursion": (RecursionError, True, "maximum recursion depth exceeded", {}),
    "lock_in_args": (ValueError, False, "locked", {}),
    "silent": (Exception, False, "cannot be made into text", {}),
    "with_state": (LookupError, False, "lost", {"remote_args": ("lost",)}),
    "syntax": (SyntaxError, True, "some_file.py", {"filename": "some_file.py", "lineno": 1}),
    "missing_module": (ModuleNotFoundError, True, "no_such_module_here", {"name": "no_such_module_here"}),
    "stop_iteration": (StopIteration, True, "", {}),
    "process": (subprocess.CalledProcessError, True, "exit status 3", {"returncode": 3}),
    "decode": (UnicodeDecodeError, True, "utf-8", {"start": 0, "object": b"\xff"}),
    "local_class": (ArithmeticError, False, "here", {}),
    "nested_cause": (ValueError, True, "outer", {}),
}


def line_of(name: str) -> int:
    """Return the line of the worker's file in which that function fails, or begins to."""
    start = LINES.index(f"def {name}():")
    return start + 2


def caught(pool: vv.Pool, name: str) -> BaseException:
    with pytest.raises(BaseException) as found:
        pool.call("mishaps:fail", name)
    return found.value


@pytest.mark.parametrize("name", TABLE)
def test_each_kind_of_exception(pool: vv.Pool, name: str) -> None:
    """Its class or builtin family, text, attributes, and the place in the worker; the worker goes on."""
    kind, is_itself, text, attributes = TABLE[name]
    if "group" in name and pool.eval("__import__('sys').version_info < (3, 11)"):
        pytest.skip("no groups of exceptions before Python 3.11")
    pid = pool.call("os:getpid")
    error = caught(pool, name)
    assert isinstance(error, kind)
    assert isinstance(error, Exception)
    assert (type(error) is kind) is is_itself
    assert isinstance(error, vv.RemoteError) is not is_itself
    assert text in str(error)
    for attribute, value in attributes.items():
        assert getattr(error, attribute) == value
    if not is_itself:
        assert error.type_name.rpartition(".")[2] == type(error).__name__  # type: ignore[attr-defined]
    assert isinstance(error.__cause__, vv.RemoteTraceback)
    trace = str(error.__cause__)
    assert f'File "{FILE}", line ' in trace
    assert f"in {name}" in trace
    assert "venvoy_worker" not in trace
    assert pool.call("os:getpid") == pid


@pytest.mark.parametrize("name", ["builtin", "two_arguments", "leave"])
def test_the_traceback_has_the_line(pool: vv.Pool, name: str) -> None:
    """File, line and source text, as in a traceback of one's own."""
    shown = "".join(traceback.format_exception(caught(pool, name)))
    assert f'File "{FILE}", line {line_of(name)}, in {name}' in shown
    assert LINES[line_of(name) - 1].strip() in shown


def test_chains_are_kept(pool: vv.Pool) -> None:
    """Causes and contexts are in the traceback, in their order."""
    for name, words in [
        ("chained", ["KeyError: 'missing'", "direct cause", "MyKeyError"]),
        ("context", ["ZeroDivisionError", "During handling", "while handling"]),
        ("nested_cause", ["TwoArguments", "direct cause", "ValueError: outer"]),
    ]:
        trace = str(caught(pool, name).__cause__)
        places = [trace.index(word) for word in words]
        assert places == sorted(places)


def test_groups_can_be_taken_apart(others: list[str], worker_options: vv.WorkerOptions, home: Path) -> None:
    """`except*` finds the errors in a group, foreign ones as their family."""
    with vv.Pool(others[1], worker=worker_options, workers=1) as pool:
        if pool.eval("__import__('sys').version_info < (3, 11)"):
            pytest.skip("needs Python 3.11")
        group: Any = caught(pool, "group")
        assert [type(part).__name__ for part in group.exceptions] == ["ValueError", "TwoArguments"]
        assert isinstance(group.exceptions[1], vv.RemoteError)
        assert group.exceptions[1].number == 1
        own: Any = caught(pool, "own_group")
        assert own.split(KeyError)[0] is not None


def test_the_same_errors_by_submit_and_map(pool: vv.Pool) -> None:
    """Whichever way the call went."""
    errors = [
        pool.submit("mishaps:fail", "foreign_key").exception(20),
        _raised(lambda: list(pool.map("mishaps:fail", ["foreign_key"]))),
        _raised(lambda: pool.eval("__import__('mishaps').fail('foreign_key')")),
    ]
    for error in errors:
        assert isinstance(error, KeyError)
        assert isinstance(error, vv.RemoteError)
        assert f'File "{FILE}"' in str(error.__cause__)


def _raised(function: Any) -> BaseException | None:
    try:
        function()
    except BaseException as error:
        return error
    return None


def test_a_declared_exception_is_itself(others: list[str], worker_options: vv.WorkerOptions, home: Path) -> None:
    """Where a copy of it says the same; the others are of their family."""
    sys.path.insert(0, str(VALUES / "worker"))
    try:
        import mishaps  # type: ignore[import-not-found]

        with vv.Pool(others[1], worker=worker_options, workers=1, classes=["mishaps"]) as pool:
            assert type(caught(pool, "foreign_key")) is mishaps.MyKeyError
            assert type(caught(pool, "foreign_os")) is mishaps.MyOSError
            assert isinstance(caught(pool, "two_arguments"), vv.RemoteError)  # its constructor wants two
    finally:
        sys.path.remove(str(VALUES / "worker"))
        sys.modules.pop("mishaps", None)


def test_exceptions_as_values(pool: vv.Pool, shapes: ModuleType) -> None:
    """What `return_exceptions=True` collects: errors that can be raised here."""
    text = "[ValueError('a', 1), __import__('mishaps').MyKeyError('k')]"
    first, second = pool.eval(text)
    assert (type(first), first.args) == (ValueError, ("a", 1))
    assert isinstance(second, KeyError)
    assert second.type_name == "mishaps.MyKeyError"
    assert pool.call("kind_of", ValueError("x")) == "builtins.ValueError"


def test_every_way_to_fail_is_in_the_table() -> None:
    """A new one in the worker's file is tested."""
    names = [line[4:-3] for line in LINES if line.startswith("def ") and line.endswith("():")]
    assert names == list(TABLE)
    assert len(TABLE) >= 20
    assert inspect.getdoc(test_each_kind_of_exception)
