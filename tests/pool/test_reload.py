"""New code for the workers of a pool: by `reload()`, and by itself with `watch=True`."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]
Until = Callable[..., None]


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A folder with the module `app`, version 1."""
    write(tmp_path, 1)
    return tmp_path


def write(folder: Path, version: object, *, by_rename: bool = False) -> None:
    """Write the module: in place, or beside it and renamed, as many editors do."""
    text = (
        f"import time\nVERSION = {version}\ndef version(): return VERSION\ndef slow(s): time.sleep(s); return VERSION\n"
    )
    target = folder / ("app.py.new" if by_rename else "app.py")
    target.write_text(text)
    if by_rename:
        target.rename(folder / "app.py")


def make_app(make_pool: MakePool, app: Path, **options: Any) -> vv.Pool:
    """Make a pool of the module."""
    return make_pool(module="app", options={"paths": [app]}, **{"workers": 2, **options})


def test_calls_after_a_reload_see_the_new_code(make_pool: MakePool, app: Path) -> None:
    """All of them; the pool is as large as before."""
    pool = make_app(make_pool, app)
    assert pool.reload() == 0  # nobody has the old code
    assert pool.call("version") == 1
    pool.warm()
    for version in (2, 3):  # within the second and of the same size
        write(app, version)
        assert pool.reload() == 2
        assert {future.result(10) for future in [pool.submit("version") for _ in range(20)]} == {version}
    assert [info.slot for info in pool.workers() if info.state == "idle"] == [0, 1]


def test_running_calls_finish_on_the_old_code(make_pool: MakePool, app: Path, until: Until) -> None:
    """And new ones do not wait for them."""
    pool = make_app(make_pool, app)
    pool.warm()
    running = [pool.submit("slow", 1.0) for _ in range(2)]
    until(lambda: pool.stats().workers["busy"] == 2)
    write(app, 2)
    begin = time.monotonic()
    assert pool.reload() >= 1
    assert pool.call("version") == 2
    assert time.monotonic() - begin < 0.9
    assert [future.result(10) for future in running] == [1, 1]
    until(lambda: pool.stats().workers_ended.get("drained") == 2)


@pytest.mark.parametrize("broken", ["1 +", "1; import no_such_module_here", "1; raise SystemExit(3)"])
def test_code_that_cannot_be_imported_leaves_the_old_workers_serving(
    make_pool: MakePool, app: Path, broken: str
) -> None:
    """The reload raises, and an event says so; the same workers serve on until the code is mended."""
    events: list[vv.Event] = []
    pool = make_app(make_pool, app, on_event=events.append)
    pool.warm()
    pids = {info.pid for info in pool.workers()}
    write(app, broken)
    for _ in range(2):
        with pytest.raises(vv.WorkerStartError):
            pool.reload()
    assert {future.result(10) for future in [pool.submit("version") for _ in range(10)]} == {1}
    assert {info.pid for info in pool.workers() if info.state == "idle"} == pids
    write(app, 2)
    assert pool.reload() == 2
    assert pool.call("version") == 2
    pool.close()
    assert [event.kind for event in events if "reload" in event.kind] == ["reload_failed", "reload_failed", "reloaded"]


def test_leased_and_named_workers_are_told_and_not_replaced(make_pool: MakePool, app: Path) -> None:
    """A leased one is replaced after its lease."""
    events: list[vv.Event] = []
    pool = make_app(make_pool, app, workers=(1, 2), on_event=events.append)
    named = pool.named("alice")
    with pool.lease() as lease:
        assert (lease.call("version"), named.call("version")) == (1, 1)
        write(app, 2)
        pool.reload()
        assert (lease.call("version"), named.call("version")) == (1, 1)
        assert pool.call("version") == 2
    assert {future.result(10) for future in [pool.submit("version") for _ in range(10)]} == {2}
    assert named.call("version") == 1
    pool.kill("alice")
    assert pool.named("alice").call("version") == 2
    pool.close()
    told = [(event.name, "leased" in event.detail) for event in events if event.kind == "outdated"]
    assert told == [(None, True), ("alice", False)]


def test_no_call_fails_while_the_code_is_reloaded_again_and_again(make_pool: MakePool, app: Path) -> None:
    """Versions never go back once a reload has returned."""
    pool = make_app(make_pool, app)
    pool.warm()
    is_over, errors, least = threading.Event(), [], [1]

    def use(way: str) -> None:
        try:
            while not is_over.is_set():
                at_least = least[0]
                version = pool.call("version") if way == "call" else pool.submit("version").result(20)
                assert version >= at_least
                time.sleep(0.01)
        except BaseException as error:
            errors.append(error)

    users = [threading.Thread(target=use, args=(way,)) for way in ("call", "submit", "call")]
    for user in users:
        user.start()
    for version in range(2, 7):
        write(app, version)
        pool.reload()
        least[0] = version
    is_over.set()
    for user in users:
        user.join(20)
    assert errors == []
    assert pool.stats().workers_crashed == 0


