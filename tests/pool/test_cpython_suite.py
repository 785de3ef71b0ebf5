"""CPython's own tests of executors, with a pool as the executor."""

from __future__ import annotations

import os
import re
import subprocess
import textwrap
from pathlib import Path

import pytest
import uv

import venvoy as vv

SOURCE = Path(vv.__file__).parents[1]
HAS_SUITE = "import sys, test.test_concurrent_futures.executor; sys.exit(sys.version_info < (3, 11))"
SUITE = """
    import unittest
    from test import support
    from test.test_concurrent_futures import executor, test_as_completed, test_shutdown, test_wait
    from test.test_concurrent_futures.util import BaseTestCase, ExecutorMixin
    from venvoy import Pool

    support.use_resources = ["walltime"]

    class PoolMixin(ExecutorMixin):
        executor_type = Pool

    class PoolExecutorTest(PoolMixin, executor.ExecutorTest, BaseTestCase):
        pass

    class PoolWaitTest(PoolMixin, test_wait.WaitTests, BaseTestCase):
        pass

    class PoolAsCompletedTest(PoolMixin, test_as_completed.AsCompletedTests, BaseTestCase):
        pass

    class PoolShutdownTest(PoolMixin, BaseTestCase):
        # Left out: those that import the executor's class from concurrent.futures by its name, and test_cancel_futures,
        # which cancels so soon that no worker has been started and no call of ours is running yet.
        test_run_after_shutdown = test_shutdown.ExecutorShutdownTest.test_run_after_shutdown
        test_hang_issue12364 = test_shutdown.ExecutorShutdownTest.test_hang_issue12364
        test_hang_gh94440 = test_shutdown.ExecutorShutdownTest.test_hang_gh94440

    if __name__ == "__main__":
        unittest.main(verbosity=2)
"""


def has_suite(python: str) -> bool:
    """Return whether an interpreter ships CPython's tests of executors, in the form that 3.12 gave them."""
    return subprocess.run([python, "-I", "-c", HAS_SUITE], capture_output=True, timeout=60).returncode == 0


@pytest.fixture(scope="module")
def python(interpreters: list[str]) -> str:
    """The newest interpreter that ships the tests."""
    found = next((python for python in reversed(interpreters) if has_suite(python)), None)
    if found is None:
        pytest.skip("no CPython >= 3.11 of this machine ships test.test_concurrent_futures.executor")
    return found


@pytest.fixture(scope="module")
def packages(python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `import venvoy` needs besides the standard library, for that interpreter."""
    folder = tmp_path_factory.mktemp("packages")
    command = [uv.find_uv_bin(), "pip", "install", "-q", "--python", python, "--target", str(folder)]
    done = subprocess.run([*command, "platformdirs>=4"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_cpythons_own_executor_tests_pass(python: str, packages: Path, home: Path, tmp_path: Path) -> None:
    """All of ExecutorTest, WaitTests and AsCompletedTests, and the shutdown tests that apply."""
    script = tmp_path / "suite.py"
    script.write_text(textwrap.dedent(SUITE))
    path = os.pathsep.join([str(SOURCE), str(packages)])
    environ = {**os.environ, "PYTHONPATH": path, "VENVOY_HOME": str(home)}
    done = subprocess.run([python, str(script)], env=environ, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    ran = re.search(r"^Ran (\d+) tests? in", done.stderr, re.MULTILINE)
    assert done.returncode == 0, done.stderr[-6000:]
    assert ran is not None
    assert int(ran[1]) > 20
    assert done.stderr.count("... ok") == int(ran[1]), f"some were skipped:\n{done.stderr}"
    for name in ("test_submit_keyword", "test_map_exception", "test_map_timeout", "test_no_stale_references"):
        assert f"{name} (" in done.stderr
