"""`WorkerOptions(sources=)` and `Pool.define`: source texts that every worker of a pool has."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]

HELPERS = "FACTOR = 3\ndef scaled(n): return FACTOR * n\n"
SERVICE = """
class Scaler:
    def __init__(self, n):
        self.n = n


def serve(n):
    return scaled(n) + 1

def fail(n):
    raise ValueError(n)  # on purpose
"""


@pytest.fixture
def make_with(make_pool: MakePool) -> Callable[..., vv.Pool]:
    """Make a pool whose workers have these sources."""
    return lambda *sources, options=None, **rest: make_pool(options={"sources": sources, **(options or {})}, **rest)


def test_texts_share_one_namespace_in_which_bare_names_are_found(
    make_with: Callable[..., vv.Pool], interpreters: list[str]
) -> None:
    """In order, on every CPython, for calls, maps and submits; on workers that are started later too."""
    for python in interpreters:
        pool = make_with(HELPERS, SERVICE, env=vv.EnvSpec.existing(python), workers=1)
        assert pool.call("serve", 5) == 16
        assert list(pool.map("scaled", range(3))) == [0, 3, 6]
        with pytest.raises(vv.WorkerCrashed):
            pool.call("os:_exit", 1)
        assert pool.submit("serve", 1).result(20) == 4
        assert pool.eval("__import__('venvoy_sources').FACTOR") == 3
        with pytest.raises(vv.TargetNotFound, match="did you mean 'scaled'"):
            pool.call("scaledd", 1)


def test_names_of_the_sources_come_before_those_of_the_module(make_with: Callable[..., vv.Pool]) -> None:
    """And both are found."""
    pool = make_with("def double(x): return 'ours'", module="poolwork", workers=1)
    assert pool.call("double", 1) == "ours"
    assert pool.call("capture", 1) == ((1,), {})
    assert pool.call("poolwork:double", 1) == 2


def test_an_initializer_may_be_one_of_them(make_with: Callable[..., vv.Pool]) -> None:
    """They are loaded before it."""
    pool = make_with("seen = []\ndef begin(n): seen.append(n)\ndef tell(): return seen", workers=1, options={
        "initializer": "begin", "initializer_args": [7],
    })  # fmt: skip
    assert pool.call("tell") == [7]


def test_files_are_read_with_their_encoding_and_named_in_errors(
    make_with: Callable[..., vv.Pool], tmp_path: Path
) -> None:
    """A path is a file; errors at run time show its line."""
    path = tmp_path / "helpers.py"
    path.write_bytes(b"# coding: latin-1\nname = '\xe4'\ndef fail():\n    raise KeyError(name)  # here\n")
    pool = make_with(path, workers=1)
    with pytest.raises(KeyError, match="ä") as caught:
        pool.call("fail")
    assert f'File "{path}", line 4, in fail\n    raise KeyError(name)  # here' in str(caught.value.__cause__)


def test_errors_show_the_text_where_it_stands(make_pool: MakePool) -> None:
    """In this very file; or under a name that was given with it."""
    given = ("def given():\n    return 1 / 0\n", "shop/given.py")
    pool = make_pool(workers=1, options={"sources": vv.WorkerOptions(sources=[HELPERS, SERVICE, given]).sources})
    line = Path(__file__).read_text().splitlines().index("    raise ValueError(n)  # on purpose") + 1
    with pytest.raises(ValueError, match="1") as caught:
        pool.call("fail", 1)
    assert f'File "{__file__}", line {line}, in fail' in str(caught.value.__cause__)
    with pytest.raises(ZeroDivisionError) as caught_too:
        pool.call("given")
    assert 'File "shop/given.py", line 2, in given\n    return 1 / 0' in str(caught_too.value.__cause__)


@pytest.mark.parametrize(
    ("text", "what"), [("x = = 1", "SyntaxError"), ("\n\nmissing_name", "line 3"), ("import sys; sys.exit(3)", "exit")]
)
def test_a_source_that_cannot_be_run_is_why_the_worker_does_not_start(
    make_with: Callable[..., vv.Pool], text: str, what: str
) -> None:
    """With its text, file and line."""
    pool = make_with("ok = 1", (text, "app/bad.py"), workers=1)
    with pytest.raises(vv.WorkerStartError) as caught:
        pool.warm()
    assert what.lower() in str(caught.value).lower() + str(caught.value.__cause__).lower()
    assert "app/bad.py" in str(caught.value) + str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        ("x = 1", TypeError, "sources is a list"),
        ([5], TypeError, r"sources\[0\]"),
        (["x = 1", None], TypeError, r"sources\[1\]"),
        ([__file__], ValueError, "use pathlib.Path"),
        ([Path("/no/such/file.py")], OSError, "No such file"),
    ],
)
def test_what_is_no_source_is_refused_at_once(given: Any, kind: type[Exception], text: str) -> None:
    """Before anything is started."""
    with pytest.raises(kind, match=text):
        vv.WorkerOptions(sources=given)


# --- define -----------------------------------------------------------------------------------------------------------


def test_a_definition_reaches_all_workers_now_and_later(make_with: Callable[..., vv.Pool], tmp_path: Path) -> None:
    """Idle ones, named ones, those that are started afterwards; each runs a text once."""
    pool = make_with("loads = []", workers=2)
    pool.warm()
    alice = pool.named("alice")
    pool.define(f"loads.append(1)\nopen({str(tmp_path)!r} + '/' + str(__import__('os').getpid()), 'a').write('x')")
    pool.define("def count():\n    return len(loads)")
    with pool.leases(2) as leases:
        assert [lease.call("count") for lease in leases] == [1, 1]
        assert [lease.call("count") for lease in leases] == [1, 1]
    assert alice.call("count") == 1
    assert pool.named("bob").call("count") == 1
    with pytest.raises(vv.WorkerCrashed):
        pool.call("os:_exit", 1)
    assert pool.reload() == 2
    assert set(pool.map("count_of", range(4), return_exceptions=True)).__len__() == 4
    assert {pool.call("count") for _ in range(4)} == {1}
    assert {path.read_text() for path in tmp_path.iterdir()} == {"x"}


def test_a_worker_in_the_middle_of_a_call_sees_it_with_its_next_one(make_pool: MakePool, tmp_path: Path) -> None:
    """define() does not wait for it."""
    pool = make_pool(workers=2)
    go = tmp_path / "go"
    with pool.lease() as busy:
        future = busy.submit("poolwork:wait_for", str(go))
        pool.define("def news(): return 'new'")
        assert not future.done()
        go.touch()
        assert busy.call("news") == "new"


def test_calls_that_are_sent_ahead_come_after_the_definition(make_pool: MakePool) -> None:
    """Whatever road a call takes: directly, through the queue, with a deadline, in a map."""
    pool = make_pool(workers=2)
    for number in range(20):
        pool.define(f"def number(_=None): return {number}")
        futures = [pool.submit("number") for _ in range(20)]
        assert {future.result(20) for future in futures} == {number}
        assert set(pool.map("number", range(50))) == {number}
        assert pool.options(timeout=20).submit("number").result() == number
        assert pool.call("number") == number


def test_what_cannot_be_parsed_is_refused_before_anything_happens(make_pool: MakePool) -> None:
    """By the host, with the caller's line."""
    pool = make_pool(workers=1)
    pool.warm()
    done = pool.stats().calls_done
    with pytest.raises(SyntaxError) as caught:
        pool.define("""
def f():
    return = 1
""")
    assert caught.value.filename == __file__
    assert caught.value.lineno == Path(__file__).read_text().splitlines().index("    return = 1") + 1
    assert pool.stats().calls_done == done
    with pytest.raises(TypeError, match="source text"):
        pool.define(5)  # type: ignore[arg-type]


