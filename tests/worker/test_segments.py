"""Large values in memory that host and worker share: faithful, private, reused, and never left over."""

from __future__ import annotations

import gc
import os
import random
import resource
import runpy
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import venvoy as vv

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no anonymous files")

LEAST = 262_144
large = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "workload" / "large.py")))
OpenPool = Callable[..., vv.Pool]


def lender_of(pool: vv.Pool) -> Any:
    """Return what the host lends to the one worker of a pool."""
    (worker,) = pool._core.staff.known()
    return worker.loans.lender


def borrower_of(pool: vv.Pool) -> Any:
    """Return what the host borrows of the one worker of a pool."""
    (worker,) = pool._core.staff.known()
    return worker.loans.borrower


array = large.make


@pytest.mark.parametrize("size", [0, 1, LEAST - 1, LEAST, LEAST + 1, 5_000_000])
def test_values_of_every_size_survive(open_pool: OpenPool, interpreter: str, size: int) -> None:
    """Bytes, text and memory that goes out of band, to and from every Python."""
    data = os.urandom(size)
    with open_pool(interpreter) as pool:
        assert pool.call("large:echo", data) == data
        assert pool.call("large:echo", data.hex()) == data.hex()
        assert pool.call("large:echo", bytearray(data)) == data
        back = pool.call("large:echo", memoryview(bytearray(data)))
        assert bytes(back) == data
        assert not back.readonly
        assert (lender_of(pool)._newest > 0) == (size * 2 >= LEAST)  # the text has twice the size


@pytest.mark.slow
def test_a_hundred_megabytes_survive(open_pool: OpenPool, extreme: str) -> None:
    """As bytes, as text, and out of band."""
    data = os.urandom(1 << 20) * 100
    with open_pool(extreme) as pool:
        assert pool.call("large:echo", data) == data
        assert bytes(pool.call("large:echo", memoryview(bytearray(data)))) == data
        assert pool.call("large:echo", "ä" * 50_000_000) == "ä" * 50_000_000


def test_many_parts_of_one_value_survive(open_pool: OpenPool, extreme: str) -> None:
    """Small ones inline, large ones in segments of their own or together, in their places."""
    sizes = [10, 300_000, 5_000_000, 5000, 262_144, 6_000_000, 1, 400_000, 0, 9_000_000]
    parts: list[Any] = [array(size, index) for index, size in enumerate(sizes)]
    with open_pool(extreme) as pool:
        back = pool.call("large:echo", [*parts, b"z" * 300_000])
        assert [len(part) for part in back] == [*sizes, 300_000]
        assert [bytes(part[:1]) for part in back if len(part)] == [
            *[bytes([index]) for index, size in enumerate(sizes) if size],
            b"z",
        ]


def test_results_that_are_held_stay_as_they_are(open_pool: OpenPool, extreme: str) -> None:
    """However many are held while others come: a segment is written only when nothing refers to it."""
    with open_pool(extreme) as pool:
        held = [pool.call("large:make", 300_000 + index, index) for index in range(40)]
        held += [pool.call("large:make", 400_000, 77)[1000:1010]]
        for index in range(20):
            pool.call("large:make", 400_000, 100 + index)
        assert [(len(value), value[0], value[-1]) for value in held[:-1]] == [
            (300_000 + index, index, index) for index in range(40)
        ]
        assert bytes(held[-1]) == bytes([77]) * 10


def test_arguments_that_the_worker_keeps_stay_as_they_are(open_pool: OpenPool, extreme: str) -> None:
    """The host writes no segment again to which something in the worker refers."""
    with open_pool(extreme) as pool:
        for index in range(20):
            pool.call("large:keep", array(300_000, index))
            pool.call("large:look", array(300_000, 200))
        assert pool.call("large:look_at_kept") == list(range(20))


def test_in_steady_state_no_segment_is_made(open_pool: OpenPool, extreme: str, until: Callable[..., None]) -> None:
    """The same few serve for ever, in both directions, with the last result still held."""
    with open_pool(extreme) as pool:
        result = pool.call("large:echo", array(1_000_000))
        lender = lender_of(pool)
        for _ in range(30):  # each side is told by another thread that one has come back: wait for both
            until(lambda: any(segment.tag is None for segment in lender._segments))
            until(lambda: pool.call("large:lent") == 1)
            result = pool.call("large:echo", array(1_000_000))
        assert len(result) == 1_000_000
        assert lender._newest == 1
        assert borrower_of(pool)._newest == 2  # one is held, one comes


