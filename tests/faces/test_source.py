"""How callables travel: the shipped text is executed by every interpreter at hand, as a worker does it."""

from __future__ import annotations

import base64
import functools
import gc
import importlib.util
import json
import linecache
import math
import operator
import os
import pickle
import random
import subprocess
import sys
import textwrap
import threading
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import venvoy
import venvoy as vv
from venvoy.errors import EncodingError
from venvoy.source import NAME, SOURCE, VALUE, BySource, Target, by_source, target_for

# What a worker does with a target sent as source, and nothing more.
WORKER = """
import base64, json, pickle, sys, traceback, types
for call in json.load(sys.stdin):
    module = types.ModuleType("venvoy_source_" + call["digest"])
    sys.modules[module.__name__] = module
    vars(module).update(pickle.loads(base64.b64decode(call["bindings"])))
    try:
        exec(compile(call["text"], call["filename"], "exec"), vars(module))
        function = module
        for name in call["name"].split(":")[1].split("."):
            function = getattr(function, name)
        answer = repr(eval(call["expression"], {"f": function}))
    except BaseException:
        answer = traceback.format_exc()
    print(json.dumps(answer))
"""

HEAD = """
import base64, json, pickle
from venvoy.source import target_for
def show(make):
    try:
        target = make()
    except Exception as error:
        return {"error": "%s: %s" % (type(error).__name__, error)}
    found = {"kind": target.kind, "name": target.name, "bound": repr((target.bound_args, target.bound_kwargs))}
    if target.source is not None:
        digest, text, filename, bindings = target.source
        found.update(digest=digest, text=text, filename=filename)
        found["bindings"] = base64.b64encode(pickle.dumps(bindings, protocol=4)).decode()
    return found
"""


def interpreters(oldest: int = 8) -> list[str]:
    found = {f"{sys.version_info.major}.{sys.version_info.minor}": sys.executable}
    for python in sorted(Path.home().glob(".pyenv/versions/3.*/bin/python")):
        minor = python.parents[1].name.split(".")[1]
        if minor.isdigit() and int(minor) >= oldest:
            found.setdefault(f"3.{minor}", str(python))
    return list(found.values())


def version(python: str) -> str:
    return Path(python).parents[1].name if python != sys.executable else "host"


def ship(script: Path, body: str, expressions: list[str], host: str = sys.executable) -> list[dict[str, Any]]:
    """Run `body` as a script; the targets (or errors) that `expressions` are, with HEAD in a module beside it."""
    (script.parent / "shipping_head.py").write_text(HEAD)
    tail = "".join(f"    shipping_head.show(lambda: shipping_head.target_for({e})),\n" for e in expressions)
    ending = f"\nimport shipping_head, json as _json\nprint('ANSWER' + _json.dumps([\n{tail}]))\n"
    script.write_text(textwrap.dedent(body) + ending)
    environment = {**os.environ, "PYTHONPATH": str(Path(venvoy.__file__).parents[1])}
    done = subprocess.run([host, str(script)], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout.split("ANSWER")[1])
    return answers


def work(python: str, calls: list[tuple[dict[str, Any], str]]) -> list[str]:
    """What a fresh interpreter answers: for each shipped target the repr of the expression, or the traceback."""
    for call, _ in calls:
        assert "error" not in call, call["error"]
    request = json.dumps([{**call, "expression": expression} for call, expression in calls])
    command = [python, "-I", "-c", WORKER]
    done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


# --- everything that travels, in every interpreter ------------------------------------------------

