"""Workers that have done enough are replaced, the replacement ready first."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]
Until = Callable[..., None]


@pytest.mark.parametrize("way", ["call", "submit", "map", "lease"])
def test_no_worker_runs_more_calls_than_it_may(make_pool: MakePool, until: Until, way: str) -> None:
    """`max_calls` is strict, and no call fails."""
    pool = make_pool(workers=2, options={"max_calls": 10})
    if way == "call":
        pids = [pool.call("poolwork:pid") for _ in range(60)]
    elif way == "submit":
        pids = [future.result(20) for future in [pool.submit("poolwork:pid") for _ in range(60)]]
    elif way == "map":
        pids = list(pool.map("poolwork:pid_for", range(60), chunksize=1))
    else:
        pids = []
        for _ in range(30):
            with pool.lease(timeout=20) as lease:
                pids += [lease.call("poolwork:pid") for _ in range(2)]
    counts = Counter(pids)
    assert len(pids) == 60
    assert max(counts.values()) <= 10 + (way == "lease")  # a lease is not interrupted
    until(lambda: pool.stats().workers_ended.get("max_calls", 0) >= 4)
    assert pool.stats().workers_crashed == 0


def test_one_call_for_each_worker(make_pool: MakePool) -> None:
    """`max_calls=1` with several workers and many callers ends, in processes of their own."""
    pool = make_pool(workers=3, options={"max_calls": 1})
    pids = [future.result(30) for future in [pool.submit("poolwork:pid") for _ in range(40)]]
    assert len(set(pids)) == 40


def test_the_replacement_is_ready_before_a_worker_reaches_its_last_call(make_pool: MakePool) -> None:
    """No call waits for a start, as long as calls come no faster than workers can be started."""
    pool = make_pool(workers=1, options={"max_calls": 60})
    pool.warm()
    waits, pids = [], set()
    for _ in range(130):
        time.sleep(0.01)
        begin = time.monotonic()
        pids.add(pool.call("poolwork:pid"))
        waits.append(time.monotonic() - begin)
    assert len(pids) >= 3
    begin = time.monotonic()
    make_pool(workers=1).call("poolwork:pid")
    start = time.monotonic() - begin
    assert sorted(waits)[-3] < max(0.05, start)


def test_a_worker_past_its_age_goes_once_its_replacement_is_ready(make_pool: MakePool, until: Until) -> None:
    """Without a call, by time alone; one is always there to serve."""
    pool = make_pool(workers=1, options={"max_age": 0.4})
    first = pool.call("poolwork:pid")
    until(lambda: pool.stats().workers_ended.get("age", 0) >= 2)
    assert pool.call("poolwork:pid") != first
    assert pool.stats().workers_crashed == 0


def test_old_leased_workers_are_let_alone(make_pool: MakePool, until: Until) -> None:
    """They go when their lease ends."""
    pool = make_pool(workers=(1, 2), options={"max_age": 0.2})
    with pool.lease() as lease:
        pid = lease.pid
        time.sleep(0.6)
        assert lease.call("poolwork:pid") == pid
    until(lambda: all(info.pid != pid for info in pool.workers()))


def test_memory_is_bounded_and_no_call_fails(make_pool: MakePool, until: Until) -> None:
    """A leak of 10 MB a call, a limit of 100 MB: workers go before they are much larger."""
    most = 100_000_000
    pool = make_pool(workers=1, options={"max_rss": most})
    sizes = [pool.call("poolwork:leak", 10_000_000) for _ in range(40)]
    assert max(sizes) < most + 25_000_000
    assert len(sizes) == 40
    until(lambda: pool.stats().workers_ended.get("memory", 0) >= 2)
    assert pool.stats().workers_crashed == 0


def test_calls_given_up_count_too(make_pool: MakePool, until: Until) -> None:
    """A worker whose calls all time out, and are stopped cleanly, is replaced like any other."""
    pool = make_pool(workers=1, options={"max_calls": 3})

    def times_out() -> bool:
        with pytest.raises(vv.CallTimeout):
            pool.options(timeout=0.05).call("poolwork:nap", 30)
        return pool.stats().workers_ended.get("max_calls", 0) >= 2

    until(times_out, 20)


def test_a_named_worker_is_not_recycled_by_the_limits_of_the_pool(make_pool: MakePool, until: Until) -> None:
    """It would lose its state; limits of its own hold, and end it."""
    pool = make_pool(workers=1, options={"max_calls": 2})
    worker = pool.named("alice")
    worker.exec("n = 0")
    for _ in range(5):
        worker.exec("n += 1")
    assert worker.eval("n") == 5
    short = pool.named("bob", max_calls=2)
    for _ in range(2):
        short.call("poolwork:pid")
    until(lambda: all(info.name != "bob" for info in pool.workers()))
    with pytest.raises(vv.WorkerError):
        short.call("poolwork:pid")
