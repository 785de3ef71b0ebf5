"""Workers with a name and a state of their own."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]
Until = Callable[..., None]


def test_a_name_is_one_worker_with_state(make_pool: MakePool) -> None:
    """Whoever asks for it, from whichever thread, gets the same; others have other workers."""
    pool = make_pool(workers=1)
    alice = pool.named("alice")
    alice.exec("x = 20")
    again = pool.named("alice")
    assert again.eval("x + y", y=1) == 21
    assert again.pid == alice.pid == alice.call("poolwork:pid") == alice.submit("poolwork:pid").result(10)
    bob = pool.named("bob")
    assert bob.pid not in (alice.pid, pool.call("poolwork:pid"))
    with pytest.raises(NameError):
        bob.eval("x")
    assert [info.name for info in pool.workers()] == [None, "alice", "bob"]


def test_many_threads_that_ask_for_one_name_get_one_worker(make_pool: MakePool) -> None:
    """Also while it is being started."""
    pool = make_pool(workers=1, options={"initializer": "time:sleep", "initializer_args": (0.2,)})
    pids: list[int] = []
    threads = [threading.Thread(target=lambda: pids.append(pool.named("one").pid)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(pids) == 8
    assert len(set(pids)) == 1


def test_a_name_that_starts_holds_up_nobody_else(make_pool: MakePool, until: Until) -> None:
    """Other names, the list of workers, and the end of the pool do not wait for it."""
    pool = make_pool(workers=1)
    pool.warm()
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            pool.named("slow", initializer="time:sleep", initializer_args=(30,))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: any(info.name == "slow" and info.pid for info in pool.workers()))
    assert pool.named("quick").call("poolwork:double", 2) == 4
    begin = time.monotonic()
    pool.close(0)
    thread.join(10)
    assert time.monotonic() - begin < 3.0
    assert [type(error) for error in errors] == [vv.WorkerError]


def test_options_are_its_own_and_cannot_be_changed_by_asking_again(make_pool: MakePool, tmp_path: Path) -> None:
    """They are fields of `WorkerOptions`; the others are the pool's."""
    pool = make_pool(workers=1, options={"env_vars": {"A": "pool"}})
    worker = pool.named("alice", env_vars={"A": "hers"}, cwd=tmp_path)
    assert worker.call("os:getenv", "A") == "hers"
    assert worker.call("os:getcwd") == str(tmp_path)
    assert pool.call("os:getenv", "A") == "pool"
    assert pool.named("alice", env_vars={"A": "hers"}, cwd=tmp_path).pid == worker.pid
    assert pool.named("alice").pid == worker.pid
    with pytest.raises(ValueError, match="other options"):
        pool.named("alice", env_vars={"A": "others"})
    with pytest.raises(TypeError, match="no_such_option"):
        pool.named("bob", no_such_option=1)
    assert [info.name for info in pool.workers()] == [None, "alice"]


def test_absent_names_and_too_many_are_errors(make_pool: MakePool) -> None:
    """`max_named` counts them apart from the pool's workers, those that are gone not at all."""
    pool = make_pool(workers=1, max_named=2)
    with pytest.raises(LookupError, match="alice"):
        pool.named("alice", create=False)
    pool.named("alice")
    pool.named("bob")
    assert pool.named("bob", create=False).name == "bob"
    with pytest.raises(vv.PoolError, match="max_named"):
        pool.named("carol")
    pool.kill("bob")
    assert pool.named("carol").call("poolwork:double", 3) == 6
    assert pool.warm(1) == 1
    for wrong in ("", 5, None):
        with pytest.raises(TypeError, match="name"):
            pool.named(wrong)  # type: ignore[arg-type]
    with pytest.raises(LookupError, match="nobody"):
        pool.kill("nobody")


END = {
    "pool.kill": lambda pool, worker: pool.kill("alice"),
    "pool.terminate": lambda pool, worker: pool.terminate("alice"),
    "pool.kill by id": lambda pool, worker: pool.kill(next(w.id for w in pool.workers() if w.name)),
    "handle.kill": lambda pool, worker: worker.kill(),
    "handle.terminate": lambda pool, worker: worker.terminate(),
}


@pytest.mark.parametrize("end", END)
def test_old_handles_raise_and_never_revive_and_the_name_is_free_at_once(make_pool: MakePool, end: str) -> None:
    """The next worker of that name is another one, with a namespace of its own."""
    pool = make_pool(workers=1)
    old = pool.named("alice")
    old.exec("x = 1")
    END[end](pool, old)
    new = pool.named("alice")
    assert new.call("poolwork:double", 2) == 4
    for use in (
        lambda: old.call("poolwork:pid"),
        lambda: old.submit("poolwork:pid").result(5),
        lambda: old.eval("x"),
        lambda: old.pid,
        old.kill,
        old.terminate,
    ):
        with pytest.raises(vv.WorkerError, match="alice"):
            use()
    with pytest.raises(NameError):
        new.eval("x")


