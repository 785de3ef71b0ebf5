"""What every test shares: the interpreters of this machine, a watchdog, and the check that nothing is left behind."""

from __future__ import annotations

import faulthandler
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

WATCHDOG_SECONDS = 90.0
EXIT_SECONDS = 60.0
_terminal = os.dup(2)  # before pytest captures it: a hang must not lose its stacks
if threading.current_thread() is threading.main_thread():  # begun in the background, by `nohup` say, both are ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


# Longer where nobody waits for it.
_CHAOS, _RESTARTS = (60.0, 1000) if os.environ.get("CI") else (15.0, 100)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Tests that can go on for as long as one likes."""
    parser.addoption("--chaos", type=float, default=_CHAOS, metavar="SECONDS", help="how long the chaos test lasts")
    parser.addoption(
        "--restarts", type=int, default=_RESTARTS, metavar="NUMBER", help="how many restarts have to leave no trace"
    )


def pytest_unconfigure() -> None:
    """A thread that a failed test has left must not keep the run from ending."""
    faulthandler.dump_traceback_later(EXIT_SECONDS, exit=True, file=_terminal)


def find_interpreters() -> list[str]:
    """Return one CPython of each minor version from 3.8 up that this machine has, the running one included."""
    found: dict[tuple[int, int], str] = {sys.version_info[:2]: sys.executable}
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *(str(path / "bin") for path in root.glob("3.*"))]
    for folder in folders:
        for path in sorted(Path(folder).glob("python3.*")) if folder else []:
            match = re.fullmatch(r"python3\.(\d+)", path.name)
            if match and (3, int(match[1])) >= (3, 8) and (3, int(match[1])) not in found and _runs(str(path)):
                found[3, int(match[1])] = str(path)
    return [found[version] for version in sorted(found)]


def _runs(path: str) -> bool:
    command = [path, "-I", "-c", "import sys; sys.exit(sys.implementation.name != 'cpython')"]
    try:
        return subprocess.run(command, capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


INTERPRETERS = find_interpreters()


def version_of(path: str) -> str:
    """Return a short name of an interpreter for test ids."""
    return Path(path).name.removeprefix("python") or "3"


@pytest.fixture(params=INTERPRETERS, ids=version_of)
def interpreter(request: pytest.FixtureRequest) -> str:
    """Each CPython found on the machine in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One home folder for the whole run, so that nothing touches the user's."""
    folder = tmp_path_factory.mktemp("venvoy-home")
    previous = os.environ.get("VENVOY_HOME")
    os.environ["VENVOY_HOME"] = str(folder)
    yield folder
    os.environ.pop("VENVOY_HOME")
    if previous is not None:
        os.environ["VENVOY_HOME"] = previous


@pytest.fixture(scope="session")
def patience() -> float:
    """Seconds that pools of fixtures may take to end: a worker that is killed saves nothing of what was measured."""
    return 2.0 if "COVERAGE_PROCESS_CONFIG" in os.environ else 0.0


def _descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []:
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass
    return found


def _left(before: tuple[dict[str, str], set[threading.Thread], set[int]]) -> list[str]:
    fds, threads, children = before
    left = [
        f"descriptor {fd} -> {path}"
        for fd, path in _descriptors().items()
        # a pool that was there before the test keeps memory for the next large value
        if fds.get(fd) != path and not (children and path.startswith("/memfd:venvoy "))
    ]
    left += [f"thread {thread.name}" for thread in threading.enumerate() if thread not in threads]
    for child in psutil.Process().children(recursive=True):
        if child.pid not in children:
            try:
                left.append(f"process {child.pid} {child.name()} {child.status()}")
            except psutil.NoSuchProcess:  # it has just ended
                pass
    return left


@pytest.fixture(scope="session")
def frozen_heap() -> None:
    """What is there before the first test needs no collecting: it would cost each test 50 ms."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_is_left(home: Path, frozen_heap: None) -> Iterator[None]:
    """After each test: no process, thread or descriptor more than before it."""
    gc.collect()
    before = (_descriptors(), set(threading.enumerate()), {c.pid for c in psutil.Process().children(recursive=True)})
    yield
    deadline = time.monotonic() + 3.0
    left = _left(before)
    while left and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.02)
        left = _left(before)
    assert not left, f"left behind: {left}"


@pytest.fixture(autouse=True)
def watchdog(request: pytest.FixtureRequest) -> Iterator[None]:
    """A hang is a failure: the whole run ends with every thread's stack. `@pytest.mark.slow` tests get longer."""
    seconds = WATCHDOG_SECONDS * (4 if request.node.get_closest_marker("slow") else 1)
    faulthandler.dump_traceback_later(seconds, exit=True, file=_terminal)
    yield
    faulthandler.cancel_dump_traceback_later()
