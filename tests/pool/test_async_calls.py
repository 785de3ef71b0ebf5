"""Calls on an event loop: results, errors, deadlines, cancellation, retries, and what becomes of the workers."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import pytest

import venvoy as vv
from venvoy.aio.asyncio_port import AsyncioBell

MakePool = Callable[..., vv.Pool]
MakeAsyncPool = Callable[..., vv.AsyncPool]


async def settled(pool: vv.AsyncPool, workers: int) -> None:
    """Wait until so many workers are idle, and nobody waits."""
    deadline = time.monotonic() + 15
    while pool.stats().workers["idle"] != workers or pool.stats().waiting or len(pool.workers()) != workers:
        assert time.monotonic() < deadline, (pool.stats(), pool.workers())
        await asyncio.sleep(0.01)


def test_call_eval_module_and_submit_return_what_the_worker_returns(make_async_pool: MakeAsyncPool) -> None:
    """The words of `Pool`, awaited."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            assert await pool.call("math:hypot", 3, 4) == 5
            assert await pool.call("with_timeout_name", timeout=3) == 3
            assert await pool.eval("x + y", x=1, y=2) == 3
            assert await pool.module("math").sqrt(16) == 4
            assert await pool.call(lambda x: x + 1, 2) == 3
            tasks = [pool.submit("double", n) for n in range(20)]
            assert [await task for task in tasks] == [2 * n for n in range(20)]

    asyncio.run(main())


def test_bound_protocol_has_awaitable_methods_that_convert(make_async_pool: MakeAsyncPool) -> None:
    """`bind` gives the declared types."""

    class Work(Protocol):
        async def double(self, x: int) -> float: ...

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            work = pool.bind(Work)
            result = await work.double(4)
            assert (result, type(result)) == (8.0, float)
            with pytest.raises(TypeError, match="double"):
                await work.double(1, 2)  # type: ignore[call-arg]

    asyncio.run(main())


def test_errors_come_as_from_a_blocking_call(make_async_pool: MakeAsyncPool) -> None:
    """The call's own, encoding errors, and unknown targets."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            with pytest.raises(ValueError, match="as asked"):
                await pool.call("fail")
            with pytest.raises(TimeoutError, match="the user's own") as caught:
                await pool.call("fail_with_timeout")
            assert not isinstance(caught.value, vv.CallTimeout)
            with pytest.raises(vv.TargetNotFound):
                await pool.call("nobody")
            with pytest.raises(vv.EncodingError):
                await pool.call("double", threading.Lock())
            task = pool.submit("double", threading.Lock())
            with pytest.raises(vv.EncodingError):
                await task
            assert pool.stats().calls_failed == 3

    asyncio.run(main())


def test_arguments_of_submit_are_taken_at_once(make_async_pool: MakeAsyncPool) -> None:
    """What the caller changes afterwards is not sent."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            items = [1]
            task = pool.submit("capture", items)
            items.append(2)
            assert await task == (([1],), {})

    asyncio.run(main())


def test_large_arguments_and_results_are_not_cut(make_async_pool: MakeAsyncPool) -> None:
    """More than any socket buffer holds, written and read in parts, several at a time."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=2) as pool:
            size = 3_000_000
            replies = await asyncio.gather(*[pool.call("size_of", b"x" * size, reply=size) for _ in range(6)])
            assert all(reply == (size, b"r" * size) for reply in replies)

    asyncio.run(main())


def test_calls_run_on_all_workers_at_once(make_async_pool: MakeAsyncPool, tmp_path: Path) -> None:
    """Three that wait for each other meet on three workers; the loop serves others meanwhile."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=3) as pool:
            await asyncio.gather(*[pool.call("meet", str(tmp_path), str(n), 3) for n in range(3)])

    asyncio.run(main())


def test_deadline_stops_the_call_and_the_worker_serves_on(make_async_pool: MakeAsyncPool) -> None:
    """`options(timeout=)` raises CallTimeout at the deadline, running or queued, and counts it."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            pid = await pool.call("pid")
            began = time.monotonic()
            late = pool.options(timeout=0.2)
            results = await asyncio.gather(late.call("nap", 30), late.call("nap", 30), return_exceptions=True)
            assert [type(result) for result in results] == [vv.CallTimeout, vv.CallTimeout]
            assert time.monotonic() - began < 5
            assert await pool.call("pid") == pid
            assert pool.stats().calls_timed_out == 2

    asyncio.run(main())


def test_deadline_with_abandon_lets_the_work_end_unseen(make_async_pool: MakeAsyncPool, tmp_path: Path) -> None:
    """`on_timeout="abandon"` does not stop what runs."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            view = pool.options(timeout=0.2, on_timeout="abandon")
            with pytest.raises(vv.CallTimeout):
                await view.call("nap_and_touch", 0.6, str(tmp_path / "done"))
            await settled(pool, 1)
            assert (tmp_path / "done").exists()

    asyncio.run(main())


