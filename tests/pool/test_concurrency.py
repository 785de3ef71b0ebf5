"""Several calls at once in one worker: functions on threads, coroutine functions on its event loop."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv
from venvoy.calling import make_call
from venvoy.pool.roster import Ticket

MakePool = Callable[..., vv.Pool]
Until = Callable[..., None]
IsSettled = Callable[..., None]
OVERSHOOT = 1.5  # seconds a loaded machine may add to a deadline


@pytest.fixture
def shared_pool(make_pool: MakePool) -> Callable[..., vv.Pool]:
    """Make pools whose workers run several calls at once."""

    def make(env: Any = None, concurrency: int = 8, *, options: dict[str, Any] | None = None, **rest: Any) -> vv.Pool:
        rest.setdefault("workers", 1)
        return make_pool(env, "together", options={"concurrency": concurrency, **(options or {})}, **rest)

    return make


@pytest.fixture(params=[0, -1], ids=["oldest", "newest"])
def extreme(request: pytest.FixtureRequest, interpreters: list[str]) -> str:
    """The oldest and the newest CPython of the machine."""
    return interpreters[request.param]


def test_a_mix_of_calls_never_crosses(shared_pool: Callable[..., vv.Pool], interpreter: str) -> None:
    """Two hundred calls of four kinds: each gets its own result or error, and knows its own number throughout."""
    pool = shared_pool(interpreter, concurrency=16)
    kinds = random.Random(6).choices(["who", "awho", "fail", "afail"], k=200)
    futures = [pool.submit(kind, str(number)) for number, kind in enumerate(kinds)]
    numbers = set()
    for number, (kind, future) in enumerate(zip(kinds, futures, strict=True)):
        if "fail" in kind:
            with pytest.raises(ValueError, match=f"^{number}$"):
                future.result(30)
        else:
            value, first, last, seen = future.result(30)
            assert (value, seen) == (str(number), str(number))
            assert first == last
            numbers.add(first)
    assert len(numbers) == sum("fail" not in kind for kind in kinds)


@pytest.mark.parametrize("target", ["nap", "anap"])
def test_calls_run_at_once(shared_pool: Callable[..., vv.Pool], extreme: str, target: str) -> None:
    """Sleeping calls overlap, up to the number there may be and no further."""
    pool = shared_pool(extreme)
    pool.warm()
    assert list(pool.map(target, [0.3] * 8)) == [None] * 8
    assert pool.call("most") == 8
    assert list(pool.map(target, [0.01] * 40)) == [None] * 40
    assert pool.call("most") == 8


@pytest.mark.parametrize("workers", [1, 4])
def test_many_threads_call_at_once(shared_pool: Callable[..., vv.Pool], is_settled: IsSettled, workers: int) -> None:
    """Sixteen threads, fifty calls each, of both kinds: every answer is right and every lane comes back."""
    pool = shared_pool(concurrency=4, workers=workers)

    def work(thread: int) -> list[Any]:
        calls = [("who", "awho", "poolwork:double")[(thread + number) % 3] for number in range(50)]
        return [pool.call(target, f"{thread}-{number}") for number, target in enumerate(calls)]

    with ThreadPoolExecutor(16) as threads:
        for thread, results in enumerate(threads.map(work, range(16))):
            for number, result in enumerate(results):
                mine = f"{thread}-{number}"
                assert result == 2 * mine if isinstance(result, str) else (result[0], result[3]) == (mine, mine)
    is_settled(pool, workers)
    assert pool.stats().calls_done == 800


def test_workers_share_the_work_before_one_gets_two_calls(shared_pool: Callable[..., vv.Pool]) -> None:
    """Four calls on four workers of four lanes run in four processes."""
    pool = shared_pool(concurrency=4, workers=4)
    pool.warm(4)
    futures = [pool.submit("nap", 0.5) for _ in range(4)]
    assert [info.state for info in pool.workers()] == ["busy"] * 4
    assert [info.running for info in pool.workers()] == [1] * 4
    wait(futures, 10)


def test_a_worker_is_started_only_when_no_lane_is_free(shared_pool: Callable[..., vv.Pool], until: Until) -> None:
    """Three calls fit into one worker; the fourth asks for another."""
    pool = shared_pool(concurrency=3, workers=(1, 4))
    pool.warm()
    futures = [pool.submit("nap", 0.6) for _ in range(3)]
    time.sleep(0.2)
    assert pool.stats().workers_started == 1
    futures += [pool.submit("nap", 0.6) for _ in range(2)]
    until(lambda: pool.stats().workers_started == 2)
    wait(futures, 10)
    assert pool.stats().workers_started == 2


def test_functions_run_on_threads_and_coroutines_on_the_main_one(
    shared_pool: Callable[..., vv.Pool], extreme: str
) -> None:
    """The loop is that of the main thread, for all coroutines of a worker."""
    pool = shared_pool(extreme)
    name, is_main = pool.call("thread")
    assert name.startswith("venvoy-lane-")
    assert not is_main
    assert pool.call("athread")[1]
    pool.call("make_shared")
    assert [future.result(10) for future in [pool.submit("is_shared") for _ in range(8)]] == [True] * 8


def test_an_initializer_may_be_a_coroutine_function(make_pool: MakePool, extreme: str) -> None:
    """It runs on the loop on which calls will."""
    options = {"concurrency": 4, "initializer": "together:make_shared"}
    assert make_pool(extreme, "together", workers=1, options=options).call("is_shared")


def test_a_coroutine_function_is_run_to_its_end_by_any_worker(make_pool: MakePool, extreme: str) -> None:
    """With one call at a time, too, in calls and in map."""
    pool = make_pool(extreme, workers=1)
    assert pool.call("together:anap", 0.01, "there") == "there"
    assert list(pool.map("together:anap", [0, 0], ["a", "b"])) == ["a", "b"]
    with pytest.raises(vv.CallTimeout):
        pool.options(timeout=0.2).call("together:anap", 60)
    assert pool.call("together:anap", 0, "again") == "again"


def test_a_function_by_source_is_made_once_for_all_lanes(shared_pool: Callable[..., vv.Pool], extreme: str) -> None:
    """Eight calls at once of a text no lane has seen find one module."""
    pool = shared_pool(extreme)
    pool.warm()

    def where(_: int) -> int:
        return id(globals())

    assert len(set(pool.map(where, range(64), chunksize=1))) == 1


def test_a_module_that_another_call_is_importing_is_waited_for(
    shared_pool: Callable[..., vv.Pool], extreme: str
) -> None:
    """Nobody sees it half imported."""
    pool = shared_pool(extreme)
    pool.warm()
    futures = [pool.submit("together_slow:last") for _ in range(8)]
    assert [future.result(20) for future in futures] == [2] * 8


# --- stopping -------------------------------------------------------------------------------------


def test_cancelling_one_of_eight_leaves_the_others(
    shared_pool: Callable[..., vv.Pool], extreme: str, is_settled: IsSettled
) -> None:
    """The coroutine is cancelled at once, and seven results come."""
    pool = shared_pool(extreme)
    pid = pool.call("pid")
    futures = [pool.submit("anap", 0.5, number) for number in range(8)]
    while not futures[3].running():
        time.sleep(0.005)
    time.sleep(0.1)
    assert futures[3].cancel()
    with pytest.raises(vv.CallCancelled):
        futures[3].result(10)
    assert [future.result(10) for number, future in enumerate(futures) if number != 3] == [0, 1, 2, 4, 5, 6, 7]
    is_settled(pool, 1)
    assert pool.call("pid") == pid


def test_a_cancelled_coroutine_may_clean_up(
    shared_pool: Callable[..., vv.Pool], tmp_path: Path, until: Until, extreme: str
) -> None:
    """Its `finally` runs to its end, which may wait for something."""
    pool = shared_pool(extreme)
    future = pool.submit("clean_up", str(tmp_path / "began"), str(tmp_path / "cleaned"))
    until((tmp_path / "began").exists)
    assert future.cancel()
    with pytest.raises(vv.CallCancelled):
        future.result(10)
    assert (tmp_path / "cleaned").exists()


def test_a_function_that_looks_sees_that_it_is_to_stop(
    shared_pool: Callable[..., vv.Pool], tmp_path: Path, until: Until, is_settled: IsSettled
) -> None:
    """It is not interrupted, and the worker serves on."""
    pool = shared_pool()
    pid = pool.call("pid")
    other = pool.submit("nap", 0.5, "other")
    with pytest.raises(vv.CallTimeout):
        pool.options(timeout=0.3).call("obey", str(tmp_path / "began"))
    assert other.result(10) == "other"
    is_settled(pool, 1)
    assert pool.call("pid") == pid


@pytest.mark.parametrize("way", ["call", "submit"])
def test_a_thread_that_ignores_its_deadline_costs_the_worker_when_the_others_have_ended(
    shared_pool: Callable[..., vv.Pool], way: str, is_settled: IsSettled
) -> None:
    """The caller is free at the deadline, a short neighbour has its result, new calls go to a new worker."""
    pool = shared_pool()
    pid = pool.call("pid")
    neighbour = pool.submit("nap", 1.0, "neighbour")  # longer than deadline and grace, shorter than twice the grace
    view, began = pool.options(timeout=0.2), time.monotonic()
    with pytest.raises(vv.CallTimeout):
        view.call("nap", 60) if way == "call" else view.submit("nap", 60).result(20)
    assert time.monotonic() - began < 0.2 + OVERSHOOT
    assert neighbour.result(10) == "neighbour"
    is_settled(pool, 1)
    assert pool.call("pid") != pid
    assert pool.stats().workers_ended == {"drained": 1}


def test_who_runs_beside_a_thread_that_does_not_stop_is_told_that_it_was_not_its_fault(
    shared_pool: Callable[..., vv.Pool],
) -> None:
    """After twice the grace period the worker is killed; `retries` run it again elsewhere, else it fails."""
    pool = shared_pool()
    pid = pool.call("pid")
    lost, again = pool.submit("nap", 60), pool.options(retries=1).submit("poolwork:pid")
    assert again.result(10) == pid
    fresh = pool.options(retries=1).submit("touch_and_nap", os.devnull, 2.5, "fresh")
    with pytest.raises(vv.CallTimeout):
        pool.options(timeout=0.2).call("nap", 60)
    with pytest.raises(vv.WorkerCrashed, match="another call on it did not stop") as caught:
        lost.result(20)
    assert caught.value.collateral
    assert caught.value.started
    assert fresh.result(20) == "fresh"
    assert pool.call("pid") != pid


# --- the end of a worker --------------------------------------------------------------------------


def test_a_crash_fails_each_call_that_ran_there(shared_pool: Callable[..., vv.Pool], extreme: str) -> None:
    """Each has its own error, with what the worker has left behind; the pool serves on."""
    pool = shared_pool(extreme)
    pool.warm()
    futures = [pool.submit("anap", 60) for _ in range(3)] + [pool.submit("nap", 60) for _ in range(3)]
    time.sleep(0.3)
    with pytest.raises(vv.WorkerCrashed) as caught:
        pool.call("crash")
    assert "SIGSEGV" in str(caught.value)
    for future in futures:
        with pytest.raises(vv.WorkerCrashed) as others:
            future.result(10)
        assert others.value.pid == caught.value.pid
        assert not others.value.collateral
    assert pool.call("poolwork:double", 2) == 4


def test_calls_that_had_not_begun_are_run_elsewhere(shared_pool: Callable[..., vv.Pool]) -> None:
    """Whatever was sent ahead or waits is retried by itself when the worker dies."""
    pool = shared_pool(concurrency=2, workers=1)
    pool.warm()
    running = [pool.submit("nap", 60) for _ in range(2)]
    waiting = [pool.submit("poolwork:double", number) for number in range(20)]
    time.sleep(0.2)
    pool.kill(pool.workers()[0].id)
    assert [future.result(20) for future in waiting] == [2 * number for number in range(20)]
    for future in running:
        with pytest.raises(vv.WorkerCrashed):
            future.result(10)


@pytest.mark.parametrize("target", ["exit_task", "exit_thread"])
def test_sys_exit_is_the_error_of_its_call(shared_pool: Callable[..., vv.Pool], extreme: str, target: str) -> None:
    """The loop and the other calls go on."""
    pool = shared_pool(extreme)
    pid, other = pool.call("pid"), pool.submit("anap", 0.4, "other")
    with pytest.raises(vv.RemoteError, match="3"):
        pool.call(target)
    assert other.result(10) == "other"
    assert pool.call("pid") == pid


def test_a_call_that_forks_and_returns_twice_is_answered_once(
    shared_pool: Callable[..., vv.Pool], extreme: str
) -> None:
    """The other process ends quietly."""
    pool = shared_pool(extreme)
    pid = pool.call("pid")
    assert {future.result(10) for future in [pool.submit("fork_and_return") for _ in range(4)]} == {pid}


def test_a_worker_is_recycled_when_all_its_lanes_are_free(
    shared_pool: Callable[..., vv.Pool], is_settled: IsSettled
) -> None:
    """No call fails when `max_calls` is reached again and again."""
    pool = shared_pool(concurrency=4, options={"max_calls": 10})
    pids = {future.result(30)[0] for future in [pool.submit("who", number) for number in range(100)]}
    assert pids == set(range(100))
    is_settled(pool, 1)
    stats = pool.stats()
    assert stats.workers_ended.get("max_calls", 0) >= 3
    assert stats.workers_crashed == stats.calls_failed == 0


def test_shutdown_waits_for_what_runs(shared_pool: Callable[..., vv.Pool]) -> None:
    """Calls on all lanes, and those that wait, are finished."""
    pool = shared_pool(concurrency=4)
    futures = [pool.submit(("nap", "anap")[number % 2], 0.2, number) for number in range(12)]
    pool.shutdown()
    assert [future.result(0) for future in futures] == list(range(12))


def test_close_with_calls_in_flight_is_bounded(shared_pool: Callable[..., vv.Pool]) -> None:
    """What runs is ended after the time-out, and all futures are done."""
    pool = shared_pool(concurrency=4, workers=2)
    futures = [pool.submit(("nap", "anap")[number % 2], 60) for number in range(12)]
    time.sleep(0.2)
    began = time.monotonic()
    pool.close(0.2)
    assert time.monotonic() - began < 0.2 + OVERSHOOT
    for future in futures:
        with pytest.raises(vv.VenvoyError):
            future.result(5)


def test_what_a_call_left_on_the_loop_is_cancelled_at_the_end(
    shared_pool: Callable[..., vv.Pool], tmp_path: Path, extreme: str
) -> None:
    """As by `asyncio.run`."""
    pool = shared_pool(extreme)
    pool.call("leave_task", str(tmp_path / "cleaned"))
    pool.shutdown()
    assert (tmp_path / "cleaned").exists()


def test_callers_that_are_interrupted_lose_no_lane(shared_pool: Callable[..., vv.Pool], is_settled: IsSettled) -> None:
    """Deadlines of all lengths, from several threads at once."""
    pool = shared_pool(concurrency=4, workers=2)
    pool.warm()

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(25):
            try:
                pool.options(timeout=chance.uniform(0.001, 0.02)).call("anap", chance.uniform(0, 0.02))
            except vv.CallTimeout:
                pass

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    is_settled(pool, 2)
    assert [info.running for info in pool.workers()] == [0, 0]
    assert list(pool.map("poolwork:double", range(20))) == list(range(0, 40, 2))


@pytest.mark.parametrize("wrong", [0, 257, 1.5, True, "4"])
def test_a_wrong_number_is_refused_at_once(wrong: Any) -> None:
    """Before anything starts, naming the option."""
    with pytest.raises(ValueError, match="concurrency"):
        vv.WorkerOptions(concurrency=wrong)


def test_workers_of_a_template_run_several_calls_at_once(shared_pool: Callable[..., vv.Pool], extreme: str) -> None:
    """Forked ones have their lanes, their loop and their threads."""
    pool = shared_pool(extreme, workers=2, options={"start": "zygote", "preload": ["together", "asyncio"]})
    pool.warm()
    assert list(pool.map("anap", [0.2] * 16)) == [None] * 16
    assert list(pool.map("nap", [0.2] * 16)) == [None] * 16
    with pytest.raises(vv.CallTimeout):
        pool.options(timeout=0.2).call("anap", 60)
    assert pool.call("awho", 5)[0] == 5


def test_large_values_of_many_calls_do_not_cross(shared_pool: Callable[..., vv.Pool], extreme: str) -> None:
    """They share memory with the host, which all lanes use at once."""
    pool = shared_pool(extreme)
    pool.warm()

    def work(thread: int) -> None:
        for number in range(20):
            data = bytes([(thread * 20 + number) % 256]) * 500_000
            assert pool.call("poolwork:double", data) == 2 * data

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))


# --- what calls say while they run ----------------------------------------------------------------


@pytest.mark.parametrize("target", ["ask", "aask", "ask_aside"])
def test_callbacks_of_calls_at_once_never_cross(shared_pool: Callable[..., vv.Pool], extreme: str, target: str) -> None:
    """Each is answered by the function that it was given, from functions, coroutines and threads of the loop's."""
    pool = shared_pool(extreme)

    def work(thread: int) -> None:
        for _ in range(10):
            assert pool.call(target, vv.callback(lambda value: (thread, value)), [1, 2]) == [(thread, 1), (thread, 2)]

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    futures = [pool.submit(target, vv.callback(lambda value, n=n: (n, value)), "ab") for n in range(20)]
    assert [future.result(20) for future in futures] == [[(n, "a"), (n, "b")] for n in range(20)]


