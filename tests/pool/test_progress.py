"""How far a call is: told while it runs, not too often, and never without the last."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]


def test_progress_is_told_while_the_call_runs(make_pool: MakePool, interpreter: str) -> None:
    """In the thread that waits, in order, the first at once and the last before the result."""
    pool = make_pool(interpreter, "asking", workers=1)
    told: list[tuple[vv.Progress, int]] = []
    view = pool.options(on_progress=lambda progress: told.append((progress, threading.get_ident())))
    assert view.call("slow_count", 30, 0.01, 30) == "counted"
    done = [progress.done for progress, _ in told]
    assert done == sorted(done)
    assert (done[0], done[-1], told[-1][0]) == (0, 29, vv.Progress(29, 30, "step 29"))
    assert {thread for _, thread in told} == {threading.get_ident()}


def test_it_is_not_told_too_often(make_pool: MakePool) -> None:
    """A loop that reports each of its steps costs the host next to nothing."""
    pool = make_pool(module="asking", workers=1)
    told: list[vv.Progress] = []
    begin = time.monotonic()
    pool.options(on_progress=told.append).call("slow_count", 3000, 0)
    assert told[-1].done == 2999
    assert len(told) <= 3 + (time.monotonic() - begin) / 0.05


def test_what_was_held_back_is_told_without_another(make_pool: MakePool, until: Callable[..., None]) -> None:
    """Also when the code then goes quiet for a long time."""
    pool = make_pool(module="asking", workers=1)
    told: list[float] = []
    future = pool.options(on_progress=lambda progress: told.append(progress.done)).submit("one_report_then", 30)
    until(lambda: told == [1, 2] or told == [2])
    assert future.progress == (2, None, "")
    future.cancel()
    with pytest.raises(vv.CallCancelled):
        future.result(20)


def test_a_future_knows_the_newest(make_pool: MakePool, until: Callable[..., None]) -> None:
    """Without any option, on every face that gives futures; it is kept when the call has ended."""
    pool = make_pool(module="asking", workers=1)
    future = pool.submit("slow_count", 5, 0.06, 5)
    assert future.progress is None or future.progress.done < 5
    until(lambda: future.progress is not None)
    assert future.result(20) == "counted"
    assert future.progress == (4, 5, "step 4")
    with pool.lease() as lease:
        leased = lease.submit("slow_count", 2, 0.06)
        leased.result(20)
        assert leased.progress == (1, None, "step 1")
        told: list[vv.Progress] = []
        lease.options(on_progress=told.append).call("slow_count", 1, 0)
        assert told == [(0, None, "step 0")]


def test_any_thread_of_a_call_may_report(make_pool: MakePool) -> None:
    """Between calls it is dropped."""
    pool = make_pool(module="asking", workers=1)
    told: list[vv.Progress] = []
    assert pool.options(on_progress=told.append).call("report_from_threads") == "reported"
    assert told == [(7, None, "")]


def test_an_error_of_on_progress_does_not_stop_the_work(make_pool: MakePool, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged."""
    pool = make_pool(module="asking", workers=1)
    assert pool.options(on_progress=lambda _: 1 / 0).call("slow_count", 1, 0) == "counted"
    assert "on_progress raised" in caplog.text


def test_progress_takes_numbers_and_a_text(make_pool: MakePool) -> None:
    """Anything else is an error where it is said; `on_progress` is a function."""
    pool = make_pool(module="asking", workers=1)
    with pytest.raises(TypeError, match="done is a number"):
        pool.call("bad_progress")
    with pytest.raises(TypeError, match="on_progress is a function"):
        pool.options(on_progress="print")  # type: ignore[arg-type]


def test_progress_before_a_crash_was_told(make_pool: MakePool) -> None:
    """It says how far the call came."""
    pool = make_pool(module="asking", workers=1)
    told: list[vv.Progress] = []
    with pytest.raises(vv.WorkerCrashed):
        pool.options(on_progress=told.append).call("report_and_die")
    assert told == [(1, 2, "")]
