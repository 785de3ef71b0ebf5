"""The programs under `examples` do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str, cwd: Path) -> list[str]:
    """Return the lines that an example prints; it has to end well and to say nothing on stderr."""
    command = [sys.executable, str(EXAMPLES / name / "main.py"), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_plugins_with_clashing_packages_live_beside_one_that_crashes(tmp_path: Path) -> None:
    once = [
        "broken: crashed with SIGSEGV, having said 'about to read from address 0'",
        "new_attrs: attrs 23.2.0, ONE",
        "old_attrs: attrs 21.4.0, one",
        "plain: attrs None, eno",
    ]
    lines = run("plugin_host", cwd=tmp_path)
    assert lines[:4] == once
    assert [line.split(":")[0] for line in lines[4:]] == ["broken", "new_attrs", "old_attrs", "plain"]


def test_two_versions_of_a_model_agree(tmp_path: Path) -> None:
    assert run("model_versions", cwd=tmp_path) == [f"batch {n}: numpy 1 and numpy 2 agree" for n in range(3)]


def test_a_picture_is_drawn_by_a_library_that_the_host_does_not_have(tmp_path: Path) -> None:
    assert run("timings", "sheet.png", cwd=tmp_path) == ["sheet.png: drawn, and matplotlib is only in the worker"]
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_a_web_application_answers_while_a_worker_crashes(tmp_path: Path) -> None:
    pytest.importorskip("starlette")
    pytest.importorskip("httpx")
    assert run("web", cwd=tmp_path) == [
        "200 {'sqrt': 4.0}",
        "400 {'error': 'math domain error'}",
        "500 {'error': 'worker_crashed', 'signal': 'SIGABRT'}",
        "200 {'sqrt': 1.4142135623730951}",
    ]