@pytest.mark.parametrize("start", ["spawn", "zygote"])
def test_exposed_functions_that_call_the_pool_wait_for_nobody(shared_pool: Callable[..., vv.Pool], start: str) -> None:
    """Four callers on a worker of two lanes, each of which calls the pool again from its callback."""
    pools: list[vv.Pool] = []

    def again(value: int) -> int:
        return int(pools[0].call("poolwork:double", value))

    pools.append(shared_pool(concurrency=2, options={"start": start}, expose={"again": again}))
    with ThreadPoolExecutor(4) as threads:
        results = threads.map(lambda value: pools[0].call("ask_by_name", "again", value), range(40))
        assert list(results) == list(range(0, 80, 2))
    pools.clear()


def test_progress_belongs_to_its_call(shared_pool: Callable[..., vv.Pool]) -> None:
    """Four calls at once, each of which is seen at its end."""
    pool = shared_pool(concurrency=4)
    seen: dict[int, list[str]] = {number: [] for number in range(4)}
    futures = [
        pool.options(on_progress=lambda report, n=n: seen[n].append(report.message)).submit("advance", n, 5)
        for n in range(4)
    ]
    assert [future.result(20) for future in futures] == [0, 1, 2, 3]
    assert all(set(messages) == {str(number)} for number, messages in seen.items())


