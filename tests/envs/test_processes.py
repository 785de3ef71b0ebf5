"""Many builders at once, builders that are killed, and installers that outlive them."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from venvoy.envs import EnvSpec, Progress, build

SRC = Path(__file__).parents[2] / "src"
BUILDER = """
import sys, uv
uv.find_uv_bin = lambda: sys.argv[3]
from venvoy.envs import EnvSpec, build, command
if "no-lifeline" in sys.argv:
    command._kill_on_hangup = lambda end, group: None
env = build(EnvSpec(["tiny==1.0"], find_links=[sys.argv[2]], offline=True), home=sys.argv[1])
print(env.key, env.python)
"""


class Builders:
    """Starts processes that build the small environment, and ends those a test leaves behind."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        self.home = folder / "home"
        self._folder = folder
        self._wheels = wheels
        self._started: list[subprocess.Popen[str]] = []

    def start(self, uv: Path, *options: str) -> subprocess.Popen[str]:
        """Start one builder that uses this uv."""
        argv = [sys.executable, "-c", BUILDER, str(self.home), str(self._wheels), str(uv), *options]
        environment = {**os.environ, "PYTHONPATH": str(SRC)}
        pipe = subprocess.PIPE
        self._started.append(subprocess.Popen(argv, env=environment, stdout=pipe, stderr=pipe, text=True))
        return self._started[-1]

    def wait_for(self, name: str) -> list[int]:
        """Wait until the installer has written a file, and return the process numbers in it."""
        deadline = time.monotonic() + 20
        while not (self._folder / name).exists() or not (self._folder / name).read_text().strip():
            assert time.monotonic() < deadline, f"{name} never came"
            time.sleep(0.01)
        return [int(pid) for pid in (self._folder / name).read_text().split()]

    def end(self) -> None:
        """Kill and reap them all."""
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def builders(tmp_path: Path, wheels: Path) -> object:
    """Builders with a home of their own."""
    made = Builders(tmp_path, wheels)
    yield made
    made.end()


def gone(pids: list[int], within: float) -> bool:
    """Whether all these processes are gone, or zombies, within some seconds."""
    deadline = time.monotonic() + within
    while any(_is_running(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes_in(home: Path) -> list[int]:
    """Return the processes whose arguments name the home folder, builders aside."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(home) in words and b"find_uv_bin" not in words and _is_running(int(entry.name)):
            found.append(int(entry.name))
    return found


def test_twenty_processes_that_ask_at_once_make_one_installer_run(
    builders: Builders, installer: Callable[[str], Path], tmp_path: Path
) -> None:
    """All get the same environment; uv has run once to create and once to install."""
    uv = installer("")
    started = [builders.start(uv) for _ in range(20)]
    answers = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0] * 20, answers
    assert len({out for out, _ in answers}) == 1
    assert [line.split()[0] for line in (tmp_path / "runs").read_text().splitlines()] == ["venv", "pip"]


def test_twenty_threads_that_ask_at_once_make_one_installer_run(
    tiny: EnvSpec, installer: Callable[[str], Path], use: Callable[[Path], None], tmp_path: Path
) -> None:
    """The lock holds between the threads of one process as well."""
    use(installer(""))
    seen: list[Progress] = []
    with ThreadPoolExecutor(20) as pool:
        envs = list(pool.map(lambda _: build(tiny, home=tmp_path / "home", progress=seen.append), range(20)))
    assert len(set(envs)) == 1
    assert len((tmp_path / "runs").read_text().splitlines()) == 2
    assert sum(step.phase == "ready" for step in seen) == 20
    assert any(step.phase == "waiting" for step in seen)


def test_a_killed_builder_takes_its_installer_with_it(builders: Builders, slow_installer: Path, tiny: EnvSpec) -> None:
    """Within two seconds nothing of it runs; the next build removes what it left, and works."""
    builder = builders.start(slow_installer)
    pids = builders.wait_for("hangs")
    builder.kill()
    assert gone(pids, within=2)
    env = build(tiny, home=builders.home, timeout=20)
    assert subprocess.run([env.python, "-I", "-c", "import tiny"]).returncode == 0


@pytest.mark.parametrize("moment", [0.12, 0.17, 0.22, 0.27, 0.32, 0.37, 0.42, 0.47, 0.52, 0.57])
def test_a_builder_killed_at_any_moment_harms_nothing(
    moment: float, builders: Builders, installer: Callable[[str], Path], tiny: EnvSpec
) -> None:
    """With the real installer: no process is left, and the next build works."""
    builder = builders.start(installer(""))
    time.sleep(moment)
    builder.kill()
    builder.wait()
    assert gone(processes_in(builders.home), within=2)
    env = build(tiny, home=builders.home, timeout=20)
    assert subprocess.run([env.python, "-I", "-c", "import tiny"]).returncode == 0


def test_an_installer_that_outlives_its_builder_keeps_the_lock(
    builders: Builders, installer: Callable[[str], Path], tiny: EnvSpec, tmp_path: Path
) -> None:
    """Where the kernel cannot end it, nobody else touches the folder before it is done."""
    uv = installer(f'if [ "$1" = pip ]; then echo $$ > {tmp_path}/hangs; sleep 1; date +%s.%N > {tmp_path}/done; fi')
    builder = builders.start(uv, "no-lifeline")
    (orphan,) = builders.wait_for("hangs")
    builder.kill()
    builder.wait()
    assert _is_running(orphan)
    seen: list[tuple[float, str]] = []
    build(tiny, home=builders.home, timeout=20, progress=lambda step: seen.append((time.time(), step.phase)))
    assert "waiting" in [phase for _, phase in seen]
    created = next(when for when, phase in seen if phase == "create")
    assert created > float((tmp_path / "done").read_text())


def test_the_deadline_holds_while_somebody_else_builds(builders: Builders, slow_installer: Path, tiny: EnvSpec) -> None:
    """A waiter gives up in time and leaves the builder alone."""
    builder = builders.start(slow_installer)
    builders.wait_for("hangs")
    with pytest.raises(Exception, match=r"not finished within 0\.3 s, while waiting for somebody else"):
        build(tiny, home=builders.home, timeout=0.3)
    assert builder.poll() is None


def test_control_c_ends_the_installer(builders: Builders, slow_installer: Path) -> None:
    """KeyboardInterrupt comes out of the build, uv is gone, and nothing half-built is left."""
    builder = builders.start(slow_installer)
    pids = builders.wait_for("hangs")
    builder.send_signal(signal.SIGINT)
    _, words = builder.communicate(timeout=5)
    assert "KeyboardInterrupt" in words
    assert gone(pids, within=1)
    assert os.listdir(builders.home / "envs") == []


def test_a_forked_process_does_not_keep_the_lock(
    tiny: EnvSpec, slow_installer: Path, use: Callable[[Path], None], builders: Builders, wheels: Path
) -> None:
    """A child that was forked while a build went on holds its descriptors, but not the key."""
    use(slow_installer)
    children: list[int] = []

    def fork(step: Progress) -> None:
        if step.message == "stuck":
            pid = os.fork()
            if pid == 0:
                time.sleep(20)
                os._exit(0)
            children.append(pid)
            raise KeyError("enough")

    with pytest.raises(KeyError):
        build(tiny, home=builders.home, progress=fork)
    try:
        (lock,) = (builders.home / "locks").iterdir()
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.kill(children[0], signal.SIGKILL)
        os.waitpid(children[0], 0)
