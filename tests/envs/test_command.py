"""One external command: its words, its status, its end."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from venvoy.envs.command import run
from venvoy.envs.limit import Limit
from venvoy.errors import EnvBuildError


def sh(script: str, timeout: float = 10, **more: object) -> tuple[int, str]:
    """Run a shell script as a command."""
    limit = Limit(timeout)
    return run(["/bin/sh", "-c", script], env=dict(os.environ), cwd="/", limit=limit, doing="testing", **more)  # type: ignore[arg-type]


def test_both_streams_and_the_exit_status_are_returned() -> None:
    """Lines come in their order; a last one without an end counts."""
    lines: list[str] = []
    assert sh("echo one; echo two >&2; printf three; exit 7", on_line=lines.append) == (7, "one\ntwo\nthree")
    assert lines == ["one", "two", "three"]


def test_much_output_and_bytes_that_are_no_text_are_no_trouble() -> None:
    """Nothing blocks, nothing is lost."""
    status, output = sh("yes 0123456789 | head -n 100000; printf '\\377'")
    assert status == 0
    assert len(output.splitlines()) == 100001


def test_a_status_after_closed_streams_is_right() -> None:
    """The end of the output is not the end of the process."""
    assert sh("exec >&- 2>&-; sleep 0.2; exit 5") == (5, "")


def test_a_signal_is_a_negative_status() -> None:
    """As in subprocess."""
    assert sh("kill -TERM $$")[0] == -15


def test_standard_input_is_empty() -> None:
    """A command that asks something does not wait for an answer."""
    assert sh("cat; echo done") == (0, "done")


def test_what_a_command_leaves_behind_is_ended_with_it() -> None:
    """A server in the background neither holds the build up nor lives on."""
    begin = time.monotonic()
    status, output = sh("sleep 987 & echo $!")
    assert status == 0
    assert time.monotonic() - begin < 2
    assert not Path(f"/proc/{output.strip()}/exe").exists()


def test_a_daemon_that_holds_the_output_does_not_hold_the_build() -> None:
    """One in a session of its own is not ours to end, nor to wait for."""
    script = "import os, time; os.fork() or (os.setsid(), time.sleep(6), os._exit(0))"
    begin = time.monotonic()
    limit = Limit(20)
    status, _ = run([sys.executable, "-I", "-c", script], env={}, cwd="/", limit=limit, doing="testing")
    assert status == 0
    assert time.monotonic() - begin < 4


def test_no_descriptor_is_left() -> None:
    """Whether it went well, failed to start, or was given up."""
    before = os.listdir("/proc/self/fd")
    sh("true")
    with pytest.raises(EnvBuildError):
        sh("sleep 987", timeout=0.1)
    with pytest.raises(EnvBuildError, match="cannot be started"):
        run(["/bin/true"], env={}, cwd="/no/such", limit=Limit(1), doing="testing")
    assert os.listdir("/proc/self/fd") == before