def test_what_the_text_raises_is_raised_and_leaves_no_name(make_pool: MakePool) -> None:
    """In no worker; the next definition is as if it had never been."""
    pool = make_pool(workers=1)
    pool.define("a = 1\ndef names(): return sorted(n for n in globals() if len(n) == 1)")
    with pytest.raises(ZeroDivisionError) as caught:
        pool.define("b = 2\na = 5\nc = 1 / 0")
    assert "c = 1 / 0" in str(caught.value.__cause__)
    assert pool.call("names") == ["a"]
    pool.define("d = a")
    assert pool.call("names") == ["a", "d"]
    assert pool.eval("__import__('venvoy_sources').d") == 1


def test_a_text_that_ends_its_worker_is_named_in_the_error(make_pool: MakePool) -> None:
    """By what was called; no other worker learns of it, and the next definition is as if it had never been."""
    pool = make_pool(workers=1)
    with pytest.raises(vv.WorkerCrashed, match=r"while it ran define\('import os; os\._exit\(3\)'\)"):
        pool.define("import os; os._exit(3)")
    pool.define("def after(): return 'here'")
    assert pool.call("after") == "here"


def test_several_threads_may_define_at_once(make_pool: MakePool) -> None:
    """Each text is there afterwards, on each worker."""
    pool = make_pool(workers=2)
    threads = [threading.Thread(target=pool.define, args=(f"v{n} = {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with pool.leases(2) as leases:
        for lease in leases:
            assert lease.eval("[getattr(__import__('venvoy_sources'), f'v{n}') for n in range(8)]") == list(range(8))


def test_objects_of_classes_defined_there_come_in_their_plain_form(make_with: Callable[..., vv.Pool]) -> None:
    """Nobody else can import their module."""
    pool = make_with(SERVICE, workers=1)
    with pytest.raises(vv.EncodingError):
        pool.call("Scaler", 5)
    pool.define("import dataclasses\n@dataclasses.dataclass\nclass Point:\n    x: int")
    point = pool.call("Point", 5)
    assert (point.x, point.type_name) == (5, "venvoy_sources.Point")


def test_a_closed_pool_takes_no_definition(make_pool: MakePool) -> None:
    """As it takes no call."""
    pool = make_pool(workers=1)
    pool.close(0)
    with pytest.raises(vv.PoolClosed):
        pool.define("x = 1")


def test_workers_that_are_forked_from_a_template_have_the_sources_too(make_with: Callable[..., vv.Pool]) -> None:
    """And what is defined later."""
    pool = make_with(HELPERS, options={"start": "zygote"}, workers=2)
    pool.define(SERVICE)
    assert pool.call("serve", 5) == 16
    with pytest.raises(vv.WorkerCrashed):
        pool.call("os:_exit", 1)
    with pool.leases(2) as leases:
        assert [lease.call("serve", 1) for lease in leases] == [4, 4]
