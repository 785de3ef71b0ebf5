"""How a pool ends: dropped, closed, used after its end, many times over."""

from __future__ import annotations

import gc
import os
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]
Until = Callable[..., None]


def quiet_pool(home: Path, **options: Any) -> vv.Pool:
    """Return a pool that nobody but the test refers to."""
    return vv.Pool(home=home, worker=vv.WorkerOptions(output="discard", grace_period=0.6), **options)


def test_dropping_an_idle_pool_ends_its_workers(home: Path, until: Until) -> None:
    """Within two seconds of the last reference; the object is gone at once, without a collection of cycles."""
    pool = quiet_pool(home, workers=2)
    pool.warm()
    pids = [info.pid for info in pool.workers()]
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids if pid), 2.0, "the end of the workers")


@pytest.mark.parametrize("count", [1, 8])
def test_a_dropped_pool_completes_the_futures_it_owes(home: Path, until: Until, count: int) -> None:
    """As the standard library's executors: pending calls are finished, then the workers end."""
    pool = quiet_pool(home, workers=2)
    pool.warm()
    pids = [info.pid for info in pool.workers()]
    futures = [pool.submit("time:sleep", 0.1) for _ in range(count)]
    del pool
    gc.collect()
    assert [future.result(20) for future in futures] == [None] * count
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids if pid), 2.0, "the end of the workers")


def test_a_pool_dropped_before_its_first_worker_is_ready_completes_its_futures(home: Path) -> None:
    """`Pool().submit(f).result()` in one line."""
    assert quiet_pool(home).submit("math:sqrt", 16.0).result(20) == 4.0


def test_a_view_and_a_handle_keep_their_pool_alive(home: Path) -> None:
    """Whoever can still call has workers."""
    view = quiet_pool(home, workers=1).options(timeout=20)
    module = quiet_pool(home, workers=1).module("math")
    gc.collect()
    assert view.call("math:sqrt", 4) == 2
    assert module.sqrt(4) == 2
    del view, module
    gc.collect()


@pytest.mark.parametrize("target", ["poolwork:nap", "poolwork:stubborn"])
def test_close_is_bounded_with_a_running_call(make_pool: MakePool, target: str, until: Until) -> None:
    """What runs longer is ended and raises PoolClosed, in the caller and in futures; so does what waits."""
    pool = make_pool(workers=2)
    pool.warm()
    caught: list[BaseException] = []

    def call() -> None:
        try:
            pool.call(target, 60)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    until(lambda: pool.stats().workers["busy"] == 1)
    running = pool.submit(target, 60)
    until(running.running)
    waiting = pool.submit("poolwork:pid")
    began = time.monotonic()
    pool.close(0.3)
    assert time.monotonic() - began < 3.5
    thread.join(10)
    errors = [*caught, running.exception(10), waiting.exception(10)]
    assert [type(error) for error in errors] == [vv.PoolClosed] * 3
    assert pool.workers() == []


def test_close_lets_a_call_finish_within_its_time(make_pool: MakePool, until: Until) -> None:
    """The result is there."""
    pool = make_pool(workers=1)
    future = pool.submit("poolwork:nap", 0.4, "done")
    until(future.running)
    pool.close(20)
    assert future.result(0) == "done"


def test_a_closed_pool_says_so(make_pool: MakePool) -> None:
    """Every use raises PoolClosed with the pool's name; closing again does nothing."""
    pool = make_pool(workers=1, name="retired")
    pool.call("poolwork:pid")
    view, module, lease = pool.options(timeout=5), pool.module("math"), pool.lease()
    pool.close()
    pool.close(0)
    pool.shutdown()
    uses: list[Callable[[], object]] = [
        lambda: pool.call("math:sqrt", 4),
        lambda: pool.submit("math:sqrt", 4),
        lambda: list(pool.map("math:sqrt", [4])),
        lambda: pool.eval("1"),
        pool.warm,
        pool.__enter__,
        lambda: view.call("math:sqrt", 4),
        lambda: module.sqrt(4),
        lease.__enter__,
    ]
    for use in uses:
        with pytest.raises(vv.PoolClosed, match="retired") as caught:
            use()
        assert isinstance(caught.value, RuntimeError)
    assert pool.stats().phase == "closed"
    assert "closed" in repr(pool)


