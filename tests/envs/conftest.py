"""What the tests of environments share: one home folder, a small local wheel, an installer to slow down."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
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
