"""Feeding commands: short lines on two channels, large blocks, and processes of unequal speed.

    python benchmarks/feed.py [--json FILE] [--quick] [--only NAME,...]

Two processes read two channels of short lines; peers are subfeed, which has `feed` only, and GNU parallel with one
channel, where they are installed. Blocks of 1 MiB go into one `cat`, beside a loop of `os.write`. Of two processes, one
takes 50 times as long for an item; the ideal is the time in which both work without a pause.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import measure
from measure import Block, Row, Target
from venvoy.feed import Swarm

MANY, ONE, SUBFEED, PARALLEL = "feed_many", "feed", "subfeed", "GNU parallel"
BLOCKS, RAW = "feed, 1 MiB", "os.write, 1 MiB"
TWO_CHANNELS = ["/bin/sh", "-c", 'cat "/dev/fd/$numbers" >/dev/null & cat >/dev/null; wait']
INPUTS = {"stdin": lambda item: b"%d\n" % item, "numbers": lambda item: b"%d\n" % (item + 1)}
MEBIBYTE = b"x" * (1 << 20)
FAST, RATIO = 0.0004, 50  # seconds for an item, and how much longer the slow one takes
WORK = "import os, sys, time\nfor line in sys.stdin: time.sleep(float(os.environ['PACE']))"


def feed_many(count: int) -> None:
    """Feed a list of numbers to two processes with two channels."""
    with Swarm(TWO_CHANNELS, 2, INPUTS, stdout="discard") as swarm:
        swarm.feed_many(range(count))


def feed_one_by_one(count: int) -> None:
    """The same, one call for each."""
    with Swarm(TWO_CHANNELS, 2, INPUTS, stdout="discard") as swarm:
        feed = swarm.feed
        for item in range(count):
            feed(item)


def subfeed(count: int) -> None:
    """The same with subfeed."""
    import subfeed as peer

    class First(peer.Writer):  # type: ignore[misc]
        def filter(self, item: int) -> bytes:
            return b"%d\n" % item

    class Second(peer.Writer):  # type: ignore[misc]
        def filter(self, item: int) -> bytes:
            return b"%d\n" % (item + 1)

    template = peer.TaskTemplate(
        args=f"exec /bin/sh -c '{TWO_CHANNELS[2]}'",
        stdout=peer.FileChannel(os.devnull),
        sidein={"numbers": peer.AnonChannel()},
    )
    specs = {
        "stdin": peer.WriterSpec(First, mode=peer.task.Mode(parent="wb", child="rb")),
        "numbers": peer.WriterSpec(Second, mode=peer.task.Mode(parent="wb", child="rb")),
    }
    with peer.Coordinator(template, count=2, writer_specs=specs) as swarm:
        for item in range(count):
            swarm.feed(item)


def gnu_parallel(count: int) -> None:
    """One channel of lines, made beforehand, through GNU parallel."""
    command = ["parallel", "--pipe", "--round-robin", "--will-cite", "-j2", "cat >/dev/null"]
    data = b"".join(b"%d\n" % item for item in range(count))
    subprocess.run(command, input=data, check=True, stderr=subprocess.DEVNULL)


def write_raw(count: int) -> None:
    """Write blocks into `cat` with nothing between."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0) as process:
        assert process.stdin
        fd = process.stdin.fileno()
        for _ in range(count):
            left = memoryview(MEBIBYTE)
            while left:
                left = left[os.write(fd, left) :]


def feed_blocks(count: int) -> None:
    """Feed the same blocks to a swarm of one."""
    with Swarm(["cat"], 1, stdout="discard") as swarm:
        for _ in range(count):
            swarm.feed(MEBIBYTE)


def per_item(run: Callable[[int], None], count: int) -> Block:
    """Return a block that runs once, and gives the seconds of one item."""

    def block() -> Sequence[float]:
        begin = perf_counter()
        run(count)
        return [(perf_counter() - begin) / count]

    return block


