"""Stubs: what a module offers in a pool's environment, written for type checkers and editors. Stateless."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from typing import Any

from .client import Pool
from .describe import describe
from .errors import TargetNotFound, VenvoyError
from .source import by_source

_STARS = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}
_UNKNOWN: tuple[Any, ...] = (
    [("args", "VAR_POSITIONAL", False, "typing.Any"), ("kwargs", "VAR_KEYWORD", False, "typing.Any")],
    "typing.Any",
    False,
)


def stub(pool: Pool, module: str, as_protocol: bool = False) -> str:
    """Return a stub of a module as it is in the environment of a pool.

    Args:
        module: its name.
        as_protocol: return a `typing.Protocol` of its functions instead, for `pool.bind`.

    Raises:
        TargetNotFound: the environment has no such module, or it cannot be imported. Besides this, as `Pool.call`.
    """
    try:
        things = pool.call(by_source(describe), module)
    except VenvoyError:
        raise
    except Exception as error:  # whatever its import raises
        raise TargetNotFound(f"{module} cannot be imported there: {type(error).__name__}: {error}") from error
    lines = list(_protocol(module, things) if as_protocol else _stub(things))
    text = "\n".join(lines)
    names = sorted(set(re.findall(r"\b([a-z]+(?:\.[a-z]+)*)\.[A-Za-z_]\w*", _code(lines))))
    imports = "".join(f"import {name}\n" for name in names)
    what = f"Functions of {module}" if as_protocol else f"What {module} offers"
    future = "from __future__ import annotations\n\n" if as_protocol else ""
    return f'"""{what}, as written by `venvoy stubs`."""\n\n{future}{imports}\n{text}\n'


def _code(lines: list[str]) -> str:
    """Return the lines without texts, in which words with dots are no modules."""
    return "\n".join(line for line in lines if '"""' not in line)


def _stub(things: list[Any]) -> Iterator[str]:
    for kind, name, details, text in things:
        if not _is_name(name):
            continue
        if kind == "function":
            yield from _definition(name, details, text, "")
        elif kind == "class":
            yield from _class(name, details, text)
        else:
            yield f"{name}: {details}"


def _protocol(module: str, things: list[Any]) -> Iterator[str]:
    classes = {name for kind, name, _, _ in things if kind == "class"}
    title = "".join(part.capitalize() for part in re.split(r"[._]", module))
    yield f"class {title}(typing.Protocol):"
    functions = [thing for thing in things if thing[0] == "function" and _is_name(thing[1])]
    for _, name, details, text in functions:
        details = _without(classes, details or _UNKNOWN)
        yield from _definition(name, details, text, "    ", "self")
    if not functions:
        yield "    ..."


def _without(classes: set[str], function: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a function whose annotations name none of these classes, which exist in the worker only."""
    parameters, result, is_async = function

    def known(annotation: str) -> str:
        return "typing.Any" if classes & set(re.findall(r"(?<![\w.])\w+", annotation)) else annotation

    return [(*one[:3], known(one[3])) for one in parameters], known(result), is_async


def _class(name: str, details: tuple[Any, ...], text: str) -> Iterator[str]:
    bases, attributes, methods = details
    yield f"class {name}({', '.join(bases)}):" if bases else f"class {name}:"
    if text:
        yield f"    {_quoted(text)}"
    is_empty = not text
    for attribute, annotation in attributes:
        if _is_name(attribute):
            is_empty = False
            yield f"    {attribute}: {annotation}" if annotation else f"    {attribute} = ..."
    for method, decorator, function in methods:
        is_empty = False
        if decorator:
            yield f"    @{decorator}"
        first = "self" if decorator != "staticmethod" and function is None else ""
        yield from _definition(method, function, "", "    ", first)
    if is_empty:
        yield "    ..."


def _definition(name: str, function: tuple[Any, ...] | None, text: str, indent: str, first: str = "") -> Iterator[str]:
    parameters, result, is_async = function or _UNKNOWN
    shown = ", ".join(filter(None, [first, *_parameters(parameters)]))
    result = "None" if name == "__init__" else result
    head = f"{indent}{'async ' if is_async else ''}def {name}({shown}) -> {result}:"
    if text:
        yield head
        yield f"{indent}    {_quoted(text)}"
    else:
        yield f"{head} ..."


def _parameters(parameters: list[tuple[str, str, bool, str]]) -> Iterator[str]:
    """Yield parameters as they are written, with the marks between their kinds."""
    before = ""
    for name, kind, has_default, annotation in parameters:
        if before == "POSITIONAL_ONLY" and kind != before:
            yield "/"
        if kind == "KEYWORD_ONLY" and before not in ("KEYWORD_ONLY", "VAR_POSITIONAL"):
            yield "*"
        hint = "" if name in ("self", "cls") and not before else f": {annotation}"
        yield f"{_STARS.get(kind, '')}{name}{hint}{' = ...' if has_default else ''}"
        before = kind
    if before == "POSITIONAL_ONLY":
        yield "/"


def _is_name(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', "'")
    return f'"""{escaped}"""'
