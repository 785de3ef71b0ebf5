"""`eval` and `exec`: expressions, statements with `return` and `await`, whose errors point into the caller's file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]

TEXT_OF_SEVERAL_LINES = """
first = 1
second = first + not_there
"""


@pytest.fixture(scope="module")
def pools(interpreters: list[str], patience: float) -> Iterator[list[vv.Pool]]:
    """A pool of one on every CPython of the machine."""
    made = [vv.Pool(vv.EnvSpec.existing(python), workers=1) for python in interpreters]
    for pool in made:
        pool.warm()
    yield made
    for pool in made:
        pool.close(patience)


@pytest.fixture
def pool(make_pool: MakePool) -> vv.Pool:
    """One worker."""
    return make_pool(workers=1)


def line_of_call() -> int:
    """Return the number of the caller's line."""
    return inspect.stack()[1].lineno


def trace_of(call: Callable[[], object]) -> str:
    """Return the remote traceback of what a call raises."""
    with pytest.raises(BaseException) as caught:
        call()
    return str(caught.value.__cause__)


RETURNING = """
    import os.path as path

    async def twice(n):
        await asyncio.sleep(0)
        return 2 * n

    import asyncio
    total: int = 0
    for number in range(3):
        total += await twice(number)
    with open(path.devnull) as file:
        pass
    try:
        1 / 0
    except ZeroDivisionError as error:
        reason = str(error)
    if (walrus := [n for n in range(2)]):
        del file
        return total, reason, walrus
"""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a + 1", 3),
        ("[n * a for n in range(3)]", [0, 2, 4]),
        ("return a", 2),
        ("b = a\nreturn b + 1", 3),
        ("if a:\n    return 'yes'\nreturn 'no'", "yes"),
        ("await __import__('asyncio').sleep(0, a)", 2),
        ("import asyncio\nreturn await asyncio.sleep(0, a)", 2),
        ("import asyncio\nasync with asyncio.Semaphore(a) as s: return s", None),
        ("def f():\n    return 5\nreturn f()", 5),
        ("return [await f async for f in a] if a is None else (lambda: a)()", 2),
        (RETURNING, (6, "division by zero", [0, 1])),
    ],
)
def test_a_text_gives_its_value_on_every_python(pools: list[vv.Pool], text: str, value: object) -> None:
    """An expression is its value, statements are what they return."""
    assert [pool.eval(text, a=2) for pool in pools] == [value] * len(pools)


def test_statements_without_a_return_give_none(pools: list[vv.Pool]) -> None:
    """With `await` at the top level too; definitions and imports of all kinds are allowed then."""
    text = "from math import *\nimport asyncio\nawait asyncio.sleep(0)\nx: int = floor(1.5)"
    for pool in pools:
        assert pool.exec("x = 1") is None
        assert pool.exec(text) is None
        assert pool.exec("return 3") == 3


def test_names_are_kept_whether_a_text_returns_or_not(pools: list[vv.Pool]) -> None:
    """On a lease; whatever binds them: assignments, loops, imports, definitions, `with`, `:=`."""
    for pool in pools:
        with pool.lease() as worker:
            assert worker.eval(RETURNING) == (6, "division by zero", [0, 1])
            assert worker.eval("(number, total, walrus, path.sep, reason)") == (2, 6, [0, 1], "/", "division by zero")
            assert worker.eval("total += 1\nreturn await twice(total)") == 14
            with pytest.raises(NameError):
                worker.eval("file")
        with pool.lease() as worker, pytest.raises(NameError):
            worker.eval("total")


def test_a_named_worker_keeps_names_and_its_event_loop(pool: vv.Pool) -> None:
    """What belongs to a loop, such as a lock or a task, works in later texts."""
    alice = pool.named("alice")
    alice.exec("import asyncio\nqueue = asyncio.Queue()\nasync def feed():\n    await queue.put(5)")
    alice.exec("task = asyncio.ensure_future(feed())\nawait asyncio.sleep(0)")
    assert alice.eval("await queue.get()") == 5
    assert alice.eval("task.done()") is True


def test_an_awaiting_text_can_be_stopped_and_the_worker_goes_on(pool: vv.Pool) -> None:
    """Its `finally` runs; nothing of it is left in the loop of a lease."""
    text = "try:\n    await asyncio.sleep(60)\nfinally:\n    ends.append(1)"
    named = pool.named("n", grace_period=5.0)
    named.exec("import asyncio\nends = []")
    pid = named.pid
    with pytest.raises(vv.CallTimeout):
        named.options(timeout=0.5).exec(text)
    assert named.eval("ends, len(asyncio.all_tasks(asyncio.get_event_loop_policy().new_event_loop()))") == ([1], 0)
    assert named.pid == pid


