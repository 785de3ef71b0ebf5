"""Outputs go where they are sent, whole lines at a time where they meet, and are always drained."""

from __future__ import annotations

import io
import itertools
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.feed.conftest import number

from venvoy.feed import Swarm, SwarmError, blocks, collect, file, handle, lines

BOTH = 'while read -r line; do echo "out $line"; echo "err $line" >&2; done'


def feed(**options: Any) -> Swarm:
    """Feed two processes with 100 lines each, that write each to both outputs."""
    options = {"stdout": "discard", "stderr": "discard", **options}
    with Swarm(BOTH, 2, {"stdin": number}, shell=True, distribute="round-robin", **options) as swarm:
        swarm.feed_many(range(200))
    return swarm


def of(process: int, word: str) -> list[str]:
    """Return the lines that a process writes to one output."""
    return [f"{word} {item}" for item in range(process, 200, 2)]


def test_inherited_lines_have_the_process_id(capsys: pytest.CaptureFixture[str]) -> None:
    """That is the default, on both streams, in whole lines."""
    feed(stdout="inherit", stderr="inherit")
    out, err = capsys.readouterr()
    for process in range(2):
        assert [line[4:] for line in out.splitlines() if line.startswith(f"[{process}] ")] == of(process, "out")
        assert [line[4:] for line in err.splitlines() if line.startswith(f"[{process}] ")] == of(process, "err")
    assert len(out.splitlines()) == len(err.splitlines()) == 200


def test_files_are_truncated_unless_appended(folder: Path) -> None:
    """`{id}` is the process id; a path or `file(path, append=True)`."""
    for _ in range(2):
        feed(stdout="{id}.out", stderr=file(folder / "{id}.err", append=True))
    for process in range(2):
        assert (folder / f"{process}.out").read_text().splitlines() == of(process, "out")
        assert (folder / f"{process}.err").read_text().splitlines() == 2 * of(process, "err")


def test_one_file_for_all_has_whole_lines(folder: Path) -> None:
    """Of two processes and two streams."""
    feed(stdout="all", stderr="all")
    got = (folder / "all").read_text().splitlines()
    assert sorted(got) == sorted(of(0, "out") + of(1, "out") + of(0, "err") + of(1, "err"))


@pytest.mark.parametrize("make", [io.BytesIO, io.StringIO])
def test_open_files_get_whole_lines_and_stay_open(make: Any) -> None:
    """Of bytes or of text."""
    target = make()
    feed(stdout=target, stderr=handle(target))
    value = target.getvalue()
    text = value.decode() if isinstance(value, bytes) else value
    assert sorted(text.splitlines()) == sorted(of(0, "out") + of(1, "out") + of(0, "err") + of(1, "err"))
    assert not target.closed


def test_functions_get_lines_or_blocks() -> None:
    """Tagged with the process id, in order, on one thread of the swarm."""
    got: list[tuple[int, Any]] = []
    threads = set()

    def take(process: int, value: Any) -> None:
        got.append((process, value))
        threads.add(threading.current_thread().name)

    for destination in (take, lines(take), lines(take, encoding=None), blocks(take)):
        got.clear()
        feed(stdout=destination)
        for process in range(2):
            values = [value for number, value in got if number == process]
            if destination is not take and destination.kind == "call_blocks":  # type: ignore[union-attr]
                assert b"".join(values).decode().splitlines() == of(process, "out")
            else:
                texts = [value if isinstance(value, str) else value.decode() for value in values]
                assert texts == of(process, "out")
    assert threads == {"venvoy-feed-output"}


def test_collected_output_is_in_the_report() -> None:
    """The last bytes up to a bound, or all of them."""
    swarm = feed(stdout="collect", stderr=collect(100))
    for process in swarm.report.processes:
        assert process.stdout.decode().splitlines() == of(process.id, "out")
        assert process.stdout_dropped == 0
        whole = "".join(f"{line}\n" for line in of(process.id, "err")).encode()
        assert process.stderr == whole[-100:]
        assert process.stderr_dropped == len(whole) - 100
    with Swarm("head -c 30000000 /dev/zero", 1, shell=True, stdout=collect(None), check=False) as swarm:
        pass
    assert len(swarm.report.processes[0].stdout) == 30_000_000


@pytest.mark.parametrize("kind", ["collect", "file", "function", "lines"])
def test_merged_outputs_are_whole_lines_in_one_place(kind: str, folder: Path) -> None:
    """`merge=True`: stderr goes where stdout goes."""
    got: list[str] = []
    if kind == "lines":
        with Swarm(BOTH, 2, {"stdin": number}, stdout="lines", shell=True, merge=True) as swarm:
            got = [line for _, line in swarm.lines(range(200))]
    else:
        targets = {"collect": "collect", "file": "{id}.all", "function": lambda process, line: got.append(line)}
        swarm = feed(stdout=targets[kind], merge=True)
    if kind == "collect":
        got = [line for process in swarm.report.processes for line in process.stdout.decode().splitlines()]
    if kind == "file":
        got = [line for process in range(2) for line in (folder / f"{process}.all").read_text().splitlines()]
    assert sorted(got) == sorted(of(0, "out") + of(1, "out") + of(0, "err") + of(1, "err"))


def test_lines_may_be_iterated_while_a_thread_feeds() -> None:
    """More than any pipe or mailbox holds, in both directions."""
    with Swarm(["cat"], 2, stdout="lines") as swarm:
        total = sum(len(line) for _, line in swarm.lines("x" * 99_999 + "\n" for _ in range(1000)))
    assert total == 99_999_000


def test_lines_after_feeding_end_the_input() -> None:
    """Without items, iterating ends by itself; after the block too."""
    with Swarm(["sort"], 1, stdout="lines") as swarm:
        swarm.feed_many(["b\n", "a\n", "no end"])
        assert list(swarm.lines()) == [(0, "a"), (0, "b"), (0, "no end")]


def test_lines_that_are_left_early_hold_up_nothing() -> None:
    """The rest of the output is thrown away."""
    with Swarm("yes | head -n 20000000", 1, shell=True, stdout="lines", check=False) as swarm:
        for _, line in swarm.lines():
            assert line == "y"
            break


def test_lines_that_are_left_while_a_thread_feeds() -> None:
    """An endless input is not drawn any further, and the processes come to their end."""
    with Swarm(["cat"], 2, stdout="lines") as swarm:
        for _, line in swarm.lines(f"{n}\n" for n in itertools.count()):
            assert line.isdigit()
            break
    assert all(process.status == 0 for process in swarm.report.processes)


def test_lines_need_their_output() -> None:
    """Asking for lines that go elsewhere is an error, not a wait."""
    with Swarm(["cat"], 1, stdout="discard") as swarm, pytest.raises(SwarmError, match="stdout='lines'"):
        list(swarm.lines())
