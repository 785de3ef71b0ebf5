"""Kinds of channels: pipes, named pipes, files, open files; each process sees its own, and each ends."""

from __future__ import annotations

import io
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.feed.conftest import PYTHON, number, numbers_of

from venvoy.feed import Swarm, SwarmError, fifo, file, handle, pipe


def test_each_process_sees_its_own_descriptors_only() -> None:
    """0, 1, 2, its channels, and the read end of one pipe that carries no data."""
    script = "import os, sys; print(len(os.listdir('/proc/self/fd')) - 1)"
    inputs = {"stdin": number, "one": number, "two": number}
    with Swarm(
        [sys.executable, "-S", "-c", script], 4, inputs, stdout="collect", check=False, on_exit="reroute"
    ) as swarm:
        pass
    assert [process.stdout for process in swarm.report.processes] == [b"6\n"] * 4


def test_every_channel_ends() -> None:
    """Side channels without an item too."""
    script = "import os, sys; print([len(open(int(os.environ[n])).read()) for n in 'ab'], len(sys.stdin.read()))"
    inputs = {"stdin": number, "a": number, "b": lambda item: None}
    with Swarm([*PYTHON, script], 2, inputs, stdout="lines") as swarm:
        assert sorted(line for _, line in swarm.lines([1])) == ["[0, 0] 0", "[2, 0] 2"]


def test_a_named_pipe_is_made_and_removed(folder: Path) -> None:
    """Its path is in the environment; the process may open it late."""
    inputs = {"stdin": number, "side": fifo("{id}.fifo", number)}
    with Swarm('sleep 0.1; cat "$side" > "$side.got" & cat; wait', 2, inputs, stdout="{id}.out", shell=True) as swarm:
        swarm.feed_many(range(50_000))
    for process in range(2):
        assert numbers_of(folder / f"{process}.out") == numbers_of(folder / f"{process}.fifo.got")
        assert not (folder / f"{process}.fifo").exists()
    assert len(numbers_of(folder / "0.out", folder / "1.out")) == 50_000


def test_a_named_pipe_that_nobody_opens_hangs_nothing(folder: Path) -> None:
    """Neither the end of the process, nor its start where the path is taken."""
    inputs = {"stdin": number, "side": fifo("side", number, required=False)}
    with Swarm(["cat"], 1, inputs, stdout="out") as swarm:
        swarm.feed_many(range(1000))
    assert len(numbers_of(folder / "out")) == 1000
    (folder / "side").write_text("mine")
    with pytest.raises(SwarmError, match="File exists"):
        Swarm(["cat"], 1, inputs).start()
    assert (folder / "side").read_text() == "mine"


def test_a_regular_file_gets_what_its_process_gets(folder: Path) -> None:
    """The process finds its path in the environment."""
    inputs = {"stdin": number, "copy": file("{id}.in", number)}
    with Swarm('echo "$copy"; cat', 2, inputs, stdout="{id}.out", shell=True) as swarm:
        swarm.feed_many(range(50_000))
    for process in range(2):
        path, _, rest = (folder / f"{process}.out").read_text().partition("\n")
        assert path == str(folder / f"{process}.in")
        assert rest == (folder / f"{process}.in").read_text()


@pytest.mark.parametrize("kind", ["file", "memory", "pipe", "socket"])
def test_an_open_file_gets_all_items(kind: str, folder: Path) -> None:
    """Each whole; what has a descriptor is never waited for in a way that stops the others."""
    got: list[bytes] = []
    ours: Any = open(folder / "copy", "wb") if kind == "file" else io.BytesIO()  # noqa: SIM115
    theirs: Any = None
    if kind == "pipe":
        reader, writer = os.pipe()
        ours, theirs = open(writer, "wb"), open(reader, "rb")  # noqa: SIM115
    if kind == "socket":
        pair = socket.socketpair()
        ours, theirs = pair[0].makefile("wb"), pair[1].makefile("rb")
        for one in pair:
            one.close()
    thread = threading.Thread(target=lambda: got.append(theirs.read()) if theirs else None, daemon=True)
    thread.start()
    with Swarm(["cat"], 2, {"stdin": number, "copy": handle(ours, number)}, stdout="discard") as swarm:
        swarm.feed_many(range(50_000))
    data = ours.getvalue() if kind == "memory" else b""
    ours.close()
    thread.join()
    data = (folder / "copy").read_bytes() if kind == "file" else data or b"".join(got)
    assert sorted(map(int, data.split())) == list(range(50_000))
    if theirs:
        theirs.close()


def test_a_process_is_let_go_only_when_an_open_file_has_got_its_items() -> None:
    """Its reader is slower than the process, which would have left long before."""
    got: list[bytes] = []
    reader, writer = os.pipe()

    def read_slowly() -> None:
        while data := os.read(reader, 16 << 10):
            got.append(data)
            time.sleep(0.01)

    thread = threading.Thread(target=read_slowly, daemon=True)
    thread.start()
    ours = open(writer, "wb")  # noqa: SIM115
    with ours, Swarm(["cat"], 2, {"stdin": number, "copy": handle(ours, number)}, stdout="discard") as swarm:
        swarm.feed_many(range(100_000))
    thread.join()
    os.close(reader)
    assert sorted(map(int, b"".join(got).split())) == list(range(100_000))


def test_a_channel_may_have_another_name_in_the_environment() -> None:
    """`env_name=` says which, where the channel's name is taken."""
    inputs = {"stdin": number, "PATH": pipe(number, env_name="paths")}
    with Swarm('cat "/dev/fd/$paths"', 1, inputs, stdout="collect", shell=True, check=False) as swarm:
        swarm.feed(5)
    assert swarm.report.processes[0].stdout == b"5\n"
