"""A job on an idle worker is read by whoever waits for its result; by a driver when nobody does."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent import futures
from pathlib import Path

import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]
IsSettled = Callable[..., None]
Until = Callable[..., None]


class Interrupted(Exception):
    """Thrown into a thread from outside."""


class Waiter:
    """A thread that submits, and waits for the result as often as it is interrupted."""

    def __init__(self, pool: vv.Pool, calls: int) -> None:
        self.interrupts = 0
        self.done = 0
        self.wrong: list[object] = []
        self.is_waiting = False
        self._pool, self.calls = pool, calls
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self._submit_on()
        except vv.VenvoyError as error:
            self.wrong.append(error)

    def _submit_on(self) -> None:
        self._future: tuple[int, vv.CallFuture] | None = None
        while self.done < self.calls:
            try:
                try:
                    self.is_waiting = True
                    while self.done < self.calls:
                        self._submit_one()
                finally:
                    self.is_waiting = False
            except Interrupted:
                self.interrupts += 1

    def _submit_one(self) -> None:
        if self._future is None:
            self._future = (self.done, self._pool.submit("poolwork:double", self.done))
        number, future = self._future
        answer = future.result(8)
        if answer != 2 * number:
            self.wrong.append((number, answer))
        self._future = None
        self.done += 1

    def interrupt(self) -> None:
        """Throw into the thread, wherever it is."""
        if self.is_waiting and self.thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread.ident), ctypes.py_object(Interrupted))


@pytest.mark.slow
@pytest.mark.parametrize(("threads", "workers"), [(1, 1), (3, 2)])
def test_exceptions_thrown_into_waiters_lose_no_result(
    make_pool: MakePool, is_settled: IsSettled, threads: int, workers: int
) -> None:
    """The future of an interrupted waiter still gets its result: no byte was lost, and somebody else read on."""
    pool = make_pool(workers=workers)
    pool.warm()
    waiters = [Waiter(pool, 1500) for _ in range(threads)]
    for waiter in waiters:
        waiter.thread.start()
    chance, end = random.Random(3), time.monotonic() + 5.0
    while any(waiter.thread.is_alive() for waiter in waiters) and time.monotonic() < end:
        time.sleep(chance.random() * 0.003)
        chance.choice(waiters).interrupt()
    for waiter in waiters:
        waiter.calls = 0
        waiter.thread.join(10)
        assert waiter.wrong == []
    assert sum(waiter.interrupts for waiter in waiters) > 3
    is_settled(pool, workers)


def one_worker(make_pool: MakePool) -> vv.Pool:
    """Return a pool whose only worker is idle, and which has its driver: the next job is sent directly."""
    pool = make_pool(workers=1)
    assert pool.submit("poolwork:double", 1).result(20) == 2
    return pool


def test_nobody_has_to_wait(make_pool: MakePool, until: Until) -> None:
    """A future that is only looked at becomes done, and its worker serves the next caller."""
    pool = one_worker(make_pool)
    future = pool.submit("poolwork:double", 4)
    until(future.done)
    assert future.result(0) == 8
    pool.submit("poolwork:double", 5)
    assert pool.call("poolwork:double", 6) == 12


def test_a_wait_that_runs_out_leaves_the_call_running(make_pool: MakePool) -> None:
    """TimeoutError for this waiter; the next gets the result."""
    pool = one_worker(make_pool)
    future = pool.submit("poolwork:nap", 0.4)
    with pytest.raises(TimeoutError):
        future.result(0.05)
    assert future.running()
    assert future.result(20) is None


def test_many_threads_wait_for_one_future(make_pool: MakePool) -> None:
    """One reads, all get the result."""
    pool = one_worker(make_pool)
    future = pool.submit("poolwork:nap", 0.3)
    with futures.ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda _: future.result(20), range(8))) == [None] * 8
    assert future.exception(0) is None


def test_wait_as_completed_and_callbacks_see_it(make_pool: MakePool) -> None:
    """What the standard library does with futures works while a thread is reading, and while none is."""
    pool = one_worker(make_pool)
    seen: list[object] = []
    future = pool.submit("poolwork:nap", 0.2)
    reader = threading.Thread(target=future.result)
    reader.start()
    future.add_done_callback(lambda done: seen.append(done.result()))
    assert futures.wait([future], 20).done == {future}
    reader.join(20)
    future = pool.submit("poolwork:double", 3)
    future.add_done_callback(lambda done: seen.append(done.result()))
    assert [done.result() for done in futures.as_completed([future], 20)] == [6]
    end = time.monotonic() + 5
    while len(seen) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert seen == [None, 6]


def test_a_crash_is_told_to_the_thread_that_reads(make_pool: MakePool) -> None:
    """The reader's error is that of its call, and the next submit has a new worker."""
    pool = one_worker(make_pool)
    pid = pool.call("os:getpid")
    future = pool.submit("poolwork:nap", 60)
    killer = threading.Timer(0.2, os.kill, (pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(vv.WorkerCrashed):
        future.result(20)
    killer.join()
    assert pool.submit("poolwork:double", 2).result(20) == 4


def test_a_thread_that_is_interrupted_while_its_worker_crashes_loses_no_future(
    make_pool: MakePool, until: Until
) -> None:
    """The exception strikes only when the read has ended, in the middle of handing the job on."""
    pool = make_pool(module="poolwork", workers=1)
    assert pool.submit("double", 1).result() == 2
    future = pool.submit("nap", 60)
    outcome: list[type[BaseException]] = []

    def run() -> None:
        try:
            future.result()
        except BaseException as error:
            outcome.append(type(error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    (lane,) = pool._core.staff.known()[0].lanes
    until(lambda: lane.direct.reader.locked() and _sleeps(thread))  # type: ignore[attr-defined]
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Interrupted))
    os.kill(pool.workers()[0].pid, signal.SIGKILL)
    thread.join(20)
    assert outcome == [Interrupted]
    assert futures.wait([future], timeout=20).done
    assert isinstance(future.exception(), vv.WorkerCrashed)


def _sleeps(thread: threading.Thread) -> bool:
    """Return True while a thread waits in the kernel."""
    return Path(f"/proc/self/task/{thread.native_id}/stat").read_text().rpartition(")")[2].split()[0] == "S"


@pytest.mark.parametrize("start", ["spawn", "zygote"])
def test_a_crash_that_nobody_waits_for_is_noticed_although_a_fork_holds_the_channel(
    make_pool: MakePool, start: str
) -> None:
    """The end of the process tells, not that of the stream."""
    pool = make_pool(module="poolwork", workers=1, options={"start": start})
    assert pool.submit("double", 1).result() == 2
    future = pool.submit("leave_a_fork_and_die")
    assert futures.wait([future], timeout=20).done
    assert isinstance(future.exception(), vv.WorkerCrashed)
    assert pool.submit("double", 2).result(20) == 4


def test_a_worker_that_died_while_idle_costs_no_submit(make_pool: MakePool) -> None:
    """The request could not be written, or was never read: it is run by another worker."""
    pool = one_worker(make_pool)
    for n in range(3):
        pid = pool.call("os:getpid")
        os.kill(pid, signal.SIGKILL)
        assert pool.submit("poolwork:double", n).result(20) == 2 * n


def test_a_call_is_cancelled_while_a_thread_reads_its_reply(make_pool: MakePool) -> None:
    """cancel() from elsewhere wakes the reader with CallCancelled; the worker stays."""
    pool = one_worker(make_pool)
    pid = pool.call("os:getpid")
    future = pool.submit("poolwork:nap", 60)
    canceller = threading.Timer(0.2, future.cancel)
    canceller.start()
    with pytest.raises(vv.CallCancelled):
        future.result(20)
    canceller.join()
    assert pool.submit("os:getpid").result(20) == pid


def test_what_a_call_raises_is_raised_by_its_reader(make_pool: MakePool) -> None:
    """KeyboardInterrupt of the remote code too: it is the result, not an interrupt of the reader."""
    pool = one_worker(make_pool)
    with pytest.raises(ZeroDivisionError):
        pool.submit("operator:truediv", 1, 0).result(20)
    assert isinstance(pool.submit("operator:truediv", 1, 0).exception(20), ZeroDivisionError)


def test_closing_the_pool_waits_for_a_call_that_is_being_read(make_pool: MakePool) -> None:
    """shutdown() lets it end, close(0) ends it; the reader hears of both."""
    pool = one_worker(make_pool)
    future = pool.submit("poolwork:nap", 0.3)
    reader = threading.Thread(target=future.result)
    reader.start()
    pool.shutdown()
    reader.join(20)
    assert future.result(0) is None
    pool = one_worker(make_pool)
    future = pool.submit("poolwork:nap", 60)
    closer = threading.Timer(0.2, pool.close, (0,))
    closer.start()
    with pytest.raises(vv.VenvoyError):
        future.result(20)
    closer.join()
