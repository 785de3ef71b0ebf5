"""Arrays in memory that host and workers share: passed without a copy, seen by all, freed with the last of them."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import venvoy as vv
from venvoy_worker.contract import messages

numpy = pytest.importorskip("numpy")
if not hasattr(os, "memfd_create"):
    pytest.skip("this system has no anonymous files", allow_module_level=True)

WORKLOAD = Path(__file__).parent / "workload"
OpenPool = Callable[..., vv.Pool]


large = SimpleNamespace(**runpy.run_path(str(WORKLOAD / "large.py")))


DTYPES: list[Any] = ["f8", "u1", "M8[ns]", "c16", ">i4", [("a", "i2"), ("b", "f8")], "S5"]
SHAPES: list[Any] = [(), 5, (0,), (3, 4), (2, 0, 3), 400_000]


def test_every_side_sees_what_any_writes(open_pool: OpenPool) -> None:
    """Of every kind and shape; what comes back is the very memory."""
    with open_pool() as pool:
        for dtype, shape in itertools.product(DTYPES, SHAPES):
            array = vv.shared_array(shape, dtype)
            assert array.shape == numpy.zeros(shape, dtype).shape
            assert array.tobytes() == bytes(array.nbytes)
            value = numpy.ones((), dtype)
            back = pool.call("large:set_item", array, ..., value)
            assert (array == value).all()
            assert back.dtype == array.dtype
            assert back.shape == array.shape
            assert numpy.shares_memory(back, array) == (array.size > 0)


def test_views_are_views_of_the_same_memory(open_pool: OpenPool) -> None:
    """Slices, steps, negative ones, transposed, of other dtypes, and several in one call."""
    array = vv.shared_array((10, 20), "i8")
    with open_pool() as pool:
        pool.call("large:set_item", array[2:4, ::3], ..., 1)
        pool.call("large:set_item", array[::-1, ::-1], (0, 0), 2)
        pool.call("large:set_item", array.T, (5, 9), 3)
        pool.call("large:set_item", array.view("i4")[0], 0, 4)
        pool.call("large:set_item", [array[0], array[1]], 0, array[5])
        pool.call("operator:setitem", array[6], 2, array[9, 19] + 5)
        expected = numpy.zeros((10, 20), "i8")
        expected[2:4, ::3] = 1
        expected[9, 19], expected[9, 5], expected[0, 0], expected[6, 2] = 2, 3, 4, 7
        assert (array == expected).all()


def test_a_view_that_cannot_be_written_stays_so(open_pool: OpenPool) -> None:
    """The flag goes with the array."""
    array = vv.shared_array(5)
    array.flags.writeable = False
    with open_pool() as pool, pytest.raises(ValueError, match="read-only"):
        pool.call("large:set_item", array, 0, 1)


def test_several_workers_share_one_array(open_pool: OpenPool) -> None:
    """What one writes another reads, whichever holds it."""
    array = vv.shared_array(1000, "i8")
    with open_pool(workers=2) as pool, pool.leases(2) as (one, two):
        one.exec("kept = array", array=array)
        two.exec("kept = array", array=array)
        one.exec("kept[:] = 7")
        assert two.eval("int(kept.sum())") == 7000
        back = two.eval("kept[1:]")
        back[0] = 8
        assert one.eval("int(kept[1])") == 8
        assert array[1] == 8


def test_an_array_is_the_same_for_a_large_one_and_a_limit(open_pool: OpenPool) -> None:
    """Shared memory is not sent, so no limit of bytes applies, and neither do the options of segments."""
    array = vv.shared_array(10_000_000)
    with open_pool(segment_bytes=None, segment_access="readonly") as pool:
        pool.options(max_bytes=10_000).call("operator:setitem", array, 0, 5.0)
        assert array[0] == 5


def test_the_memory_is_freed_with_the_last_array(open_pool: OpenPool) -> None:
    """On both sides; a view is enough to keep it."""
    before = large.segments()
    with open_pool() as pool:
        array = vv.shared_array(1_000_000)
        back = pool.call("large:set_item", array, 0, 1)
        assert pool.call("large:segments") == (0, 0)
        view = array[5:9]
        del array, back
        gc.collect()
        pool.call("operator:setitem", view, 0, 3.0)
        assert view[0] == 3
        del view
        gc.collect()
        assert large.segments() == before
        with pool.lease() as worker:
            worker.exec("kept = array", array=vv.shared_array(1000))
            gc.collect()
            assert large.segments() == before
            worker.exec("kept[0] = 9")
            assert worker.eval("kept[0]") == 9


def test_it_outlives_a_worker_that_dies(open_pool: OpenPool) -> None:
    """What was written before the death is there, and the next worker sees it."""
    array = vv.shared_array(10)
    with open_pool() as pool:
        with pytest.raises(vv.WorkerCrashed):
            pool.call("large:set_item_and_die", array, 1, 4)
        assert pool.call("builtins:float", array[1]) == 4
        assert pool.call("numpy:sum", array) == 4


def test_a_forked_process_of_the_host_shares_it() -> None:
    """That is what it is for."""
    array = vv.shared_array(10)
    pid = os.fork()
    if pid == 0:
        array[3] = 1
        os._exit(0)
    os.waitpid(pid, 0)
    assert array[3] == 1


def test_what_cannot_be_shared_is_refused() -> None:
    """Objects, negative sizes, and a system that cannot."""
    with pytest.raises(ValueError, match="objects"):
        vv.shared_array(3, object)
    with pytest.raises(ValueError, match="negative"):
        vv.shared_array((2, -1))
    with pytest.raises(TypeError):
        vv.shared_array("3")  # type: ignore[arg-type]


def test_other_systems_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """One clear error."""
    monkeypatch.setattr(messages, "capabilities", lambda: ("signals",))
    with pytest.raises(vv.PoolError, match="Linux"):
        vv.shared_array(3)


def test_without_numpy_it_says_so() -> None:
    """And names what to do."""
    code = "import sys; sys.modules['numpy'] = None; import venvoy; venvoy.shared_array(3)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "install numpy" in done.stderr


def test_a_stream_yields_parts_of_it(open_pool: OpenPool) -> None:
    """Its items are in the same memory."""
    array = vv.shared_array(100, "i8")
    with open_pool() as pool:
        for index, part in enumerate(pool.stream("large:yield_in_turn", array, 10)):
            assert part[0] == index
            assert numpy.shares_memory(part, array)
    assert list(array[:10]) == list(range(10))


def test_what_a_function_of_the_host_returns_is_shared(open_pool: OpenPool) -> None:
    """As an argument or a result is: the worker writes into the host's own array."""
    array = vv.shared_array(1000, "i4")
    with open_pool() as pool:
        for call in (pool.call, lambda *a: pool.submit(*a).result(), lambda *a: asyncio.run(pool.aio.call(*a))):
            array[5] = 0
            call("large:set_item_of_answer", vv.callback(lambda: array[:10]), 5, 7)
            assert array[5] == 7
