"""Each item goes to exactly one process, to all its channels, in order; who has room takes next."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.feed.conftest import PYTHON, number, numbers_of

from venvoy.errors import EncodingError
from venvoy.feed import FeedStalled, Swarm, SwarmClosed, pipe

FIBONACCI = """
import os, sys
for n, fib in zip(open(int(os.environ["line_numbers"])), sys.stdin):
    print(n.strip(), fib.strip(), sep="\\t")
"""
SLOW = "while read -r line; do sleep $1; echo $line; done"


def test_both_channels_of_an_item_arrive_at_one_process_in_step(folder: Path) -> None:
    """Numbers on stdin and their line numbers on a side channel: all pairs once, each output ascending."""
    expected = [(1, 0), (2, 1)]
    while len(expected) < 100:
        expected.append((len(expected) + 1, expected[-1][1] + expected[-2][1]))
    inputs = {"line_numbers": lambda item: b"%d\n" % item[0], "stdin": lambda item: b"%d\n" % item[1]}
    with Swarm([*PYTHON, FIBONACCI], 2, inputs, stdout="{id}.out") as swarm:
        for item in expected:
            swarm.feed(item)
    found = [numbers_of(folder / f"{number}.out") for number in range(2)]
    pairs = [list(zip(one[::2], one[1::2], strict=True)) for one in found]
    assert sorted(pairs[0] + pairs[1]) == expected
    assert all(one == sorted(one) for one in pairs)
    assert swarm.report.items == 100
    assert swarm.undelivered == []


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("make", [list, tuple, iter, lambda items: (item for item in items)])
def test_every_item_arrives_once_and_in_order(count: int, make: Callable[[Any], Any], folder: Path) -> None:
    """Whatever the kind of iterable; the report counts what each process got."""
    items = range(200_000)
    with Swarm(["cat"], count, {"stdin": number}, stdout="{id}.out") as swarm:
        assert swarm.feed_many(make(items)) == len(items)
    outputs = [numbers_of(folder / f"{number}.out") for number in range(count)]
    assert sorted(item for output in outputs for item in output) == list(items)
    assert all(output == sorted(output) for output in outputs)
    assert [process.items for process in swarm.report.processes] == [len(output) for output in outputs]
    written = [process.written["stdin"] for process in swarm.report.processes]
    assert written == [(folder / f"{number}.out").stat().st_size for number in range(count)]


@pytest.mark.parametrize("encode_threads", [0, 2])
def test_several_threads_may_feed(encode_threads: int, folder: Path) -> None:
    """Nothing is lost, doubled, or torn."""
    with Swarm(["cat"], 2, {"stdin": number}, stdout="{id}.out", encode_threads=encode_threads) as swarm:

        def feed(begin: int) -> None:
            for item in range(begin, begin + 5000):
                swarm.feed(item)

        threads = [threading.Thread(target=feed, args=(begin,)) for begin in range(0, 20_000, 5000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(numbers_of(folder / "0.out", folder / "1.out")) == list(range(20_000))


def test_items_are_given_to_processes_in_turn_where_asked(folder: Path) -> None:
    """Round-robin is by item, whichever way they are fed."""
    with Swarm(["cat"], 3, {"stdin": number}, stdout="{id}.out", distribute="round-robin") as swarm:
        for item in range(10):
            swarm.feed(item)
        swarm.feed_many(range(10, 3000))
        swarm.feed_many(iter(range(3000, 4000)))
    for process in range(3):
        assert numbers_of(folder / f"{process}.out") == list(range(process, 4000, 3))


def test_the_same_key_goes_to_the_same_process(folder: Path) -> None:
    """All items of a key, in order, at one process; keys are spread."""
    items = [(f"key{n % 50}", n) for n in range(5000)]
    inputs = {"stdin": lambda item: f"{item[0]} {item[1]}\n".encode()}
    with Swarm(["cat"], 3, inputs, stdout="{id}.out", distribute="key", key=lambda item: item[0]) as swarm:
        swarm.feed_many(items)
    homes: dict[str, int] = {}
    for process in range(3):
        lines = [line.split() for line in (folder / f"{process}.out").read_text().splitlines()]
        assert lines
        for key, _ in lines:
            assert homes.setdefault(key, process) == process
        for key in {key for key, _ in lines}:
            assert [int(n) for k, n in lines if k == key] == [n for k, n in items if k == key]
    assert len(homes) == 50


def test_a_fast_process_takes_more(folder: Path) -> None:
    """A process that needs a time for each item gets few of them ahead."""
    command = f"if [ {{id}} = 0 ]; then {SLOW.replace('$1', '0.02')}; else cat; fi"
    with Swarm(command, 2, {"stdin": number}, stdout="{id}.out", shell=True, template=True) as swarm:
        began = time.monotonic()
        swarm.feed_many(range(20_000))
    assert time.monotonic() - began < 5  # 10,000 for the slow one would take 200 s
    assert sorted(numbers_of(folder / "0.out", folder / "1.out")) == list(range(20_000))
    assert swarm.report.processes[0].items < 100


def test_an_item_fed_alone_arrives_at_once() -> None:
    """Small items are gathered, but not held back."""
    arrived = threading.Event()
    with Swarm(["cat"], 1, stdout=lambda process, line: arrived.set()) as swarm:
        swarm.feed("one\n")
        assert arrived.wait(5)


def test_an_iterable_that_pauses_holds_nothing_back(until: Callable[..., None]) -> None:
    """All items drawn before the pause arrive during it."""
    seen: list[str] = []

    def slow() -> Iterator[str]:
        for item in range(1000):
            yield f"{item}\n"
        until(lambda: len(seen) == 1000)
        yield "last\n"

    with Swarm(["cat"], 1, stdout=lambda process, line: seen.append(line)) as swarm:
        swarm.feed_many(slow())
    assert seen[-1] == "last"


def test_feed_has_a_timeout_after_which_the_swarm_goes_on(folder: Path) -> None:
    """A process that reads nothing for a while fills its bounds; the item that found no room was not taken."""
    fed = 0
    with Swarm("sleep 1; cat", 1, shell=True, stdout="out", max_bytes=100_000) as swarm:
        try:
            while True:
                swarm.feed("x" * 999 + "\n", timeout=0.1)
                fed += 1
        except FeedStalled as error:
            message = str(error)
        swarm.feed("last\n")
    lines = (folder / "out").read_text().splitlines()
    assert len(lines) == fed + 1
    assert lines[-1] == "last"
    assert fed < 400
    assert "no process took input within 0.1 s" in message


def test_an_encoder_that_raises_leaves_its_item_out_and_the_swarm_at_work(folder: Path) -> None:
    """`feed` raises what the encoder raised, with a note that names the channel; no channel has the item."""
    inputs = {"stdin": number, "other": lambda item: b"%d\n" % (100 // item)}
    with Swarm("cat /dev/fd/$other > other & cat; wait", 1, inputs, stdout="out", shell=True) as swarm:
        swarm.feed(2)
        swarm.feed(1)
        with pytest.raises(ZeroDivisionError) as caught:
            swarm.feed(0)
        assert "'other'" in caught.value.__notes__[0]
        swarm.feed(5)
        for many in ([10, 20, 0, 25], iter([50, 0, 1])):
            with pytest.raises(ZeroDivisionError):
                swarm.feed_many(many)
    assert numbers_of(folder / "other") == [50, 100, 20, 10, 5, 2]
    assert swarm.undelivered == [0, 25, 0]  # drawn, and not fed: the swarm has not failed for that


@pytest.mark.parametrize(
    ("value", "message"),
    [(5, "returned int 5"), ("text", "encoding="), (bytearray(b"x"), "bytearray"), ([b"x"], "list")],
)
def test_an_encoder_that_returns_something_else_is_named(value: object, message: str) -> None:
    """By its channel, with what it returned, however the item was fed."""
    with Swarm(["cat"], 1, {"stdin": lambda item: value if item == 3 else b""}, stdout="discard") as swarm:
        for feed in (lambda: swarm.feed(3), lambda: swarm.feed_many([1, 3]), lambda: swarm.feed_many(iter([2, 3]))):
            with pytest.raises(EncodingError, match=f"'stdin' returned.*{message}|{message}"):
                feed()


def test_text_channels_and_nothing_for_a_channel(folder: Path) -> None:
    """A channel with an encoding takes str; None writes nothing on that channel."""
    inputs = {
        "stdin": pipe(lambda item: f"ä{item}\n" if item % 2 else None, encoding="latin-1"),
        "other": lambda item: None if item % 2 else b"%d\n" % item,
    }
    command = "cat /dev/fd/$other > other & cat; wait"
    with Swarm(command, 1, inputs, stdout="out", shell=True) as swarm:
        swarm.feed_many([1, 2, 3, 4])
        swarm.feed(5)
        swarm.feed(6)
    assert (folder / "out").read_bytes() == "ä1\nä3\nä5\n".encode("latin-1")
    assert numbers_of(folder / "other") == [2, 4, 6]


class Counting:
    """An encoder with a state: numbers the lines of one process, and ends with their count."""

    def __init__(self, process_id: int) -> None:
        self.process_id = process_id
        self.count = 0

    def __call__(self, item: int) -> bytes:
        self.count += 1
        return b"%d %d %d\n" % (self.process_id, self.count, item)

    def finish(self) -> bytes:
        return b"end %d\n" % self.count


@pytest.mark.parametrize("options", [{}, {"distribute": "round-robin"}, {"encode_threads": 2}])
def test_an_encoder_may_be_a_class_with_a_state_for_each_process(folder: Path, options: Any) -> None:
    """Called with the process id; `finish` writes before the end of file, to processes without items too."""
    with Swarm(["cat"], 3, {"stdin": Counting}, stdout="{id}.out", **options) as swarm:
        swarm.feed_many(range(500))
        for item in range(500, 1000):
            swarm.feed(item)
    items = []
    for process in range(3):
        *lines, end = (folder / f"{process}.out").read_text().splitlines()
        assert end == f"end {len(lines)}"
        assert [line.split()[:2] for line in lines] == [[str(process), str(n + 1)] for n in range(len(lines))]
        items += [int(line.split()[2]) for line in lines]
    assert sorted(items) == list(range(1000))


def test_a_factory_is_called_where_it_is_said_to_be_one() -> None:
    """`factory=True` calls a function with the process id."""
    inputs = {"stdin": pipe(lambda process: lambda item: b"%d:%d\n" % (process, item), factory=True)}
    with Swarm(["cat"], 2, inputs, stdout="lines", distribute="round-robin") as swarm:
        assert sorted(swarm.lines([0, 1, 2])) == [(0, "0:0"), (0, "0:2"), (1, "1:1")]


@pytest.mark.parametrize("way", ["feed", "list", "iterator", "lines"])
def test_a_closed_swarm_takes_nothing(way: str) -> None:
    """And neither does one that was not started."""
    swarm = Swarm(["cat"], 1, stdout="lines")
    feeds: dict[str, Callable[[], object]] = {
        "feed": lambda: swarm.feed("x\n"),
        "list": lambda: swarm.feed_many(["x\n"]),
        "iterator": lambda: swarm.feed_many(iter(["x\n"])),
        "lines": lambda: list(swarm.lines(["x\n"])),
    }
    if way != "lines":
        with pytest.raises(SwarmClosed, match="was not started"):
            feeds[way]()
    with swarm:
        pass
    with pytest.raises(SwarmClosed, match="is closed"):
        feeds[way]()
    with pytest.raises(SwarmClosed, match="started before"):
        swarm.start()
