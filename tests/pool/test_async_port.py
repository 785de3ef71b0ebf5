"""The asyncio driver on other event loops: three functions are all it needs of trio, and uvloop is an asyncio loop."""

from __future__ import annotations

import asyncio
import math
import socket
import subprocess
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv
from venvoy.aio import asyncio_port
from venvoy.aio.asyncio_port import AsyncioPort
from venvoy.calling import make_call
from venvoy.options import CallOptions
from venvoy.pool.port import HasFileno
from venvoy.pool.roster import Ticket

trio = pytest.importorskip("trio")

MakePool = Callable[..., vv.Pool]
RunScript = Callable[..., "subprocess.CompletedProcess[str]"]


class TrioPort:
    """All that a face for trio would need below it."""

    def __init__(self) -> None:
        self.claims: dict[Ticket, Callable[[Ticket], object]] = {}

    async def wait_readable(self, source: HasFileno, deadline: float | None) -> None:
        """Sleep until it can be read."""
        await _until(deadline, trio.lowlevel.wait_readable, source)

    async def wait_writable(self, fd: int, deadline: float | None) -> None:
        """Sleep until it can be written."""
        await _until(deadline, trio.lowlevel.wait_writable, fd)

    async def until(self, deadline: float, work: Coroutine[Any, Any, Any]) -> Any:
        """Run code of the user's; cancel it at the deadline."""
        with trio.move_on_after(max(0.0, deadline - time.monotonic())):
            return await work
        raise TimeoutError

    def bell(self) -> TrioBell:
        """Return a bell."""
        return TrioBell()


async def _until(deadline: float | None, wait: Callable[[Any], Any], source: Any) -> None:
    with trio.move_on_after(math.inf if deadline is None else max(0.0, deadline - time.monotonic())) as scope:
        await wait(source)
    if scope.cancelled_caught:
        raise TimeoutError


class TrioBell:
    """What a task sleeps on."""

    def __init__(self) -> None:
        self._token, self._event = trio.lowlevel.current_trio_token(), trio.Event()

    def release(self) -> None:
        """Ring, from any thread."""
        self._token.run_sync_soon(self._ring)

    def _ring(self) -> None:
        self._event.set()  # that of now

    async def wait(self, seconds: float | None) -> bool:
        """Sleep until it rings."""
        with trio.move_on_after(math.inf if seconds is None else max(0.0, seconds)):
            await self._event.wait()
        event, self._event = self._event, trio.Event()
        return bool(event.is_set())


class Calls:
    """Runs calls of a pool on trio.

    Args:
        pool: a `Pool`, its module being `poolwork`.
    """

    def __init__(self, pool: vv.Pool) -> None:
        self._core, self.port = pool._core, TrioPort()
        self.results: dict[str, Any] = {}

    async def call(self, target: str, *args: Any, **options: Any) -> Any:
        """Await one."""
        calls = self._core.async_calls
        call = make_call(target, args, {}, CallOptions(**options), self._core.table)
        return await calls.result(call, calls.run, self.port)

    async def note(self, name: str, target: str, *args: Any, options: dict[str, Any] | None = None) -> None:
        """Await one and keep what comes of it."""
        try:
            self.results[name] = await self.call(target, *args, **options or {})
        except Exception as error:
            self.results[name] = error


@pytest.mark.parametrize("workers", [1, 2])
def test_driver_runs_on_trio(make_pool: MakePool, workers: int) -> None:
    """Results, errors, queueing, calls sent ahead, large values, deadlines and crashes."""
    pool = make_pool(module="poolwork", workers=workers)
    pool.warm()
    calls = Calls(pool)

    async def main() -> None:
        for many in (20, 200):  # the second time, they are known to be quick
            async with trio.open_nursery() as nursery:
                for n in range(many):
                    nursery.start_soon(calls.note, f"double {n}", "double", n)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.note, "error", "fail")
            nursery.start_soon(calls.note, "large", "size_of", b"x" * 3_000_000, 3_000_000)
            nursery.start_soon(lambda: calls.note("late", "nap", 30, options={"timeout": 0.5}))
            nursery.start_soon(calls.note, "crash", "die", 7)
            nursery.start_soon(calls.note, "after", "double", 21)

    trio.run(main)
    results = calls.results
    assert [results[f"double {n}"] for n in range(200)] == [2 * n for n in range(200)]
    assert isinstance(results["error"], ValueError)
    assert results["large"] == (3_000_000, b"r" * 3_000_000)
    assert isinstance(results["late"], vv.CallTimeout)
    assert isinstance(results["crash"], vv.WorkerCrashed)
    assert results["after"] == 42
    assert calls.port.claims == {}


