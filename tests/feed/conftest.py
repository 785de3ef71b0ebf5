"""What tests of feeding share: programs to be fed, and what they can be asked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from venvoy.feed import Swarm

PYTHON = [sys.executable, "-S", "-c"]


def number(item: int) -> bytes:
    """Encode a number as a line."""
    return b"%d\n" % item


def numbers_of(*paths: Path) -> list[int]:
    """Return the numbers in the lines of files, in order."""
    return [int(line) for path in paths for line in path.read_text().split()]


def feed_without_end(swarm: Swarm, items: Sequence[Any]) -> None:
    """Feed the items again and again, until the swarm fails."""
    with swarm:
        while True:
            swarm.feed_many(items)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait for a condition."""

    def wait(condition: Callable[[], object], seconds: float = 10.0) -> None:
        deadline = monotonic() + seconds
        while not condition():
            assert monotonic() < deadline, "it did not come"
            sleep(0.01)

    return wait
