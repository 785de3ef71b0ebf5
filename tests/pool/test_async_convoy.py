"""Calls of many tasks that share a worker: sent ahead of each other's replies, and still each task's own."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import importlib
import os
import random
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv
from venvoy.pool import ahead
from venvoy.pool import convoy as convoys
from venvoy.pool.convoy import Convoy, send
from venvoy.pool.sources import news_of
from venvoy.workers import ends
from venvoy.workers.lane import Lane

MakePool = Callable[..., vv.Pool]
MakeAsyncPool = Callable[..., vv.AsyncPool]


async def quickened(pool: vv.AsyncPool) -> vv.AsyncPool:
    """Let calls be measured to be quick, so that others are sent ahead."""
    await asyncio.gather(*[pool.call("double", n) for n in range(100)])
    return pool


def lane_of(pool: vv.AsyncPool) -> Lane:
    """Return the only lane of a pool's only worker."""
    return pool._core.staff.known()[0].lanes[0]


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until something is so."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def together(pool: vv.AsyncPool, *calls: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    """Have calls sent to a pool's only worker in one go, behind one that is over by then; return their tasks."""
    lane = lane_of(pool)
    last = lane.last_id + 1 + len(calls)
    first = asyncio.create_task(pool.call("double", 0))
    tasks = [asyncio.create_task(call) for call in calls]
    await first
    await until(lambda: lane.last_id == last)
    return tasks


def convoy() -> Convoy:
    """Return the convoy that is on its way."""
    return next(thing for thing in gc.get_objects() if isinstance(thing, Convoy) and not thing._is_over)


def sends(pool: vv.AsyncPool) -> int:
    """Return how often something was written to the workers."""
    return sum(lane.channel.sends for worker in pool._core.staff.known() for lane in worker.lanes)


@pytest.mark.parametrize("workers", [1, 2])
def test_gathered_calls_are_sent_many_to_a_write(make_async_pool: MakeAsyncPool, workers: int) -> None:
    """And each task gets its own result, or its own error."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=workers) as pool:
            await quickened(pool)
            before = sends(pool)
            calls = [pool.call("fail", str(n)) if n % 7 == 0 else pool.call("double", n) for n in range(1000)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert sends(pool) - before < 300
            for n, result in enumerate(results):
                assert (str(result) == str(n)) if n % 7 == 0 else (result == 2 * n)
            assert pool.stats().calls_done == 1100
            assert pool.stats().calls_failed == 143

    asyncio.run(main())


def test_pipes_may_be_small(make_async_pool: MakeAsyncPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a user who has more than a thousand of them: requests that are sent ahead would not fit."""
    open_pipe = os.pipe

    def small_pipe() -> tuple[int, int]:
        ends = open_pipe()
        fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, 4096)
        return ends

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool, asyncio.timeout(30):
            await quickened(pool)
            calls = [pool.call("size_of", bytes(2000), 4000) for _ in range(300)]
            assert await asyncio.gather(*calls) == [(2000, b"r" * 4000)] * 300

    monkeypatch.setattr(os, "pipe", small_pipe)
    asyncio.run(main())


def test_calls_behind_a_slow_one_go_to_another_worker(make_async_pool: MakeAsyncPool, tmp_path: Path) -> None:
    """Those sent ahead of a call that takes long are taken back: here it even waits for one of them."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=2) as pool:
            await quickened(pool)
            path = str(tmp_path / "gate")
            calls = [pool.call("double", n) for n in range(10)]
            calls += [
                pool.call("wait_for", path),
                *[pool.call("double", n) for n in range(30)],
                pool.call("touch", path),
            ]
            results = await asyncio.wait_for(asyncio.gather(*calls), 15)
            assert results[11:41] == [2 * n for n in range(30)]

    asyncio.run(main())


def test_call_that_is_cancelled_before_it_begins_never_runs(make_async_pool: MakeAsyncPool, tmp_path: Path) -> None:
    """Although it is in the worker's socket already; those around it run."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            await quickened(pool)
            gate, no, yes = (str(tmp_path / name) for name in ("gate", "no", "yes"))
            waits, unwanted, wanted = await together(
                pool, pool.call("wait_for", gate), pool.call("touch", no), pool.call("touch", yes)
            )
            unwanted.cancel()
            await until(lambda: len(convoy()._riders) < 3)  # the worker has confirmed it; of the other it may, too
            assert unwanted.cancelled()
            Path(gate).touch()
            await asyncio.wait_for(asyncio.gather(waits, wanted), 10)
            assert os.path.exists(yes)
            assert not os.path.exists(no)

    asyncio.run(main())


