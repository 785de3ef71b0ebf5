"""The shape of the source: sizes, layers, what may be imported where, and no waiting by polling."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
MODULES = sorted(SOURCE.rglob("*.py"))
CHILD = [path for path in MODULES if "venvoy_worker" in path.parts]
HOST = [path for path in MODULES if path not in CHILD]
MOST_LINES_OF_A_FUNCTION = 40
MOST_LINES_OF_A_CLASS = 300
MOST_METHODS = 20
MOST_LINES_OF_A_MODULE = 400

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    """Return a short name for test ids and messages."""
    return str(path.relative_to(SOURCE))


def tree_of(path: Path) -> ast.Module:
    """Return the parsed module."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def length(node: Function | ast.ClassDef) -> int:
    """Return the lines of a definition without its docstring and its decorators."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node, clean=False) is not None:
        text = node.body[0]
        lines -= (text.end_lineno or text.lineno) - text.lineno + 1
    return lines


def imports(tree: ast.AST) -> Iterator[tuple[int, str, ast.AST]]:
    """Yield (level, module, node) of each import, names of packages included in `from package import name`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield 0, alias.name, node
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", node
            for alias in node.names:
                yield node.level, f"{node.module}.{alias.name}" if node.module else alias.name, node


def typing_only(tree: ast.AST) -> set[ast.AST]:
    """Return the nodes under `if TYPE_CHECKING:`, which no interpreter executes."""
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }


def test_there_is_source_to_check() -> None:
    """An empty list would pass everything below."""
    assert len(HOST) > 20
    assert len(CHILD) > 10


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_functions_classes_and_modules_are_small(path: Path) -> None:
    """Functions of at most 40 lines, classes of 300 lines and 20 methods, modules of 400 lines."""
    too_large = []
    text = path.read_text(encoding="utf-8")
    if len(text.splitlines()) > MOST_LINES_OF_A_MODULE:
        too_large.append(f"the module: {len(text.splitlines())} lines")
    for node in ast.walk(tree_of(path)):
        if isinstance(node, Function) and length(node) > MOST_LINES_OF_A_FUNCTION:
            too_large.append(f"{node.name}(): {length(node)} lines")
        if isinstance(node, ast.ClassDef):
            methods = sum(isinstance(part, Function) for part in node.body)
            if length(node) > MOST_LINES_OF_A_CLASS or methods > MOST_METHODS:
                too_large.append(f"class {node.name}: {length(node)} lines, {methods} methods")
    assert too_large == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is(path: Path) -> None:
    """A docstring, which names what the module owns."""
    assert (ast.get_docstring(tree_of(path)) or "").strip()


@pytest.mark.parametrize("path", CHILD, ids=name_of)
def test_the_child_imports_the_standard_library_only(path: Path) -> None:
    """Nothing is installed in a worker's environment; type checkers may see more."""
    tree = tree_of(path)
    hidden = typing_only(tree)
    tops = {module.partition(".")[0] for level, module, node in imports(tree) if level == 0 and node not in hidden}
    known = set(sys.stdlib_module_names) | {"venvoy_worker", "__future__", "_frozen_importlib"}
    # Arrays are packed for whoever has numpy: it is looked for in sys.modules, and imported once an array arrives.
    optional = {
        "arrays.py": {"numpy"},
        "pandas_values.py": {"pandas"},
        "arrow_values.py": {"numpy", "polars", "pyarrow"},
    }
    allowed = known | optional.get(path.name, set())
    assert tops <= allowed, tops - allowed


@pytest.mark.parametrize("path", CHILD, ids=name_of)
def test_the_child_is_written_in_the_syntax_of_python_3_8(path: Path) -> None:
    """Parsed with that grammar, as far as the running Python knows it."""
    ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 8))


@pytest.mark.parametrize("path", HOST, ids=name_of)
def test_the_host_imports_nothing_of_the_childs_runtime(path: Path) -> None:
    """Only the contract is known to both sides."""
    wrong = [module for _, module, _ in imports(tree_of(path)) if module.startswith("venvoy_worker.runtime")]
    assert wrong == []


@pytest.mark.parametrize("path", CHILD, ids=name_of)
def test_the_child_never_imports_the_host(path: Path) -> None:
    """Its package works where venvoy is not."""
    assert [module for _, module, _ in imports(tree_of(path)) if module.partition(".")[0] == "venvoy"] == []


def is_wait(call: ast.Call) -> bool:
    """Return whether this is a call of `sleep`, or a wait with a constant time-out that says so."""
    name = ast.unparse(call.func)
    return name == "sleep" or name.endswith((".sleep", "._sleep"))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_sleeps(path: Path) -> None:
    """Whoever waits is woken by what it waits for."""
    tree = tree_of(path)
    sleeps = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and is_wait(node)]
    imported = [module for _, module, _ in imports(tree) if module == "time.sleep"]
    assert (sleeps, imported) == ([], [])


WAITS = ("acquire", "wait", "select", "poll", "get", "join")


def fixed_waits(loop: ast.While) -> list[str]:
    """Return the waits in a loop whose time-out is a number, as in `while not done: event.wait(0.1)`."""
    found = []
    for node in ast.walk(loop):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WAITS:
            times = [*node.args[-1:], *(keyword.value for keyword in node.keywords if keyword.arg == "timeout")]
            if any(
                isinstance(time, ast.Constant) and isinstance(time.value, int | float) and time.value for time in times
            ):
                found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_loop_polls(path: Path) -> None:
    """A wait with a fixed short time-out inside a loop is a poll."""
    loops = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.While)]
    assert [text for loop in loops for text in fixed_waits(loop)] == []


def test_the_layers_hold() -> None:
    """Every import-linter contract of pyproject.toml is kept: imports go strictly down, without cycles."""
    pytest.importorskip("importlinter", reason="import-linter is not installed: extra `dev`")
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"]
    done = subprocess.run(
        [*command, "--config", str(ROOT / "pyproject.toml"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=80,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
