"""What the tests of objects share: things in a worker of every interpreter, and what goes over its channels."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import INTERPRETERS, version_of

import venvoy as vv
from venvoy.objects.proxies import reference_of

WORK = Path(__file__).with_name("workload")
THINGS = (WORK / "things.py").read_text(encoding="utf-8")
OLDEST = INTERPRETERS[0]
ENDS = sorted({OLDEST, INTERPRETERS[-1]}, key=INTERPRETERS.index)

QUIET = vv.WorkerOptions(paths=[WORK], output="discard", grace_period=0.6)


@pytest.fixture(params=ENDS, ids=version_of)
def things(home: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The module `things`, run as a script in a worker of its own, of the oldest and of the newest Python."""
    proxy = vv.run_script(THINGS, python=request.param, worker=QUIET)
    yield proxy
    vv.close(proxy)


@pytest.fixture
def pool(home: Path, patience: float) -> Iterator[vv.Pool]:
    """A pool of one worker that finds the module `things`."""
    pool = vv.Pool(workers=1, worker=QUIET, home=home)
    yield pool
    pool.close(patience)


@pytest.fixture
def round_trips() -> Callable[..., int]:
    """Return how many frames have been sent to the worker of a proxy while something was done."""

    def count(proxy: Any, action: Callable[[], object]) -> int:
        channel = reference_of(proxy).residence.worker.lanes[0].channel
        before = channel.sends
        action()
        return int(channel.sends - before)

    return count


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait until a condition holds, for a bounded time."""

    def wait(condition: Callable[[], object], seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"did not hold within {seconds} s"
            gc.collect()
            time.sleep(0.01)

    return wait
