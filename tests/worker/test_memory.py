"""Whether a worker that was killed ran out of memory, as far as the kernel's counters say so."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv
from venvoy.workers import memory_kills
from venvoy.workers.memory_kills import Kills


def write(root: Path, **files: str) -> Path:
    """Write files, `__` in their names being a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = {"proc__self__cgroup": "0::/app/one\n", "proc__vmstat": "nr_free 5\noom_kill 7\n"}
EVENTS = "low 0\nhigh 0\nmax 3\noom 2\noom_kill 4\n"
V1 = {"proc__self__cgroup": "5:cpu:/\n4:hugetlb,memory:/box\n0::/\n"}
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill 6\n"

SYSTEMS = {
    "version 2": ({**V2, "sys__fs__cgroup__app__one__memory_dot_events": EVENTS}, Kills(4, 7)),
    "version 2 in a container": ({**V2, "sys__fs__cgroup__memory_dot_events": EVENTS}, Kills(4, 7)),
    "version 1": ({**V1, "sys__fs__cgroup__memory__box__memory_dot_oom_control": CONTROL}, Kills(6, None)),
    "no group": (V2, Kills(None, 7)),
    "nothing": ({}, Kills(None, None)),
    "garbage": ({"proc__vmstat": "oom_kill many\n", "proc__self__cgroup": "0::/\n"}, Kills(None, None)),
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_counts_are_found_where_each_kind_of_system_keeps_them(system: str, tmp_path: Path) -> None:
    """Control groups of both versions, seen from outside and inside of a container, or none at all."""
    files, expected = SYSTEMS[system]
    assert memory_kills.read(write(tmp_path, **files)) == expected


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (Kills(4, 7), Kills(5, 8), "control group"),
        (Kills(4, 7), Kills(4, 8), ""),  # somebody else's group
        (Kills(None, 7), Kills(None, 8), "machine"),
        (Kills(None, 7), Kills(None, 7), ""),
        (Kills(None, None), Kills(None, None), ""),
    ],
)
def test_only_a_count_that_has_grown_is_a_hint(before: Kills, after: Kills, words: str) -> None:
    """The group's own count decides where there is one."""
    assert words in before.hint(after)
    assert bool(before.hint(after)) == bool(words)


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group with 150 MB, where this process may make one."""
    root = Path("/sys/fs/cgroup")
    folder, limit = root / "memory" / f"venvoy-test-{os.getpid()}", "memory.limit_in_bytes"
    if not folder.parent.is_dir():
        folder, limit = root / f"venvoy-test-{os.getpid()}", "memory.max"
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("control groups cannot be made here")
    try:
        try:
            (folder / limit).write_text(str(150 << 20))
        except OSError:
            pytest.skip("the memory of control groups cannot be limited here")
        yield folder
    finally:
        folder.rmdir()


def test_a_worker_that_took_too_much_memory_says_so(small_group: Path, start_host: Callable[..., Any]) -> None:
    """Killed by the kernel in a group with little memory, the error of its call names the likely cause."""
    host = start_host(
        f"""
        import os, signal
        import venvoy as vv

        with open({str(small_group / "cgroup.procs")!r}, "w") as file:
            file.write(str(os.getpid()))
        with vv.Pool(workers=1) as pool:
            try:
                pool.call("os:kill", pool.workers()[0].pid, 9)
            except vv.WorkerCrashed as error:
                print(repr(error.oom_hint), flush=True)
            pool.call("math:sqrt", 4)
            try:
                pool.eval("len(bytearray(b'x') * size)", size=1 << 30)
            except vv.WorkerCrashed as error:
                print(error.oom_hint, error.signal.name, error.oom_hint in str(error), flush=True)
        """
    )
    status, out, err = host.rest()
    assert (status, err) == (0, "")
    deliberate, starved = out.splitlines()
    assert deliberate == "''"
    assert "out-of-memory" in starved
    assert starved.endswith("SIGKILL True")


def test_a_worker_killed_by_somebody_else_is_no_lack_of_memory(open_pool: Callable[..., vv.Pool]) -> None:
    """A SIGKILL without a kill by the kernel leaves the hint empty."""
    pool = open_pool()
    with pytest.raises(vv.WorkerCrashed) as caught:
        pool.call("deeds:die", "SIGKILL")
    assert caught.value.oom_hint == ""
