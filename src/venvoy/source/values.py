"""What a value of a shipped function's variable is, and how it is written in the shipped text."""

from __future__ import annotations

import functools
import logging
import pathlib
import re
import sys
from types import ModuleType
from typing import Any, TypeVar

from venvoy.source.names import MAIN_MODULES, name_of

_SCALARS = (type(None), bool, int, float, complex, str, bytes)
_TYPES_OF_CONSTANTS = {type(None): "None", type(...): "...", type(NotImplemented): "NotImplemented"}


def is_plain(value: Any, seen: frozenset[int] = frozenset()) -> bool:
    """Whether `value` means the same in every Python: constants, and containers of them; no subclasses."""
    if type(value) in _SCALARS or id(value) in seen:
        return True
    inner = seen | {id(value)}
    if type(value) is dict:
        return all(is_plain(key, inner) and is_plain(item, inner) for key, item in value.items())
    return type(value) in (list, tuple, set, frozenset) and all(is_plain(item, inner) for item in value)


def items_of(value: Any) -> list[Any] | None:
    kind = type(value)
    if kind is functools.partial:
        return [value.func, *value.args, value.keywords]
    if kind is dict:
        return [part for pair in value.items() for part in pair]
    return list(value) if kind in (list, tuple, set, frozenset) else None


def container_expression(value: Any, names: list[str]) -> str:
    """What makes a container like `value` of the objects that `names` stand for."""
    if isinstance(value, functools.partial):
        return f"__import__('functools').partial({', '.join(names[:-1])}, **{names[-1]})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k}: {v}' for k, v in zip(names[::2], names[1::2], strict=True))}}}"
    inner = f"[{', '.join(names)}]"
    return inner if isinstance(value, list) else f"{type(value).__name__}({inner})"


# --- imports ---


def import_statement(name: str, value: Any, home: frozenset[str]) -> str | None:
    """The line that gets `value` by importing, or by calling what can be imported; None where there is none."""
    if isinstance(value, ModuleType):
        known = value.__name__ not in MAIN_MODULES and sys.modules.get(value.__name__) is value
        return _import_as(f"import {value.__name__}", value.__name__, name) if known else None
    made = _rebuilt(name, value)
    if made is not None:
        return made
    where = name_of(value) or _found_under(name, value, home)
    module, _, path = (where or "").partition(":")
    if not where or module in home:
        return None
    first, dot, rest = path.partition(".")
    return _import_as(f"from {module} import {first}", first, name) + (f"; {name} = {name}.{rest}" if dot else "")


def _found_under(name: str, value: Any, home: frozenset[str]) -> str | None:
    """The most public module that has `value` under `name`, or under the name it claims (scipy's ufuncs)."""
    found = []
    for candidate in (name, getattr(value, "__name__", None)):
        for module_name, module in list(sys.modules.items()):
            space = getattr(module, "__dict__", {})
            if module_name not in home and isinstance(candidate, str) and space.get(candidate) is value:
                found.append((module_name.count("._"), module_name.count("."), f"{module_name}:{candidate}"))
    return min(found)[2] if found else None


def _rebuilt(name: str, value: Any) -> str | None:
    """What scripts keep in globals besides plain values, and a line of text makes again."""
    if isinstance(value, type) and value in _TYPES_OF_CONSTANTS:  # `types` has their names since Python 3.10 only
        return f"{name} = type({_TYPES_OF_CONSTANTS[value]})"
    if isinstance(value, TypeVar):
        # Bounds and constraints do nothing at run time.
        return f"import typing as {name}; {name} = {name}.TypeVar({value.__name__!r})"
    if isinstance(value, logging.Logger) and logging.getLogger(value.name) is value:
        return f"import logging as {name}; {name} = {name}.getLogger({value.name!r})"
    if type(value) is re.Pattern and is_plain(value.pattern):
        return f"import re as {name}; {name} = {name}.compile({value.pattern!r}, {int(value.flags)})"
    if isinstance(value, pathlib.PurePath) and type(value).__module__.partition(".")[0] == "pathlib":
        return f"import pathlib as {name}; {name} = {name}.{type(value).__name__}({str(value)!r})"
    return None


def _import_as(statement: str, imported: str, name: str) -> str:
    return statement if imported == name else f"{statement} as {name}"


def optional(statement: str) -> str:
    text = f"try: {statement}\nexcept ImportError: pass"
    return f"exec({text!r})"


def type_name(value: Any) -> str:
    cls = type(value)
    return cls.__qualname__ if cls.__module__ in ("builtins", *MAIN_MODULES) else f"{cls.__module__}.{cls.__qualname__}"
