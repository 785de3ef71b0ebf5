"""The asyncio driver on another event loop: three functions are all it needs."""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest

import venvoy as vv
from venvoy.calling import make_call
from venvoy.options import CallOptions
from venvoy.pool.roster import Ticket

MakePool = Callable[..., vv.Pool]


class Sleep:
    """What a task yields: what it waits for, and until when."""

    def __init__(self, event: tuple[Any, int] | None, deadline: float | None) -> None:
        self.event, self.deadline, self.is_over = event, deadline, False

    def __await__(self) -> Generator[Sleep, bool, bool]:
        return (yield self)


class Loop:
    """An event loop of one page, and the port on it."""

    def __init__(self) -> None:
        self.claims: dict[Ticket, Callable[[Ticket], object]] = {}
        self.results: dict[str, Any] = {}
        self._selector = selectors.DefaultSelector()
        self._soon: deque[Callable[[], object]] = deque()
        self._sleeping: dict[Sleep, tuple[str, Coroutine[Any, Any, Any]]] = {}
        self._waker, self._wakee = socket.socketpair()
        self._selector.register(self._wakee, selectors.EVENT_READ)

    # the port

    async def wait_readable(self, fd: int, deadline: float | None) -> None:
        """Sleep until it can be read."""
        if not await Sleep((fd, selectors.EVENT_READ), deadline):
            raise TimeoutError

    async def wait_writable(self, fd: int, deadline: float | None) -> None:
        """Sleep until it can be written."""
        if not await Sleep((fd, selectors.EVENT_WRITE), deadline):
            raise TimeoutError

    def bell(self) -> Bell:
        """Return a bell."""
        return Bell(self)

    # the loop

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        """Run a task up to its first sleep."""
        self._step(name, work, None)

    def wake(self, sleep: Sleep, is_there: bool) -> None:
        """Let a task go on."""
        if sleep not in self._sleeping:
            return
        if sleep.event is not None:
            self._selector.unregister(sleep.event[0])
        name, work = self._sleeping.pop(sleep)
        self._step(name, work, is_there)

    def run_soon(self, callback: Callable[[], object]) -> None:
        """Run a callback on this loop; from any thread."""
        self._soon.append(callback)
        self._waker.send(b"\0")

    def _step(self, name: str, work: Coroutine[Any, Any, Any], value: Any) -> None:
        try:
            sleep = work.send(value)
        except StopIteration as end:
            self.results[name] = end.value
        except Exception as error:
            self.results[name] = error
        else:
            self._sleeping[sleep] = (name, work)
            if sleep.event is not None:
                self._selector.register(*sleep.event, sleep)

    def run(self) -> None:
        """Run until all tasks have ended."""
        while self._sleeping:
            deadlines = [sleep.deadline for sleep in self._sleeping if sleep.deadline is not None]
            patience = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
            for key, _ in self._selector.select(patience):
                self.wake(key.data, True) if key.data else self._wakee.recv(1000)
            while self._soon:
                self._soon.popleft()()
            for sleep in list(self._sleeping):
                if sleep.deadline is not None and time.monotonic() >= sleep.deadline:
                    self.wake(sleep, False)
        for thing in (self._selector, self._waker, self._wakee):
            thing.close()


class Bell:
    """What a task sleeps on."""

    def __init__(self, loop: Loop) -> None:
        self._loop, self._has_rung = loop, False
        self._sleep: Sleep | None = None

    def release(self) -> None:
        """Ring, from any thread."""
        self._loop.run_soon(self._ring)

    def _ring(self) -> None:
        self._has_rung = True
        if self._sleep is not None:
            self._loop.wake(self._sleep, True)

    async def wait(self, seconds: float | None) -> bool:
        """Sleep until it rings."""
        if self._has_rung:
            return True
        self._sleep = Sleep(None, None if seconds is None else time.monotonic() + seconds)
        return await self._sleep


@pytest.mark.parametrize("workers", [1, 2])
def test_driver_runs_on_a_loop_that_is_not_asyncio(make_pool: MakePool, workers: int) -> None:
    """Results, errors, queueing, large values, deadlines and crashes, with 200 lines of loop in their place."""
    pool, loop = make_pool(module="poolwork", workers=workers), Loop()
    pool.warm()
    calls = pool._core.async_calls

    def start(name: str, target: str, *args: Any, **options: Any) -> None:
        call = make_call(target, args, {}, CallOptions(**options), pool._core.table)
        loop.start(name, calls.result(call, calls.run, loop))

    for n in range(20):
        start(f"double {n}", "double", n)
    start("error", "fail")
    start("large", "size_of", b"x" * 3_000_000, 3_000_000)
    start("late", "nap", 30, timeout=0.5)
    start("crash", "die", 7)
    start("after", "double", 21)
    loop.run()
    results = loop.results
    assert [results[f"double {n}"] for n in range(20)] == [2 * n for n in range(20)]
    assert isinstance(results["error"], ValueError)
    assert results["large"] == (3_000_000, b"r" * 3_000_000)
    assert isinstance(results["late"], vv.CallTimeout)
    assert isinstance(results["crash"], vv.WorkerCrashed)
    assert results["after"] == 42
    assert loop.claims == {}
