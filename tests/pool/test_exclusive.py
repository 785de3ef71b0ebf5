"""Leases of workers that run several calls at once: the whole worker is for one user."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]
Until = Callable[..., None]
IsSettled = Callable[..., None]


@pytest.fixture
def shared_pool(make_pool: MakePool) -> Callable[..., vv.Pool]:
    """Make pools whose workers run four calls at once."""

    def make(**rest: Any) -> vv.Pool:
        return make_pool(None, "together", options={"concurrency": 4}, **rest)

    return make


def test_a_leased_worker_gets_no_other_call(shared_pool: Callable[..., vv.Pool], is_settled: IsSettled) -> None:
    """Calls of the pool wait until the lease has ended, and then run at once again."""
    pool = shared_pool(workers=1)
    with pool.lease() as worker:
        futures = [pool.submit("pid") for _ in range(8)]
        pid = worker.call("pid")
        with pytest.raises(vv.CallTimeout):
            pool.options(timeout=0.2).call("pid")
        assert not any(future.done() for future in futures)
        assert worker.exec("x = 1") is None
        assert worker.eval("x + 1") == 2
    assert {future.result(10) for future in futures} == {pid}
    is_settled(pool, 1)
    assert list(pool.map("anap", [0.2] * 4)) == [None] * 4
    assert pool.call("most") == 4


def test_a_lease_waits_for_the_calls_that_run_there(shared_pool: Callable[..., vv.Pool]) -> None:
    """Newer calls do not get ahead of it for ever."""
    pool = shared_pool(workers=1)
    pool.warm()
    stop = threading.Event()

    def keep_busy() -> int:
        count = 0
        while not stop.is_set():
            pool.call("nap", 0.02)
            count += 1
        return count

    with ThreadPoolExecutor(3) as threads:
        counts = [threads.submit(keep_busy) for _ in range(3)]
        time.sleep(0.1)
        with pool.lease(timeout=10) as worker:
            before = worker.call("poolwork:pid")
            time.sleep(0.1)
            assert [info.running for info in pool.workers()] == [1]  # the lease
        time.sleep(0.1)
        stop.set()
        assert all(count.result(10) > 2 for count in counts)
    assert pool.call("poolwork:pid") == before


def test_a_worker_with_nothing_to_do_is_preferred(shared_pool: Callable[..., vv.Pool]) -> None:
    """A lease does not wait for a long call while another worker is idle."""
    pool = shared_pool(workers=2)
    pool.warm(2)
    slow = pool.submit("nap", 1.0)
    began = time.monotonic()
    with pool.lease(timeout=10) as worker:
        assert worker.call("poolwork:double", 4) == 8
        assert time.monotonic() - began < 0.9
        assert pool.call("poolwork:double", 5) == 10  # beside the slow one
    slow.result(10)


def test_a_worker_is_started_for_a_lease(shared_pool: Callable[..., vv.Pool]) -> None:
    """Rather than waiting for the calls of one that is there."""
    pool = shared_pool(workers=(1, 2))
    pool.warm()
    slow = pool.submit("nap", 3.0)
    began = time.monotonic()
    with pool.lease(timeout=10) as worker:
        assert worker.call("poolwork:double", 4) == 8
        assert time.monotonic() - began < 2.5
    slow.cancel()


def test_a_lease_that_gives_up_waiting_leaves_no_worker_aside(
    shared_pool: Callable[..., vv.Pool], is_settled: IsSettled
) -> None:
    """The worker that was to become free serves on with all its lanes."""
    pool = shared_pool(workers=1)
    pool.warm()
    slow = pool.submit("nap", 1.0, "slow")
    with pytest.raises(vv.CallTimeout), pool.lease(timeout=0.2):
        pass
    assert [future.result(10) for future in [pool.submit("anap", 0.2, n) for n in range(3)]] == [0, 1, 2]
    assert slow.result(10) == "slow"
    is_settled(pool, 1)
    assert list(pool.map("anap", [0.2] * 4)) == [None] * 4
    assert pool.call("most") == 4


def test_many_leases_and_calls_share_two_workers(shared_pool: Callable[..., vv.Pool], is_settled: IsSettled) -> None:
    """Nobody waits for ever, nothing crosses, and no lane is lost."""
    pool = shared_pool(workers=2)

    def lease(number: int) -> Any:
        with pool.lease(timeout=60) as worker:
            worker.exec("mine = number", number=number)
            worker.call("nap", 0.005)
            return worker.eval("mine")

    def call(number: int) -> Any:
        return pool.call("anap", 0.005, number)

    with ThreadPoolExecutor(10) as threads:
        futures = [threads.submit((lease, call, call)[number % 3], number) for number in range(120)]
        assert [future.result(60) for future in futures] == list(range(120))
    is_settled(pool, 2)
    assert [info.running for info in pool.workers()] == [0, 0]
    with pool.leases(2) as workers:
        assert len({worker.pid for worker in workers}) == 2


def test_a_leased_worker_that_dies_is_replaced(shared_pool: Callable[..., vv.Pool], is_settled: IsSettled) -> None:
    """The lease says so, and the next one gets another."""
    pool = shared_pool(workers=1)
    with pool.lease() as worker:
        with pytest.raises(vv.WorkerCrashed):
            worker.call("poolwork:die")
        with pytest.raises(vv.WorkerError):
            worker.call("pid")
    with pool.lease(timeout=10) as worker:
        assert worker.call("poolwork:double", 1) == 2
    is_settled(pool, 1)


def test_a_lease_whose_worker_dies_while_it_waits_gets_another(shared_pool: Callable[..., vv.Pool]) -> None:
    """The claim is on any worker."""
    pool = shared_pool(workers=1)
    pool.warm()
    slow = pool.submit("nap", 60)
    time.sleep(0.1)
    timer = threading.Timer(0.3, lambda: pool.kill(pool.workers()[0].id))
    timer.start()
    with pool.lease(timeout=20) as worker:
        assert worker.call("poolwork:double", 1) == 2
    timer.join()
    with pytest.raises(vv.WorkerCrashed):
        slow.result(10)


def test_a_pool_ends_after_its_leases_and_those_who_wait_for_one(shared_pool: Callable[..., vv.Pool]) -> None:
    """`shutdown` lets them have their turn; `close` tells them."""
    pool = shared_pool(workers=1)
    pool.warm()
    slow = pool.submit("nap", 0.6)
    with ThreadPoolExecutor(2) as threads:

        def lease() -> Any:
            with pool.lease() as worker:
                return worker.call("poolwork:double", 1)

        waiting = threads.submit(lease)
        time.sleep(0.2)
        pool.shutdown()
        assert waiting.result(10) == 2
    assert slow.done()
    pool = shared_pool(workers=1)
    pool.warm()
    pool.submit("nap", 60)
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(lease)
        time.sleep(0.2)
        pool.close(0.1)
        with pytest.raises(vv.PoolClosed):
            waiting.result(10)


def test_a_named_worker_runs_several_calls_at_once(shared_pool: Callable[..., vv.Pool]) -> None:
    """It is one process with its state, for as many as its concurrency says."""
    pool = shared_pool(workers=1)
    worker = pool.named("shared")
    worker.call("poolwork:remember", "key", 7)
    futures = [worker.submit("anap", 0.3, number) for number in range(4)]
    assert [future.result(10) for future in futures] == [0, 1, 2, 3]
    assert worker.call("most") == 4
    assert worker.call("poolwork:recall", "key") == 7
    worker.exec("y = 5")
    assert worker.eval("y") == 5


def test_an_asyncio_lease_takes_the_whole_worker_too(home: Path) -> None:
    """Calls at once share it before and after, and none runs meanwhile."""

    async def main() -> None:
        worker = vv.WorkerOptions(paths=[Path(__file__).with_name("work")], concurrency=4, output="discard")
        async with vv.AsyncPool(None, "together", workers=1, worker=worker) as pool:
            calls = [pool.call(("anap", "nap")[number % 2], 0.3, number) for number in range(4)]
            assert await asyncio.gather(*calls) == [0, 1, 2, 3]
            assert await pool.call("most") == 4
            async with pool.lease() as lease:
                other = asyncio.ensure_future(pool.call("poolwork:double", 2))
                await lease.call("nap", 0.2)
                assert not other.done()
            assert await asyncio.wait_for(other, 10) == 4

    asyncio.run(main())
