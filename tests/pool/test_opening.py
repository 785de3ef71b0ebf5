"""Making a pool only checks; opening it starts workers and says why that failed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]
RunScript = Callable[..., Any]
IsSettled = Callable[..., None]

WRONG_POOLS: list[tuple[dict[str, Any], type[Exception] | tuple[type[Exception], ...], str]] = [
    ({"workers": 0}, ValueError, "workers"),
    ({"workers": -1}, ValueError, "workers"),
    ({"workers": True}, (TypeError, ValueError), "workers"),
    ({"workers": "4"}, TypeError, "workers"),
    ({"workers": 1.5}, TypeError, "workers"),
    ({"workers": (3, 2)}, ValueError, "workers"),
    ({"workers": (0, 0)}, ValueError, "workers"),
    ({"workers": (-1, 2)}, ValueError, "workers"),
    ({"workers": (1, 2, 3)}, TypeError, "workers"),
    ({"workers": (1, "2")}, TypeError, "workers"),
    ({"max_workers": "2"}, (TypeError, ValueError), "max_workers"),
    ({"workers": 2, "max_workers": 2}, ValueError, "both"),
    ({"module": ""}, ValueError, "module"),
    ({"module": "a b"}, ValueError, "module"),
    ({"module": "a..b"}, ValueError, "module"),
    ({"module": ".a"}, ValueError, "module"),
    ({"module": "math:sqrt"}, ValueError, "module"),
    ({"module": 5}, (TypeError, ValueError), "module"),
    ({"env": 5}, TypeError, "env"),
    ({"worker": {"cwd": "/"}}, TypeError, "worker"),
    ({"wrokers": 2}, TypeError, "wrokers"),
    ({"build_timeout": "60"}, TypeError, "build_timeout"),
    ({"build_timeout": -1}, ValueError, "build_timeout"),
    ({"name": 5}, TypeError, "name"),
    ({"home": 5}, TypeError, "home"),
    ({"progress": 5}, TypeError, "progress"),
]

WRONG_OPTIONS: list[tuple[dict[str, Any], type[Exception] | tuple[type[Exception], ...], str]] = [
    ({"paths": "/tmp"}, TypeError, "paths"),
    ({"paths": [5]}, TypeError, "int"),
    ({"env_vars": [("A", "b")]}, TypeError, "env_vars"),
    ({"env_vars": {"A": 5}}, TypeError, "env_vars"),
    ({"env_vars": {"A=B": "c"}}, ValueError, "env_vars"),
    ({"env_vars": {"": "c"}}, ValueError, "env_vars"),
    ({"env_vars": {"A": "\0"}}, ValueError, "env_vars"),
    ({"cwd": 5}, TypeError, "cwd"),
    ({"grace_period": -1}, ValueError, "grace_period"),
    ({"grace_period": "2"}, TypeError, "grace_period"),
    ({"start_timeout": None}, TypeError, "start_timeout"),
    ({"start_timeout": float("inf")}, ValueError, "start_timeout"),
    ({"output": "print"}, ValueError, "output"),
    ({"output_tail_bytes": -1}, ValueError, "output_tail_bytes"),
    ({"output_tail_bytes": "1"}, TypeError, "output_tail_bytes"),
    ({"initializer": 5}, TypeError, "target|initializer"),
    ({"initializer": "not a target"}, ValueError, "target|initializer"),
]


@pytest.mark.parametrize(("arguments", "error", "words"), WRONG_POOLS, ids=[str(case[0]) for case in WRONG_POOLS])
def test_wrong_arguments_are_refused_by_the_constructor(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    """With the argument's name in the text, before anything has been started."""
    threads = threading.active_count()
    with pytest.raises(error, match=words):
        vv.Pool(**arguments)
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("arguments", "error", "words"), WRONG_OPTIONS, ids=[str(case[0]).replace("\0", "NUL") for case in WRONG_OPTIONS]
)
def test_wrong_worker_options_are_refused_before_anything_starts(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    """By `WorkerOptions` itself, or by the pool that gets them."""
    with pytest.raises(error, match=words):
        vv.Pool(worker=vv.WorkerOptions(**arguments))


def test_making_a_pool_starts_nothing(make_pool: MakePool) -> None:
    """Not even for an environment that cannot be: that is said when it is opened."""
    threads = threading.active_count()
    pool = make_pool("/no/such/python")
    assert (threading.active_count(), pool.workers(), pool.stats().phase) == (threads, [], "new")
    with pytest.raises(vv.EnvError):
        pool.warm()


def test_warm_returns_how_many_are_ready(make_pool: MakePool) -> None:
    """By default the least number; up to the most; more is a ValueError; fewer starts none more."""
    pool = make_pool(workers=(1, 3))
    assert pool.warm() == 1
    assert pool.warm(3) == 3
    assert pool.warm(2) == 3
    assert pool.stats().workers_started == 3
    for number in (4, -1):
        with pytest.raises(ValueError, match="at most 3"):
            pool.warm(number)


def test_warm_from_several_threads_starts_no_worker_twice(make_pool: MakePool) -> None:
    """Everybody waits for the same workers."""
    pool = make_pool(workers=2)
    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.append(pool.warm())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert got == [2] * 8
    assert pool.stats().workers_started == 2


def ways_to_open() -> dict[str, Callable[[vv.Pool], object]]:
    """Everything that opens a pool."""
    return {
        "with": lambda pool: pool.__enter__(),
        "warm": lambda pool: pool.warm(),
        "call": lambda pool: pool.call("math:sqrt", 4),
        "submit": lambda pool: pool.submit("math:sqrt", 4).result(20),
        "map": lambda pool: list(pool.map("math:sqrt", [4])),
        "lease": lambda pool: pool.lease().__enter__(),
    }


@pytest.mark.parametrize("way", ways_to_open())
def test_start_failures_are_raised_where_the_pool_is_opened(make_pool: MakePool, way: str) -> None:
    """A module that does not import: the error has the traceback and what was printed, and comes in each way."""
    pool = make_pool(module="poolwork_broken", options={"paths": [Path(__file__).with_name("work")]})
    with pytest.raises(vv.WorkerStartError, match="broken on purpose") as caught:
        ways_to_open()[way](pool)
    assert "poolwork_broken.py" in caught.value.remote_traceback
    assert "it was going so well" in caught.value.output
    assert pool.stats().workers["starting"] + pool.stats().workers["idle"] == 0


@pytest.mark.parametrize("way", ways_to_open())
def test_an_environment_that_is_not_there_is_an_env_error(make_pool: MakePool, way: str, tmp_path: Path) -> None:
    """With the path in the text, in each way, and again at the next try."""
    pool = make_pool(str(tmp_path / "no-python"))
    for _ in range(1 if way == "with" else 2):
        with pytest.raises(vv.EnvError, match="no-python"):
            ways_to_open()[way](pool)


def test_a_failed_start_is_tried_again_by_the_next_call(make_pool: MakePool, tmp_path: Path) -> None:
    """What stood in the way may have gone: a module that appears is imported."""
    pool = make_pool(module="late_module", options={"paths": [tmp_path]})
    with pytest.raises(vv.WorkerStartError, match="late_module"):
        pool.warm()
    (tmp_path / "late_module.py").write_text("def word():\n    return 'here'\n")
    assert pool.call("word") == "here"


def test_an_initializer_that_raises_is_a_start_error(make_pool: MakePool) -> None:
    """With its own words; one that works has run before the first call of every worker."""
    pool = make_pool(options={"initializer": "poolwork:fail", "initializer_args": ["not today"]})
    with pytest.raises(vv.WorkerStartError, match="not today"):
        pool.warm()
    pool = make_pool(workers=2, options={"initializer": "poolwork:remember", "initializer_args": ["key", 5]})
    pool.warm()
    assert [future.result(20) for future in [pool.submit("poolwork:recall", "key") for _ in range(10)]] == [5] * 10


def test_a_module_that_never_imports_fails_at_start_timeout_with_its_stack(make_pool: MakePool) -> None:
    """The error shows the line it hangs in."""
    pool = make_pool(options={"initializer": "poolwork:nap", "initializer_args": [60], "start_timeout": 1.0})
    with pytest.raises(vv.WorkerStartError, match="start_timeout") as caught:
        pool.warm()
    assert "nap" in caught.value.remote_traceback


def test_a_working_folder_that_is_not_there_is_named(make_pool: MakePool, tmp_path: Path) -> None:
    """The path is in the error, so nobody thinks the interpreter was missing."""
    pool = make_pool(options={"cwd": tmp_path / "gone"})
    with pytest.raises(vv.WorkerStartError, match="gone"):
        pool.warm()
    (tmp_path / "gone").mkdir()
    assert pool.call("os:getcwd") == str(tmp_path / "gone")


def test_a_python_that_vanished_is_named(make_pool: MakePool, tmp_path: Path, is_settled: IsSettled) -> None:
    """After the environment was found: existing workers keep serving, a replacement says what is missing."""
    python = tmp_path / "python-of-the-test"
    python.symlink_to(sys.executable)
    pool = make_pool(str(python), workers=(1, 2))
    pid = pool.call("poolwork:pid")
    python.unlink()
    with pytest.raises(vv.VenvoyError, match="python-of-the-test"):
        pool.warm(2)
    assert pool.call("poolwork:pid") == pid
    with pytest.raises(vv.WorkerCrashed):
        pool.call("poolwork:die")
    with pytest.raises(vv.VenvoyError, match="python-of-the-test"):
        pool.call("poolwork:pid")


EMFILE = """
    import os, resource, threading
    import venvoy as vv

    pool = vv.Pool(workers=(1, 8))
    pool.warm()
    held = []
    soft = len(os.listdir("/proc/self/fd")) + 40
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        for fd in held[-%d:]:
            os.close(fd)
    try:
        pool.warm(3)
    except vv.WorkerStartError as error:
        print("typed", "RLIMIT_NOFILE" in str(error), str(soft) in str(error), error.code)
    print("serving", [pool.call("math:sqrt", 16.0) for _ in range(5)], pool.submit(pow, 2, 5).result(20))
    for fd in held[:-%d]:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft + 200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    print("later", pool.warm(3))
    pool.close()
"""


@pytest.mark.parametrize("free", [1, 3, 5, 8, 11])
def test_running_out_of_descriptors_names_the_limit_and_existing_workers_serve(
    run_script: RunScript, free: int
) -> None:
    """Wherever in the start it strikes; once there is room again workers are started."""
    done = run_script(EMFILE % (free, free))
    assert done.stdout.splitlines() == [
        "typed True True worker_start_failed",
        "serving [4.0, 4.0, 4.0, 4.0, 4.0] 32",
        "later 3",
    ], done.stdout + done.stderr
    assert (done.returncode, done.stderr) == (0, "")
