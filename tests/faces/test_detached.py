"""Detached calls: known by an id, fetched once, whoever started them; kept in memory or in a file."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv
from venvoy_worker.contract import codec, frames, messages

MakeStore = Callable[..., Any]


@pytest.fixture(params=["memory", "sqlite"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
    """Make stores of each kind, in one file those that have one."""
    made: list[vv.SqliteCallStore] = []

    def make(**options: Any) -> vv.CallStore:
        if request.param == "memory":
            return vv.MemoryCallStore(**options)
        made.append(vv.SqliteCallStore(tmp_path / "calls.db", **options))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def make_pool(home: Path, patience: float) -> Iterator[Callable[..., vv.Pool]]:
    """Make pools with one worker, ended after the test."""
    made: list[vv.Pool] = []

    def make(store: Any = None, **options: Any) -> vv.Pool:
        worker = vv.WorkerOptions(output="discard", grace_period=0.6, **options.pop("worker", {}))
        made.append(vv.Pool(**{"workers": 1, **options}, worker=worker, home=home, call_store=store))
        return made[-1]

    yield make
    for pool in made:
        pool.close(patience)


def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not hold"
        time.sleep(0.005)


def is_done(pool: vv.Pool, id: str) -> bool:
    return pool.detached.peek(id).state != "pending"


# --- in general -----------------------------------------------------------------------------------


def test_a_result_is_fetched_once(make_pool: Any, make_store: MakeStore) -> None:
    """By its id, a str; then nothing is known of the call any more."""
    pool = make_pool(make_store())
    id = pool.detached.start("math:sqrt", 16)
    assert isinstance(id, str)
    assert pool.detached.result(id) == 4.0
    for ask in (pool.detached.result, pool.detached.peek, pool.detached.cancel):
        with pytest.raises(vv.UnknownCall, match=id):
            ask(id)
    assert pool.detached.list() == []


def test_a_wait_that_runs_out_leaves_the_call_as_it_is(make_pool: Any, make_store: MakeStore) -> None:
    """It raises a TimeoutError that is not the call's own, and can be repeated."""
    pool = make_pool(make_store())
    id = pool.detached.start(slow, 0.5, "done")
    for timeout in (0, 0.05):
        with pytest.raises(vv.ResultNotReady) as caught:
            pool.detached.result(id, timeout)
        assert isinstance(caught.value, TimeoutError)
        assert not isinstance(caught.value, vv.CallTimeout)
    assert pool.detached.result(id, timeout=10) == "done"


def test_errors_of_the_call_are_raised_once(make_pool: Any, make_store: MakeStore) -> None:
    """An error is a result: it is given to one, with the traceback of the worker."""
    pool = make_pool(make_store())
    id = pool.detached.start("builtins:int", "x")
    with pytest.raises(ValueError, match="invalid literal") as caught:
        pool.detached.result(id)
    assert isinstance(caught.value.__cause__, vv.RemoteTraceback)
    with pytest.raises(vv.UnknownCall):
        pool.detached.result(id)


def test_peek_neither_waits_nor_takes(make_pool: Any, make_store: MakeStore) -> None:
    """Pending, then a value or an error, as often as one looks; what it gives is a copy."""
    pool = make_pool(make_store())
    good, bad = pool.detached.start(slow, 0.3, [1]), pool.detached.start("builtins:int", "x")
    assert pool.detached.peek(good) == vv.Peek("pending")
    until(lambda: is_done(pool, bad))
    for _ in range(2):
        peeked = pool.detached.peek(good)
        assert (peeked.state, peeked.value) == ("value", [1])
        peeked.value.append(2)
        assert isinstance(pool.detached.peek(bad).error, ValueError)
    assert [entry.state for entry in pool.detached.list()] == ["done", "failed"]
    assert pool.detached.result(good) == [1]