def test_cancel_scope_of_trio_stops_calls(make_pool: MakePool, tmp_path: Path) -> None:
    """Those that run, that were sent ahead, and that wait; the worker serves on."""
    pool = make_pool(module="poolwork", workers=1)
    calls = Calls(pool)

    async def main() -> None:
        pid = await calls.call("pid")
        async with trio.open_nursery() as nursery:
            for n in range(100):
                nursery.start_soon(calls.note, f"double {n}", "double", n)
        with trio.move_on_after(0.2) as scope:
            async with trio.open_nursery() as nursery:
                for n in range(20):
                    nursery.start_soon(calls.note, f"nap {n}", "nap", 30)
        assert scope.cancelled_caught
        with trio.fail_after(10):
            assert await calls.call("pid") == pid

    trio.run(main)
    assert "nap 0" not in calls.results
    assert calls.port.claims == {}


def test_callbacks_run_on_trio_until_the_deadline(make_pool: MakePool) -> None:
    """A coroutine function of the host's is awaited there, and cancelled in time."""
    pool = make_pool(module="asking", workers=1)
    calls = Calls(pool)

    async def double(n: int) -> int:
        await trio.sleep(0.001)
        return 2 * n

    async def for_ever(n: int) -> None:
        await trio.sleep_forever()

    async def main() -> None:
        with trio.fail_after(20):
            assert await calls.call("each", vv.callback(double), 3) == [0, 2, 4]
            with pytest.raises(vv.CallTimeout):
                await calls.call("each", vv.callback(for_ever), 1, timeout=0.2)
            assert await calls.call("each", vv.callback(double), 1) == [0]

    trio.run(main)


def test_channel_that_is_closed_while_armed_leaves_the_others_as_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for time and again is armed once, also after the worker before it has gone."""
    armed: list[int] = []
    arm = AsyncioPort._arm
    monkeypatch.setattr(AsyncioPort, "_arm", lambda port, fd, events: (armed.append(fd), arm(port, fd, events)))

    async def hear(end: socket.socket, other: socket.socket) -> None:
        other.send(b"x")
        await asyncio_port.running().wait_readable(end, time.monotonic() + 10)
        assert end.recv(1) == b"x"

    async def main() -> None:
        before, after = socket.socketpair(), socket.socketpair()
        await hear(*before)
        for end in before:
            end.close()
        for _ in range(10):
            await hear(*after)
        for end in after:
            end.close()

    asyncio.run(main())
    assert len(armed) < 5


def test_asyncio_face_runs_on_uvloop(run_script: RunScript) -> None:
    """Calls, many at once, streams, maps, cancellation and the end: uvloop has the functions that are used."""
    pytest.importorskip("uvloop")
    done = run_script(
        """
        import asyncio, uvloop, venvoy as vv

        async def main():
            async with vv.AsyncPool(workers=2) as pool:
                for many in (10, 1000):
                    results = await asyncio.gather(*[pool.call("math:sqrt", n * n) for n in range(many)])
                    assert results == list(range(many))
                assert [n async for n in pool.stream("builtins:range", 100)] == list(range(100))
                assert [n async for n in pool.map("math:sqrt", [0, 1, 4])] == [0, 1, 2]
                try:
                    async with asyncio.timeout(0.1):
                        await asyncio.gather(*[pool.call("time:sleep", 30) for _ in range(10)])
                except TimeoutError:
                    pass
                async with pool.lease() as lease:
                    assert await lease.call("math:sqrt", 4) == 2

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
