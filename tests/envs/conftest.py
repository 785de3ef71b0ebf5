"""What the tests of environments share: one home folder, a small local wheel, an installer to slow down."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uv

from venvoy.envs import EnvSpec


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder whose environments the whole session shares."""
    return tmp_path_factory.mktemp("home")


def make_wheel(folder: Path, name: str, version: str = "1.0", code: str = "WORD = 'here'\n") -> None:
    """Write a pure wheel of one module, as PEP 427 has it."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(path, text)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two small wheels, so that most tests need no network."""
    folder = tmp_path_factory.mktemp("wheel house, with a comma")
    make_wheel(folder, "tiny")
    make_wheel(folder, "tiny", "2.0")
    make_wheel(folder, "other")
    return folder


@pytest.fixture
def tiny(wheels: Path) -> EnvSpec:
    """The spec of an environment with the small wheel."""
    return EnvSpec(["tiny==1.0"], find_links=[wheels], offline=True)


Installer = Callable[[str], Path]


@pytest.fixture
def installer(tmp_path: Path) -> Installer:
    """Make a uv that does something of the test's first; every run of it leaves a line in `runs`."""

    def make(before: str = "") -> Path:
        wrapper = tmp_path / "uv-of-the-test"
        wrapper.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/runs\n{before}\nexec {uv.find_uv_bin()} "$@"\n')
        wrapper.chmod(0o755)
        return wrapper

    return make


@pytest.fixture
def slow_installer(installer: Installer, tmp_path: Path) -> Path:
    """A uv that hangs in `pip install`, with a child of its own, and says so in the file `hangs`."""
    return installer(f'if [ "$1" = pip ]; then sleep 987 & echo $$ $! > {tmp_path}/hangs; echo stuck; wait; fi')


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Have this process use another uv."""
    return lambda path: monkeypatch.setattr(uv, "find_uv_bin", lambda: str(path))


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the variables that name the developer's own index or home away from the tests."""
    for name in list(os.environ):
        if name == "VENVOY_HOME" or (name.startswith("UV_") and name not in ("UV_CACHE_DIR", "UV_SYSTEM_CERTS")):
            monkeypatch.delenv(name)


@pytest.fixture
def oldest_and_newest(pytestconfig: pytest.Config) -> list[str]:
    """The versions of the oldest and the newest CPython of this machine, as "3.8"."""
    plugins = pytestconfig.pluginmanager.get_plugins()
    found = next(list(plugin.INTERPRETERS) for plugin in plugins if hasattr(plugin, "INTERPRETERS"))
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    say = [subprocess.run([path, "-I", "-c", code], capture_output=True, text=True).stdout.strip() for path in found]
    return list(dict.fromkeys((say[0], say[-1])))


_STARTS = frozenset({"subprocess.Popen", "os.fork", "os.posix_spawn", "os.exec", "os.system"})
_listeners: list[list[str]] = []
_hooked: list[bool] = []


def _hear(event: str, _: object) -> None:
    if event in _STARTS:
        for events in _listeners:
            events.append(event)


@pytest.fixture
def count_starts() -> Iterator[Callable[[], list[str]]]:
    """Begin to note every start of a process; the list that is returned grows. (An audit hook can never be removed.)"""
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_hear)

    def begin() -> list[str]:
        events: list[str] = []
        _listeners.append(events)
        return events

    yield begin
    _listeners.clear()
