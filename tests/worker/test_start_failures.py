"""A worker that does not start: one typed error with the cause in it, soon, and nothing left of the attempt."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import venvoy as vv

SOON = 2.0


def workers_of(marker: str) -> list[int]:
    """Return the pids of our children that have the marker in their environment."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if child.environ().get("MARKER") == marker:
                found.append(child.pid)
        except psutil.Error:
            pass
    return found


MODULES = {
    "import error": "import no_such_module_at_all",
    "exception": "1 / 0",
    "sys.exit": "import sys; sys.exit(3)",
    "os._exit": "import os; os._exit(7)",
    "segfault": "import ctypes; ctypes.string_at(0)",
    "killed": "import os; os.kill(os.getpid(), 9)",
    "syntax error": "def f(:",
    "thread left": "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); 1 / 0",
    "child left": "import subprocess; subprocess.Popen(['sleep', '60']); 1 / 0",
}


def write(folder: Path, text: str) -> None:
    (folder / "broken.py").write_text("import sys\nprint('last', 'words', flush=True)\n" + text + "\nVALUE = 1\n")


@pytest.mark.parametrize("kind", MODULES)
def test_a_module_that_cannot_be_imported_is_a_start_error(
    extreme: str, kind: str, open_pool: Callable[..., vv.Pool], tmp_path: Path, until: Callable[..., None]
) -> None:
    """It is raised within two seconds, holds the output and the cause, and no process is left."""
    write(tmp_path, MODULES[kind])
    pool = open_pool(extreme, "broken", paths=[tmp_path], env_vars={"MARKER": kind})
    begin = time.monotonic()
    with pytest.raises(vv.WorkerStartError) as caught:
        pool.call("VALUE")
    assert time.monotonic() - begin < SOON
    error = caught.value
    if kind != "syntax error":  # it prints nothing
        assert "last words" in error.output
        assert "last words" in str(error)
    assert error.code == "worker_start_failed"
    expected = {
        "import error": ("no_such_module_at_all", None),
        "exception": ("ZeroDivisionError", None),
        "sys.exit": ("SystemExit", None),
        "os._exit": ("status 7", 7),
        "segfault": ("SIGSEGV", None),
        "killed": ("SIGKILL", None),
        "syntax error": ("SyntaxError", None),
    }.get(kind, ("ZeroDivisionError", None))
    assert expected[0] in str(error)
    if expected[1] is not None:
        assert error.exit_status == expected[1]
    until(lambda: not workers_of(kind), seconds=SOON, what="no process left")


@pytest.mark.parametrize("kind", ["import error", "exception", "syntax error"])
def test_the_traceback_shows_the_line_of_the_module(
    extreme: str, kind: str, open_pool: Callable[..., vv.Pool], tmp_path: Path
) -> None:
    """The error carries the remote traceback, with the user's file and without ours."""
    write(tmp_path, MODULES[kind])
    with pytest.raises(vv.WorkerStartError) as caught:
        open_pool(extreme, "broken", paths=[tmp_path]).warm()
    trace = caught.value.remote_traceback
    assert f'{tmp_path / "broken.py"}", line 3' in trace
    assert "venvoy_worker" not in trace


def test_a_segfault_at_import_shows_its_python_stack(
    extreme: str, open_pool: Callable[..., vv.Pool], tmp_path: Path
) -> None:
    """The stack is in the error and in its text, and the signal in `.signal`."""
    write(tmp_path, MODULES["segfault"])
    with pytest.raises(vv.WorkerStartError) as caught:
        open_pool(extreme, "broken", paths=[tmp_path]).warm()
    assert caught.value.signal == 11
    assert "Segmentation fault" in caught.value.python_stack
    assert str(tmp_path / "broken.py") in caught.value.python_stack
    assert caught.value.python_stack.strip() in str(caught.value)


@pytest.mark.parametrize("text", ["import time\ntime.sleep(600)", "while True:\n    pass"], ids=["sleeping", "busy"])
def test_a_module_that_never_ends_fails_at_start_timeout(
    extreme: str, text: str, open_pool: Callable[..., vv.Pool], tmp_path: Path, until: Callable[..., None]
) -> None:
    """The error says that it was late, and shows where its main thread was."""
    write(tmp_path, text)
    pool = open_pool(extreme, "broken", paths=[tmp_path], env_vars={"MARKER": "late"}, start_timeout=0.7)
    begin = time.monotonic()
    with pytest.raises(vv.WorkerStartError, match="start_timeout") as caught:
        pool.warm()
    assert 0.7 <= time.monotonic() - begin < 0.7 + SOON
    assert str(tmp_path / "broken.py") in caught.value.remote_traceback
    assert "last words" in caught.value.output
    until(lambda: not workers_of("late"), seconds=SOON, what="no process left")


def test_a_module_that_holds_the_interpreter_lock_fails_at_start_timeout(
    extreme: str, open_pool: Callable[..., vv.Pool], tmp_path: Path
) -> None:
    """Without a stack, since nobody in that process can run; but in time."""
    write(tmp_path, "sum(range(10**12))")
    pool = open_pool(extreme, "broken", paths=[tmp_path], start_timeout=0.5)
    begin = time.monotonic()
    with pytest.raises(vv.WorkerStartError, match="start_timeout"):
        pool.warm()
    assert time.monotonic() - begin < 0.5 + SOON


