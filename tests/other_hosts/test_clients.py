"""The clients in `examples/` for hosts in other languages, each run by its own language."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import venvoy_worker

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMAND = [sys.executable, "-I", str(Path(venvoy_worker.__file__).with_name("__main__.py")), "--stdio-json"]


def program(name: str) -> str:
    """Return the path of a program, or skip the test."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def test_the_node_example_runs(tmp_path: Path) -> None:
    """It defines, calls, and catches what Python raises."""
    command = [program("node"), str(EXAMPLES / "node" / "main.mjs"), *COMMAND]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["{ mean: 3, count: 4 }", "[ 2, 3, 4 ]", "true StatisticsError true"]


def test_the_node_program_of_the_guide_runs(tmp_path: Path, home: Path) -> None:
    """As it stands, beside a copy of the client."""
    node = program("node")
    guide = (EXAMPLES.parent / "docs" / "how-to" / "other-languages.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```js\n(.*?)^```", guide, re.M | re.S)
    assert len(blocks) == 1
    shutil.copy(EXAMPLES / "node" / "venvoy.mjs", tmp_path)
    (tmp_path / "program.mjs").write_text(blocks[0], encoding="utf-8")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environ = {**os.environ, "PATH": path, "VENVOY_HOME": str(home)}
    done = subprocess.run([node, "program.mjs"], env=environ, capture_output=True, text=True, timeout=80, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["1 of 1", "{ mean: 3, numpy: '1' }", "1 of 1", "true KeyError"]


def test_the_node_client(tmp_path: Path) -> None:
    """Its own tests, with node's test runner."""
    environ = {**os.environ, "VENVOY_WORKER": "\n".join(COMMAND)}
    command = [program("node"), "--test", str(EXAMPLES / "node" / "venvoy.test.mjs")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=80, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fail 0" in done.stdout


def test_the_go_client(tmp_path: Path) -> None:
    """Formatted, vetted, and its own tests, from a copy: Go writes beside what it compiles."""
    go = program("go")
    folder = tmp_path / "go"
    shutil.copytree(EXAMPLES / "go", folder)
    places = {"GOCACHE": str(tmp_path / "cache"), "GOPATH": str(tmp_path / "path"), "GOFLAGS": "-modcacherw"}
    environ = {**os.environ, **places, "GOTOOLCHAIN": "local", "GOPROXY": "off", "VENVOY_WORKER": "\n".join(COMMAND)}
    for command in ([go, "vet", "./..."], [go, "test", "./..."]):
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=85, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