# --- where errors are shown -------------------------------------------------------------------------------------------


def test_an_error_shows_the_line_of_the_text_in_the_callers_file(pools: list[vv.Pool]) -> None:
    """In one line with the call, below it, and indented as the code around it."""
    for pool in pools:
        line = line_of_call() + 1
        trace = trace_of(lambda pool=pool: pool.eval("1 + not_there"))  # type: ignore[misc]
        assert f'File "{__file__}", line {line}, in' in trace
        assert 'pool.eval("1 + not_there")' in trace
        line = line_of_call() + 4
        text = trace_of(lambda pool=pool: pool.exec("""
            import math
            math.floor(1)
            not_there
        """))  # type: ignore[misc]  # fmt: skip
        assert f'File "{__file__}", line {line}, in <module>\n    not_there\n' in text


def test_a_text_that_stands_elsewhere_in_the_file_is_found_there(pool: vv.Pool) -> None:
    """Such as a constant of several lines."""
    line = Path(__file__).read_text().splitlines().index("second = first + not_there") + 1
    trace = trace_of(lambda: pool.exec(TEXT_OF_SEVERAL_LINES))
    assert f'File "{__file__}", line {line}, in' in trace
    assert "    second = first + not_there\n" in trace


def test_a_text_that_is_in_no_file_is_shown_with_its_own_lines_and_the_place_of_the_call(pools: list[vv.Pool]) -> None:
    """Such as one that was made a moment ago; functions it defines too, when they fail later."""
    for pool in pools:
        line = line_of_call() + 1
        trace = trace_of(lambda pool=pool: pool.exec("\n".join(["x = 1", "x / 0  # here"])))  # type: ignore[misc]
        assert f'File "<exec at {__file__}:{line}>", line 2, in <module>\n    x / 0  # here\n' in trace
        with pool.lease() as worker:
            worker.exec("\n".join(["def divide(n):", "    return n / 0  # there"]))
            trace = trace_of(lambda worker=worker: worker.eval("divide(1)"))  # type: ignore[misc]
            assert "line 2, in divide\n    return n / 0  # there\n" in trace


def test_marks_point_at_the_code_in_the_callers_line(pool: vv.Pool) -> None:
    """The columns are those of the file, not of the text, also behind letters of several bytes."""
    trace = trace_of(lambda: pool.eval("1 + ä" if "ö" else ""))
    _, line, marks, *_ = trace[trace.index(f'"{__file__}"') :].splitlines()
    assert [line[place] for place, mark in enumerate(marks) if mark in "^~"] == ["ä"]


def test_syntax_errors_name_the_callers_line(pool: vv.Pool) -> None:
    """With what is wrong; eval() says what it takes."""
    with pytest.raises(SyntaxError) as caught:
        pool.exec("""
            a = 1
            b = = 2
        """)
    assert caught.value.filename == __file__
    assert caught.value.lineno == Path(__file__).read_text().splitlines().index("            b = = 2") + 1
    with pytest.raises(SyntaxError, match="takes an expression, or statements with a return"):
        pool.eval("x = 1")
    with pytest.raises(SyntaxError, match="'yield' outside function"):
        pool.exec("yield 1\nreturn")


def test_the_caller_is_found_from_a_notebook_cell_too(pool: vv.Pool) -> None:
    """Its lines are known to the host only, by `linecache`, so the worker is told which text stands where."""
    import linecache

    cell = 'pad = 1\ndef run(worker):\n    return worker.eval("""\n        a = 1\n        return a / 0""")\n'
    linecache.cache["/cells/17.py"] = (len(cell), None, cell.splitlines(True), "/cells/17.py")
    namespace: dict[str, Any] = {}
    exec(compile(cell, "/cells/17.py", "exec"), namespace)
    trace = trace_of(lambda: namespace["run"](pool))
    assert 'File "/cells/17.py", line 5, in' in trace
    assert "return a / 0" in trace


def test_a_text_is_compiled_once(pool: vv.Pool) -> None:
    """Later calls from the same line find it compiled; many texts are not kept for ever."""
    for number in range(600):
        assert pool.eval(f"{number} + 1") == number + 1
    count = "len(__import__('sys').modules['venvoy_worker.runtime.snippets']._compiled)"
    counts = [pool.eval(count) for _ in range(3)]
    assert counts[0] <= 257
    assert counts[0] == counts[1] == counts[2]