@pytest.mark.parametrize("how", ["timeout", "wait_for", "cancel", "group"])
def test_cancelled_task_stops_its_call(make_async_pool: MakeAsyncPool, how: str) -> None:
    """`asyncio.timeout`, `wait_for`, `task.cancel()` and a task group take the same road; the worker serves on."""

    async def cancelled(pool: vv.AsyncPool) -> None:
        if how == "timeout":
            async with asyncio.timeout(0.2):
                await pool.call("nap", 30)
        elif how == "wait_for":
            await asyncio.wait_for(pool.call("nap", 30), 0.2)
        elif how == "cancel":
            task = pool.submit("nap", 30)
            asyncio.get_running_loop().call_later(0.2, task.cancel)
            await task
        else:
            async with asyncio.TaskGroup() as group:
                group.create_task(pool.call("nap", 30))
                await asyncio.sleep(0.2)
                raise KeyError("of the group's body")

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            pid = await pool.call("pid")
            with pytest.raises((TimeoutError, asyncio.CancelledError, ExceptionGroup)):
                await cancelled(pool)
            began = time.monotonic()
            assert await pool.call("pid") == pid
            assert time.monotonic() - began < 5
            await settled(pool, 1)

    asyncio.run(main())


def test_cancellation_keeps_its_message(make_async_pool: MakeAsyncPool) -> None:
    """By which those who cancel, such as the cancel scopes of anyio, know that it was they."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            running, waiting = pool.submit("nap", 30), pool.submit("nap", 30)
            while pool.stats().waiting != 1:
                await asyncio.sleep(0.01)
            for task in (waiting, running):
                task.cancel("it was me")
                task.cancel("me too")  # the first one counts
                with pytest.raises(asyncio.CancelledError) as caught:
                    await task
                assert caught.value.args == ("it was me",)

    asyncio.run(main())


def test_stubborn_call_is_killed_when_its_task_is_cancelled(make_async_pool: MakeAsyncPool) -> None:
    """Code that swallows the wish to stop loses its worker after the grace period; another takes its place."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            pid = await pool.call("pid")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pool.call("stubborn", 30), 0.3)
            assert await asyncio.wait_for(pool.call("pid"), 20) != pid

    asyncio.run(main())


def test_waiter_granted_and_cancelled_in_one_turn_loses_no_worker(make_async_pool: MakeAsyncPool) -> None:
    """A worker is given to a waiting task, which is cancelled before it runs: the worker is not lost."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            for _ in range(100):
                first, second = pool.submit("double", 1), pool.submit("double", 2)
                first.add_done_callback(lambda _, second=second: second.cancel())  # type: ignore[misc]
                await asyncio.wait([first, second])
                assert first.result() == 2
            assert await asyncio.wait_for(pool.call("double", 4), 10) == 8
            await settled(pool, 1)

    asyncio.run(main())


@pytest.mark.parametrize("workers", [1, 4])
def test_hundred_awaits_with_fifty_cancelled_cross_nothing(make_async_pool: MakeAsyncPool, workers: int) -> None:
    """Whatever the instant of the cancellation, the others get their own results and all slots return."""

    async def main() -> None:
        chance = random.Random(workers)
        async with make_async_pool(module="poolwork", workers=workers) as pool:
            tasks = [pool.submit("nap", 0.002, n) for n in range(100)]
            doomed = chance.sample(tasks, 50)
            for task in doomed:
                await asyncio.sleep(chance.random() * 0.004)
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for n, (task, result) in enumerate(zip(tasks, results, strict=True)):
                assert result == n or (task in doomed and isinstance(result, asyncio.CancelledError))
            await settled(pool, workers)
            assert sum(isinstance(result, int) for result in results) >= 50

    asyncio.run(main())


@pytest.mark.parametrize("workers", [1, 4])
def test_blocking_callers_and_tasks_share_the_workers(make_pool: MakePool, workers: int) -> None:
    """16 threads with 50 calls each beside tasks on two loops: everybody gets their own results."""
    pool = make_pool(module="poolwork", workers=workers)

    def block(base: int) -> bool:
        return all(pool.call("double", base + n) == 2 * (base + n) for n in range(50))

    async def tasks(base: int) -> bool:
        results = await asyncio.gather(*[pool.aio.call("double", base + n) for n in range(300)])
        return results == [2 * (base + n) for n in range(300)]

    with ThreadPoolExecutor(18) as threads:
        done = [threads.submit(block, 1000 * n) for n in range(16)]
        done += [threads.submit(asyncio.run, tasks(100_000 * n)) for n in (1, 2)]
        assert all(future.result(60) for future in done)
    stats = pool.stats()
    assert (stats.calls_done, stats.waiting) == (16 * 50 + 600, 0)


@pytest.mark.parametrize("face", ["call", "submit"])
def test_a_thread_that_is_interrupted_as_it_gives_its_worker_to_a_task_wakes_the_task(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, face: str
) -> None:
    """A bell is rung in several steps, and Ctrl-C may come before the first."""
    pool, gate, ring = make_pool(module="poolwork", workers=1), tmp_path / "gate", AsyncioBell.release
    pool.submit("double", 1).result()  # from the second on, the thread that waits reads
    interrupted: list[BaseException] = []

    def run() -> None:
        try:
            if face == "call":
                pool.call("wait_for", str(gate))
            else:
                pool.submit("wait_for", str(gate)).result()
        except KeyboardInterrupt as error:
            interrupted.append(error)

    def release(bell: AsyncioBell) -> None:
        if threading.current_thread() is thread:
            raise KeyboardInterrupt
        ring(bell)

    async def main() -> None:
        async with asyncio.timeout(20):
            while not pool.stats().workers["busy"]:
                await asyncio.sleep(0.001)
            task = asyncio.create_task(pool.aio.call("double", 2))
            while not pool.stats().waiting:
                await asyncio.sleep(0.001)
            gate.touch()
            assert await task == 4

    thread = threading.Thread(target=run, daemon=True)
    monkeypatch.setattr(AsyncioBell, "release", release)
    thread.start()
    asyncio.run(main())
    thread.join(20)
    assert len(interrupted) == 1


def test_crash_fails_its_call_only_and_is_told_at_once(make_async_pool: MakeAsyncPool) -> None:
    """The loop sees the exit although a forked process holds the worker's end of the channel open."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=2) as pool:
            crash, other = pool.submit("die", 7), pool.submit("nap", 0.3, "other")
            with pytest.raises(vv.WorkerCrashed) as caught:
                await asyncio.wait_for(crash, 10)
            assert caught.value.exit_status == 7
            assert await other == "other"
            assert await pool.call("double", 3) == 6

    asyncio.run(main())


