"""What the integration tests share: scripts run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_script(tmp_path: Path, home: Path) -> RunScript:
    """Run a script in a process of its own, without any VENVOY variable but the home, and return what it printed."""

    def run(text: str, *flags: str, timeout: float = 40, **env: str) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "script.py"
        script.write_text(textwrap.dedent(text))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("VENVOY", "PYTHON"))}
        environ = {**inherited, "VENVOY_HOME": str(home), **env}
        command = [sys.executable, *flags, str(script)]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=timeout, cwd=tmp_path)

    return run
