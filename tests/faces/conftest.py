"""What the tests of faces share: two versions of one module, for the worker and for the host."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import venvoy as vv

VALUES = Path(__file__).with_name("values")


@pytest.fixture(scope="session")
def interpreters(pytestconfig: pytest.Config) -> list[str]:
    """Every CPython of the machine that a worker may be, the oldest first."""
    plugins = pytestconfig.pluginmanager.get_plugins()
    return next(list(plugin.INTERPRETERS) for plugin in plugins if hasattr(plugin, "INTERPRETERS"))


@pytest.fixture(scope="session")
def shapes() -> Iterator[ModuleType]:
    """The module of classes in the host's version, importable by its name."""
    sys.path.insert(0, str(VALUES / "host"))
    import importlib

    yield importlib.import_module("shapes")
    sys.path.remove(str(VALUES / "host"))
    sys.modules.pop("shapes", None)


@pytest.fixture(scope="session")
def worker_options() -> vv.WorkerOptions:
    """Workers that have the same module in their version."""
    return vv.WorkerOptions(paths=[VALUES / "worker"], output="discard", grace_period=0.6)


@pytest.fixture(scope="session")
def libraries() -> None:
    """Libraries for frames, begun: the threads and descriptors they keep are not left behind by a test."""
    with contextlib.suppress(ImportError):
        import polars

        polars.DataFrame({"a": [1, 2]}).select(polars.col("a").sum()).to_dicts()
    with contextlib.suppress(ImportError):
        import pyarrow

        pyarrow.table({"a": [1]}).to_pylist()


@pytest.fixture(scope="session")
def others(interpreters: list[str]) -> list[str]:
    """The oldest and the newest interpreter that is not the host's: other environments."""
    found = [path for path in interpreters if path != sys.executable]
    if not found:
        pytest.skip("needs a second CPython")
    return [found[0], found[-1]]


@pytest.fixture(scope="module", params=[0, 1], ids=["oldest", "newest"])
def pool(
    request: pytest.FixtureRequest, home: Path, others: list[str], worker_options: vv.WorkerOptions
) -> Iterator[vv.Pool]:
    """A pool of another environment, of the oldest and of the newest Python there is."""
    with vv.Pool(others[request.param], "shapes", worker=worker_options, workers=1, name="values") as pool:
        yield _begun(pool)


@pytest.fixture(scope="module")
def home_pool(home: Path, worker_options: vv.WorkerOptions) -> Iterator[vv.Pool]:
    """A pool of the host's own environment, with one folder more."""
    with vv.Pool(module="shapes", worker=worker_options, workers=1, name="home") as pool:
        yield _begun(pool)


def _begun(pool: vv.Pool) -> vv.Pool:
    """Have a pool start its threads now: what is there before a test is not left behind by it."""
    assert pool.submit("builtins:abs", -1).result(20) == 1
    return pool


@pytest.fixture
def run_script(tmp_path: Path, home: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script as a user would, from a file of its own folder, and return what it printed."""

    def run(text: str, *args: str, timeout: float = 40) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "script.py"
        script.write_text(textwrap.dedent(text))
        environ = {**os.environ, "VENVOY_HOME": str(home)}
        command = [sys.executable, str(script), *args]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=timeout, cwd=tmp_path)

    return run
