"""Several pools by name, and the file that describes them."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv
from venvoy.fleets.config import find_config, read_config

QUIET = vv.WorkerOptions(output="discard", grace_period=0.6)


@pytest.fixture
def make_fleet(home: Path, patience: float) -> Iterator[Callable[..., vv.Fleet]]:
    """Make fleets; all are ended after the test."""
    made: list[vv.Fleet] = []

    def make(**pools: Any) -> vv.Fleet:
        made.append(vv.Fleet(pools))
        return made[-1]

    yield make
    for fleet in made:
        fleet.close(patience)


def spec(env: Any = None, **options: Any) -> vv.PoolSpec:
    return vv.PoolSpec(env, **{"workers": 1, "worker": QUIET, **options})


BAD = vv.EnvSpec(python="3.99")


def test_pools_serve_side_by_side(make_fleet: Any, interpreters: list[str]) -> None:
    """Each by its name, in its own environment."""
    with make_fleet(old=spec(interpreters[0]), new=spec(interpreters[-1])) as fleet:
        assert list(fleet) == ["old", "new"]
        assert "old" in fleet
        assert len(fleet) == 2
        versions = {name: fleet[name].eval("__import__('sys').version_info[:2]") for name in fleet}
        assert versions["old"] <= versions["new"]
        stats = fleet.stats()
        assert {name: (stats[name].name, stats[name].phase) for name in stats} == {
            "old": ("old", "open"),
            "new": ("new", "open"),
        }
    assert fleet.stats()["old"].phase == "closed"


def test_one_bad_environment_is_its_own_error(make_fleet: Any) -> None:
    """The others serve; the bad one says why, each time it is asked for, and when it is started again."""
    with make_fleet(good=spec(), bad=spec(BAD)) as fleet:
        assert fleet["good"].call("builtins:abs", -1) == 1
        for _ in range(2):
            with pytest.raises(vv.InterpreterNotFound, match=r"3\.99"):
                fleet["bad"]
        with pytest.raises(vv.EnvError):
            fleet.start("bad")
        assert list(fleet.errors()) == ["bad"]
        fleet.stop("bad")
        assert fleet.errors() == {}


def test_a_module_that_cannot_be_imported_is_its_own_error(make_fleet: Any) -> None:
    """A worker that does not start is like an environment that is not there."""
    with make_fleet(good=spec(module="math"), bad=spec(module="no_such_module_here")) as fleet:
        assert fleet["good"].call("sqrt", 16) == 4
        with pytest.raises(vv.WorkerStartError, match="no_such_module_here"):
            fleet["bad"]
        assert fleet.stats()["bad"].phase == "closed"  # nothing of it goes on trying


def test_a_stopped_pool_is_closed_until_it_is_started(make_fleet: Any) -> None:
    """Also for who holds it; results of detached calls are still there afterwards."""
    with make_fleet(one=spec(), two=spec()) as fleet:
        held = fleet["one"]
        id = held.detached.start("builtins:abs", -7)
        held.call("builtins:abs", -1)
        fleet.stop("one")
        for use in (lambda: fleet["one"], lambda: held.call("builtins:abs", -1)):
            with pytest.raises(vv.PoolClosed):
                use()
        assert fleet["two"].call("builtins:abs", -1) == 1
        fleet.start("one")
        assert fleet["one"] is not held
        assert fleet["one"].call("builtins:abs", -2) == 2
        assert fleet["one"].detached.result(id, 10) == 7
        fleet.start("one")  # runs already


def test_a_reload_replaces_the_workers_of_one_pool(make_fleet: Any) -> None:
    """And of all, if none is named."""
    with make_fleet(one=spec(), two=spec()) as fleet:
        before = {name: fleet[name].workers()[0].pid for name in fleet}
        fleet.reload("one")
        assert fleet["one"].call("os:getpid") != before["one"]
        assert fleet["two"].call("os:getpid") == before["two"]
        fleet.reload()
        assert fleet["two"].call("os:getpid") != before["two"]


def test_a_reload_of_all_tries_each_and_raises_the_first_error(make_fleet: Any, tmp_path: Path) -> None:
    """The pool whose code is broken goes on with its old worker; those after it have new ones."""
    code = tmp_path / "app_of_fleet.py"
    code.write_text("N = 1\n")
    worker = vv.WorkerOptions(output="discard", grace_period=0.6, paths=[tmp_path])
    with make_fleet(one=spec(module="app_of_fleet", worker=worker), two=spec()) as fleet:
        before = {name: fleet[name].call("os:getpid") for name in fleet}
        code.write_text("broken =\n")
        with pytest.raises(vv.WorkerStartError, match="SyntaxError"):
            fleet.reload()
        assert fleet["one"].call("os:getpid") == before["one"]
        assert fleet["two"].call("os:getpid") != before["two"]


def test_an_environment_stands_for_a_pool_of_it(make_fleet: Any) -> None:
    """Where nothing else is to be said."""
    fleet = make_fleet(here=vv.EnvSpec.current())
    assert fleet["here"].call("builtins:abs", -1) == 1
    assert repr(fleet) == "<venvoy.Fleet of here>"


def test_a_store_that_is_given_is_used_and_left_open(make_fleet: Any, tmp_path: Path) -> None:
    """Unlike one that the fleet makes; both at once are refused."""
    with vv.SqliteCallStore(tmp_path / "calls.db") as store:
        with make_fleet(one=spec(call_store=store)) as fleet:
            id = fleet["one"].detached.start("builtins:abs", -7)
            until_done = fleet["one"].detached.peek
            while until_done(id).state == "pending":
                pass
        assert [entry.id for entry in store.entries()] == [id]
        with pytest.raises(TypeError, match="store is a function that makes a call store, and excludes call_store"):
            spec(call_store=store, store=vv.MemoryCallStore)


def test_a_fork_has_pools_of_its_own(make_fleet: Any) -> None:
    """Those of its parent go on; nothing waits for a lock of somebody who is not there."""
    with make_fleet(one=spec()) as fleet:
        here = fleet["one"].call("os:getpid")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a process with threads forks: what is tested
            pid = os.fork()
        if not pid:
            status = 1
            try:
                status = 7 if fleet["one"].call("os:getpid") != here else 8
                fleet.close(0)
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert fleet["one"].call("os:getpid") == here


def test_a_fleet_that_was_not_started_starts_at_the_first_call(make_fleet: Any) -> None:
    """As a pool does."""
    fleet = make_fleet(one=spec(), two=spec())
    assert fleet["one"].call("builtins:abs", -1) == 1
    assert list(fleet.stats()) == ["one"]


def test_wrong_names_and_values_are_refused(make_fleet: Any) -> None:
    """Where they are written."""
    fleet = make_fleet(one=spec())
    for use in (lambda: fleet["none"], lambda: fleet.start("none"), lambda: fleet.stop("none")):
        with pytest.raises(KeyError, match="it has one"):
            use()
    with pytest.raises(TypeError, match="workers"):
        vv.PoolSpec(workers="x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="PoolSpec"):
        vv.Fleet({"one": 3})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="has a name, a str, not 3"):
        vv.Fleet({3: spec()})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="dict"):
        vv.Fleet([spec()])  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="frozen"):
        spec().name = "x"  # type: ignore[misc]


def test_a_spec_is_equal_to_one_that_says_the_same() -> None:
    """And makes pools as often as one likes."""
    assert spec(max_waiting=3) == spec(max_waiting=3)
    assert spec() != spec(max_waiting=3)
    assert spec() != "spec"
    assert spec(max_waiting=3) == spec().replaced(max_waiting=3)
    assert "max_waiting=3" in repr(spec(max_waiting=3))


def test_stopping_ends_a_start_that_takes_long(make_fleet: Any) -> None:
    """Whoever waits for it is told."""
    hangs = vv.WorkerOptions(output="discard", initializer="time:sleep", initializer_args=[60], grace_period=0.3)
    fleet, errors = make_fleet(slow=spec(worker=hangs)), []

    def start() -> None:
        try:
            fleet.start("slow")
        except vv.VenvoyError as error:
            errors.append(error)

    starter = threading.Thread(target=start)
    starter.start()
    while not fleet.stats().get("slow") or not sum(fleet.stats()["slow"].workers.values()):
        pass
    fleet.stop("slow", timeout=0)
    starter.join(10)
    assert [type(error) for error in errors] == [vv.PoolClosed]


# --- the file -----------------------------------------------------------------------------------


def test_a_file_describes_a_fleet(tmp_path: Path, home: Path) -> None:
    """Environments, modules, options; paths are relative to the file."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "app_of_fleet.py").write_text("def twice(x):\n    return 2 * x\n")
    (tmp_path / "venvoy.toml").write_text(
        """
        [pools.app]
        module = "app_of_fleet"
        workers = [1, 2]
        max_waiting = 10
        worker = { paths = ["code"], output = "discard", env_vars = { WHO = "app" } }
        scale = { idle_timeout = 30 }
        call_store = { path = "calls.db", resume = true }

        [pools.bad]
        python = "3.99"
        """
    )
    fleet = vv.Fleet.from_config(tmp_path)
    assert not (tmp_path / "calls.db").exists()
    with fleet:
        assert fleet["app"].call("twice", 4) == 8
        assert fleet["app"].call("os:getenv", "WHO") == "app"
        assert fleet["app"].detached.result(fleet["app"].detached.start("twice", 5), 20) == 10
        assert (tmp_path / "calls.db").exists()
        with pytest.raises(vv.InterpreterNotFound):
            fleet["bad"]