def test_news_that_come_late_cost_a_few_segments_once(
    open_pool: OpenPool, extreme: str, monkeypatch: pytest.MonkeyPatch, until: Callable[..., None]
) -> None:
    """Who does not know yet that one has come back makes another, up to a limit, and needs no more later."""
    with open_pool(extreme) as pool:
        result = pool.call("large:make", 1_000_000)
        borrower, late = borrower_of(pool), []
        with monkeypatch.context() as patch:
            tell = borrower._tell
            patch.setattr(borrower, "_tell", lambda pieces: late.append(pieces) or True)
            for fill in range(20):
                result = pool.call("large:make", 1_000_000, fill)
                assert (result[0], result[-1]) == (fill, fill)
        most = borrower._newest
        assert 3 < most <= 8
        for pieces in late:
            assert tell(pieces)
        until(lambda: pool.call("large:lent") <= 1)
        for fill in range(20):
            result = pool.call("large:make", 1_000_000, fill)
            assert (result[0], result[-1]) == (fill, fill)
        assert borrower._newest == most


def test_the_receiver_may_write_and_the_sender_does_not_see_it(open_pool: OpenPool, extreme: str) -> None:
    """In the worker and in the host, as with a pickle."""
    mine = array(1_000_000)
    with open_pool(extreme) as pool:
        assert pool.call("large:scribble", mine) == 255
        assert mine[0] == 1
        pool.call("large:keep", array(1_000_000))
        back = pool.eval("__import__('large').kept[0]")
        back[0] = 255
        assert pool.call("large:look_at_kept") == [1]


def test_values_are_read_only_where_asked_for(open_pool: OpenPool, extreme: str) -> None:
    """What came in a segment cannot be written; it is returned all the same."""
    with open_pool(extreme, segment_access="readonly") as pool:
        with pytest.raises(TypeError):
            pool.call("large:scribble", array(1_000_000))
        back = pool.call("large:make", 1_000_000)
        assert back.readonly
        assert bytes(pool.call("large:echo", array(300_000, 3))) == bytes([3]) * 300_000
        assert pool.call("large:echo", b"x" * 1_000_000) == b"x" * 1_000_000


@pytest.mark.parametrize("size", [100, 5_000, 100_000, 131_000, 132_000])
def test_small_values_may_go_through_segments(open_pool: OpenPool, extreme: str, size: int) -> None:
    """In both directions, arguments of callbacks and their answers too."""
    with open_pool(extreme, segment_bytes=100) as pool:
        for value in (b"x" * size, ["y" * size], array(size, 7)):
            assert pool.call("large:echo", value) == value
            assert pool.call(lambda f, value: f(value), vv.callback(lambda value: value), value) == value
        assert lender_of(pool)._newest > 0
        assert borrower_of(pool)._newest > 0


def test_without_segments_all_goes_inline(open_pool: OpenPool) -> None:
    """`segment_bytes=None` says so."""
    with open_pool(segment_bytes=None) as pool:
        assert pool.call("large:look", pool.call("large:make", 1_000_000)) == (1_000_000, 1, 1)
        assert lender_of(pool)._newest == borrower_of(pool)._newest == 0


def test_memory_that_is_kept_for_the_next_time_is_bounded(open_pool: OpenPool, extreme: str) -> None:
    """What would be beyond the bound is given away, and is gone as soon as its receiver drops it."""
    with open_pool(extreme, segment_cache_bytes=4_000_000) as pool:
        for size in (1_000_000, 3_000_000, 2_000_000, 20_000_000, 300_000, 3_500_000):
            assert pool.call("large:look", array(size, 5)) == (size, 5, 5)
            held = pool.call("large:make", size, 6)
            assert (len(held), held[0], held[-1]) == (size, 6, 6)
            assert sum(len(one.memory) for one in lender_of(pool)._segments) <= 4_000_000
        held = pool.call("large:make", 20_000_000)
        before = large.segments()
        del held
        assert large.segments()[0] == before[0] - 1


def test_nothing_of_a_pool_is_left_in_the_host(open_pool: OpenPool, extreme: str) -> None:
    """Mappings and descriptors go with it; a result that is held keeps its own until it is dropped."""
    before = large.segments()
    with open_pool(extreme) as pool:
        held = pool.call("large:echo", array(1_000_000, 8))
    del pool
    assert bytes(held[-3:]) == bytes([8]) * 3
    del held
    gc.collect()
    assert large.segments() == before


def test_a_process_forked_by_user_code_keeps_what_it_has(open_pool: OpenPool, extreme: str, tmp_path: Path) -> None:
    """The worker drops its argument, the host sends others, and the forked process still sees the first."""
    path = tmp_path / "seen"
    with open_pool(extreme) as pool:
        pool.call("large:keep", array(1_000_000, 4))
        assert pool.call("large:fork_with", array(1_000_000, 7), str(path), 0.5) == 7
        for _ in range(10):
            pool.call("large:look", array(1_000_000, 99))
        deadline = time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert path.read_bytes() == bytes([7, 7])
        assert pool.call("large:look_at_kept") == [4]


