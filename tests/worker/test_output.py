"""Whose output it was, how it is forwarded, and that a flood of it costs the host nothing."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

import venvoy as vv
from venvoy.options import OutputChunk


class Heard:
    """An output function that keeps what it gets."""

    def __init__(self) -> None:
        self.chunks: list[OutputChunk] = []

    def __call__(self, chunk: OutputChunk) -> None:
        self.chunks.append(chunk)

    def of(self, call: int) -> str:
        """Return the text of one call."""
        return "".join(chunk.text for chunk in self.chunks if chunk.call == call)


@pytest.mark.parametrize("road", ["call", "submit", "map", "queue"])
def test_text_belongs_to_the_call_that_wrote_it(
    extreme: str, road: str, open_pool: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """What Python, a descriptor and a child process write during a call has its number and target."""
    heard = Heard()
    pool = open_pool(extreme, output=heard)
    marks = [f"mark{number}." for number in range(30)]
    if road == "call":
        assert [pool.call("noises:write_of_all_kinds", mark) for mark in marks] == marks
    elif road == "map":
        assert list(pool.map("noises:write_of_all_kinds", marks, chunksize=1)) == marks
    elif road == "submit":
        assert [pool.submit("noises:write_of_all_kinds", mark).result() for mark in marks] == marks
    else:
        futures = [pool.submit("noises:write_of_all_kinds", mark) for mark in marks]
        assert [future.result() for future in futures] == marks
    until(lambda: heard.of(30).count(marks[-1]) == 3)
    for number, mark in enumerate(marks, 1):
        assert heard.of(number) == f"{mark} {mark} {mark}\n"
    assert {chunk.target.partition("[")[0] for chunk in heard.chunks} == {"noises:write_of_all_kinds"}
    assert {chunk.pool for chunk in heard.chunks} == {heard.chunks[0].pool}


def test_text_between_calls_belongs_to_none(
    extreme: str, open_pool: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """A thread that prints when its call is over prints for nobody."""
    heard = Heard()
    pool = open_pool(extreme, output=heard)
    pool.call("noises:write_later", "late", 0.2)
    until(lambda: heard.of(0) == "late\n")
    assert heard.chunks[-1].target == ""


def test_last_words_belong_to_the_call_that_crashed(
    extreme: str, open_pool: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """They are drained before the end is told."""
    heard = Heard()
    pool = open_pool(extreme, output=heard)
    pool.call("math:sqrt", 4)
    with pytest.raises(vv.WorkerCrashed):
        pool.call("deeds:die", "segfault")
    until(lambda: heard.of(2) == "last words")


def test_logged_lines_know_their_worker_and_call(
    extreme: str, open_pool: Callable[..., vv.Pool], until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """With output="log", as attributes of the record."""
    caplog.set_level(logging.INFO, "venvoy.output")
    pool = open_pool(extreme, output="log")
    pool.call("noises:make", "line", "one")
    pool.call("noises:make", "line", "two")
    until(lambda: "two" in caplog.text)
    records: list[Any] = [record for record in caplog.records if record.name == "venvoy.output"]
    [worker] = pool.workers()
    assert [(record.venvoy_call, record.venvoy_target, record.venvoy_stream) for record in records] == [
        (1, "noises:make", "stdout"),
        (2, "noises:make", "stdout"),
    ]
    assert {(record.venvoy_worker, record.venvoy_pid) for record in records} == {(worker.id, worker.pid)}


def test_lines_of_several_workers_are_forwarded_whole(
    open_pool: Callable[..., vv.Pool], capsys: pytest.CaptureFixture[str]
) -> None:
    """Four workers that write their lines in pieces at the same time never mix within a line."""
    pool = open_pool(workers=4, output="forward")
    pieces = {mark: [f"{mark}-a ", f"{mark}-b ", f"{mark}-c\n"] * 15 for mark in "wxyz"}
    futures = [pool.submit("noises:write_slowly", pieces[mark], 0.004) for mark in pieces]
    for future in futures:
        future.result(20)
    pool.close()
    lines = capsys.readouterr().out.splitlines()
    assert all(len(set(re.findall(r"\w(?=-)", line))) == 1 for line in lines)
    for mark in pieces:
        assert " ".join(line.strip() for line in lines if mark in line) == " ".join(
            [f"{mark}-a {mark}-b {mark}-c"] * 15
        )
    whole = [line for line in lines if re.fullmatch(r"(\w)-a \1-b \1-c", line)]
    assert len(whole) > 45  # a machine that stands still for a moment may break some


def test_a_line_that_takes_long_is_shown_before_its_end(
    open_pool: Callable[..., vv.Pool], capsys: pytest.CaptureFixture[str], until: Callable[..., None]
) -> None:
    """Dots of progress appear while they are written; another worker's line begins below them."""
    pool = open_pool(workers=2, output="forward")
    pool.warm()
    out: list[str] = []

    def shown() -> str:
        out.append(capsys.readouterr().out)
        return "".join(out)

    slow = pool.submit("noises:write_slowly", [".", ".", "."], 0.4)
    until(lambda: shown().startswith("."))
    assert "\n" not in shown()
    pool.call("noises:make", "line", "other")
    until(lambda: "\nother\n" in shown())
    slow.result(10)
    pool.close()
    assert shown().replace("\n", "").replace("other", "") == "..."


