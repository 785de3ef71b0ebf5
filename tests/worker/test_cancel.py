"""Stopping a call in the worker: `Cancelled` ends user code, never more than that; what resists is killed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest

import venvoy as vv


@pytest.mark.parametrize("deed", ["sleep", "spin"])
def test_a_deadline_interrupts_the_call_and_keeps_the_worker(
    interpreter: str, deed: str, open_pool: Callable[..., vv.Pool]
) -> None:
    """A sleep or a Python loop ends at the deadline, and the same worker serves the next call."""
    pool = open_pool(interpreter, grace_period=20)
    pid = pool.call("deeds:pid")
    args = [60] if deed == "sleep" else []
    for _ in range(3):
        begin = time.monotonic()
        with pytest.raises(vv.CallTimeout):
            pool.options(timeout=0.05).call(f"deeds:{deed}", *args)
        assert time.monotonic() - begin < 1.0
        assert pool.call("os:getpid") == pid


def test_cancelling_a_future_interrupts_the_call_and_keeps_the_worker(
    extreme: str, open_pool: Callable[..., vv.Pool], tmp_path: Path, until: Callable[..., None]
) -> None:
    """`cancel()` of a running future stops the call in the worker, which goes on."""
    pool = open_pool(extreme, grace_period=20)
    pid = pool.call("os:getpid")
    future = pool.submit("deeds:sleep", 60, str(tmp_path / "began"))
    until((tmp_path / "began").exists)
    assert future.cancel()
    assert isinstance(future.exception(5), vv.CallCancelled)
    assert pool.call("os:getpid") == pid


@pytest.mark.parametrize("road", ["call", "submit"])
def test_finally_of_user_code_runs(
    extreme: str, road: str, open_pool: Callable[..., vv.Pool], tmp_path: Path, until: Callable[..., None]
) -> None:
    """A call that is stopped cleans up after itself, behind the caller's back."""
    pool = open_pool(extreme, "deeds")
    pool.warm()
    view = pool.options(timeout=0.1)
    run = view.call if road == "call" else lambda *args: view.submit(*args).result(5)
    with pytest.raises(vv.CallTimeout):
        run("deeds:clean_up", str(tmp_path / "clean"), 60)
    until((tmp_path / "clean").exists)


@pytest.mark.parametrize("road", ["call", "submit"])
@pytest.mark.parametrize("deed", ["swallow", "hold_the_lock"])
def test_a_call_that_resists_is_killed_after_the_grace_period(
    extreme: str, deed: str, road: str, open_pool: Callable[..., vv.Pool]
) -> None:
    """The caller has its error at the deadline; the worker is ended behind it, and the next call gets another."""
    pool = open_pool(extreme, "deeds", grace_period=0.4)
    pid = pool.call("os:getpid")
    args = [60] if deed == "swallow" else []
    view = pool.options(timeout=0.1)
    run = view.call if road == "call" else lambda *args: view.submit(*args).result(10)
    begin = time.monotonic()
    with pytest.raises(vv.CallTimeout):
        run(f"deeds:{deed}", *args)
    assert time.monotonic() - begin < 0.1 + 0.4
    assert pool.call("os:getpid") != pid
    assert time.monotonic() - begin < 3


def test_a_request_that_was_swallowed_is_repeated(
    extreme: str, open_pool: Callable[..., vv.Pool], tmp_path: Path
) -> None:
    """Code that swallows the first `Cancelled`, as a `__del__` would, gets a second one before it is killed."""
    pool = open_pool(extreme, "deeds", grace_period=2)
    pid = pool.call("os:getpid")
    with pytest.raises(vv.CallTimeout):
        pool.options(timeout=0.1).call("deeds:swallow_once", str(tmp_path / "swallowed"))
    assert pool.call("os:getpid") == pid
    assert (tmp_path / "swallowed").read_text() == "Cancelled"


def test_a_worker_whose_call_ends_otherwise_than_by_cancelled_is_replaced(
    extreme: str, open_pool: Callable[..., vv.Pool]
) -> None:
    """User code that swallows the request and returns in time may have left anything behind: its worker goes."""
    pool = open_pool(extreme, "deeds", grace_period=5)
    pid = pool.call("os:getpid")
    with pytest.raises(vv.CallTimeout):
        pool.options(timeout=0.1).call("deeds:poll_until_cancelled")
    assert pool.call("os:getpid") != pid


def test_user_code_can_ask_whether_it_is_cancelled(
    extreme: str, open_pool: Callable[..., vv.Pool], tmp_path: Path, until: Callable[..., None]
) -> None:
    """`is_cancelled()` is False before and True after the request, and False again in the next call."""
    path = str(tmp_path / "answer")

    def ask(path):  # type: ignore[no-untyped-def]
        import time

        import venvoy_worker

        before = venvoy_worker.is_cancelled()
        try:
            time.sleep(60)
        except venvoy_worker.Cancelled:
            with open(path, "w") as file:
                file.write(f"{before} {venvoy_worker.is_cancelled()}")
            raise

    pool = open_pool(extreme, "deeds")
    pid = pool.call("os:getpid")
    with pytest.raises(vv.CallTimeout):
        pool.options(timeout=0.1).call(vv.by_source(ask), path)
    number, is_cancelled = pool.call("deeds:call_numbers")
    assert (tmp_path / "answer").read_text() == "False True"
    assert not is_cancelled
    assert number > 1
    assert pool.call("os:getpid") == pid


