"""`venvoy check`, `up`, `doctor` and `stubs`, as a person and a program meet them."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import venvoy as vv
from venvoy.cli import doctor
from venvoy.cli.doctor import PER_WORKER
from venvoy.stubs import stub

VENVOY = [sys.executable, "-c", "from venvoy.cli import main; main()"]
CONFIG = """
[pools.good]
module = "app_of_cli"
workers = 2
worker = { paths = ["."] }

[pools.bad]
python = "3.99"
"""
APP = '''
"""A module."""
import enum
import functools
import pathlib
from typing import Any, Callable, Dict, List, Literal, Optional, Tuple, Union

LIMIT = 3
globals()["not a name"] = 5
_hidden = 4


class Color(enum.Enum):
    """A colour."""

    RED = "red"


class Item:
    """An item; with "quotes"."""

    size: int = 0

    def __init__(self, name: str, *tags: str, size: int = 0) -> None:
        self.name = name

    @property
    def title(self) -> str:
        return self.name

    @classmethod
    def make(cls, name: str) -> "Item":
        return cls(name)

    @staticmethod
    def parse(text: str) -> List[int]:
        return []

    def _private(self) -> None: ...


def scan(folder: pathlib.Path, /, depth: int = 1, *, names: Optional[List[str]] = None) -> Dict[str, Item]:
    """Return the items of a folder."""
    return {}


def paint(item: Item, color: Union[Color, str] = Color.RED, *more, **rest): ...


async def wait(seconds: float) -> None: ...


def sort(
    items: List[int], key: Callable[[int], str], how: Literal["up", "down"], then: Callable[..., None], /
) -> Tuple[int, ...]:
    return tuple(items)


def ask(who: "NobodyHere") -> None: ...


class Empty: ...


def largest(*items): ...


largest.__signature__ = "as C code that does not say how it is called"


def say(text):
    print(text, flush=True)
    return len(text)
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration of a good and a bad pool."""
    (tmp_path / "venvoy.toml").write_text(CONFIG)
    (tmp_path / "app_of_cli.py").write_text(APP)
    return tmp_path


@pytest.fixture
def venvoy(folder: Path, home: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in that folder, with its output piped."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "VENVOY_HOME": str(home)}
        command = [*VENVOY, *arguments]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=80, cwd=folder)

    return run


# --- check --------------------------------------------------------------------------------------


def test_check_tries_every_pool(venvoy: Any) -> None:
    """A line for each, and status 1 if one cannot be used."""
    done = venvoy("check")
    assert done.returncode == 1
    good, bad = done.stdout.splitlines()[:2]
    assert good.startswith("good: ok, app_of_cli of Python 3")
    assert bad.startswith("bad: ")
    assert "3.99" in bad
    assert venvoy("check", "good").returncode == 0


def test_check_prints_json(venvoy: Any) -> None:
    """For programs, with the stable code of an error."""
    done = venvoy("check", "--json")
    found = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert (found["good"]["module"], found["good"]["error"]) == ("app_of_cli", "")
    assert found["bad"]["code"] == "interpreter_not_found"


def test_check_names_a_module_that_cannot_be_imported(venvoy: Any, folder: Path) -> None:
    """With the words of Python."""
    (folder / "app_of_cli.py").write_text("import no_such_module_anywhere\n")
    done = venvoy("check", "good")
    assert done.returncode == 1
    assert "no_such_module_anywhere" in done.stdout


def test_wrong_configurations_are_one_line(venvoy: Any, folder: Path) -> None:
    """File and key, without a traceback; the same for names that are not there."""
    done = venvoy("check", "none")
    assert done.returncode == 1
    assert "there is no pool 'none'; there are good, bad" in done.stderr
    (folder / "venvoy.toml").write_text("[pools.good]\nworkrs = 2\n")
    for command in (["check"], ["up"], ["stubs", "good"]):
        done = venvoy(*command)
        assert done.returncode == 1
        assert "pools.good.workrs: there is no such key; did you mean 'workers'?" in done.stderr
        assert "Traceback" not in done.stderr


