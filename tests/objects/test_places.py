"""Where objects can be made: in workers of their own, in a pool's, in leases and named workers."""

from __future__ import annotations

import asyncio
import collections
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv

from .conftest import OLDEST, QUIET, WORK

Until = Callable[..., None]


# --- workers of their own -----------------------------------------------------------------------------------------


def test_run_object(home: Path) -> None:
    """By name, as a class of this module, from a value; a str too."""
    text = vv.run_object("io:StringIO", "hello, world!", worker=QUIET)
    assert text.getvalue() == "hello, world!"
    vv.close(text)
    odct = vv.run_object(collections.OrderedDict, [("a", 1)], python=OLDEST, worker=QUIET)
    assert odct["a"] == 1
    vv.close(odct)
    counter = vv.run_object(vv.by_source(count_from), 3, python=OLDEST, worker=QUIET)
    assert next(counter) == 3
    vv.close(counter)
    for value in ("things:Thing", [1, 2], {"a": {1}}):
        kept = vv.run_object(vv.instance(value), python=OLDEST, worker=QUIET)
        assert isinstance(kept, vv.RemoteProxy)
        assert vv.value(kept) == value
        vv.close(kept)


def count_from(number):  # type: ignore[no-untyped-def]
    """Goes to workers as source."""
    while True:
        yield number
        number += 1


@pytest.mark.parametrize("python", sorted({OLDEST, sys.executable}))
def test_run_module_finds_the_file_in_the_host(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    """A module of a script's folder, a package's module with what is next to it, a file given by its path."""
    (tmp_path / "alone.py").write_text("import beside\nnumber = beside.number + 1\n")
    (tmp_path / "beside.py").write_text("number = 1\n")
    package = tmp_path / "parcel"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("from . import other\nnumber = other.number\n")
    (package / "other.py").write_text("number = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, path, number in (
        *(("alone", None, 2), ("parcel.inner", None, 3), ("alone", tmp_path, 2), ("parcel.inner", tmp_path, 3)),
        *(("given", tmp_path / "alone.py", 2), ("parcel", package / "__init__.py", None)),
    ):
        module = vv.run_module(name, path, python=python, worker=vv.WorkerOptions(output="discard"))
        assert module.__name__ == name
        assert number is None or module.number == number
        vv.close(module)


def test_run_module_takes_the_standard_library_of_the_workers_own_python(home: Path) -> None:
    """Not that of the host."""
    module = vv.run_module("json", python=OLDEST, worker=QUIET)
    assert module.loads("[1]") == [1]
    assert module.__file__.startswith(str(Path(OLDEST).resolve().parents[1])) or sys.executable == OLDEST
    vv.close(module)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: vv.run_script("x = 1\nif x\n  pass\n", worker=QUIET), SyntaxError, "if x"),
        (lambda: vv.run_script("def f():\n  raise OSError('boom')\nf()", worker=QUIET), OSError, "boom"),
        (lambda: vv.run_script("import sys\nsys.exit('enough')", worker=QUIET), vv.RemoteError, "enough"),
        (lambda: vv.run_script("import os\nos._exit(7)", worker=QUIET), vv.WorkerCrashed, "exited with status 7"),
        (lambda: vv.run_module("no_such_module_at_all", worker=QUIET), vv.TargetNotFound, "no_such_module_at_all"),
        (lambda: vv.run_module("x", "/no/such/file.py"), FileNotFoundError, "no/such"),
        (lambda: vv.run_object("things:Nothing", worker=QUIET), vv.TargetNotFound, "Nothing"),
        (lambda: vv.run_object("nothing:Thing", worker=QUIET), vv.TargetNotFound, "nothing"),
        (lambda: vv.run_object("things:Raises", worker=QUIET), ValueError, "not today"),
        (lambda: vv.run_object("things:foo", worker=QUIET), TypeError, "not callable"),
        (lambda: vv.run_script("1", python="/no/such/python"), vv.EnvError, "no/such/python"),
        (lambda: vv.run_script("1", python="3.11", env=vv.EnvSpec()), ValueError, "not both"),
        (lambda: vv.run_script(b"1"), TypeError, "text of a script"),  # type: ignore[arg-type]
        (lambda: vv.run_module("a b"), ValueError, "a b"),
        (lambda: vv.run_object("io:StringIO", timeout=-1), ValueError, "timeout"),
        (lambda: vv.run_object(vv.instance(threading.Lock()), worker=QUIET), vv.EncodingError, "lock"),
        (lambda: vv.run_object(vv.instance(1), 2, worker=QUIET), TypeError, "no arguments"),
        (lambda: vv.close("x"), TypeError, "takes a proxy"),
        (lambda: vv.worker_info(3), TypeError, "takes a proxy"),
    ],
)
def test_what_stands_in_the_way_is_raised_with_its_text(
    home: Path, make: Callable[[], object], error: type[Exception], text: str
) -> None:
    """And no worker stays behind."""
    with pytest.raises(error) as caught:
        make()
    shown = f"{caught.value}\n{getattr(caught.value, 'text', '')}\n{caught.value.__cause__}"
    assert text in shown


