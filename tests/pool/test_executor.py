"""A pool is a `concurrent.futures.Executor`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, as_completed, wait
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]


@pytest.fixture
def pool(make_pool: MakePool) -> vv.Pool:
    """Two workers."""
    return make_pool(workers=2)


def test_it_is_an_executor_and_its_futures_are_futures(pool: vv.Pool) -> None:
    """`isinstance` holds for both, so any library that takes an executor takes a pool."""
    assert isinstance(pool, Executor)
    assert isinstance(pool.submit(pow, 2, 8), vv.CallFuture)


def test_submit_returns_results_and_errors_through_the_future(pool: vv.Pool) -> None:
    """result() returns or raises, exception() returns, done() and running() tell."""
    good, bad = pool.submit(pow, 2, 8), pool.submit("poolwork:fail", "really")
    assert good.result(20) == 256
    assert good.exception() is None
    assert good.done()
    assert not good.running()
    assert isinstance(bad.exception(20), ValueError)
    with pytest.raises(ValueError, match="really"):
        bad.result()


def test_no_name_of_ours_shadows_a_keyword_of_the_target(pool: vv.Pool) -> None:
    """fn, self, target, args, timeout and the like go to the function."""
    kwargs = {"fn": 1, "self": 2, "target": 3, "args": 4, "kwargs": 5, "timeout": 6, "options": 7, "call": 8}
    assert pool.submit("poolwork:capture", 0, **kwargs).result(20) == ((0,), kwargs)
    assert pool.call("poolwork:capture", 0, **kwargs) == ((0,), kwargs)
    with pytest.raises(TypeError):
        pool.submit(fn="poolwork:capture")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        pool.call()  # type: ignore[call-arg]


def test_as_completed_and_wait_see_every_future(pool: vv.Pool) -> None:
    """The module-level functions of concurrent.futures work on our futures."""
    futures = [pool.submit("poolwork:double", n) for n in range(20)]
    assert sorted(future.result() for future in as_completed(futures, 20)) == [2 * n for n in range(20)]
    done, not_done = wait(futures, 20)
    assert (len(done), len(not_done)) == (20, 0)


def test_callbacks_run_once_the_result_is_there(pool: vv.Pool) -> None:
    """A callback added before or after the end is called with the done future."""
    seen: list[Any] = []
    came = threading.Event()
    future = pool.submit("poolwork:nap", 0.05, "x")
    future.add_done_callback(lambda done: (seen.append(done.result()), came.set()))
    assert came.wait(20)
    future.add_done_callback(lambda done: seen.append(done.done()))
    assert seen == ["x", True]


def test_an_exception_in_a_callback_harms_nothing(pool: vv.Pool, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged by concurrent.futures, and the pool goes on."""
    future = pool.submit("poolwork:nap", 0.05)
    future.add_done_callback(lambda _: 1 / 0)
    future.result(20)
    assert [pool.submit(pow, 2, n).result(20) for n in range(4)] == [1, 2, 4, 8]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_callback_may_call_the_pool(make_pool: MakePool, workers: int) -> None:
    """A worker is given back before the future completes, so even a pool of one serves a blocking call there."""
    pool = make_pool(workers=workers)
    answers: list[Any] = []
    came = threading.Event()

    def again(_: object) -> None:
        answers.append(pool.call("poolwork:double", 21))
        answers.append(pool.submit("poolwork:double", 4).result(20))
        came.set()

    pool.submit("poolwork:nap", 0.05).add_done_callback(again)
    assert came.wait(20)
    assert answers == [42, 8]


@pytest.mark.parametrize("end", ["shutdown", "shutdown_no_wait", "close"])
def test_a_callback_may_end_the_pool(make_pool: MakePool, end: str) -> None:
    """It returns instead of waiting for its own thread, and the pool ends."""
    pool = make_pool(workers=1)
    returned = threading.Event()
    ways: dict[str, Callable[[], None]] = {
        "shutdown": pool.shutdown,
        "shutdown_no_wait": lambda: pool.shutdown(wait=False),
        "close": pool.close,
    }

    def finish(_: object) -> None:
        ways[end]()
        returned.set()

    pool.submit("poolwork:nap", 0.05).add_done_callback(finish)
    assert returned.wait(20)
    with pytest.raises(vv.PoolClosed):
        pool.submit(pow, 2, 2)


