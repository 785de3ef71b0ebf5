"""`progress_bar()`: how far a map or a long call is: a bar on a terminal or in a notebook, lines of text anywhere else.

A bar owns its display, and the newest state it was told, under one lock, since several threads may report.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator, Sized
from time import monotonic
from types import TracebackType
from typing import Any, Self, TextIO, TypeVar

T = TypeVar("T")
_PAUSE, _CELL_PAUSE = 1.0, 0.1  # seconds between two lines of text, and two looks of a notebook's
_WIDTH = 40  # characters of a notebook's bar


class ProgressBar:
    """A display for a `with` block; made by `progress_bar()`. It is what `options(on_progress=)` takes.

    Args:
        label: what is going on.
        total: of what is tracked, where that is known.
        file: where to show it.
    """

    def __init__(self, label: str, total: float | None, file: TextIO) -> None:
        self._label = label
        self._total = total
        self._file = file
        self._lock = threading.Lock()  # guards the display and the two below
        self._done = 0.0
        self._display: _Bar | _Cell | _Lines | None = None

    def __enter__(self) -> Self:
        make = _Bar if self._file.isatty() else _Cell if _is_of_notebook(self._file) else _Lines
        self._display = make(self._label, self._file)
        self._display.show(0, self._total, "")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            display, self._display = self._display, None
            if display is not None:
                display.end()

    def __call__(self, progress: tuple[float, float | None, str]) -> None:
        """Show how far a call is: (done, total or None, message)."""
        done, total, message = progress
        with self._lock:
            self._done = done
            if self._display is not None:  # else it comes late: the block has been left
                self._display.show(done, self._total if total is None else total, message)

    def track(self, results: Iterable[T], total: float | None = None) -> Iterator[T]:
        """Yield what an iterable yields, and show how many there were.

        Args:
            results: any iterable.
            total: how many there will be; by default its length, if it has one, or that of the bar.
        """
        if total is None:
            total = self._total
        if total is None and isinstance(results, Sized):
            total = len(results)
        for count, result in enumerate(results, 1):
            yield result
            self((count, total, ""))


def progress_bar(label: str = "", total: float | None = None, *, file: TextIO | None = None) -> ProgressBar:
    """Return a display of how far a map or a long call is, for a `with` block.

    On a terminal it is a bar, by rich, and in a notebook one below the cell; elsewhere it is a line of text at most
    once a second.

    Args:
        label: what is going on.
        total: of what is done, where neither the call nor the iterable says it.
        file: where to show it; by default stderr.

    Raises:
        ValueError: the total is negative.

    Examples:
        >>> with vv.Pool() as pool, vv.progress_bar("roots", total=3) as bar:
        ...     list(bar.track(pool.map("math:sqrt", [1, 4, 9])))
        [1.0, 2.0, 3.0]
    """
    if total is not None and total < 0:
        raise ValueError(f"total is a number from 0 up, or None, not {total!r}")
    return ProgressBar(label, total, sys.stderr if file is None else file)


class _Bar:
    def __init__(self, label: str, file: TextIO) -> None:
        from rich.console import Console  # only who sees a bar waits for it
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        label_column = TextColumn("{task.description}", markup=False)  # whatever brackets it has
        message_column = TextColumn("{task.fields[message]}", markup=False)
        columns = (label_column, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), message_column)
        self._progress = Progress(*columns, console=Console(file=file))
        self._task = self._progress.add_task(label, total=None, message="")
        self._progress.start()

    def show(self, done: float, total: float | None, message: str) -> None:
        self._progress.update(self._task, completed=done, total=total, message=message)

    def end(self) -> None:
        self._progress.stop()


def _is_of_notebook(file: TextIO) -> bool:
    """Whether what is written there appears below a cell of a notebook; IPython is not imported to find out."""
    return "ipykernel" in sys.modules and type(file).__module__.startswith("ipykernel.")


class _Cell:
    """A bar of text below the cell, drawn anew in its place."""

    def __init__(self, label: str, file: TextIO) -> None:
        self._label = label
        self._next = 0.0
        self._unshown = ""
        self._handle: Any = None

    def show(self, done: float, total: float | None, message: str) -> None:
        share = min(1.0, done / total) if total else 0.0
        count = f"{done:g}/{total:g}" if total else f"{done:g}"
        bar = "━" * round(share * _WIDTH)
        self._unshown = f"{self._label} {bar:─<{_WIDTH}} {count} {message}".strip()
        if monotonic() >= self._next:
            self._next = monotonic() + _CELL_PAUSE
            self.end()

    def end(self) -> None:
        from IPython.display import display  # type: ignore[import-not-found,unused-ignore]  # of the kernel around us

        text, self._unshown = self._unshown, ""
        if text and self._handle is None:
            self._handle = display({"text/plain": text}, raw=True, display_id=True)
        elif text:
            self._handle.update({"text/plain": text}, raw=True)


class _Lines:
    def __init__(self, label: str, file: TextIO) -> None:
        self._start = f"{label}: " if label else ""
        self._file = file
        self._next = monotonic()
        self._unshown = ""

    def show(self, done: float, total: float | None, message: str) -> None:
        share = f" of {total:g} ({done / total:.0%})" if total else ""
        self._unshown = f"{self._start}{done:g}{share}{'  ' if message else ''}{message}"
        if monotonic() >= self._next:
            self._next = monotonic() + _PAUSE
            self.end()

    def end(self) -> None:
        line, self._unshown = self._unshown, ""
        if line:
            print(line, file=self._file, flush=True)
