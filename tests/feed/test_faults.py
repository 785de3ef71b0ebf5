"""Whatever goes wrong with commands, encoders and outputs: a clear error in time; nothing is lost silently, or left."""

from __future__ import annotations

import itertools
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.feed.conftest import PYTHON, feed_without_end, number, numbers_of

from venvoy.errors import VenvoyError
from venvoy.feed import FeedStalled, Swarm, SwarmError, pipe

LINES = [f"{n}\n" for n in range(50_000)]
FIRST_THEN_OTHER = "import os, sys; sys.stdin.read(); print(open(int(os.environ['other'])).read().count('\\n'))"


def test_a_command_that_is_not_there_is_named() -> None:
    """At the start, whatever the number of processes."""
    for count in (1, 3):
        with pytest.raises(SwarmError, match="command not found: 'no-such-command'") as caught:
            Swarm(["no-such-command"], count).start()
        assert len(caught.value.processes) == count
        assert caught.value.code == "swarm_failed"
        assert isinstance(caught.value, VenvoyError)


def test_a_command_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    """A file without permission, or of no known format."""
    file = tmp_path / "program"
    file.write_text("nothing")
    with pytest.raises(SwarmError, match="not allowed to run"):
        Swarm([file], 1).start()
    file.chmod(0o755)
    with pytest.raises(SwarmError, match=r"cannot start .*Exec format error"):
        Swarm([file], 1).start()


@pytest.mark.parametrize("status", [0, 3])
@pytest.mark.parametrize("when", ["exit {0}", "read -r line; exit {0}"])
@pytest.mark.parametrize("count", [1, 2])
def test_an_early_exit_fails_the_swarm(status: int, when: str, count: int) -> None:
    """With status 0 too; the error has each process's end, and nothing fed is forgotten."""
    command = f"echo why >&2; {when.format(status)}"
    swarm = Swarm(command, count, shell=True, stdout="discard", stderr="discard")
    drawn = itertools.count()
    with pytest.raises(SwarmError) as caught:
        feed_without_end(swarm, (f"{next(drawn)}\n" for _ in itertools.repeat(None)))
    assert f"exited with status {status}" in str(caught.value)
    assert "why" in str(caught.value)
    ended = [process for process in caught.value.processes if process.status == status]
    assert ended
    assert ended[0].is_early
    assert ended[0].stderr_tail == "why\n"
    report = swarm.report
    assert report.undelivered == len(swarm.undelivered)
    assert report.items + report.undelivered == next(drawn)


def test_a_process_that_is_killed_is_told_by_the_signal(folder: Path, until: Callable[..., None]) -> None:
    """Undelivered and received items are all there are; the others are ended."""
    swarm = Swarm(["cat"], 2, {"stdin": number}, stdout="{id}.out")
    fed = []

    def feed() -> None:
        with swarm:
            swarm.feed_many(range(1000))
            until(lambda: swarm.report.processes[1].pid)
            psutil.Process(swarm.report.processes[1].pid).kill()
            for item in range(1000, 10**9):
                swarm.feed(item)
                fed.append(item)

    with pytest.raises(SwarmError, match="killed by SIGKILL") as caught:
        feed()
    assert caught.value.processes[1].signal == signal.SIGKILL
    assert swarm.report.items + len(swarm.undelivered) == 1000 + len(fed)
    assert swarm.report.processes[0].signal == signal.SIGTERM


@pytest.mark.parametrize("way", [1, 2])
def test_the_others_receive_what_a_dead_process_did_not(way: int, folder: Path, until: Callable[..., None]) -> None:
    """`on_exit="reroute"`: nothing that was not wholly written is lost, whatever the encoders are."""

    class Encoder:
        def __init__(self, process_id: int) -> None:
            pass

        def __call__(self, item: int) -> bytes:
            return b"%d\n" % item

    command = "if [ {id} = 1 ]; then head -c 1000; exit 1; else cat; fi"
    inputs = {"stdin": number if way == 1 else Encoder}
    # In turn, so that the one that dies is sure to have had enough before the input ends.
    how = {"shell": True, "template": True, "on_exit": "reroute", "distribute": "round-robin"}
    swarm = Swarm(command, 2, inputs, stdout="{id}.out", **how)
    with swarm:
        swarm.feed_many(range(1000))
        until(lambda: swarm.report.processes[1].pid)
        swarm.feed_many(range(1000, 30_000))
    first, second = swarm.report.processes
    assert first.items + second.items == 30_000
    assert swarm.undelivered == []
    assert second.is_early
    got = numbers_of(folder / "0.out")
    assert len(got) == first.items == len(set(got))