@pytest.mark.parametrize("target", ["say", "asay"])
def test_what_is_printed_belongs_to_the_call_that_printed_it(
    shared_pool: Callable[..., vv.Pool], extreme: str, until: Until, target: str
) -> None:
    """Line by line, from eight calls at once, whatever threads or tasks they are; raw writes belong to none."""
    chunks: list[vv.OutputChunk] = []
    pool = shared_pool(extreme, options={"output": chunks.append})
    futures = [pool.submit(target, f"call-{number}", 5) for number in range(8)]
    wait(futures, 20)
    pool.call("os:write", 1, b"raw\n")
    until(lambda: "raw" in "".join(chunk.text for chunk in chunks))
    authors: dict[str, set[int]] = {}
    for chunk in chunks:
        for line in chunk.text.splitlines():
            authors.setdefault(line.split(" ")[0], set()).add(chunk.call)
            assert chunk.target == ("" if line == "raw" else target)
    assert authors.pop("raw") == {0}
    assert sorted(authors) == [f"call-{number}" for number in range(8)]
    assert all(len(calls) == 1 for calls in authors.values())
    assert len(set.union(*authors.values())) == 8
    text = pool.output(stream="stdout")
    assert all(f"call-{number} {line}" in text for number in range(8) for line in range(5))