def test_retries_cover_crashes_and_declared_errors(make_async_pool: MakeAsyncPool, tmp_path: Path) -> None:
    """As in the blocking face."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            assert await pool.options(retries=1).call("die_once", str(tmp_path / "died"))
            view = pool.options(retries=2, retry_on=OSError)
            assert await view.call("succeed_at", str(tmp_path / "attempts"), 3) == 3
            with pytest.raises(OSError, match="attempt 1"):
                await pool.options(retries=0).call("succeed_at", str(tmp_path / "others"), 2)

    asyncio.run(main())


def test_queue_limits_hold_for_tasks(make_async_pool: MakeAsyncPool) -> None:
    """`max_waiting` and `queue_timeout` raise TooManyWaiting."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1, max_waiting=1) as pool:
            busy = pool.submit("nap", 0.6)
            await asyncio.sleep(0.05)
            with pytest.raises(vv.TooManyWaiting, match="queue_timeout=0"):
                await pool.options(queue_timeout=0).call("double", 2)
            with pytest.raises(vv.TooManyWaiting, match=r"within 0\.1 s"):
                await pool.options(queue_timeout=0.1).call("double", 2)
            queued = pool.submit("double", 1)
            await asyncio.sleep(0.05)
            with pytest.raises(vv.TooManyWaiting, match="max_waiting"):
                await pool.call("double", 2)
            assert await queued == 2
            await busy

    asyncio.run(main())


def test_no_thread_is_made_for_calls(make_async_pool: MakeAsyncPool) -> None:
    """A hundred calls in flight or waiting need no thread more than an idle pool."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=2) as pool:
            await pool.call("pid")
            before = threading.active_count()
            tasks = [pool.submit("nap", 0.01) for _ in range(100)]
            await asyncio.sleep(0.1)
            assert threading.active_count() == before
            await asyncio.gather(*tasks)

    asyncio.run(main())


def test_dropped_coroutine_gives_its_worker_back(make_async_pool: MakeAsyncPool) -> None:
    """A call that is closed while it waits for its reply, as a collected task is, has its worker mended."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            call = pool.call("nap", 30)
            call.send(None)  # it has been sent, and waits
            await asyncio.sleep(0.1)
            call.close()
            del call
            gc.collect()
            assert await asyncio.wait_for(pool.call("double", 2), 10) == 4

    asyncio.run(main())


def test_pool_as_the_executor_of_a_loop(make_pool: MakePool) -> None:
    """`loop.run_in_executor(pool, f)` works, as with any executor."""
    pool = make_pool(workers=1)

    async def main() -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, os.getpid)

    assert asyncio.run(main()) == pool.workers()[0].pid
