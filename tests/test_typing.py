"""The public names as type checkers see them: `tests/typing/api.py` is right, and its wrong lines are found wrong."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
API = ROOT / "tests" / "typing" / "api.py"


def test_mypy_agrees_with_every_line(tmp_path: Path) -> None:
    """In strict mode; a comment that ignores nothing is an error, so that what should be refused is."""
    pytest.importorskip("mypy", reason="mypy is not installed: extra `dev`")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", f"--cache-dir={tmp_path}", str(API)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=85)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_pyright_agrees_with_every_line(tmp_path: Path) -> None:
    """As editors do; it needs Node.js."""
    if importlib.util.find_spec("pyright") is None or shutil.which("node") is None:
        pytest.skip("pyright (extra `dev`) or Node.js is not installed")
    shutil.copy(API, tmp_path)
    (tmp_path / "pyrightconfig.json").write_text(
        f'{{"extraPaths": ["{ROOT / "src"}"], "typeCheckingMode": "strict", '
        '"reportUnnecessaryTypeIgnoreComment": true, "enableTypeIgnoreComments": false}'
    )
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