def test_what_is_begun_is_told_at_a_flush_and_with_the_call(shared_pool: Callable[..., vv.Pool], until: Until) -> None:
    """A line without an end, on both streams, and a text larger than any buffer."""
    chunks: list[vv.OutputChunk] = []
    pool = shared_pool(options={"output": chunks.append})
    pool.call("print_parts", 300_000)
    stdout = lambda: "".join(chunk.text for chunk in chunks if chunk.stream == "stdout")  # noqa: E731
    until(lambda: stdout().endswith("end"))
    assert stdout() == "begun, flushed" + "\u00e4" * 300_000 + "end"
    until(lambda: [chunk.text for chunk in chunks if chunk.stream == "stderr"] == ["to stderr"])
    assert len({chunk.call for chunk in chunks}) == 1


def test_log_records_know_their_call(
    shared_pool: Callable[..., vv.Pool], caplog: pytest.LogCaptureFixture, until: Until, extreme: str
) -> None:
    """Number and target, of functions and coroutines that log at the same time."""
    pool = shared_pool(extreme)
    with caplog.at_level("INFO"):
        futures = [pool.submit(("log", "alog")[number % 2], f"from {number}") for number in range(8)]
        numbers = [future.result(20) for future in futures]
        until(lambda: sum("from" in record.getMessage() for record in caplog.records) >= 16)
    records = [record for record in caplog.records if record.getMessage().startswith("from ")]
    for record in records:
        index = int(record.getMessage().split(" ")[1])
        assert record.__dict__["venvoy_call"] == numbers[index]