SCRIPT = '''\
def on_the_first_line(x: "int | None" = 3) -> "list[int]":
    return [x, math.floor(2.5)]
import asyncio, collections, contextlib, functools, logging, math, os.path as osp, pathlib, re, xml
import xml.dom.minidom
from collections import namedtuple
from dataclasses import dataclass, field
from enum import Enum
from functools import partial, wraps
from typing import Generic, List, Optional, TypeVar

FACTOR, TABLE, NOTHING = 10, {"a": (1, [2.5, float("inf")]), None: b"x"}, {1, frozenset([2])}
PATTERN, LOG, HERE = re.compile("a+", re.I), logging.getLogger("shipped"), pathlib.PurePosixPath("/a/b")
Point = namedtuple("Point", "x y")
T = TypeVar("T")
NONE, DOTS, NO = type(None), type(...), type(NotImplemented)

def uses_types_of_constants(): return isinstance(None, NONE), isinstance(..., DOTS), isinstance(NotImplemented, NO)
def scaled(x): return x * FACTOR
def uses_globals(x): return scaled(x), sorted(TABLE["a"][1]), len(NOTHING), TABLE[None]
def uses_modules(): return math.sqrt(16), osp.join("a", "b"), collections.OrderedDict(a=1)["a"]
def uses_submodule(): return xml.dom.minidom.parseString("<a/>").documentElement.tagName
def uses_rebuilt(): return PATTERN.match("AA").end(), LOG.name, HERE.name
def uses_point(): return Point(1, y=2).x

class Base:
    size = FACTOR
    def area(self): return self.size

class Square(Base):
    def __init__(self, side): self.side = side
    def area(self): return super().area() + scaled(self.side)
    @classmethod
    def make(cls, side): return cls(side).area()
    @staticmethod
    def zero(): return FACTOR - 10
    class Inner:
        def tag(self): return "inner"

class Box(Generic[T]):
    def __init__(self, item): self.item = item

class Colour(Enum):
    RED = 1

@dataclass
class Row:
    name: str
    values: List[int] = field(default_factory=list)
    parent: "Optional[Row]" = None

def uses_classes(): return Square(2).area(), Row("r"), Colour.RED.name, Box(3).item, Square.Inner().tag()

def counted(function):
    calls = []
    @wraps(function)
    def wrapper(*args, **kwargs):
        calls.append(1)
        return len(calls), function(*args, **kwargs)
    return wrapper

def plain_wrapper(function):
    def wrapper(x): return "wrapped", function(x)
    return wrapper

def twice(times):
    def decorate(function):
        @counted
        def both(x): return [function(x)] * times
        return both
    return decorate

@counted
def decorated(x): return scaled(x)

@plain_wrapper
def decorated_too(x): return decorated(x)

@twice(2)
def with_arguments(x): return x

@functools.lru_cache(maxsize=None)
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)

@contextlib.contextmanager
def around(x): yield scaled(x)

def uses_context():
    with around(1) as value: return value, decorated(2), decorated_too(3), with_arguments(4)

def is_even(n): return n == 0 or is_odd(n - 1)
def is_odd(n): return n != 0 and is_even(n - 1)

def outer(k, callback=None):
    def inner(x):
        """A text
over lines at the margin."""
        return x + k
    def fact(n): return 1 if n == 0 else n * fact(n - 1)
    def even(n): return n == 0 or odd(n - 1)
    def odd(n): return n != 0 and even(n - 1)
    @functools.lru_cache(maxsize=None)
    def cached(n): return k if n == 0 else cached(n - 1) + 1
    class Local:
        def get(self): return k
    def makes_local(): return Local().get()
    def calls_back(x): return callback(x)
    return dict(locals())

ONE, TWO = outer(1), outer(2, lambda x: outer(5)["inner"](x))
class Holder:
    def helper(self): return 1

def composed(x): return first_inner(x) * second_inner(x)
first_inner, second_inner = outer(100)["inner"], outer(200)["inner"]

def first(f, *rest): return f
double, triple = (lambda x: x * 2), (lambda x: x * 3)
nested = lambda x: (lambda y: x + y + FACTOR)
spread = first(
    1 and (lambda a, *, b=FACTOR,
        c=[1,
           2]:
        (a, b,
         c)),
    lambda: 0,
)
loop = [lambda x, i=i: x * i for i in range(4)]
i = 99
def défaut(é="ü", x=FACTOR): return "ß", é, x
def late_default(key=lambda x: -x, kind=Square, *, scale=scaled): return key(1), kind(1).side, scale(2)

async def coroutine(x): return scaled(x)
def generator(x): yield scaled(x)
def counts():
    global COUNT
    COUNT += 1
    return COUNT
COUNT = 5

def has_missing_name(): return not_there
def attribute_is_no_global(thing): return thing.LOCK, LOCK_NAME
import threading
LOCK, LOCK_NAME = threading.Lock(), "x"

if True:
    def under_if(x):
        return x if x == 0 else under_if(x - 1)

def annotated(x: LOCK, y: "no such thing" = 1) -> unknown_to_all if False else None: return x

from venvoy.source import by_source
@by_source
def marked(n): return 1 if n == 0 else n * marked(n - 1)

adds = partial(partial(scaled), 3)
HANDLERS = {"scaled": scaled, "all": [Square, partial(first, 7)]}
def uses_handlers(): return HANDLERS["scaled"](1), HANDLERS["all"][0].zero(), HANDLERS["all"][1]()
def retry(times, errors=(ValueError, KeyError)):
    def decorate(function):
        @wraps(function)
        def wrapper(*args):
            for _ in range(times):
                try:
                    return "tried", function(*args)
                except errors:
                    pass
            return "gave up"
        return wrapper
    return decorate
@retry(3)
@functools.lru_cache(maxsize=None)
def flaky(x): return 1 if x == 0 else {}[x, flaky.__name__]
nothings = [lambda: None, lambda: 5, lambda: (1, 2)]

def fails(x):
    # a comment
    return helper_fails(
        x
    )

def helper_fails(x):
    return 1 / x
boom = [lambda x: fails(x), lambda x: x]
'''
CLASSES = "(30, Row(name='r', values=[], parent=None), 'RED', 3, 'inner')"
CASES: dict[str, tuple[str, str, Any]] = {
    "a function at the first line, with annotations": ("on_the_first_line", "f(1)", [1, 2]),
    "plain globals and functions of the script": ("uses_globals", "f(2)", (20, [2.5, math.inf], 2, b"x")),
    "imported modules, and aliases of them": ("uses_modules", "f()", (4.0, "a/b", 1)),
    "a submodule imported elsewhere": ("uses_submodule", "f()", "a"),
    "patterns, loggers and paths": ("uses_rebuilt", "f()", (2, "shipped", "b")),
    "types of constants": ("uses_types_of_constants", "f()", (True, True, True)),
    "a class made by a call": ("uses_point", "f()", 1),
    "classes with bases, generics, enums, dataclasses": ("uses_classes", "repr(f())", CLASSES),
    "a class itself": ("Square", "f(3).area()", 40),
    "a nested class": ("Square.Inner", "f().tag()", "inner"),
    "a method as a function": ("Square.area", "f.__globals__['Square'](1).area()", 20),
    "a class method": ("Square.make", "f(1)", 20),
    "a static method": ("Square.zero", "f()", 0),
    "a wraps decorator": ("decorated", "f(1), f(1), f.__name__", ((1, 10), (2, 10), "decorated")),
    "a wrapper without wraps around another one": ("decorated_too", "f(1)", ("wrapped", (1, 10))),
    "a decorator with arguments": ("with_arguments", "f(1)", (1, [1, 1])),
    "lru_cache": ("fib", "f(50), f.cache_info().hits > 0", (12586269025, True)),
    "contextmanager and three decorated helpers": (
        "uses_context",
        "f()",
        (10, (1, 20), ("wrapped", (2, 30)), (1, [4, 4])),
    ),
    "mutual recursion of globals": ("is_even", "f(7), f(8)", (False, True)),
    "a closure": ("ONE['inner']", "f(1)", 2),
    "another closure of the same text": ("TWO['inner']", "f(1)", 3),
    "a recursive closure": ("ONE['fact']", "f(5)", 120),
    "closures that need each other": ("ONE['even']", "f(7), f(8)", (False, True)),
    "a cached closure": ("TWO['cached']", "f(3), f.cache_info().misses", (5, 4)),
    "a closure over a class": ("TWO['makes_local']", "f()", 2),
    "a class inside a function": ("TWO['Local']", "f().get()", 2),
    "a closure over a lambda": ("TWO['calls_back']", "f(1)", 6),
    "two closures of one text together": ("composed", "f(1)", 101 * 201),
    "the first lambda of a line": ("double", "f(2)", 4),
    "the second lambda of a line": ("triple", "f(2)", 6),
    "a lambda with a lambda inside": ("nested", "f(1)(2)", 13),
    "the lambda inside a lambda": ("nested(7)", "f(2)", 19),
    "a lambda over several lines in a call": ("spread", "f(1)", (1, 10, [1, 2])),
    "a lambda that took a loop variable": ("loop[3]", "f(2)", 6),
    "names and defaults that are not ASCII": ("défaut", "f()", ("ß", "ü", 10)),
    "defaults that are lambdas, classes, functions": ("late_default", "f()", (-1, 1, 20)),
    "a coroutine function": ("coroutine", "__import__('asyncio').run(f(1))", 10),
    "a generator function": ("generator", "list(f(1))", [10]),
    "a global that is assigned": ("counts", "f(), f()", (6, 7)),
    "an attribute named like a global": ("attribute_is_no_global", "f(type('T', (), {'LOCK': 1}))", (1, "x")),
    "a function under an if": ("under_if", "f(2)", 0),
    "annotations that mean nothing": ("annotated", "f(1)", 1),
    "a recursive function marked by_source": ("marked", "f(4)", 24),
    "a table of functions and partials": ("uses_handlers", "f()", (10, 0, 7)),
    "a decorator above lru_cache": ("flaky", "f(0), f(1)", (("tried", 1), "gave up")),
    "a lambda that is a constant": ("nothings[1]", "f()", 5),
    "a partial of a partial": ("adds", "f(3)", 30),
}
FAILING = {"fails": "fails", "boom[0]": "boom", "has_missing_name": "has_missing_name"}


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shipped") / "script.py"


