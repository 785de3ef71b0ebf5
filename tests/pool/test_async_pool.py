"""`AsyncPool` as an object: the words of `Pool`, its beginning and its end, leases, named workers, event loops."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv
from venvoy.aio.detached import AsyncDetachedCalls
from venvoy.aio.faces import AsyncView
from venvoy.detached.calls import DetachedCalls
from venvoy.faces import View

MakePool = Callable[..., vv.Pool]
MakeAsyncPool = Callable[..., vv.AsyncPool]
RunScript = Callable[..., "subprocess.CompletedProcess[str]"]

PAIRS = [
    (vv.Pool, vv.AsyncPool),
    (View, AsyncView),
    (vv.Lease, vv.AsyncLease),
    (vv.NamedWorker, vv.AsyncNamedWorker),
    (DetachedCalls, AsyncDetachedCalls),
]
MADE_OTHERWISE = (vv.NamedWorker, DetachedCalls)
BLOCKING_ONLY = {(vv.Pool, "aio"), (vv.Lease, "object")}  # whose calls take turns on the loop, which operators cannot


def public(kind: type) -> dict[str, Any]:
    """Return the public members of a class, and how it is made."""
    names = [name for name in dir(kind) if not name.startswith("_")]
    return {name: inspect.getattr_static(kind, name) for name in [*names, "__init__"]}


def words() -> Iterator[Any]:
    """Return each public name of a blocking face with its awaitable counterpart."""
    for blocking, awaitable in PAIRS:
        for name in public(blocking):
            is_made_otherwise = name == "__init__" and blocking in MADE_OTHERWISE
            if (blocking, name) not in BLOCKING_ONLY and not is_made_otherwise:
                yield pytest.param(blocking, awaitable, name, id=f"{blocking.__name__}.{name}")


@pytest.mark.parametrize(("blocking", "awaitable", "name"), list(words()))
def test_asyncio_face_has_the_words_of_the_blocking_one(blocking: type, awaitable: type, name: str) -> None:
    """The same names, with the same parameters and the same defaults."""
    assert name in public(awaitable), f"{awaitable.__name__} has no {name}, which {blocking.__name__} has"
    here, there = public(blocking)[name], public(awaitable)[name]
    if callable(here):
        ours, theirs = (inspect.signature(function).parameters.values() for function in (here, there))
        assert [(p.name, p.kind, p.default) for p in ours] == [(p.name, p.kind, p.default) for p in theirs]


@pytest.mark.parametrize(("blocking", "awaitable"), PAIRS)
def test_asyncio_face_has_no_words_of_its_own(blocking: type, awaitable: type) -> None:
    """Whoever knows one face knows the other."""
    assert set(public(awaitable)) <= set(public(blocking)) | set(dir(Executor))


def test_constructor_refuses_what_pool_refuses() -> None:
    """The same checks, with the same texts."""
    with pytest.raises(TypeError, match="env is"):
        vv.AsyncPool(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="workers is"):
        vv.AsyncPool(workers=0)
    with pytest.raises(TypeError, match="no option 'wrokers'"):
        vv.AsyncPool(wrokers=1)  # type: ignore[call-arg]


def test_calls_outside_of_a_loop_are_refused(make_pool: MakePool) -> None:
    """An awaitable needs a running loop; what stands in the way is said at once."""
    pool = make_pool(workers=1)
    with pytest.raises(RuntimeError, match="no running event loop"):
        pool.aio.submit("os:getpid")


def test_start_failure_is_raised_on_entering(make_async_pool: MakeAsyncPool, tmp_path: Path) -> None:
    """`async with` raises why no worker can be started, and leaves nothing."""

    async def main() -> None:
        with pytest.raises(vv.WorkerStartError, match="poolwork_imports_missing"):
            async with make_async_pool(module="poolwork_imports_missing", workers=1):
                pass
        with pytest.raises(vv.EnvError):
            async with make_async_pool(tmp_path / "nowhere"):
                pass

    asyncio.run(main())


def test_warm_that_is_cancelled_leaves_nothing(make_async_pool: MakeAsyncPool, tmp_path: Path) -> None:
    """Whoever gives up while workers start is not kept waiting for them."""

    async def main() -> None:
        began = time.monotonic()
        slow = {"initializer": "poolwork:wait_for", "initializer_args": (str(tmp_path / "never"), 30.0)}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(make_async_pool(workers=1, options=slow).__aenter__(), 0.3)
        assert time.monotonic() - began < 5

    asyncio.run(main())


def test_leaving_waits_for_calls_and_cancellation_does_not(make_async_pool: MakeAsyncPool) -> None:
    """As `with`: an ordinary end finishes what was submitted, a cancelled one ends it."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            task = pool.submit("nap", 0.3, "done")
            await asyncio.sleep(0.05)
        assert await task == "done"
        with pytest.raises(vv.PoolClosed):
            await pool.call("double", 1)
        began = time.monotonic()

        async def never_ends() -> None:
            async with make_async_pool(module="poolwork", workers=1) as pool:
                tasks.append(pool.submit("stubborn", 30))
                await asyncio.sleep(30)

        tasks: list[Any] = []
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(never_ends(), 1)
        with pytest.raises((vv.PoolClosed, vv.WorkerCrashed)):
            await tasks[0]
        assert time.monotonic() - began < 6

    asyncio.run(main())


