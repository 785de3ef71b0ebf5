"""Faults that once cost a worker, a future or the pool, each shown mended."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import venvoy as vv

QUIET = vv.WorkerOptions(output="discard", grace_period=0.3)


@pytest.fixture
def pool() -> Iterator[vv.Pool]:
    """One worker, short of patience."""
    with vv.Pool(workers=1, worker=QUIET) as pool:
        yield pool
        pool.close(0)


def until(condition: object, seconds: float = 10.0) -> bool:
    """Wait for a condition, a function without arguments."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:  # type: ignore[operator]
        time.sleep(0.01)
    return bool(condition())  # type: ignore[operator]


def test_a_deadline_that_passes_while_a_large_argument_is_written_frees_the_worker(pool: vv.Pool) -> None:
    """What has been written in part cannot be taken back, so the worker is replaced."""
    pool.call("os:getpid")
    large = b"x" * 400_000_000
    with pytest.raises(vv.CallTimeout):
        pool.options(timeout=0.01).submit("time:sleep", 30, large).result(10)
    begin = time.monotonic()
    assert pool.call("math:sqrt", 4) == 2
    assert time.monotonic() - begin < 8


def test_a_target_that_is_too_long_is_an_error_of_that_call(pool: vv.Pool) -> None:
    """Blocking or not; the worker serves the next one."""
    pid = pool.call("os:getpid")
    target = "math:" + "a" * 70_000
    with pytest.raises(vv.EncodingError):
        pool.submit(target).result(10)
    with pytest.raises(vv.EncodingError):
        pool.call(target)
    assert pool.call("os:getpid") == pid


def test_with_does_not_wait_for_workers_that_die_as_soon_as_they_are_ready(tmp_path: Path) -> None:
    """It raises what is known of them."""
    dying = vv.WorkerOptions(output="discard", initializer=_die_soon, initializer_args=(str(tmp_path / "first"),))
    with pytest.raises(vv.WorkerStartError), vv.Pool(workers=2, worker=dying):
        time.sleep(5)


def _die_soon(marker: str) -> None:
    """In the first worker: be ready at once and die then; in the other: be ready only after that."""
    import os
    import threading
    import time

    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        time.sleep(5.0)  # far from the first, on a busy machine too
    threading.Timer(0.05, os._exit, (7,)).start()


def test_an_output_function_that_exits_stops_nobodys_deadlines() -> None:
    """The thread that runs it goes on."""

    def leave(chunk: vv.OutputChunk) -> None:
        sys.exit(f"output: {chunk.text}")

    with vv.Pool(workers=1, worker=vv.WorkerOptions(output=leave, grace_period=0.3)) as pool:
        pool.call("builtins:print", "text")
        slow = pool.submit("time:sleep", 1.0)
        with pytest.raises(vv.CallTimeout):
            pool.options(timeout=0.2).submit("math:sqrt", 4).result(10)
        slow.result(10)


def test_a_callback_of_a_call_that_expired_may_wait_for_another_that_expires(pool: vv.Pool) -> None:
    """Late completions do not run code of the user's on the one thread that makes them."""
    running = pool.submit("time:sleep", 1.0)
    quick = pool.options(timeout=0.2)
    seen: list[BaseException | None] = []
    future = quick.submit("math:sqrt", 1)
    future.add_done_callback(lambda _: seen.append(quick.submit("math:sqrt", 4).exception(10)))
    assert until(lambda: seen)
    assert isinstance(seen[0], vv.CallTimeout)
    running.result(10)


def test_a_lease_that_is_dropped_gives_its_worker_back(pool: vv.Pool) -> None:
    """Without its block ever having ended."""
    lease = pool.lease()
    assert lease.__enter__().eval("1 + 1") == 2
    del lease
    gc.collect()
    assert pool.options(timeout=10).call("math:sqrt", 4) == 2


def test_cancelling_twice_harms_no_other_call(pool: vv.Pool) -> None:
    """A call can be taken back once only."""
    for _ in range(20):
        pool.submit("math:sqrt", 4).result(10)
    for _ in range(20):
        futures = [pool.submit("time:sleep", 0.002) for _ in range(6)]
        for _ in range(3):
            futures[4].cancel()
        others = [*futures[:4], futures[5]]
        assert [future.result(10) for future in others] == [None] * 5
    assert pool.stats().workers_crashed == 0


def test_an_exit_status_that_nobody_can_know_is_none() -> None:
    """A host that ignores SIGCHLD gets no statuses: not 0, which would be a lie."""
    code = (
        "import signal, venvoy as vv\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "with vv.Pool(workers=1) as pool:\n"
        "    try: pool.call('os:_exit', 3)\n"
        "    except vv.WorkerCrashed as error: print(error.exit_status, error.signal)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "None None\n", done.stderr


def test_maps_timeout_counts_from_the_call(pool: vv.Pool) -> None:
    """Not from the first result asked for."""
    results = pool.map("time:sleep", [0.6], timeout=0.3)
    time.sleep(0.4)
    begin = time.monotonic()
    with pytest.raises(vv.CallTimeout):
        next(results)
    assert time.monotonic() - begin < 0.2
