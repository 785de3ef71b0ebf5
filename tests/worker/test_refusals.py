"""What a worker refuses to serve, and how clearly it says so: old Pythons, other protocols, text it cannot parse."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import INTERPRETERS

import venvoy as vv
import venvoy_worker
from venvoy_worker.contract import codec, frames, messages

MAIN_FILE = Path(venvoy_worker.__file__).with_name("__main__.py")


def old_pythons() -> list[str]:
    """Return the Pythons of this machine that are too old, one of each version."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    names = ("python2.7", "python3.5", "python3.6", "python3.7")
    found = [next(iter(root.glob(f"{name.removeprefix('python')}.*/bin/{name}")), shutil.which(name)) for name in names]
    return [str(path) for path in found if path]


OLD = old_pythons()


@pytest.mark.parametrize("python", OLD, ids=lambda path: Path(path).name)
def test_pythons_before_3_8_are_refused_in_plain_words(python: str) -> None:
    """The start file is readable for every Python, and says which version it wants and which it met."""
    done = subprocess.run(
        [python, str(MAIN_FILE), "/nowhere", "3", "4", "5", "6"], capture_output=True, text=True, timeout=20
    )
    version = re.search(r"\d\.\d+", Path(python).name)
    assert done.returncode == 3
    assert version
    assert "CPython 3.8 or later" in done.stderr
    assert f"is {version[0]}." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("python", OLD, ids=lambda path: Path(path).name)
def test_a_pool_of_an_old_python_raises_one_clear_error(python: str, open_pool: Callable[..., vv.Pool]) -> None:
    """The error names the interpreter, its version and the least version."""
    with pytest.raises(vv.VenvoyError, match=r"3\.8") as caught:
        open_pool(python).warm()
    assert python in str(caught.value)


def test_a_worker_greets_with_its_facts(interpreter: str, wire: Callable[[str], Any]) -> None:
    """READY carries the worker's protocol versions, its pid, and which Python it is."""
    worker = wire(interpreter)
    worker.hello(messages.greeting(1, 1, ()))
    frame = worker.receive()
    facts: Any = codec.decode(frame.body, frame.buffers)
    assert frame.opcode == messages.READY
    assert messages.read_greeting(frame.target)[:2] == (frames.OLDEST_PROTOCOL, frames.PROTOCOL_VERSION)
    assert facts["pid"] == worker.process.pid
    assert facts["implementation"] == "cpython"
    assert [int(part) for part in facts["version"].split(".")[:2]] >= [3, 8]


@pytest.mark.parametrize(("oldest", "newest"), [(90, 99), (0, 0)])
def test_a_host_of_another_protocol_is_refused(
    extreme: str, oldest: int, newest: int, wire: Callable[[str], Any]
) -> None:
    """The refusal is an ERROR frame that names the versions of both sides, and the worker ends by itself."""
    worker = wire(extreme)
    worker.hello(messages.greeting(oldest, newest, ()))
    frame = worker.receive()
    report: Any = codec.decode(frame.body, frame.buffers)
    assert (frame.opcode, frame.call_id) == (messages.ERROR, 0)
    assert report["code"] == "protocol_error"
    assert re.search(rf"protocol {oldest} to {newest}\b.*\b{frames.PROTOCOL_VERSION}\b", report["message"])
    assert worker.process.wait(10) == 0
    assert worker.receive() is None


@pytest.mark.parametrize("oldest", [0, 1])
def test_a_newer_host_that_still_speaks_our_protocol_is_served(
    extreme: str, oldest: int, wire: Callable[[str], Any]
) -> None:
    """Overlapping ranges of versions are enough; capabilities that are not known here are passed over."""
    worker = wire(extreme)
    worker.hello(messages.greeting(oldest, 99, ("signals", "telepathy")), {**worker.settings, "a new setting": 1})
    assert worker.receive().opcode == messages.READY


@pytest.mark.parametrize(
    "data", [b"\x00" * 64, b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n" + b" " * 30, b"\xff" * 64]
)
def test_bytes_that_are_no_frames_end_the_worker(extreme: str, data: bytes, wire: Callable[[str], Any]) -> None:
    """A worker that is spoken to in another language leaves, with an error, within seconds."""
    worker = wire(extreme)
    worker.call.sock.sendall(data)
    assert worker.process.wait(10) != 0


@pytest.mark.parametrize("target", [b"", b"1", b"one two three", b"\xff\xff"])
def test_a_greeting_that_is_none_is_refused_with_an_error(
    extreme: str, target: bytes, wire: Callable[[str], Any]
) -> None:
    """HELLO with a nonsensical target gets an ERROR frame, and the worker ends."""
    worker = wire(extreme)
    worker.hello(target)
    assert worker.receive().opcode == messages.ERROR
    worker.process.wait(10)


def test_a_worker_ends_when_its_host_leaves_without_a_greeting(interpreter: str, wire: Callable[[str], Any]) -> None:
    """End-of-file in the place of HELLO is an end, not an error."""
    worker = wire(interpreter)
    worker.call.shut_writing()
    assert worker.process.wait(10) == 0


MATCH = """
def newer(value):
    match value:
        case 1:
            return "one"
    return "other"
"""
OLDEST = [path for path in INTERPRETERS[:1] if path != sys.executable and sys.version_info >= (3, 10)]


@pytest.mark.parametrize("old", OLDEST, ids=lambda path: Path(path).name)
def test_source_that_the_worker_cannot_parse_is_an_error_naming_both_versions(
    old: str, open_pool: Callable[..., vv.Pool], tmp_path: Path
) -> None:
    """A function with newer syntax is refused in words, for that call alone; the same worker goes on."""
    path = tmp_path / "newer.py"
    path.write_text(MATCH)
    scope: dict[str, Any] = {"__name__": "newer_than_the_worker", "__file__": str(path)}
    exec(compile(MATCH, str(path), "exec"), scope)
    pool = open_pool(old)
    version, pid = pool.eval("__import__('sys').version.split()[0]"), pool.call("os:getpid")
    for _ in range(2):
        with pytest.raises(vv.EncodingError) as caught:
            pool.call(vv.by_source(scope["newer"]), 1)
        assert version in str(caught.value)
        assert sys.version.split()[0] in str(caught.value)
    assert pool.call("os:getpid") == pid


@pytest.mark.parametrize("old", OLDEST, ids=lambda path: Path(path).name)
def test_an_initializer_that_the_worker_cannot_parse_is_a_start_error(
    old: str, open_pool: Callable[..., vv.Pool], tmp_path: Path
) -> None:
    """The start error says the same as a call's would."""
    path = tmp_path / "newer.py"
    path.write_text(MATCH)
    scope: dict[str, Any] = {"__name__": "newer_than_the_worker", "__file__": str(path)}
    exec(compile(MATCH, str(path), "exec"), scope)
    with pytest.raises(vv.WorkerStartError, match="does not parse") as caught:
        open_pool(old, initializer=vv.by_source(scope["newer"]), initializer_args=[1]).warm()
    assert sys.version.split()[0] in str(caught.value)
