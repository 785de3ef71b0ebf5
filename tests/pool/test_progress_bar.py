"""`progress_bar()`: lines of text where nobody watches, a bar on a terminal."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable

import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]


def test_lines_of_text_are_written_where_no_terminal_is() -> None:
    """The first and the last state at least, with what was said."""
    file = io.StringIO()
    with vv.progress_bar("rows", file=file) as bar:
        for done in range(5000):
            bar((done + 1, 5000, "half [bold]" if done < 2500 else "rest"))
    lines = file.getvalue().splitlines()
    assert lines[0] == "rows: 0"
    assert lines[-1] == "rows: 5000 of 5000 (100%)  rest"
    assert len(lines) < 10


def test_what_is_iterated_over_is_counted() -> None:
    """Its length is the total, or what is given; it is yielded as it is."""
    for options, results, last in [
        ({}, [1, 2, 3], "3 of 3 (100%)"),
        ({"total": 4}, iter([1, 2]), "2 of 4 (50%)"),
        ({}, iter([1, 2]), "2"),
    ]:
        file = io.StringIO()
        with vv.progress_bar(file=file, **options) as bar:  # type: ignore[arg-type]
            assert list(bar.track(results)) == [1, 2, 3][: 2 + (last[0] == "3")]  # type: ignore[arg-type]
        assert file.getvalue().splitlines()[-1] == last


def test_a_map_is_tracked(make_pool: MakePool) -> None:
    """`track` takes what `map` gives."""
    pool = make_pool(workers=2)
    file = io.StringIO()
    with vv.progress_bar("squares", total=20, file=file) as bar:
        assert list(bar.track(pool.map("math:sqrt", [4] * 20))) == [2.0] * 20
    assert file.getvalue().splitlines()[-1] == "squares: 20 of 20 (100%)"


def test_a_bar_ends_with_its_block() -> None:
    """Also by an error; what comes late is ignored; a wrong total is refused."""
    file = io.StringIO()
    try:
        with vv.progress_bar(file=file) as bar:
            bar((1, None, ""))
            raise LookupError
    except LookupError:
        pass
    bar((2, None, ""))
    assert file.getvalue().splitlines() == ["0", "1"]
    with pytest.raises(ValueError, match="total"):
        vv.progress_bar(total=-1)


SCRIPT = """
import sys
import venvoy as vv
with vv.progress_bar("label", total=3) as bar:
    for _ in bar.track([1, 2, 3]):
        pass
    bar((3, 3, "all [done]"))
print("rich" in sys.modules)
"""


@pytest.mark.parametrize("is_terminal", [True, False])
def test_rich_is_imported_for_a_terminal_only(is_terminal: bool) -> None:
    """There it draws a bar; brackets in a message are text."""
    ours, theirs = pty.openpty() if is_terminal else os.pipe()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, stderr=theirs, timeout=60)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65_536):
            shown += piece
    except OSError:  # the terminal's other end is closed
        pass
    os.close(ours)
    assert done.returncode == 0, shown
    assert done.stdout.decode().strip() == str(is_terminal)
    assert "all [done]" in shown.decode()
    assert ("3/3" in shown.decode()) == is_terminal


def steps(count: int) -> str:
    """Say how far it is."""
    import venvoy_worker

    for done in range(count):
        venvoy_worker.progress(done + 1, count, "step")
    return "done"


def test_a_long_call_shows_how_far_it_is(make_pool: MakePool) -> None:
    """`options(on_progress=bar)`, for calls and for futures; the last state is shown."""
    pool = make_pool(workers=1)
    file = io.StringIO()
    with vv.progress_bar("steps", file=file) as bar:
        assert pool.options(on_progress=bar).call(vv.by_source(steps), 300) == "done"
    assert file.getvalue().splitlines()[-1] == "steps: 300 of 300 (100%)  step"
    file = io.StringIO()
    with vv.progress_bar("steps", file=file) as bar:
        assert pool.options(on_progress=bar).submit(vv.by_source(steps), 300).result(20) == "done"
    assert file.getvalue().splitlines()[0] == "steps: 0"
