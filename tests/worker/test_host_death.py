"""When the host is killed, nothing of it lives two seconds later, whatever its workers do at that moment."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import os, sys, threading, time
import venvoy as vv

pool = vv.Pool({python!r}, workers={workers}, worker=vv.WorkerOptions(paths=[WORKLOAD], grace_period=30))
pool.warm()
{before}
print(*[worker.pid for worker in pool.workers()], *others, flush=True)
{then}
time.sleep(60)
"""
GRANDCHILDREN = "others = [pool.call('deeds:start_child') for _ in range(2)]"
BUSY = "pool.submit('deeds:{deed}', {args}{began!r})"


def killed_host(
    start_host: Callable[..., Any], python: str, before: str, then: str = "", workers: int = 1
) -> list[int]:
    """Start a host, kill it with SIGKILL once it has said which processes are its own, and return these."""
    host = start_host(SCRIPT.format(python=python, workers=workers, before=before, then=then))
    pids = host.pids()
    host.process.send_signal(signal.SIGKILL)
    host.process.wait()
    return [int(pid) for pid in pids]


def test_idle_workers_end_with_their_host(
    interpreter: str, start_host: Callable[..., Any], gone: Callable[..., None]
) -> None:
    """Idle workers and the processes they started are gone."""
    pids = killed_host(start_host, interpreter, GRANDCHILDREN, workers=2)
    assert len(pids) == 4
    gone(*pids)


@pytest.mark.parametrize(("deed", "args"), [("sleep", "60, "), ("spin", ""), ("hold_the_lock", ""), ("swallow", "")])
def test_busy_workers_end_with_their_host(
    extreme: str,
    deed: str,
    args: str,
    start_host: Callable[..., Any],
    gone: Callable[..., None],
    tmp_path: Path,
) -> None:
    """So are workers that sleep, are busy, hold the interpreter lock in C code, or swallow every exception."""
    began = tmp_path / "began"
    call = BUSY.format(deed=deed, args=args, began=str(began))
    if deed == "swallow":
        call = f"pool.submit('deeds:touch', {str(began)!r}).result(); pool.submit('deeds:swallow', 60)"
    wait = f"while not os.path.exists({str(began)!r}): time.sleep(0.01)"
    pids = killed_host(start_host, extreme, f"{GRANDCHILDREN}\n{call}\n{wait}")
    assert len(pids) == 3
    gone(*pids)


@pytest.mark.parametrize(
    "text", ["import time; time.sleep(60)", "while True: pass", "sum(range(10**12))"], ids=["sleep", "spin", "lock"]
)
def test_workers_that_are_starting_end_with_their_host(
    extreme: str,
    text: str,
    start_host: Callable[..., Any],
    gone: Callable[..., None],
    until: Callable[..., None],
    tmp_path: Path,
) -> None:
    """A worker in the middle of its first import is gone too, with what the import started."""
    (tmp_path / "slow.py").write_text(
        "import os, subprocess\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "with open(os.environ['PIDS'] + '.part', 'w') as file: file.write('%d %d' % (os.getpid(), child.pid))\n"
        f"os.rename(os.environ['PIDS'] + '.part', os.environ['PIDS'])\n{text}\n"
    )
    pids = tmp_path / "pids"
    host = start_host(
        f"""
        import venvoy as vv
        options = vv.WorkerOptions(paths=[{str(tmp_path)!r}], env_vars={{"PIDS": {str(pids)!r}}})
        vv.Pool({extreme!r}, "slow", workers=1, worker=options).warm()
        """
    )
    until(pids.exists, seconds=10)
    host.process.send_signal(signal.SIGKILL)
    host.process.wait()
    gone(*map(int, pids.read_text().split()))


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.02, 0.03, 0.05])
def test_no_moment_of_a_start_is_too_early(
    extreme: str, delay: float, start_host: Callable[..., Any], gone: Callable[..., None]
) -> None:
    """A host that is killed right after it spawned its workers leaves none, however far they had come."""
    host = start_host(
        f"""
        import os, signal, subprocess, threading, time
        import venvoy as vv

        spawned = subprocess.Popen.__init__

        def spawn(self, argv, *args, **kwargs):
            spawned(self, argv, *args, **kwargs)
            if "__main__.py" in " ".join(map(str, argv)):
                print(self.pid, flush=True)
                time.sleep({delay})
                os.kill(os.getpid(), signal.SIGKILL)

        subprocess.Popen.__init__ = spawn
        vv.Pool({extreme!r}, workers=1).warm()
        """
    )
    [pid] = host.pids()
    host.process.wait()
    gone(pid)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP", "SIGSEGV"])
def test_other_fatal_signals_of_the_host_do_the_same(
    number: str, start_host: Callable[..., Any], gone: Callable[..., None]
) -> None:
    """A host that ends without a chance to clean up leaves nothing."""
    host = start_host(SCRIPT.format(python=None, workers=2, before=GRANDCHILDREN, then=""))
    pids = host.pids()
    host.process.send_signal(getattr(signal, number))
    assert host.process.wait(10) == -getattr(signal, number)
    gone(*pids)


def test_os_exit_of_the_host_leaves_nothing(start_host: Callable[..., Any], gone: Callable[..., None]) -> None:
    """`os._exit` runs no exit handler, and none is needed."""
    host = start_host(SCRIPT.format(python=None, workers=2, before=GRANDCHILDREN, then="os._exit(5)"))
    pids = host.pids()
    assert host.rest()[0] == 5
    gone(*pids)


def test_a_worker_outlives_the_thread_that_made_it(start_host: Callable[..., Any]) -> None:
    """Workers hang on the host's process, not on the thread in which the pool was opened."""
    host = start_host(
        """
        import threading, time
        import venvoy as vv

        pool = vv.Pool(workers=1, worker=vv.WorkerOptions(paths=[WORKLOAD]))
        thread = threading.Thread(target=pool.warm)
        thread.start()
        thread.join()
        pid = pool.workers()[0].pid
        time.sleep(0.5)
        print(pool.call("os:getpid") == pid, flush=True)
        pool.shutdown()
        """
    )
    assert host.line() == "True"
    assert host.rest() == (0, "", "")
