"""`os.fork()` in the host: the child owns nothing of the pool, the parent's pool goes on."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv

RunScript = Callable[..., Any]

FORK = """
    import os, sys, threading, time, warnings
    import venvoy as vv
    warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks in processes with threads

    pool = vv.Pool(workers=2, name="parents", worker=vv.WorkerOptions(start={start!r}))
    pool.warm()
    pids = {{info.pid for info in pool.workers()}}
    stop = threading.Event()
    wrong = []

    def load(n):
        while not stop.is_set():
            if pool.call("math:sqrt", n * n) != n or pool.submit(pow, n, 2).result(20) != n * n:
                wrong.append(n)

    threads = [threading.Thread(target=load, args=(n,)) for n in range(3)]
    if {active}:
        for thread in threads:
            thread.start()
        time.sleep(0.1)
    view, module = pool.options(timeout=5), pool.module("math")
    sys.stdout.flush()
    statuses = []
    for _ in range({forks}):
        child = os.fork()
        if child == 0:
            {child}
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print("children", statuses)
    for _ in range(20):
        assert pool.call("math:sqrt", 16) == 4
        assert pool.submit("math:sqrt", 16).result(20) == 4
    stop.set()
    for thread in threads:
        thread.ident and thread.join(20)
    print("parent", wrong, {{info.pid for info in pool.workers()}} == pids)
    pool.close()
"""
USE = """
            for use in (lambda: pool.call(abs, 1), lambda: pool.submit(abs, 1), lambda: view.call(abs, 1),
                        lambda: module.sqrt(4), lambda: pool.warm(), lambda: pool.lease().__enter__()):
                try:
                    use()
                    os._exit(9)
                except vv.PoolClosed as error:
                    if "parents" not in str(error) or "belongs to" not in str(error):
                        os._exit(8)
            {end}
"""
CHILDREN = {
    "leaves at once": "os._exit(0)",
    "gets PoolClosed": USE.format(end="os._exit(0)"),
    "exits as a program does": "sys.exit(0)",
    "closes the pool it does not own": USE.format(
        end="pool.close(); pool.shutdown(); del pool, view, module; sys.exit(0)"
    ),
    "makes a pool of its own": (
        "own = vv.Pool(workers=2); ok = own.call('math:sqrt', 9) == 3 and own.submit(pow, 2, 3).result(20) == 8;"
        " own.close(); sys.exit(0 if ok else 7)"
    ),
    "leaves a pool of its own open": "own = vv.Pool(workers=1); own.warm(); sys.exit(0)",
}


@pytest.mark.parametrize("active", [False, True], ids=["idle", "under load"])
@pytest.mark.parametrize("child", CHILDREN)
def test_a_forked_child_owns_nothing_and_disturbs_nobody(run_script: RunScript, child: str, active: bool) -> None:
    """It gets PoolClosed, can make its own pool, exits cleanly; the parent's workers answer as before."""
    done = run_script(FORK.format(active=active, forks=3, child=CHILDREN[child], start="spawn"))
    lines = [line for line in done.stdout.splitlines() if line]
    assert lines == ["children [0, 0, 0]", "parent [] True"], done.stdout + done.stderr
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has templates")
@pytest.mark.parametrize("child", ["exits as a program does", "makes a pool of its own"])
def test_nor_does_it_own_a_template(run_script: RunScript, child: str) -> None:
    """The same where the parent's workers are forked themselves."""
    done = run_script(FORK.format(active=True, forks=3, child=CHILDREN[child], start="zygote"))
    assert done.stdout.split("\n")[:2] == ["children [0, 0, 0]", "parent [] True"], done.stdout + done.stderr
    assert (done.returncode, done.stderr) == (0, "")


FORK_IN_WORKER_START = """
    import os, venvoy as vv, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    pool = vv.Pool(workers=(1, 8))
    pool.warm()
    pool.submit("time:sleep", 1)
    child = os.fork()
    if child == 0:
        import time
        time.sleep(30)
        os._exit(0)
    [info] = pool.workers()
    os.kill(info.pid, 9)
    try:
        print(pool.options(timeout=10).call("math:sqrt", 16))
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pool.close()
"""


def test_a_crash_is_seen_while_a_forked_child_of_the_host_lives(run_script: RunScript) -> None:
    """The child holds none of the channel's ends that would hide the death of a worker."""
    done = run_script(FORK_IN_WORKER_START)
    assert (done.stdout.strip(), done.returncode) == ("4.0", 0), done.stderr


FORKS_DURING_STARTS = """
    import os, threading, warnings
    import venvoy as vv
    warnings.simplefilter("ignore", DeprecationWarning)
    mine = {os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)}

    def of_a_worker():
        found = 0
        for fd in os.listdir("/proc/self/fd"):
            try:
                name = os.readlink(f"/proc/self/fd/{fd}")
            except OSError:
                continue
            found += name not in mine and name.startswith(("socket:", "/memfd:venvoy", "pipe:"))
        return found

    statuses = []
    with vv.Pool(workers=(1, 12)) as pool:
        pool.warm(1)
        starting = threading.Thread(target=pool.warm, args=[12])
        starting.start()
        while starting.is_alive():
            child = os.fork()
            if child == 0:
                os._exit(min(of_a_worker(), 100))
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        starting.join()
        assert pool.call("math:sqrt", 16) == 4
    print(len(statuses) > 3, set(statuses))
"""


def test_a_fork_in_the_moment_of_a_start_holds_no_descriptor_of_the_worker(run_script: RunScript) -> None:
    """It waits until the descriptors are known; else a worker would not see its host die while the child lives."""
    done = run_script(FORKS_DURING_STARTS)
    assert (done.stdout, done.returncode) == ("True {0}\n", 0), done.stderr


@pytest.mark.parametrize(
    "what", ["pool.named('x')", "pool.reload()", "pool.workers()", "pool.reap()", "alice.call('os:getpid')"]
)
def test_a_forked_child_never_waits_for_the_supervision_of_its_parent(home: Path, what: str) -> None:
    """While the parent reloads and starts a named worker: no lock of theirs holds up the child."""
    with vv.Pool(workers=1, home=home) as pool:
        alice = pool.named("alice")
        reloading = threading.Thread(target=pool.reload)
        reloading.start()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a process with threads forks: what is tested
            pid = os.fork()
        if pid == 0:
            try:
                signal.alarm(5)
                eval(what, {"pool": pool, "alice": alice})
                os._exit(0)
            except vv.VenvoyError:
                os._exit(0)
            except BaseException:
                os._exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        reloading.join(20)
        assert alice.call("os:getpid") == alice.pid