def test_keys_of_a_dead_process_go_to_one_other(folder: Path) -> None:
    """In `distribute="key"` with `reroute` too, each item is received once."""
    command = "if [ {id} = 1 ]; then exit 1; else cat; fi"
    with Swarm(
        command,
        3,
        {"stdin": number},
        stdout="{id}.out",
        shell=True,
        template=True,
        on_exit="reroute",
        distribute="key",
        key=lambda item: item % 10,
    ) as swarm:
        swarm.feed_many(range(20_000))
    got = [numbers_of(folder / f"{process}.out") for process in (0, 2)]
    assert not {item % 10 for item in got[0]} & {item % 10 for item in got[1]}
    assert len(got[0] + got[1]) + swarm.report.processes[1].items == 20_000


def test_if_all_die_the_items_are_kept() -> None:
    """`reroute` has an end: the error says so, and every item is received or undelivered."""
    swarm = Swarm("head -c 1000 >/dev/null; exit 1", 3, shell=True, on_exit="reroute")
    lines = iter(LINES)
    with pytest.raises(SwarmError, match="status 1"), swarm:
        swarm.feed_many(lines)
    assert swarm.report.items + len(swarm.undelivered) == len(LINES) - len(list(lines))


def test_a_process_is_started_again_and_its_output_goes_on(folder: Path) -> None:
    """`on_exit="restart"`: the same id, at most `max_restarts` times, into the same file."""
    command = (
        'n=$(cat tries 2>/dev/null || echo 0); echo $((n+1)) > tries; [ "$n" -ge 2 ] && exec cat; head -n 1; exit 1'
    )
    with Swarm(command, 1, {"stdin": number}, stdout="out", shell=True, on_exit="restart") as swarm:
        swarm.feed_many(range(100_000))
    process = swarm.report.processes[0]
    assert process.restarts == 2
    assert process.items == 100_000
    got = numbers_of(folder / "out")
    assert len(got) > 90_000
    assert got[-1] == 99_999


def test_a_process_that_never_stays_is_given_up() -> None:
    """After `max_restarts`, with the count in the error."""
    swarm = Swarm(["false"], 1, on_exit="restart", max_restarts=2)
    with pytest.raises(SwarmError, match="restarted 2 times"):
        feed_without_end(swarm, LINES)


@pytest.mark.parametrize("on_exit", ["reroute", "restart"])
def test_at_least_once_sends_everything_again(on_exit: Any, folder: Path, until: Callable[..., None]) -> None:
    """What a process that failed had received arrives at the others, or at its successor."""
    command = "if mkdir first 2>/dev/null; then head -n 100 >/dev/null; touch failed; exit 1; else cat; fi"
    options: Any = {"shell": True, "on_exit": on_exit, "at_least_once": True}
    numbers = itertools.count()
    with Swarm(command, 2, {"stdin": number}, stdout="{id}.out", **options) as swarm:

        def has_failed() -> bool:
            swarm.feed_many(itertools.islice(numbers, 10_000))  # the first may all go to the other, which began earlier
            return (folder / "failed").exists()

        until(has_failed)
        until(lambda: any(process.is_early or process.restarts for process in swarm.report.processes))
        swarm.feed_many(itertools.islice(numbers, 10_000))
    assert set(numbers_of(folder / "0.out", folder / "1.out")) == set(range(next(numbers)))


