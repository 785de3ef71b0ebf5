"""How long objects live, and what is told of those that do not any more."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.conftest import version_of

import venvoy as vv
from venvoy.objects.proxies import reference_of

from .conftest import ENDS, QUIET, THINGS, WORK

Until = Callable[..., None]


def test_the_last_proxy_ends_the_worker(home: Path, until: Until) -> None:
    """A second-level proxy keeps it too."""
    things = vv.run_script(THINGS, worker=QUIET)
    pid = vv.worker_info(things).pid
    rows = things.Thing().rows
    del things
    gc.collect()
    rows.append(1)
    assert vv.value(rows) == [1]
    del rows
    until(lambda: not psutil.pid_exists(pid))


def test_an_object_is_freed_with_its_last_proxy(things: Any, tmp_path: Path, until: Until) -> None:
    """While its worker sleeps; views of one proxy count as one; closing does the same at once."""
    first, second = tmp_path / "first", tmp_path / "second"
    watched = things.Watched(str(first))
    view = vv.options(watched, timeout=30)
    del watched
    gc.collect()
    assert view.path == str(first)
    del view
    until(first.exists)
    watched = things.Watched(str(second))
    vv.close(watched)
    until(second.exists)
    vv.close(watched)
    with pytest.raises(vv.StaleProxy, match="it was closed"):
        watched.path  # noqa: B018
    assert things.foo


def test_an_object_released_during_a_call_is_freed_after_it(things: Any, tmp_path: Path, until: Until) -> None:
    """Its destructor is user code, and runs on the main thread, as all user code does."""
    path = tmp_path / "gone"
    watched = things.Watched(str(path))
    thread = threading.Thread(target=things.same(things.os.popen), args=("sleep 0.2",))
    thread.start()
    del watched
    until(path.exists)
    thread.join()


def test_nothing_stays_in_the_table(things: Any, until: Until) -> None:
    """Handles of intermediate results, iterators left early, replies that nobody saw."""
    thing = things.Thing(1)
    for _ in range(20):
        thing.child().rows.append(thing)
        for _item in things.nested["rows"]:
            break
        with pytest.raises(LookupError):
            thing.fail()
    del _item
    until(lambda: things.table() == 2)
    del thing
    until(lambda: things.table() == 1)


def test_closing_the_root_ends_the_worker_and_says_so(home: Path) -> None:
    """Twice is fine; every proxy of it is stale, whatever is tried."""
    things = vv.run_script(THINGS, worker=QUIET)
    thing, pid = things.Thing(), vv.worker_info(things).pid
    add, count = thing.add, things.Thing().count(3)
    vv.close(things)
    vv.close(things)
    assert not psutil.pid_exists(pid)
    tries: list[Callable[[], object]] = [
        *(lambda: thing.number, lambda: add(1), lambda: thing + 1, lambda: next(count), lambda: setattr(thing, "a", 1)),
        *(lambda: vv.value(thing), lambda: vv.keep(add)(1), lambda: dir(thing), lambda: thing.child(1)),
    ]
    for attempt in tries:
        with pytest.raises(vv.StaleProxy, match="it was closed"):
            attempt()
    vv.close(thing)
    vv.close(add)
    assert vv.worker_info(things).state == "exited"
    assert "stale: it was closed" in repr(thing)
    assert issubclass(vv.StaleProxy, (vv.WorkerError, ReferenceError))


@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "busy"])
def test_a_crash_makes_proxies_stale_with_its_reason(home: Path, is_busy: bool) -> None:
    """What runs meanwhile is a `WorkerCrashed`; what comes later a `StaleProxy`; closing raises nothing."""
    things = vv.run_script(THINGS, worker=QUIET)
    thing = things.Thing()
    if is_busy:
        with pytest.raises(vv.WorkerCrashed, match="SIGKILL"):
            things.os.kill(thing.pid(), signal.SIGKILL)
    else:
        os.kill(thing.pid(), signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(vv.StaleProxy, match="SIGKILL"):
            thing.number  # noqa: B018
    vv.close(thing)
    vv.close(things)


def test_a_deadline_bounds_each_operation_and_then_the_objects_are_stale(home: Path, until: Until) -> None:
    """Of `run_...(timeout=)` for all, of `vv.options` for one proxy and what comes from it."""
    things = vv.run_script("import time\nclass Slow:\n  def sleep(self, s): time.sleep(s)\n", timeout=0.4, worker=QUIET)
    pid = vv.worker_info(things).pid
    slow = things.Slow()
    slow.sleep(0.01)
    with pytest.raises(vv.CallTimeout):
        slow.sleep(30)
    with pytest.raises(vv.StaleProxy, match="deadline"):
        things.Slow()
    until(lambda: not psutil.pid_exists(pid))
    with pytest.raises(vv.CallTimeout):
        vv.run_script("while True: pass", timeout=0.3, worker=QUIET)
    things = vv.run_script(THINGS, worker=QUIET)
    quick = vv.options(things, timeout=0.3)
    with pytest.raises(vv.CallTimeout):
        quick.Thing().sleep(30)
    with pytest.raises(vv.StaleProxy):
        things.foo  # noqa: B018


def test_waiting_for_a_turn_beyond_the_deadline_harms_nothing(things: Any) -> None:
    """The operation has not begun, so the objects are as they were."""
    thread = threading.Thread(target=things.Thing().sleep, args=(1,))
    thread.start()
    time.sleep(0.2)
    with pytest.raises(vv.CallTimeout):
        vv.options(things, timeout=0.2).foo  # noqa: B018
    thread.join()
    assert things.foo == "hello world"


def test_six_threads_on_one_proxy_get_their_own_answers(things: Any) -> None:
    """Each its own, while others come and go."""
    thing = things.Thing()
    wrong: list[object] = []

    def work(number: int) -> None:
        for index in range(150):
            wanted = number * 1000 + index
            if things.Thing.double(wanted) != 2 * wanted or thing(wanted) != [(wanted,), {}]:
                wrong.append(wanted)

    run_threads(work, 6)
    assert wrong == []


def run_threads(work: Callable[[int], object], count: int) -> None:
    """Run a function in several threads, and raise what one of them has raised."""
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.slow
@pytest.mark.parametrize("python", ENDS, ids=version_of)
def test_sixteen_threads_and_the_garbage_collector(home: Path, python: str, until: Until) -> None:
    """Proxies come and go in cycles, everywhere at once: no dead-lock, and the table is empty at the end."""
    operations = 10_000 if os.environ.get("CI") else 400
    things = vv.run_script(THINGS, python=python, worker=QUIET)
    shelf = things.Shelf(*range(4))

    def work(number: int) -> None:
        for index in range(operations // 4):
            thing = things.Thing(index)
            cycle: list[Any] = [thing, thing.rows]
            cycle.append(cycle)  # which only the collector frees, in whatever thread it happens to run
            assert thing.add(number).number == index + number
            assert sum(shelf) == 6
            if index % 100 == number:
                gc.collect()

    run_threads(work, 16)
    until(lambda: things.table() == 2, 30)
    vv.close(things)


def test_a_reply_that_nobody_takes_is_released(things: Any, pool: vv.Pool, until: Until) -> None:
    """One that comes when its caller has left, and one whose caller is struck while he looks at it."""
    with pytest.raises(vv.CallTimeout):
        pool.options(timeout=0.2, on_timeout="abandon").object("things:slow_thing", 0.6)
    until(lambda: pool.call("things:Thing.made.__int__") == 1)
    until(lambda: pool.call("things:table") == 0)  # it is told so by another thread

    class Struck(Exception):
        pass

    def strike(*_: object) -> None:
        raise Struck

    residence = reference_of(things).residence
    residence.adopt = strike  # type: ignore[method-assign]
    with pytest.raises(Struck):
        things.Thing(1)
    del residence.adopt  # type: ignore[method-assign]
    until(lambda: things.table() == 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an interrupt that struck a finalizer
def test_interrupted_callers_leave_nothing_behind(home: Path, until: Until) -> None:
    """An exception that is thrown into a thread anywhere in an operation leaves no object in the table."""
    for _ in range(3):
        interrupt_users(vv.run_script(THINGS, worker=QUIET), until)


def interrupt_users(things: Any, until: Until) -> None:
    """Interrupt somebody who makes objects, and look what is left; a request cut short has ended the worker."""
    with Interrupted(lambda: use(things)):
        time.sleep(0.2)
    try:
        until(lambda: things.table() <= 1 + 2, 5)  # a finalizer that is interrupted loses its object
        assert things.foo == "hello world"
    except vv.StaleProxy:
        assert vv.worker_info(things).state in ("retiring", "exited")
    vv.close(things)


def use(things: Any) -> None:
    """Make objects that are let go at once."""
    while True:
        things.Thing(1).child()
        list(things.nested["rows"])


class Interrupted:
    """Runs something on a thread, and throws exceptions into it until the end of the block.

    Args:
        action: what is run, again and again.
    """

    class Stop(Exception):
        """What is thrown."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._action = action
        self._is_over = False
        self._worker = threading.Thread(target=self._work)
        self._striker = threading.Thread(target=self._strike)

    def _work(self) -> None:
        while not self._is_over:
            try:
                self._action()
            except self.Stop:
                pass
            except vv.StaleProxy:
                return

    def _strike(self) -> None:
        throw = ctypes.pythonapi.PyThreadState_SetAsyncExc
        while self._worker.is_alive():
            throw(ctypes.c_ulong(self._worker.ident or 0), ctypes.py_object(self.Stop))
            self._worker.join(0.004)

    def __enter__(self) -> None:
        self._worker.start()
        self._striker.start()

    def __exit__(self, *error: object) -> None:
        self._is_over = True
        self._worker.join()
        self._striker.join()


