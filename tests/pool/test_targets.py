"""What can be called, and how a wrong name is told from an error of the user's code."""

from __future__ import annotations

import functools
import math
import os.path
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]
RunScript = Callable[..., Any]


@pytest.fixture
def pool(make_pool: MakePool) -> vv.Pool:
    """One worker of the host's own environment, whose module is `poolwork`."""
    return make_pool(module="poolwork", workers=1)


@pytest.fixture
def foreign(make_pool: MakePool, interpreters: list[str]) -> vv.Pool:
    """One worker of the oldest interpreter there is."""
    return make_pool(interpreters[0], "poolwork", workers=1)


@pytest.mark.parametrize(
    ("target", "args", "answer"),
    [
        ("math:sqrt", (9,), 3.0),
        ("os:path.join", ("a", "b"), "a/b"),
        ("os.path:join", ("a", "b"), "a/b"),
        ("collections:OrderedDict.fromkeys", ("a",), {"a": None}),
        ("xml:sax.saxutils.escape", ("<",), "&lt;"),
        ("double", (4,), 8),
        ("Counter.make", (4,), 4),
        ("Counter.plain", (4,), 5),
        ("counter.add", (4,), 9),
        ("builtins:len", ("abc",), 3),
    ],
)
def test_names_are_looked_up_in_the_worker(
    foreign: vv.Pool, target: str, args: tuple[Any, ...], answer: object
) -> None:
    """Modules with attributes, submodules nobody imported yet, bare names of the pool's module."""
    assert foreign.call(target, *args) == answer


@pytest.mark.parametrize(
    ("target", "args", "answer"),
    [
        (math.sqrt, (9,), 3.0),
        (os.path.join, ("a", "b"), os.path.join("a", "b")),
        (len, ("abc",), 3),
        (dict, ([("a", 1)],), {"a": 1}),
        (str.upper, ("abc",), "ABC"),
        ("abc".upper, (), "ABC"),
        ([3, 1, 2].count, (1,), 1),
        (dict.fromkeys, ("a",), {"a": None}),
        (functools.partial(pow, 2), (5,), 32),
        (functools.partial(functools.partial(int, base=2), "11"), (), 3),
        (lambda x: x + 1, (1,), 2),
        (math.pi.__add__, (1.0,), math.pi + 1.0),
    ],
    ids=[
        "builtin", "python", "len", "class", "method of a type", "bound builtin", "bound of a list", "classmethod",
        "partial", "nested partial", "lambda", "method wrapper",
    ],
)  # fmt: skip
def test_callables_are_targets_everywhere(
    foreign: vv.Pool, target: Callable[..., Any], args: tuple[Any, ...], answer: object
) -> None:
    """By name, by value or by source, whichever carries it; also through submit and map."""
    assert foreign.call(target, *args) == answer
    assert foreign.submit(target, *args).result(20) == answer
    if args:
        assert list(foreign.map(target, *[[arg] for arg in args])) == [answer]


def test_nested_functions_and_closures_travel_as_source(foreign: vv.Pool) -> None:
    """With the values they refer to."""
    factor = 3

    def scale(x: int) -> int:
        return x * factor

    assert foreign.call(scale, 4) == 12
    assert list(foreign.map(scale, [1, 2])) == [3, 6]


SIBLING = """
    '''A module beside the script.'''
    import os

    class Shop:
        def __init__(self, stock): self.stock = stock
        def count(self, extra): return self.stock + extra

    def where(): return os.getpid(), __file__
"""
BESIDE = """
    import os, sys
    import venvoy as vv
    import sibling

    if __name__ == "__main__":
        for env in (None, vv.EnvSpec.current()):
            with vv.Pool(env, workers=1) as pool:
                pid, file = pool.call(sibling.where)
                assert pid != os.getpid() and file == sibling.__file__, file
                assert pool.call("sibling:where")[1] == file
                assert pool.call(sibling.Shop(4).count, 5) == 9
                assert pool.module("sibling").where()[1] == file
                print("found")
        with vv.Pool(sys.argv[1], workers=1) as pool:
            path = pool.eval("__import__('sys').path")
            assert os.path.dirname(sibling.__file__) not in path, path
            assert not set(path) & (set(sys.path) - {""}) or sys.argv[1] == sys.executable, path
            try:
                pool.call(sibling.where)
            except vv.TargetNotFound as error:
                text = str(error)
                assert "sibling" in text and "paths" in text and "by_source" in text, text
                print("no path")
            assert pool.call(vv.by_source(sibling.where))[0] != os.getpid()
"""