def test_calls_have_numbers_of_their_own(interpreter: str, open_pool: Callable[..., vv.Pool]) -> None:
    """`call_id()` is another in every call of a worker, and 0 in a thread between calls."""
    pool = open_pool(interpreter)
    numbers = [pool.call("deeds:call_numbers")[0] for _ in range(10)]
    assert len(set(numbers)) == 10
    assert 0 not in numbers


def _one_storm(pool: vv.Pool, calls: int, seconds: float, rng: random.Random) -> tuple[int, int]:
    """Make calls whose deadlines fall around their ends; check every answer; return how many were in time and late."""
    done = late = 0
    for number in range(calls):
        timeout = rng.uniform(0.2, 2.0) * seconds
        try:
            assert pool.options(timeout=timeout).call("deeds:echo_after", number, rng.uniform(0, seconds)) == number
            done += 1
        except vv.CallTimeout:
            late += 1
    return done, late


def test_deadlines_around_the_end_of_short_calls_never_mix_up_answers(
    extreme: str, open_pool: Callable[..., vv.Pool]
) -> None:
    """In hundreds of calls whose deadline falls about when they end, none gets another's answer, and no worker dies."""
    pool = open_pool(extreme, "deeds", grace_period=20)
    pool.warm()
    rng = random.Random(20)
    done, late = _one_storm(pool, 400, 0.004, rng)
    assert done
    assert late
    assert pool.call("deeds:echo", "after") == "after"
    assert pool.stats().workers_crashed == 0


@pytest.mark.slow
def test_thousands_of_deadlines_leave_every_answer_right(interpreter: str, open_pool: Callable[..., vv.Pool]) -> None:
    """The same at length, on two workers and four threads, with other calls in between."""
    pool = open_pool(interpreter, "deeds", workers=2, grace_period=20)
    pool.warm()

    def storm(seed: int) -> tuple[int, int]:
        return _one_storm(pool, 700, 0.001, random.Random(seed))

    with ThreadPoolExecutor(4) as threads:
        counts = list(threads.map(storm, range(4)))
    assert sum(map(sum, counts)) == 2800
    assert pool.stats().workers_crashed == 0
    assert [pool.call("deeds:echo", number) for number in range(50)] == list(range(50))


def test_cancelled_futures_never_mix_up_answers(extreme: str, open_pool: Callable[..., vv.Pool]) -> None:
    """Futures cancelled at any moment are cancelled or exact; those after them are exact."""
    pool = open_pool(extreme, "deeds", workers=2, grace_period=20)
    pool.warm()
    rng = random.Random(3)
    for _ in range(20):
        futures = [pool.submit("deeds:echo_after", number, rng.uniform(0, 0.001)) for number in range(20)]
        for future in rng.sample(futures, 8):
            future.cancel()
        for number, future in enumerate(futures):
            try:
                assert future.result(20) == number
            except CancelledError:  # a CallCancelled too
                pass
    assert pool.call("deeds:echo", "after") == "after"
    assert pool.stats().workers_crashed == 0


def test_deadlines_during_output_and_large_answers_harm_nothing(
    extreme: str, open_pool: Callable[..., vv.Pool]
) -> None:
    """A request to stop that falls into printing, pickling or writing the answer loses no later answer."""
    pool = open_pool(extreme, "noises", grace_period=20)
    pool.call("deeds:echo", 0)
    rng = random.Random(5)
    for number in range(60):
        try:
            got = pool.options(timeout=rng.uniform(0.0005, 0.02)).eval(
                "[str(i) * 10 for i in range(n)]", n=3000 + number
            )
            assert len(got) == 3000 + number
        except vv.CallTimeout:
            pass
        try:
            assert pool.options(timeout=rng.uniform(0.0005, 0.02)).call("noises:flood", 300 + number) == 300 + number
        except vv.CallTimeout:
            pass
        assert pool.call("deeds:echo", number) == number
    assert pool.stats().workers_crashed == 0


def test_a_call_stopped_while_it_imports_leaves_no_half_imported_module(
    extreme: str, open_pool: Callable[..., vv.Pool], tmp_path: Path
) -> None:
    """Python cannot go on with an import that was interrupted; the next call that needs the module has it whole."""
    package = tmp_path / "slow_package"
    package.mkdir()
    (package / "part.py").write_text("VALUE = 5")
    (package / "__init__.py").write_text("from .part import *\nimport time\ntime.sleep(0.4)\nNAME = part.VALUE\n")
    pool = open_pool(extreme, paths=[tmp_path], grace_period=5)
    pool.warm()
    with pytest.raises(vv.CallTimeout):
        pool.options(timeout=0.1).call("slow_package:part.VALUE.__index__")
    assert pool.call("slow_package:NAME.__index__") == 5