def test_close_fails_what_waits_and_ends_what_runs_in_time(make_async_pool: MakeAsyncPool) -> None:
    """Bounded, as `Pool.close`."""

    async def main() -> None:
        pool = make_async_pool(module="poolwork", workers=1)
        await pool.warm()
        running, waiting = pool.submit("nap", 30), pool.submit("double", 1)
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await pool.close(0.2)
        assert time.monotonic() - began < 5
        results = await asyncio.gather(running, waiting, return_exceptions=True)
        assert [type(result) for result in results] == [vv.PoolClosed, vv.PoolClosed]
        await pool.close()

    asyncio.run(main())


def test_shutdown_without_waiting_returns_at_once(make_async_pool: MakeAsyncPool) -> None:
    """And what runs is finished."""

    async def main() -> None:
        pool = make_async_pool(module="poolwork", workers=1)
        task = pool.submit("nap", 0.3, 5)
        await asyncio.sleep(0.2)
        await pool.shutdown(wait=False)
        assert not task.done()
        assert await task == 5
        await pool.shutdown()

    asyncio.run(main())


def test_dropping_the_last_reference_ends_the_workers(make_async_pool: MakeAsyncPool) -> None:
    """Without `close`; the face of a `Pool` keeps the pool alive."""

    async def main() -> int:
        pool = make_async_pool(workers=1)
        return int(await pool.call("os:getpid"))

    pid = asyncio.run(main())
    gc.collect()
    deadline = time.monotonic() + 5
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_face_keeps_its_pool_and_no_more(home: Path) -> None:
    """`vv.Pool(...).aio` is a whole pool; and asking for the face makes no cycle that delays the pool's end."""
    pool = vv.Pool(workers=1, home=home)
    face, seen = pool.aio, weakref.ref(pool)
    del pool
    assert seen() is not None
    del face
    assert seen() is None


def test_reload_reap_stats_output_and_kill_work_as_ever(make_async_pool: MakeAsyncPool) -> None:
    """What does not wait is plain, what waits is awaited."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=(1, 2)) as pool:
            await pool.call("out", "said")
            assert "said" in pool.output()
            assert await pool.warm(2) == 2
            assert pool.reap() == 1
            pid = await pool.call("pid")
            assert await pool.reload() >= 1
            assert await pool.call("pid") != pid
            number = pool.workers()[-1].id
            pool.kill(number)
            assert await asyncio.wait_for(pool.call("double", 1), 10) == 2
            assert pool.stats().workers_crashed == 0
            assert repr(pool).startswith("<venvoy.AsyncPool")

    asyncio.run(main())


def test_lease_keeps_state_on_one_worker(make_async_pool: MakeAsyncPool) -> None:
    """One namespace, one process, calls one after another, in the order of `submit`."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=2) as pool:
            async with pool.lease() as worker:
                await worker.exec("x = [0]")
                tasks = [worker.submit("capture", n) for n in range(5)]
                await asyncio.gather(*[worker.exec("x.append(n)", n=n) for n in range(1, 30)])
                assert await worker.eval("x") == list(range(30))
                assert await worker.call("pid") == worker.pid
                with pytest.raises(vv.CallTimeout):
                    async with pool.lease(timeout=0.2) as _, pool.lease(timeout=0.2) as _:
                        pass
                assert [task.result()[0] for task in tasks] == [(n,) for n in range(5)]
            with pytest.raises(vv.WorkerError):
                await worker.call("pid")

    asyncio.run(main())


