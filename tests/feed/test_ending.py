"""However a swarm ends, its processes end with it, and so do its threads and descriptors."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable

import psutil
import pytest

from venvoy.feed import FeedStalled, Swarm, SwarmClosed, SwarmError, blocks

STUBBORN = "trap '' TERM; sleep 100 & sleep 100"


def gone(pids: list[int], seconds: float = 2.0) -> None:
    """Assert that processes end in time."""
    processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    deadline = time.monotonic() + seconds
    while alive := [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, f"alive: {alive}"
        time.sleep(0.01)


def test_closing_has_a_deadline_after_which_processes_are_killed() -> None:
    """SIGTERM, the grace period, SIGKILL; the whole group."""
    swarm = Swarm(STUBBORN, 2, shell=True, grace_period=0.2).start()
    tree = psutil.Process().children(recursive=True)
    began = time.monotonic()
    with pytest.raises(FeedStalled, match="had not ended when the time for closing was over") as caught:
        swarm.close(timeout=0.2)
    assert 0.2 < time.monotonic() - began < 2
    assert len(caught.value.processes) == 2
    gone([process.pid for process in tree], 0.5)
    assert [process.signal for process in swarm.report.processes] == [signal.SIGKILL] * 2
    with pytest.raises(FeedStalled):
        swarm.close()


@pytest.mark.parametrize("moment", ["running", "feeding"])
def test_nothing_lives_after_the_host_was_killed(moment: str, until: Callable[..., None]) -> None:
    """SIGKILL to the host: its processes and their children are gone, those too that read nothing."""
    script = f"""
        import sys
        from venvoy.feed import Swarm
        swarm = Swarm({STUBBORN!r}, 3, shell=True, stall_timeout=None).start()
        while not all(process.pid for process in swarm.report.processes): pass
        print("go", flush=True)
        if {moment!r} == "feeding":
            while True: swarm.feed("x" * 1000)
        sys.stdin.read()
        """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as host:
        assert host.stdout
        assert host.stdout.readline() == b"go\n"
        until(lambda: len(psutil.Process(host.pid).children(recursive=True)) == 9)
        children = [process.pid for process in psutil.Process(host.pid).children(recursive=True)]
        host.kill()
    assert children
    gone(children)


def test_an_interpreter_that_ends_takes_its_swarm_along() -> None:
    """Without a close, promptly, quietly."""
    script = """
        from venvoy.feed import Swarm
        import os
        os.environ["MARK_OF_A_SWARM"] = str(os.getpid())
        swarm = Swarm(["sleep", "100"], 3).start()
        swarm.feed("x")
        print(os.getpid())
        """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    mark = done.stdout.strip()
    sleeping = psutil.process_iter(["name", "environ"])
    assert not [one for one in sleeping if (one.info["environ"] or {}).get("MARK_OF_A_SWARM") == mark]


def test_a_swarm_that_nobody_holds_ends() -> None:
    """Dropping the last reference ends its processes and threads."""
    swarm = Swarm(["sleep", "100"], 2).start()
    swarm.feed("x")
    pid = swarm.report.processes[0].pid
    del swarm
    gc.collect()
    assert pid
    gone([pid])


def test_a_forked_process_has_nothing_of_the_swarm() -> None:
    """Its copies are closed, so that ends of files arrive; the swarm there is closed."""
    with Swarm(["cat"], 2, stdout="discard") as swarm:
        swarm.feed("x\n")
        pid = os.fork()
        if pid == 0:
            try:
                swarm.feed("y\n")
            except SwarmClosed:
                os._exit(swarm.close() is None)
            os._exit(2)
        swarm.feed("z\n")
        started = time.monotonic()
        swarm.close()
        assert time.monotonic() - started < 5
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert swarm.report.items == 2


def test_closing_twice_from_several_threads_and_aborting() -> None:
    """All get the same report; an abort needs no start, and may come at any time."""
    swarm = Swarm(["cat"], 2, stdout="discard").start()
    reports = []
    threads = [threading.Thread(target=lambda: reports.append(swarm.close())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 4
    assert all(report is reports[0] for report in reports)
    swarm.abort()
    unused = Swarm(["cat"], 1)
    unused.abort()
    unused.close()
    with pytest.raises(SwarmClosed):
        unused.start()


def test_an_abort_frees_whoever_waits() -> None:
    """A thread that feeds gets an error, and what was not received is known."""
    swarm = Swarm(["sleep", "100"], 1, max_bytes=10_000).start()
    failures: list[BaseException] = []

    def feed() -> None:
        try:
            while True:
                swarm.feed("x" * 1000)
        except SwarmError as error:
            failures.append(error)

    thread = threading.Thread(target=feed)
    thread.start()
    time.sleep(0.2)
    swarm.abort()
    thread.join(5)
    assert not thread.is_alive()
    assert isinstance(failures[0], SwarmClosed)
    assert len(swarm.undelivered) > 0


def test_ctrl_c_while_closing_ends_the_processes() -> None:
    """KeyboardInterrupt comes out, and nothing waits any longer."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever runs the tests may have its own
    try:
        interrupt_closing()
    finally:
        signal.signal(signal.SIGINT, previous)


def interrupt_closing() -> None:
    """Close a swarm of a process that does not end, and be interrupted meanwhile."""
    with pytest.raises(KeyboardInterrupt), Swarm(["sleep", "100"], 1) as swarm:
        threading.Timer(0.2, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT]).start()
    assert swarm.report.processes[0].signal == signal.SIGTERM


def test_processes_may_ignore_what_a_session_leader_leaves() -> None:
    """Children that the command left running are ended with it."""
    with Swarm("sleep 100 & cat; echo $!", 1, shell=True, stdout="collect") as swarm:
        swarm.feed("x\n")
    gone([int(swarm.report.processes[0].stdout.split()[-1])])


@pytest.mark.slow
def test_ten_gigabytes_go_through_in_flat_memory() -> None:
    """Through `cat` twice, back to us, with no more memory at the end than a bounded amount."""
    block = b"x" * (1 << 20)
    total = 10 << 10
    seen = [0]

    def count(process: int, data: bytes) -> None:
        seen[0] += len(data)

    before = psutil.Process().memory_info().rss
    most = 0
    with Swarm(["cat"], 2, stdout=blocks(count), max_bytes=64 << 20) as swarm:
        for number in range(total):
            swarm.feed(block)
            if number % 256 == 0:
                most = max(most, psutil.Process().memory_info().rss)
    assert seen[0] == total << 20
    assert most - before < 200 << 20
