"""A host that ends without closing its pools ends at once, with the status it would have had; so does Ctrl-C."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HEAD = """
import os, sys, threading, time
import venvoy as vv

pool = vv.Pool({python!r}, workers=1, worker=vv.WorkerOptions(paths=[WORKLOAD], grace_period=30))
pool.warm()
began = {began!r}

def wait():
    while not os.path.exists(began):
        time.sleep(0.01)

"""
BUSY = {
    "idle": "",
    "submitted call": "future = pool.submit('deeds:sleep', 60, began); wait()",
    "call of a daemon thread": "start_thread(daemon=True); wait()",
    "call of a thread": "start_thread(daemon=False); wait()",
    "pending calls": "futures = [pool.submit('deeds:sleep', 60, began) for _ in range(20)]; wait()",
    "lock held in C": "future = pool.submit('deeds:hold_the_lock', began); wait()",
    "map": "results = pool.map('deeds:sleep', [60] * 100); pool",
    "stopped call": "future = pool.options(timeout=0.05).submit('deeds:swallow', 60); future.exception()",
    "dropped pool": "",
}
THREAD = """
def call():
    try:
        pool.call('deeds:sleep', 60, began)
    except vv.VenvoyError:
        pass

def start_thread(daemon):
    threading.Thread(target=call, daemon=daemon).start()

"""
ENDINGS = {"end of script": ("", 0), "sys.exit": ("sys.exit(7)", 7), "uncaught": ("raise ValueError('of the host')", 1)}


def run(host: Any, seconds: float = 2.0) -> tuple[int, str]:
    """Wait for the host's end, which has to come within some seconds of its last line; return status and stderr."""
    pids = host.pids()
    begin = time.monotonic()
    status, _, err = host.rest()
    assert time.monotonic() - begin < seconds
    host.worker_pids = pids
    return status, err


@pytest.mark.parametrize(
    ("busy", "ending"),
    [(busy, "end of script") for busy in BUSY]  # every state with one ending, every ending with some states
    + [(busy, ending) for busy in ("idle", "submitted call", "pending calls") for ending in ("sys.exit", "uncaught")],
)
def test_a_host_that_does_not_close_ends_at_once(
    busy: str, ending: str, start_host: Callable[..., Any], gone: Callable[..., None], tmp_path: Path
) -> None:
    """Its status is what it would have been without venvoy, its stderr as well, and nothing is left."""
    text, expected = ENDINGS[ending]
    body = f"print(pool.workers()[0].pid, flush=True)\n{text}\n"
    if busy == "dropped pool":
        body = f"print(pool.workers()[0].pid, flush=True)\ndel pool\n{text}\n"
    else:
        body = f"{BUSY[busy]}\n{body}"
    host = start_host(HEAD.format(python=None, began=str(tmp_path / "began")) + THREAD + body)
    status, err = run(host)
    assert status == expected
    assert ("of the host" in err) == (ending == "uncaught")
    if busy not in ("pending calls", "map"):  # a warning counts what was dropped
        assert err.count("Traceback") == (ending == "uncaught")
        assert "venvoy" not in err
    gone(*host.worker_pids)


def test_pending_calls_that_are_dropped_at_exit_are_counted_in_one_warning(
    start_host: Callable[..., Any], tmp_path: Path
) -> None:
    """The warning names the number of calls that never ran."""
    began = str(tmp_path / "began")
    body = BUSY["pending calls"] + "\nprint(pool.workers()[0].pid, flush=True)\n"
    host = start_host(HEAD.format(python=None, began=began) + THREAD + body)
    status, err = run(host)
    assert status == 0
    assert err.count("RuntimeWarning:") == 1
    assert "19 waiting calls" in err


def test_a_thread_of_the_users_still_delays_the_exit(start_host: Callable[..., Any], tmp_path: Path) -> None:
    """Python waits for non-daemon threads as ever; a call that they make meanwhile is refused, not hung."""
    body = """
def late():
    time.sleep(0.7)
    try:
        pool.call("deeds:square", 2)
    except vv.PoolClosed as error:
        print("closed:", error.code, flush=True)

threading.Thread(target=late).start()
"""
    host = start_host(HEAD.format(python=None, began="") + body)
    status, out, err = host.rest(10)
    assert (status, out, err) == (0, "closed: pool_closed\n", "")


def test_a_pool_made_by_a_thread_ends_with_the_host(start_host: Callable[..., Any]) -> None:
    """A pool whose `with` was entered in a thread that ended without leaving it is no obstacle."""
    host = start_host(
        """
        import threading
        import venvoy as vv

        kept = []

        def open_one():
            pool = vv.Pool(workers=2).__enter__()
            kept.append(pool)
            print(pool.workers()[0].pid, flush=True)

        thread = threading.Thread(target=open_one)
        thread.start()
        thread.join()
        """
    )
    assert run(host) == (0, "")


