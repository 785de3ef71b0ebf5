"""Ending a worker ends what it has started, wherever that has gone, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import venvoy as vv
from venvoy.processes import strays

KINDS = ["own group", "own session", "daemon", "with children"]
ENDS = ["kill", "terminate", "SIGKILL", "crash", "close"]


def pids_in(folder: Path, count: int, until: Callable[..., None]) -> list[int]:
    """Wait until so many processes have said their numbers, and return these."""
    until(lambda: len(list(folder.glob("pid-*"))) >= count, what=f"{count} processes")
    return [int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*")]


def end(pool: vv.Pool, how: str) -> None:
    """End the pool's only worker in one of several ways."""
    worker = pool.workers()[0]
    if how in ("kill", "terminate"):
        getattr(pool, how)(worker.id)
    elif how == "SIGKILL":
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
    elif how == "crash":
        with pytest.raises(vv.WorkerCrashed):
            pool.call("deeds:die", "segfault")
    else:
        pool.close()


@pytest.mark.parametrize("how", ENDS)
def test_what_has_left_the_group_ends_with_its_worker(
    extreme: str,
    how: str,
    open_pool: Callable[..., vv.Pool],
    gone: Callable[..., None],
    until: Callable[..., None],
    tmp_path: Path,
) -> None:
    """Processes in groups and sessions of their own, daemons, and what they have started themselves."""
    pool = open_pool(extreme)
    pool.call("deeds:start_strays", str(tmp_path), KINDS)
    pids = pids_in(tmp_path, 7, until)
    end(pool, how)
    gone(*pids)


def test_a_descendant_with_a_clean_environment_is_found_while_its_worker_lives(
    extreme: str,
    open_pool: Callable[..., vv.Pool],
    gone: Callable[..., None],
    until: Callable[..., None],
    tmp_path: Path,
) -> None:
    """Without the mark, its parents lead to it."""
    pool = open_pool(extreme)
    pool.call("deeds:start_strays", str(tmp_path), ["own session, clean environment"])
    [pid] = pids_in(tmp_path, 1, until)
    pool.kill(pool.workers()[0].id)
    gone(pid)


def test_what_goes_on_starting_processes_is_ended_too(
    open_pool: Callable[..., vv.Pool], gone: Callable[..., None], until: Callable[..., None], tmp_path: Path
) -> None:
    """The search is repeated until it finds nobody."""
    pool = open_pool()
    pool.call("deeds:start_what_multiplies", str(tmp_path))
    pids_in(tmp_path, 10, until)
    with pytest.raises(vv.WorkerCrashed):
        pool.call("deeds:die", "exit")
    time.sleep(0.3)
    before = len(list(tmp_path.glob("pid-*")))
    time.sleep(0.1)
    assert len(list(tmp_path.glob("pid-*"))) == before
    gone(*pids_in(tmp_path, 10, until))


@pytest.mark.parametrize("way", ["close", "exit"])
def test_nothing_is_left_when_the_host_exits_right_after(
    way: str, start_host: Callable[..., Any], until: Callable[..., None], tmp_path: Path
) -> None:
    """Closing a pool, or leaving the program, waits for the search."""
    host = start_host(
        f"""
        import glob, os, time
        import venvoy as vv

        pool = vv.Pool(workers=2, worker=vv.WorkerOptions(paths=[WORKLOAD]))
        pool.call("deeds:start_strays", {str(tmp_path)!r}, {KINDS!r})
        while len(glob.glob({str(tmp_path / "pid-*")!r})) < 7:
            time.sleep(0.01)
        {"pool.close(); os._exit(0)" if way == "close" else "pass"}
        """
    )
    assert host.rest() == (0, "", "")
    for pid in pids_in(tmp_path, 7, until):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_workers_of_a_worker_and_their_strays_end_with_it(
    open_pool: Callable[..., vv.Pool], gone: Callable[..., None], until: Callable[..., None], tmp_path: Path
) -> None:
    """A worker that is a host itself hands its mark on."""
    pool = open_pool()
    text = (
        "__import__('builtins').__dict__.setdefault('kept', __import__('venvoy').Pool(workers=1, "
        "worker=__import__('venvoy').WorkerOptions(paths=[folder]))).call('deeds:start_strays', where, kinds)"
    )
    pool.eval(text, folder=str(Path(__file__).parent / "workload"), where=str(tmp_path), kinds=KINDS)
    pids = pids_in(tmp_path, 7, until)
    pool.kill(pool.workers()[0].id)
    gone(*pids)


def test_other_processes_are_left_alone(
    open_pool: Callable[..., vv.Pool], gone: Callable[..., None], until: Callable[..., None], tmp_path: Path
) -> None:
    """Another pool's, the host's own, and one that was told to outlive its worker."""
    mine = subprocess.Popen(["sleep", "60"])
    pool, other = open_pool(), open_pool()
    (tmp_path / "other").mkdir()
    other.call("deeds:start_strays", str(tmp_path / "other"), KINDS)
    kept = pids_in(tmp_path / "other", 7, until)
    text = "__import__('subprocess').Popen(['sleep', '60'], env=env, start_new_session=True).pid"
    free = pool.eval(text, env={"PATH": os.environ["PATH"]})
    try:
        pool.close()
        assert mine.poll() is None
        assert all(psutil.pid_exists(pid) for pid in [*kept, free])
        assert other.call("deeds:square", 3) == 9
    finally:
        mine.kill()
        mine.wait()
        os.kill(free, signal.SIGKILL)
    other.close()
    gone(*kept, free)


def test_a_number_that_now_belongs_to_another_process_is_not_killed() -> None:
    """Pid and start time have to be those that were seen, and the mark has to be there."""
    mine = subprocess.Popen(["sleep", "60"], env={**os.environ, strays.VARIABLE: "abc"})
    try:
        seen = strays.identify(mine.pid)
        assert seen is not None
        strays.kill([seen._replace(started=seen.started - 1)])
        assert not strays._kill(seen, b"another")
        time.sleep(0.05)
        assert mine.poll() is None
        assert strays._kill(seen, b"abc")
        assert mine.wait(5) == -signal.SIGKILL
        assert strays.identify(mine.pid) is None
        strays.kill([seen])
    finally:
        mine.kill()
        mine.wait()


def test_the_mark_is_in_the_environment_of_what_a_worker_starts(open_pool: Callable[..., vv.Pool]) -> None:
    """One of its own for each worker; the host itself has none."""
    pool = open_pool(workers=2)
    pool.warm()
    with pool.lease() as one, pool.lease() as two:
        marks = {worker.eval(f"__import__('os').environ['{strays.VARIABLE}']") for worker in (one, two)}
    assert len(marks) == 2
    assert strays.VARIABLE not in os.environ
