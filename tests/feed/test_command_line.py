"""`venvoy feed` as a person, or a script, meets it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tests.feed.conftest import numbers_of

VENVOY = [sys.executable, "-c", "from venvoy.cli import main; main()", "feed"]
NUMBERS = "".join(f"{n}\n" for n in range(20_000))


def feed(*arguments: str, given: str = NUMBERS) -> subprocess.CompletedProcess[str]:
    """Run the command line with its streams piped."""
    return subprocess.run([*VENVOY, *arguments], input=given, capture_output=True, text=True, timeout=60)


def test_lines_of_standard_input_are_split(folder: Path) -> None:
    """Each goes to one process, with a side channel where asked."""
    done = feed("-n", "3", "--out", "{id}.out", "--side", "sq=int(item) ** 2", "--", "sh", "-c", "cat; cat /dev/fd/$sq")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
    found = []
    for process in range(3):
        got = numbers_of(folder / f"{process}.out")
        half = len(got) // 2
        assert [n * n for n in got[:half]] == got[half:]
        found += got[:half]
    assert sorted(found) == list(range(20_000))


def test_other_ways_to_split(folder: Path) -> None:
    """NUL, blocks of whole lines, JSON records by a key; from files."""
    done = feed("--null", "--", "cat", given="a\0b\nb\0c")
    assert done.stdout == "[0] a\0b\n[0] b\0c\n"
    done = feed("-n", "2", "--block", "4K", "--out", "{id}.out", "--", "cat")
    assert sorted(numbers_of(folder / "0.out", folder / "1.out")) == list(range(20_000))
    (folder / "in").write_text("".join(json.dumps({"k": n % 7, "n": n}) + "\n" for n in range(1000)))
    done = feed("-n", "2", "--records", "jsonl", "--key", "item['k']", "--in", "in", "--out", "{id}.out", "--", "cat")
    keys = [{json.loads(line)["k"] for line in (folder / f"{n}.out").read_text().splitlines()} for n in range(2)]
    assert done.returncode == 0
    assert keys[0] | keys[1] == set(range(7))
    assert not keys[0] & keys[1]


def test_the_status_is_that_of_the_worst_process() -> None:
    """128 and the signal for one that was killed; 1 where none could be started; 2 for wrong usage."""
    done = feed("-n", "2", "--template", "--", "sh", "-c", "cat >/dev/null; exit 3{id}")
    assert done.returncode == 31
    assert "exited with status" in done.stderr
    assert "Traceback" not in done.stderr
    assert feed("--", "sh", "-c", "cat >/dev/null; kill -9 $$").returncode == 128 + 9
    done = feed("--", "no-such-command")
    assert done.returncode == 1
    assert "command not found" in done.stderr
    for wrong in (["--block", "1X"], ["--lines", "--null"], ["--side", "x"], ["--key", "(("], ["--side", "x=1 / 0"]):
        done = feed(*wrong, "--", "cat")
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
    done = feed("--in", "no-such-file", "--", "cat")
    assert done.returncode == 1
    assert "no-such-file" in done.stderr


def test_progress_is_shown_on_a_terminal(tmp_path: Path) -> None:
    """Items and megabytes a second, and a bar for each process."""
    reader, writer = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    command = [*VENVOY, "-n", "2", "--out", "discard", "--", "sh", "-c", "cat; sleep 0.5"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=writer, env=environ) as process:
        os.close(writer)
        assert process.stdin
        process.stdin.write(NUMBERS.encode())
        process.stdin.close()
        shown = b""
        while True:
            try:
                shown += os.read(reader, 65536)
            except OSError:  # how a terminal says that it has ended
                break
    os.close(reader)
    assert process.returncode == 0
    for word in (b"items/s", b"MB/s", b"20,000 items", b"process 0", b"process 1"):
        assert word in shown


def test_detached_it_goes_on_by_itself(folder: Path, until: Callable[..., None]) -> None:
    """With its process id and its outputs in files."""
    (folder / "in").write_text(NUMBERS)
    done = feed("--detach", "--log", "log", "--pid-file", "pid", "--in", "in", "--", "sh", "-c", "sleep 0.2; wc -l")
    assert done.returncode == 0, done.stderr
    pid = int((folder / "pid").read_text())
    assert str(pid) in done.stdout
    until(lambda: (folder / "log").read_text() == "[0] 20000\n")
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    assert feed("--detach", "--block", "x", "--", "cat").returncode == 2


def test_ctrl_c_ends_it_with_its_processes(until: Callable[..., None]) -> None:
    """Status 130, no traceback, nothing left."""
    with subprocess.Popen(
        [*VENVOY, "-n", "2", "--", "sleep", "100"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        host = psutil.Process(process.pid)
        until(lambda: len(host.children()) == 2)
        children = host.children()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err == b""
    assert not any(child.is_running() for child in children)


@pytest.mark.parametrize("arguments", [["--help"], []])
def test_help_names_the_options(arguments: list[str]) -> None:
    """And without a command it is asked for."""
    done = feed(*arguments)
    assert done.returncode == (0 if arguments else 2)
    assert "COMMAND" in (done.stdout + done.stderr).upper()