def test_a_process_forked_by_the_host_keeps_what_it_has(open_pool: OpenPool, tmp_path: Path) -> None:
    """The same the other way round; and neither sees what the other writes."""
    path = tmp_path / "seen"
    with open_pool() as pool:
        held = pool.call("large:make", 1_000_000, 7)
        large.fork_with(held, str(path), 0.5)
        held[-1] = 1
        still = pool.call("large:make", 1_000_000, 3)
        held = None
        for _ in range(10):
            pool.call("large:make", 1_000_000, 99)
        os.wait()
        assert path.read_bytes() == bytes([7, 7])
        assert (still[0], still[-1]) == (3, 3)


def test_a_call_that_is_run_again_sends_its_arguments_again(open_pool: OpenPool, extreme: str, tmp_path: Path) -> None:
    """To the worker that replaces the one that died with them."""
    with open_pool(extreme) as pool:
        view = pool.options(retries=1)
        back = view.call("large:die_then_echo", array(1_000_000, 5), str(tmp_path / "died"))
        assert bytes(back) == bytes([5]) * 1_000_000


def test_the_reply_of_a_call_that_was_given_up_is_given_back(open_pool: OpenPool, extreme: str) -> None:
    """Nobody reads it, and its segments serve the next calls."""
    with open_pool(extreme) as pool:
        for _ in range(12):
            with pytest.raises(vv.CallTimeout):
                pool.options(timeout=0.02, on_timeout="abandon").eval(
                    "__import__('time').sleep(0.1) or __import__('large').make(1_000_000)"
                )
        pool.call("large:make", 1_000_000)
        assert borrower_of(pool)._newest < 8


def test_an_error_with_a_large_argument_gives_it_back(open_pool: OpenPool, extreme: str) -> None:
    """Its traceback goes with the call, and so do the segments it referred to."""
    with open_pool(extreme) as pool:
        for _ in range(12):
            with pytest.raises(TypeError):
                pool.call("large:look", array(1_000_000), 1, 2)
        assert lender_of(pool)._newest < 12


def test_results_of_submit_and_map_come_in_segments(open_pool: OpenPool, extreme: str) -> None:
    """Whoever reads the reply."""
    with open_pool(extreme, workers=2) as pool:
        futures = [pool.submit("large:echo", array(400_000, index)) for index in range(12)]
        assert [future.result()[0] for future in futures] == list(range(12))
        sizes = [300_000] * 30
        assert [len(value) for value in pool.map("large:make", sizes)] == sizes


def test_threads_that_call_at_once_do_not_mix_up_their_values(open_pool: OpenPool) -> None:
    """Each has its own lane, segments are of the worker."""
    wrong: list[Any] = []

    def call(pool: vv.Pool, fill: int) -> None:
        for _ in range(15):
            back = pool.call("large:echo", array(500_000, fill))
            if bytes(back) != bytes([fill]) * 500_000:
                wrong.append(fill)

    with open_pool(workers=2) as pool:
        threads = [threading.Thread(target=call, args=(pool, fill)) for fill in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_descriptor_there_is_no_room_for_fails_that_call_only(open_pool: OpenPool) -> None:
    """The error names the reason, and the worker goes on."""
    with open_pool() as pool:
        assert pool.call("large:look", b"x" * 10) == (10, 120, 120)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir("/proc/self/fd")))
        spare = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        try:
            while True:
                spare.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        try:
            with pytest.raises(vv.EncodingError, match="open files"):
                pool.call("large:make", 1_000_000)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in spare:
                os.close(fd)
        assert len(pool.call("large:make", 1_000_000)) == 1_000_000


def test_the_worker_dies_and_what_was_received_stays(open_pool: OpenPool, extreme: str) -> None:
    """A result is the host's, whatever becomes of the worker."""
    with open_pool(extreme) as pool:
        held = pool.call("large:make", 1_000_000, 6)
        pid = pool.call("os:getpid")
        with pytest.raises(vv.WorkerCrashed):
            pool.call("os:kill", pid, signal.SIGKILL)
        assert pool.call("os:getpid") != pid
        assert bytes(held) == bytes([6]) * 1_000_000


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("CI"), reason="takes a minute and 14 GiB of memory: where CI is set")
def test_values_beyond_four_gigabytes_survive(open_pool: OpenPool) -> None:
    """As bytes and out of band, there and back; no size is counted in 32 bits."""
    size = 4_100_000_000
    with open_pool() as pool:
        assert pool.call("large:look", array(size, 3)) == (size, 3, 3)
        back = pool.call("large:make", size, 4)
        assert (len(back), back[0], back[-1]) == (size, 4, 4)
        del back
        assert pool.call("large:look", b"5" * size) == (size, 53, 53)
        data = pool.eval("b'6' * size", size=size)
        assert (len(data), data[0], data[-1]) == (size, 54, 54)


