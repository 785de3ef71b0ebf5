"""Who gets which worker: prefetching, batches, many threads, growth."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]
Until = Callable[..., None]
IsSettled = Callable[..., None]


def make_quick(pool: vv.Pool) -> None:
    """Let the pool measure that calls are quick, so that it sends them ahead."""
    wait([pool.submit("poolwork:double", n) for n in range(60)], 20)


@pytest.mark.parametrize("workers", [2, (1, 2)])
def test_a_call_sent_ahead_of_one_that_waits_for_it_runs_elsewhere(
    make_pool: MakePool, tmp_path: Path, workers: object
) -> None:
    """The first call waits for what a later one does: no dead-lock, also when the second worker must be started."""
    pool = make_pool(workers=workers)
    make_quick(pool)
    for round_ in range(12):
        meeting = str(tmp_path / str(round_))
        quick = [pool.submit("poolwork:double", n) for n in range(20)]  # what follows is sent ahead behind these
        first = pool.submit("poolwork:wait_for", meeting, 15, "met")
        others = [pool.submit("poolwork:double", n) for n in range(30)]
        second = pool.submit("poolwork:touch", meeting)
        assert first.result(20) == "met"
        second.result(20)
        assert [other.result(20) for other in others] == [2 * n for n in range(30)]
        assert [future.result(20) for future in quick] == [2 * n for n in range(20)]


def test_blocking_callers_are_served_while_a_worker_holds_calls_sent_ahead(make_pool: MakePool, tmp_path: Path) -> None:
    """What waits behind a slow call is taken back and runs on the other worker, in order, calls as well."""
    pool = make_pool(workers=2)
    make_quick(pool)
    go = str(tmp_path / "go")
    quick = [pool.submit("poolwork:double", n) for n in range(20)]
    first = pool.submit("poolwork:wait_for", go, 15, "met")
    others = [pool.submit("poolwork:pid") for _ in range(40)]
    assert pool.call("poolwork:double", 4) == 8
    pids = {other.result(10) for other in others}
    assert len(pids) <= 2
    assert [future.result(10) for future in quick] == [2 * n for n in range(20)]
    assert not first.done()
    pool.call("poolwork:touch", go)
    assert first.result(20) == "met"


@pytest.mark.parametrize(("count", "size"), [(16, 60_000), (64, 20_000), (200, 4_000), (8, 3_000_000)])
@pytest.mark.parametrize("workers", [1, 2])
def test_many_medium_requests_with_large_replies_do_not_block_each_other(
    make_pool: MakePool, count: int, size: int, workers: int
) -> None:
    """Both sides would sit in write if one of them did not read meanwhile."""
    pool = make_pool(workers=workers)
    make_quick(pool)
    futures = [pool.submit("poolwork:size_of", b"q" * size, size) for _ in range(count)]
    for future in futures:
        length, reply = future.result(40)
        assert (length, len(reply)) == (size, size)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_twenty_threads_that_call_and_submit_get_their_own_answers(
    make_pool: MakePool, is_settled: IsSettled, workers: int
) -> None:
    """Twenty threads, two hundred calls each, half of them through futures: every answer is the right one."""
    pool = make_pool(workers=workers)
    wrong: list[object] = []

    def use(number: int) -> None:
        futures = []
        for n in range(100):
            futures.append((n, pool.submit("poolwork:capture", number, n)))
            answer = pool.call("poolwork:capture", n, number)
            if answer != ((n, number), {}):
                wrong.append(answer)
        wrong.extend(n for n, future in futures if future.result(40) != ((number, n), {}))

    threads = [threading.Thread(target=use, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    is_settled(pool, workers)
    assert pool.stats().calls_done == 4000


def test_a_blocking_call_is_not_starved_by_a_flood_of_submits(make_pool: MakePool) -> None:
    """It waits for its turn in the queue, not for the end of the flood that goes on behind it."""
    pool = make_pool(workers=1)
    pool.warm()
    flood = [pool.submit("poolwork:nap", 0.002) for _ in range(30)]
    is_over = threading.Event()

    def keep_on() -> None:
        while not is_over.is_set():
            flood.append(pool.submit("poolwork:nap", 0.002))
            time.sleep(0.001)

    thread = threading.Thread(target=keep_on)
    thread.start()
    try:
        for n in range(2):
            assert pool.options(timeout=20).call("poolwork:double", n) == 2 * n
    finally:
        is_over.set()
        thread.join()
    for future in flood:
        future.cancel()


def test_a_submit_is_not_starved_by_blocking_callers(make_pool: MakePool) -> None:
    """The other way round: a future completes while threads call without a pause."""
    pool = make_pool(workers=1)
    is_over = threading.Event()

    def keep_on() -> None:
        while not is_over.is_set():
            pool.call("poolwork:nap", 0.001)

    threads = [threading.Thread(target=keep_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for n in range(5):
            assert pool.submit("poolwork:double", n).result(20) == 2 * n
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def test_waiting_calls_are_served_in_the_order_in_which_they_came(
    make_pool: MakePool, tmp_path: Path, until: Until
) -> None:
    """First come, first served, for submitted calls on one worker."""
    pool = make_pool(workers=1)
    first = pool.submit("poolwork:begin_and_wait_for", str(tmp_path / "began"), str(tmp_path / "go"))
    until((tmp_path / "began").exists)
    order: list[int] = []
    futures = [pool.submit("poolwork:nap", 0.002, n) for n in range(20)]
    for future in futures:
        future.add_done_callback(lambda done: order.append(done.result()))
    (tmp_path / "go").touch()
    wait([first, *futures], 20)
    assert order == list(range(20))


def test_a_pool_grows_when_calls_wait_and_not_otherwise(make_pool: MakePool, tmp_path: Path, until: Until) -> None:
    """One call after the other needs one worker; calls at the same time need more, up to the most allowed."""
    pool = make_pool(workers=(1, 3))
    for n in range(30):
        pool.call("poolwork:double", n)
        pool.submit("poolwork:double", n).result(20)
    assert pool.stats().workers_started == 1
    began = [tmp_path / f"began{n}" for n in range(3)]
    futures = [pool.submit("poolwork:begin_and_wait_for", str(path), str(tmp_path / "go")) for path in began]
    futures += [pool.submit("poolwork:pid") for _ in range(10)]
    until(lambda: all(path.exists() for path in began))
    assert len(pool.workers()) == 3
    (tmp_path / "go").touch()
    assert wait(futures, 20).not_done == set()
    assert pool.stats().workers_started == 3


def test_growth_serves_blocking_callers_too(make_pool: MakePool, tmp_path: Path) -> None:
    """Four threads whose calls wait for all the others: each needs a worker of its own."""
    pool = make_pool(workers=(1, 4))

    def meet(n: int) -> None:
        pool.call("poolwork:meet", str(tmp_path), str(n), 4)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(meet, range(4)))
    assert pool.stats().workers_started == 4


def test_concurrent_first_calls_start_the_pool_once(make_pool: MakePool, is_settled: IsSettled) -> None:
    """Sixteen threads that all make the first call: two workers, no more, and sixteen answers."""
    pool = make_pool(workers=2)
    barrier = threading.Barrier(16)

    def first(n: int) -> int:
        barrier.wait()
        return int(pool.call("poolwork:double", n) if n % 2 else pool.submit("poolwork:double", n).result(20))

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(first, range(16))) == [2 * n for n in range(16)]
    is_settled(pool, 2)
    assert pool.stats().workers_started == 2


def test_a_pool_from_zero_starts_workers_for_calls(make_pool: MakePool) -> None:
    """workers=(0, 2) keeps none, and starts one for the first call."""
    pool = make_pool(workers=(0, 2))
    assert pool.warm() == 0
    assert pool.call("poolwork:double", 2) == 4
    assert pool.stats().workers_started == 1