def test_end_of_a_lease_finishes_what_was_submitted_and_an_error_drops_it(make_async_pool: MakeAsyncPool) -> None:
    """As with threads; the worker comes back either way."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            async with pool.lease() as worker:
                tasks = [worker.submit("nap", 0.05, n) for n in range(3)]
            assert [task.result() for task in tasks] == [0, 1, 2]

            async def fails() -> None:
                async with pool.lease() as worker:
                    tasks.append(worker.submit("nap", 30))
                    await asyncio.sleep(0.05)
                    raise KeyError

            with pytest.raises(KeyError):
                await fails()
            assert tasks[-1].cancelled()
            assert await asyncio.wait_for(pool.call("double", 1), 10) == 2

    asyncio.run(main())


def test_lease_whose_call_is_cancelled_has_lost_its_worker(make_async_pool: MakeAsyncPool) -> None:
    """As after a deadline: further use raises, and the pool serves on."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            async with pool.lease() as worker:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(worker.call("nap", 30), 0.1)
                with pytest.raises(vv.WorkerError):
                    await worker.call("pid")
            with pytest.raises(vv.CallTimeout):
                async with pool.lease() as worker:
                    await worker.options(timeout=0.1).call("nap", 30)
            with pytest.raises(vv.WorkerCrashed):
                async with pool.lease() as worker:
                    await worker.call("die")
            assert await asyncio.wait_for(pool.call("double", 1), 10) == 2

    asyncio.run(main())


def test_call_of_a_lease_that_is_late_before_its_turn_costs_nothing(make_async_pool: MakeAsyncPool) -> None:
    """It is told so at its deadline, and the call before it goes on."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool, pool.lease() as lease:
            slow = lease.submit("nap", 0.5, "there")
            await asyncio.sleep(0)
            with pytest.raises(vv.CallTimeout):
                await lease.options(timeout=0.1).call("double", 4)
            assert not slow.done()
            assert await slow == "there"
            assert await lease.call("double", 4) == 8
            assert pool.stats().calls_timed_out == 1

    asyncio.run(main())


def test_two_that_gather_leases_do_not_wait_for_each_other(make_pool: MakePool) -> None:
    """Threads and tasks that take several workers take turns, and nobody waits for ever."""
    pool = make_pool(module="poolwork", workers=2)
    done = []

    def block() -> None:
        for _ in range(10):
            with pool.leases(2) as workers:
                done.append(len(workers))

    async def tasks() -> None:
        async def one() -> None:
            for _ in range(10):
                async with pool.aio.leases(2) as workers:
                    done.append(len({worker.pid for worker in workers}))

        await asyncio.gather(one(), one())
        async with pool.aio.leases(2):
            with pytest.raises(vv.CallTimeout):
                async with pool.aio.leases(1, timeout=0.1):
                    pass
        with pytest.raises(ValueError, match="at most 2"):
            async with pool.aio.leases(3):
                pass

    threads = [threading.Thread(target=block), threading.Thread(target=asyncio.run, args=(tasks(),))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert done == [2] * 30


def test_named_worker_outlives_its_block_and_keeps_its_state(make_async_pool: MakeAsyncPool) -> None:
    """Awaited or entered; the same worker; gone when it is killed."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            first = await pool.named("gpu")
            await first.call("remember", "key", 1)
            async with pool.named("gpu") as second:
                assert await second.call("recall", "key") == 1
                assert await second.options(timeout=5).eval("1") == 1
            assert await first.submit("recall", "key") == 1
            with pytest.raises(LookupError):
                await pool.named("other", create=False)
            with pytest.raises(TypeError):
                await pool.named(3)  # type: ignore[arg-type]
            assert {info.name for info in pool.workers()} == {None, "gpu"}
            first.kill()
            with pytest.raises(vv.WorkerError):
                await second.call("recall", "key")
            assert await (await pool.named("gpu")).call("recall", "key") is None

    asyncio.run(main())