@pytest.fixture(scope="module", params=interpreters(11), ids=lambda python: f"from-{version(python)}")
def shipped(request: pytest.FixtureRequest, script: Path) -> dict[str, dict[str, Any]]:
    """All cases, made by one host."""
    expressions = [*(case[0] for case in CASES.values()), *FAILING]
    return dict(zip(expressions, ship(script, SCRIPT, expressions, request.param), strict=True))


@pytest.fixture(scope="module", params=interpreters(), ids=lambda python: f"to-{version(python)}")
def answers(request: pytest.FixtureRequest, shipped: dict[str, dict[str, Any]]) -> dict[str, str]:
    """All cases, executed by one interpreter in one process."""
    calls = [(shipped[expression], call) for expression, call, _ in CASES.values()]
    calls += [(shipped["fails"], "f(0)"), (shipped["boom[0]"], "f(0)"), (shipped["has_missing_name"], "f()")]
    return dict(zip([*CASES, *FAILING], work(request.param, calls), strict=True))


def test_everything_runs_in_the_worker_as_it_does_here(answers: dict[str, str]) -> None:
    expected = {case: repr(CASES[case][2]) for case in CASES}
    wrong = {case: answers[case] for case in CASES if answers[case] != expected[case]}
    assert wrong == {}


def line_of(script: Path, text: str) -> int:
    return script.read_text().split("\n").index(text) + 1


