"""Exceptions thrown into callers at any moment lose no worker and mix up no answer."""

from __future__ import annotations

import ctypes
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Self

import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]
IsSettled = Callable[..., None]


class Interrupted(Exception):
    """Thrown into a thread from outside."""


class Victim:
    """A thread that calls the pool and is interrupted meanwhile; answers that are wrong are kept."""

    def __init__(self, pool: vv.Pool, calls: int) -> None:
        self.interrupts = 0
        self.done = 0
        self.wrong: list[object] = []
        self.is_calling = False
        self._pool = pool.options(timeout=8.0)
        self._calls = calls
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self._call_on()
        except vv.CallTimeout as error:  # a lost worker: no call can take so long
            self.wrong.append(error)

    def _call_on(self) -> None:
        while self.done < self._calls:
            try:
                try:
                    self.is_calling = True
                    while self.done < self._calls:
                        answer = self._pool.call("poolwork:double", self.done)
                        if answer != 2 * self.done:
                            self.wrong.append((self.done, answer))
                        self.done += 1
                finally:
                    self.is_calling = False
            except Interrupted:
                self.interrupts += 1

    def interrupt(self) -> None:
        """Throw into the thread, wherever it is."""
        if self.is_calling and self.thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread.ident), ctypes.py_object(Interrupted))


@pytest.mark.slow
@pytest.mark.parametrize(("threads", "workers"), [(1, 1), (3, 2)])
def test_asynchronous_exceptions_in_callers_lose_no_worker(
    make_pool: MakePool, is_settled: IsSettled, threads: int, workers: int
) -> None:
    """Thousands of calls with an exception at a random moment each few: all answers right, all workers idle."""
    pool = make_pool(workers=workers, options={"grace_period": 5.0})
    pool.warm()
    victims = [Victim(pool, 1000) for _ in range(threads)]
    for victim in victims:
        victim.thread.start()
    chance, end = random.Random(5), time.monotonic() + 6.0
    while any(victim.thread.is_alive() for victim in victims) and time.monotonic() < end:
        time.sleep(chance.random() * 0.004)
        chance.choice(victims).interrupt()
    for victim in victims:
        victim.thread.join(10)
        assert victim.wrong == []
    assert sum(victim.interrupts for victim in victims) > 3
    is_settled(pool, workers)
    assert pool.options(timeout=8.0).call("poolwork:double", 7) == 14


class Alarm(Exception):
    """Raised by a signal handler in the main thread."""


def raise_alarm(number: int, frame: FrameType | None) -> None:
    """As the handler of Ctrl-C, with a signal of the test's own."""
    raise Alarm


@pytest.mark.slow
def test_signal_handlers_that_raise_lose_no_worker(make_pool: MakePool, is_settled: IsSettled) -> None:
    """The road of Ctrl-C: the exception leaves call() at once, and the pool is whole afterwards."""
    pool = make_pool(workers=2, options={"grace_period": 5.0})
    pool.warm()
    view, chance, interrupts, calls = pool.options(timeout=8.0), random.Random(7), 0, 0
    previous = signal.signal(signal.SIGALRM, raise_alarm)
    try:
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0001 + chance.random() * 0.02)
                for n in range(200):
                    assert view.call("poolwork:double", n) == 2 * n
                    calls += 1
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Alarm:
                interrupts += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert interrupts > 5
    assert calls > 20
    is_settled(pool, 2)


def test_an_interrupted_caller_does_not_wait_for_its_call(make_pool: MakePool, is_settled: IsSettled) -> None:
    """The exception is there at once; the call is stopped behind it and the worker serves again."""
    pool = make_pool(workers=1)
    pid = pool.call("poolwork:pid")
    previous = signal.signal(signal.SIGALRM, raise_alarm)
    try:
        began = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(Alarm):
            pool.call("poolwork:nap", 60)
        assert time.monotonic() - began < 2.0
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert pool.call("poolwork:pid") == pid
    is_settled(pool, 1)


def test_a_caller_interrupted_in_the_queue_leaves_it(
    make_pool: MakePool, is_settled: IsSettled, until: Callable[..., None]
) -> None:
    """Whoever waits for a worker and is interrupted takes none."""
    pool = make_pool(workers=1)
    pool.warm()
    slow = pool.submit("poolwork:nap", 1.5)
    until(slow.running)
    previous = signal.signal(signal.SIGALRM, raise_alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Alarm):
            pool.call("poolwork:pid")
    finally:
        signal.signal(signal.SIGALRM, previous)
    until(lambda: pool.stats().waiting == 0, 0.8, "leaving the queue while the worker is busy")
    slow.result(20)
    is_settled(pool, 1)


def test_a_large_reply_that_was_half_read_is_drained_and_the_worker_kept(
    make_pool: MakePool, is_settled: IsSettled
) -> None:
    """An interrupt in the middle of 200 MB: the rest is read behind the caller, and the same process serves on.

    An interrupt that strikes while the request is being written ends the worker, so it may take more than one round.
    """
    pool = make_pool(workers=1, options={"grace_period": 8.0})
    rounds = []
    for _ in range(3):
        pid = pool.call("poolwork:pid")
        interrupts = sum(is_interrupted(pool, delay) for delay in (0.04, 0.08, 0.12, 0.16))
        is_settled(pool, 1)
        rounds.append(interrupts > 0 and pool.call("poolwork:pid") == pid)
        if rounds[-1]:
            break
    assert rounds[-1]


def is_interrupted(pool: vv.Pool, delay: float) -> bool:
    """Ask for 200 MB, and be interrupted after so many seconds; False if they came before."""
    previous = signal.signal(signal.SIGALRM, raise_alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, delay)
        pool.call("builtins:bytes", 200_000_000)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Alarm:
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    return False


class StruckOnce(list[int | None]):
    """What a channel has written, noted by a thread that is interrupted as soon as it has."""

    has_struck = False

    def __iadd__(self, counts: Iterable[int | None]) -> Self:  # type: ignore[misc, override]
        super().__iadd__(counts)
        if not self.has_struck:
            self.has_struck = True
            raise Interrupted
        return self


def test_an_interrupt_just_after_the_request_costs_no_worker(make_pool: MakePool, is_settled: IsSettled) -> None:
    """A request that was written whole is not a torn one, even if the thread never got to know that."""
    pool = make_pool(workers=1)
    pid = pool.call("poolwork:pid")
    (worker,) = pool._core.roster.workers.values()
    struck = worker.lanes[0].channel.written = StruckOnce()
    with pytest.raises(Interrupted):
        pool.call("poolwork:pid")
    assert struck.has_struck
    is_settled(pool, 1)
    assert pool.call("poolwork:pid") == pid
    assert not pool.stats().workers_ended
