"""What a generator in a worker yields arrives while it runs, as fast as it is taken; and all ends as it should."""

from __future__ import annotations

import fcntl
import gc
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]
Until = Callable[..., None]


@pytest.fixture
def pool(make_pool: MakePool) -> vv.Pool:
    return make_pool(module="flowing", workers=1)


# --- what arrives -----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["count", "count_async"])
def test_all_items_arrive_in_order(make_pool: MakePool, interpreter: str, target: str) -> None:
    """Of generators and of asynchronous ones, on every Python: none, one, and many more than a window."""
    pool = make_pool(interpreter, "flowing", workers=1)
    for number in (0, 1, 15, 16, 17, 5000):
        assert list(pool.stream(target, number)) == list(range(number))
    assert pool.call("noted") == []


def test_any_iterable_can_be_streamed(pool: vv.Pool) -> None:
    """And what is none is an error that says so; targets and keywords work as in calls."""
    assert list(pool.stream("builtins:range", 3)) == [0, 1, 2]
    assert list(pool.stream("builtins:dict", a=1)) == ["a"]
    assert list(pool.stream(lambda n: (x * x for x in range(n)), 3)) == [0, 1, 4]
    assert list(pool.stream("abc".upper)) == ["A", "B", "C"]
    with pytest.raises(TypeError, match="not iterable"):
        list(pool.stream("math:sqrt", 4))


def test_items_of_all_kinds_keep_their_order(pool: vv.Pool) -> None:
    """Small ones wait for each other, large ones go alone."""
    items = list(pool.stream("mixed"))
    assert items[:4] == [1, "two", {"three": [3.0, None]}, ("four", b"4" * 5000)]
    assert items[4:] == [b"5" * 300_000, {"six": {"deep": [[6]]}}, list(range(1000))]


@pytest.mark.parametrize("target", ["one_list", "one_nested_list"])
def test_an_item_is_as_it_was_when_it_was_yielded(pool: vv.Pool, target: str) -> None:
    """Although the generator goes on to change it."""
    lengths = [len(row[0]) if target == "one_nested_list" else len(row) for row in pool.stream(target, 300)]
    assert lengths == list(range(1, 301))


def test_items_are_converted_and_limited_one_by_one(pool: vv.Pool) -> None:
    """`returns=` and `max_bytes=` speak of an item, not of all."""
    assert list(pool.options(returns=float).stream("count", 3)) == [0.0, 1.0, 2.0]
    assert len(list(pool.options(max_bytes=2000).stream("chunks", 50, 1000))) == 50
    stream = pool.options(max_bytes=2000).stream("chunks", 2, 3000)
    with pytest.raises(vv.MessageTooLarge, match="item 0 of the stream"):
        next(stream)


def test_large_items_arrive_whole(pool: vv.Pool) -> None:
    """More bytes than any socket or window holds."""
    for index, chunk in enumerate(pool.stream("chunks", 12, 3_000_000)):
        assert (len(chunk), chunk[0]) == (3_000_000, index)


# --- when it arrives --------------------------------------------------------------------------------


def test_an_item_arrives_when_it_is_yielded(pool: vv.Pool) -> None:
    """Not with the next, nor when a batch is full; the median, since the machine may be busy."""
    delays = sorted(time.time() - moment for moment in pool.stream("ticks", 15, 0.03))
    assert delays[7] < 0.02


def test_an_item_arrives_whatever_the_generator_does_next(pool: vv.Pool) -> None:
    """Also when it keeps the interpreter busy."""
    worst = []
    for _ in range(3):
        stream = pool.stream("spin", 0.5)
        worst.append(max(time.time() - next(stream) for _ in range(3)))
        assert len(list(stream)) == 1
    assert min(worst) < 0.1


def test_a_generator_waits_for_its_consumer(pool: vv.Pool) -> None:
    """It runs ahead by a window, and no further."""
    stream = pool.stream("noting")
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    time.sleep(0.2)
    stream.close()
    assert pool.call("noted")[0] <= 3 + 2 * 16


