"""What the tests of the worker share: pools on every interpreter, hosts in a process of their own, patience."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import venvoy as vv
from venvoy.options import OutputChunk

WORKLOAD = Path(__file__).parent / "workload"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give tests that ask for `extreme` the oldest and the newest of the parameters of `interpreter`."""
    if "extreme" in metafunc.fixturenames:
        found = metafunc._arg2fixturedefs.get("interpreter") or metafunc.definition.session._fixturemanager.getfixturedefs(
            "interpreter", metafunc.definition
        )
        assert found
        every = list(found[-1].params or ())
        ends = sorted({every[0], every[-1]}, key=every.index)
        metafunc.parametrize("extreme", ends, ids=lambda path: Path(path).name.removeprefix("python"))
