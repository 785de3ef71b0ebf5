"""What the tests of the worker share: pools on every interpreter, hosts in processes of their own, patience."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
from tests.conftest import INTERPRETERS, version_of

import venvoy as vv
import venvoy_worker
from venvoy_worker.contract import codec, frames, messages
from venvoy_worker.contract.channel import Channel

WORKLOAD = Path(__file__).parent / "workload"
ENDS = sorted({INTERPRETERS[0], INTERPRETERS[-1]}, key=INTERPRETERS.index)


@pytest.fixture(params=ENDS, ids=version_of)
def extreme(request: pytest.FixtureRequest) -> str:
    """The oldest and the newest CPython found on the machine."""
    return str(request.param)


@pytest.fixture
def workload() -> Path:
    """The folder of modules that the tests run in workers."""
    return WORKLOAD


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait until a condition holds; fail when it does not within some seconds."""
    return _until


def _until(condition: Callable[[], object], seconds: float = 5.0, what: str = "") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what or condition}"
        time.sleep(0.01)


def _is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def gone() -> Callable[..., None]:
    """Wait until none of some processes lives; fail, and kill them, when one does after some seconds."""

    def wait(*pids: int, seconds: float = 2.0) -> None:
        deadline = time.monotonic() + seconds
        while any(map(_is_alive, pids)) and time.monotonic() < deadline:
            time.sleep(0.01)
        alive = [pid for pid in pids if _is_alive(pid)]
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
        assert not alive, f"alive after {seconds:g} s: {alive}"

    return wait


@pytest.fixture
def open_pool(home: Path, patience: float) -> Iterator[Callable[..., vv.Pool]]:
    """Make pools that can import the workload, print nothing here, and are closed at the end of the test."""
    pools: list[vv.Pool] = []

    def make(env: Any = None, module: str | None = None, *, workers: Any = 1, **options: Any) -> vv.Pool:
        options = {"paths": [WORKLOAD], "output": "discard", **options}
        pools.append(vv.Pool(env, module, workers=workers, worker=vv.WorkerOptions(**options)))
        return pools[-1]

    yield make
    while pools:  # emptied, since pytest keeps this fixture until its checks are done
        pools.pop().close(patience)


class Host:
    """A host in a process (and session) of its own, which runs a script.

    Args:
        script: its text; `WORKLOAD` is the folder of the workload there.
        folder: where the script is written.
        clean: run it without the PYTHON* variables of this process.
    """

    def __init__(self, script: str, folder: Path, clean: bool = True) -> None:
        path = folder / "host.py"
        path.write_text(f"WORKLOAD = {str(WORKLOAD)!r}\n" + textwrap.dedent(script), encoding="utf-8")
        kept = ("PYTHONPATH",)
        environ = {k: v for k, v in os.environ.items() if not (clean and k.startswith("PYTHON") and k not in kept)}
        self.process = subprocess.Popen(
            [sys.executable, str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
            start_new_session=True,
        )

    def line(self) -> str:
        """Return the next line it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the host ended: {self.rest()}"
        return line.strip()

    def pids(self) -> list[int]:
        """Return the numbers in the next line it prints."""
        return [int(word) for word in self.line().split()]

    def interrupt(self) -> None:
        """Send SIGINT to its process group, as a terminal does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def rest(self, seconds: float = 20.0) -> tuple[int, str, str]:
        """Wait for its end; return its exit status and what it printed."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err

    def end(self) -> None:
        """Make sure that it is gone."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def start_host(home: Path, tmp_path: Path) -> Iterator[Callable[..., Host]]:
    """Start hosts that are gone at the end of the test."""
    hosts: list[Host] = []

    def start(script: str, **options: Any) -> Host:
        folder = tmp_path / f"host{len(hosts)}"
        folder.mkdir()
        hosts.append(Host(script, folder, **options))
        return hosts[-1]

    yield start
    for host in hosts:
        host.end()


MAIN_FILE = Path(venvoy_worker.__file__).with_name("__main__.py")


class Wire:
    """A worker process that is spoken to by hand.

    Args:
        python: the interpreter it runs on.
        pycache: where its byte code goes.
    """

    settings: ClassVar[dict[str, Any]] = {
        "is_home": False,
        "classes": [],
        "host_version": "3.11.0",
        "sys_path": None,
        "paths": [],
        "preload": [],
        "segments": (None, 0, False),
        "attributes_output": False,
        "module": "",
        "sources_folder": "",
        "sources": [],
        "initializer": None,
    }

    def __init__(self, python: str, pycache: Path) -> None:
        call, call_child = socket.socketpair()
        control, control_child = socket.socketpair()
        lifeline_child, self.lifeline = os.pipe()
        page = os.memfd_create("page")
        os.truncate(page, 4096)
        fds = [call_child.fileno(), control_child.fileno(), lifeline_child, page]
        self.process = subprocess.Popen(
            [python, "-I", str(MAIN_FILE), str(pycache), *map(str, fds)],
            pass_fds=fds,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for end in (call_child, control_child):
            end.close()
        os.close(lifeline_child)
        os.close(page)
        self.call, self.control = Channel(call), Channel(control)

    def hello(self, greeting: bytes, settings: object = None) -> None:
        """Send HELLO."""
        body, buffers = codec.encode(self.settings if settings is None else settings)
        self.call.send(frames.pack(messages.HELLO, codec=codec.PICKLE, target=greeting, body=body, buffers=buffers))

    def start(self) -> None:
        """Greet it and wait until it is ready."""
        self.hello(messages.greeting(frames.OLDEST_PROTOCOL, frames.PROTOCOL_VERSION, ()))
        assert self.receive().opcode == messages.READY

    def send_call(self, number: int, target: str, *args: object) -> None:
        """Send CALL for a target by name."""
        body, buffers = codec.encode_call(args, {})
        self.call.send(
            frames.pack(
                messages.CALL, codec=codec.PICKLE, call_id=number, target=target.encode(), body=body, buffers=buffers
            )
        )

    def say(self, opcode: int, number: int = 0, body: bytes = b"") -> None:
        """Send a frame on the control socket, and wait until it has been read."""
        self.control.send(frames.pack(opcode, call_id=number, body=[body]) + frames.pack(messages.PING))
        pong = self.control.receive(time.monotonic() + 20)
        assert pong is not None
        assert pong.opcode == messages.PONG

    def receive(self) -> Any:
        """Return the next frame of the call channel, within some seconds."""
        return self.call.receive(time.monotonic() + 20)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.call.close()
        self.control.close()
        os.close(self.lifeline)


@pytest.fixture
def wire(home: Path) -> Iterator[Callable[[str], Wire]]:
    """Start workers that are spoken to by hand."""
    wires: list[Wire] = []

    def start(python: str) -> Wire:
        wires.append(Wire(python, home / "pycache"))
        return wires[-1]

    yield start
    for one in wires:
        one.close()
