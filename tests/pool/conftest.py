"""What the tests of pools share: pools that are always ended, waiting for conditions, scripts as users run them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv

WORK = Path(__file__).with_name("work")

MakePool = Callable[..., vv.Pool]
Until = Callable[..., None]
RunScript = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def interpreters(pytestconfig: pytest.Config) -> list[str]:
    """Every CPython of the machine that a worker may be, the oldest first."""
    plugins = pytestconfig.pluginmanager.get_plugins()
    return next(list(plugin.INTERPRETERS) for plugin in plugins if hasattr(plugin, "INTERPRETERS"))


@pytest.fixture
def make_pool(home: Path, patience: float) -> Iterator[MakePool]:
    """Make pools whose workers find the module `poolwork`; all are ended after the test."""
    made: list[vv.Pool] = []

    def make(env: Any = None, module: str | None = None, *, options: dict[str, Any] | None = None, **rest: Any) -> Any:
        worker = vv.WorkerOptions(**{"paths": [WORK], "output": "discard", "grace_period": 0.6, **(options or {})})
        pool = vv.Pool(env, module, worker=worker, home=home, **rest)
        made.append(pool)
        return pool

    yield make
    for pool in made:
        pool.close(patience)


@pytest.fixture
def make_async_pool(home: Path) -> Callable[..., vv.AsyncPool]:
    """Make pools for an `async with`, whose workers find the module `poolwork`."""

    def make(env: Any = None, module: str | None = None, *, options: dict[str, Any] | None = None, **rest: Any) -> Any:
        worker = vv.WorkerOptions(**{"paths": [WORK], "output": "discard", "grace_period": 0.6, **(options or {})})
        return vv.AsyncPool(env, module, worker=worker, home=home, **rest)

    return make


@pytest.fixture
def until() -> Until:
    """Wait until a condition holds, for a bounded time."""

    def wait(condition: Callable[[], object], seconds: float = 10.0, what: str = "the condition") -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not hold within {seconds} s"
            time.sleep(0.005)

    return wait


@pytest.fixture
def is_settled(until: Until) -> Callable[..., None]:
    """Wait until every worker of a pool is idle and nothing waits; optionally until so many workers are."""

    def wait(pool: vv.Pool, workers: int | None = None, seconds: float = 15.0) -> None:
        def settled() -> bool:
            stats = pool.stats()
            idle = stats.workers["idle"]
            return stats.waiting == 0 and idle == sum(stats.workers.values()) and workers in (None, idle)

        try:
            until(settled, seconds)
        except AssertionError:
            raise AssertionError(f"the pool did not come to rest: {pool.stats()}, {pool.workers()}") from None

    return wait


@pytest.fixture
def run_script(tmp_path: Path, home: Path) -> RunScript:
    """Run a script as a user would, from a file of its own folder, and return what it printed."""

    def run(
        text: str,
        *args: str,
        python: str = sys.executable,
        flags: tuple[str, ...] = (),
        timeout: float = 40,
        **env: str,
    ) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / "app"
        folder.mkdir(exist_ok=True)
        script = folder / "script.py"
        script.write_text(textwrap.dedent(text))
        environ = {**os.environ, "VENVOY_HOME": str(home), "POOLWORK": str(WORK), **env}
        command = [python, *flags, str(script), *args]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=timeout, cwd=tmp_path)

    return run