def test_of_many_who_wait_one_gets_the_result(make_pool: Any, make_store: MakeStore) -> None:
    """The others are told that nothing is known of the call."""
    pool = make_pool(make_store())
    id, outcomes = pool.detached.start(slow, 0.4, "won"), []

    def wait() -> None:
        try:
            outcomes.append(pool.detached.result(id))
        except vv.UnknownCall:
            outcomes.append("lost")

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(outcomes) == ["lost"] * 7 + ["won"]


def test_of_many_who_fetch_at_once_one_gets_the_result(make_pool: Any, make_store: MakeStore) -> None:
    """Also if all have read the reply before the first has taken it, since to decode it takes a while."""
    pool = make_pool(make_store())
    for _ in range(3):
        id, barrier, outcomes = pool.detached.start("builtins:list", range(400_000)), threading.Barrier(4), []
        until(lambda id=id: {entry.id: entry.state for entry in pool.detached.list()}[id] == "done")

        def fetch(id: str = id, barrier: threading.Barrier = barrier, outcomes: list[str] = outcomes) -> None:
            barrier.wait(10)
            error = raised(lambda: pool.detached.result(id))
            outcomes.append("won" if error is None else type(error).__name__)

        threads = [threading.Thread(target=fetch) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sorted(outcomes) == ["UnknownCall"] * 3 + ["won"]


def test_every_call_finds_its_own_result(make_pool: Any, make_store: MakeStore) -> None:
    """Many calls, fetched out of order, by several threads."""
    pool, wrong = make_pool(make_store(), workers=2), []
    ids = [pool.detached.start("builtins:abs", -number) for number in range(200)]

    def fetch(numbers: list[int]) -> None:
        wrong.extend(number for number in numbers if pool.detached.result(ids[number], 20) != number)

    threads = [threading.Thread(target=fetch, args=(list(range(start, 200, 4))[::-1],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    assert pool.detached.list() == []


def test_what_cannot_be_decoded_is_not_consumed(make_pool: Any, make_store: MakeStore) -> None:
    """Whoever asks for it in another way gets it."""
    pool = make_pool(make_store())
    id = pool.detached.start("builtins:dict", a=1)
    with pytest.raises(vv.EncodingError):
        pool.options(returns=list[int]).detached.result(id)
    assert pool.options(returns=dict[str, float]).detached.result(id) == {"a": 1.0}


def test_a_cancelled_call_stops_and_says_so(make_pool: Any, make_store: MakeStore) -> None:
    """Running or waiting; what has finished is left alone."""
    pool = make_pool(make_store())
    done = pool.detached.start("builtins:abs", -1)
    until(lambda: is_done(pool, done))
    assert pool.detached.cancel(done) is False
    running, waiting = pool.detached.start("time:sleep", 60), pool.detached.start("time:sleep", 60)
    until(lambda: pool.stats().workers["busy"])
    assert pool.detached.cancel(waiting) is True
    assert pool.detached.cancel(running) is True
    for id in (waiting, running):
        with pytest.raises(vv.CallCancelled):
            pool.detached.result(id, 10)
    assert pool.detached.result(done) == 1


def test_a_call_that_cannot_be_started_leaves_nothing(make_pool: Any, make_store: MakeStore) -> None:
    """An argument that cannot travel, a full queue, a closed pool."""
    pool = make_pool(make_store(), max_waiting=1)
    with pytest.raises(vv.EncodingError):
        pool.detached.start("builtins:abs", threading.Lock())
    pool.warm()
    ids = [pool.detached.start("time:sleep", 0.5)]
    until(lambda: pool.stats().workers["busy"])
    ids.append(pool.detached.start("time:sleep", 0))
    with pytest.raises(vv.TooManyWaiting):
        pool.detached.start("time:sleep", 0)
    assert [entry.id for entry in pool.detached.list()] == ids
    pool.close(0)
    with pytest.raises(vv.PoolClosed):
        pool.detached.start("builtins:abs", -1)
    assert len(pool.detached.list()) == 2


def test_options_of_a_view_hold_for_what_it_starts(make_pool: Any, make_store: MakeStore, tmp_path: Path) -> None:
    """A deadline ends the call, and attempts are counted."""
    pool = make_pool(make_store())
    late = pool.options(timeout=0.2).detached.start("time:sleep", 60)
    with pytest.raises(vv.CallTimeout):
        pool.detached.result(late, 20)
    again = pool.options(retries=2, retry_on=OSError).detached.start(succeed_at, str(tmp_path / "tries"), 3)
    assert pool.detached.result(again, 20) == 3


@pytest.mark.parametrize("wrong", [-1, "1", float("nan"), True])
def test_wrong_arguments_are_refused(make_pool: Any, wrong: Any) -> None:
    """Before anything is waited for."""
    pool = make_pool()
    with pytest.raises((TypeError, ValueError), match="timeout"):
        pool.detached.result("x", wrong)
    with pytest.raises((TypeError, ValueError), match="ttl"):
        vv.MemoryCallStore(ttl=wrong)
    with pytest.raises(TypeError, match="call_store"):
        vv.Pool(call_store=wrong)
    with pytest.raises(TypeError, match="is a str"):
        pool.detached.result(7)  # type: ignore[arg-type]


# --- what happens meanwhile ---------------------------------------------------------------------


def test_the_death_of_a_worker_costs_its_own_call_only(make_pool: Any, make_store: MakeStore, tmp_path: Path) -> None:
    """What it had finished stays; what it ran fails with the crash, at once, and with its details."""
    pool = make_pool(make_store())
    done = pool.detached.start("builtins:abs", -1)
    until(lambda: is_done(pool, done))
    running = pool.detached.start(touch_and_sleep, str(tmp_path / "began"), 60)
    until((tmp_path / "began").exists)
    woken: list[Any] = []
    waiter = threading.Thread(target=lambda: woken.append(raised(lambda: pool.detached.result(running))))
    waiter.start()
    os.kill(pool.workers()[0].pid, signal.SIGKILL)
    waiter.join(5)
    assert isinstance(woken[0], vv.WorkerCrashed)
    assert woken[0].signal is signal.SIGKILL
    assert pool.detached.result(done) == 1


@pytest.mark.parametrize("end", ["close", "shutdown"])
def test_the_end_of_the_pool_wakes_all_who_wait(make_pool: Any, make_store: MakeStore, end: str) -> None:
    """At once, though the call may go on for a while; what was finished before can still be fetched."""
    pool = make_pool(make_store())
    done = pool.detached.start("builtins:abs", -1)
    until(lambda: is_done(pool, done))
    ids = [pool.detached.start(slow, 3.0), pool.detached.start(slow, 0.0)]
    woken: list[tuple[Any, float]] = []
    waiters = [
        threading.Thread(
            target=lambda id=id: woken.append((raised(lambda: pool.detached.result(id)), time.monotonic()))
        )
        for id in ids * 2
    ]
    for waiter in waiters:
        waiter.start()
    time.sleep(0.3)
    began = time.monotonic()
    pool.close(2) if end == "close" else pool.shutdown(wait=False)
    for waiter in waiters:
        waiter.join(10)
    assert [type(error) for error, _ in woken] == [vv.PoolClosed] * 4
    assert max(moment for _, moment in woken) - began < 1.0
    assert pool.detached.result(done) == 1


def test_results_outlive_their_pool(make_pool: Any, make_store: MakeStore) -> None:
    """Another pool with the same store gives them."""
    store = make_store()
    with make_pool(store) as pool:
        id = pool.detached.start(slow, 0.2, "kept")
    assert make_pool(store).detached.result(id) == "kept"


def test_results_expire_and_calls_do_not(make_pool: Any, make_store: MakeStore) -> None:
    """`ttl` seconds after they came, whether or not somebody looks; a call that runs is not touched."""
    store = make_store(ttl=0.3)
    pool = make_pool(store)
    running, quick = pool.detached.start(slow, 1.0, "late"), pool.detached.start("builtins:abs", -1)
    assert pool.detached.result(running, 20) == "late"
    until(lambda: not store.entries() or quick not in [entry.id for entry in store.entries()])
    with pytest.raises(vv.UnknownCall):
        pool.detached.result(quick)


def test_results_are_removed_though_nobody_looks(make_pool: Any, make_store: MakeStore) -> None:
    """Their memory, or their rows, are given back."""
    store: Any = make_store(ttl=0.2)
    pool = make_pool(store)
    for _ in range(3):
        pool.detached.start("builtins:bytes", 1000)
        time.sleep(0.15)

    def kept() -> int:
        db = getattr(store, "_db", None)
        return len(store._entries) if db is None else db.execute("SELECT count(*) FROM calls").fetchone()[0]

    until(lambda: not kept())


def test_results_stay_without_a_ttl(make_pool: Any, make_store: MakeStore) -> None:
    """With None nothing expires."""
    store = make_store(ttl=None)
    pool = make_pool(store)
    id = pool.detached.start("builtins:abs", -1)
    time.sleep(0.3)
    assert store.expire() is None
    assert pool.detached.result(id) == 1


class Alarm(Exception):
    """Raised by a signal handler in the main thread, as KeyboardInterrupt is."""


def test_an_interrupted_wait_does_not_stop_the_work(make_pool: Any, make_store: MakeStore) -> None:
    """Ctrl-C reaches the one who waits; the call goes on."""
    pool = make_pool(make_store())
    id = pool.detached.start(slow, 0.6, "done")

    def handler(number: int, frame: object) -> None:
        raise Alarm

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Alarm):
            pool.detached.result(id)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert pool.detached.result(id, 10) == "done"


def test_interrupts_at_any_moment_lose_no_result(make_pool: Any, make_store: MakeStore) -> None:
    """Signals that raise while results are fetched: each can be asked for again, and none comes twice."""
    pool = make_pool(make_store())
    previous = signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(Alarm))
    interrupts = 0
    try:
        for number in range(150):
            id, got = pool.detached.start("builtins:abs", -number), []
            signal.setitimer(signal.ITIMER_REAL, 0.00005 + number % 50 * 0.00005)
            while not got:
                try:
                    got.append(pool.detached.result(id, 10))
                except Alarm:
                    interrupts += 1
                except vv.UnknownCall:  # it struck between the return of result() and the append
                    break
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert got in ([number], [])
    except Alarm:  # in the loop itself, just before the timer was stopped
        interrupts += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert interrupts


def test_a_store_that_was_forked_is_the_parents(make_pool: Any, make_store: MakeStore) -> None:
    """The child is told so, and the parent goes on."""
    pool = make_pool(make_store())
    id = pool.detached.start("builtins:abs", -1)
    until(lambda: is_done(pool, id))
    pid = os.fork()
    if not pid:
        error = raised(lambda: pool.detached.start("builtins:abs", -1))
        os._exit(0 if isinstance(error, vv.PoolClosed | vv.CallStoreError) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert pool.detached.result(id) == 1


# --- arrays, source, other Pythons --------------------------------------------------------------


def test_values_travel_as_in_other_calls(make_pool: Any, make_store: MakeStore) -> None:
    """Arrays with their buffers, and each fetch has memory of its own."""
    numpy = pytest.importorskip("numpy")
    pool = make_pool(make_store())
    id = pool.detached.start("numpy:arange", 100_000)
    until(lambda: is_done(pool, id))
    peeked = pool.detached.peek(id).value
    peeked[:] = 0
    fetched = pool.detached.result(id)
    assert fetched.sum() == numpy.arange(100_000).sum()
    fetched[0] = 1  # writable, as the result of a call


def test_every_interpreter_serves_detached_calls(interpreters: list[str], make_pool: Any) -> None:
    """The oldest and the newest."""
    for python in {interpreters[0], interpreters[-1]}:
        pool = make_pool(env=python)
        id = pool.detached.start(vv.by_source(slow), 0.0, {"a": (1, 2)})
        assert pool.detached.result(id, 30) == {"a": (1, 2)}


# --- the file -----------------------------------------------------------------------------------


def test_the_file_is_the_users_own(tmp_path: Path) -> None:
    """Mode 0600, that of what lies beside it too."""
    with vv.SqliteCallStore(tmp_path / "calls.db") as store:
        store.add("a", "f", [b"x"])
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 4
    assert set(modes.values()) == {0o600}
    assert [path.name for path in tmp_path.iterdir()] == ["calls.db"]


def test_a_file_of_a_newer_venvoy_is_refused(tmp_path: Path) -> None:
    """Nothing in it is changed."""
    path = tmp_path / "calls.db"
    vv.SqliteCallStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(vv.CallStoreError, match="version 99, this venvoy knows version 1"):
        vv.SqliteCallStore(path)


@pytest.mark.parametrize("content", [b"no database at all" * 100, "foreign", "folder", "missing/calls.db"])
def test_what_is_no_store_is_refused(tmp_path: Path, content: Any) -> None:
    """A damaged file, somebody else's database, a folder, a folder that is not there."""
    path = tmp_path / "calls.db"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "foreign":
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE t (x)")
        db.close()
    elif content == "folder":
        path.mkdir()
    else:
        path = tmp_path / content
    with pytest.raises(vv.CallStoreError, match=r"calls\.db"):
        vv.SqliteCallStore(path)


def test_a_file_that_is_locked_is_an_error(make_pool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some seconds; what a call has come to meanwhile is kept in memory, and can be fetched afterwards."""
    monkeypatch.setattr("venvoy.detached.sqlite_store._PATIENCE", 0.2)
    with vv.SqliteCallStore(tmp_path / "calls.db") as store:
        pool = make_pool(store)
        id = pool.detached.start(slow, 0.3, "kept")
        thief = sqlite3.connect(store.path, isolation_level=None)
        thief.execute("BEGIN IMMEDIATE")
        with pytest.raises(vv.CallStoreError, match="locked it for more than"):
            pool.detached.start("builtins:abs", -1)
        until(lambda: is_done(pool, id))
        assert [entry.state for entry in pool.detached.list()] == ["done"]
        with pytest.raises(vv.CallStoreError):
            pool.detached.result(id)
        thief.execute("ROLLBACK")
        thief.close()
        assert pool.detached.result(id) == "kept"
        assert store.entries() == []


def test_a_store_that_cannot_be_read_does_not_stop_the_pool(make_pool: Any, tmp_path: Path) -> None:
    """Only who asks for detached calls is told."""
    store = vv.SqliteCallStore(tmp_path / "calls.db", resume=True)
    store.close()
    pool = make_pool(store)
    assert pool.call("builtins:abs", -1) == 1
    with pytest.raises(vv.CallStoreError, match="closed"):
        pool.detached.list()


def test_a_full_disk_is_an_error(make_pool: Any, tmp_path: Path) -> None:
    """Of the call that cannot be kept; a result that does not fit is kept in memory."""
    with vv.SqliteCallStore(tmp_path / "calls.db") as store:
        assert store._db is not None
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages + 4}")
        pool = make_pool(store)
        with pytest.raises(vv.CallStoreError, match="full"):
            pool.detached.start("builtins:len", b"x" * 100_000)
        id = pool.detached.start("builtins:bytes", 100_000)
        assert pool.detached.result(id, 20) == bytes(100_000)
        assert store.entries() == []


def test_a_damaged_entry_costs_nobody_else_anything(make_pool: Any, tmp_path: Path) -> None:
    """Its own call raises a typed error."""
    with vv.SqliteCallStore(tmp_path / "calls.db", resume=True) as store:
        assert store._db is not None
        store._db.execute("INSERT INTO calls (id, target, started, request) VALUES ('a', 'f', 1, x'00')")
        store._db.execute("INSERT INTO calls (id, target, started, finished, reply) VALUES ('b', 'f', 1, 9e12, x'00')")
        pool = make_pool(store)
        for id in "ab":
            with pytest.raises(vv.CallStoreError, match="damaged"):
                pool.detached.result(id, 20)
        assert pool.call("builtins:abs", -1) == 1


@pytest.mark.parametrize("words", ["{}", "[]", "nothing"])
def test_an_entry_that_says_something_else_costs_nobody_else_anything(
    make_pool: Any, tmp_path: Path, words: str
) -> None:
    """Frames are whole, and what they contain is none of ours: a typed error too."""
    call = frames.pack(messages.CALL, codec=codec.PICKLE, target=b"builtins:abs", body=[b"."])
    request = b"".join([*frames.pack(254, target=b"f", body=[words.encode()]), *call])
    reply = b"".join(frames.pack(255, body=[words.encode()]))
    with vv.SqliteCallStore(tmp_path / "calls.db", resume=True) as store:
        assert store._db is not None
        store._db.execute("INSERT INTO calls (id, target, started, request) VALUES ('a', 'f', 1, ?)", (request,))
        insert = "INSERT INTO calls (id, target, started, finished, reply) VALUES ('b', 'f', 1, 9e12, ?)"
        store._db.execute(insert, (reply,))
        pool = make_pool(store)
        for id in "ab":
            with pytest.raises(vv.CallStoreError, match="cannot be read"):
                pool.detached.result(id, 20)
        assert pool.call("builtins:abs", -1) == 1


def test_a_call_is_run_again_by_a_host_that_has_not_the_errors_it_is_retried_on(
    make_pool: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so, and counts fewer errors; the call does what it did."""

    class Elsewhere(Exception):
        """Of a module that only the first host has."""

    Elsewhere.__module__, Elsewhere.__qualname__ = "no_such_module_here", "Elsewhere"
    with vv.SqliteCallStore(tmp_path / "calls.db", resume=True) as store:
        assert "calls.db" in repr(store)
        first = make_pool(store)
        view = first.options(retries=2, retry_on=(Elsewhere, OSError))
        id = view.detached.start(slow, 1.0, "late")
        first.close(0)
        with caplog.at_level("WARNING", "venvoy"):
            assert make_pool(store).detached.result(id, 20) == "late"
        assert "a stored call is not run again on no_such_module_here:Elsewhere" in caplog.text


def test_a_closed_store_says_so(make_pool: Any, tmp_path: Path) -> None:
    """Closing it twice is fine."""
    store = vv.SqliteCallStore(tmp_path / "calls.db")
    store.close()
    store.close()
    with pytest.raises(vv.CallStoreError, match="closed"):
        make_pool(store).detached.start("builtins:abs", -1)


def test_many_processes_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    """One makes the tables, and all work."""
    script = "import sys, venvoy as vv; s = vv.SqliteCallStore(sys.argv[1]); s.add(sys.argv[2], 'f', [b'x']); s.close()"
    path = tmp_path / "calls.db"
    processes = [subprocess.Popen([sys.executable, "-c", script, str(path), str(n)]) for n in range(6)]
    assert [process.wait(60) for process in processes] == [0] * 6
    with vv.SqliteCallStore(path) as store:
        assert {entry.id for entry in store.entries()} == {str(n) for n in range(6)}


def test_an_unclosed_store_leaves_nothing(tmp_path: Path) -> None:
    """Its descriptors and its mark go with it."""
    store = vv.SqliteCallStore(tmp_path / "calls.db")
    store.add("a", "f", [b"x"])
    del store
    gc.collect()
    assert [path.name for path in tmp_path.iterdir()] == ["calls.db"]


# --- the host dies --------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path, home: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start a host that starts so many calls, prints their ids, and waits to be killed."""
    script = tmp_path / "host.py"
    script.write_text(
        textwrap.dedent("""
        import sys, time
        import venvoy as vv

        def work(number, path, seconds):
            import time
            time.sleep(seconds)
            with open(path, "a") as log:
                log.write("%d\\n" % number)
            return number * 10

        store = vv.SqliteCallStore(sys.argv[1], resume=True)
        with vv.Pool(workers=2, call_store=store) as pool:
            for number in range(int(sys.argv[3])):
                print(number, pool.detached.start(work, number, sys.argv[2], float(sys.argv[4])), flush=True)
            print("all", flush=True)
            time.sleep(60)
        """)
    )

    def start(count: int, seconds: float) -> subprocess.Popen[str]:
        command = [sys.executable, str(script), str(tmp_path / "calls.db"), str(tmp_path / "log"), str(count)]
        env = {**os.environ, "VENVOY_HOME": str(home)}
        return subprocess.Popen([*command, str(seconds)], stdout=subprocess.PIPE, text=True, env=env)

    return start


def kill(process: subprocess.Popen[str]) -> dict[str, int]:
    """Kill a host; return the ids it has printed, with their numbers."""
    process.kill()
    printed = process.communicate(timeout=20)[0]
    lines = [line.split() for line in printed.splitlines() if line.endswith(tuple("0123456789abcdef"))]
    return {id: int(number) for number, id in (line for line in lines if len(line) == 2 and len(line[1]) == 32)}


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_what_killed_hosts_leave_is_removed(host: Any, tmp_path: Path) -> None:
    """Of them nothing but the file is there when the store is closed."""
    for _ in range(2):
        process = host(1, 0.0)
        read_line(process)
        kill(process)
    with vv.SqliteCallStore(tmp_path / "calls.db"):
        assert not [path.name for path in tmp_path.iterdir() if "-host-" in path.name]
    assert {path.name for path in tmp_path.iterdir()} <= {"calls.db", "host.py", "log"}


@pytest.mark.parametrize("after", [0.0, 0.05, 0.12, 0.3])
def test_calls_survive_the_death_of_their_host(make_pool: Any, host: Any, tmp_path: Path, after: float) -> None:
    """At any moment: each call whose id is known is run at least once, and its result delivered once."""
    process = host(12, 0.02)
    first = read_line(process).split()
    time.sleep(after)
    started = {first[1]: int(first[0]), **kill(process)}
    with vv.SqliteCallStore(tmp_path / "calls.db", resume=True) as store:
        kept = {entry.id for entry in store.entries()}
        assert started.keys() <= kept
        with make_pool(store) as pool:
            assert {id: pool.detached.result(id, 30) for id in started} == {id: 10 * n for id, n in started.items()}
            for id in started:
                with pytest.raises(vv.UnknownCall):
                    pool.detached.result(id)
    done = {int(line) for line in (tmp_path / "log").read_text().split()}
    assert done >= set(started.values())


def test_without_resume_they_fail_and_what_was_finished_stays(make_pool: Any, host: Any, tmp_path: Path) -> None:
    """Nothing waits for ever for a host that is dead."""
    process = host(3, 0.3)
    lines = [read_line(process).split() for _ in range(3)]
    with vv.SqliteCallStore(tmp_path / "calls.db") as store:
        until(lambda: any(entry.state == "done" for entry in store.entries()))
        kill(process)
        with make_pool(store) as pool:
            states = {entry.id: entry.state for entry in pool.detached.list()}
            for number, id in lines:
                if states[id] == "done":
                    assert pool.detached.result(id, 5) == int(number) * 10
                else:
                    with pytest.raises(vv.WorkerCrashed, match="resume=True"):
                        pool.detached.result(id, 5)


def test_calls_of_a_living_host_are_left_to_it(make_pool: Any, host: Any, tmp_path: Path) -> None:
    """Another process reads their results, runs none of them, and takes over when the host has died."""
    process = host(2, 1.5)
    ids = [read_line(process).split()[1] for _ in range(2)]
    with vv.SqliteCallStore(tmp_path / "calls.db", resume=True) as store, make_pool(store) as pool:
        with pytest.raises(vv.ResultNotReady, match="another process"):
            pool.detached.result(ids[0], 0.1)
        assert pool.detached.peek(ids[0]).state == "pending"
        assert pool.detached.cancel(ids[0]) is False
        until(lambda: is_done(pool, ids[0]))
        assert pool.detached.result(ids[0]) == 0
        third = host(1, 60)
        id = read_line(third).split()[1]
        assert pool.detached.peek(id).state == "pending"
        kill(third)
        assert pool.detached.peek(id).state == "pending"  # it runs here now
        assert pool.detached.cancel(id) is True
        kill(process)


def test_calls_of_another_process_are_waited_for(make_pool: Any, host: Any, tmp_path: Path) -> None:
    """Until they are done, by threads and by tasks; the end of this pool wakes who waits."""
    process = host(6, 0.4)
    ids = [read_line(process).split()[1] for _ in range(6)]
    with vv.SqliteCallStore(tmp_path / "calls.db") as store, make_pool(store) as pool:
        assert pool.detached.result(ids[0]) == 0
        assert pool.detached.result(ids[1], 20) == 10

        async def fetch() -> list[Any]:
            with pytest.raises(vv.ResultNotReady):
                await pool.aio.detached.result(ids[5], 0)
            return await asyncio.gather(*[pool.aio.detached.result(id) for id in ids[2:]])

        assert asyncio.run(fetch()) == [20, 30, 40, 50]
        hanging = read_line(last := host(1, 60)).split()[1]
        woken: list[Any] = []
        waiter = threading.Thread(
            target=lambda: woken.append(raised(lambda: pool.detached.result(hanging))), daemon=True
        )
        waiter.start()
        pool.close(0)
        waiter.join(5)
        assert isinstance(woken[0], vv.PoolClosed)
        kill(last)
        kill(process)


def test_whoever_waits_takes_over_when_the_host_dies(make_pool: Any, host: Any, tmp_path: Path) -> None:
    """In the middle of the wait: with resume the call is run here, without it has failed."""
    for resume in (True, False):
        process = host(1, 1.0)
        id = read_line(process).split()[1]
        with vv.SqliteCallStore(tmp_path / "calls.db", resume=resume) as store, make_pool(store) as pool:
            timer = threading.Timer(0.2, process.kill)
            timer.start()
            if resume:
                assert pool.detached.result(id, 20) == 0
            else:
                with pytest.raises(vv.WorkerCrashed, match="has ended"):
                    pool.detached.result(id, 20)
            timer.join()
        kill(process)


def test_of_two_pools_with_one_store_either_waits_for_calls_of_the_other(make_pool: Any, make_store: MakeStore) -> None:
    """In one process, with every kind of store."""
    store = make_store()
    first, second = make_pool(store), make_pool(store)
    id = first.detached.start(slow, 0.3, "done")
    assert second.detached.result(id, 20) == "done"


def test_a_pool_that_is_closed_leaves_its_calls_to_the_next(make_pool: Any, tmp_path: Path) -> None:
    """With resume, what did not run is run by whoever opens the store again."""
    with vv.SqliteCallStore(tmp_path / "calls.db", resume=True) as store:
        first = make_pool(store)
        ids = [first.detached.start(slow, 0.7, number) for number in range(3)]
        time.sleep(0.3)
        first.close(0)
        with pytest.raises(vv.PoolClosed):
            first.detached.result(ids[0])
        second = make_pool(store)
        assert [second.detached.result(id, 20) for id in ids] == [0, 1, 2]


# --- what workers run -----------------------------------------------------------------------------


def slow(seconds: float, value: Any = None) -> Any:
    import time

    time.sleep(seconds)
    return value


def touch_and_sleep(path: str, seconds: float) -> None:
    import time

    open(path, "w").close()
    time.sleep(seconds)


def succeed_at(path: str, attempt: int) -> int:
    with open(path, "a+") as file:
        file.write("x")
        file.flush()
        file.seek(0)
        number = len(file.read())
    if number < attempt:
        raise OSError(number)
    return number


def raised(call: Callable[[], object]) -> BaseException | None:
    try:
        call()
    except BaseException as error:
        return error
    return None