def test_what_shared_memory_refuses_goes_inline(open_pool: OpenPool, extreme: str) -> None:
    """A limit of the system, here of the size of files, costs speed and nothing else."""
    with open_pool(extreme) as pool:
        pool.call("large:limit_files", 100_000)
        assert len(pool.call("large:make", 1_000_000)) == 1_000_000
        assert borrower_of(pool)._newest == 0
        assert pool.call("large:echo", b"x" * 20_000_000) == b"x" * 20_000_000


def test_memory_kept_for_large_values_is_no_reason_to_end_a_worker(open_pool: OpenPool) -> None:
    """`max_rss` is about what the worker's code takes."""
    with open_pool(max_rss=100_000_000) as pool:
        pid = pool.call("os:getpid")
        results = [pool.call("large:make", 30_000_000) for _ in range(6)]
        assert len(results) == 6
        time.sleep(0.05)  # it is not looked at with every call
        assert pool.call("os:getpid") == pool.call("os:getpid") == pid


def test_interrupted_callers_lose_and_mix_up_nothing(open_pool: OpenPool, until: Callable[..., None]) -> None:
    """An exception thrown into the caller anywhere: the next values are right, and segments come back."""
    import ctypes

    class Interrupt(BaseException):
        pass

    target = threading.get_ident()
    has_begun, is_over = threading.Event(), threading.Event()

    def interrupt() -> None:
        has_begun.wait()  # not while the thread is being started
        while not is_over.wait(random.uniform(0.001, 0.02)):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(target), ctypes.py_object(Interrupt))

    with open_pool(workers=2) as pool:
        thread = threading.Thread(target=interrupt)
        wrong, right, interrupted = [], 0, 0
        try:
            thread.start()
            has_begun.set()
            for number in range(150):
                fill = number % 251
                try:
                    back = pool.call("large:echo", array(300_000, fill))
                    seen = (len(back), back[0], back[150_000], back[-1])
                    if seen != (300_000, fill, fill, fill):
                        wrong.append((fill, seen))
                    right += 1
                except Interrupt:
                    interrupted += 1
        finally:
            try:
                is_over.set()
                thread.join()
            except Interrupt:
                thread.join()
        assert wrong == []
        back = None
        for fill in range(30):
            assert pool.call("large:look", array(300_000, fill)) == (300_000, fill, fill)
        lenders = [worker.loans.lender for worker in pool._core.staff.known()]
        until(lambda: all(segment.tag is None for lender in lenders for segment in lender._segments))
        assert interrupted


def test_items_of_streams_and_arguments_of_callbacks_come_in_segments(open_pool: OpenPool, extreme: str) -> None:
    """What is between a call and its reply is as large as it likes."""
    with open_pool(extreme) as pool:
        held = list(pool.stream("large:stream", 20, 400_000))
        assert [(len(item), item[0], item[-1]) for item in held] == [(400_000, index, index) for index in range(20)]
        assert borrower_of(pool)._newest >= 8
        assert pool.call("large:ask", vv.callback(lambda value: (len(value), value[7])), 1_000_000) == (1_000_000, 5)
        assert pool.call("large:look", array(300_000, 3)) == (300_000, 3, 3)


def test_what_functions_of_the_host_return_comes_in_segments(open_pool: OpenPool, extreme: str) -> None:
    """However often one call asks: what it has dropped is given back before it asks again."""
    with open_pool(extreme) as pool:
        fills = pool.call("large:look_at_answers", vv.callback(lambda index: array(400_000, index)), 40)
        assert fills == list(range(40))
        assert 0 < lender_of(pool)._newest <= 8
        items = (array(400_000, index) for index in range(20))
        assert [len(item) for item in pool.call("large:echo_all", items)] == [400_000] * 20


def test_an_answer_that_comes_too_late_keeps_no_segment(open_pool: OpenPool, until: Callable[..., None]) -> None:
    """The deadline passes while the function runs, so nothing of what it returns is sent."""
    with open_pool() as pool:
        pool.call("large:make", 1)

        def late(index: int) -> Any:
            time.sleep(0.15)
            return array(400_000)

        for _ in range(3):
            with pytest.raises(vv.CallTimeout):
                pool.options(timeout=0.1).call("large:look_at_answers", vv.callback(late), 1)
        pool.call("large:make", 1)
        lender = lender_of(pool)
        until(lambda: all(segment.tag is None for segment in lender._segments))


def test_items_that_were_dropped_give_their_segments_back_while_the_stream_goes_on(open_pool: OpenPool) -> None:
    """A long stream of large items needs no more segments than a short one."""
    with open_pool() as pool:
        for index, item in enumerate(pool.stream("large:stream", 100, 20_000_000)):
            assert item[-1] == index
            if index == 30:
                before = borrower_of(pool)._newest
        assert borrower_of(pool)._newest <= before + 3