def test_object_is_made_and_its_methods_are_called_without_blocking_the_loop(make_async_pool: MakeAsyncPool) -> None:
    """On any worker, or a named one; a task that is cancelled stops the method; errors are the method's own."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            for where in (pool, pool.options(timeout=20), await pool.named("other")):
                box = await where.object("builtins:list", [3, 1, 2])
                assert await vv.awaited(box.append)(4) is None
                assert vv.value(box) == [3, 1, 2, 4]
                assert await vv.awaited(box.pop)() == 4
                with pytest.raises(IndexError):
                    await vv.awaited(box.pop)(100)
            time_module = await pool.object("importlib:import_module", "time")
            turns = asyncio.create_task(vv.awaited(time_module.sleep)(0.3))
            count = 0
            while not turns.done():
                await asyncio.sleep(0.001)
                count += 1
            assert count > 10
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(vv.awaited(time_module.sleep)(60), 0.1)
            assert await asyncio.wait_for(pool.call("double", 4), 10) == 8
            with pytest.raises(TypeError, match="takes a proxy"):
                vv.awaited(print)

    asyncio.run(main())


def test_awaited_method_may_raise_what_ends_an_iteration(make_async_pool: MakeAsyncPool) -> None:
    """Which no coroutine can raise, so it is a RuntimeError, as that of `call` is."""

    async def main() -> None:
        script = vv.run_script("def take():\n    return next(iter(()))")
        async with make_async_pool(workers=1) as pool:
            for raising in (pool.eval("next(iter(()))"), vv.awaited(script.take)()):
                with pytest.raises(RuntimeError, match="StopIteration"):
                    await asyncio.wait_for(raising, 10)
        vv.close(script)

    asyncio.run(main())


def test_detached_calls_are_awaited_and_taken_once(make_async_pool: MakeAsyncPool) -> None:
    """A wait that runs out or is cancelled takes nothing; the end of the pool wakes those who wait."""

    async def main() -> None:
        async with make_async_pool(module="poolwork", workers=1) as pool:
            detached = pool.detached
            slow = await detached.start("nap", 0.5, "slow")
            assert (await detached.peek(slow)).state == "pending"
            with pytest.raises(vv.ResultNotReady):
                await detached.result(slow, timeout=0.05)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(detached.result(slow), 0.05)
            assert [call.id for call in await detached.list()] == [slow]
            assert await detached.result(slow) == "slow"
            with pytest.raises(vv.UnknownCall):
                await detached.result(slow)
            with pytest.raises(ValueError, match="as asked"):
                await pool.options(timeout=5).detached.result(await detached.start("fail"))
            long = await detached.start("nap", 30)
            asyncio.get_running_loop().call_later(0.2, lambda: asyncio.ensure_future(detached.cancel(long)))
            with pytest.raises(vv.CallCancelled):
                await detached.result(long)

    asyncio.run(main())


def test_pool_serves_loops_in_turn_and_two_at_once(make_pool: MakePool) -> None:
    """`asyncio.run` again and again, and in two threads together."""
    pool = make_pool(module="poolwork", workers=2)

    async def main(base: int) -> list[int]:
        return await asyncio.gather(*[pool.aio.call("double", base + n) for n in range(50)])

    for base in range(3):
        assert asyncio.run(main(base)) == [2 * (base + n) for n in range(50)]
    results: list[Any] = []
    threads = [threading.Thread(target=lambda n=n: results.append(asyncio.run(main(n)))) for n in (100, 200)]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(result[0] for result in results) == [200, 400]


def test_loop_closed_with_calls_in_flight_loses_no_worker(make_pool: MakePool) -> None:
    """One that runs and one that waits for a worker are left behind by their loop; others are served at once."""
    pool = make_pool(module="poolwork", workers=1)

    async def main() -> None:
        tasks.extend([pool.aio.submit("nap", 0.2), pool.aio.submit("double", 1)])
        await asyncio.sleep(0.1)

    tasks: list[Any] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    waiting = tasks.pop()
    loop.set_exception_handler(lambda loop, context: None)  # "Task was destroyed": so they were
    loop.close()
    del loop
    tasks.clear()
    gc.collect()  # the loop has gone, and with it the task whose call runs
    assert pool.options(timeout=10).call("double", 2) == 4  # although `waiting` is first in the queue
    assert not waiting.done()
    waiting.get_coro().close()
    waiting._log_destroy_pending = False


def test_debug_mode_finds_nothing_to_say(make_async_pool: MakeAsyncPool, caplog: pytest.LogCaptureFixture) -> None:
    """asyncio's own checks: wrong threads, coroutines that were never awaited, slow callbacks of ours."""

    async def main() -> None:
        asyncio.get_running_loop().slow_callback_duration = 2.0
        async with make_async_pool(module="poolwork", workers=2) as pool:
            await asyncio.gather(*[pool.call("double", n) for n in range(20)])
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pool.call("nap", 30), 0.1)

    asyncio.run(main(), debug=True)
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.levelname != "DEBUG"] == []


def test_forked_child_is_told_whose_pool_it_is_and_leaves_the_parents_calls_alone(make_pool: MakePool) -> None:
    """A fork in the middle of a call: the child cancels its copy of the task, and the parent gets its reply."""
    pool = make_pool(module="poolwork", workers=1)

    async def main() -> int:
        task = pool.aio.submit("nap", 0.5, 5)
        await asyncio.sleep(0.1)
        child = os.fork()
        if not child:
            code = 3
            try:
                task.get_coro().close()  # what a collected task does
                try:
                    asyncio._set_running_loop(None)
                    asyncio.run(pool.aio.call("double", 1))
                except vv.PoolClosed:
                    code = 0
            finally:
                os._exit(code)
        assert await asyncio.wait_for(task, 10) == 5
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert asyncio.run(main()) == 0


