"""Workers that do not start, or die at once: back-off, a circuit, and what callers hear."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]
Until = Callable[..., None]
IsSettled = Callable[..., None]

EAGER = vv.RestartPolicy(backoff=0.05, max_backoff=0.6, max_failures=3)


def write_module(folder: Path, text: str) -> None:
    """Write the module `app` of these tests."""
    folder.mkdir(exist_ok=True)
    (folder / "app.py").write_text(text)


def test_the_circuit_opens_says_why_and_closes_once_a_start_succeeds(
    make_pool: MakePool, tmp_path: Path, until: Until
) -> None:
    """While it is open calls fail at once, with what the start-up printed."""
    events: list[vv.Event] = []
    write_module(tmp_path, "print('about to fail', flush=True)\nraise RuntimeError('no licence')")
    pool = make_pool(module="app", options={"paths": [tmp_path]}, restart=EAGER, workers=1, on_event=events.append)
    for _ in range(3):
        with pytest.raises(vv.WorkerStartError, match="no licence"):
            pool.call("answer")
    begin = time.monotonic()
    with pytest.raises(vv.WorkerStartError, match="no worker is started for") as caught:
        pool.call("answer")
    assert time.monotonic() - begin < 0.1
    assert "no licence" in str(caught.value)
    assert "about to fail" in caught.value.output
    assert "RuntimeError" in caught.value.remote_traceback
    with pytest.raises(vv.WorkerStartError, match="no worker is started for"):
        pool.submit("answer").result(5)
    write_module(tmp_path, "def answer(): return 42")

    def answers() -> bool:
        try:
            return bool(pool.call("answer") == 42)
        except vv.WorkerStartError:
            return False

    until(answers)
    until(lambda: "circuit_closed" in [event.kind for event in events])
    kinds = [event.kind for event in events]
    assert kinds.count("circuit_opened") == 1
    assert kinds.index("circuit_opened") < kinds.index("circuit_closed")


@pytest.mark.parametrize("how", ["warm", "reload"])
def test_warm_and_reload_try_at_once(make_pool: MakePool, tmp_path: Path, how: str) -> None:
    """Whoever asks for it has mended something."""
    write_module(tmp_path, "raise RuntimeError('broken')")
    policy = vv.RestartPolicy(backoff=60, max_failures=1)
    pool = make_pool(module="app", options={"paths": [tmp_path]}, restart=policy, workers=1)
    with pytest.raises(vv.WorkerStartError):
        pool.call("answer")
    with pytest.raises(vv.WorkerStartError, match="no worker is started for"):
        pool.call("answer")
    write_module(tmp_path, "def answer(): return 42")
    getattr(pool, how)()
    assert pool.call("answer") == 42


def test_an_initializer_that_raises_is_told_with_its_traceback(make_pool: MakePool) -> None:
    """In the error of whoever waited for the worker."""
    pool = make_pool(workers=1, options={"initializer": "poolwork:fail", "initializer_args": ("no model",)})
    with pytest.raises(vv.WorkerStartError, match="no model") as caught:
        pool.call("poolwork:pid")
    assert "poolwork.py" in caught.value.remote_traceback


def test_nobody_asks_nobody_starts(make_pool: MakePool, tmp_path: Path) -> None:
    """A pool whose workers cannot start is quiet when it is not used."""
    write_module(tmp_path, "raise RuntimeError('broken')")
    pool = make_pool(module="app", options={"paths": [tmp_path]}, restart=EAGER, workers=2)
    with pytest.raises(vv.WorkerStartError):
        pool.warm()
    time.sleep(0.3)  # both have failed
    started = pool.stats().workers_started
    time.sleep(0.5)
    assert pool.stats().workers_started == started


def test_workers_that_die_as_soon_as_they_are_ready_are_not_started_without_end(
    make_pool: MakePool, tmp_path: Path, until: Until
) -> None:
    """A thread of the module kills its process: back-off and circuit count that as well, and no call hangs."""
    text = "import os, threading\nthreading.Timer(0.05, os._exit, (3,)).start()\ndef answer(): return 42"
    write_module(tmp_path, text)
    policy = vv.RestartPolicy(backoff=0.1, max_failures=3)
    pool = make_pool(module="app", options={"paths": [tmp_path]}, restart=policy, workers=1)
    pool.warm()
    time.sleep(1.0)
    assert pool.stats().workers_started <= 4
    write_module(tmp_path, "def answer(): return 42")
    until(lambda: pool.reload() >= 0 and pool.call("answer") == 42)


def test_killing_a_worker_that_is_starting_is_no_failed_start(
    make_pool: MakePool, until: Until, tmp_path: Path
) -> None:
    """Another one is started for the call that waits."""
    write_module(tmp_path, "import time\ntime.sleep(0.5)\ndef answer(): return 42")
    pool = make_pool(module="app", options={"paths": [tmp_path]}, workers=1)
    future = pool.submit("answer")
    until(lambda: [info.pid for info in pool.workers() if info.pid])
    pool.kill(pool.workers()[0].id)
    assert future.result(20) == 42
    assert pool.stats().workers_ended == {"killed": 1}


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_worker_killed_by_others_while_it_starts_is_tried_once_more(
    make_pool: MakePool, tmp_path: Path, until: Until, deaths: int
) -> None:
    """Workers like it have started before, so the call that waits gets the next one; a second death is told."""
    events: list[vv.Event] = []
    write_module(tmp_path, "def answer(): return 42")
    pool = make_pool(module="app", options={"paths": [tmp_path]}, restart=EAGER, workers=1, on_event=events.append)
    assert pool.call("answer") == 42
    write_module(tmp_path, "import time\ntime.sleep(0.5)\ndef answer(): return 43")
    pool.kill(pool.workers()[0].id)
    for death in range(deaths):
        until(lambda: sum(event.kind == "retired" for event in events) == 1, what="the first worker's end")
        until(lambda death=death: sum(event.kind == "spawned" for event in events) == 2 + death, what="a start")
        if death == 0:
            future = pool.submit("answer")
        pid = [event.pid for event in events if event.kind == "spawned"][-1]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    if deaths == 1:
        assert future.result(10) == 43
    else:
        with pytest.raises(vv.WorkerStartError, match="SIGKILL"):
            future.result(10)


@pytest.mark.parametrize("way", ["call", "submit"])
def test_a_hundred_deaths_one_after_another(make_pool: MakePool, is_settled: IsSettled, way: str) -> None:
    """The pool is of use after each; its books are right at the end."""
    pool = make_pool(workers=2)
    for _ in range(20):
        with pytest.raises(vv.WorkerCrashed):
            pool.call("poolwork:die") if way == "call" else pool.submit("poolwork:die").result(20)
    assert pool.call("poolwork:double", 2) == 4
    is_settled(pool, 2)
    stats = pool.stats()
    assert stats.workers_crashed == 20
    assert stats.workers_started == 22
    assert stats.workers_ended == {"crashed": 20}


@pytest.mark.slow
def test_descriptors_threads_and_memory_are_flat_over_many_restarts(
    make_pool: MakePool, is_settled: IsSettled, pytestconfig: pytest.Config, caplog: pytest.LogCaptureFixture
) -> None:
    """Kills from outside and crashes from within; 100 restarts, and 1,000 with `--restarts 1000`."""
    restarts = pytestconfig.getoption("--restarts")
    me = psutil.Process()
    pool = make_pool(workers=2)
    caplog.set_level(logging.ERROR, logger="venvoy")  # or pytest would keep a record of each death

    def restart(times: int) -> None:
        for number in range(times):
            if number % 2:
                os.kill(pool.call("poolwork:pid"), signal.SIGKILL)
            else:
                with pytest.raises(vv.WorkerCrashed):
                    pool.call("poolwork:die")
        is_settled(pool, 2)
        gc.collect()

    def facts() -> tuple[int, int]:
        """Once they are at rest: threads that started a worker, and what they held, go a moment after it is ready."""
        seen, since = (me.num_fds(), threading.active_count()), time.monotonic()
        deadline = since + 10
        while time.monotonic() < min(since + 0.3, deadline):
            time.sleep(0.01)
            now = me.num_fds(), threading.active_count()
            if now != seen:
                seen, since = now, time.monotonic()
        return seen

    tracemalloc.start()
    try:
        restart(30)  # the last ten workers are kept for their output
        before, allocated = facts(), tracemalloc.get_traced_memory()[0]
        restart(restarts // 2)
        resident = me.memory_info().rss
        restart(restarts // 2)
        assert facts() == before
        assert tracemalloc.get_traced_memory()[0] < allocated + 300_000
    finally:
        tracemalloc.stop()
    if restarts >= 1000:  # before, the allocator is still finding its size
        assert me.memory_info().rss < resident * 1.05