def test_a_traceback_names_the_file_and_line_of_the_function_and_of_its_helpers(
    answers: dict[str, str], script: Path
) -> None:
    for entry in ("fails", "boom[0]"):
        assert f'File "{script}", line {line_of(script, "    return helper_fails(")}, in fails' in answers[entry]
        assert f'File "{script}", line {line_of(script, "    return 1 / x")}, in helper_fails' in answers[entry]
        assert "    return 1 / x\n" in answers[entry]
        assert "ZeroDivisionError" in answers[entry]
    lambda_line = line_of(script, "boom = [lambda x: fails(x), lambda x: x]")
    assert f'File "{script}", line {lambda_line}, in <lambda>' in answers["boom[0]"]


def test_a_name_that_is_missing_here_is_a_name_error_there(answers: dict[str, str]) -> None:
    assert "NameError: name 'not_there' is not defined" in answers["has_missing_name"]


def test_the_text_is_the_same_in_every_process(script: Path) -> None:
    expressions = ["uses_context", "uses_classes", "composed"]
    first, second = (ship(script, SCRIPT, expressions) for _ in range(2))
    assert first == second


def test_two_closures_of_one_text_are_two_modules(shipped: dict[str, dict[str, Any]]) -> None:
    one, two = shipped["ONE['inner']"], shipped["TWO['inner']"]
    assert one["text"] == two["text"]
    assert one["digest"] != two["digest"]