def test_ctrl_c_ends_asyncio_run_at_once_and_quietly(tmp_path: Path, home: Path) -> None:
    """The call is stopped, the workers end, and nothing is said but KeyboardInterrupt."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import asyncio, sys, venvoy as vv

            async def main():
                async with vv.AsyncPool(workers=2) as pool:
                    print("ready", *[info.pid for info in pool.workers()], flush=True)
                    await asyncio.gather(*[pool.call("time:sleep", 60) for _ in range(5)])

            try:
                asyncio.run(main())
            except KeyboardInterrupt:
                sys.exit(5)
            """
        )
    )
    environ = {**os.environ, "VENVOY_HOME": str(home)}
    command = [sys.executable, "-X", "dev", str(script)]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = process.stdout.readline().split()[1:]
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert time.monotonic() - began < 8
    assert process.returncode == 5
    assert [line for line in said.splitlines() if "took" not in line] == []  # of debug mode: a slow import, say
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_import_of_venvoy_does_not_import_asyncio(run_script: RunScript) -> None:
    """Those who block do not pay for those who await."""
    done = run_script(
        """
        import sys, venvoy as vv
        with vv.Pool(workers=1) as pool:
            pool.call("math:sqrt", 4)
        assert "asyncio" not in sys.modules
        """
    )
    assert done.returncode == 0, done.stderr


def test_definitions_statements_and_named_workers_are_as_in_the_blocking_face(make_async_pool: MakeAsyncPool) -> None:
    """What one face does, the other does."""

    async def main() -> None:
        async with make_async_pool(workers=1) as pool:
            await pool.define("def triple(n): return 3 * n")
            assert await pool.call("triple", 4) == 12
            with pytest.raises(TypeError, match=r"define\(\) takes source text, not int"):
                await pool.define(3)  # type: ignore[arg-type]
            assert await pool.exec("import math; return math.isqrt(n)", n=17) == 4
            worker = await pool.named("session")
            assert "session" in repr(worker)
            await worker.call("poolwork:out", "from the session")
            assert "from the session" in worker.output("stdout")
            assert worker.pid != await pool.call("poolwork:pid")
            worker.terminate()
            with pytest.raises(vv.WorkerError):
                await worker.call("poolwork:pid")

    asyncio.run(main())


def test_close_that_is_cancelled_ends_everything_at_once(make_async_pool: MakeAsyncPool, tmp_path: Path) -> None:
    """Whoever waits no longer for running calls has them ended."""

    async def main() -> None:
        pool = make_async_pool(workers=1)
        began, never = tmp_path / "began", tmp_path / "never"
        running = asyncio.create_task(pool.call("poolwork:begin_and_wait_for", str(began), str(never)))
        while not began.exists():
            await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await pool.close(60)
        with pytest.raises(vv.VenvoyError):
            await running

    asyncio.run(main())


def test_leaving_that_is_cancelled_ends_everything_at_once(make_async_pool: MakeAsyncPool, tmp_path: Path) -> None:
    """The end of the block waits for its calls, unless it is told not to."""
    calls: list[asyncio.Task[Any]] = []

    async def block() -> None:
        began, never = tmp_path / "began", tmp_path / "never"
        async with asyncio.timeout(None) as limit, make_async_pool(workers=1) as pool:
            calls.append(asyncio.create_task(pool.call("poolwork:begin_and_wait_for", str(began), str(never))))
            while not began.exists():
                await asyncio.sleep(0.01)
            limit.reschedule(asyncio.get_running_loop().time() + 0.1)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await block()
        with pytest.raises(vv.VenvoyError):
            await calls[0]

    asyncio.run(main())


def test_who_gathers_waits_for_who_does_so_already_up_to_a_timeout(make_pool: MakePool) -> None:
    """And leaves nothing behind."""

    async def main() -> None:
        pool = make_pool(workers=1)
        async with pool.aio.lease() as worker:
            pid = worker.pid

            async def take() -> int:
                async with pool.aio.leases(1, timeout=20) as workers:
                    return workers[0].pid

            first = asyncio.create_task(take())
            while not pool.stats().waiting:
                await asyncio.sleep(0.01)
            with pytest.raises(vv.CallTimeout, match=r"leases\(\): no worker was free"):
                async with pool.aio.leases(1, timeout=0.1):
                    pass
        assert await first == pid

    asyncio.run(main())