def test_a_script_that_fails_shows_its_lines(home: Path) -> None:
    """In the traceback, as a file's would be."""
    with pytest.raises(OSError) as caught:
        vv.run_script("def f():\n    raise OSError('boom')  # here\nf()\n", python=OLDEST, worker=QUIET)
    assert "File \"<script>\", line 2, in f\n    raise OSError('boom')  # here" in str(caught.value.__cause__)


# --- pools --------------------------------------------------------------------------------------------------------


def test_an_object_on_a_pools_worker(pool: vv.Pool, until: Until) -> None:
    """Others go on calling that worker; the object keeps the pool; dropping it leaves the worker."""
    thing = pool.object("things:Thing", 3)
    pid = thing.pid()
    assert pool.call("os:getpid") == pid
    assert pool.options(timeout=5).object("builtins:list", [1]).append(2) is None
    thing.rows.append(pool.eval("1 + 1"))
    assert vv.value(thing.rows) == [2]
    del thing
    until(lambda: pool.call("things:table") == 0)
    assert pool.call("os:getpid") == pid
    with pytest.raises(ValueError, match="not today"):
        pool.object("things:Raises")
    made = vv.Pool(workers=1, worker=QUIET).object("things:Thing", 5)
    gc.collect()
    assert made.number == 5
    del made


@pytest.mark.parametrize(
    "options", [{"concurrency": 3}, {"start": "zygote"}, {}], ids=["several calls at once", "forked", "not trusted"]
)
def test_objects_on_workers_of_other_kinds(home: Path, options: dict[str, Any], until: Until) -> None:
    """Workers that run several calls at once, that are forked, whose replies are not trusted."""
    worker = vv.WorkerOptions(paths=[WORK], output="discard", **options)
    with vv.Pool(workers=1, worker=worker, home=home, unpickle="full" if options else "safe") as pool:
        thing = pool.object("things:Thing", 3)
        assert (thing.add(1).number, thing.fresh(), list(thing.count(2))) == (4, [4, {"a": {1, 2}}], [0, 1])
        assert [item.number for item in pool.object("things:Shelf", thing.child(), thing)] == [5, 4]
        assert asyncio.run(_gather(thing)) == [2, 4]
        with pytest.raises(LookupError):
            thing.fail()
        del thing
        until(lambda: pool.call("things:table") == 0)


async def _gather(thing: Any) -> list[Any]:
    return await asyncio.gather(thing.later(1), thing.later(2))


def test_a_worker_that_died_while_idle_costs_no_object(pool: vv.Pool) -> None:
    """The object is made on another one."""
    for _ in range(3):
        os.kill(pool.call("os:getpid"), signal.SIGKILL)
        assert pool.object("things:Thing", 3).number == 3


def test_proxies_live_until_their_call_has_ended(pool: vv.Pool) -> None:
    """Temporary ones among the arguments of calls that wait in the queue."""
    futures = [pool.submit("things:is_same", [pool.object("things:Thing", number)], 3) for number in range(20)]
    gc.collect()
    assert not any(future.result() for future in futures)
    shown = list(pool.map("builtins:repr", [pool.object("things:Thing", number) for number in range(3)]))
    assert shown == ["Thing(0)", "Thing(1)", "Thing(2)"]
    assert pool.eval("thing.number", thing=pool.object("things:Thing", 7)) == 7