def test_a_call_that_runs_when_its_worker_is_killed_hears_so(make_pool: MakePool, until: Until, tmp_path: Path) -> None:
    """The running one crashes, the waiting one is refused; a crash from outside frees the name as well."""
    pool = make_pool(workers=1)
    worker = pool.named("alice")
    began = tmp_path / "began"
    running = worker.submit("poolwork:begin_and_wait_for", str(began), str(tmp_path / "never"))
    waiting = worker.submit("poolwork:pid")
    until(began.exists)
    pool.kill("alice")
    with pytest.raises(vv.WorkerCrashed):
        running.result(10)
    with pytest.raises(vv.WorkerError):
        waiting.result(10)
    worker = pool.named("alice")
    with pytest.raises(vv.WorkerCrashed):
        worker.call("poolwork:signal_self", int(signal.SIGKILL))
    assert pool.named("alice").pid != worker._core  # a new one is there


def test_a_timeout_leaves_the_worker_its_state_and_no_late_answer(make_pool: MakePool) -> None:
    """What can be stopped is stopped, and the next calls get their own answers."""
    pool = make_pool(workers=1)
    worker = pool.named("alice")
    worker.exec("x = 5")
    pid = worker.pid
    for n in range(5):
        with pytest.raises(vv.CallTimeout):
            worker.options(timeout=0.05).call("poolwork:nap", 30, "late")
        assert worker.call("poolwork:double", n) == 2 * n
    assert worker.eval("x") == 5
    assert worker.pid == pid


def test_work_that_cannot_be_stopped_costs_the_worker(make_pool: MakePool, until: Until) -> None:
    """It is killed after the grace period; the handle says so, and does not revive."""
    pool = make_pool(workers=1)
    worker = pool.named("alice")
    with pytest.raises(vv.CallTimeout):
        worker.options(timeout=0.05).call("poolwork:stubborn", 30)
    until(lambda: all(info.name is None for info in pool.workers()))
    with pytest.raises(vv.WorkerError, match="alice"):
        worker.call("poolwork:pid")


def test_named_workers_are_never_reaped_nor_counted(make_pool: MakePool, until: Until) -> None:
    """Not by `reap`, not for idleness, not by a reload; output and slots are their own."""
    options = {"env_vars": lambda slot: {"SLOT": str(slot)}}
    pool = make_pool(workers=(0, 2), scale=vv.ScalePolicy(idle_timeout=0.1), options=options)
    alice, bob = pool.named("alice"), pool.named("bob")
    pids = [alice.pid, bob.pid]
    pool.call("poolwork:pid")
    pool.reload()
    pool.reap()
    until(lambda: [info.name for info in pool.workers()] == ["alice", "bob"])
    assert [alice.pid, bob.pid] == pids
    assert [worker.call("os:getenv", "SLOT") for worker in (alice, bob)] == ["2", "3"]
    alice.call("poolwork:out", "it is me")
    until(lambda: "it is me" in pool.output("alice", "stdout"))
    assert pool.output(next(info.id for info in pool.workers() if info.name == "alice")) == pool.output("alice")
    assert pool.output("bob") == ""
    pool.kill("alice")
    assert pool.named("carol").call("os:getenv", "SLOT") == "2"


def test_a_start_that_fails_leaves_the_name_free(make_pool: MakePool) -> None:
    """With the reason, and without a second attempt behind the scenes."""
    pool = make_pool(workers=1)
    with pytest.raises(vv.WorkerStartError, match="as asked"):
        pool.named("alice", initializer="poolwork:fail")
    assert pool.named("alice").call("poolwork:double", 1) == 2


@pytest.mark.parametrize("end", ["close", "shutdown", "drop"])
def test_they_end_with_their_pool(make_pool: MakePool, end: str, home: Path, until: Until) -> None:
    """However it ends."""
    pool = vv.Pool(workers=1, home=home)
    worker = pool.named("alice")
    pid = worker.call("os:getpid")
    if end == "drop":
        del pool
    else:
        getattr(pool, end)()
        with pytest.raises(vv.WorkerError):
            worker.call("os:getpid")
        with pytest.raises(vv.PoolClosed):
            pool.named("bob")
    until(lambda: not os.path.exists(f"/proc/{pid}"))


def test_closing_many_takes_no_longer_than_closing_one(make_pool: MakePool, tmp_path: Path, until: Until) -> None:
    """The patience is one for all."""
    pool = make_pool(workers=1)
    for number in range(4):
        pool.named(f"n{number}").submit("poolwork:stubborn", 30, str(tmp_path / str(number)))
    until(lambda: len(list(tmp_path.iterdir())) == 4)
    begin = time.monotonic()
    pool.close(0.4)
    assert time.monotonic() - begin < 1.5