def fail(text: str) -> None:
    raise ValueError(text)


@pytest.mark.parametrize(
    ("initializer", "args", "words"),
    [
        ("operator:truediv", [1, 0], "ZeroDivisionError"),
        ("no_such_module:f", [], "no_such_module"),
        ("math:no_such_name", [], "no_such_name"),
        ("math:pi", [], "not callable"),
        ("math:sqrt", [], "TypeError"),
        ("deeds:exit_python", [4], "SystemExit"),
        ("deeds:interrupt", [], "KeyboardInterrupt"),
        ("deeds:die", ["exit"], "status 9"),
    ],
)
def test_an_initializer_that_fails_is_a_start_error(
    extreme: str, initializer: str, args: list[object], words: str, open_pool: Callable[..., vv.Pool]
) -> None:
    """Whatever stands in its way, the error names it."""
    begin = time.monotonic()
    with pytest.raises(vv.WorkerStartError, match=words):
        open_pool(extreme, initializer=initializer, initializer_args=args).warm()
    assert time.monotonic() - begin < SOON


def test_an_initializer_sent_as_source_shows_its_line(extreme: str, open_pool: Callable[..., vv.Pool]) -> None:
    """Its traceback names this file and the line that raised."""
    with pytest.raises(vv.WorkerStartError, match="of the initializer") as caught:
        open_pool(extreme, initializer=vv.by_source(fail), initializer_args=["of the initializer"]).warm()
    assert Path(__file__).name in caught.value.remote_traceback
    assert "raise ValueError(text)" in caught.value.remote_traceback


def test_a_pool_module_that_does_not_exist_is_a_start_error(
    interpreter: str, open_pool: Callable[..., vv.Pool]
) -> None:
    """The error names the module and how to make one known."""
    with pytest.raises(vv.WorkerStartError, match=r"no_such_module(.|\n)*paths="):
        open_pool(interpreter, "no_such_module").warm()


def test_a_working_folder_that_does_not_exist_is_a_start_error(
    open_pool: Callable[..., vv.Pool], tmp_path: Path
) -> None:
    """The error names the folder, not only the interpreter."""
    with pytest.raises(vv.WorkerStartError, match="no-such-folder"):
        open_pool(cwd=tmp_path / "no-such-folder").warm()


def test_other_pools_are_untouched_by_a_failed_start(open_pool: Callable[..., vv.Pool], tmp_path: Path) -> None:
    """A pool that serves goes on with the same worker while another cannot start."""
    good = open_pool()
    pid = good.call("os:getpid")
    write(tmp_path, MODULES["segfault"])
    future = good.submit("deeds:sleep", 0.3)
    with pytest.raises(vv.WorkerStartError):
        open_pool(None, "broken", paths=[tmp_path]).warm()
    assert future.result(10) == 0.3
    assert good.call("os:getpid") == pid


@pytest.mark.parametrize("kind", ["exception", "os._exit", "sys.exit", "syntax error"])
def test_a_pool_is_usable_once_the_cause_is_gone(kind: str, open_pool: Callable[..., vv.Pool], tmp_path: Path) -> None:
    """After the module was mended, the same pool starts and serves."""
    write(tmp_path, MODULES[kind])
    pool = open_pool(None, "broken", paths=[tmp_path], env_vars={"PYTHONDONTWRITEBYTECODE": "1"})
    for _ in range(3):
        with pytest.raises(vv.WorkerStartError):
            pool.eval("1")
    write(tmp_path, "")
    os.utime(tmp_path / "broken.py", (1, 1))
    assert pool.eval("__import__('broken').VALUE") == 1
    assert pool.warm() == 1


def test_every_waiting_call_gets_the_start_error(open_pool: Callable[..., vv.Pool], tmp_path: Path) -> None:
    """Futures of calls that waited for the first worker fail with it too; none is left pending."""
    write(tmp_path, MODULES["exception"])
    pool = open_pool(None, "broken", paths=[tmp_path], workers=2)
    futures = [pool.submit("math:sqrt", number) for number in range(10)]
    for future in futures:
        assert isinstance(future.exception(10), vv.WorkerStartError)


def test_a_second_worker_that_cannot_start_harms_no_call_of_the_first(
    open_pool: Callable[..., vv.Pool], tmp_path: Path
) -> None:
    """When the pool cannot grow, the calls that wait are served by the workers there are."""
    (tmp_path / "broken.py").write_text(
        "import os\ntry:\n    os.mkdir(os.environ['ONCE'])\nexcept FileExistsError:\n    os._exit(3)\n"
    )
    env_vars = {"ONCE": str(tmp_path / "once")}
    pool = open_pool(
        None, "broken", paths=[tmp_path, Path(__file__).parent / "workload"], env_vars=env_vars, workers=(1, 3)
    )
    assert pool.warm() == 1
    futures = [pool.submit("deeds:sleep", 0.1) for _ in range(5)]
    assert [future.result(20) for future in futures] == [0.1] * 5