def test_objects_and_calls_take_turns(pool: vv.Pool) -> None:
    """Threads that use the object do not keep others from the worker, nor these them."""
    thing = pool.object("things:Thing", 0)
    ends = time.monotonic() + 0.6
    counts = [0, 0, 0, 0, 0]

    def use(place: int) -> None:
        while time.monotonic() < ends:
            if place < 3:
                thing.number  # noqa: B018
            elif place == 3:
                pool.call("builtins:abs", -1)
            else:
                pool.submit("builtins:abs", -1).result()
            counts[place] += 1

    threads = [threading.Thread(target=use, args=(place,)) for place in range(len(counts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert min(counts) > 20, counts
    assert pool.stats().workers["idle"] == 1


def test_a_worker_with_an_object_is_not_replaced_by_plan(home: Path, until: Until) -> None:
    """Not for its number of calls, its age, a reload, or being idle; once the object is gone, it is."""
    options = vv.WorkerOptions(paths=[WORK], output="discard", max_calls=5, max_age=0.4)
    scale = vv.ScalePolicy(idle_timeout=0.2)
    with vv.Pool(workers=(0, 2), worker=options, scale=scale, home=home) as pool:
        thing = pool.object("things:Thing", 1)
        pid = thing.pid()
        for _ in range(12):
            assert thing.add(1) == thing
            pool.call("builtins:abs", -1)
        pool.reload()
        pool.reap()
        time.sleep(0.8)
        assert (thing.number, thing.pid()) == (13, pid)
        assert pid in [info.pid for info in pool.workers()]
        del thing
        until(lambda: pid not in [info.pid for info in pool.workers()])


def test_the_end_of_a_pool_is_the_end_of_its_objects(home: Path) -> None:
    """Shut down, closed, its worker killed: each says so."""
    with vv.Pool(workers=1, worker=QUIET, home=home) as pool:
        thing = pool.object("things:Thing", 1)
    with pytest.raises(vv.StaleProxy, match="closed"):
        thing.number  # noqa: B018
    pool = vv.Pool(workers=1, worker=QUIET, home=home)
    thing = pool.object("things:Thing", 1)
    pool.kill(vv.worker_info(thing).id)
    with pytest.raises(vv.StaleProxy, match="SIGKILL"):
        thing.number  # noqa: B018
    assert pool.object("things:Thing", 2).number == 2
    vv.close(thing)
    pool.close(0)


def test_a_timeout_on_a_pools_object_spares_the_pool(pool: vv.Pool, until: Until) -> None:
    """The objects of that worker are stale; calls go on, and new objects can be made."""
    pool.warm()  # which may take longer than what is given to one operation
    thing = pool.options(timeout=1.0).object("things:Thing", 1)
    other = pool.object("things:Thing", 2)
    with pytest.raises(vv.CallTimeout):
        thing.sleep(30)
    for stale in (thing, other):
        with pytest.raises(vv.StaleProxy, match="deadline"):
            stale.number  # noqa: B018
    until(lambda: pool.call("things:table") == 0)
    assert pool.object("things:Thing", 4).number == 4


# --- leases and named workers -------------------------------------------------------------------------------------


def test_objects_of_a_lease_end_with_it(pool: vv.Pool, until: Until) -> None:
    """They share the worker with its calls, and are released at its end."""
    with pool.lease() as worker:
        thing = worker.object("things:Thing", 3)
        assert (thing.number, thing.pid(), worker.call("things:table")) == (3, worker.pid, 1)
        assert worker.options(timeout=5).object("things:Thing", 4).number == 4
    with pytest.raises(vv.StaleProxy, match="lease has ended"):
        thing.number  # noqa: B018
    until(lambda: pool.call("things:table") == 0)


def test_objects_of_a_named_worker(pool: vv.Pool) -> None:
    """They live as long as it does."""
    alice = pool.named("alice")
    thing: Any = alice.object("things:Thing", 3)
    assert (thing.number, thing.pid()) == (3, alice.pid)
    alice.kill()
    with pytest.raises(vv.StaleProxy):
        thing.number  # noqa: B018
