"""Whatever user code does inside its call is an error of that call at most; the same worker serves the next one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import venvoy as vv

ODD_ENDS = [
    ("deeds:ask", [], EOFError),
    ("deeds:exit_python", [3], vv.RemoteError),
    ("deeds:exit_python", ["a text"], vv.RemoteError),
    ("deeds:exit_python", [None], vv.RemoteError),
    ("deeds:interrupt", [], vv.RemoteError),
    ("deeds:raise_base", [], vv.RemoteError),
]


def test_odd_exceptions_are_errors_of_the_call_alone(interpreter: str, open_pool: Callable[..., vv.Pool]) -> None:
    """EOFError, SystemExit, KeyboardInterrupt and other BaseExceptions end the call, not the worker, nor the host."""
    pool = open_pool(interpreter)
    pid = pool.call("os:getpid")
    for target, args, kind in ODD_ENDS:
        with pytest.raises(kind):
            pool.call(target, *args)
        with pytest.raises(kind):
            pool.submit(target, *args).result(10)
    assert pool.call("os:getpid") == pid


DEEDS = [
    ("deeds:use_signals", [], True),
    ("deeds:use_asyncio", [], [0, 2, 4]),
    ("deeds:fork_and_wait", [], 5),
    ("deeds:status_of", ["true"], 0),
    ("deeds:status_of", ["false"], 1),
    ("deeds:leave_thread", [0.3, True], None),
    ("deeds:leave_thread", [0.3, False], None),
]


def test_what_user_code_may_do_works(interpreter: str, open_pool: Callable[..., vv.Pool]) -> None:
    """Signals, asyncio, threads, forks and child processes work twice in a row, in one worker."""
    pool = open_pool(interpreter)
    pid = pool.call("os:getpid")
    for target, args, result in DEEDS * 2:
        got = pool.call(target, *args)
        assert result is None or got == result
    assert pool.call("os:getpid") == pid


@pytest.mark.parametrize("target", ["deeds:fork_and_return", "deeds:fork_and_raise"])
def test_a_fork_that_comes_back_out_of_the_call_answers_nothing(
    interpreter: str, target: str, open_pool: Callable[..., vv.Pool], gone: Callable[..., None]
) -> None:
    """The parent's result is the call's; the forked child ends, and takes no later call."""
    pool = open_pool(interpreter)
    pid = pool.call("os:getpid")
    children = [pool.call(target) for _ in range(3)]
    assert all(child > 0 for child in children)
    assert [pool.call("os:getpid") for _ in range(20)] == [pid] * 20
    for child in children:
        assert tuple(pool.call("os:waitpid", child, 0)) == (child, 0)
    assert "Traceback" not in pool.output()


def test_output_is_not_written_twice_by_a_fork(extreme: str, open_pool: Callable[..., vv.Pool]) -> None:
    """Text that was printed without a newline before the fork comes once."""
    pool = open_pool(extreme)
    pool.call("noises:make", "line", "before")

    def print_and_fork():  # type: ignore[no-untyped-def]
        import os

        print("once")
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        return child

    pool.call(vv.by_source(print_and_fork))
    assert pool.output() == "before\nonce\n"


@pytest.mark.parametrize("how", ["close", "none", "object", "descriptor 1", "descriptors 0 to 2", "all streams"])
def test_a_worker_without_its_streams_serves_on(extreme: str, how: str, open_pool: Callable[..., vv.Pool]) -> None:
    """Closing or replacing stdout, or descriptors 0 to 2, harms no later call, printing or not."""
    pool = open_pool(extreme)
    pid = pool.call("os:getpid")
    assert pool.call("deeds:close_stream", how) == how
    assert pool.call("os:getpid") == pid
    assert pool.call("os:open", "/dev/null", os.O_RDONLY) >= 0  # it may get one of the numbers that are free now
    assert [pool.call("operator:add", number, 1) for number in range(50)] == list(range(1, 51))
    with pytest.raises(ZeroDivisionError):
        pool.call("operator:truediv", 1, 0)
    assert pool.call("deeds:status_of", "true") == 0
    assert pool.call("os:getpid") == pid


@pytest.mark.parametrize("seed", range(6))
def test_closing_descriptors_at_random_costs_that_worker_at_most(
    extreme: str, seed: int, open_pool: Callable[..., vv.Pool]
) -> None:
    """A call that closes descriptors which are not its own succeeds or is a crash, soon; the next call is right."""
    pool = open_pool(extreme)
    pool.warm()
    begin = time.monotonic()
    try:
        assert pool.call("deeds:close_descriptors", seed) == seed
    except vv.WorkerCrashed:
        pass
    assert pool.options(retries=1).call("operator:add", seed, 1) == seed + 1
    assert time.monotonic() - begin < 5


def test_the_working_folder_stays_changed_and_harms_nothing(
    extreme: str, open_pool: Callable[..., vv.Pool], tmp_path: Path
) -> None:
    """`os.chdir` in a call, even into a folder that is then removed, leaves the worker serving."""
    pool = open_pool(extreme)
    folder = tmp_path / "away"
    folder.mkdir()
    assert pool.call("deeds:change_folder", str(folder)) == str(folder)
    folder.rmdir()
    assert pool.call("deeds:square", 3) == 9
    assert pool.call("json:dumps", [1]) == "[1]"
    with pytest.raises(ZeroDivisionError):
        pool.call("operator:truediv", 1, 0)


def test_sigint_does_nothing_to_an_idle_worker(interpreter: str, open_pool: Callable[..., vv.Pool]) -> None:
    """Any number of interrupts between calls changes neither the worker nor a result."""
    pool = open_pool(interpreter)
    pid = pool.call("os:getpid")
    for number in range(50):
        os.kill(pid, signal.SIGINT)
        assert pool.call("operator:add", number, 1) == number + 1
        os.kill(pid, signal.SIGINT)
    assert pool.call("os:getpid") == pid


def test_sigint_is_an_error_of_the_call_that_runs(
    interpreter: str, open_pool: Callable[..., vv.Pool], tmp_path: Path, until: Callable[..., None]
) -> None:
    """A KeyboardInterrupt in the worker is that call's error, and no KeyboardInterrupt of the host."""
    pool = open_pool(interpreter)
    pid = pool.call("os:getpid")
    future = pool.submit("deeds:sleep", 30, str(tmp_path / "began"))
    until((tmp_path / "began").exists)
    os.kill(pid, signal.SIGINT)
    error = future.exception(5)
    assert isinstance(error, vv.RemoteError)
    assert error.type_name.endswith("KeyboardInterrupt")
    assert pool.call("os:getpid") == pid