@pytest.mark.slow
def test_a_slow_consumer_costs_no_memory(pool: vv.Pool) -> None:
    """A million items, taken more slowly than they are made: both processes stay as large as they were."""
    worker = psutil.Process(pool.call("os:getpid"))
    host = psutil.Process()
    sizes = []
    for index, item in enumerate(pool.stream("count", 1_000_000)):
        assert item == index
        if index % 100_000 == 5_000:
            time.sleep(0.05)
            sizes.append((worker.memory_info().rss, host.memory_info().rss))
    assert len(sizes) == 10
    for before, after in zip(sizes[2], sizes[-1], strict=True):
        assert after - before < 8 << 20


# --- how it ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["break", "close", "with", "drop"])
@pytest.mark.parametrize("target", ["noting", "noting_async"])
def test_leaving_early_closes_the_generator(pool: vv.Pool, until: Until, target: str, how: str) -> None:
    """Its `finally` runs within a second, and the worker serves on."""
    pid = pool.call("os:getpid")
    stream = pool.stream(target)
    assert next(stream) == 0
    if how == "break":
        for _ in stream:
            break
        del stream
    elif how == "close":
        stream.close()
        stream.close()
        assert list(stream) == []
    elif how == "with":
        with stream:
            pass
    else:
        del stream
        gc.collect()
    begin = time.monotonic()
    assert pool.call("noted")[1:] in (
        ["GeneratorExit", "closed"],
        ["Cancelled", "closed"],
        ["CancelledError", "closed"],
    )
    assert time.monotonic() - begin < 1
    assert pool.call("os:getpid") == pid


def test_an_exception_comes_after_the_items_before_it(pool: vv.Pool) -> None:
    """Also when these waited to be sent."""
    for number in (0, 1, 100):
        items: list[int] = []
        with pytest.raises(KeyError, match=f"after {number}"):
            items.extend(pool.stream("fail_after", number))
        assert items == list(range(number))
    items = []
    with pytest.raises(vv.EncodingError, match=r"item 20\['lock'\]\[0\] of the stream"):
        items.extend(pool.stream("bad_item", 20))
    assert items == list(range(20))
    assert list(pool.stream("count", 3)) == [0, 1, 2]


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_a_crash_comes_after_the_items_before_it(pool: vv.Pool, how: str) -> None:
    """And the next stream has a new worker."""
    items: list[int] = []
    with pytest.raises(vv.WorkerCrashed):
        items.extend(pool.stream("die_after", 10, how))
    assert items == list(range(10))
    assert list(pool.stream("count", 3)) == [0, 1, 2]


def test_the_deadline_is_that_of_the_whole_stream(pool: vv.Pool) -> None:
    """However fast its items come; the generator is closed."""
    pid, begin = pool.call("os:getpid"), time.monotonic()
    with pytest.raises(vv.CallTimeout):
        for _ in pool.options(timeout=0.3).stream("noting", 0.001):
            pass
    assert time.monotonic() - begin < 5
    assert pool.call("noted")[-1] == "closed"
    assert pool.call("os:getpid") == pid


def test_a_stream_waits_for_a_worker_as_a_call_does(pool: vv.Pool) -> None:
    """And gives its worker back when it has ended."""
    stream = pool.stream("count", 100)
    next(stream)
    with pytest.raises(vv.CallTimeout):
        pool.options(timeout=0.1).stream("count", 1)
    with pytest.raises(vv.TooManyWaiting):
        pool.options(queue_timeout=0).call("os:getpid")
    assert len(list(stream)) == 99
    assert pool.options(timeout=10).call("builtins:abs", -1) == 1
    with pytest.raises(vv.TargetNotFound):
        next(pool.stream("no_such_function"))


def test_an_interrupt_while_waiting_leaves_nothing_behind(pool: vv.Pool, until: Until) -> None:
    """Ctrl-C in a callback stands for one anywhere."""

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(pool.stream("with_callback", vv.callback(interrupted), 3))
    assert list(pool.stream("count", 3)) == [0, 1, 2]


def test_one_thread_reads_at_a_time(make_pool: MakePool) -> None:
    """Another gets an error, not somebody else's items."""
    pool = make_pool(module="flowing", workers=1)
    stream = pool.stream("ticks", 3, 0.5)
    next(stream)
    thread = threading.Thread(target=lambda: list(stream))
    thread.start()
    time.sleep(0.1)
    with pytest.raises(ValueError, match="another thread"):
        next(stream)
    thread.join()