def test_every_path_is_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the working folder is."""
    (tmp_path / "wheels").mkdir()
    (tmp_path / "at").mkdir()
    (tmp_path / "venvoy.toml").write_text(
        """
        [pools.one]
        home = "home"
        python = "bin/python"
        find_links = ["wheels", "https://a.example/wheels"]
        worker = { cwd = "at" }
        """
    )
    monkeypatch.chdir("/")
    spec = read_config(tmp_path)["one"]
    assert spec.worker.cwd == str(tmp_path / "at")
    text = repr(spec)
    for place in ("home", "bin/python", "wheels"):
        assert f"'{tmp_path / place}'" in text
    assert "'https://a.example/wheels'" in text


def test_the_table_may_stand_in_pyproject(tmp_path: Path) -> None:
    """As `[tool.venvoy]`; a `venvoy.toml` beside it comes first."""
    (tmp_path / "pyproject.toml").write_text('[tool.venvoy.pools.one]\nmodule = "math"\n')
    assert read_config(tmp_path)["one"].module == "math"
    (tmp_path / "venvoy.toml").write_text('[pools.two]\nmodule = "cmath"\n')
    assert list(read_config(tmp_path)) == ["two"]
    assert list(read_config(tmp_path / "pyproject.toml")) == ["one"]
    assert find_config(tmp_path).name == "venvoy.toml"


WRONG = {
    "[pools.v1]\nworkrs = 2": r"pools\.v1\.workrs: there is no such key; did you mean 'workers'\?",
    "[pools.v1]\nworkers = 'two'": r"pools\.v1: workers is",
    "[pools.v1]\nworkers = [3, 1]": r"pools\.v1: workers is",
    "[pools.v1]\nmodule = 3": r"pools\.v1: module is the name of a module",
    "[pools.v1]\npackages = 'numpy'": r"pools\.v1: packages must be a list",
    "[pools.v1]\npackages = ['???']": r"pools\.v1: packages",
    "[pools.v1]\npython = '3.x.y'": r"pools\.v1: python",
    "[pools.v1]\nproject = 'a'\nscript = 'b'": r"pools\.v1\.script: project and script exclude each other",
    "[pools.v1]\nrequirements = 'missing.txt'": r"pools\.v1: .*missing\.txt",
    "[pools.v1]\nworker = {grace_period = 'x'}": r"pools\.v1\.worker: grace_period is a number of seconds",
    "[pools.v1]\nworker = {grace_peiod = 1}": r"pools\.v1\.worker\.grace_peiod: there is no such key; did you mean",
    "[pools.v1]\nhome = 3": r"pools\.v1\.home: expected a path in quotes, not 3",
    "[pools.v1]\nworker = 3": r"pools\.v1\.worker: expected a table",
    "[pools.v1.restart]\nbackoff = -1": r"pools\.v1\.restart: backoff",
    "[pools.v1]\ncall_store = {ttl = 3}": r"pools\.v1\.call_store\.path: expected the path",
    "[pools.v1]\ncall_store = {path = 'x', ttl = 0}": r"pools\.v1\.call_store: ttl",
    "[pools.v1]\npaths = ['src']": r"pools\.v1\.paths: there is no such key; it belongs below 'worker'",
    "[pools.v1]\nidle_timeout = 3": r"pools\.v1\.idle_timeout: there is no such key; it belongs below 'scale'",
    "[pools.v1]\non_event = 'x'": r"pools\.v1\.on_event: there is no such key",
    "[pool.v1]\n": r"pool: there is no such key; did you mean 'pools'\?",
    "pools = 3": r"pools: expected a table",
    "": r"no pools",
    "[pools.v1": r"Expected",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, text: str) -> None:
    """File, key, and what was expected."""
    (tmp_path / "venvoy.toml").write_text(text)
    with pytest.raises(vv.ConfigError, match=WRONG[text]) as caught:
        read_config(tmp_path)
    assert str(tmp_path / "venvoy.toml") in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """And where was looked."""
    with pytest.raises(vv.ConfigError, match=r"venvoy\.toml"):
        vv.Fleet.from_config(tmp_path)
    with pytest.raises(vv.ConfigError, match=r"absent\.toml: there is no such file"):
        vv.Fleet.from_config(tmp_path / "absent.toml")
    with pytest.raises(vv.ConfigError, match="there is no such file"):
        vv.Fleet.from_config("long" * 200)


@pytest.mark.skipif(os.getuid() == 0, reason="root may look anywhere")
def test_a_folder_that_cannot_be_looked_into_is_named(tmp_path: Path) -> None:
    """And is not taken for an empty one."""
    tmp_path.chmod(0o600)
    try:
        with pytest.raises(vv.ConfigError, match="cannot be looked into"):
            vv.Fleet.from_config(tmp_path)
    finally:
        tmp_path.chmod(0o700)
