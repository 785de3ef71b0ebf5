"""Finds the statement or lambda that made a function or class, and cuts its exact text out of its file.

The text is meant for the worker's Python and is never rewritten, except that names replace default values.
"""

from __future__ import annotations
import __future__ as future_features

import ast
import copy
import dis
import functools
import linecache
import os
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from venvoy.errors import EncodingError

_Definition = ast.FunctionDef | ast.AsyncFunctionDef
_CO_OPTIMIZED = 1  # set for functions, not for class bodies and modules: those run when they are defined


class Cut(NamedTuple):
    """One definition. `lines` keep their indentation; `node` has only those decorators that `lines` have."""

    filename: str
    line: int
    lines: list[str]
    node: ast.stmt | ast.Lambda
    name: str

    @property
    def indent(self) -> str:
        return self.lines[0][: len(self.lines[0]) - len(self.lines[0].lstrip())]

    @property
    def decorators(self) -> list[ast.expr]:
        return getattr(self.node, "decorator_list", [])


class Names(NamedTuple):
    """Global names a definition uses: when it is executed, when it is called later, and only in annotations."""

    at_definition: set[str]
    later: set[str]
    annotations: set[str]


def describe(thing: Any) -> str:
    """How messages call a function or class: its kind, name, and where it is."""
    code = getattr(thing, "__code__", None)
    if not isinstance(code, CodeType):
        return f"{'class' if isinstance(thing, type) else 'object'} {getattr(thing, '__qualname__', repr(thing))!r}"
    what = "lambda" if code.co_name == "<lambda>" else f"function {thing.__qualname__!r}"
    return f"{what} ({os.path.basename(code.co_filename)}, line {code.co_firstlineno})"


def no_source(thing: Any, why: str) -> EncodingError:
    return EncodingError(
        f"cannot send {describe(thing)} as source: {why}; put it in a module (a file) and import it from there"
    )


@functools.lru_cache(maxsize=16)
def _parse(text: str) -> ast.Module:
    return ast.parse(text)


def _read(filename: str, module_globals: dict[str, Any]) -> tuple[list[str], ast.Module] | None:
    linecache.checkcache(filename)
    lines = linecache.getlines(filename, module_globals)
    try:
        return (lines, _parse("".join(lines))) if lines else None
    except (SyntaxError, ValueError):
        return None


def _first_line(node: ast.stmt) -> int:
    return min(int(part.lineno) for part in (node, *getattr(node, "decorator_list", [])))


def own_line(near: Cut, text: str, name: str) -> Cut:
    """A statement of ours; line 0 says that it has no place in the file."""
    return Cut(near.filename, 0, [text], ast.Pass(), name)


# --- functions ------------------------------------------------------------------------------------


def cut_function(function: FunctionType, layers: int | None) -> Cut:
    """Cut a function or lambda; of its decorators the `layers` innermost stay, all with None.

    Raises:
        EncodingError: there is no source, or the source is not (or no longer) that of this function.
    """
    code = function.__code__
    found = _read(code.co_filename, function.__globals__)
    if found is None:
        raise no_source(function, f"its source text is not available ({code.co_filename!r} cannot be read)")
    lines, tree = found
    if code.co_name == "<lambda>":
        return _cut_lambda(function, lines, tree)
    for node in ast.walk(tree):
        if isinstance(node, _Definition) and node.name == code.co_name and _first_line(node) == code.co_firstlineno:
            return _cut_statement(code.co_filename, lines, node, layers)
    raise no_source(function, f"{code.co_filename!r} has no such definition there, it may have been edited")


def _cut_statement(filename: str, lines: list[str], node: ast.stmt, layers: int | None, name: str = "") -> Cut:
    node = copy.copy(node)
    if layers is not None and isinstance(node, _Definition):
        node.decorator_list = node.decorator_list[len(node.decorator_list) - layers :]
    first = _first_line(node)
    text = [line.rstrip("\r\n") for line in lines[first - 1 : node.end_lineno]]
    return Cut(_absolute(filename), first, text, node, name or getattr(node, "name", ""))


def _cut_lambda(function: FunctionType, lines: list[str], tree: ast.Module) -> Cut:
    code = function.__code__
    line = code.co_firstlineno
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda) and node.lineno == line]
    if len(found) > 1:
        # Those around the code are nested in each other and begin in one line: the last to begin is the innermost.
        around = sorted((n for n in found if _is_body_of(code, n.body)), key=lambda node: node.col_offset)
        found = around[-1:] or [node for node in found if _compiles_to(code, node)]
    text = ast.get_source_segment("".join(lines), found[0]) if found else None
    if text is None or not text.startswith("lambda"):
        raise no_source(function, f"no such lambda can be told apart in line {line} of {code.co_filename!r}")
    node = copy.copy(found[0])
    padded = (" " * node.col_offset + text).split("\n")
    return Cut(_absolute(code.co_filename), line, padded, node, f"lambda_{line}")