def test_call_that_is_cancelled_in_the_queue_is_not_taken_along(make_async_pool: MakeAsyncPool, tmp_path: Path) -> None:
    """Although the collector, which takes it out of the queue, may be late."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            await quickened(pool)
            no, gate = tmp_path / "no", threading.Event()
            pool._core.call_soon(lambda: gate.wait(20))
            try:
                calls = [pool.call("double", 1), pool.call("double", 2), pool.call("touch", str(no))]
                tasks = [asyncio.create_task(call) for call in [*calls, pool.call("double", 3), pool.call("double", 4)]]
                await asyncio.sleep(0)
                tasks[2].cancel()
                results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
            finally:
                gate.set()
            assert isinstance(results.pop(2), asyncio.CancelledError)
            assert results == [2, 4, 6, 8]
            assert not no.exists()

    asyncio.run(main())


def test_task_that_leads_may_leave(make_async_pool: MakeAsyncPool, tmp_path: Path) -> None:
    """Whoever read for all is cancelled, or has its reply: another goes on, whichever still waits."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            await quickened(pool)
            gate = str(tmp_path / "gate")
            tasks = await together(pool, pool.call("wait_for", gate), *[pool.call("double", n) for n in range(10)])
            tasks[0].cancel()  # it was first, and leads: its call is stopped
            assert await asyncio.wait_for(asyncio.gather(*tasks[1:]), 10) == [2 * n for n in range(10)]
            assert pool.stats().workers_crashed == 0

    asyncio.run(main())


def test_calls_that_are_all_cancelled_leave_the_worker_as_it_was(make_async_pool: MakeAsyncPool) -> None:
    """The one that runs is stopped, the others never begin; nothing is left for those who come later."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            await quickened(pool)
            pid = await pool.call("pid")
            for _ in range(10):
                tasks = await together(pool, pool.call("nap", 30), *[pool.call("nap", 30) for _ in range(10)])
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                assert all(task.cancelled() for task in tasks)
                assert await asyncio.wait_for(pool.call("double", 4), 10) == 8
                await quickened(pool)
            assert await pool.call("pid") == pid
            assert pool.stats().waiting == 0

    asyncio.run(main())


def test_deadline_is_that_of_each_call(make_async_pool: MakeAsyncPool, tmp_path: Path) -> None:
    """A call sent ahead whose time is over is taken back; the one before it, and those after it, have theirs."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            await quickened(pool)
            gate, no = str(tmp_path / "gate"), str(tmp_path / "no")
            hasty = pool.options(timeout=0.1)
            slow, late, after = await together(
                pool, pool.call("wait_for", gate), hasty.call("touch", no), pool.call("double", 4)
            )
            with pytest.raises(vv.CallTimeout):
                await asyncio.wait_for(late, 10)
            Path(gate).touch()
            await asyncio.wait_for(slow, 10)
            assert await asyncio.wait_for(after, 10) == 8
            assert not os.path.exists(no)
            assert pool.stats().calls_timed_out == 1

    asyncio.run(main())


