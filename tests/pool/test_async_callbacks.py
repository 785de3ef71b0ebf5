"""Functions of the host's that a call calls while a task waits for it: they run on the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import venvoy as vv

MakeAsyncPool = Callable[..., vv.AsyncPool]


def test_functions_run_on_the_loop_and_coroutine_functions_are_awaited(make_async_pool: MakeAsyncPool) -> None:
    """Their results and their errors travel both ways; the loop serves others while a coroutine waits."""

    async def slowly(number: int) -> int:
        await asyncio.sleep(0.02)
        return number * 2

    async def fails(number: int) -> None:
        raise KeyError(number)

    async def main() -> None:
        async with make_async_pool(module="asking", workers=2, expose={"log": slowly}) as pool:
            here = threading.get_ident()
            assert await pool.call("each", vv.callback(lambda _: threading.get_ident()), 2) == [here, here]
            both = await asyncio.gather(*[pool.call("each", vv.callback(slowly), 3) for _ in range(2)])
            assert both == [[0, 2, 4], [0, 2, 4]]
            assert await pool.call("exposed", "log", 4) == 8
            assert await pool.call("from_threads", vv.callback(slowly), 8) == [2 * n for n in range(8)]
            with pytest.raises(KeyError, match="0"):
                await pool.call("each", vv.callback(fails), 1)
            assert (await pool.call("outcome", vv.callback(fails), 5))[0] == "KeyError"

    asyncio.run(main())


def test_answers_that_nobody_reads_do_not_stand_in_the_way_of_a_reply(make_async_pool: MakeAsyncPool) -> None:
    """A call ends while threads of its own wait, and reply and answers are more than a channel takes at a time."""

    async def main() -> None:
        async with make_async_pool(module="asking", workers=1) as pool:
            call = pool.options(timeout=20).call("leave_asking", vv.callback(lambda _: bytes(200_000)), 8, 200_000)
            assert await call == bytes(200_000)

    asyncio.run(main())


def test_progress_is_told_on_the_loop(make_async_pool: MakeAsyncPool) -> None:
    """`options(on_progress=)` is called by the waiting task."""
    seen: list[Any] = []

    def report(steps: int) -> int:
        import venvoy_worker

        for step in range(steps):
            venvoy_worker.progress(step + 1, steps, "")
        return steps

    async def main() -> None:
        async with make_async_pool(workers=1) as pool:
            here = threading.get_ident()
            view = pool.options(
                on_progress=lambda progress: seen.append((progress.total, threading.get_ident() == here))
            )
            assert await view.call(vv.by_source(report), 3) == 3

    asyncio.run(main())
    assert seen
    assert set(seen) == {(3, True)}


@pytest.mark.parametrize("workers", [1, 2])
def test_callback_may_await_the_pool_it_serves(make_async_pool: MakeAsyncPool, workers: int) -> None:
    """With no worker to spare, the call runs within the one that waits; several at once take turns, deeper ones too."""

    async def main() -> None:
        async with make_async_pool(module="asking", workers=workers) as pool:

            async def inner(number: int) -> Any:
                return await pool.call("each", vv.callback(lambda x: x + number), 2)

            async def outer(number: int) -> list[Any]:
                return list(await asyncio.gather(*[pool.call("each", vv.callback(inner), 2) for _ in range(3)]))

            expected = [[0, 1], [1, 2]]
            assert await asyncio.wait_for(pool.call("each", vv.callback(outer), 2), 30) == [[expected] * 3] * 2
            assert await pool.call("each", vv.callback(abs), 1) == [0]

    asyncio.run(main())


def test_threads_and_tasks_that_work_on_one_answer_take_turns(make_async_pool: MakeAsyncPool) -> None:
    """`asyncio.to_thread` takes along what the task knows of the worker that waits for it; so does `awaited`."""

    async def main() -> None:
        pool = make_async_pool(module="asking", workers=1)
        async with pool:
            kept = await pool.object("builtins:dict")

            async def answer(number: int) -> list[Any]:
                threads = [asyncio.to_thread(kept.setdefault, n, number) for n in range(4)]
                tasks = [pool.call("each", vv.callback(abs), 2) for _ in range(4)]
                awaited = [vv.awaited(kept.setdefault)(n, 5) for n in range(4)]
                return list(await asyncio.gather(*threads, *tasks, *awaited))

            answers = await asyncio.wait_for(pool.call("each", vv.callback(answer), 1), 30)
            assert answers == [[0] * 4 + [[0, 1]] * 4 + [0] * 4] or answers[0][4:8] == [[0, 1]] * 4
            assert len(kept) == 4

    asyncio.run(main())


def test_nested_call_keeps_its_deadline_while_it_waits_for_its_turn(make_async_pool: MakeAsyncPool) -> None:
    """The worker is at another that was started for the same answer."""

    async def main() -> None:
        async with make_async_pool(module="asking", workers=1) as pool:

            async def answer(number: int) -> str:
                slow = pool.submit("time:sleep", 30)
                await asyncio.sleep(0)
                with pytest.raises(vv.CallTimeout):
                    await pool.options(timeout=0.1).call("each", vv.callback(abs), 1)
                return "busy" if not slow.done() and slow.cancel() else "idle"

            assert await asyncio.wait_for(pool.call("each", vv.callback(answer), 1), 10) == ["busy"]
            assert await asyncio.wait_for(pool.call("each", vv.callback(abs), 1), 10) == [0]

    asyncio.run(main())


def test_callback_may_await_the_lease_it_serves(make_async_pool: MakeAsyncPool) -> None:
    """The call runs within the one that waits, as in a pool of one worker; its errors are its own."""

    async def main() -> None:
        async with make_async_pool(module="asking", workers=1) as pool, pool.lease() as lease:

            async def answer(number: int) -> Any:
                with pytest.raises(vv.CallTimeout):
                    await lease.options(timeout=0.1).call("time:sleep", 30)
                return await asyncio.gather(*[lease.call("each", vv.callback(abs), 2) for _ in range(3)])

            assert await asyncio.wait_for(lease.call("each", vv.callback(answer), 1), 10) == [[[0, 1]] * 3]
            assert await lease.call("each", vv.callback(abs), 1) == [0]

    asyncio.run(main())


def test_nested_call_that_times_out_leaves_the_outer_one_going(make_async_pool: MakeAsyncPool) -> None:
    """And one that is cancelled with its task takes the outer call along."""

    async def main() -> None:
        async with make_async_pool(module="asking", workers=1) as pool:

            async def nap(number: int) -> str:
                try:
                    await asyncio.wait_for(pool.call("time:sleep", 30), 0.1)
                except TimeoutError:
                    return "late"
                return "never"

            assert await asyncio.wait_for(pool.call("each", vv.callback(nap), 2), 20) == ["late", "late"]
            with pytest.raises(vv.CallTimeout):
                await pool.options(timeout=0.3).call("each", vv.callback(lambda _: asyncio.sleep(0.5)), 2)
            task = pool.submit("each", vv.callback(lambda _: asyncio.sleep(30)), 1)
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.wait_for(pool.call("each", vv.callback(abs), 1), 10) == [0]

    asyncio.run(main())


def test_coroutine_that_a_call_waits_for_is_cut_short_at_the_deadline(make_async_pool: MakeAsyncPool) -> None:
    """It is cancelled like any other code on the loop, so the call is not kept waiting by its own callback."""
    ends: list[str] = []

    async def for_ever(_: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ends.append("left")

    async def own_timeout(_: int) -> None:
        raise TimeoutError("own")

    async def main() -> None:
        async with make_async_pool(module="asking", workers=1, expose={"wait": for_ever}) as pool:
            hasty = pool.options(timeout=0.3)
            for target, args in (("each", (vv.callback(for_ever), 1)), ("exposed", ("wait", 1))):
                with pytest.raises(vv.CallTimeout):
                    await asyncio.wait_for(hasty.call(target, *args), 10)
            assert ends == ["left", "left"]
            with pytest.raises(TimeoutError, match="own"):
                await hasty.call("each", vv.callback(own_timeout), 1)
            async with pool.lease() as lease:
                with pytest.raises(vv.CallTimeout):
                    await asyncio.wait_for(lease.options(timeout=0.3).call("each", vv.callback(for_ever), 1), 10)
            assert await asyncio.wait_for(pool.call("each", vv.callback(lambda n: n), 2), 10) == [0, 1]

    asyncio.run(main())
