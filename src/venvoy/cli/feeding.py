"""What `venvoy feed` does: split standard input, or files, over a swarm of commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from venvoy.errors import SwarmError
from venvoy.feed import Swarm, SwarmReport, pipe

_READ = 1 << 20
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_REFRESH = 0.2  # seconds between two looks at a swarm that is shown on a terminal


class UsageError(ValueError):
    """An option of the command line is wrong."""


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for.

    Args:
        command: of each process.
        count: of processes.
        split: "lines", "null", "block" or "records".
        block: bytes of a block.
        files: read instead of standard input.
        sides: `NAME=EXPR` of each side channel.
        out, err: where outputs go; None inherits.
        key: an expression; the same value goes to the same process.
        on_exit: "fail", "reroute" or "restart".
    """

    command: list[str]
    count: int
    split: str
    block: int
    files: list[Path]
    sides: list[str]
    out: str | None
    err: str | None
    key: str | None
    on_exit: Any
    template: bool


def run(wanted: Wanted) -> int:
    """Feed a swarm; return the exit status of the worst process."""
    swarm = _swarm(wanted)
    console = Console(stderr=True)
    try:
        with ExitStack() as files, swarm:
            sources = _sources(wanted.files, files)
            if not console.is_terminal:
                swarm.feed_many(_items(sources, wanted))
            else:
                with _Shown(console, swarm):
                    swarm.feed_many(_items(sources, wanted))
                    swarm.close()
    except SwarmError as error:
        print(f"venvoy: {error}", file=sys.stderr)  # noqa: T201 - this is a command line
        return _worst(swarm.report) or 1
    return _worst(swarm.report)


def _worst(report: SwarmReport) -> int:
    """Return the largest status, as a shell counts it: 128 and the number of the signal for those killed."""
    found = [0]
    for process in report.processes:
        if process.signal is not None and "ended by the swarm" not in process.reason:
            found.append(128 + process.signal)
        elif process.status is not None:
            found.append(process.status)
    return max(found)


def _swarm(wanted: Wanted) -> Swarm:
    inputs: dict[str, Any] = {"stdin": pipe(_raw if wanted.split != "records" else _record)}
    read = json.loads if wanted.split == "records" else _text
    for side in wanted.sides:
        name, equals, expression = side.partition("=")
        if not equals:
            raise UsageError(f"--side is NAME=EXPR, not {side!r}")
        inputs[name] = pipe(_side(f"--side {name}", expression, read))
    key = _evaluate("--key", wanted.key, read) if wanted.key else None
    return Swarm(
        wanted.command,
        wanted.count,
        inputs,
        stdout=wanted.out or "inherit",
        stderr=wanted.err or "inherit",
        distribute="key" if key else "ready",
        key=key,
        on_exit=wanted.on_exit,
        template=wanted.template,
        name="venvoy feed",
        stall_timeout=None,
    )


def _raw(item: bytes) -> bytes:
    return item


def _record(item: bytes) -> bytes:
    return item if item.endswith(b"\n") else item + b"\n"


def _text(item: bytes) -> str:
    return item.decode("utf-8", "replace").rstrip("\r\n\0")