def uneven(count: int) -> float:
    """Return the time of two processes, one slow, over the ideal, measured with the sleeps this machine makes."""
    paces = [real_sleep(FAST), real_sleep(FAST * RATIO)]
    environ = lambda process: {"PACE": str(FAST * (RATIO if process else 1))}  # noqa: E731
    command = [sys.executable, "-S", "-c", WORK]
    ideal = count / sum(1 / pace for pace in paces)
    with Swarm(command, 2, {"stdin": lambda item: b"%d\n" % item}, stdout="discard", env_vars=environ) as swarm:
        begin = perf_counter()
        swarm.feed_many(range(count))
    return (perf_counter() - begin) / ideal


def real_sleep(seconds: float) -> float:
    """Return how long a process really takes for an item of so many seconds."""
    times = 50 if seconds > 0.01 else 500
    loop = f"for _ in range({times}): time.sleep({seconds})"
    script = f"import time\nt = time.perf_counter()\n{loop}\nprint(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, check=True, text=True)
    return float(done.stdout) / times


def peers(data: dict[str, Any], only: frozenset[str], quick: bool) -> dict[str, Block]:
    """Return the contenders for short lines; note those that are left out."""
    items = 20_000 if quick else 1_000_000
    few = 2_000 if quick else 60_000
    blocks = {
        MANY: per_item(feed_many, items),
        ONE: per_item(feed_one_by_one, items),
        SUBFEED: per_item(subfeed, few),
        PARALLEL: per_item(gnu_parallel, items),
    }
    try:
        import subfeed as _  # noqa: F401
    except ImportError:
        data["skipped"][SUBFEED] = "not installed"
    if shutil.which("parallel") is None:
        data["skipped"][PARALLEL] = "not installed"
    for name in blocks:
        if only and name not in only:
            data["skipped"][name] = "not asked for"
    return {name: block for name, block in blocks.items() if name not in data["skipped"]}


def targets(table: Sequence[Row], where: str) -> list[Target]:
    """Return what is aimed at for short lines."""
    found = {row.name: row for row in table}
    wanted = []
    for name, least in ((MANY, 1_000_000.0), (ONE, 400_000.0)):
        if name in found:
            wanted.append(measure.at_least(f"{name}: items/s", where, 1e6 / found[name].p50, least))
    if ONE in found and SUBFEED in found:
        wanted.append(measure.at_least("feed: items/s of subfeed x", where, found[SUBFEED].ratios[ONE], 12.0))
    return wanted


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    options = measure.arguments(__doc__.splitlines()[0], argv)
    data = measure.report("feed", options)
    chosen = peers(data, options.only, options.quick)
    for name, why in data["skipped"].items():
        print(f"{name}: skipped, {why}")
    rounds, blocks, items = (1, 20, 500) if options.quick else (5, 2000, 20_000)
    large = {BLOCKS: per_item(feed_blocks, blocks), RAW: per_item(write_raw, blocks)}
    for cpu in measure.passes():
        where = "not pinned" if cpu is None else f"pinned to CPU {cpu}"
        with measure.pinned(cpu):
            short = measure.take_turns(chosen, rounds)
            huge = measure.take_turns(large, rounds)
        table = measure.rows(short, "us/item", partial(_times, 1e6))
        measure.show(f"short lines, two processes, {where}", table, (MANY, ONE))
        mebibytes = measure.rows(huge, "us/MiB", partial(_times, 1e6))
        measure.show(f"1 MiB blocks into cat, {where}", mebibytes, (RAW,))
        for name, rows in (("short lines", table), ("blocks", mebibytes)):
            data["passes"].append({"name": name, "cpu": cpu, "cpus_of_children": [], "rows": rows})
        data["targets"] += targets(table, where)
        share = mebibytes[1].ratios[BLOCKS]
        data["targets"].append(measure.at_least("1 MiB blocks: bytes/s of os.write x", where, share, 0.7))
    shares = [uneven(items) for _ in range(rounds)]
    data["targets"].append(
        measure.at_most("one of two 50 x slower: ideal x", "not pinned", statistics.median(shares), 1.2)
    )
    measure.show_targets(data["targets"])
    measure.write(data, options.json)


def _times(factor: float, value: float) -> float:
    return factor * value


if __name__ == "__main__":
    main()
