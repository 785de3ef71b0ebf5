"""Nothing that user code prints, anywhere, at any time, harms a result; and all of it is found again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

import venvoy as vv
from venvoy.options import OutputChunk

KINDS = ["line", "part", "as_json", "megabyte", "descriptor", "child", "c_level", "warning", "log", "stack"]
UNBUFFERED = pytest.mark.parametrize("env_vars", [None, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])


class Heard:
    """An output function that remembers, and finds every noise of one place."""

    def __init__(self) -> None:
        self.chunks: list[OutputChunk] = []

    def __call__(self, chunk: OutputChunk) -> None:
        self.chunks.append(chunk)

    def text(self, stream: str | None = None) -> str:
        return "".join(chunk.text for chunk in self.chunks if stream in (None, chunk.stream))

    def has_all(self, prefix: str) -> bool:
        text = self.text()
        return all(prefix + kind in text for kind in KINDS)


def missing(text: str, prefix: str) -> list[str]:
    return [kind for kind in KINDS if prefix + kind not in text]


@UNBUFFERED
def test_noise_at_import_is_kept_and_harms_nothing(
    extreme: str, env_vars: Any, open_pool: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """Whatever the pool's module prints while it is imported, the worker starts and answers."""
    heard = Heard()
    pool = open_pool(extreme, "noisy_import", output=heard, env_vars=env_vars, output_tail_bytes=4 << 20)
    assert pool.call("noises:make", "line", "first") == ["line", "first", 5]
    assert not missing(pool.output(), "import_")
    until(lambda: heard.has_all("import_"), what="delivery")