@pytest.mark.parametrize("target", ["count_up", "acount_up"])
def test_streams_of_calls_at_once_never_cross(shared_pool: Callable[..., vv.Pool], extreme: str, target: str) -> None:
    """Eight generators in one worker, each to the end for a consumer of its own."""
    pool = shared_pool(extreme)

    def work(thread: int) -> None:
        assert list(pool.stream(target, thread, 3000)) == [(thread, number) for number in range(3000)]

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))


@pytest.mark.parametrize("target", ["count_up", "acount_up"])
def test_a_stream_that_is_left_ends_in_the_worker(
    shared_pool: Callable[..., vv.Pool], tmp_path: Path, until: Until, extreme: str, target: str
) -> None:
    """Its `finally` runs, a neighbour goes on, and the lane is free again."""
    pool = shared_pool(extreme, concurrency=2)
    pid = pool.call("pid")
    neighbour = pool.submit("anap", 0.5, "neighbour")
    for _, number in pool.stream(target, "left", 10_000_000, str(tmp_path / "left")):
        if number == 5:
            break
    until((tmp_path / "left").exists)
    assert neighbour.result(10) == "neighbour"
    assert [future.result(10) for future in [pool.submit("anap", 0.1, n) for n in range(2)]] == [0, 1]
    assert pool.call("pid") == pid


def test_a_request_that_was_written_in_part_costs_no_other_call(
    shared_pool: Callable[..., vv.Pool], is_settled: IsSettled
) -> None:
    """Its lane is given up; the worker is replaced once the others have ended."""
    pool = shared_pool(concurrency=3)
    pid = pool.call("pid")
    neighbours = [pool.submit("nap", 1.0, "neighbour"), pool.submit("anap", 1.0, "neighbour")]
    call = make_call("together:pid", (b"x" * 1000,), {})
    engine, ticket = pool._core.engine, Ticket()
    lane = engine.acquire(ticket, call)
    _, pieces = lane.begin(call)
    lane.channel._size = lane.channel._left = len(pieces[0])
    lane.channel.written.append(lane.channel._out.send(bytes(pieces[0])[:500]))
    engine.give_up(ticket)
    assert [future.result(10) for future in neighbours] == ["neighbour"] * 2
    is_settled(pool, 1)
    assert pool.call("pid") != pid
    assert pool.stats().workers_ended == {"drained": 1}
    assert pool.stats().workers_crashed == 0
