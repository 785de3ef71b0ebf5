"""What worker code logs is logged again by the host: same logger, level, place, and whose it was."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import venvoy as vv
from venvoy import collector


class Kept(logging.Handler):
    """Keeps records, and on which thread they came."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []
        self.threads: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.threads.add(threading.current_thread().name)

    def texts(self, name: str = "diary") -> list[str]:
        """Return the messages of one logger."""
        return [record.getMessage() for record in self.records if record.name == name]


@pytest.fixture
def kept() -> Iterator[Kept]:
    """A handler of the root logger of the host, whose level is INFO meanwhile."""
    handler, root = Kept(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


def test_a_record_comes_out_as_it_was_made(
    interpreter: str, kept: Kept, open_pool: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """Logger, level, message, file, line, function and time; worker, process, call and pool as attributes."""
    pool = open_pool(interpreter, output="log")
    pool.call("math:sqrt", 4)
    pool.call("diary:write", "a.b", logging.INFO, "%d of %s", 3, "these", extra={"page": 7})
    until(lambda: kept.texts("a.b"))
    [record] = [record for record in kept.records if record.name == "a.b"]
    assert (record.getMessage(), record.levelname) == ("3 of these", "INFO")
    assert (record.filename, record.funcName, record.module) == ("diary.py", "write", "diary")
    assert record.lineno > 5
    assert abs(record.created - time.time()) < 10
    [worker] = pool.workers()
    assert (record.venvoy_worker, record.process, record.venvoy_pid) == (worker.id, worker.pid, worker.pid)
    assert (record.venvoy_call, record.page) == (2, 7)
    assert record.venvoy_pool.startswith("pool-")
    assert kept.threads <= {"venvoy-notifier"} | {threading.current_thread().name, "venvoy-collector"}


def test_a_traceback_comes_along(
    extreme: str, kept: Kept, open_pool: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """As text in `exc_text`, which every formatter prints; so does the stack; plain extras only."""
    pool = open_pool(extreme)
    pool.call("diary:fail")
    until(kept.texts)
    [record] = [record for record in kept.records if record.name == "diary"]
    shown = logging.Formatter("%(message)s").format(record)
    assert shown.startswith("it failed\nTraceback")
    assert "ValueError: of the user" in shown
    assert 'diary.py", line' in record.stack_info
    assert record.page == 12
    assert not hasattr(record, "thing")


def test_records_that_cannot_be_made_into_text_say_so(
    extreme: str, kept: Kept, open_pool: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """They harm nobody."""
    pool = open_pool(extreme)
    pool.call("diary:write_wrongly")
    until(lambda: len(kept.texts()) == 2)
    assert "%d apples" in kept.texts()[0]
    assert "RuntimeError: no text" in kept.texts()[1]


@pytest.mark.parametrize("how", ["basicConfig", "basicConfig by force", "dictConfig", "handlers of its own"])
def test_code_that_configures_logging_itself_has_both(
    extreme: str, how: str, kept: Kept, open_pool: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """Its own handlers print, and the host gets each record once."""
    pool = open_pool(extreme)
    pool.call("diary:write", "diary", logging.WARNING, "before")
    assert "before" not in pool.output()
    pool.call("diary:configure", how)
    pool.call("diary:write", "diary", logging.WARNING, "after")
    until(lambda: "after" in kept.texts())
    assert kept.texts() == ["before", "after"]
    assert pool.output(stream="stderr") == "own after\n"


def test_without_handlers_nothing_is_printed_by_the_worker(
    extreme: str, kept: Kept, open_pool: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """Neither by the handler of last resort nor by `logging.warning()`, since the host has the record."""
    pool = open_pool(extreme)
    pool.call("diary:write_to_root", "careful")
    until(lambda: "careful" in kept.texts("root"))
    assert pool.output() == ""
    assert kept.texts("root") == ["careful"]


def test_a_logger_that_does_not_propagate_is_left_alone(
    extreme: str, kept: Kept, open_pool: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """As with the root handlers of any program."""
    pool = open_pool(extreme)
    pool.call("diary:keep_to_itself", "secret")
    pool.call("diary:write", "diary", logging.WARNING, "last")
    until(lambda: "last" in kept.texts())
    assert kept.texts("private") == []
    assert pool.output() == "secret\n"


def test_levels_of_the_host_hold_in_the_worker(
    extreme: str, kept: Kept, open_pool: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """What the host would throw away is not made; a logger's own level counts."""
    logging.getLogger("loud").setLevel(logging.DEBUG)
    try:
        pool = open_pool(extreme)
        assert pool.call("diary:handlers") == ("SourceFileLoader", True, logging.INFO)
        for name in ("loud.part", "quiet.part"):
            pool.call("diary:write", name, logging.DEBUG, "low")
            pool.call("diary:write", name, logging.INFO, "high")
        until(lambda: kept.texts("quiet.part") == ["high"])
        assert kept.texts("loud.part") == ["low", "high"]
    finally:
        logging.getLogger("loud").setLevel(logging.NOTSET)


def test_logging_is_not_imported_for_it(extreme: str, open_pool: Callable[..., vv.Pool]) -> None:
    """A worker whose code does not log pays nothing, and its import system ends up as it was."""
    pool = open_pool(extreme, env_vars={"PYTHONPATH": ""})
    assert pool.eval("'logging' in __import__('sys').modules") is False
    count = pool.eval("len(__import__('sys').meta_path)")
    pool.call("diary:handlers")
    assert pool.eval("len(__import__('sys').meta_path)") == count - 1


def test_records_of_threads_and_forks(
    extreme: str, kept: Kept, open_pool: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """A thread's has the thread's name; a forked process logs as if there were no host, to stderr."""
    pool = open_pool(extreme)
    pool.call("diary:in_a_thread", "threaded")
    assert pool.call("diary:in_a_fork", "forked") == 0
    until(kept.texts)
    assert [(record.getMessage(), record.threadName) for record in kept.records if record.name == "diary"] == [
        ("threaded", "scribe")
    ]
    assert pool.output(stream="stderr") == "forked\n"


def test_what_was_logged_right_before_a_crash_arrives(
    extreme: str, kept: Kept, open_pool: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """The last words are the ones that count."""
    pool = open_pool(extreme)
    with pytest.raises(vv.WorkerCrashed):
        pool.call("diary:write_and_die", "goodbye")
    until(lambda: kept.texts() == ["goodbye"])


def test_cancelling_a_call_that_logs_leaves_the_line_whole(
    extreme: str, kept: Kept, open_pool: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """However often an interrupt strikes in the middle of a record, the worker serves and logs on."""
    pool = open_pool(extreme)
    pid = pool.eval("__import__('logging') and __import__('os').getpid()")
    for number in range(25):
        with pytest.raises(vv.CallTimeout):
            pool.options(timeout=0.02 + number * 0.001).call("diary:write_for_ever")
    pool.call("diary:write", "diary", logging.ERROR, "end")
    until(lambda: kept.texts()[-1:] == ["end"], seconds=20)
    assert pool.call("os:getpid") == pid


def test_a_host_that_does_not_read_costs_records_not_time(
    extreme: str, kept: Kept, open_pool: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """A blocked handler of the host holds up neither the worker nor memory; what was dropped is counted."""
    pool = open_pool(extreme)
    pool.warm()
    held, release = threading.Event(), threading.Event()
    running = collector._held._running
    assert running is not None
    running.call_soon(lambda: (held.set(), release.wait(20)))
    held.wait(5)
    try:
        assert pool.call("diary:write_much", 3000, 1000) < 0.5
    finally:
        release.set()
    until(lambda: pool.call("diary:write", "diary", logging.ERROR, "end") or "end" in kept.texts())
    assert 10 < len(kept.texts()) < 3000
    assert any("log records were dropped" in text for text in kept.texts("venvoy"))


def test_long_records_are_cut(
    extreme: str, kept: Kept, open_pool: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """So that each fits into a socket's buffer."""
    pool = open_pool(extreme)
    pool.call("diary:write", "diary", logging.WARNING, "y" * 1_000_000)
    until(kept.texts)
    assert 10_000 < len(kept.texts()[0]) < 20_000


def test_a_stopped_worker_loses_nothing_it_logged(
    open_pool: Callable[..., vv.Pool], kept: Kept, until: Callable[..., None]
) -> None:
    """Closing the pool right after a call delivers its records first."""
    pool = open_pool(workers=2)
    for number in range(20):
        pool.call("diary:write", "diary", logging.WARNING, str(number))
    pool.close()
    assert sorted(kept.texts(), key=int) == [str(number) for number in range(20)]
