"""A debugger in a worker, as an editor uses one: by the Debug Adapter Protocol, on a port."""

from __future__ import annotations

import itertools
import json
import socket
from typing import Any

import pytest

import venvoy as vv

WAIT = 60.0


def listen() -> int:
    """Run in the worker: let it be debugged, and return the port."""
    import debugpy  # type: ignore[import-not-found,unused-ignore]

    return int(debugpy.listen(("127.0.0.1", 0))[1])


def work(count: int) -> int:
    total = 0
    for number in range(count):
        total += number
    return total


class Editor:
    """As much of an editor as sets a breakpoint and looks at variables."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT)
        self._file = self._socket.makefile("rwb")
        self._numbers = itertools.count(1)

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def send(self, command: str, **arguments: Any) -> None:
        request = {"seq": next(self._numbers), "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(request).encode()
        self._file.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._file.flush()

    def until(self, kind: str, name: str) -> dict[str, Any]:
        """Return the body of the next answer to a command, or of the next event, of this name."""
        while True:
            size = 0
            while header := self._file.readline().strip():
                size = int(header.partition(b":")[2])
            message = json.loads(self._file.read(size))
            if message["type"] == kind and message.get("command", message.get("event")) == name:
                assert message.get("success", True), message
                return dict(message.get("body") or {})

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        self.send(command, **arguments)
        return self.until("response", command)


def test_a_breakpoint_in_a_function_of_a_script_stops_its_call() -> None:
    """At the line it has in its file, for as long as one looks; then the call goes on as if nothing had been."""
    try:
        env = vv.build(vv.EnvSpec(packages=["debugpy"]))
    except vv.EnvBuildError:
        pytest.skip("debugpy cannot be had here")
    options = vv.WorkerOptions(output="discard")
    with vv.Pool(env, workers=1, worker=options) as pool, pool.lease() as worker:
        editor = Editor(worker.call(vv.by_source(listen)))
        try:
            editor.ask("initialize", adapterID="test")
            editor.send("attach", justMyCode=False)
            editor.until("event", "initialized")
            points = [{"line": work.__code__.co_firstlineno + 3, "condition": "number == 3"}]
            editor.ask("setBreakpoints", source={"path": __file__}, breakpoints=points)
            editor.ask("configurationDone")
            future = worker.submit(vv.by_source(work), 5)
            thread = editor.until("event", "stopped")["threadId"]
            frame = editor.ask("stackTrace", threadId=thread)["stackFrames"][0]
            assert (frame["name"], frame["line"], frame["source"]["path"]) == ("work", points[0]["line"], __file__)
            assert editor.ask("evaluate", expression="total, number", frameId=frame["id"])["result"] == "(3, 3)"
            assert not future.done()
            editor.ask("setBreakpoints", source={"path": __file__}, breakpoints=[])
            editor.ask("continue", threadId=thread)
            assert future.result(WAIT) == 10
        finally:
            editor.close()