CTRL_C = {
    "blocked call": "pool.call('deeds:sleep', 60, began)",
    "blocked call in C": "pool.call('deeds:hold_the_lock', began)",
    "future": "pool.submit('deeds:sleep', 60, began).result()",
    "map": "list(pool.map('deeds:sleep', [60, 60], [began, began]))",
}


@pytest.mark.parametrize("scope", ["with", "bare"])
@pytest.mark.parametrize("kind", CTRL_C)
def test_ctrl_c_ends_a_host_that_waits_for_a_call(
    kind: str,
    scope: str,
    start_host: Callable[..., Any],
    gone: Callable[..., None],
    until: Callable[..., None],
    tmp_path: Path,
) -> None:
    """KeyboardInterrupt is raised in the host alone: it ends within two seconds, no worker speaks, none is left."""
    began = tmp_path / "began"
    body = "print(pool.workers()[0].pid, flush=True)\n"
    body += f"with pool:\n    {CTRL_C[kind]}\n" if scope == "with" else CTRL_C[kind]
    host = start_host(HEAD.format(python=None, began=str(began)) + body)
    pids = host.pids()
    until(began.exists)
    begin = time.monotonic()
    host.interrupt()
    status, _, err = host.rest()
    assert time.monotonic() - begin < 2.0
    assert status == -signal.SIGINT
    assert err.count("Traceback (most recent call last)") == 1
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert "deeds.py" not in err
    gone(*pids)


def test_ctrl_c_ends_a_host_that_opens_a_pool(
    start_host: Callable[..., Any], gone: Callable[..., None], until: Callable[..., None], tmp_path: Path
) -> None:
    """Interrupted in `with Pool(...)`, the host raises KeyboardInterrupt and the starting worker is gone."""
    (tmp_path / "slow.py").write_text(
        "import os, time\nopen(os.environ['BEGAN'] + str(os.getpid()), 'w').close()\ntime.sleep(60)\n"
    )
    host = start_host(
        f"""
        import venvoy as vv
        options = vv.WorkerOptions(paths=[{str(tmp_path)!r}], env_vars={{"BEGAN": {str(tmp_path / "began-")!r}}})
        with vv.Pool(None, "slow", workers=2, worker=options):
            pass
        """
    )
    until(lambda: list(tmp_path.glob("began-*")), seconds=10)
    begin = time.monotonic()
    host.interrupt()
    status, _, err = host.rest()
    assert time.monotonic() - begin < 2.0
    assert status == -signal.SIGINT
    assert err.count("Traceback (most recent call last)") == 1
    gone(*[int(path.name.removeprefix("began-")) for path in tmp_path.glob("began-*")])


@pytest.mark.parametrize("kind", ["call", "map"])
def test_ctrl_c_that_is_handled_leaves_the_pool_usable(
    kind: str, start_host: Callable[..., Any], until: Callable[..., None], tmp_path: Path
) -> None:
    """After a KeyboardInterrupt out of a call was caught, the next call is served at once."""
    began = tmp_path / "began"
    text = CTRL_C["blocked call" if kind == "call" else "map"]
    body = f"""
try:
    {text}
except KeyboardInterrupt:
    print("interrupted", flush=True)
print(pool.call("deeds:square", 4), flush=True)
pool.close(0)
"""
    host = start_host(HEAD.format(python=None, began=str(began)) + body)
    until(began.exists, seconds=10)
    host.interrupt()
    assert host.rest(10) == (0, "interrupted\n16\n", "")


@pytest.mark.parametrize("kind", ["blocked call", "blocked call in C", "future"])
def test_sigterm_that_ends_the_program_ends_it_in_time(
    kind: str, start_host: Callable[..., Any], gone: Callable[..., None], until: Callable[..., None], tmp_path: Path
) -> None:
    """A host whose handler calls sys.exit leaves with that status within two seconds, silently; no worker is left."""
    began = tmp_path / "began"
    body = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
    body += f"print(pool.workers()[0].pid, flush=True)\nwith pool:\n    {CTRL_C[kind]}\n"
    host = start_host(HEAD.format(python=None, began=str(began)) + body)
    pids = host.pids()
    until(began.exists)
    begin = time.monotonic()
    host.process.terminate()
    status, _, err = host.rest()
    assert time.monotonic() - begin < 2.0
    assert (status, err) == (143, "")
    gone(*pids)