def test_a_partial_is_taken_apart(shipped: dict[str, dict[str, Any]]) -> None:
    assert shipped["adds"]["bound"] == "((3,), {})"
    assert shipped["adds"]["name"].endswith(":scaled")


# --- what cannot travel ---------------------------------------------------------------------------

BAD_SCRIPT = """
import functools, tempfile, threading
LOCK, FILE = threading.Lock(), tempfile.TemporaryFile()
class App:
    def route(self, f): return f
    def method(self): return 1
    def __call__(self): return 1
APP = App()
OTHERS = [1, APP]
def uses_lock(): return LOCK
def helper(): return FILE
def uses_helper(): return helper()
def uses_app(): return APP
def uses_list(): return OTHERS
@APP.route
def routed(): return 1
def default(x=APP): return x
def outer():
    count = 0
    def counter():
        nonlocal count
        count += 1
    app = App()
    def closure(): return app
    def local(function): return functools.lru_cache(function)
    @local
    def by_local(): return 1
    return counter, closure, by_local
COUNTER, CLOSURE, BY_LOCAL = outer()
@functools.singledispatch
def dispatched(x): return x
exec("def executed(): return 1")
built = eval("lambda: 1")
from string import ascii_letters as letters
import __main__
def uses_main(): return __main__
"""

BAD = {
    "a lock": ("uses_lock", ["'uses_lock'", "'LOCK'", "_thread.lock", "pass it as an argument"]),
    "a file, of a helper": ("uses_helper", ["'helper'", "'FILE'", "BufferedRandom"]),
    "an instance of the script's class": ("uses_app", ["'APP'", "of type App"]),
    "a list that holds one": ("uses_list", ["'OTHERS'", "an item of", "of type App"]),
    "a decorator that cannot be resolved": ("routed", ["decorator 'APP'", "of type App"]),
    "a decorator of an enclosing function": ("BY_LOCAL", ["its decorator uses 'local'", "not a global"]),
    "a default value": ("default", ["default value of its parameter 'x'", "of type App"]),
    "nonlocal": ("COUNTER", ["counter", "'count'", "nonlocal"]),
    "a free variable": ("CLOSURE", ["closure", "variable 'app' of the enclosing function", "of type App"]),
    "a method of the script's class": ("APP.method", ["'method'", "'App'", "__main__", "module of its own"]),
    "a callable of the script's class": ("APP", ["'__call__'", "'App'", "__main__"]),
    "singledispatch": ("dispatched", ["dispatched", "registered"]),
    "a function without source": ("executed", ["'executed'", "source text is not available", "module"]),
    "a lambda without source": ("built", ["lambda", "source text is not available", "module"]),
    "the main module itself": ("uses_main", ["'__main__'", "of type module"]),
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    script = tmp_path_factory.mktemp("refused") / "script.py"
    found = ship(script, BAD_SCRIPT, [expression for expression, _ in BAD.values()])
    return dict(zip(BAD, found, strict=True))


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_travel_is_named_in_an_encoding_error(refused: dict[str, dict[str, Any]], case: str) -> None:
    assert refused[case].get("error", "").startswith("EncodingError: "), refused[case]
    for words in BAD[case][1]:
        assert words in refused[case]["error"]


# --- by name --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (math.sqrt, "math:sqrt"),
        (len, "builtins:len"),
        (str.upper, "builtins:str.upper"),
        (int.__add__, "builtins:int.__add__"),
        (dict.fromkeys, "builtins:dict.fromkeys"),
        (dict, "builtins:dict"),
        (Path.cwd, f"{Path.__module__}:Path.cwd"),
        (Path.joinpath, None),
        (json.dumps, "json:dumps"),
        (random.random, "random:random"),
        (random.randint, "random:randint"),
        (textwrap.TextWrapper, "textwrap:TextWrapper"),
        (functools.partial, "functools:partial"),
        ("math:sqrt", "math:sqrt"),
        ("os.path:join.__call__", "os.path:join.__call__"),
        ("bare", "bare"),
        ("a.b", "a.b"),
    ],
)
def test_what_can_be_imported_goes_by_name(target: Any, name: str | None) -> None:
    found = target_for(target)
    expected = name or f"{target.__module__}:{target.__qualname__}"
    assert found == Target(NAME, expected)


