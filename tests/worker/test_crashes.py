"""A worker that dies costs its own call alone: the error says how, the pool goes on, nothing of the worker is left."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

import venvoy as vv

ENDS = [
    ("exit", 9, None, "status 9"),
    ("exit 0", 0, None, "status 0"),
    ("SIGKILL", None, 9, "SIGKILL"),
    ("SIGTERM", None, 15, "SIGTERM"),
    ("segfault", None, 11, "SIGSEGV"),
    ("abort", None, 6, "SIGABRT"),
]


ROADS = [("call", *end) for end in ENDS] + [(road, *end) for road in ("submit", "map") for end in ENDS[:3:2]]


@pytest.mark.parametrize(
    ("road", "how", "status", "number", "words"), ROADS, ids=[f"{row[0]} {row[1]}" for row in ROADS]
)
def test_the_error_of_a_crash_says_how_the_worker_ended(
    extreme: str,
    road: str,
    how: str,
    status: int | None,
    number: int | None,
    words: str,
    open_pool: Callable[..., vv.Pool],
) -> None:
    """It comes within a second, with exit status or signal, pid, target and last output; the next call is served."""
    pool = open_pool(extreme)
    pid = pool.call("os:getpid")
    run = {
        "call": lambda: pool.call("deeds:die", how),
        "submit": lambda: pool.submit("deeds:die", how).result(10),
        "map": lambda: list(pool.map("deeds:die", [how])),
    }[road]
    begin = time.monotonic()
    with pytest.raises(vv.WorkerCrashed, match=words) as caught:
        run()
    assert time.monotonic() - begin < 1.0
    error = caught.value
    assert (error.exit_status, error.signal, error.pid) == (status, number, pid)
    assert error.started
    assert "deeds:die" in error.target
    assert error.output_tail.startswith("last words")
    assert "last words" in str(error)
    assert (error.code, error.reason) == ("worker_crashed", "CRASHED")
    assert pool.call("os:getpid") != pid


FATAL = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL")


@pytest.mark.parametrize("name", FATAL)
def test_a_fatal_signal_shows_the_python_stack_of_the_call(
    extreme: str, name: str, open_pool: Callable[..., vv.Pool]
) -> None:
    """File, line and function of the user's code, none of venvoy's, and nothing of it in the output."""
    pool = open_pool(extreme)
    with pytest.raises(vv.WorkerCrashed, match=name) as caught:
        pool.call("deeds:die", name)
    error = caught.value
    lines = error.python_stack.splitlines()
    assert lines[0].startswith("Fatal Python error: ")
    frames = [line for line in lines if line.startswith("  File ")]
    assert len(frames) == 1
    assert re.search(r'deeds\.py", line \d+ in die$', frames[0])
    assert error.output_tail == "last words"
    assert str(error).index("where it crashed") < str(error).index("end of its output")
    assert error.signal is not None
    assert signal.Signals(error.signal).name == name


def test_a_segfault_in_c_code_shows_the_python_stack_of_the_call(
    interpreter: str, open_pool: Callable[..., vv.Pool]
) -> None:
    """On every CPython; the report also names the environment, and no lack of memory."""
    pool = open_pool(interpreter)
    with pytest.raises(vv.WorkerCrashed) as caught:
        pool.call("deeds:die", "segfault")
    error = caught.value
    assert "Segmentation fault" in error.python_stack
    assert re.search(r'deeds\.py", line \d+ in die', error.python_stack)
    assert "venvoy_worker" not in error.python_stack
    assert (error.oom_hint, error.signal) == ("", signal.SIGSEGV)
    assert error.environment


def test_the_stack_of_a_crash_of_one_thread_of_many_comes_with_the_others(
    extreme: str, open_pool: Callable[..., vv.Pool]
) -> None:
    """The thread that crashed is called the current one; the user's other threads are there too."""
    pool = open_pool(extreme)
    with pytest.raises(vv.WorkerCrashed) as caught:
        pool.call("deeds:die_in_a_thread")
    current = caught.value.python_stack.partition("urrent thread")[2].partition("\n\n")[0]
    assert "in crash" in current
    assert "in wait_for_thread" in caught.value.python_stack
    assert "in wait_for_thread" not in current