@pytest.mark.parametrize("before", ["vv.WorkerOptions", "vv.Pool", "vv.run_script", "from venvoy.errors import *"])
def test_options_is_a_function_whatever_was_used_before(before: str) -> None:
    """Though there is a submodule of that name."""
    text = f"import venvoy as vv\n{before}\nfrom venvoy import options\nprint(options.__name__, vv.options is options)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=20)
    assert done.stdout == "options True\n", done.stderr


SCRIPT = """
import venvoy as vv, sys, threading, time
options = vv.WorkerOptions(output="discard")
things = vv.run_script(open(sys.argv[1]).read(), worker=options)
thing = things.Thing(1)
print(thing.pid(), flush=True)
def sleep(seconds=60):
    try:
        thing.sleep(seconds)
    except vv.WorkerError:
        pass
HOW
"""


@pytest.mark.parametrize(
    "how",
    [
        "",
        "cycle = [thing]; cycle.append(cycle); del things, thing",
        "threading.Thread(target=sleep, args=(0,), daemon=True).start()",
        "threading.Thread(target=sleep, daemon=True).start(); time.sleep(0.2)",
        "sys.exit(0)",
    ],
    ids=["module-level", "cycle", "thread", "busy", "exit"],
)
def test_interpreter_exit_never_hangs_and_leaves_nothing(home: Path, tmp_path: Path, how: str, until: Until) -> None:
    """With proxies alive, in cycles, or at work."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("HOW", how))
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(script), str(WORK / "things.py")], capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - begin < 10
    until(lambda: not psutil.pid_exists(int(done.stdout)), 3)


def test_a_killed_host_leaves_nothing(home: Path, tmp_path: Path, until: Until) -> None:
    """The kernel ends the worker."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("HOW", "time.sleep(60)"))
    host = subprocess.Popen(
        [sys.executable, str(script), str(WORK / "things.py")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with host:
        assert host.stdout is not None
        pid = int(host.stdout.readline())
        host.kill()
    until(lambda: not psutil.pid_exists(pid), 3)


def test_a_forked_host_has_stale_proxies_and_harms_nothing(things: Any) -> None:
    """The child says why; what it drops stays in the worker."""
    thing = things.Thing(3)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            thing.number  # noqa: B018
        except vv.StaleProxy as error:
            os.write(writer, str(error).encode())
        finally:
            del thing
            gc.collect()
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader) as text:
        assert "belongs to the process" in text.read()
    assert thing.number == 3