def test_functions_and_ufuncs_of_numpy_go_by_name() -> None:
    np = pytest.importorskip("numpy")
    assert target_for(np.mean).name == "numpy:mean"
    assert target_for(np.add).name == "numpy:add"
    assert target_for(np.linalg.norm).name.startswith("numpy.linalg")
    assert target_for(np.float64).name == "numpy:float64"
    assert target_for(np.random.rand).kind == NAME


def test_a_ufunc_that_is_nowhere_goes_by_value() -> None:
    np = pytest.importorskip("numpy")
    made = np.frompyfunc(abs, 1, 1)
    found = target_for(made)
    assert (found.kind, found.value) == (VALUE, (made, "__call__"))


@pytest.mark.parametrize("bad", ["", " ", "a b", "a:b:c", ":f", "m:", ".m:f", "m:.f", "m:f.", "a..b", "m:f()", "a-b:c"])
def test_a_malformed_name_is_a_value_error(bad: str) -> None:
    with pytest.raises(ValueError, match="module:attribute"):
        target_for(bad)


@pytest.mark.parametrize("bad", [None, 3, b"math:sqrt", ["math:sqrt"]])
def test_what_is_no_target_is_a_type_error(bad: Any) -> None:
    with pytest.raises(TypeError, match="a target is"):
        target_for(bad)


def module_from(path: Path, text: str) -> ModuleType:
    path.write_text(textwrap.dedent(text))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def lib(tmp_path: Path) -> Any:
    text = """
        import functools, math, threading
        LIMIT, LOCK = [1, 2], threading.Lock()
        def helper(x): return math.floor(x) + LIMIT[0]
        def f(x): return helper(x)
        @functools.lru_cache
        def cached(x): return helper(x)
        def wrap(function):
            @functools.wraps(function)
            def wrapper(x): return function(x) + 0.5
            return wrapper
        @wrap
        def wrapped(x): return helper(x)
        class C:
            def m(self): return 1
            @classmethod
            def c(cls): return 2
            def __call__(self): return 3
        class D(C): pass
        class Tight:
            __slots__ = ("__wrapped__",)
            __hash__ = None
            def __init__(self, function): self.__wrapped__ = function
            def __call__(self, x): return "tight", x
        @Tight
        def tight(x): return x
        def uses_spare(): return spare
        def make(k):
            def inner(x): return helper(x) + k, LOCK.locked()
            return inner
    """
    yield module_from(tmp_path / "shipping_lib.py", text)
    del sys.modules["shipping_lib"]


def run_here(target: Target, *args: Any) -> Any:
    assert target.source is not None
    call = dict(target.source._asdict(), name=target.name)
    call["bindings"] = base64.b64encode(pickle.dumps(target.source.bindings)).decode()
    return work(sys.executable, [(call, f"f(*{args!r})")])[0]


def test_decorated_functions_of_a_module_go_by_name(lib: Any) -> None:
    assert target_for(lib.cached) == Target(NAME, "shipping_lib:cached")
    assert target_for(lib.wrapped) == Target(NAME, "shipping_lib:wrapped")
    assert target_for(lib.D.c) == Target(NAME, "shipping_lib:D.c")


def test_the_function_below_a_decorator_goes_by_source(lib: Any) -> None:
    found = target_for(lib.wrapped.__wrapped__)
    assert found.kind == SOURCE
    assert found.source is not None
    assert "from shipping_lib import helper" in found.source.text


