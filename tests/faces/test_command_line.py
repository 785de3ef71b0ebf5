"""`venvoy` as a person at a terminal, or a program, meets it."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

VENVOY = [sys.executable, "-c", "from venvoy.cli import main; main()"]
SECTIONS = [
    "Two environments",
    "Both at once",
    "Warm calls",
    "A crash is",
    "A deadline holds",
    "Nothing is left running",
]


def venvoy(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line with its output piped."""
    environ = {**os.environ, "VENVOY_HOME": str(home)}
    return subprocess.run([*VENVOY, *arguments], env=environ, capture_output=True, text=True, timeout=80)


def test_the_demo_does_what_it_promises_in_plain_text(home: Path) -> None:
    """Two numpy versions side by side, an array from one to the other, a crash and a deadline, without escape codes."""
    done = venvoy("demo", home=home)
    assert done.returncode == 0, done.stderr
    for section in SECTIONS:
        assert section in done.stdout
    versions = re.findall(r"numpy (\d+\.\d+)", done.stdout)
    assert len(set(versions)) == 2
    assert "499,999,500,000" in done.stdout
    assert "WorkerCrashed" in done.stdout
    assert "SIGSEGV" in done.stdout
    assert "CallTimeout" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


def test_the_demo_shows_progress_on_a_terminal(home: Path) -> None:
    """With escape codes that move, and the same content."""
    reader, writer = pty.openpty()
    environ = {**os.environ, "VENVOY_HOME": str(home), "TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen([*VENVOY, "demo"], env=environ, stdout=writer, stdin=writer, stderr=writer) as process:
        os.close(writer)
        shown = read_all(reader)
    os.close(reader)
    assert process.returncode == 0, shown
    assert "\x1b[" in shown
    assert all(section in shown for section in SECTIONS)


def read_all(fd: int) -> str:
    """Read a terminal until whoever writes to it is gone."""
    data = b""
    while True:
        try:
            chunk = os.read(fd, 65536)
        except OSError:  # how a terminal says that it has ended
            return data.decode("utf-8", "replace")
        data += chunk


def test_a_failure_is_one_clear_line_and_status_1(tmp_path: Path) -> None:
    """No traceback: the message names what could not be done."""
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder should be")
    done = venvoy("demo", home=blocked)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(blocked) in done.stderr


@pytest.mark.parametrize("arguments", [["no-such-command"], ["demo", "--no-such-option"]])
def test_wrong_usage_is_status_2(arguments: list[str], home: Path) -> None:
    """As the platform's commands do."""
    done = venvoy(*arguments, home=home)
    assert done.returncode == 2
    assert arguments[-1] in done.stderr


def test_the_version_is_told(home: Path) -> None:
    """`venvoy --version` prints one line."""
    import venvoy as vv

    assert venvoy("--version", home=home).stdout == f"venvoy {vv.__version__}\n"