def _evaluate(option: str, expression: str, read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a function of an item that evaluates a Python expression of `item`."""
    try:
        code = compile(expression, option, "eval")
    except SyntaxError as error:
        raise UsageError(f"{option}: {expression!r} is not a Python expression: {error.msg}") from None

    def evaluate(item: bytes) -> Any:
        try:
            return eval(code, {"item": read(item), "json": json})  # the user's own words, on the user's machine
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise UsageError(f"{option}: {expression!r} raised {what}, for the item {item[:200]!r}") from None

    return evaluate


def _side(option: str, expression: str, read: Callable[[bytes], Any]) -> Callable[[bytes], bytes | None]:
    evaluate = _evaluate(option, expression, read)

    def encode(item: bytes) -> bytes | None:
        value = evaluate(item)
        if value is None or isinstance(value, bytes):
            return value
        return f"{value}\n".encode()

    return encode


def parse_size(text: str) -> int:
    """Return the bytes of `64K`, `1M` or `100`.

    Raises:
        UsageError: it is not a size.
    """
    number, unit = (text[:-1], text[-1].upper()) if text and not text[-1].isdigit() else (text, "")
    if not number.isdigit() or unit not in _UNITS or not int(number):
        raise UsageError(f"--block is a size as 64K, 1M or 100, not {text!r}")
    return int(number) * _UNITS[unit]


# --- splitting ------------------------------------------------------------------------------------


def _sources(paths: Sequence[Path], files: ExitStack) -> Iterator[FileIO]:
    if not paths:
        yield files.enter_context(FileIO(0, "rb", closefd=False))
    for path in paths:
        yield files.enter_context(FileIO(path, "rb"))


def _items(sources: Iterator[FileIO], wanted: Wanted) -> Iterator[bytes]:
    """Yield the items: what was read is passed on before more is waited for."""
    for source in sources:
        if wanted.split == "block":
            yield from _blocks(source, wanted.block)
        else:
            yield from _cut(source, b"\0" if wanted.split == "null" else b"\n")


def _cut(source: FileIO, end: bytes) -> Iterator[bytes]:
    """Yield items with their ends; the last may have none."""
    rest: list[bytes] = []
    while data := source.read(_READ):
        head, found, tail = data.rpartition(end)
        if not found:
            rest.append(data)
            continue
        whole = b"".join([*rest, head])
        rest = [tail] if tail else []
        for item in whole.split(end):
            yield item + end
    if rest:
        yield b"".join(rest)


def _blocks(source: FileIO, size: int) -> Iterator[bytes]:
    """Yield blocks of whole lines, of about `size` bytes; a longer line is a block of its own."""
    rest = b""
    while data := source.read(size):
        head, found, tail = data.rpartition(b"\n")
        if not found:
            rest += data
            continue
        yield rest + head + found
        rest = tail
    if rest:
        yield rest


# --- showing --------------------------------------------------------------------------------------


class _Shown:
    """Bars of a swarm on a terminal, kept up to date by a thread."""

    def __init__(self, console: Console, swarm: Swarm) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[items]:>12,} items {task.fields[rate]}"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=console, transient=False)
        self._swarm = swarm
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="venvoy-feed-progress", daemon=True)
        self._tasks: list[Any] = []

    def __enter__(self) -> None:
        self._progress.start()
        self._tasks.append(self._progress.add_task("all", total=None, items=0, rate=""))
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self._update()
        self._progress.stop()

    def _run(self) -> None:
        while not self._stop.wait(_REFRESH):
            self._update()

    def _update(self) -> None:
        report = self._swarm.report
        seconds = max(report.seconds, 1e-3)
        rate = f"{report.items / seconds:>12,.0f} items/s {report.written / seconds / 1e6:>8,.1f} MB/s"
        self._progress.update(self._tasks[0], items=report.items, rate=rate)
        for process in report.processes:
            if process.id + 1 >= len(self._tasks):
                self._tasks.append(self._progress.add_task(f"process {process.id}", total=1, items=0, rate=""))
            share = process.items / max(report.items, 1)
            self._progress.update(self._tasks[process.id + 1], completed=share, items=process.items, rate="")


# --- in the background ----------------------------------------------------------------------------


def detach(wanted: Wanted, arguments: Sequence[str], log: Path | None, pid_file: Path | None) -> str:
    """Run the same command line in a session of its own; return in words where it is to be found.

    Args:
        wanted: checked here, where somebody sees what is wrong with it.
        arguments: of `venvoy`, without `--detach`.
        log: gets its outputs.
        pid_file: gets its process id.
    """
    _swarm(wanted)
    log = log or Path(f"venvoy-feed-{os.getpid()}.log")
    pid_file = pid_file or Path(f"venvoy-feed-{os.getpid()}.pid")
    command = [sys.executable, "-c", "from venvoy.cli import main; main()", *arguments]
    stdin = None if not wanted.files else subprocess.DEVNULL
    with open(log, "ab") as output:
        process = subprocess.Popen(command, stdin=stdin, stdout=output, stderr=output, start_new_session=True)
    process.returncode = 0  # it outlives us: nobody here waits for it
    pid_file.write_text(f"{process.pid}\n")
    return f"process {process.pid}, log {log}, pid file {pid_file}"
