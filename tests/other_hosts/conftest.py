"""A host that speaks the JSON frames, as short as can be: what hosts in other languages do is written down here."""

from __future__ import annotations

import json
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import venvoy_worker

MAIN_FILE = str(Path(venvoy_worker.__file__).with_name("__main__.py"))


class JsonHost:
    """A worker process and its frames."""

    def __init__(self, command: list[str], **options: Any) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, **{**pipes, **options})
        self.others: list[dict[str, Any]] = []  # frames that were not asked for

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, **message: Any) -> None:
        """Send a frame."""
        body = json.dumps(message).encode()
        self.write(struct.pack(">I", len(body)) + body)

    def receive(self, seconds: float = 20.0) -> dict[str, Any] | None:
        """Return the next frame, None at the end."""
        deadline = time.monotonic() + seconds
        head = self._read(4, deadline)
        if not head:
            return None
        frame: dict[str, Any] = json.loads(self._read(struct.unpack(">I", head)[0], deadline))
        return frame

    def _read(self, size: int, deadline: float) -> bytes:
        assert self.process.stdout is not None
        data = bytearray()
        while len(data) < size:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "no frame came"
            piece = os.read(self.process.stdout.fileno(), min(size - len(data), 1 << 20))
            if not piece:
                assert not data, f"the end came in the middle of a frame: {data!r}"
                break
            data += piece
        return bytes(data)

    def wait_for(self, **wanted: Any) -> dict[str, Any]:
        """Return the next frame with these fields; others go into `others`."""
        while True:
            frame = self.receive()
            assert frame is not None, f"the end came before {wanted}"
            if all(frame.get(name) == value for name, value in wanted.items()):
                return frame
            self.others.append(frame)

    def call(self, func: str, args: Any = None, call_id: str = "c") -> dict[str, Any]:
        """Run a call and return its `call_done`."""
        self.send(type="call", callID=call_id, func=func, args=args)
        return self.wait_for(type="call_done", callID=call_id)

    def define(self, code: str, **more: Any) -> dict[str, Any]:
        """Define code and return its `op_done`."""
        self.send(type="define", opID="d", code=code, **more)
        return self.wait_for(type="op_done", opID="d")

    def end(self, seconds: float = 5.0) -> tuple[int, str]:
        """Close stdin; return the exit status and what was on stderr."""
        _, errors = self.process.communicate(timeout=seconds)
        return self.process.returncode, errors.decode()


MakeHost = Callable[..., JsonHost]


@pytest.fixture
def interpreters(pytestconfig: pytest.Config) -> list[str]:
    """Every CPython of the machine that a worker may be, the oldest first."""
    plugins = pytestconfig.pluginmanager.get_plugins()
    return next(list(plugin.INTERPRETERS) for plugin in plugins if hasattr(plugin, "INTERPRETERS"))


@pytest.fixture
def make_host() -> Iterator[MakeHost]:
    """Start workers; `ready` is read unless `is_ready=False`."""
    made: list[JsonHost] = []

    def make(
        *arguments: str,
        python: str = sys.executable,
        command: list[str] | None = None,
        is_ready: bool = True,
        **options: Any,
    ) -> JsonHost:
        host = JsonHost(command or [python, "-I", MAIN_FILE, "--stdio-json", *arguments], **options)
        made.append(host)
        if is_ready:
            host.wait_for(type="ready")
        return host

    yield make
    for host in made:
        host.process.kill()
        host.process.wait()
        for stream in (host.process.stdin, host.process.stdout, host.process.stderr):
            if stream is not None:
                stream.close()
