"""What tests of streams run in workers of any version."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

notes: list[Any] = []  # what calls leave behind for later ones


def noted() -> list[Any]:
    return list(notes)


def count(number: int) -> Iterator[int]:
    yield from range(number)


def noting(pause: float = 0.0) -> Iterator[int]:
    """Count for ever, noting how far it came and how it ended."""
    notes[:] = [0, "running"]
    try:
        for number in itertools.count():
            notes[0] = number
            yield number
            time.sleep(pause)
    except BaseException as error:
        notes[1] = type(error).__name__
        raise
    finally:
        notes.append("closed")


async def noting_async() -> AsyncIterator[int]:
    """As `noting`, on an event loop."""
    import asyncio

    notes[:] = [0, "running"]
    try:
        for number in itertools.count():
            notes[0] = number
            yield number
            if number % 50 == 0:
                await asyncio.sleep(0)
    except BaseException as error:
        notes[1] = type(error).__name__
        raise
    finally:
        await asyncio.sleep(0)
        notes.append("closed")


async def count_async(number: int) -> AsyncIterator[int]:
    import asyncio

    for index in range(number):
        if index % 100 == 0:
            await asyncio.sleep(0.001)
        yield index


def chunks(number: int, size: int) -> Iterator[bytes]:
    for index in range(number):
        yield bytes([index % 256]) * size


def mixed() -> Iterator[Any]:
    yield 1
    yield "two"
    yield {"three": [3.0, None]}
    yield ("four", b"4" * 5000)
    yield b"5" * 300_000
    yield {"six": {"deep": [[6]]}}
    yield list(range(1000))


def one_list(number: int) -> Iterator[list[Any]]:
    """Yield the same list again and again, each time with more in it."""
    row: list[Any] = []
    for index in range(number):
        row.append(index)
        yield row


def one_nested_list(number: int) -> Iterator[list[Any]]:
    row: list[Any] = [[]]
    for index in range(number):
        row[0].append(index)
        yield row


def spin(seconds: float) -> Iterator[float]:
    """Yield moments, and then keep the interpreter busy."""
    for _ in range(3):
        yield time.time()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    yield time.time()


def ticks(number: int, seconds: float) -> Iterator[float]:
    for _ in range(number):
        yield time.time()
        time.sleep(seconds)


def fail_after(number: int) -> Iterator[int]:
    yield from range(number)
    raise KeyError(f"after {number}")


def bad_item(number: int) -> Iterator[Any]:
    yield from range(number)
    yield {"lock": [threading.Lock()]}


def die_after(number: int, how: str) -> Iterator[int]:
    yield from range(number)
    time.sleep(0.1)
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL)


def with_callback(function: Any, number: int) -> Iterator[Any]:
    for index in range(number):
        yield function(index)


def doubled(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        yield item + item


def take(items: Iterable[Any], number: int) -> list[Any]:
    return list(itertools.islice(items, number))


def first_error(items: Iterable[Any]) -> tuple[list[Any], str]:
    seen = []
    try:
        for item in items:
            seen.append(item)
    except Exception as error:
        return seen, repr(error)
    return seen, ""


def keep(items: Iterator[Any]) -> None:
    notes[:] = [items]


def next_of_kept() -> Any:
    return next(notes[0])


def die_once(path: str, items: Iterable[Any]) -> list[Any]:
    """Draw, and then die, the first time."""
    first = next(iter(items))
    if not os.path.exists(path):
        Path(path).touch()
        os._exit(1)
    return [first]
