"""Pools that grow when calls wait, and shrink when they do not."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]
Until = Callable[..., None]
IsSettled = Callable[..., None]


def alive(pool: vv.Pool) -> int:
    """Return how many workers serve or may serve."""
    states = pool.stats().workers
    return states["idle"] + states["busy"] + states["abandoned"]


def test_it_grows_for_calls_that_wait_and_no_further(make_pool: MakePool, tmp_path: Path, until: Until) -> None:
    """One worker for each call, up to the most; the rest waits."""
    pool = make_pool(workers=(1, 3))
    pool.warm()
    gate = str(tmp_path / "gate")
    futures = [pool.submit("poolwork:wait_for", gate) for _ in range(5)]
    until(lambda: alive(pool) == 3 and pool.stats().waiting == 2)
    assert [info.slot for info in pool.workers()] == [0, 1, 2]
    Path(gate).touch()
    for future in futures:
        future.result(20)
    assert pool.stats().workers_started == 3


def test_idle_workers_are_ended_down_to_the_least_the_longest_idle_first(make_pool: MakePool, until: Until) -> None:
    """The worker that was used last, which is warm, is the one that stays."""
    pool = make_pool(workers=(1, 3), scale=vv.ScalePolicy(idle_timeout=0.4))
    assert pool.warm(3) == 3
    pid = pool.call("poolwork:pid")
    end = time.monotonic() + 1.2
    while time.monotonic() < end:
        assert pool.call("poolwork:pid") == pid
    until(lambda: alive(pool) == 1)
    assert pool.call("poolwork:pid") == pid
    assert pool.stats().workers_ended == {"idle": 2}


@pytest.mark.parametrize("idle_timeout", [0, 0.1])
def test_a_short_idle_timeout_holds(make_pool: MakePool, until: Until, idle_timeout: float) -> None:
    """0 ends a worker as soon as anybody looks, and somebody does; a pool may go down to none."""
    pool = make_pool(workers=(0, 2), scale=vv.ScalePolicy(idle_timeout=idle_timeout))
    for _ in range(2):
        assert pool.call("poolwork:double", 4) == 8
        until(lambda: not pool.workers(), 5.0, "an empty pool")


def test_busy_and_leased_workers_are_never_ended_for_idleness(make_pool: MakePool, until: Until) -> None:
    """However long they are held."""
    pool = make_pool(workers=(1, 3), scale=vv.ScalePolicy(idle_timeout=0.1))
    with pool.lease() as lease:
        pid = lease.pid
        running = pool.submit("poolwork:nap", 0.8, "done")
        pool.warm(3)
        until(lambda: alive(pool) == 2)
        assert pool.reap() == 0
        assert running.result(10) == "done"
        assert lease.call("poolwork:pid") == pid


def test_reap_ends_the_idle_ones_now_and_says_how_many(make_pool: MakePool, until: Until) -> None:
    """Down to the least number; a second time there is nothing to do."""
    pool = make_pool(workers=(1, 4))
    assert pool.reap() == 0
    pool.warm(4)
    assert pool.reap() == 3
    assert pool.reap() == 0
    until(lambda: len(pool.workers()) == 1)
    assert pool.warm(2) == 2


def test_the_cooldown_spreads_growth(make_pool: MakePool, tmp_path: Path, until: Until) -> None:
    """The second worker above the least number has to wait; calls are served meanwhile."""
    events: list[vv.Event] = []
    pool = make_pool(workers=(1, 3), scale=vv.ScalePolicy(cooldown=0.5), on_event=events.append)
    pool.warm()
    gate = str(tmp_path / "gate")
    futures = [pool.submit("poolwork:wait_for", gate) for _ in range(3)]
    until(lambda: alive(pool) == 3)
    Path(gate).touch()
    for future in futures:
        future.result(20)
    grown = [
        event.at for event in events if event.kind == "scaled" and event.detail in ("1 -> 2 workers", "2 -> 3 workers")
    ]
    assert grown[1] - grown[0] > 0.4


def test_grown_and_replaced_workers_have_the_options_of_the_first(make_pool: MakePool, until: Until) -> None:
    """Working folder, variables of the slot and initializer; who replaces a worker has its slot."""
    options = {
        "env_vars": lambda slot: {"GPU": str(slot)},
        "initializer": "poolwork:remember",
        "initializer_args": ("who", "initialized"),
        "cwd": "/",
    }
    pool = make_pool(workers=(1, 2), options=options)
    pool.warm(2)

    def facts() -> list[tuple[object, ...]]:
        with pool.leases(2, timeout=20) as leases:
            return sorted(
                (lease.call("os:getenv", "GPU"), lease.call("poolwork:recall", "who"), lease.call("os:getcwd"))
                for lease in leases
            )

    expected = [("0", "initialized", "/"), ("1", "initialized", "/")]
    assert facts() == expected
    for info in pool.workers():
        assert info.pid is not None
        os.kill(info.pid, signal.SIGKILL)
        until(lambda pid=info.pid: all(other.pid != pid for other in pool.workers()))
        assert facts() == expected
    pool.reload()
    assert facts() == expected


def test_a_function_for_env_vars_that_fails_is_the_starts_error(make_pool: MakePool) -> None:
    """With what it raised; nothing hangs."""
    pool = make_pool(workers=1, options={"env_vars": lambda slot: {"GPU": [][slot]}})
    with pytest.raises(vv.WorkerStartError, match="IndexError"):
        pool.call("poolwork:pid")
    pool = make_pool(workers=1, options={"env_vars": lambda slot: {"GPU": slot}})
    with pytest.raises(vv.WorkerStartError, match="GPU"):
        pool.call("poolwork:pid")


def call_from_threads(pool: vv.Pool, numbers: range) -> list[int]:
    """Call `double` for each number from a thread of its own; return the answers, sorted."""
    answers: list[int] = []
    threads = [threading.Thread(target=lambda n=n: answers.append(pool.call("poolwork:double", n))) for n in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return sorted(answers)


def test_many_callers_grow_and_shrink_a_pool_again_and_again(make_pool: MakePool, until: Until) -> None:
    """Waves of calls with an eager idle timeout: every answer is right, and the number of workers is bounded."""
    pool = make_pool(workers=(0, 3), scale=vv.ScalePolicy(idle_timeout=0.02))
    most = 0
    for _ in range(4):
        answers = call_from_threads(pool, range(6))
        most = max(most, len([info for info in pool.workers() if info.state != "retiring"]))
        assert answers == [2 * n for n in range(6)]
        until(lambda: not pool.workers())
    assert most <= 3