def test_what_nobody_can_take_any_more_is_an_error() -> None:
    """At least once, rerouted: a failure after the others had the end of their input leaves items, which is told."""
    command = "cat >/dev/null; [ {id} = 0 ] || { sleep 0.3; exit 1; }"
    options: Any = {"shell": True, "template": True, "on_exit": "reroute", "at_least_once": True}
    swarm = Swarm(command, 2, {"stdin": number}, distribute="round-robin", **options)
    with pytest.raises(SwarmError, match=r"status 1|5 items were not received"), swarm:
        swarm.feed_many(range(10))
    assert swarm.undelivered == [1, 3, 5, 7, 9]


def test_a_status_after_the_whole_input_is_an_error_unless_said_otherwise() -> None:
    """`check=False` leaves it to the report."""
    with (
        pytest.raises(SwarmError, match="exited with status 7") as caught,
        Swarm("cat; exit 7", 1, shell=True) as swarm,
    ):
        swarm.feed("x\n")
    assert not caught.value.processes[0].is_early
    with Swarm("cat; exit 7", 1, shell=True, check=False) as swarm:
        swarm.feed("x\n")
    assert swarm.report.processes[0].status == 7


def test_an_exception_in_the_block_ends_the_processes() -> None:
    """It comes out as it is; no process takes a part of the input for the whole."""
    swarm = Swarm("trap 'exit 5' TERM; cat >/dev/null; echo whole; sleep 60", 2, shell=True, stdout="collect")

    def feed() -> None:
        with swarm:
            swarm.feed("x\n")
            raise KeyError("mine")

    with pytest.raises(KeyError):
        feed()
    assert all(b"whole" not in process.stdout for process in swarm.report.processes)
    assert not any(process.status == 0 for process in swarm.report.processes)


def test_a_process_that_never_reads_has_stalled() -> None:
    """It is named, with its channel, also where all it has to do is end."""
    swarm = Swarm(["sleep", "100"], 1, stall_timeout=0.3, max_bytes=200_000)
    with pytest.raises(FeedStalled, match=r"process 0 has stalled.*'stdin'") as caught:
        feed_without_end(swarm, LINES)
    assert (caught.value.process_id, caught.value.channel) == (0, "stdin")
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(FeedStalled, match="it has got all its input"), Swarm(["sleep", "100"], 1, stall_timeout=0.3):
        pass


def test_a_process_that_works_has_not_stalled() -> None:
    """Processor time is progress; so is waiting for input that is not there."""
    busy = "import sys, time\nend = time.process_time() + 0.9\nwhile time.process_time() < end: pass\nsys.stdin.read()"
    with Swarm([*PYTHON, busy], 1, stall_timeout=0.3) as swarm:
        swarm.feed_many(LINES)
    with Swarm(["cat"], 1, stall_timeout=0.1, stdout="discard") as swarm:
        swarm.feed("x\n")
        swarm._core._loop.thread.join(0.4)  # type: ignore[union-attr]
        swarm.feed("y\n")
    assert swarm.report.items == 2


@pytest.mark.parametrize("first", ["stdin", "other"])
def test_a_process_that_reads_one_channel_to_its_end_before_the_other_is_served(first: str, folder: Path) -> None:
    """The other channel's bytes wait in memory, up to their bound."""
    script = {
        "stdin": "import os, sys; sys.stdin.read(); print(len(open(int(os.environ['other'])).read()))",
        "other": "import os, sys; open(int(os.environ['other'])).read(); print(len(sys.stdin.read()))",
    }
    inputs = {"stdin": number, "other": number}
    with Swarm([*PYTHON, script[first]], 2, inputs, stdout="{id}.out") as swarm:
        swarm.feed_many(range(300_000))
    sizes = [process.written["other"] for process in swarm.report.processes]
    assert [int((folder / f"{n}.out").read_text()) for n in range(2)] == sizes
    assert swarm.report.items == 300_000