def test_text_that_the_hosts_stream_cannot_encode_is_escaped(start_host: Callable[..., Any]) -> None:
    """Rather than lost."""
    host = start_host(
        """
        import sys
        import venvoy as vv
        sys.stdout.reconfigure(encoding="ascii")
        with vv.Pool(workers=1) as pool:
            pool.call("builtins:print", "\\u20ac 5")
        """
    )
    assert host.rest() == (0, "\\u20ac 5\n", "")


@pytest.mark.parametrize("policy", ["function", "discard"])
def test_a_flood_costs_the_host_no_memory(policy: str, open_pool: Callable[..., vv.Pool]) -> None:
    """200 MB of lines, with an output function that blocks or with none: the host grows by less than 40 MB."""
    release = threading.Event()
    pool = open_pool(output="discard" if policy == "discard" else lambda chunk: release.wait(30))
    host = psutil.Process()
    try:
        pool.call("noises:make", "line", "first")
        before = host.memory_info().rss
        future = pool.submit("noises:megabytes_of_lines", 200)
        most = before
        while not future.done():
            most = max(most, host.memory_info().rss)
            time.sleep(0.01)
        assert future.result() == 200
        assert most - before < 40 << 20
        assert len(pool.output()) <= 262_144
    finally:
        release.set()


def test_a_flood_does_not_hold_up_other_calls(open_pool: Callable[..., vv.Pool]) -> None:
    """While one worker prints without end, calls on another are answered as ever."""
    pool, other = open_pool(output="discard"), open_pool()
    future = pool.submit("noises:megabytes_of_lines", 100)
    times = []
    while not future.done():
        begin = time.perf_counter()
        assert other.call("math:sqrt", 4) == 2
        times.append(time.perf_counter() - begin)
    assert future.result() == 100
    assert len(times) > 10
    assert sorted(times)[len(times) // 2] < 0.05


def test_an_output_function_that_blocks_delays_no_deadline(open_pool: Callable[..., vv.Pool]) -> None:
    """A queued call of another pool gets its CallTimeout in time."""
    release = threading.Event()
    pool, other = open_pool(output=lambda chunk: release.wait(20)), open_pool()
    try:
        pool.call("noises:make", "line", "blocks")
        busy = other.submit("deeds:sleep", 1.5)
        begin = time.monotonic()
        queued = other.options(timeout=0.3).submit("math:sqrt", 4)
        assert isinstance(queued.exception(10), vv.CallTimeout)
        assert time.monotonic() - begin < 1.2
        assert busy.result(10) == 1.5
    finally:
        release.set()


def test_the_output_of_the_last_ten_exited_workers_can_be_read(
    open_pool: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """Per stream; older ones are forgotten."""
    pool = open_pool()
    for number in range(12):
        pool.call("noises:make", "line", f"worker {number}")
        worker = pool.workers()[0]
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        until(lambda worker=worker: worker.id not in [info.id for info in pool.workers()])
    assert [pool.output(number, stream="stdout") for number in range(3, 13)] == [
        f"worker {number}\n" for number in range(2, 12)
    ]
    assert pool.output(12, stream="stderr") == ""
    with pytest.raises(LookupError):
        pool.output(1)


def test_the_tail_is_bounded_per_stream(extreme: str, open_pool: Callable[..., vv.Pool]) -> None:
    """`output_tail_bytes` is kept of each."""
    pool = open_pool(extreme, output_tail_bytes=100)
    pool.call("noises:bytes_of_output", 5000)
    pool.call("noises:make", "log", "e" * 5000)
    assert pool.output(stream="stdout") == "y" * 100
    assert pool.output(stream="stderr") == "e" * 99 + "\n"