def test_crash_fails_the_call_that_ran_and_no_other(make_async_pool: MakeAsyncPool) -> None:
    """Those that had not begun run on the next worker."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            await quickened(pool)
            calls = [pool.call("double", n) for n in range(5)]
            tasks = await together(pool, *calls, pool.call("die", 7), *[pool.call("double", n) for n in range(20)])
            results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
            assert [n for n, result in enumerate(results) if isinstance(result, BaseException)] == [5]
            assert isinstance(results[5], vv.WorkerCrashed)
            assert results[:5] == [2 * n for n in range(5)]
            assert results[6:] == [2 * n for n in range(20)]

    asyncio.run(main())


def test_many_crashes_fail_the_calls_that_ran_and_no_other(make_pool: MakePool) -> None:
    """However often a call is behind one that ends its worker; for tasks and for futures."""
    pool = make_pool(module="poolwork", workers=1)
    targets = [("die", 7) if n % 10 == 9 else ("double", n) for n in range(150)]

    async def main() -> list[Any]:
        aio = await quickened(pool.aio)
        return await asyncio.wait_for(
            asyncio.gather(*[aio.call(*target) for target in targets], return_exceptions=True), 30
        )

    def check(results: list[Any]) -> None:
        for n, result in enumerate(results):
            assert isinstance(result, vv.WorkerCrashed) if n % 10 == 9 else result == 2 * n

    check(asyncio.run(main()))
    futures = [pool.submit("double", n) for n in range(100)]
    assert [future.result(10) for future in futures] == [2 * n for n in range(100)]
    futures = [pool.submit(*target) for target in targets]
    check([future.exception(20) or future.result() for future in futures])


def test_calls_are_counted_while_there_are_always_more_and_when_the_worker_dies(make_async_pool: MakeAsyncPool) -> None:
    """Cancelled ones have not failed."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            await quickened(pool)
            tasks = [asyncio.create_task(pool.call("double", n)) for n in range(3000)]
            await tasks[1000]
            assert 1000 < pool.stats().calls_done < 3100
            await asyncio.gather(*tasks)
            assert pool.stats().calls_done == 3100
            calls = [pool.call("double", n) for n in range(5)]
            tasks = await together(pool, *calls, pool.call("die", 7), *[pool.call("double", n) for n in range(20)])
            await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
            await until(lambda: pool.stats().calls_done == 3126)
            await quickened(pool)
            cancelled, *others = await together(pool, pool.call("nap", 30), *[pool.call("double", 1) for _ in range(5)])
            cancelled.cancel()
            await asyncio.wait_for(asyncio.gather(*others), 10)
            assert pool.stats().calls_failed == 0

    asyncio.run(main())


