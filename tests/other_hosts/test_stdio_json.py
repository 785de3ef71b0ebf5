"""The worker on stdin and stdout, as hosts in other languages use it."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MakeHost = Callable[..., Any]

WORK = """
import asyncio, logging, os, subprocess, sys, threading, time, venvoy_worker

def double(args): return args * 2
def fail(args): raise ValueError("no %s" % args)  # on purpose
def leave(args): sys.exit(args)
def nap(args): time.sleep(args); return args
async def nap_async(args): await asyncio.sleep(args); return args
def spin(args):
    while not venvoy_worker.is_cancelled(): pass
    raise venvoy_worker.Cancelled("seen")
def spin_for_ever(args):
    while True: pass
def noise(args):
    print("printed"); sys.stdout.write("no newline"); os.write(1, b"raw\\n"); os.write(2, b"to 2\\n")
    subprocess.run(["echo", "from a child"]); subprocess.run(["cat"])
    os.system("echo flood; head -c 300000 /dev/zero | tr '\\\\0' x")
    return input("?") if args else "quiet"
def fork(args):
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
    return "parent" if pid else "child"
def log(args): logging.getLogger("shop").warning("sold %s", args)
def values(args): return eval(args)
barrier = threading.Barrier(4, timeout=20)
def meet(args): barrier.wait(); return args
"""


@pytest.fixture
def host(make_host: MakeHost) -> Any:
    """A worker of the running Python with the functions above."""
    host = make_host("--max-workers", "4")
    assert host.define(WORK, filename="work.py") == {"type": "op_done", "opID": "d", "ok": True}
    return host


def test_definitions_and_calls_on_every_python(make_host: MakeHost, interpreters: list[str]) -> None:
    """`ready` says who it is; a call gets the args value as its one argument; the end is clean."""
    for python in interpreters:
        host = make_host(python=python, is_ready=False)
        ready = host.receive()
        version = subprocess.run([python, "-c", "import sys; print(sys.version.split()[0])"], capture_output=True)
        expected = {"type": "ready", "protocolVersion": 1, "pythonVersion": version.stdout.decode().strip()}
        assert ready == {**expected, "pid": host.process.pid, "maxWorkers": 4}
        assert host.define(WORK)["ok"] is True
        assert host.call("double", [1, "ä"]) == {
            "type": "call_done", "callID": "c", "ok": True, "result": [1, "ä", 1, "ä"],
        }  # fmt: skip
        assert host.call("math:sqrt", 16)["result"] == 4.0
        assert host.call("nap_async", 0.01)["result"] == 0.01
        host.send(type="ping")
        assert host.receive() == {"type": "pong"}
        assert host.end() == (0, "")


def test_an_error_is_told_with_its_class_and_traceback(host: Any) -> None:
    """Of calls and of definitions; the worker goes on."""
    answer = host.call("fail", "bread")
    assert (answer["ok"], answer["errorType"], answer["errorMessage"]) == (False, "ValueError", "no bread")
    assert 'File "work.py", line 5, in fail\n' in answer["traceback"]
    assert 'raise ValueError("no %s" % args)  # on purpose' in answer["traceback"]
    assert "venvoy_worker" not in answer["traceback"]
    answer = host.call("leave", 3)
    assert (answer["errorType"], answer["errorMessage"]) == ("SystemExit", "3")
    answer = host.call("doubel", 3)
    assert answer["errorType"] == "TargetNotFound"
    assert "did you mean 'double'" in answer["errorMessage"]
    for code, kind in [
        ("x = = 1", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; sys.exit(1)", "SystemExit"),
    ]:
        answer = host.define(code)
        assert (answer["ok"], answer["errorType"]) == (False, kind)
        assert answer["errorMessage"]
    assert host.call("double", 2)["result"] == 4


def test_a_definition_that_fails_leaves_no_name(host: Any) -> None:
    """And those before it stay."""
    host.define("half = 1\n1 / 0")
    assert host.call("half")["errorType"] == "TargetNotFound"
    assert host.call("double", 2)["result"] == 4


def test_calls_run_at_once_and_their_answers_carry_their_ids(host: Any) -> None:
    """As many as there are threads; the others wait."""
    for number in range(4):
        host.send(type="call", callID=f"m{number}", func="meet", args=number)
    answers = [host.receive() for _ in range(4)]
    assert {answer["callID"]: answer["result"] for answer in answers} == {f"m{number}": number for number in range(4)}
    for number in range(200):
        host.send(type="call", callID=f"d{number}", func="double", args=number)
    answers = [host.receive() for _ in range(200)]
    assert {answer["callID"]: answer["result"] for answer in answers} == {f"d{n}": 2 * n for n in range(200)}


def test_a_call_after_a_definition_sees_it(host: Any) -> None:
    """Even when both are sent without waiting."""
    host.send(type="define", opID="slow", code="import time\ntime.sleep(0.3)\ndef late(args): return 'there'")
    host.send(type="call", callID="l", func="late", args=None)
    host.send(type="ping")
    assert [host.receive()["type"] for _ in range(3)] == ["pong", "op_done", "call_done"]


def test_what_user_code_prints_never_touches_the_frames(host: Any) -> None:
    """Nor do its children, who find an empty stdin; all of it is on stderr."""
    errors: list[bytes] = []
    reader = threading.Thread(target=lambda: errors.append(host.process.stderr.read()))
    reader.start()
    for _ in range(5):
        assert host.call("noise")["result"] == "quiet"
    assert host.call("noise", True)["errorType"] == "EOFError"
    assert host.others == []
    host.process.stdin.close()
    assert host.process.wait(5) == 0
    reader.join()
    assert errors[0].count(b"from a child") == 6
    assert all(text in errors[0] for text in (b"printed", b"no newline", b"raw", b"to 2", b"x" * 300_000))


def test_output_comes_as_frames_for_those_who_want_it(make_host: MakeHost) -> None:
    """Each with its stream; letters are not cut in two."""
    host = make_host("--output-frames")
    host.define("import sys\ndef say(args): print(args); print('oops', file=sys.stderr); return 1")
    host.send(type="call", callID="c", func="say", args="ä" * 50_000)
    texts = {"stdout": "", "stderr": ""}
    is_done = False
    while not is_done or len(texts["stdout"]) < 50_001 or not texts["stderr"]:
        frame = host.receive()
        if frame["type"] == "output":
            texts[frame["stream"]] += frame["text"]
        else:
            assert frame == {"type": "call_done", "callID": "c", "ok": True, "result": 1}
            is_done = True
    assert texts == {"stdout": "ä" * 50_000 + "\n", "stderr": "oops\n"}
    assert host.end() == (0, "")


def test_a_process_that_user_code_forked_answers_nothing(host: Any) -> None:
    """Though it comes out of its call as its parent does."""
    assert host.call("fork")["result"] == "parent"
    host.send(type="ping")
    assert host.receive() == {"type": "pong"}


def test_logging_comes_as_frames(host: Any) -> None:
    """With the call it belongs to."""
    host.call("log", 5)
    record = host.others[0]
    assert (record["type"], record["callID"], record["name"], record["level"]) == ("log", "c", "shop", 30)
    assert record["message"] == "sold 5"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ("(1, [2.5, None], {'a': True})", [1, [2.5, None], {"a": True}]),
        ("b'\\x00'", {"__bytes__": True, "b64": "AA=="}),
        ("__import__('decimal').Decimal('1.50')", "1.50"),
        ("__import__('datetime').date(2026, 1, 2)", "2026-01-02"),
        ("__import__('uuid').UUID(int=1)", "00000000-0000-0000-0000-000000000001"),
        ("__import__('pathlib').Path('/a')", "/a"),
        ("{1: 'x', None: 'y'}", {"1": "x", "null": "y"}),
        ("10**40", 10**40),
    ],
)
def test_values_go_by_the_table_of_plain(host: Any, value: str, plain: object) -> None:
    """As `options(returns="plain")` in Python hosts."""
    assert host.call("values", value)["result"] == plain


@pytest.mark.parametrize(
    "value", ["float('nan')", "[1, float('-inf')]", "lambda: 1", "object()", "{(1, 2): 3}", "open('/dev/null')", "1j"]
)
def test_what_json_cannot_hold_is_the_error_of_that_call(host: Any, value: str) -> None:
    """With the place of it."""
    answer = host.call("values", value)
    assert answer["errorType"] == "EncodingError"
    assert "result" in answer["errorMessage"]
    assert host.call("double", 2)["result"] == 4


# --- cancelling, progress ---------------------------------------------------------------------------------------------


def test_a_call_can_be_cancelled(host: Any) -> None:
    """A coroutine is; a function sees it by `is_cancelled()`; one that waits never begins; unknown ids mean nothing."""
    host.send(type="call", callID="s", func="nap_async", args=60)
    host.send(type="cancel", callID="s")
    assert host.wait_for(callID="s")["errorType"] == "CallCancelled"
    for number in range(5):
        host.send(type="call", callID=f"p{number}", func="spin", args=None)
    host.send(type="cancel", callID="p4")
    host.send(type="cancel", callID="nobody")
    host.send(type="ping")
    assert host.receive() == {"type": "pong"}
    for number in range(4):
        host.send(type="cancel", callID=f"p{number}")
    answers = {answer["callID"]: answer for answer in (host.receive() for _ in range(5))}
    assert {answer["errorType"] for answer in answers.values()} == {"CallCancelled"}
    assert "before it began" in answers["p4"]["errorMessage"]
    assert host.call("double", 2)["result"] == 4


def test_progress_comes_as_frames_and_the_last_is_never_left_out(host: Any) -> None:
    """Before the answer; what comes too often is."""
    loop = "for n in range(5000): venvoy_worker.progress(n + 1, 5000, 'row')"
    host.define(f"import venvoy_worker\ndef work(args):\n    {loop}")
    assert host.call("work")["ok"] is True
    first, *_, last = host.others
    assert first == {"type": "progress", "callID": "c", "done": 1, "total": 5000, "message": "row"}
    assert last["done"] == 5000
    assert len(host.others) < 500
    host.define("def wrong(args):\n    for n in range(3): venvoy_worker.progress(n, float('nan') if n == 2 else 3)")
    assert host.call("wrong")["errorType"] == "ValueError"
    host.define("def ask(args): return venvoy_worker.host('f')(1)")
    assert host.call("ask")["errorType"] == "RuntimeError"


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("func", ["nap", "spin_for_ever", "nap_async"])
def test_the_end_of_stdin_ends_the_process_in_the_middle_of_calls(host: Any, func: str) -> None:
    """At once."""
    host.send(type="call", callID="n", func=func, args=60)
    host.send(type="ping")
    assert host.receive() == {"type": "pong"}
    began = time.monotonic()
    host.process.stdin.close()
    assert host.process.wait(10) == 0
    assert time.monotonic() - began < 2


def test_ctrl_c_in_the_hosts_terminal_is_the_hosts_affair(host: Any) -> None:
    """The whole group gets the signal; the worker ends when its host does."""
    host.send(type="call", callID="n", func="nap", args=0.5)
    os.kill(host.process.pid, signal.SIGINT)
    assert host.wait_for(callID="n")["result"] == 0.5
    assert host.end()[0] == 0


def test_a_host_that_stops_reading_ends_it(make_host: MakeHost) -> None:
    """A frame that nobody can get is no reason to stay."""
    host = make_host()
    host.process.stdout.close()
    host.send(type="ping")
    assert host.process.wait(10) == 1


# --- hostile input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"type": "ping", "x": NaN}', "not JSON"),
        (b"[1]", "is a JSON object, not a list"),
        (b"null", "is a JSON object"),
        (b"{}", "unknown type None"),
        (b'{"type": ["ping"]}', "unknown type"),
        (b'{"type": "exec"}', "unknown type 'exec'"),
        (b'{"type": "call", "callID": "a", "func": "f"}', "'args' is missing"),
        (b'{"type": "call", "func": "f", "args": 1}', "'callID' is missing"),
        (b'{"type": "call", "callID": 5, "func": "f", "args": 1}', "'callID' is a int"),
        (b'{"type": "define", "opID": "x"}', "'code' is missing"),
        (b'{"type": "define", "opID": "x", "code": null}', "'code' is a NoneType"),
        (b'{"type": "cancel"}', "'callID' is missing"),
    ],
)
def test_a_frame_that_means_nothing_is_answered_by_an_error_and_the_next_one_is_read(
    make_host: MakeHost, body: bytes, text: str
) -> None:
    """With the id, where it has one."""
    host = make_host()
    host.write(struct.pack(">I", len(body)) + body)
    error = host.receive()
    assert (error["type"], error["errorType"]) == ("error", "ProtocolError")
    assert text in error["errorMessage"]
    if b'"callID": "a"' in body:
        assert error["callID"] == "a"
    if b'"opID": "x"' in body:
        assert error["opID"] == "x"
    host.send(type="ping")
    assert host.receive() == {"type": "pong"}


def test_the_id_of_a_call_in_flight_is_refused_and_that_of_one_that_has_ended_is_not(host: Any) -> None:
    """The first call is not harmed."""
    host.send(type="call", callID="n", func="nap", args=0.3)
    host.send(type="call", callID="n", func="nap", args=0.3)
    error = host.receive()
    assert (error["type"], error["callID"]) == ("error", "n")
    assert "in flight" in error["errorMessage"]
    assert host.receive()["result"] == 0.3
    assert host.call("double", 1, call_id="n")["result"] == 2


def test_a_length_beyond_the_limit_is_an_error_and_the_end(make_host: MakeHost) -> None:
    """Where the next frame begins cannot be known; no memory is taken for it."""
    for arguments, length in [((), b"\xff\xff\xff\xff"), (("--max-frame", "100"), b"\x00\x00\x00\x65")]:
        host = make_host(*arguments)
        host.write(length)
        assert "beyond the limit" in host.receive()["errorMessage"]
        assert host.receive() is None
        assert host.process.wait(5) == 1


def test_an_end_in_the_middle_of_a_frame_is_no_clean_end(make_host: MakeHost) -> None:
    """Its status says so."""
    for piece in (b"\x00\x00", b"\x00\x00\x00\x05{}"):
        host = make_host()
        host.write(piece)
        assert host.end()[0] == 1


def test_frames_may_come_in_any_pieces(make_host: MakeHost) -> None:
    """Byte by byte, and many at once."""
    host = make_host()
    body = json.dumps({"type": "call", "callID": "c", "func": "builtins:abs", "args": -1}).encode()
    for byte in struct.pack(">I", len(body)) + body:
        host.write(bytes([byte]))
    assert host.receive()["result"] == 1
    host.write(b'\x00\x00\x00\x0f{"type":"ping"}' * 100)
    assert [host.receive() for _ in range(100)] == [{"type": "pong"}] * 100


def test_large_values_pass(host: Any) -> None:
    """Both ways."""
    text = "x" * 20_000_000
    assert host.call("double", text)["result"] == text * 2


# --- the command line -------------------------------------------------------------------------------------------------


def test_sources_are_loaded_before_ready(make_host: MakeHost, tmp_path: Path) -> None:
    """In order; one that fails is an error frame, words on stderr and status 1."""
    first, second, bad = tmp_path / "first.py", tmp_path / "second.py", tmp_path / "bad.py"
    first.write_text("print('loading')\nFACTOR = 3\n")
    second.write_text("def scale(args):\n    return FACTOR * args\n")
    bad.write_text("x = 1\nraise LookupError('no luck')\n")
    host = make_host("--source", str(first), "--source", str(second))
    assert host.call("scale", 5)["result"] == 15
    assert host.end() == (0, "loading\n")
    for path, kind in [(bad, "LookupError"), (tmp_path / "none.py", "FileNotFoundError")]:
        host = make_host("--source", str(first), "--source", str(path), is_ready=False)
        error = host.receive()
        assert (error["type"], error["errorType"]) == ("error", kind)
        assert host.receive() is None
        status, errors = host.end()
        assert status == 1
        assert str(path) in errors


@pytest.mark.parametrize(
    "arguments", [["--max-workers", "0"], ["--max-workers", "x"], ["--source"], ["--bogus"], ["--max-frame"]]
)
def test_a_wrong_command_line_is_refused_with_status_2(make_host: MakeHost, arguments: list[str]) -> None:
    """And with the usage, on stderr."""
    host = make_host(*arguments, is_ready=False)
    status, errors = host.end()
    assert status == 2
    assert arguments[0] in errors
    assert "usage:" in errors


def test_venvoy_worker_builds_loads_and_becomes_the_worker(
    make_host: MakeHost, interpreters: list[str], tmp_path: Path
) -> None:
    """Its pid is the worker's; stdout has frames only; functions find the environment's packages."""
    source = tmp_path / "service.py"
    source.write_text("import sys\ndef where(args): return list(sys.version_info[:2])\n")
    if not (Path(sys.executable).parent / "venvoy").exists():
        pytest.skip("the command venvoy is not installed beside this Python")
    command = [str(Path(sys.executable).parent / "venvoy"), "worker", "--stdio-json", "--max-workers", "2"]
    for python in {interpreters[0], interpreters[-1]}:
        host = make_host(command=[*command, "--python", python, "--source", str(source)], is_ready=False)
        ready = host.receive(60)
        assert (ready["pid"], ready["maxWorkers"]) == (host.process.pid, 2)
        assert ".".join(map(str, host.call("where")["result"])) == ".".join(ready["pythonVersion"].split(".")[:2])
        assert host.end()[0] == 0


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--stdio-json", "--with", "no-such-package-xyz-123", "--offline"], 1, "no-such-package-xyz-123"),
        (["--stdio-json", "--source", "/no/such.py"], 2, "/no/such.py"),
        ([], 2, "--stdio-json"),
    ],
)
def test_venvoy_worker_that_cannot_begin_says_why_on_stderr(
    make_host: MakeHost, arguments: list[str], status: int, text: str
) -> None:
    """With the installer's words, and nothing on stdout."""
    command = Path(sys.executable).parent / "venvoy"
    if not command.exists():
        pytest.skip("the command venvoy is not installed beside this Python")
    host = make_host(command=[str(command), "worker", *arguments], is_ready=False)
    assert host.receive(60) is None
    found, errors = host.end(60)
    assert found == status
    assert text in errors