def test_what_cannot_be_encoded_is_the_futures_error(pool: vv.Pool) -> None:
    """Arguments and results that cannot travel fail their future, and the worker serves on."""
    pool.warm()
    pid = pool.call("poolwork:pid")
    with pytest.raises(vv.EncodingError, match=r"double: argument args\[0\] \(a lock\)"):
        pool.submit("poolwork:double", threading.Lock()).result(20)
    with pytest.raises(vv.EncodingError, match="lock"):
        pool.submit("poolwork:unpicklable").result(20)
    assert pool.call("poolwork:pid") == pid


def test_a_target_that_is_none_is_refused_at_once(pool: vv.Pool) -> None:
    """What is neither a name nor callable is a TypeError; text that names nothing a ValueError."""
    with pytest.raises(TypeError, match="target"):
        pool.submit(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="module:attribute"):
        pool.submit("no such: thing")


def test_shutdown_finishes_what_was_submitted(pool: vv.Pool) -> None:
    """wait=True returns when all is done; later calls raise PoolClosed, which is a RuntimeError."""
    futures = [pool.submit("poolwork:nap", 0.02, n) for n in range(20)]
    pool.shutdown()
    assert [future.result(0) for future in futures] == list(range(20))
    assert pool.workers() == []
    for use in (lambda: pool.submit(pow, 1, 1), lambda: pool.call(pow, 1, 1), lambda: list(pool.map(abs, [1]))):
        with pytest.raises(RuntimeError, match="cannot schedule new"):
            use()


def test_shutdown_without_wait_still_finishes_what_was_submitted(pool: vv.Pool) -> None:
    """wait=False returns at once, and the futures complete."""
    futures = [pool.submit("poolwork:nap", 0.1, n) for n in range(6)]
    pool.shutdown(wait=False)
    assert [future.result(20) for future in futures] == list(range(6))


def test_shutdown_can_cancel_what_waits(pool: vv.Pool, tmp_path: Path, until: Callable[..., None]) -> None:
    """cancel_futures=True cancels queued calls only: running ones are finished."""
    go = tmp_path / "go"
    running = [pool.submit("poolwork:begin_and_wait_for", str(tmp_path / f"b{n}"), str(go), 20, n) for n in range(2)]
    until(lambda: all((tmp_path / f"b{n}").exists() for n in range(2)))
    waiting = [pool.submit("poolwork:touch", str(tmp_path / "never")) for _ in range(30)]
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in waiting)
    go.touch()
    assert [future.result(20) for future in running] == [0, 1]
    pool.shutdown()
    assert not (tmp_path / "never").exists()


def test_with_waits_for_submitted_calls(make_pool: MakePool) -> None:
    """Leaving the block returns when everything is done, also after an ordinary exception."""
    with make_pool(workers=2) as pool:
        futures = [pool.submit("poolwork:nap", 0.05, n) for n in range(6)]
    assert all(future.done() for future in futures)
    with pytest.raises(KeyError), make_pool(workers=2) as pool:  # noqa: PT012 - the block is what is tested
        future = pool.submit("poolwork:nap", 0.1, 5)
        raise KeyError
    assert future.result(0) == 5


def test_leaving_with_ctrl_c_does_not_wait_for_calls(make_pool: MakePool) -> None:
    """Whoever presses Ctrl-C does not wait for a call that takes long."""
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), make_pool(workers=1) as pool:  # noqa: PT012 - as above
        future = pool.submit("poolwork:stubborn", 60)
        raise KeyboardInterrupt
    assert time.monotonic() - began < 10
    assert future.exception(10) is not None


@pytest.mark.parametrize("number", [0, -1])
def test_max_workers_has_the_standard_librarys_error(number: int) -> None:
    """`max_workers=` is an alias with the ValueError everybody knows."""
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        vv.Pool(max_workers=number)


def test_max_workers_is_an_upper_bound(make_pool: MakePool, tmp_path: Path, until: Callable[..., None]) -> None:
    """As in other executors, that many calls run at once and no more workers are started."""
    pool = make_pool(max_workers=3)
    began = [tmp_path / f"{n}" for n in range(3)]
    futures = [pool.submit("poolwork:begin_and_wait_for", str(path), str(tmp_path / "go")) for path in began]
    futures += [pool.submit(pow, 2, 2) for _ in range(5)]
    until(lambda: all(path.exists() for path in began))
    assert len(pool.workers()) == 3
    (tmp_path / "go").touch()
    assert [future.exception(20) for future in futures] == [None] * 8