def test_modules_beside_the_script_belong_to_the_hosts_environment_only(
    run_script: RunScript, tmp_path: Path, interpreter: str
) -> None:
    """env=None and EnvSpec.current() find them; other environments get no path of the host, and the error helps."""
    if interpreter == sys.executable:
        pytest.skip("the host's own interpreter is the host's own environment")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "sibling.py").write_text(textwrap.dedent(SIBLING))
    done = run_script(BESIDE, interpreter)
    assert done.stdout.split("\n")[:3] == ["found", "found", "no path"], done.stdout + done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("no_such_module:f", "no_such_module"),
        ("mathh:sqrt", "math"),
        ("os.no_such_part:f", "no_such_part"),
        ("math:sqrtt", "sqrt"),
        ("os:path.joinn", "join"),
        ("doubel", "double"),
        ("Counter.mak", "make"),
        ("counter.nothing", "nothing"),
    ],
)
def test_a_wrong_name_is_target_not_found(foreign: vv.Pool, target: str, words: str) -> None:
    """With close names in the text; it is a LookupError, neither ImportError nor AttributeError."""
    pid = foreign.call("pid")
    with pytest.raises(vv.TargetNotFound, match=words) as caught:
        foreign.call(target)
    assert isinstance(caught.value, LookupError)
    assert not isinstance(caught.value, ImportError | AttributeError)
    assert isinstance(foreign.submit(target).exception(20), vv.TargetNotFound)
    assert foreign.call("pid") == pid


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        ("imports_what_is_missing", ModuleNotFoundError, "a_module_nobody_has"),
        ("reads_what_is_missing", AttributeError, "an_attribute_nobody_has"),
        ("counter.broken", AttributeError, "no_such_attribute"),
        ("poolwork_imports_missing:f", ModuleNotFoundError, "a_module_nobody_has"),
        ("poolwork_broken:f", RuntimeError, "broken on purpose"),
    ],
)
def test_an_error_of_the_users_code_is_no_wrong_name(
    foreign: vv.Pool, target: str, error: type[Exception], words: str
) -> None:
    """In a function, in a property, while its module is imported: the error is what the code raised."""
    with pytest.raises(error, match=words) as caught:
        foreign.call(target)
    assert not isinstance(caught.value, vv.TargetNotFound)


def test_targets_of_each_kind_on_each_python(make_pool: MakePool, interpreter: str) -> None:
    """The same in short on every CPython: found, not found, failed by the user's code, shipped as source."""
    pool = make_pool(interpreter, "poolwork", workers=1)
    assert pool.call("double", 4) == pool.call(lambda x: x * 2, 4) == pool.module("poolwork").double(4) == 8
    assert pool.call(functools.partial(pow, 2), 5) == pool.call("math:pow", 2, 5) == 32
    with pytest.raises(vv.TargetNotFound, match="double"):
        pool.call("doubel", 4)
    with pytest.raises(AttributeError, match="no_such_attribute"):
        pool.call("counter.broken")
    with pytest.raises(ModuleNotFoundError, match="a_module_nobody_has"):
        pool.call("poolwork_imports_missing:f")


def test_a_bare_name_needs_a_module(make_pool: MakePool) -> None:
    """The error names both ways to give one."""
    with pytest.raises(vv.TargetNotFound, match=r"module:double.*Pool\(env"):
        make_pool(workers=1).call("double", 1)


def test_what_is_not_callable_is_a_type_error_that_names_it(foreign: vv.Pool) -> None:
    """And its type."""
    with pytest.raises(TypeError, match=r"not_callable.*not callable.*int"):
        foreign.call("not_callable")