@pytest.mark.parametrize("where", ["stderr", "file"])
def test_user_code_may_enable_faulthandler_itself(
    extreme: str, where: str, open_pool: Callable[..., vv.Pool], tmp_path: Path
) -> None:
    """Its choice of a file holds; from stderr the report finds its way into the error."""
    pool = open_pool(extreme)
    path = tmp_path / "faults"
    with pytest.raises(vv.WorkerCrashed) as caught:
        pool.call("deeds:enable_faulthandler_and_die", str(path) if where == "file" else None)
    if where == "file":
        assert "enable_faulthandler_and_die" in path.read_text()
        assert caught.value.python_stack == ""
    else:
        assert "enable_faulthandler_and_die" in caught.value.output_tail
        assert "enable_faulthandler_and_die" in caught.value.python_stack


def test_a_process_that_the_worker_forked_reports_its_crash_on_stderr(
    extreme: str, open_pool: Callable[..., vv.Pool], tmp_path: Path
) -> None:
    """It never writes into files of its own that have got the descriptor's number, nor into the worker's report."""
    pool = open_pool(extreme)
    assert pool.call("deeds:fork_and_crash", str(tmp_path)) == signal.SIGSEGV
    assert "fork_and_crash" in pool.output(stream="stderr")
    assert {path.read_text() for path in tmp_path.iterdir()} == {""}
    with pytest.raises(vv.WorkerCrashed) as caught:
        pool.call("deeds:die", "exit")
    assert caught.value.python_stack == ""


def test_the_call_on_a_worker_that_was_killed_says_who_did_it(
    extreme: str, open_pool: Callable[..., vv.Pool], tmp_path: Path, until: Callable[..., None]
) -> None:
    """`reason` is KILLED, the signal is ours, so no lack of memory is suspected."""
    pool = open_pool(extreme)
    future = pool.submit("deeds:sleep", 60, str(tmp_path / "began"))
    until((tmp_path / "began").exists)
    pool.kill(pool.workers()[0].id)
    with pytest.raises(vv.WorkerCrashed, match=r"kill\(\)") as caught:
        future.result(5)
    assert (caught.value.reason, caught.value.signal, caught.value.oom_hint) == ("KILLED", signal.SIGKILL, "")


@pytest.mark.parametrize("road", ["call", "submit"])
def test_other_calls_are_untouched_by_crashes(extreme: str, road: str, open_pool: Callable[..., vv.Pool]) -> None:
    """Of a hundred calls on four workers, five of which kill theirs, exactly those five fail."""
    pool = open_pool(extreme, workers=4)
    deadly = [3, 20, 41, 42, 99]
    if road == "submit":
        futures = [pool.submit("deeds:die_sometimes", number, deadly) for number in range(100)]
        outcomes = [future.exception(30) or future.result() for future in futures]
    else:

        def one(number: int) -> object:
            try:
                return pool.call("deeds:die_sometimes", number, deadly)
            except vv.WorkerCrashed as error:
                return error

        with ThreadPoolExecutor(8) as threads:
            outcomes = list(threads.map(one, range(100)))
    failed = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Exception)]
    assert failed == deadly
    assert {outcomes[number].exit_status for number in deadly} == {7}
    assert [outcome for number, outcome in enumerate(outcomes) if number not in deadly] == [
        number for number in range(100) if number not in deadly
    ]
    assert pool.stats().workers_crashed == 5


def test_an_idle_worker_that_is_killed_costs_no_call(extreme: str, open_pool: Callable[..., vv.Pool]) -> None:
    """Whether or not its end has been seen already, the next call gets a new worker and succeeds."""
    pool = open_pool(extreme)
    pids = set()
    for number in range(10):
        pid = pool.call("os:getpid")
        pids.add(pid)
        os.kill(pid, signal.SIGKILL)
        if number % 2:
            time.sleep(0.02)
        assert pool.call("deeds:square", number) == number * number
    assert len(pids) == 10


def test_a_killed_idle_worker_costs_no_submitted_call(extreme: str, open_pool: Callable[..., vv.Pool]) -> None:
    """Futures are fulfilled though the worker they were sent to was dead already."""
    pool = open_pool(extreme, workers=2)
    for number in range(5):
        for worker in pool.workers():
            os.kill(worker.pid, signal.SIGKILL)
        futures = [pool.submit("deeds:square", number + index) for index in range(10)]
        assert [future.result(20) for future in futures] == [(number + index) ** 2 for index in range(10)]


