"""Cancelling a call: before it runs, while it runs, and too late."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, wait
from pathlib import Path

import pytest

import venvoy as vv
from venvoy.pool import ahead

MakePool = Callable[..., vv.Pool]
Until = Callable[..., None]


def occupy(pool: vv.Pool, folder: Path, until: Until, target: str = "poolwork:begin_and_wait_for") -> vv.CallFuture:
    """Start a call that lasts until `folder / "go"` exists, and return once its code runs."""
    future = pool.submit(target, str(folder / "began"), str(folder / "go"))
    until((folder / "began").exists)
    return future


def test_a_waiting_call_is_cancelled_and_never_runs(make_pool: MakePool, tmp_path: Path, until: Until) -> None:
    """As in the standard library: True, cancelled(), and no trace of it."""
    pool = make_pool(workers=1)
    slow = occupy(pool, tmp_path, until)
    waiting = pool.submit("poolwork:touch", str(tmp_path / "trace"))
    assert waiting.cancel()
    assert waiting.cancelled()
    with pytest.raises(CancelledError):
        waiting.result(0)
    (tmp_path / "go").touch()
    slow.result(20)
    pool.call("poolwork:pid")
    assert not (tmp_path / "trace").exists()
    assert wait([waiting], 5).done == {waiting}


def test_a_call_that_is_taken_back_costs_the_next_one_nothing(
    make_pool: MakePool, tmp_path: Path, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was on the worker, ahead of one that then runs for longer than the grace period."""
    monkeypatch.setattr(ahead, "STALL", 60.0)  # they all stay there
    pool = make_pool(module="poolwork", workers=1)
    for future in [pool.submit("double", n) for n in range(100)]:
        future.result(10)
    pool.submit("double", 0)
    before = pool.submit("wait_for", str(tmp_path / "go"))
    futures = [pool.submit("double", 1), pool.submit("nap", 1.2, "whole")]
    until(futures[0].running)
    assert futures[0].cancel()
    (tmp_path / "go").touch()
    before.result(10)
    assert futures[1].result(10) == "whole"
    with pytest.raises(vv.CallCancelled):
        futures[0].result(10)


@pytest.mark.parametrize("target", ["poolwork:nap", "poolwork:spin"])
def test_a_running_call_is_stopped_and_its_worker_lives(
    make_pool: MakePool, interpreter: str, target: str, until: Until
) -> None:
    """cancel() says True, the future stays RUNNING until the worker obeyed, the same worker serves the next call."""
    pool = make_pool(interpreter, workers=1)
    pid = pool.call("poolwork:pid")
    future = pool.submit(target, 60)
    until(lambda: pool.stats().workers["busy"] == 1 and future.running())
    time.sleep(0.1)  # into the user's code; either way the outcome is the same
    assert future.cancel()
    with pytest.raises(vv.CallCancelled) as caught:
        future.result(10)
    assert isinstance(caught.value, CancelledError)
    assert not future.cancelled(), "it ran, so it is no CANCELLED future in the standard library's sense"
    assert pool.call("poolwork:pid") == pid


def test_a_stubborn_call_is_killed_at_the_end_of_the_grace_period(
    make_pool: MakePool, tmp_path: Path, until: Until, is_settled: Callable[..., None]
) -> None:
    """Its future is RUNNING till then and ends with CallCancelled; the pool has a new worker."""
    pool = make_pool(workers=1, options={"grace_period": 0.8})
    pid = pool.call("poolwork:pid")
    future = pool.submit("poolwork:stubborn", 60, str(tmp_path / "began"))
    until((tmp_path / "began").exists)
    assert future.cancel()
    assert future.running()
    assert future.cancel(), "asked twice is asked once"
    assert isinstance(future.exception(10), vv.CallCancelled)
    assert pool.call("poolwork:pid") != pid
    is_settled(pool, 1)


def test_a_done_call_cannot_be_cancelled(make_pool: MakePool) -> None:
    """cancel() says False and changes nothing, as often as it is asked."""
    pool = make_pool(workers=1)
    future = pool.submit("poolwork:double", 4)
    assert future.result(20) == 8
    assert not future.cancel()
    assert future.result() == 8


def test_a_call_that_catches_the_wish_and_returns_is_cancelled_all_the_same(
    make_pool: MakePool, tmp_path: Path, until: Until
) -> None:
    """Whoever cancelled never sees a result, and its worker is not given to the next call with such code in it."""
    pool = make_pool(workers=1, options={"grace_period": 5.0})
    future = pool.submit("poolwork:stubborn", 0.6, str(tmp_path / "began"))
    until((tmp_path / "began").exists)
    assert future.cancel()
    assert isinstance(future.exception(10), vv.CallCancelled)
    assert pool.call("poolwork:double", 2) == 4


def test_cancelling_at_random_moments_never_mixes_up_answers(
    make_pool: MakePool, is_settled: Callable[..., None]
) -> None:
    """Each future gives its own answer or CancelledError, never another's, and all workers are there at the end."""
    pool = make_pool(workers=2)
    pool.warm()
    answers = 0
    for round_ in range(60):
        futures = [pool.submit("poolwork:nap", 0.0005 * (n % 4), (round_, n)) for n in range(12)]
        for future in futures[round_ % 3 :: 3]:
            future.cancel()
        for n, future in enumerate(futures):
            try:
                assert future.result(20) == (round_, n)
                answers += 1
            except CancelledError:
                pass
    assert answers > 60
    is_settled(pool, 2)


def test_callbacks_of_a_cancelled_running_call_run_once_it_has_ended(
    make_pool: MakePool, tmp_path: Path, until: Until
) -> None:
    """Not at the request: the future is done only when the worker is."""
    pool = make_pool(workers=1)
    ended = threading.Event()
    future = pool.submit("poolwork:stubborn", 60, str(tmp_path / "began"))
    future.add_done_callback(lambda _: ended.set())
    until((tmp_path / "began").exists)
    future.cancel()
    assert not ended.is_set()
    assert ended.wait(10)


def test_cancel_reaches_a_call_that_was_sent_ahead(
    make_pool: MakePool, tmp_path: Path, until: Until, is_settled: Callable[..., None]
) -> None:
    """Quick calls are sent to the worker behind a running one; cancelled there, they never run."""
    pool = make_pool(workers=1)
    for future in [pool.submit("poolwork:double", 1) for _ in range(50)]:
        future.result(20)
    for _ in range(15):
        pool.submit("poolwork:double", 1)
    first = pool.submit("poolwork:begin_and_wait_for", str(tmp_path / "began"), str(tmp_path / "go"))
    others = [pool.submit("poolwork:touch", str(tmp_path / f"trace{n}")) for n in range(5)]
    until((tmp_path / "began").exists)
    assert all(other.cancel() for other in others)
    assert all(isinstance(other.exception(5), CancelledError) if not other.cancelled() else True for other in others)
    (tmp_path / "go").touch()
    first.result(20)
    is_settled(pool, 1)
    assert list(tmp_path.glob("trace*")) == []