def test_a_pool_that_was_never_opened_can_be_closed(make_pool: MakePool) -> None:
    """In each way, at once."""
    for end in (lambda pool: pool.close(), lambda pool: pool.shutdown(), lambda pool: pool.shutdown(wait=False)):
        pool = make_pool()
        end(pool)
        with pytest.raises(vv.PoolClosed):
            pool.call("math:sqrt", 4)


def test_close_while_the_pool_opens(make_pool: MakePool) -> None:
    """Who waits for the first worker gets PoolClosed, and the worker that was starting is gone."""
    pool = make_pool(workers=2, options={"initializer": "time:sleep", "initializer_args": [60]})
    future = pool.submit("poolwork:pid")
    time.sleep(0.2)
    began = time.monotonic()
    pool.close(0.2)
    assert time.monotonic() - began < 3.5
    assert isinstance(future.exception(5), vv.PoolClosed)


def test_no_future_is_left_unfinished_by_a_close_right_after_its_submission(make_pool: MakePool) -> None:
    """Wherever the call is on its way to a worker: its future ends, with PoolClosed or a result."""
    for round_ in range(40):
        pool = make_pool(workers=1 + round_ % 2)
        pool.warm()
        futures = [pool.submit("poolwork:stubborn", 60) for _ in range(1 + round_ % 3)]
        pool.close(0)
        assert [type(future.exception(5)) for future in futures] == [vv.PoolClosed] * len(futures)


def test_concurrent_closes_all_return(make_pool: MakePool) -> None:
    """Eight threads close one pool while calls run."""
    pool = make_pool(workers=2)
    futures = [pool.submit("poolwork:nap", 0.2) for _ in range(4)]
    threads = [threading.Thread(target=pool.close, args=(n % 2,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert all(future.done() for future in futures)


@pytest.mark.slow
def test_fifty_cycles_leave_descriptors_threads_and_files_as_before(home: Path, until: Until) -> None:
    """Open, call in each way, close, in turn by each kind of end; also while the pool objects are kept."""

    def measure() -> tuple[int, int, int]:
        return (len(os.listdir("/proc/self/fd")), threading.active_count(), len(os.listdir(tempfile.gettempdir())))

    kept = []
    for cycle in range(53):
        if cycle == 3:
            before = measure()
        pool = quiet_pool(home, workers=2)
        assert pool.call("math:sqrt", 4) == 2
        assert pool.submit("math:sqrt", 9).result(20) == 3
        assert list(pool.map("math:sqrt", [16, 25])) == [4, 5]
        (pool.close, pool.shutdown, lambda pool=pool: pool.close(0))[cycle % 3]()
        kept.append(pool)
    until(lambda: measure()[:2] == before[:2], 3.0, f"{before}, now {measure()}: equality")
    assert measure()[2] <= before[2] + 5, "others use the folder for temporary files, too"
    kept.clear()


EXIT = """
    import sys, threading, time
    import venvoy as vv

    pool = vv.Pool(workers=2)
    pool.warm()
    print(*[info.pid for info in pool.workers()], flush=True)
    {what}
"""
EXITS = {
    "without close": "",
    "by exception": "raise SystemExit(3)",
    "with a call in flight in a thread": (
        "threading.Thread(target=lambda: pool.call('time:sleep', 60), daemon=True).start(); time.sleep(0.3)"
    ),
    "with futures running and waiting": (
        "futures = [pool.submit('time:sleep', 60) for _ in range(9)]; time.sleep(0.3)"
    ),
    "from a thread": "threading.Thread(target=lambda: pool.call('time:sleep', 0.1)).start()",
    "with a lease": "lease = pool.lease().__enter__()",
    "with a map half read": "results = pool.map('time:sleep', [0, 0, 60]); next(results)",
}


@pytest.mark.parametrize("how", EXITS)
def test_the_interpreter_exits_promptly_with_its_own_status(run_script: Callable[..., Any], how: str) -> None:
    """Whatever the pool is doing: within the time a call may take to be ended, and without a worker left."""
    began = time.monotonic()
    done = run_script(EXIT.format(what=EXITS[how]))
    assert time.monotonic() - began < 6
    assert done.returncode == (3 if how == "by exception" else 0), done.stderr
    if "thread" not in how:  # a thread's call may be ended with PoolClosed, which the thread then prints
        assert "Traceback" not in done.stderr
    assert not any(psutil.pid_exists(int(pid)) for pid in done.stdout.split())
    assert ("dropped" in done.stderr) == (how == "with futures running and waiting")