def _is_body_of(code: CodeType, body: ast.expr) -> bool:
    """Whether all positions the compiler recorded for `code` lie within `body`."""
    start, end = (body.lineno, body.col_offset), (body.end_lineno, body.end_col_offset)
    positions = [
        ((line, column), (end_line, end_column))
        for line, end_line, column, end_column in code.co_positions()
        if None not in (line, column, end_line, end_column) and (line, column) != (end_line, end_column)
    ]
    return bool(positions) and all(start <= first and last <= end for first, last in positions)


def _compiles_to(code: CodeType, node: ast.Lambda) -> bool:
    """For `lambda: None`, which has no positions on Python 3.12; equal ones are as good as each other."""
    whole = compile(ast.Expression(node), "<venvoy>", "eval", dont_inherit=True)
    made = next(constant for constant in whole.co_consts if isinstance(constant, CodeType))
    attributes = ("co_code", "co_consts", "co_names", "co_varnames")
    return all(repr(getattr(made, name)) == repr(getattr(code, name)) for name in attributes)


def _absolute(filename: str) -> str:
    return filename if filename.startswith("<") else os.path.abspath(filename)


# --- classes --------------------------------------------------------------------------------------


def cut_class(cls: type) -> Cut:
    """Cut a class: its `class` statement, or the assignment that made it (`P = namedtuple("P", "x y")`)."""
    path = cls.__qualname__.replace(".<locals>", "").split(".")
    module = sys.modules.get(cls.__module__)
    for filename in _files_of(cls):
        found = _read(filename, vars(module) if module else {})
        nodes = list(_named_nodes(found[1], path)) if found else []
        if found and nodes:
            lines_of_cls = set(_known_lines(cls))
            match = [n for n in nodes if lines_of_cls & set(range(_first_line(n), (n.end_lineno or 0) + 1))]
            return _cut_statement(filename, found[0], (match or nodes)[-1], None, path[-1])
    raise no_source(cls, "its class statement was not found")


def _functions_of(cls: type) -> list[FunctionType]:
    inner = (getattr(value, "__func__", getattr(value, "fget", value)) for value in vars(cls).values())
    return [f for f in inner if isinstance(f, FunctionType) and f.__qualname__.startswith(cls.__qualname__ + ".")]


def _known_lines(cls: type) -> Iterator[int]:
    if "__firstlineno__" in vars(cls):  # Python 3.13
        yield vars(cls)["__firstlineno__"]
    else:
        yield from (f.__code__.co_firstlineno for f in _functions_of(cls))


def _files_of(cls: type) -> Iterator[str]:
    yield from (f.__code__.co_filename for f in _functions_of(cls) if f.__code__.co_filename != "<string>")
    yield from filter(None, [getattr(sys.modules.get(cls.__module__), "__file__", None)])
    # A class of a notebook that has no methods does not say which cell it is from: the latest that defines it.
    yield from [name for name, entry in reversed(list(linecache.cache.items())) if len(entry) > 1 and entry[1] is None]


def _named_nodes(tree: ast.AST, path: list[str]) -> Iterator[ast.stmt]:
    """The definitions at the dotted place `path` below `tree`, looking into `if`, `try` and the like."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | _Definition):
            if node.name == path[0] and len(path) > 1:
                yield from _named_nodes(node, path[1:])
            elif node.name == path[0] and isinstance(node, ast.ClassDef):
                yield node
        elif isinstance(node, ast.Assign) and len(path) == 1 and isinstance(node.value, ast.Call):
            if [target.id for target in node.targets if isinstance(target, ast.Name)] == path:
                yield node
        elif isinstance(node, ast.stmt | ast.excepthandler):
            yield from _named_nodes(node, path)


def cells_of_class(cls: type) -> dict[str, Any]:
    """What the methods of a class defined inside a function take from that function; its bases, too."""
    cells: dict[str, Any] = {base.__name__: base for base in cls.__bases__ if "<locals>" in base.__qualname__}
    for function in _functions_of(cls):
        cells.update(cells_of(function))
    cells.pop("__class__", None)
    return cells


def cells_of(function: FunctionType) -> dict[str, Any]:
    """The values of a function's free variables; those not assigned yet are left out."""
    cells = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            cells[name] = cell.cell_contents
        except ValueError:
            pass
    return cells


# --- what a definition refers to ------------------------------------------------------------------