def test_beyond_the_bound_the_process_and_the_channel_are_named() -> None:
    """A dead-lock that is certain is an error in a second or two, not a hang."""
    inputs = {"stdin": number, "other": number}
    swarm = Swarm([*PYTHON, FIRST_THEN_OTHER], 1, inputs, max_process_bytes=1_000_000)
    with pytest.raises(FeedStalled, match="waits for channel 'stdin' and does not read 'other'") as caught:
        feed_without_end(swarm, range(10_000))
    assert (caught.value.process_id, caught.value.channel) == (0, "other")


def test_a_channel_that_is_not_required_may_be_closed(folder: Path) -> None:
    """What comes for it is thrown away; the other channel gets everything."""
    script = "import os, sys; n = int(os.environ['other']); open(n).readline(); print(sys.stdin.read().count('\\n'))"
    inputs = {"stdin": number, "other": pipe(number, required=False)}
    with Swarm([*PYTHON, script], 1, inputs, stdout="out") as swarm:
        swarm.feed_many(range(300_000))
    assert (folder / "out").read_text() == "300000\n"
    assert swarm.report.items == 300_000


def test_a_required_channel_that_is_closed_is_an_error() -> None:
    """Even if the process goes on with the other one: it is named, and ended."""
    script = "import os, sys; os.close(int(os.environ['other'])); sys.stdin.read()"
    swarm = Swarm([*PYTHON, script], 1, {"stdin": number, "other": number}, grace_period=0.2)
    with pytest.raises(SwarmError, match="closed its channel 'other' before the end of the input"):
        feed_without_end(swarm, range(10_000))


def test_a_process_that_need_not_read_may_leave() -> None:
    """Like `head`: with status 0 it is done; when all are, there is nobody left to feed."""
    inputs = {"stdin": pipe(lambda item: item, required=False, encoding="utf-8")}
    swarm = Swarm(["head", "-n", "1"], 2, inputs, stdout="collect")
    with pytest.raises(SwarmError, match="every process has ended"):
        feed_without_end(swarm, LINES)
    assert all(process.status == 0 for process in swarm.report.processes)
    with Swarm(["head", "-n", "1"], 1, inputs, stdout="collect") as swarm:
        swarm.feed("one\n")
        swarm.feed("two\n")
    assert swarm.report.processes[0].stdout == b"one\n"


def test_a_flood_on_stderr_is_drained_and_its_end_is_kept() -> None:
    """100 MB that nobody asked for stop nothing."""
    command = "head -c 100000000 /dev/zero | tr '\\0' 'x' >&2; echo the end >&2; cat; exit 1"
    swarm = Swarm(command, 1, shell=True, stderr="discard")
    with pytest.raises(SwarmError, match="the end"), swarm:
        swarm.feed("x\n")
    assert swarm.report.processes[0].stderr_tail.endswith("the end\n")
    assert len(swarm.report.processes[0].stderr_tail) <= 4096


def test_a_full_disk_is_an_error_of_the_channel() -> None:
    """A regular file that cannot be written fails the swarm with its name."""
    from venvoy.feed import handle

    with open("/dev/full", "wb", buffering=0) as full:
        swarm = Swarm(["cat"], 1, {"stdin": number, "copy": handle(full, number)}, stdout="discard")
        with pytest.raises(SwarmError, match=r"cannot write channel 'copy' of process 0: .*No space"):
            feed_without_end(swarm, range(1000))


def test_what_a_consumer_raises_fails_the_swarm() -> None:
    """With its exception as the cause; the processes are ended."""

    def consume(process: int, line: str) -> None:
        raise OSError("no room")

    swarm = Swarm(["cat"], 1, stdout=consume)
    with pytest.raises(SwarmError, match="OSError: no room") as caught:
        feed_without_end(swarm, LINES)
    assert isinstance(caught.value.__cause__, OSError)


def test_lines_that_nobody_takes_are_named_as_the_cause() -> None:
    """Feeding everything first, with more output than is kept, is told and does not hang."""
    swarm = Swarm(
        [sys.executable, "-c", "print('x' * 10**8, flush=True); input()"], 1, stdout="lines", stall_timeout=0.3
    )
    with pytest.raises(FeedStalled, match=r"its output is not consumed: iterate over Swarm\.lines"), swarm:
        swarm.feed("x\n")
