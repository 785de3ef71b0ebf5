"""Large values on their way while either side is killed: what arrives is right, and nothing is left over."""

from __future__ import annotations

import gc
import os
import random
import runpy
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import venvoy as vv

if not hasattr(os, "memfd_create"):
    pytest.skip("this system has no anonymous files", allow_module_level=True)

TRANSFERS, HOSTS = (10_000, 60) if os.environ.get("CI") else (300, 4)  # longer where nobody waits for it
large = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "workload" / "large.py")))


def names_in_shared_memory() -> set[str]:
    """Return the files that have a name in the system's shared memory."""
    return set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()


class Killer(threading.Thread):
    """Kills a worker again and again, after a random time.

    Args:
        pool: whose workers.
        rest: seconds between two kills, on average.
    """

    def __init__(self, pool: vv.Pool, rest: float) -> None:
        super().__init__()
        self._pool, self._rest = pool, rest
        self._is_over = threading.Event()
        self.kills = 0

    def run(self) -> None:
        while not self._is_over.wait(random.expovariate(1 / self._rest)):
            for worker in self._pool.workers()[:1]:
                if worker.pid is not None:
                    try:
                        os.kill(worker.pid, signal.SIGKILL)
                        self.kills += 1
                    except ProcessLookupError:
                        pass

    def stop(self) -> None:
        self._is_over.set()
        self.join()


def transfer(pool: vv.Pool, number: int, held: list[Any]) -> bool:
    """Send and receive something large; return whether it survived."""
    fill, size = number % 251, random.choice([262_144, 300_000, 700_000, 5_000_000])
    try:
        kind = number % 3
        if kind == 0:
            back = pool.call("large:echo", large.make(size, fill))
        elif kind == 1:
            back = pool.call("large:echo", bytes([fill]) * size)
        else:
            back = pool.call("large:make", size, fill)
    except (vv.WorkerCrashed, vv.WorkerStartError):
        return False
    assert (len(back), back[0], back[size // 2], back[-1]) == (size, fill, fill, fill)
    held.append((back, fill))
    del held[: -random.randrange(1, 5)]
    assert all(value[0] == value[-1] == first for value, first in held)
    return True


@pytest.mark.slow
def test_workers_killed_at_random_leave_nothing_behind(home: Path) -> None:
    """No mapping, descriptor or file; each value that arrives is whole, and those held stay so."""
    before, names = large.segments(), names_in_shared_memory()
    options = vv.WorkerOptions(paths=[Path(__file__).parent / "workload"], output="discard")
    patient = vv.RestartPolicy(backoff=0.0, max_failures=1_000_000)
    held: list[Any] = []
    survived = 0
    with vv.Pool(workers=2, worker=options, restart=patient, home=home) as pool:
        killer = Killer(pool, rest=0.1)
        killer.start()
        try:
            for number in range(TRANSFERS):
                survived += transfer(pool, number, held)
            while killer.kills <= 3:  # a quick machine has had no time to die yet
                survived += transfer(pool, number, held)
        finally:
            killer.stop()
        assert killer.kills > 3
        assert survived > TRANSFERS // 3
    del pool, killer
    held.clear()
    gc.collect()
    assert large.segments() == before
    assert names_in_shared_memory() == names


HOST = """
import os, random
import venvoy as vv
import runpy, types

large = types.SimpleNamespace(**runpy.run_path(os.path.join(WORKLOAD, "large.py")))
with vv.Pool(workers=2, worker=vv.WorkerOptions(paths=[WORKLOAD], output="discard")) as pool:
    pool.warm()
    print(*[worker.pid for worker in pool.workers()], flush=True)
    held = []
    for number in range(10**9):
        held.append(pool.call("large:echo", large.make(random.choice([300_000, 3_000_000]), number % 251)))
        del held[:-3]
"""


@pytest.mark.slow
def test_hosts_killed_at_random_leave_nothing_behind(start_host: Callable[..., Any], gone: Callable[..., None]) -> None:
    """The workers are gone, and with them the last descriptors of the memory, which has no name."""
    names = names_in_shared_memory()
    for _ in range(HOSTS):
        host = start_host(HOST)
        pids = host.pids()
        threading.Event().wait(random.uniform(0.0, 0.4))
        host.process.send_signal(signal.SIGKILL)
        host.process.wait()
        gone(*pids)
    assert names_in_shared_memory() == names