# --- up -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_runs_until_it_is_told_to_end(folder: Path, home: Path, number: signal.Signals) -> None:
    """Plain lines in a pipe; nothing is left of it, and it has not failed."""
    environ = {**os.environ, "VENVOY_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*VENVOY, "up", "--refresh", "0.1"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        assert lines[0] == "good: open, workers 2 idle, crashes 0\n", lines[0] or process.stderr.read()
        assert lines[1].startswith("bad: failed: ")
        workers = psutil.Process(process.pid).children()
        assert len(workers) == 2
        workers[0].kill()
        reason = iter(process.stdout.readline, "good: open, workers 2 idle, crashes 0\n")  # in full, line by line
        assert any(re.fullmatch(r"good: open, workers .*, crashes 1\n", line) for line in reason)
        process.send_signal(number)
        assert process.wait(10) == 0
        assert "Traceback" not in process.stderr.read()
    assert not [worker for worker in workers if worker.is_running()]


def test_up_ends_if_nothing_can_be_started(venvoy: Any) -> None:
    """With the reason, and status 1."""
    done = venvoy("up", "bad")
    assert done.returncode == 1
    assert "bad: python: no CPython 3.99" in done.stderr
    assert venvoy("up", "--refresh", "0").returncode == 2


def test_up_draws_a_table_on_a_terminal(folder: Path, home: Path) -> None:
    """With a row for each pool, drawn anew, until Ctrl-C."""
    reader, writer = pty.openpty()
    environ = {**os.environ, "VENVOY_HOME": str(home), "TERM": "xterm", "COLUMNS": "160"}
    command = [*VENVOY, "up", "--refresh", "0.1"]
    with subprocess.Popen(command, env=environ, stdin=writer, stdout=writer, stderr=writer, cwd=folder) as process:
        os.close(writer)
        shown, deadline = b"", time.monotonic() + 30
        while shown.count(b"2 idle") < 3 and time.monotonic() < deadline:
            shown += os.read(reader, 65536)
        process.send_signal(signal.SIGINT)
        try:
            while data := os.read(reader, 65536):
                shown += data
        except OSError:  # how a terminal says that it has ended
            pass
        assert process.wait(10) == 0
    os.close(reader)
    for word in (b"calls/s", b"p99", b"good", b"bad", b"failed", b"bad: python: no CPython 3.99", b"stopped"):
        assert word in shown


# --- doctor -------------------------------------------------------------------------------------


def test_doctor_says_what_is_there(venvoy: Any, home: Path) -> None:
    """In lines and as JSON; status 0 on a machine where the tests run."""
    done = venvoy("doctor")
    assert done.returncode == 0, done.stdout
    for word in ("interpreters", "uv ", "home", "locks", "free space", "descriptors", "workers", "starts and answers"):
        assert word in done.stdout
    found = {entry["name"]: entry for entry in json.loads(venvoy("doctor", "--json").stdout)}
    assert str(home) in found["home"]["detail"]
    assert found["configuration"]["detail"].endswith("venvoy.toml: good, bad")
    assert {entry["status"] for entry in found.values()} <= {"ok", "warning"}


def test_doctor_names_what_will_not_work(tmp_path: Path) -> None:
    """A home that cannot be written, a limit that is too low, a configuration that is wrong; and goes on."""
    (tmp_path / "venvoy.toml").write_text("pools = 3")
    (tmp_path / "file").write_text("")
    command = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *VENVOY, "doctor", "--json", "--home", "file/home"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=80)
    assert done.returncode == 1
    found = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert found["home"]["status"] == "failure"
    assert "VENVOY_HOME" in found["home"]["detail"]
    assert found["descriptors"]["status"] == "warning"
    assert "64 for a process: 5 workers" in found["descriptors"]["detail"]
    assert found["configuration"]["status"] == "failure"