def test_a_closure_of_a_module_imports_what_its_module_has(lib: Any) -> None:
    source = target_for(lib.make(3)).source
    assert source is not None
    assert "from shipping_lib import LOCK" in source.text
    assert source.bindings == {"_venvoy_1": 3}


def test_by_source_takes_along_the_functions_of_its_own_module(lib: Any) -> None:
    assert target_for(lib.f).kind == NAME
    for function in (lib.f, lib.cached):
        found = target_for(by_source(function))
        assert found.kind == SOURCE
        assert "shipping_lib import" not in str(found.source)
        assert run_here(found, 2.5) == "3"
    assert run_here(target_for(by_source(lib.wrapped)), 2.5) == "3.5"


def test_by_source_of_a_partial_keeps_its_arguments(lib: Any) -> None:
    found = target_for(by_source(functools.partial(lib.f, 1.5)))
    assert (found.kind, found.bound_args) == (SOURCE, (1.5,))
    found = target_for(functools.partial(by_source(lib.f), x=1.5))
    assert (found.kind, found.bound_kwargs) == (SOURCE, {"x": 1.5})


def test_by_source_can_still_be_called_and_stays_itself(lib: Any) -> None:
    made = by_source(lib.f)
    assert isinstance(made, BySource)
    assert (made(2.5), made.__name__, by_source(made)) == (3, "f", made)


@pytest.mark.parametrize("bad", [math.sqrt, operator.itemgetter(1), int])
def test_by_source_refuses_at_once_what_has_no_source(bad: Any) -> None:
    with pytest.raises(EncodingError, match="source"):
        by_source(bad)


def test_by_source_refuses_what_cannot_be_called() -> None:
    with pytest.raises(TypeError, match="by_source"):
        by_source("math:sqrt")  # type: ignore[arg-type]


# --- by value, and arguments ----------------------------------------------------------------------


def test_methods_of_instances_go_by_value(lib: Any) -> None:
    instance = lib.C()
    assert target_for(instance.m) == Target(VALUE, "C.m", value=(instance, "m"))
    assert target_for(instance) == Target(VALUE, "C.__call__", value=(instance, "__call__"))
    assert target_for("ab".upper).value == ("ab", "upper")


def test_partials_are_unwrapped_with_all_their_arguments() -> None:
    inner: Any = functools.partial(int, "7", base=8)
    outer = functools.partial(functools.partial(max, 1), 2, key=abs)
    assert target_for(inner) == Target(NAME, "builtins:int", bound_args=("7",), bound_kwargs={"base": 8})
    assert target_for(outer) == Target(NAME, "builtins:max", bound_args=(1, 2), bound_kwargs={"key": abs})


# --- remembering ----------------------------------------------------------------------------------


def test_a_function_is_cut_once_while_nothing_changes(lib: Any) -> None:
    marked = by_source(lib.f)
    assert target_for(marked) is target_for(marked)


def test_a_changed_global_a_changed_list_and_a_new_helper_make_a_new_target(lib: Any) -> None:
    marked = by_source(lib.f)
    seen = [target_for(marked)]
    lib.LIMIT[0] = 5
    seen.append(target_for(marked))
    assert run_here(seen[1], 1.5) == "6"
    lib.LIMIT = [7]
    seen.append(target_for(marked))
    lib.helper = lib.wrapped
    seen.append(target_for(marked))
    assert len({target.name for target in seen}) == 4
    assert run_here(seen[0], 1.5) == "2"


def test_a_changed_table_of_functions_makes_a_new_target(lib: Any) -> None:
    lib.TABLE = {"a": lib.helper}
    exec("def uses(x): return TABLE['a'](x)", vars(lib))
    linecache.cache["<string>"] = (1, None, ["def uses(x): return TABLE['a'](x)\n"], "<string>")
    marked = by_source(lib.uses)
    first = target_for(marked)
    assert target_for(marked) is first
    lib.TABLE["a"] = lib.wrapped
    assert run_here(first, 1.5) == "2"
    assert run_here(target_for(marked), 1.5) == "2.5"


