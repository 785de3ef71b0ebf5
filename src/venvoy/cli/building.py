"""How the command line shows several builds at once: lines that move on a terminal, plain ones elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from venvoy.envs import Progress as Step


class Reporter:
    """Shows the steps of several builds; call it with a name and a step, of which "done" is the last.

    Args:
        console: where to.
        progress: moves the lines; None prints only what is done.
        names: of the builds.
    """

    def __init__(self, console: Console, progress: Progress | None, names: Iterable[str]) -> None:
        self._console = console
        self._progress = progress
        self._tasks = {name: progress.add_task(name, total=1, step="") for name in names} if progress else {}

    def close(self) -> None:
        """Show no more."""
        if self._progress is not None:
            self._progress.stop()

    def __call__(self, name: str, step: Step) -> None:
        """Show one step of one build."""
        if self._progress is not None:
            done = 1 if step.phase == "done" else 0
            self._progress.update(self._tasks[name], step=step.message[:90], completed=done)
        elif step.phase == "done":
            self._console.print(f"   {name}: {step.message}")


@contextmanager
def reporter(console: Console, names: Iterable[str], is_kept: bool = True) -> Iterator[Reporter]:
    """Show builds as long as the block lasts; whether their lines stay afterwards is `is_kept`."""
    if not console.is_terminal:
        yield Reporter(console, None, names)
        return
    columns = (
        SpinnerColumn(finished_text="•"),
        "{task.description}:",
        TextColumn("{task.fields[step]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=not is_kept) as progress:
        yield Reporter(console, progress, names)