@pytest.mark.parametrize("kind", ["ignore", "python", "default"])
def test_user_code_may_change_what_sigint_does(extreme: str, kind: str, open_pool: Callable[..., vv.Pool]) -> None:
    """Whatever handler is left behind, SIGINT at an idle worker costs no call."""
    pool = open_pool(extreme)
    pid = pool.call("os:getpid")
    pool.call("deeds:set_interrupt_handler", kind)
    for number in range(10):
        try:
            os.kill(pid, signal.SIGINT)
        except ProcessLookupError:  # the default is to end, which it may
            pass
        assert pool.call("operator:add", number, 1) == number + 1
        time.sleep(0.005)


def test_a_call_may_end_its_worker_with_sigterm(extreme: str, open_pool: Callable[..., vv.Pool]) -> None:
    """`os.kill(os.getpid(), SIGTERM)` is a crash of that call with the signal's number."""
    pool = open_pool(extreme)
    with pytest.raises(vv.WorkerCrashed, match="SIGTERM") as caught:
        pool.call("deeds:die", "SIGTERM")
    assert (caught.value.signal, caught.value.exit_status) == (15, None)
    assert pool.call("deeds:square", 2) == 4


@pytest.mark.parametrize("daemon", [True, False], ids=["daemon", "non-daemon"])
def test_a_thread_left_running_does_not_keep_the_pool_from_closing(
    extreme: str, daemon: bool, open_pool: Callable[..., vv.Pool]
) -> None:
    """Closing takes the grace period at most, whatever threads user code left."""
    pool = open_pool(extreme, grace_period=0.5)
    assert pool.call("deeds:leave_thread", 60, daemon) >= 2
    assert pool.call("deeds:square", 2) == 4
    begin = time.monotonic()
    pool.shutdown()
    assert time.monotonic() - begin < 2.5


def test_child_processes_live_as_long_as_their_worker(
    extreme: str, open_pool: Callable[..., vv.Pool], gone: Callable[..., None]
) -> None:
    """A child outlives its call, and ends when the pool is closed."""
    pool = open_pool(extreme)
    children = [pool.call("deeds:start_child") for _ in range(3)]
    assert pool.call("deeds:square", 2) == 4
    assert all(psutil.pid_exists(child) for child in children)
    pool.shutdown()
    gone(*children)


def test_recursion_without_end_is_an_error_of_that_call(interpreter: str, open_pool: Callable[..., vv.Pool]) -> None:
    """RecursionError comes back as such; the worker goes on."""
    pool = open_pool(interpreter)
    pid = pool.call("os:getpid")
    with pytest.raises(RecursionError):
        pool.eval("(lambda f: f(f))(lambda f: f(f))")
    assert pool.call("os:getpid") == pid


def test_exit_handlers_of_user_code_run_when_a_worker_is_retired(
    extreme: str, open_pool: Callable[..., vv.Pool], tmp_path: Path
) -> None:
    """`atexit` in a worker means the end of the worker."""
    pool = open_pool(extreme)
    register = "__import__('atexit').register(__import__('deeds').touch, path) and None"
    pool.eval(register, path=str(tmp_path / "ended"))
    assert not (tmp_path / "ended").exists()
    pool.shutdown()
    assert (tmp_path / "ended").exists()
