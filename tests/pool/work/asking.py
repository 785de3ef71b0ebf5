"""What tests of callbacks, progress and streams run in workers of any version."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import venvoy_worker

kept: list[Any] = []  # what calls leave behind for later ones


def each(function: Callable[..., Any], count: int) -> list[Any]:
    return [function(index) for index in range(count)]


def outcome(function: Callable[..., Any], *args: Any) -> tuple[str, list[str], str, str]:
    """Return name, bases, text and cause of what a function raises."""
    try:
        function(*args)
    except Exception as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        return type(error).__name__, kinds, str(error), str(error.__cause__)
    return "", [], "", ""


def exposed(name: str, *args: Any, **kwargs: Any) -> Any:
    return venvoy_worker.host(name)(*args, **kwargs)


def from_threads(function: Callable[..., Any], count: int) -> list[Any]:
    """Call a function from many threads at once while the main thread waits for them."""
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda i=i: answers.append(function(i))) for i in range(count)]  # type: ignore
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return sorted(answers)


def leave_asking(function: Callable[..., Any], count: int, size: int) -> bytes:
    """Return so many bytes as soon as one of many threads has its answer; the others get none."""
    began = threading.Event()

    def ask(number: int) -> None:
        try:
            function(number)
        except RuntimeError:
            pass
        finally:
            began.set()

    for number in range(count):
        threading.Thread(target=ask, args=(number,), daemon=True).start()
    began.wait(20)
    return bytes(size)


def beside_a_thread(function: Callable[..., Any], count: int) -> tuple[list[Any], list[Any]]:
    """Call a function from the main thread and from another at the same time."""
    there: list[Any] = []
    thread = threading.Thread(target=lambda: there.extend(function(-i) for i in range(count)))
    thread.start()
    here = [function(i) for i in range(count)]
    thread.join(20)
    return here, there


def keep(function: Callable[..., Any]) -> None:
    kept[:] = [function]


def use_kept(*args: Any) -> Any:
    return kept[0](*args)


def ask_late(function: Callable[..., Any]) -> None:
    """Leave a thread behind that waits for an answer when its call has ended."""

    def run() -> None:
        try:
            kept.append(function())
        except RuntimeError as error:
            kept.append(str(error))

    kept.clear()
    threading.Thread(target=run).start()


def what_is_kept() -> list[Any]:
    return list(kept)


def cleanly(function: Callable[..., Any]) -> None:
    """Note how the wait for an answer ends."""
    kept[:] = ["waiting"]
    try:
        function()
    except BaseException as error:
        kept[:] = [type(error).__name__]
        raise


def slow_count(count: int, seconds: float, total: float | None = None) -> str:
    for index in range(count):
        venvoy_worker.progress(index, total, f"step {index}")
        time.sleep(seconds)
    return "counted"


def report_from_threads() -> str:
    thread = threading.Thread(target=venvoy_worker.progress, args=(7,))
    thread.start()
    thread.join()
    return "reported"


def one_report_then(seconds: float) -> None:
    venvoy_worker.progress(1)
    venvoy_worker.progress(2)
    time.sleep(seconds)


def bad_progress() -> None:
    venvoy_worker.progress("half")  # type: ignore


def report_and_die() -> None:
    venvoy_worker.progress(1, 2)
    time.sleep(0.2)
    import os

    os._exit(3)