@UNBUFFERED
def test_noise_in_the_initializer_is_kept_and_harms_nothing(
    extreme: str, env_vars: Any, open_pool: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """Whatever the initializer prints, the worker starts and answers."""
    heard = Heard()
    pool = open_pool(
        extreme,
        initializer="noises:make_all",
        initializer_args=["init_"],
        output=heard,
        env_vars=env_vars,
        output_tail_bytes=4 << 20,
    )
    assert pool.warm() == 1
    assert not missing(pool.output(), "init_")
    assert pool.call("math:sqrt", 9) == 3.0
    until(lambda: heard.has_all("init_"), what="delivery")


@UNBUFFERED
def test_noise_in_a_call_is_there_when_the_call_returns(
    interpreter: str, env_vars: Any, open_pool: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """What a call prints is in `output()` as soon as its exact result is here, and reaches the output function."""
    heard = Heard()
    pool = open_pool(interpreter, output=heard, env_vars=env_vars, output_tail_bytes=4 << 20)
    for kind in KINDS:
        mark = f"call_{kind}"
        assert pool.call("noises:make", kind, mark) == [kind, mark, len(mark)]
        assert mark in pool.output(), kind
    until(lambda: heard.has_all("call_"), what="delivery")


@UNBUFFERED
def test_noise_of_a_thread_after_its_call_is_kept_and_harms_nothing(
    extreme: str, env_vars: Any, open_pool: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """A thread that prints between and during later calls changes none of their results."""
    heard = Heard()
    pool = open_pool(extreme, output=heard, env_vars=env_vars, output_tail_bytes=4 << 20)
    pool.call("noises:start_thread", "thread_")
    pool.call("noises:go")
    number = 0
    while not pool.call("noises:is_done"):
        number += 1
        assert pool.call("operator:add", number, 1) == number + 1
    assert not missing(pool.output(), "thread_")
    until(lambda: heard.has_all("thread_"), what="delivery")


def test_streams_are_told_apart(open_pool: Callable[..., vv.Pool], until: Callable[..., None]) -> None:
    """What went to stderr is under stderr only, with the worker's id and pid."""
    heard = Heard()
    pool = open_pool(output=heard)
    pool.call("noises:make", "line", "to-stdout")
    pool.call("noises:make", "log", "to-stderr")
    assert "to-stdout" in pool.output(stream="stdout")
    assert "to-stdout" not in pool.output(stream="stderr")
    assert pool.output(stream="stderr").strip() == "to-stderr"
    until(lambda: "to-stdout" in heard.text("stdout") and "to-stderr" in heard.text("stderr"))
    worker = pool.workers()[0]
    assert {(chunk.worker, chunk.pid) for chunk in heard.chunks} == {(worker.id, worker.pid)}


def test_ten_megabytes_of_output_pass_through_whole(
    extreme: str, open_pool: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """A call that writes 10 MB returns its result, and the output function gets every byte."""
    heard = Heard()
    pool = open_pool(extreme, output=heard, output_tail_bytes=1000)
    assert pool.call("noises:bytes_of_output", 10_000_000) == 10_000_000
    until(lambda: len(heard.text()) >= 10_000_000, seconds=20, what="delivery")
    assert heard.text() == "y" * 10_000_000
    assert pool.output() == "y" * 1000


def test_two_hundred_noisy_calls_in_a_row_stay_right(extreme: str, open_pool: Callable[..., vv.Pool]) -> None:
    """Noise of every quick kind around each call never shifts a result to another call."""
    pool = open_pool(extreme)
    kinds = [kind for kind in KINDS if kind not in ("child", "megabyte")]
    for number in range(200):
        kind, mark = kinds[number % len(kinds)], f"mark_{number}"
        assert pool.call("noises:make", kind, mark) == [kind, mark, len(mark)]


def test_a_flood_of_lines_does_not_block_the_worker(extreme: str, open_pool: Callable[..., vv.Pool]) -> None:
    """With an output function that never returns in time, the worker still finishes, and other calls go on."""
    release = threading.Event()
    pool = open_pool(extreme, output=lambda chunk: release.wait(20))
    try:
        assert pool.call("noises:flood", 100_000) == 100_000
        assert pool.call("math:sqrt", 4) == 2.0
        assert "line 99999" in pool.output()
    finally:
        release.set()


def test_an_output_function_that_raises_harms_nothing(
    open_pool: Callable[..., vv.Pool], until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """Its exception is logged; results and later chunks are as ever."""
    seen: list[str] = []

    def fail(chunk: OutputChunk) -> None:
        seen.append(chunk.text)
        raise ValueError("of the output function")

    pool = open_pool(output=fail)
    for number in range(3):
        assert pool.call("noises:make", "line", f"m{number}") == ["line", f"m{number}", 2]
        until(lambda number=number: f"m{number}" in "".join(seen))
    until(lambda: "of the output function" in caplog.text)


def test_output_is_forwarded_to_the_streams_of_the_host(
    open_pool: Callable[..., vv.Pool], until: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """With "forward", stdout comes out of the host's sys.stdout and stderr out of its sys.stderr."""
    pool = open_pool(output="forward")
    pool.call("noises:make", "line", "to-stdout")
    pool.call("noises:make", "log", "to-stderr")
    out = err = ""

    def arrived() -> bool:
        nonlocal out, err
        captured = capsys.readouterr()
        out, err = out + captured.out, err + captured.err
        return bool(out and err)

    until(arrived)
    assert (out, err) == ("to-stdout\n", "to-stderr\n")


def test_output_is_logged_on_request(
    open_pool: Callable[..., vv.Pool], until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """With "log", each line is a record of the logger `venvoy.output` that names worker and stream."""
    caplog.set_level(logging.INFO, "venvoy.output")
    pool = open_pool(output="log")
    pool.call("noises:make", "line", "said")
    until(lambda: "said" in caplog.text)
    [record] = [record for record in caplog.records if record.name == "venvoy.output"]
    assert record.getMessage() == "worker 1 stdout: said"


def test_long_lines_arrive_in_the_log_as_one_record(
    open_pool: Callable[..., vv.Pool], until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """A line longer than a chunk of the pipe is not torn into several records."""
    caplog.set_level(logging.INFO, "venvoy.output")
    pool = open_pool(output="log")
    pool.call("noises:make", "megabyte", "the-end")
    until(lambda: "the-end" in caplog.text, seconds=10)
    messages = [record.getMessage() for record in caplog.records if record.name == "venvoy.output"]
    assert len(messages) == 1  # not the text itself: it is long


def test_discarded_output_is_still_in_the_tail(
    open_pool: Callable[..., vv.Pool], capfd: pytest.CaptureFixture[str]
) -> None:
    """With "discard", nothing reaches the host's streams, and `output()` has it."""
    pool = open_pool(output="discard")
    pool.call("noises:make", "line", "hidden")
    assert pool.output() == "hidden\n"
    pool.shutdown()
    assert capfd.readouterr() == ("", "")


def test_text_that_is_split_inside_a_character_arrives_whole(
    open_pool: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """A character whose bytes come in two writes is one character to the output function; other bytes are replaced."""
    heard = Heard()
    pool = open_pool(output=heard)
    pool.call("os:write", 1, b"\xe2\x82")
    until(lambda: pool.output() != "")
    pool.call("os:write", 1, b"\xac\xff.")
    until(lambda: "." in heard.text())
    assert heard.text() == "€\ufffd."