def names_in(node: ast.stmt | ast.Lambda) -> Names:
    """The global names `node` uses, as the compiler sees them."""
    tree: ast.Module | ast.Expression
    tree = ast.Expression(node) if isinstance(node, ast.Lambda) else ast.Module([node], [])
    flag = future_features.annotations.compiler_flag
    mode = "eval" if isinstance(node, ast.Lambda) else "exec"
    code = compile(tree, "<venvoy>", mode, flag, dont_inherit=True)
    names = Names(set(), set(), set(_annotation_names(node)))
    _collect(code, True, names)
    return names


def _collect(code: CodeType, defining: bool, names: Names) -> None:
    defining = defining and not code.co_flags & _CO_OPTIMIZED
    loaded, stored = set(), set()
    for instruction in dis.get_instructions(code):
        operation = instruction.opname
        if "GLOBAL" in operation or operation == "LOAD_NAME":
            loaded.add(str(instruction.argval))
        elif operation == "STORE_NAME":
            stored.add(str(instruction.argval))
    (names.at_definition if defining else names.later).update(loaded - stored)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _collect(constant, defining, names)


def _annotation_names(node: ast.AST) -> Iterator[str]:
    """Names in annotations that somebody may evaluate: those of class bodies and of decorated functions."""
    annotations: list[ast.AST | None] = []
    if isinstance(node, ast.ClassDef):
        annotations = [part.annotation for part in ast.walk(node) if isinstance(part, ast.AnnAssign)]
    elif isinstance(node, _Definition) and node.decorator_list:
        annotations = [part.annotation for part in ast.walk(node.args) if isinstance(part, ast.arg)]
        annotations.append(node.returns)
    for annotation in filter(None, annotations):
        yield from (part.id for part in ast.walk(annotation) if isinstance(part, ast.Name))


def attribute_paths(node: ast.AST) -> Iterator[tuple[str, str]]:
    """All (name, "attribute.attribute") in `node`."""
    for part in ast.walk(node):
        path: list[str] = []
        while isinstance(part, ast.Attribute):
            path.insert(0, part.attr)
            part = part.value
        if path and isinstance(part, ast.Name):
            yield part.id, ".".join(path)


def decorator_names(cut: Cut) -> set[str]:
    return {part.id for one in cut.decorators for part in ast.walk(one) if isinstance(part, ast.Name)}


def is_wraps(decorator: ast.expr) -> bool:
    """Whether it is `@functools.wraps(...)`."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(decorator, ast.Call) and getattr(called, "attr", getattr(called, "id", "")) == "wraps"


def rebound_names(node: ast.AST) -> set[str]:
    """Names that `node` or a function in it declares `nonlocal`."""
    return {name for part in ast.walk(node) if isinstance(part, ast.Nonlocal) for name in part.names}


# --- default values -------------------------------------------------------------------------------


def defaults_of(cut: Cut, function: FunctionType) -> list[tuple[str, ast.expr, Any]]:
    """(parameter, expression, value) of the default values that are not literals."""
    arguments = cut.node.args  # type: ignore[union-attr]
    positional = [*arguments.posonlyargs, *arguments.args]
    values = function.__defaults__ or ()
    if len(values) != len(arguments.defaults):
        raise no_source(function, "its default values were replaced after its definition")
    found = list(
        zip((a.arg for a in positional[len(positional) - len(values) :]), arguments.defaults, values, strict=True)
    )
    for argument, expression in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if expression is not None:
            found.append((argument.arg, expression, (function.__kwdefaults__ or {}).get(argument.arg)))
    return [default for default in found if not _is_literal(default[1], default[2])]


def _is_literal(expression: ast.expr, value: Any) -> bool:
    """Whether the text still says what the value is (`__defaults__` can be assigned)."""
    return isinstance(expression, ast.Constant) and repr(expression.value) == repr(value)


def replace_defaults(cut: Cut, names: list[tuple[ast.expr, str]]) -> Cut:
    """Put `names` in the place of default expressions, in text and node, every line staying where it is."""
    lines = list(cut.lines)
    shift = cut.line
    for old, name in sorted(names, key=lambda pair: (-pair[0].lineno, -pair[0].col_offset)):
        first, last = old.lineno - shift, (old.end_lineno or old.lineno) - shift
        head = lines[first].encode()[: old.col_offset].decode()
        tail = lines[last].encode()[old.end_col_offset :].decode()
        if first == last:
            lines[first] = head + name + tail
        else:
            lines[first : last + 1] = [head + name, *[""] * (last - first - 1), tail]
    replacements = {id(old): ast.copy_location(ast.Constant(None), old) for old, _ in names}
    node: Any = copy.copy(cut.node)
    node.args = copy.copy(node.args)
    node.args.defaults = [replacements.get(id(old), old) for old in node.args.defaults]
    node.args.kw_defaults = [replacements.get(id(old), old) for old in node.args.kw_defaults]
    return cut._replace(lines=lines, node=node)
