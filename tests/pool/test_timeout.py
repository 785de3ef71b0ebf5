"""Deadlines, further attempts, and the options of single calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]
Until = Callable[..., None]
IsSettled = Callable[..., None]
OVERSHOOT = 1.5  # seconds a loaded machine may add to a deadline


@pytest.mark.parametrize("target", ["poolwork:nap", "poolwork:spin", "poolwork:stubborn"])
def test_a_blocking_call_is_left_at_its_deadline(make_pool: MakePool, target: str, is_settled: IsSettled) -> None:
    """The caller has CallTimeout in time, whatever the code does; the next call works at once."""
    pool = make_pool(workers=1)
    pool.warm()
    began = time.monotonic()
    with pytest.raises(vv.CallTimeout) as caught:
        pool.options(timeout=0.3).call(target, 60)
    assert 0.29 <= time.monotonic() - began < 0.3 + OVERSHOOT
    assert isinstance(caught.value, TimeoutError)
    assert pool.call("poolwork:double", 4) == 8
    is_settled(pool, 1)
    assert pool.stats().calls_timed_out == 1


@pytest.mark.parametrize("target", ["poolwork:nap", "poolwork:stubborn"])
def test_a_submitted_call_is_left_at_its_deadline(make_pool: MakePool, target: str, is_settled: IsSettled) -> None:
    """The same through a future, without anybody waiting for it."""
    pool = make_pool(workers=1)
    pool.warm()
    began = time.monotonic()
    future = pool.options(timeout=0.3).submit(target, 60)
    with pytest.raises(vv.CallTimeout):
        future.result(20)
    assert 0.29 <= time.monotonic() - began < 0.3 + OVERSHOOT
    assert pool.submit("poolwork:double", 4).result(20) == 8
    is_settled(pool, 1)
    assert pool.stats().calls_timed_out == 1


@pytest.mark.parametrize("way", ["call", "submit"])
def test_a_call_whose_deadline_passes_in_the_queue_never_runs(
    make_pool: MakePool, tmp_path: Path, until: Until, way: str
) -> None:
    """It is dropped in time while the worker is still busy with another, and leaves no trace."""
    pool = make_pool(workers=1)
    slow = pool.submit("poolwork:begin_and_wait_for", str(tmp_path / "began"), str(tmp_path / "go"))
    until((tmp_path / "began").exists)
    view, began = pool.options(timeout=0.3), time.monotonic()
    run = view.call if way == "call" else lambda *call: view.submit(*call).result(20)
    with pytest.raises(vv.CallTimeout):
        run("poolwork:touch", str(tmp_path / "trace"))
    assert 0.29 <= time.monotonic() - began < 0.3 + OVERSHOOT
    assert not slow.done()
    assert pool.stats().waiting == 0
    (tmp_path / "go").touch()
    slow.result(20)
    pool.call("poolwork:pid")
    assert not (tmp_path / "trace").exists()


def test_the_time_in_the_queue_counts(make_pool: MakePool, tmp_path: Path, until: Until) -> None:
    """The deadline is counted from submission, not from the start of the code."""
    pool = make_pool(workers=1)
    slow = pool.submit("poolwork:begin_and_wait_for", str(tmp_path / "began"), str(tmp_path / "go"))
    until((tmp_path / "began").exists)
    began = time.monotonic()
    future = pool.options(timeout=1.0).submit("poolwork:nap", 60)
    until(lambda: time.monotonic() - began > 0.5)
    (tmp_path / "go").touch()
    assert isinstance(future.exception(20), vv.CallTimeout)
    assert time.monotonic() - began < 1.0 + OVERSHOOT
    slow.result(20)


@pytest.mark.parametrize("way", ["call", "submit", "map"])
def test_timeout_zero_is_a_deadline_that_has_passed(make_pool: MakePool, way: str, is_settled: IsSettled) -> None:
    """A call that takes any time raises at once, and the pool is as before."""
    pool = make_pool(workers=1)
    pool.warm()
    view = pool.options(timeout=0)
    ways: dict[str, Callable[[], Any]] = {
        "call": lambda: view.call("poolwork:nap", 60),
        "submit": lambda: view.submit("poolwork:nap", 60).result(20),
        "map": lambda: list(view.map("poolwork:nap", [60])),
    }
    with pytest.raises(vv.CallTimeout):
        ways[way]()
    assert pool.call("poolwork:double", 1) == 2
    is_settled(pool, 1)


def test_the_deadline_holds_while_the_pool_opens(make_pool: MakePool) -> None:
    """A first call with a deadline does not wait for a worker that takes longer to start."""
    pool = make_pool(workers=1, options={"initializer": "time:sleep", "initializer_args": [30]})
    began = time.monotonic()
    with pytest.raises(vv.CallTimeout):
        pool.options(timeout=0.5).call("poolwork:pid")
    assert time.monotonic() - began < 0.5 + OVERSHOOT


def test_no_stale_answer_after_many_timeouts(make_pool: MakePool, is_settled: IsSettled) -> None:
    """An answer that comes just at the deadline is never given to another call."""
    pool = make_pool(workers=2)
    pool.warm()
    view = pool.options(timeout=0.02)
    timeouts = 0
    for n in range(120):
        try:
            assert view.call("poolwork:nap", 0.0175 + 0.0005 * (n % 10), n) == n
        except vv.CallTimeout:
            timeouts += 1
        assert pool.call("poolwork:double", n) == 2 * n
    assert timeouts > 0
    is_settled(pool, 2)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"timeout": -1}, ValueError, "timeout"),
        ({"timeout": "5"}, TypeError, "timeout"),
        ({"timeout": True}, TypeError, "timeout"),
        ({"timeout": float("nan")}, ValueError, "timeout"),
        ({"timeout": float("inf")}, ValueError, "timeout"),
        ({"retries": -1}, ValueError, "retries"),
        ({"retries": 1.5}, (TypeError, ValueError), "retries"),
        ({"retries": True}, (TypeError, ValueError), "retries"),
        ({"retrys": 1}, TypeError, "retrys"),
    ],
)
def test_wrong_options_are_refused_at_once(
    make_pool: MakePool, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    """Where they are given, with their name in the text."""
    with pytest.raises(error, match=words):
        make_pool().options(**options)


def test_a_view_is_light_and_leaves_the_pool_as_it_is(make_pool: MakePool) -> None:
    """It has the calling methods, the same workers, and keeps no option for others."""
    pool = make_pool(workers=1)
    view = pool.options(timeout=20, retries=1)
    assert view.call("poolwork:pid") == pool.call("poolwork:pid") == view.submit("poolwork:pid").result(20)
    assert view.eval("1 + x", x=2) == 3
    assert view.module("poolwork").double(3) == 6
    assert list(view.map("poolwork:double", [1, 2])) == [2, 4]


def test_keywords_of_call_go_to_the_target_and_its_error_hints_at_options(make_pool: MakePool) -> None:
    """`call(f, timeout=5)` passes it on; where f has no such parameter, the TypeError says what was meant."""
    pool = make_pool(workers=1)
    assert pool.call("poolwork:with_timeout_name", timeout=5) == 5
    with pytest.raises(TypeError, match="timeout") as caught:
        pool.call("poolwork:double", 1, timeout=5)
    assert "options(timeout=" in "".join(getattr(caught.value, "__notes__", []))
    with pytest.raises(TypeError) as caught:
        pool.call("poolwork:double", 1, nonsense=5)
    assert not getattr(caught.value, "__notes__", [])


@pytest.mark.parametrize("way", ["call", "submit", "map"])
def test_retries_run_a_call_again_after_a_crash(make_pool: MakePool, tmp_path: Path, way: str, until: Until) -> None:
    """One attempt more, on another worker; the caller sees only the result."""
    pool, path = make_pool(workers=1), str(tmp_path / "died")
    view = pool.options(retries=1)
    ways: dict[str, Callable[[], Any]] = {
        "call": lambda: view.call("poolwork:die_once", path),
        "submit": lambda: view.submit("poolwork:die_once", path).result(20),
        "map": lambda: next(iter(list(view.map("poolwork:die_once", [path])))),
    }
    assert ways[way]() == pool.call("poolwork:pid")
    until(lambda: pool.stats().workers_crashed == 1)


@pytest.mark.parametrize("way", ["call", "submit"])
def test_a_crash_is_the_calls_error_once_no_attempt_is_left(make_pool: MakePool, way: str, until: Until) -> None:
    """retries=2 makes three attempts; without retries there is one; errors of the code are never retried."""
    pool = make_pool(workers=1)
    for retries in (0, 2):
        view, crashes = pool.options(retries=retries), pool.stats().workers_crashed + retries + 1
        with pytest.raises(vv.WorkerCrashed) as caught:
            view.call("poolwork:die", 3) if way == "call" else view.submit("poolwork:die", 3).result(20)
        assert (caught.value.exit_status, caught.value.started) == (3, True)
        until(lambda crashes=crashes: pool.stats().workers_crashed == crashes)
    with pytest.raises(ValueError, match="as asked"):
        pool.options(retries=5).call("poolwork:fail")
    assert pool.call("poolwork:double", 2) == 4
