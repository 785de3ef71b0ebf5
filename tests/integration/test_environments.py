"""Pools of several interpreters side by side."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import venvoy as vv

QUIET = vv.WorkerOptions(output="discard", grace_period=0.6)


@pytest.fixture
def interpreters(pytestconfig: pytest.Config) -> list[str]:
    """Every CPython of the machine that a worker may be, the oldest first."""
    plugins = pytestconfig.pluginmanager.get_plugins()
    return next(list(plugin.INTERPRETERS) for plugin in plugins if hasattr(plugin, "INTERPRETERS"))


def version_in(pool: vv.Pool) -> tuple[int, int]:
    """Return the version of a pool's workers."""
    major, minor = pool.eval("tuple(__import__('sys').version_info[:2])")
    return major, minor


def test_one_program_uses_two_interpreters_at_once(interpreters: list[str]) -> None:
    """Each pool runs its own; values go from one to the other, from many threads."""
    old, new = interpreters[0], interpreters[-1]
    with vv.Pool(old, workers=2, worker=QUIET) as first, vv.Pool(new, workers=2, worker=QUIET) as second:
        assert version_in(first) <= version_in(second)
        wrong: list[object] = []

        def use(n: int) -> None:
            for k in range(40):
                root = first.call("math:sqrt", float((n + k) ** 2))
                if second.submit("math:pow", root, 2).result(20) != (n + k) ** 2:
                    wrong.append((n, k))

        threads = [threading.Thread(target=use, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert wrong == []


def test_all_interpreters_of_the_machine_serve_side_by_side(interpreters: list[str]) -> None:
    """A pool each, opened at the same time by submitted calls."""
    pools = [vv.Pool(path, workers=1, worker=QUIET) for path in interpreters]
    try:
        futures = [pool.submit(vv.by_source(about_here), n) for n, pool in enumerate(pools)]
        answers = [future.result(40) for future in futures]
    finally:
        for pool in pools:
            pool.close(0)
    assert [answer[0] for answer in answers] == list(range(len(pools)))
    assert len({answer[1] for answer in answers}) == len(pools)


def about_here(n: int) -> tuple[int, str]:
    """Return the number and where it came to."""
    import sys

    return n, sys.version


@pytest.mark.parametrize("broken", ["python", "module", "initializer", "folder"])
def test_an_environment_that_fails_does_not_disturb_another(
    interpreters: list[str], tmp_path: Path, broken: str
) -> None:
    """Its own error, each time; the other pool's workers answer throughout, and are the same."""
    wrong: dict[str, vv.Pool] = {
        "python": vv.Pool(str(tmp_path / "nothing"), worker=QUIET),
        "module": vv.Pool(interpreters[0], "no_such_module", worker=QUIET),
        "initializer": vv.Pool(interpreters[0], worker=vv.WorkerOptions(initializer="os:_exit", initializer_args=[4])),
        "folder": vv.Pool(interpreters[0], worker=vv.WorkerOptions(cwd=tmp_path / "nothing")),
    }
    with vv.Pool(interpreters[-1], workers=1, worker=QUIET) as good:
        pid = good.call("os:getpid")
        for _ in range(3):
            failing = wrong[broken].submit("math:sqrt", 4)
            assert good.call("math:sqrt", 4) == 2
            assert isinstance(failing.exception(20), vv.EnvError | vv.WorkerStartError)
        assert good.call("os:getpid") == pid
    for pool in wrong.values():
        pool.close(0)


def test_a_crash_in_one_pool_costs_the_other_nothing(interpreters: list[str]) -> None:
    """Crashes, time-outs and kills stay in their pool."""
    with vv.Pool(interpreters[0], workers=1, worker=QUIET) as one, vv.Pool(workers=1, worker=QUIET) as two:
        pid = two.call("os:getpid")
        running = two.submit("time:sleep", 1.0)
        with pytest.raises(vv.WorkerCrashed):
            one.call("os:_exit", 1)
        with pytest.raises(vv.CallTimeout):
            one.options(timeout=0.1).call("time:sleep", 60)
        running.result(20)
        assert two.call("os:getpid") == pid
        assert one.call("math:sqrt", 4) == 2