def test_a_fork_that_holds_the_descriptors_does_not_hide_the_crash(
    interpreter: str, open_pool: Callable[..., vv.Pool], tmp_path: Path, gone: Callable[..., None]
) -> None:
    """A forked process in its own session keeps sockets and pipes open; the crash is seen within a second."""
    pool = open_pool(interpreter)
    pool.warm()
    path = tmp_path / "pid"
    try:
        begin = time.monotonic()
        with pytest.raises(vv.WorkerCrashed) as caught:
            pool.call("deeds:fork_and_hold", str(path))
        assert time.monotonic() - begin < 2.0  # a second from the crash, which comes after the fork
        assert caught.value.exit_status == 9
        assert pool.call("deeds:square", 3) == 9
        pool.shutdown()
    finally:
        os.kill(int(path.read_text()), signal.SIGKILL)
    gone(int(path.read_text()))


@pytest.mark.parametrize("how", ["pool.kill", "SIGKILL", "crash", "terminate"])
def test_grandchildren_of_a_worker_that_was_ended_are_gone(
    extreme: str, how: str, open_pool: Callable[..., vv.Pool], gone: Callable[..., None]
) -> None:
    """Whatever the worker started is ended with it."""
    pool = open_pool(extreme)
    grandchildren = [pool.call("deeds:start_child") for _ in range(3)]
    worker = pool.workers()[0]
    if how == "pool.kill":
        pool.kill(worker.id)
    elif how == "terminate":
        pool.terminate(worker.id)
    elif how == "SIGKILL":
        os.kill(worker.pid, signal.SIGKILL)
    else:
        with pytest.raises(vv.WorkerCrashed):
            pool.call("deeds:die", "exit")
    gone(worker.pid, *grandchildren)


@pytest.mark.parametrize("target", ["deeds:sleep", "deeds:spin", "deeds:hold_the_lock"])
@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_a_busy_worker_can_be_ended(
    extreme: str, target: str, how: str, open_pool: Callable[..., vv.Pool], tmp_path: Path, until: Callable[..., None]
) -> None:
    """`kill` ends it at once, `terminate` within the grace period, whatever it does; its call fails."""
    pool = open_pool(extreme, grace_period=0.6)
    began = tmp_path / "began"
    args = [30, str(began)] if target == "deeds:sleep" else [str(began)]
    future = pool.submit(target, *args)
    until(began.exists)
    worker = pool.workers()[0]
    getattr(pool, how)(worker.id)
    assert isinstance(future.exception(3), vv.VenvoyError)
    until(lambda: not psutil.pid_exists(worker.pid), seconds=2)
    assert pool.call("deeds:square", 2) == 4


def test_a_crash_while_the_reply_is_written_is_a_crash(extreme: str, open_pool: Callable[..., vv.Pool]) -> None:
    """A worker that dies in the middle of a large reply fails that call; nothing half-read is left."""
    pool = open_pool(extreme)
    lost: list[bool] = []
    for _ in range(2):
        pid = pool.call("os:getpid")
        started = "[__import__('threading').Timer(delay, lambda: __import__('os')._exit(4)).start(), bytes(size)][1]"
        try:
            assert pool.eval(started, delay=0.03, size=100_000_000) == bytes(100_000_000)
        except vv.WorkerCrashed as crash:
            lost.append(crash.pid == pid)
        assert pool.options(retries=1).call("deeds:square", 5) == 25
        time.sleep(0.05)
    assert all(lost)


def test_retries_run_a_crashed_call_again(extreme: str, open_pool: Callable[..., vv.Pool], tmp_path: Path) -> None:
    """With `retries`, a call that crashes its first worker succeeds on the second."""
    pool = open_pool(extreme)

    def die_first(path):  # type: ignore[no-untyped-def]
        import os

        try:
            os.mkdir(path)
        except FileExistsError:
            return "second"
        os._exit(1)

    target = vv.by_source(die_first)
    assert pool.options(retries=1).call(target, str(tmp_path / "a")) == "second"
    assert pool.options(retries=1).submit(target, str(tmp_path / "b")).result(10) == "second"
    with pytest.raises(vv.WorkerCrashed):
        pool.call(target, str(tmp_path / "c"))


def test_a_closed_pool_keeps_no_descriptor(open_pool: Callable[..., vv.Pool]) -> None:
    """After `shutdown`, and after many crashes, a pool that is still referred to holds no descriptor."""
    pool = open_pool()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(vv.WorkerCrashed):
            pool.call("deeds:die", "exit")
    pool.shutdown()
    assert len(os.listdir("/proc/self/fd")) <= before