@pytest.mark.parametrize("when", ["first", "others"])
def test_a_pool_that_is_closed_during_a_reload_says_so_at_once(
    make_pool: MakePool, app: Path, until: Until, when: str
) -> None:
    """While the first fresh worker starts, and while the others follow."""
    pool = make_app(make_pool, app)
    pool.warm()
    running = [pool.submit("slow", 20) for _ in range(2 if when == "others" else 0)]
    one = app / "one"
    condition = "True" if when == "first" else f"os.path.exists({str(one)!r})"
    (app / "app.py").write_text(f"import time, os\nif {condition}: time.sleep(20)\nopen({str(one)!r}, 'w').close()\n")
    errors: list[BaseException] = []

    def reload() -> None:
        try:
            pool.reload()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=reload)
    thread.start()
    until(lambda: any(info.state == "starting" for info in pool.workers()))
    if when == "others":
        until(one.exists)
        until(lambda: any(info.state == "starting" for info in pool.workers()))
    begin = time.monotonic()
    pool.close(0)
    thread.join(10)
    assert time.monotonic() - begin < 3.0
    assert [type(error) for error in errors] == [vv.PoolClosed]
    assert all(future.exception(5) is not None for future in running)


def test_a_reload_while_the_environment_cannot_be_made_is_its_error(make_pool: MakePool, until: Until) -> None:
    """Nobody waits for ever for a worker that nobody starts."""
    pool = make_pool(vv.EnvSpec(packages=["numpy==0.0.1"], offline=True), workers=1)
    future = pool.submit("os:getpid")
    try:
        pool.reload()
    except vv.EnvError:
        pass
    assert isinstance(future.exception(20), vv.EnvError)


def test_reload_of_a_closed_pool(make_pool: MakePool, app: Path) -> None:
    """Is refused like a call."""
    pool = make_app(make_pool, app)
    pool.close()
    with pytest.raises(vv.PoolClosed):
        pool.reload()


# --- watch=True -----------------------------------------------------------------------------------


def seen(pool: vv.Pool) -> int | None:
    """The version that is served; None where a worker was started in the moment in which the file was empty."""
    try:
        version: int = pool.call("version")
    except vv.TargetNotFound:
        return None
    return version


@pytest.fixture
def _needs_watchfiles() -> None:
    pytest.importorskip("watchfiles", reason="watchfiles is not installed: extra `watch`")


@pytest.mark.usefixtures("_needs_watchfiles")
@pytest.mark.parametrize("by_rename", [False, True], ids=["in place", "by rename"])
@pytest.mark.parametrize("where", ["paths", "sys.path", "a template"])
def test_an_edit_is_seen_by_itself_and_of_two_the_last_wins(
    make_pool: MakePool, app: Path, until: Until, monkeypatch: pytest.MonkeyPatch, by_rename: bool, where: str
) -> None:
    """Also within the same second and of the same size; a module of the host's own path is one file of many."""
    if where == "paths":
        pool = make_app(make_pool, app, workers=1, watch=True)
    else:
        monkeypatch.setattr(sys, "path", [str(app), *sys.path])
        forked = {"start": "zygote", "preload": ["app", "json"]} if where == "a template" else {}
        pool = make_pool(module="app", workers=1, watch=True, options=forked)
    assert pool.call("version") == 1
    for version in (2, 4):
        write(app, version, by_rename=by_rename)
        time.sleep(0.1)
        write(app, version + 1, by_rename=by_rename)
        until(lambda version=version: seen(pool) == version + 1, what=f"version {version + 1}")
    time.sleep(0.5)
    assert pool.call("version") == 5


@pytest.mark.usefixtures("_needs_watchfiles")
def test_a_broken_edit_is_logged_and_told_and_the_next_one_is_seen(
    make_pool: MakePool, app: Path, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    """The old workers serve meanwhile."""
    events: list[vv.Event] = []
    pool = make_app(make_pool, app, workers=1, watch=True, on_event=events.append)
    pool.warm()
    with caplog.at_level(logging.ERROR, logger="venvoy"):
        write(app, "1 +")
        until(lambda: any(event.kind == "reload_failed" for event in events))
        until(lambda: "goes on with the code it has" in caplog.text)
    assert pool.call("version") == 1
    write(app, 7)
    until(lambda: pool.call("version") == 7)


@pytest.mark.usefixtures("_needs_watchfiles")
def test_a_watched_pool_that_is_dropped_or_closed_leaves_no_thread(home: Path, app: Path, until: Until) -> None:
    """Closed while it opens, or after an edit; the check after each test looks for threads."""
    for wait in (0.0, 0.02, 0.1, 0.3):
        pool = vv.Pool(module="app", worker=vv.WorkerOptions(paths=[app]), watch=True, home=home)
        pool.submit("version")
        time.sleep(wait)
        write(app, 2)
        pool.close(0)
    pool = vv.Pool(module="app", worker=vv.WorkerOptions(paths=[app]), watch=True, home=home)
    pid = pool.call("os:getpid")
    del pool
    until(lambda: not os.path.exists(f"/proc/{pid}"))


def test_watching_without_its_package_is_an_error(make_pool: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which says how to get it."""
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(vv.PoolError, match=r"pip install 'venvoy\[watch\]'"):
        make_pool(module="poolwork", watch=True).warm()


@pytest.mark.usefixtures("_needs_watchfiles")
def test_nothing_to_watch_is_an_error(make_pool: MakePool) -> None:
    """Rather than a pool that never reloads."""
    pool = make_pool(options={"paths": []}, watch=True)
    with pytest.raises(vv.PoolError, match="nothing to watch"):
        pool.warm()