def test_doctor_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another machine than this: programs, extras, what a kernel or a file system may lack."""
    (tmp_path / "venvoy.toml").write_text("[pools.one]\n")
    monkeypatch.chdir(tmp_path)

    def no_pool(**_: object) -> None:
        raise vv.PoolError("no workers here")

    def refused(*_: object) -> None:
        raise OSError("not here")

    facts = {"f_blocks": 9, "f_bfree": 9, "f_bavail": 9, "f_frsize": 4096, "f_files": 9, "f_favail": 9}
    monkeypatch.setattr(doctor, "find_uv", lambda: None)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor.os, "statvfs", lambda _: SimpleNamespace(**facts, f_flag=os.ST_NOEXEC))
    monkeypatch.setattr(doctor, "interpreters", lambda home: 1 / 0)
    monkeypatch.setattr(doctor, "_most_processes", lambda: 50)
    monkeypatch.setattr("fcntl.flock", refused)
    for name in ("pidfd_open", "memfd_create"):
        monkeypatch.setattr(doctor.os, name, refused)
    monkeypatch.setattr(doctor.vv, "Pool", no_pool)
    found = {check.name: check for check in doctor.examine(str(tmp_path / "home"))}
    assert {name: check.status for name, check in found.items() if check.status != "ok"} == {
        "look": "failure",
        "uv": "warning",
        "locks": "failure",
        "free space": "warning",
        "mount": "failure",
        "processes": "warning",
        "kernel": "warning",
        "watch": "warning",
        "worker": "failure",
    }
    assert found["look"].detail.startswith("ZeroDivisionError")
    assert "no pidfd" in found["kernel"].detail
    assert "no memfd" in found["kernel"].detail
    assert "no workers here" in found["worker"].detail


def test_doctor_counts_the_descriptors_of_a_worker(home: Path) -> None:
    """The number it calculates with is the number there is."""

    def held(workers: int) -> int:
        options = vv.WorkerOptions(output="discard", grace_period=0.6)
        with vv.Pool(workers=workers, worker=options, home=home):
            return len(os.listdir("/proc/self/fd"))

    assert held(4) - held(1) == 3 * PER_WORKER


# --- stubs --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[0, -1], ids=["oldest", "newest"])
def texts(
    request: pytest.FixtureRequest, interpreters: list[str], home: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    """A stub and a protocol of the module above, made in the oldest and in the newest Python."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "app_of_cli.py").write_text(APP)
    options = vv.WorkerOptions(paths=[folder], output="discard", grace_period=0.6)
    with vv.Pool(interpreters[request.param], workers=1, worker=options, home=home) as pool:
        return stub(pool, "app_of_cli"), stub(pool, "app_of_cli", as_protocol=True)


def test_a_stub_says_what_the_module_says(texts: tuple[str, str]) -> None:
    """Names, parameters of each kind, defaults, annotations, classes; nothing private."""
    text = texts[0]
    ast.parse(text)
    for line in (
        "LIMIT: int",
        "class Color(enum.Enum):",
        "class Item:",
        "    size: int",
        "    def __init__(self, name: str, *tags: str, size: int = ...) -> None: ...",
        "    @property\n    def title(self) -> str: ...",
        "    @classmethod\n    def make(cls, name: str) -> Item: ...",
        "    @staticmethod\n    def parse(text: str) -> list[int]: ...",
        "def scan(folder: pathlib.Path, /, depth: int = ..., *, names: list[str] | None = ...) -> dict[str, Item]:",
        '    """Return the items of a folder."""',
        "def paint(item: Item, color: Color | str = ..., *more: typing.Any, **rest: typing.Any) -> typing.Any: ...",
        "async def wait(seconds: float) -> None: ...",
        "def sort(items: list[int], key: collections.abc.Callable[[int], str], how: typing.Literal['up', 'down'], "
        "then: collections.abc.Callable[..., None], /) -> tuple[int, ...]: ...",
        "def ask(who: typing.Any) -> None: ...",
        "class Empty:\n    ...",
        "def largest(*args: typing.Any, **kwargs: typing.Any) -> typing.Any: ...",
        "import pathlib\n",
    ):
        assert line in text
    assert "_private" not in text
    assert "_hidden" not in text
    assert "not a name" not in text


def test_a_protocol_can_be_bound(texts: tuple[str, str], home: Path, folder: Path) -> None:
    """What the second form says is what `pool.bind` takes."""
    space: dict[str, Any] = {}
    exec(texts[1], space)
    options = vv.WorkerOptions(paths=[folder], output="discard", grace_period=0.6)
    with vv.Pool(module="app_of_cli", workers=1, worker=options, home=home) as pool:
        bound = pool.bind(space["AppOfCli"])
        assert bound.say("four") == 4
        with pytest.raises(TypeError, match="say"):
            bound.say()


def test_stubs_pass_type_checkers(texts: tuple[str, str], tmp_path: Path) -> None:
    """In strict mode, though the module's own environment is another one."""
    pytest.importorskip("mypy", reason="mypy is not installed: extra `dev`")
    (tmp_path / "app_of_cli.pyi").write_text(texts[0])
    (tmp_path / "protocol.py").write_text(texts[1])
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "app_of_cli.pyi", "protocol.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=85)
    assert done.returncode == 0, done.stdout


def test_stubs_writes_a_file(venvoy: Any, folder: Path) -> None:
    """Or stdout; of the pool's module, or of another one."""
    assert venvoy("stubs", "good", "-o", "app.pyi").returncode == 0
    assert "class Item:" in (folder / "app.pyi").read_text()
    assert "def loads(" in venvoy("stubs", "good", "--module", "json").stdout
    done = venvoy("stubs", "good", "--module", "no_such_module_anywhere")
    assert done.returncode == 1
    assert "cannot be imported there: ModuleNotFoundError" in done.stderr
    assert venvoy("stubs", "good", "-o", "no/such/folder").returncode == 2
