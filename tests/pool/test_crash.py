"""Workers that die: only their calls fail, the pool stays full."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]
Until = Callable[..., None]
IsSettled = Callable[..., None]


@pytest.mark.parametrize("way", ["call", "submit"])
def test_only_the_calls_of_a_dead_worker_fail(make_pool: MakePool, is_settled: IsSettled, way: str) -> None:
    """Five of a hundred calls end their worker: exactly those fail, with the exit status; the pool is full again."""
    pool = make_pool(workers=2)
    expected = {n for n in range(100) if n % 20 == 7}
    failed: dict[int, vv.WorkerCrashed] = {}
    calls = [("poolwork:die", 9) if n in expected else ("poolwork:double", n) for n in range(100)]
    futures = [pool.submit(*call) for call in calls] if way == "submit" else []
    for n, call in enumerate(calls):
        try:
            answer = futures[n].result(30) if futures else pool.call(*call)
            assert answer == 2 * n
        except vv.WorkerCrashed as error:
            failed[n] = error
    assert set(failed) == expected
    for error in failed.values():
        assert (error.exit_status, error.signal, error.started) == (9, None, True)
        assert "die" in error.target
    is_settled(pool, 2)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_signal_is_named_in_the_error(make_pool: MakePool, number: signal.Signals) -> None:
    """`signal` is its number, `exit_status` None, and the text has its name."""
    pool = make_pool(workers=1)
    pid = pool.call("poolwork:pid")
    with pytest.raises(vv.WorkerCrashed, match=number.name) as caught:
        pool.call("poolwork:signal_self", int(number))
    assert (caught.value.signal, caught.value.exit_status, caught.value.pid) == (number, None, pid)
    assert pool.call("poolwork:pid") != pid


def test_the_error_carries_what_was_printed_last(make_pool: MakePool) -> None:
    """The end of the output, which is usually the reason, is in the error and in its text."""
    pool = make_pool(workers=1)
    pool.call("poolwork:out", "about to fall")
    with pytest.raises(vv.WorkerCrashed, match="about to fall") as caught:
        pool.call("poolwork:die")
    assert "about to fall" in caught.value.output_tail


@pytest.mark.parametrize("way", ["call", "submit"])
def test_a_worker_killed_while_idle_costs_no_call(make_pool: MakePool, way: str) -> None:
    """A call that had not started is run again by the pool itself, without retries."""
    pool = make_pool(workers=1)
    for n in range(8):
        os.kill(pool.call("poolwork:pid"), signal.SIGKILL)
        answer = pool.call("poolwork:double", n) if way == "call" else pool.submit("poolwork:double", n).result(20)
        assert answer == 2 * n


def test_calls_sent_ahead_to_a_worker_that_dies_are_run_elsewhere(make_pool: MakePool) -> None:
    """They had not started, so nobody needs to know."""
    pool = make_pool(workers=1)
    for future in [pool.submit("poolwork:double", n) for n in range(60)]:
        future.result(20)
    futures = [pool.submit("poolwork:double", n) for n in range(30)]
    futures += [pool.submit("poolwork:die")]
    futures += [pool.submit("poolwork:double", n) for n in range(30)]
    errors = [future.exception(20) for future in futures]
    assert [type(error).__name__ for error in errors if error is not None] == ["WorkerCrashed"]
    assert errors[30] is not None


def kill_at_random(pool: vv.Pool, seconds: float) -> int:
    """Kill a worker every now and then; return how many were killed."""
    chance, kills, end = random.Random(3), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.05 + chance.random() * 0.1)
        alive = [info.pid for info in pool.workers() if info.state in ("idle", "busy") and info.pid]
        if alive:
            os.kill(chance.choice(alive), signal.SIGKILL)
            kills += 1
    return kills


@pytest.mark.slow
def test_workers_killed_at_random_under_load_fail_only_calls_of_their_own(
    make_pool: MakePool, is_settled: IsSettled
) -> None:
    """Four threads call and submit while workers are killed: right answers or WorkerCrashed, no hang, a full pool."""
    pool = make_pool(workers=3)
    pool.warm()
    wrong: list[object] = []
    crashed: list[vv.WorkerCrashed] = []
    is_over = threading.Event()

    def ask(n: int, retries: int) -> None:
        view = pool.options(retries=retries)
        futures = [view.submit("poolwork:nap", 0.001, (n, k)) for k in range(5)]
        for k, get in enumerate([*(future.result for future in futures), lambda _: view.call("poolwork:nap", 0, n)]):
            try:
                if get(40) != ((n, k) if k < 5 else n):
                    wrong.append((n, k))
            except vv.WorkerCrashed as error:
                crashed.append(error)

    def load(seed: int) -> None:
        n = seed * 100_000
        while not is_over.is_set():
            n += 1
            ask(n, retries=0)

    threads = [threading.Thread(target=load, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    kills = kill_at_random(pool, seconds=4)
    is_over.set()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    assert kills > 10
    assert len(crashed) <= kills
    is_settled(pool, 3)


@pytest.mark.slow
def test_with_enough_retries_random_kills_are_not_noticed(make_pool: MakePool, is_settled: IsSettled) -> None:
    """retries covers what had started: every future has its result."""
    pool = make_pool(workers=2)
    pool.warm()
    futures = [pool.options(retries=50).submit("poolwork:nap", 0.002, n) for n in range(600)]
    chance = random.Random(4)
    while not futures[-1].done():
        time.sleep(0.03 + chance.random() * 0.05)
        for info in pool.workers():
            if info.state == "busy" and info.pid and chance.random() < 0.5:
                with suppress(ProcessLookupError):  # it has ended since, by the kill before
                    os.kill(info.pid, signal.SIGKILL)
    assert [future.result(30) for future in futures] == list(range(600))
    is_settled(pool, 2)


def test_a_dead_worker_is_replaced_without_a_call(make_pool: MakePool, until: Until) -> None:
    """Replacement starts at once, so that the next call finds a warm worker."""
    pool = make_pool(workers=2)
    pool.warm()
    pids = {info.pid for info in pool.workers()}
    pool.call("poolwork:double", 1)
    until(lambda: all(info.age > 1.5 for info in pool.workers()))  # younger, it would count as one that failed to start
    os.kill(next(iter(pids)), signal.SIGKILL)  # type: ignore[arg-type]
    until(lambda: pool.stats().workers["idle"] == 2 and {info.pid for info in pool.workers()} != pids)


def test_killing_the_worker_by_its_id(make_pool: MakePool, tmp_path: Path, until: Until) -> None:
    """kill() ends it at once; the call that ran there raises WorkerCrashed, also when it is stubborn."""
    pool = make_pool(workers=1)
    future = pool.submit("poolwork:stubborn", 60, str(tmp_path / "began"))
    until((tmp_path / "began").exists)
    [info] = pool.workers()
    pool.kill(info.id)
    with pytest.raises(vv.WorkerCrashed):
        future.result(5)
    assert pool.call("poolwork:pid") != info.pid


@pytest.mark.parametrize("end", ["terminate", "kill"])
@pytest.mark.parametrize("way", ["call", "submit"])
def test_no_call_is_served_by_a_worker_that_was_told_to_end(make_pool: MakePool, end: str, way: str) -> None:
    """Not even one that is made in the very next moment."""
    pool = make_pool(workers=1)
    for _ in range(5):
        pid = pool.call("poolwork:pid")
        getattr(pool, end)(pool.workers()[0].id)
        after = pool.call("poolwork:pid") if way == "call" else pool.submit("poolwork:pid").result(20)
        assert after != pid


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_terminating_a_worker_by_its_id(make_pool: MakePool, tmp_path: Path, until: Until, state: str) -> None:
    """terminate() asks, then insists: the worker is gone, its call has ended with an error, another serves."""
    pool = make_pool(workers=1)
    pid = pool.call("poolwork:pid")
    future = pool.submit("poolwork:begin_and_wait_for", str(tmp_path / "b"), "/no") if state == "busy" else None
    until(lambda: future is None or (tmp_path / "b").exists())
    pool.terminate(pool.workers()[0].id)
    if future is not None:
        assert isinstance(future.exception(10), vv.WorkerError)
    until(lambda: pid not in [info.pid for info in pool.workers()])
    assert pool.call("poolwork:double", 3) == 6


def test_unknown_workers_are_a_lookup_error(make_pool: MakePool) -> None:
    """The text names the pool and the workers there are."""
    pool = make_pool(workers=1, name="crew")
    pool.warm()
    known = pool.workers()[0].id
    for use in (pool.kill, pool.terminate, pool.output):
        with pytest.raises(LookupError, match=rf"(?s)crew.*99.*{known}"):
            use(99)
    with pytest.raises(LookupError, match="stdin"):
        pool.output(stream="stdin")