def test_closing_the_pool_ends_its_streams(make_pool: MakePool) -> None:
    """They raise as calls do."""
    pool = make_pool(module="flowing", workers=1)
    stream = pool.stream("noting", 0.01)
    next(stream)
    pool.close(0)
    with pytest.raises((vv.PoolClosed, vv.WorkerCrashed, vv.CallCancelled)):
        for _ in stream:
            pass


# --- leases, named workers, several calls at once -----------------------------------------------------


def test_leases_stream_too(pool: vv.Pool) -> None:
    """One after the other; a stream that is left early costs the lease nothing."""
    with pool.lease() as lease:
        pid = lease.pid
        assert list(lease.stream("count", 40)) == list(range(40))
        for item in lease.stream("chunks", 10_000, 100_000):
            assert len(item) == 100_000
            break
        assert lease.call("os:getpid") == pid
        with lease.stream("noting") as stream:
            next(stream)
            with pytest.raises(vv.WorkerError, match="a stream of this lease is open"):
                lease.call("os:getpid")
        assert lease.call("noted")[-1] == "closed"
        left_open = lease.stream("noting")
        next(left_open)
    assert pool.call("noted")[-1] == "closed"
    assert pool.call("os:getpid") == pid


def test_a_lease_whose_worker_dies_in_a_stream_says_so(pool: vv.Pool) -> None:
    """It has no worker any more."""
    with pool.lease() as lease:
        with pytest.raises(vv.WorkerCrashed):
            list(lease.stream("die_after", 3, "kill"))
        with pytest.raises(vv.WorkerError):
            lease.call("os:getpid")
    with pool.lease() as lease:
        stream = lease.stream("noting")
        next(stream)
        lease.kill()
        stream.close()
    assert pool.call("builtins:abs", -1) == 1


def test_named_workers_stream_too(pool: vv.Pool) -> None:
    """In their own process, which goes on."""
    worker = pool.named("one")
    assert sum(worker.stream("count", 100)) == 4950
    for _ in worker.stream("noting"):
        break
    assert worker.call("noted")[-1] == "closed"


def test_streams_of_one_worker_that_runs_several_calls(make_pool: MakePool) -> None:
    """Each on its lane; leaving one early leaves the others alone."""
    pool = make_pool(module="flowing", workers=1, options={"concurrency": 3})
    first, second, third = pool.stream("count", 3000), pool.stream("count_async", 300), pool.stream("noting")
    assert next(third) == 0
    third.close()
    pairs = list(itertools.zip_longest(first, second))
    assert [a for a, _ in pairs] == list(range(3000))
    assert [b for _, b in pairs][:300] == list(range(300))
    assert pool.call("noted")[-1] == "closed"


def test_streams_and_callbacks_of_forked_workers(make_pool: MakePool) -> None:
    """A worker that was forked from a template has lines of its own."""
    pool = make_pool(module="flowing", workers=2, options={"start": "zygote"})
    first, second = pool.stream("count", 500), pool.stream("with_callback", vv.callback(abs), 40)
    assert [b for _, b in itertools.zip_longest(first, second)][:40] == list(range(40))


def test_a_generator_may_call_back_and_be_nested(pool: vv.Pool) -> None:
    """While its consumer asks for the next item."""
    stream = pool.stream("with_callback", vv.callback(lambda x: pool.call("operator:neg", x)), 50)
    assert list(stream) == [-x for x in range(50)]


# --- iterators as arguments ---------------------------------------------------------------------------


class Source:
    """An infinite iterator that notes how much was drawn, and whether it was closed."""

    def __init__(self) -> None:
        self.drawn = 0
        self.is_closed = False
        self.threads: set[int] = set()

    def __iter__(self) -> Iterator[int]:
        try:
            while True:
                self.threads.add(threading.get_ident())
                self.drawn += 1
                yield self.drawn - 1
        finally:
            self.is_closed = True


def test_a_worker_draws_from_an_iterator_of_the_hosts(make_pool: MakePool, interpreter: str) -> None:
    """Of any kind, by position and by keyword, on every Python; in the thread that waits."""
    pool = make_pool(interpreter, "flowing", workers=1)
    assert pool.call("take", iter([1, "two", [3]]), 5) == [1, "two", [3]]
    assert pool.call("builtins:sum", (x for x in range(10_000))) == 49_995_000
    assert pool.call("take", items=zip("ab", (b"x" * 100_000, None), strict=True), number=2)[1] == ("b", None)
    source = Source()
    assert pool.call("take", iter(source), 10) == list(range(10))
    assert source.threads == {threading.get_ident()}