@pytest.mark.parametrize(
    "text", ["", ":", "a:", ":b", "a b:c", "a:b c", "a::b", "a:b:c", "a..b:c", "a:b.", "1:2", "a-b"]
)
def test_text_that_is_no_target_is_refused_before_it_is_sent(pool: vv.Pool, text: str) -> None:
    """A ValueError that shows the form, and no worker is started for it."""
    with pytest.raises(ValueError, match="module:attribute"):
        pool.call(text)
    assert pool.stats().workers_started == 0


@pytest.mark.parametrize("name", ["call", "map", "name", "options", "timeout"])
def test_a_module_handle_has_no_public_names_of_its_own(pool: vv.Pool, name: str) -> None:
    """Remote functions of these names are reached, and a parameter `timeout` is theirs."""
    module = pool.module("poolwork")
    assert getattr(module, name)(1, timeout=2) == ((1,), {"timeout": 2})


def test_a_module_handle_reaches_attributes_of_attributes(pool: vv.Pool) -> None:
    """`handle.attr.sub(x)` is the target "module:attr.sub"; making it costs no call."""
    module = pool.module("poolwork")
    assert module.Counter.make(4) == 4
    assert module.counter.add(1) == 6
    assert pool.module("os.path").join("a", "b") == "a/b"
    assert [name for name in dir(module) if not name.startswith("_")] == []
    assert "poolwork" in repr(module)
    with pytest.raises(vv.TargetNotFound, match="double"):
        module.doubel(4)
    with pytest.raises(TypeError, match="module"):
        module()


@pytest.mark.parametrize("name", ["_private", "__wrapped__", "_repr_html_", "__array__", "__len__", "__iter__"])
def test_a_module_handle_gives_no_private_names(pool: vv.Pool, name: str) -> None:
    """Else inspection, notebooks and numpy would call the worker."""
    with pytest.raises(AttributeError):
        getattr(pool.module("poolwork"), name)
    with pytest.raises(AttributeError):
        getattr(pool.module("poolwork").counter, name)


def test_eval_evaluates_one_expression_with_values(foreign: vv.Pool) -> None:
    """In a namespace of its own each time; its errors are those of the expression."""
    assert foreign.eval("[x * 2 for x in range(n)]", n=3) == [0, 2, 4]
    assert foreign.eval("__import__('sys').version_info[0]") == 3
    assert foreign.eval("text + self", text="a", self="b") == "ab"
    with pytest.raises(NameError):
        foreign.eval("n")
    with pytest.raises(SyntaxError):
        foreign.eval("x = 1")
    with pytest.raises(ZeroDivisionError):
        foreign.eval("1 / 0")
    with pytest.raises(TypeError, match="source text"):
        foreign.eval(5)  # type: ignore[arg-type]
    with pytest.raises(vv.EncodingError):
        foreign.eval("__import__('threading').Lock()")


def test_a_submodule_that_nobody_has_imported_is_found(make_pool: Callable[..., vv.Pool], tmp_path: Path) -> None:
    """As in `"scipy:linalg.norm"`; what its import raises is raised, and a name that is none is told."""
    (tmp_path / "parcel").mkdir()
    (tmp_path / "parcel" / "__init__.py").write_text("")
    (tmp_path / "parcel" / "broken.py").write_text("import no_such_module_anywhere")
    pool = make_pool(options={"paths": [tmp_path]}, workers=1)
    assert pool.call("xml:sax.saxutils.escape", "<") == "&lt;"
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        pool.call("parcel:broken.f")
    with pytest.raises(vv.TargetNotFound, match="'parcel' has no attribute 'brokn'"):
        pool.call("parcel:brokn.f")


def test_a_worker_without_a_place_for_sources_runs_them(tmp_path: Path) -> None:
    """Where the home folder cannot be written; only processes of its own would miss the file."""
    blocked = tmp_path / "home"
    blocked.mkdir()
    (blocked / "sources").write_text("a file where a folder should be")
    with vv.Pool(workers=1, worker=vv.WorkerOptions(output="discard"), home=blocked) as pool:
        assert pool.call(vv.by_source(lambda n: n + 1), 1) == 2