def test_deadline_that_passes_while_another_task_reads_is_not_that_tasks(
    make_async_pool: MakeAsyncPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that has been given up asks something when its time is over, and whoever reads has none to keep."""
    monkeypatch.setattr(ahead, "STALL", 60.0)  # nothing is taken back: those behind stay on the worker

    def asks_late() -> None:
        import time

        import venvoy_worker

        try:
            time.sleep(30)
        except BaseException:
            venvoy_worker.host("nobody")()

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            await quickened(pool)
            with pytest.raises(LookupError):
                await pool.eval("__import__('venvoy_worker').host('nobody')()")
            late = vv.by_source(asks_late)
            with pytest.raises(vv.CallTimeout):
                await pool.options(timeout=0.1).call(late)  # its text is there
            await quickened(pool)
            first, *others = await together(
                pool, pool.options(timeout=0.2).call(late), *[pool.call("double", n) for n in range(3)]
            )
            with pytest.raises(vv.CallTimeout):
                await asyncio.wait_for(first, 10)
            assert await asyncio.wait_for(asyncio.gather(*others), 20) == [0, 2, 4]

    asyncio.run(main())


def test_time_in_the_queue_is_limited_for_a_call_that_is_taken_back(
    make_async_pool: MakeAsyncPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was on the worker for longer than that, behind a call that takes long."""
    monkeypatch.setattr(ahead, "STALL", 0.3)

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            await quickened(pool)
            gate = tmp_path / "gate"
            slow, impatient = await together(
                pool, pool.call("wait_for", str(gate)), pool.options(queue_timeout=0.1).call("double", 4)
            )
            with pytest.raises(vv.TooManyWaiting):
                await asyncio.wait_for(impatient, 10)
            gate.touch()
            await slow

    asyncio.run(main())


def test_task_that_sends_for_others_may_leave(make_async_pool: MakeAsyncPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its reply, and is cancelled while the channel has no room for what it sends: others read on."""
    senders: list[asyncio.Task[Any] | None] = []

    async def send_and_wait(*args: Any) -> None:
        await send(*args)
        senders.append(asyncio.current_task())
        if len(senders) == 2:
            await asyncio.sleep(3600)

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            await quickened(pool)
            monkeypatch.setattr(convoys, "send", send_and_wait)
            tasks = [asyncio.create_task(pool.call("double", n)) for n in range(300)]
            await until(lambda: len(senders) == 2)
            assert senders[1] is not None
            senders[1].cancel()
            results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
            wrong = [n for n, result in enumerate(results) if result != 2 * n]
            assert wrong == [n for n, task in enumerate(tasks) if task is senders[1]]
            assert tasks[wrong[0]].cancelled()
            await until(lambda: pool.stats().workers["idle"] == 1)

    asyncio.run(main())


def test_no_more_is_sent_than_fits_into_a_small_pipe(
    make_async_pool: MakeAsyncPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the system makes them for a user who has very many: host and worker never both wait to write."""
    open_lanes = ends._open_lanes

    def open_small(*args: Any) -> Any:
        channels, childs_own = open_lanes(*args)
        for fd in (channels[0].fileno(), channels[0].fileno_to_write()):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 8192)
        return channels, childs_own

    monkeypatch.setattr(ends, "_open_lanes", open_small)

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            await quickened(pool)
            calls = [pool.call("size_of", b"x" * 500, 1000) for _ in range(1000)]
            results = await asyncio.wait_for(asyncio.gather(*calls), 20)
            assert results == [(500, b"r" * 1000)] * 1000

    asyncio.run(main())


def test_text_for_all_workers_waits_until_a_lane_has_rest(make_async_pool: MakeAsyncPool) -> None:
    """A long one does not meet results that are too long for the channel."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=2) as pool:
            await quickened(pool)
            task = asyncio.create_task(pool.define(f"def length():\n    return len({'t' * 200_000!r})"))
            calls = [asyncio.create_task(pool.call("size_of", b"", 200_000)) for _ in range(1500)]
            await asyncio.wait_for(asyncio.gather(task, *calls), 20)
            assert await pool.call("length") == 200_000

    asyncio.run(main())


def test_question_and_progress_of_a_call_among_many_are_its_own(make_async_pool: MakeAsyncPool) -> None:
    """Nobody listens to the progress; and what a call asks of a host that has no such function is an error of it."""

    def asks(n: int) -> int:
        import venvoy_worker

        venvoy_worker.progress(n, 10, "")
        if n == 5:
            venvoy_worker.host("nobody")(n)
        return n

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            await quickened(pool)
            calls = [pool.call(vv.by_source(asks), n) for n in range(10)]
            results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)
            assert isinstance(results[5], LookupError)
            assert results[:5] + results[6:] == [0, 1, 2, 3, 4, 6, 7, 8, 9]

    asyncio.run(main())


def test_loop_closed_with_many_calls_on_a_worker_loses_nothing(make_pool: MakePool) -> None:
    """The call that runs is stopped, those behind it are taken back, and threads are served by the same worker."""
    pool = make_pool(module="poolwork", workers=1)
    pid = pool.call("pid")
    loop = asyncio.new_event_loop()

    async def main() -> list[asyncio.Task[Any]]:
        await quickened(pool.aio)
        return await together(pool.aio, pool.aio.call("nap", 30), *[pool.aio.call("nap", 30) for _ in range(5)])

    tasks = loop.run_until_complete(main())
    loop.set_exception_handler(lambda loop, context: None)  # "Task was destroyed": so they were
    loop.close()
    del loop
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    tasks.clear()
    del task
    gc.collect()
    assert pool.options(timeout=10).call("pid") == pid


def test_forked_child_leaves_the_calls_of_its_parent_alone(make_pool: MakePool, tmp_path: Path) -> None:
    """Tasks that the child closes are copies; what they would say to the worker is not for the child to say."""
    pool, gate = make_pool(module="poolwork", workers=1), str(tmp_path / "gate")

    async def main() -> list[Any]:
        aio = await quickened(pool.aio)
        calls = [aio.call("double", n) for n in range(5)]
        tasks = await together(aio, aio.call("wait_for", gate, 20.0, "there"), *calls)
        child = os.fork()
        if not child:
            try:
                for task in tasks:
                    task.get_coro().close()  # type: ignore[union-attr]
            finally:
                os._exit(0)
        assert await asyncio.to_thread(os.waitpid, child, 0) == (child, 0)
        Path(gate).touch()
        return await asyncio.wait_for(asyncio.gather(*tasks), 10)

    assert asyncio.run(main()) == ["there", 0, 2, 4, 6, 8]


@pytest.mark.parametrize("workers", [1, 3])
def test_nothing_crosses_in_a_storm_of_cancellations(make_async_pool: MakeAsyncPool, workers: int) -> None:
    """Calls come, go and time out at random; each that ends has its own result, and all workers are free then."""

    async def one(pool: vv.AsyncPool, draw: random.Random, n: int) -> int:
        await asyncio.sleep(draw.random() * 0.02)
        view = pool.options(timeout=draw.random() * 0.05) if n % 10 == 0 else pool
        return int(await view.call("double", n))

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=workers) as pool:
            for seed in range(10):
                draw = random.Random(seed)
                tasks = [asyncio.create_task(one(pool, draw, n)) for n in range(500)]
                for _ in range(10):
                    await asyncio.sleep(draw.random() * 0.004)
                    for task in draw.sample(tasks, 20):
                        task.cancel()
                results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
                wrong = [r for n, r in enumerate(results) if r != 2 * n and not isinstance(r, EXPECTED)]
                assert wrong == []
            assert await asyncio.wait_for(pool.call("double", 4), 10) == 8
            await until(lambda: pool.stats().workers["idle"] == workers)
            assert pool.stats().workers_crashed == 0

    asyncio.run(main())


EXPECTED = (asyncio.CancelledError, vv.CallTimeout)


def test_source_text_goes_while_nothing_else_is_on_the_way(
    make_async_pool: MakeAsyncPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text too long for a channel does not meet results that are too long for it; then calls of it go together."""
    functions = [f"def large{n}(size):\n    text = {'t' * 150_000!r}\n    return b'x' * size\n" for n in range(2)]
    (tmp_path / "long_texts.py").write_text("\n".join(functions))
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("long_texts")

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            await quickened(pool)
            calls = [pool.call("size_of", b"", 200_000) for _ in range(10)]
            calls += [pool.call(vv.by_source(module.large0), 200_000) for _ in range(5)]
            calls += [pool.call(vv.by_source(module.large1), 200_000) for _ in range(5)]
            results = await asyncio.wait_for(asyncio.gather(*calls), 20)
            assert [len(result) for result in results[10:]] == [200_000] * 10

    asyncio.run(main())


def test_a_text_for_all_workers_goes_while_nothing_else_is_on_the_way(make_async_pool: MakeAsyncPool) -> None:
    """As does that of a call: it may be too long for a channel while results are."""
    source = f"def length():\n    return len({'t' * 150_000!r})\n", ("long.py", 1, ())

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            await quickened(pool)
            lane = lane_of(pool)
            before = lane.last_id
            calls = [asyncio.create_task(pool.call("size_of", b"", 200_000)) for _ in range(100)]
            await until(lambda: lane.last_id > before + 2)  # which is when they go together
            lane.news.append(news_of(1, source))
            results = await asyncio.wait_for(asyncio.gather(*calls), 20)
            assert [len(reply) for _, reply in results] == [200_000] * 100
            assert await pool.call("length") == 150_000

    asyncio.run(main())


def test_threads_are_not_passed_by(make_pool: MakePool) -> None:
    """However many calls a loop has in the queue, one of a thread that comes first there is served first."""
    pool = make_pool(module="poolwork", workers=1)

    async def main() -> None:
        aio = await quickened(pool.aio)
        slow = asyncio.create_task(aio.call("nap", 0.2))
        await until(lambda: pool.stats().workers["busy"])
        early = [asyncio.create_task(aio.call("double", n)) for n in range(3)]
        await asyncio.sleep(0)
        thread = asyncio.create_task(asyncio.to_thread(pool.call, "nap", 0.3))
        await until(lambda: pool.stats().waiting == 4)
        late = [asyncio.create_task(aio.call("double", n)) for n in range(50)]
        done, _ = await asyncio.wait([thread, *late], return_when=asyncio.FIRST_COMPLETED)
        assert thread in done
        await asyncio.gather(slow, *early, *late)

    asyncio.run(main())