def test_a_changed_free_variable_makes_a_new_target() -> None:
    value = 1

    def inner() -> int:
        return value

    first = target_for(inner)
    value = 2
    assert (run_here(first), run_here(target_for(inner))) == ("1", "2")


def test_a_helper_that_became_none_is_a_change(lib: Any) -> None:
    lib.spare = module_from(Path(lib.__file__).with_name("shipping_spare.py"), "def g(): pass").g
    marked = by_source(lib.uses_spare)
    first = target_for(marked)
    lib.spare = vars(sys.modules.pop("shipping_spare"))["g"] = None
    gc.collect()
    assert target_for(marked).name != first.name


def test_a_wrapper_without_weak_references_travels_all_the_same(lib: Any) -> None:
    target = target_for(by_source(lib.tight))
    assert run_here(target, 1.5) == "('tight', 1.5)"


def test_a_file_that_was_edited_after_the_import_is_refused(lib: Any) -> None:
    path = Path(lib.__file__)
    path.write_text("# a new first line\n" + path.read_text())
    with pytest.raises(EncodingError, match="may have been edited"):
        target_for(by_source(lib.f))


def test_remembering_keeps_no_closure_alive() -> None:
    def make() -> Any:
        def inner(n: int) -> int:
            return 1 if n == 0 else n * inner(n - 1)

        return inner

    function = make()
    assert run_here(target_for(function), 4) == "24"
    gone = weakref.ref(function)
    del function
    gc.collect()
    assert gone() is None


def test_threads_may_ask_at_the_same_time(lib: Any) -> None:
    marked, found = by_source(lib.f), []
    threads = [threading.Thread(target=lambda: found.append(target_for(marked))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({target.name for target in found}) == 1
    assert len(found) == 8


# --- notebooks and start-up -----------------------------------------------------------------------


def cell(number: int, text: str, space: dict[str, Any]) -> str:
    """Execute a notebook cell the way IPython does: its text is in linecache only."""
    name = f"<cell {number}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), space)
    return name


def test_functions_and_classes_of_notebook_cells_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    main = ModuleType("__main__")
    vars(main).update(space)
    monkeypatch.setitem(sys.modules, "__main__", main)
    first = cell(1, "\n\nclass Odd(Exception): pass\n\ndef helper(x):\n    return 1 / x\n", vars(main))
    second = cell(2, "def f(x):\n    if x == 1: raise Odd('one')\n    return helper(x)\n", vars(main))
    found = target_for(vars(main)["f"])
    assert run_here(found, 2) == "'0.5'".strip("'")
    assert f'File "{second}", line 2, in f' in run_here(found, 1)
    answer = run_here(found, 0)
    assert f'File "{second}", line 3, in f' in answer
    assert f'File "{first}", line 6, in helper' in answer


def test_tracebacks_show_the_lines_of_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the cell of the function, which has no room above it in the text that is sent, and of its helper's."""
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    cell(1, "def helper(x):\n    return 1 / x  # in one\n", vars(main))
    cell(2, "def f(x):\n    return helper(x)  # in two\n", vars(main))
    with vv.Pool(workers=1) as pool:
        with pytest.raises(ZeroDivisionError) as caught:
            pool.call(vars(main)["f"], 0)
        shown = str(caught.value.__cause__)
        assert "return helper(x)  # in two" in shown
        assert "return 1 / x  # in one" in shown
        with pytest.raises(ZeroDivisionError) as caught:
            pool.call(vars(main)["helper"], 0)
        assert "return 1 / x  # in one" in str(caught.value.__cause__)


def test_a_call_by_name_loads_nothing_that_reads_source() -> None:
    code = (
        "import sys; from venvoy.source import target_for; import math, functools, json\n"
        "for target in (math.sqrt, json.dumps, functools.partial(math.pow, 2), 'a:b', 'x'.upper): target_for(target)\n"
        "print(sorted(name for name in sys.modules if name.startswith('venvoy.source.')))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(venvoy.__file__).parents[1])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "['venvoy.source.names']", done.stderr
