"""What a pool tells of itself: events in their order, and figures."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]
Until = Callable[..., None]
IsSettled = Callable[..., None]


def test_the_life_of_a_pool_in_order(make_pool: MakePool) -> None:
    """Each worker is spawned, ready, and ends once; a close is not a crash; "closed" is last."""
    events: list[vv.Event] = []
    pool = make_pool(workers=2, on_event=events.append, name="lively")
    pool.warm()
    with pytest.raises(vv.WorkerCrashed):
        pool.call("poolwork:die")
    pool.warm()
    pool.close()
    by_worker: dict[int | None, list[str]] = {}
    for event in events:
        by_worker.setdefault(event.worker, []).append(event.kind)
    assert by_worker.pop(None) == ["closed"]
    assert Counter(map(tuple, by_worker.values())) == {
        ("spawned", "ready", "retired"): 2,
        ("spawned", "ready", "crashed"): 1,
    }
    assert events[-1].kind == "closed"
    assert {event.pool for event in events} == {"lively"}
    assert [event.at for event in events] == sorted(event.at for event in events)
    crash = next(event for event in events if event.kind == "crashed")
    assert (crash.reason, crash.pid is not None) == ("crashed", True)
    assert "9" in crash.detail
    assert {event.reason for event in events if event.kind == "retired"} == {"closed"}


def test_a_start_that_fails_gives_no_ready_event(make_pool: MakePool) -> None:
    """And one that says what was wrong."""
    events: list[vv.Event] = []
    pool = make_pool(module="poolwork_broken", workers=1, on_event=events.append)
    with pytest.raises(vv.WorkerStartError):
        pool.warm()
    pool.close()
    assert [event.kind for event in events] == ["spawned", "start_failed", "closed"]
    assert events[1].reason == "start_failed"


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_an_end_that_was_asked_for_is_no_crash(make_pool: MakePool, is_settled: IsSettled, how: str) -> None:
    """Its reason is "killed"."""
    events: list[vv.Event] = []
    pool = make_pool(workers=1, on_event=events.append)
    pool.warm()
    getattr(pool, how)(pool.workers()[0].id)
    pool.close()
    ends = [(event.kind, event.reason) for event in events if event.kind in ("retired", "crashed")]
    assert ("retired", "killed") in ends
    assert {kind for kind, _ in ends} == {"retired"}


def test_a_function_that_raises_is_logged_and_told_the_next_event(
    make_pool: MakePool, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of the pool stops."""
    seen: list[str] = []

    def listen(event: vv.Event) -> None:
        seen.append(event.kind)
        raise SystemExit("listener")

    with caplog.at_level(logging.ERROR, logger="venvoy"):
        pool = make_pool(workers=1, on_event=listen)
        assert pool.call("poolwork:double", 1) == 2
        pool.close()
    assert seen == ["spawned", "ready", "retired", "closed"]
    assert caplog.text.count("listener") >= 4


def test_a_listener_may_use_the_pool(make_pool: MakePool, until: Until) -> None:
    """No lock is held, and it runs on a thread of its own."""
    answers: list[object] = []
    pools: list[vv.Pool] = []

    def listen(event: vv.Event) -> None:
        if event.kind == "ready":
            answers.append(
                (threading.current_thread().name, pools[0].stats().phase, pools[0].call("poolwork:double", 4))
            )

    pools.append(make_pool(workers=1, on_event=listen))
    pools[0].warm()
    until(lambda: answers)
    assert answers == [("venvoy-notifier", "open", 8)]


def test_stats_count_calls_and_ends(make_pool: MakePool, is_settled: IsSettled, until: Until) -> None:
    """Done includes those that raised; those given up at a deadline are counted apart."""
    pool = make_pool(workers=2)
    for n in range(5):
        pool.call("poolwork:double", n)
    futures = [pool.submit("poolwork:double", n) for n in range(5)]
    assert [future.result(20) for future in futures] == [0, 2, 4, 6, 8]
    for way in (pool.call, lambda *args: pool.submit(*args).result(20)):
        with pytest.raises(ValueError, match="as asked"):
            way("poolwork:fail")
    for way in (pool.options(timeout=0.1).call, lambda *args: pool.options(timeout=0.1).submit(*args).result(20)):
        with pytest.raises(vv.CallTimeout):
            way("poolwork:nap", 30)
    with pool.lease() as lease:
        lease.call("poolwork:double", 1)
        with pytest.raises(ValueError, match="as asked"):
            lease.call("poolwork:fail")
    pool.kill(pool.workers()[0].id)
    until(lambda: pool.stats().workers_ended)
    is_settled(pool, 2)
    stats = pool.stats()
    assert stats.calls_failed == 3
    assert stats.calls_timed_out == 2
    assert stats.calls_done in (14, 15, 16)  # the two that were stopped may be among them
    assert stats.workers_ended == {"killed": 1}
    assert stats.waiting == 0
    assert set(stats.latency) == {0.5, 0.9, 0.99}
    assert 0 < stats.latency[0.5] <= stats.latency[0.99] < 1.0
    assert set(stats.rss) == {info.id for info in pool.workers()}
    assert all(size > 1_000_000 for size in stats.rss.values())
    with pytest.raises(AttributeError):
        stats.waiting = 5  # type: ignore[misc]


def test_workers_say_what_they_do(make_pool: MakePool, tmp_path: Path, until: Until) -> None:
    """Id, pid, state, current call, age, calls, memory."""
    pool = make_pool(workers=1)
    pool.warm()
    gate = tmp_path / "gate"
    future = pool.submit("poolwork:wait_for", str(gate))
    until(lambda: pool.workers()[0].call is not None)
    info = pool.workers()[0]
    assert "poolwork:wait_for" in str(info.call)
    assert (info.name, info.slot, info.calls) == (None, 0, 0)
    assert 0 < info.age < 60
    assert info.rss > 1_000_000
    gate.touch()
    future.result(10)
    until(lambda: pool.workers()[0].state == "idle")
    assert pool.workers()[0].call is None
    assert pool.workers()[0].calls == 1


def test_stats_of_a_pool_before_and_after_its_life(make_pool: MakePool) -> None:
    """Nothing is started for them, and they can still be read at the end."""
    pool = make_pool(workers=1)
    assert pool.stats().phase == "new"
    assert pool.workers() == []
    pool.call("poolwork:pid")
    pool.close()
    stats = pool.stats()
    assert (stats.phase, stats.calls_done, sum(stats.workers.values())) == ("closed", 1, 0)


def test_stats_are_whole_while_everything_changes(make_pool: MakePool) -> None:
    """Read again and again beside calls and deaths: no error, and counts that never fall."""
    pool = make_pool(workers=2)
    is_over = threading.Event()
    errors: list[BaseException] = []

    def read() -> None:
        done = 0
        try:
            while not is_over.is_set():
                stats = pool.stats()
                pool.workers()
                assert stats.calls_done >= done
                done = stats.calls_done
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        for future in [pool.submit("poolwork:double", n) for n in range(50)]:
            future.result(20)
        with pytest.raises(vv.WorkerCrashed):
            pool.call("poolwork:die")
    is_over.set()
    thread.join(10)
    assert errors == []