def test_infinite_input_is_drawn_by_a_window(pool: vv.Pool) -> None:
    """And closed when the call has ended, however it ends."""
    source = Source()
    assert pool.submit("take", iter(source), 10).result() == list(range(10))
    assert source.drawn <= 10 + 16
    assert source.is_closed
    source = Source()
    with pool.stream("doubled", iter(source)) as stream:
        assert [next(stream) for _ in range(5)] == [0, 2, 4, 6, 8]
    assert source.is_closed
    with pool.lease() as lease:
        source = Source()
        assert lease.call("take", iter(source), 2) == [0, 1]
        assert source.is_closed


def test_errors_of_an_iterator_reach_the_code_that_draws(pool: vv.Pool) -> None:
    """After the items before them."""

    def failing() -> Iterator[int]:
        yield from range(5)
        raise KeyError("here")

    seen, error = pool.call("first_error", failing())
    assert (seen, error) == (list(range(5)), "KeyError('here')")
    with pytest.raises(KeyError):
        list(pool.stream("doubled", failing()))


def test_items_are_as_they_were_when_they_were_drawn(pool: vv.Pool) -> None:
    """Although the iterator goes on to change them."""

    def growing() -> Iterator[list[Any]]:
        row: list[Any] = [[]]
        for index in range(100):
            row[0].append(index)
            yield row

    assert [len(row[0]) for row in pool.call("take", growing(), 100)] == list(range(1, 101))


def test_files_are_refused(pool: vv.Pool, tmp_path: Path) -> None:
    """Their descriptors, positions and buffers are of this process."""
    path = tmp_path / "file"
    path.write_text("a\nb\n")
    with path.open() as file:
        with pytest.raises(vv.EncodingError, match=r"args\[0\] is an open file"):
            pool.call("take", file, 1)
        assert pool.call("take", (line for line in file), 5) == ["a\n", "b\n"]


def test_what_was_drawn_cannot_be_drawn_again(make_pool: MakePool, tmp_path: Path) -> None:
    """A call is not repeated once its iterator has given something, whatever `retries` says."""
    pool = make_pool(module="flowing", workers=1)
    with pytest.raises(vv.WorkerCrashed):
        pool.options(retries=3).call("die_once", str(tmp_path / "died"), iter([1, 2]))
    assert pool.call("die_once", str(tmp_path / "died"), iter([1, 2])) == [1]


def test_an_iterator_ends_with_its_call(pool: vv.Pool) -> None:
    """Kept in the worker and used later, it is a clear error."""
    pool.call("keep", iter([1]))
    with pytest.raises(RuntimeError, match="has ended"):
        pool.call("next_of_kept")


def test_streams_can_be_chained(make_pool: MakePool) -> None:
    """The output of one pool is the input of another."""
    first, second = make_pool(module="flowing", workers=1), make_pool(module="flowing", workers=1)
    assert list(second.stream("doubled", first.stream("count", 500))) == [2 * x for x in range(500)]


@pytest.mark.skipif(not hasattr(fcntl, "F_GETPIPE_SZ"), reason="pipes have their size here")
@pytest.mark.parametrize("ending", ["exhausted", "left early"])
def test_large_items_have_a_wide_pipe_as_long_as_they_come(
    make_pool: MakePool, is_settled: Callable[..., None], ending: str
) -> None:
    """All pipes of a user share a limit."""
    pool = make_pool(workers=1)
    pool.warm()
    channel = pool._core.staff.known()[0].lanes[0].channel

    def size() -> int:
        return int(fcntl.fcntl(channel.fileno(), fcntl.F_GETPIPE_SZ))

    before = size()
    stream = pool.stream("itertools:repeat", bytes(100_000), 100)
    for _ in range(50):
        next(stream)
    assert size() > before
    for _ in stream if ending == "exhausted" else ():
        pass
    stream.close()
    is_settled(pool, 1)
    assert size() == before
