"""What a module offers, as plain values. Runs in a worker, where it is sent as source: syntax of Python 3.8. Stateless.

Annotations come as text that means the same elsewhere: builtins, the standard library, `typing`, and the classes of the
module itself. A class of any other package is `Any`, since whoever reads the text may not have it.
"""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import sys
import typing

_STANDARD = frozenset(
    (
        *("abc", "array", "asyncio", "collections", "collections.abc", "concurrent.futures", "contextlib", "datetime"),
        *("decimal", "enum", "fractions", "io", "ipaddress", "logging", "numbers", "os", "pathlib", "queue", "random"),
        *("re", "subprocess", "threading", "types", "typing", "uuid"),
    )
)

_ITEMS = {
    "list": "[typing.Any]",
    "set": "[typing.Any]",
    "frozenset": "[typing.Any]",
    "dict": "[typing.Any, typing.Any]",
    "tuple": "[typing.Any, ...]",
    "type": "[typing.Any]",
}


def describe(name: str) -> list[typing.Any]:
    """Return (kind, name, details, first line of its text) of each public name of a module, in their order."""
    module = importlib.import_module(name)
    public = getattr(module, "__all__", None)
    found = []
    for key in vars(module) if public is None else public:
        value = getattr(module, key, None)
        if public is None and (key.startswith("_") or not _is_own(value, name)):
            continue
        found.append(_thing(key, value, module))
    return found


def _is_plain(value: typing.Any) -> bool:
    kinds = (int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
    return value is None or isinstance(value, kinds)


def _is_own(value: typing.Any, name: str) -> bool:
    if _is_plain(value):
        return True
    home = getattr(value, "__module__", None)
    return callable(value) and isinstance(home, str) and (home == name or home.startswith((name + ".", "_" + name)))


def _thing(key: str, value: typing.Any, module: typing.Any) -> tuple[str, str, typing.Any, str]:
    text = (inspect.getdoc(value) or "").split("\n")[0] if callable(value) else ""
    if isinstance(value, type):
        return ("class", key, _class(value, module), text)
    if callable(value):
        return ("function", key, _function(value, module), text)
    return ("value", key, _annotation(type(value), module), "")


def _function(function: typing.Any, module: typing.Any) -> typing.Any:
    """Return (parameters, annotation of the result, whether it is a coroutine); a parameter is (name, kind, ...)."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of C code that does not say
        return None
    hints = _hints(function)
    parameters = []
    for one in signature.parameters.values():
        annotation = _annotation(hints.get(one.name, one.annotation), module)
        parameters.append((one.name, one.kind.name, one.default is not one.empty, annotation))
    result = _annotation(hints.get("return", signature.return_annotation), module)
    return (parameters, result, inspect.iscoroutinefunction(function))


def _hints(thing: typing.Any) -> dict[str, typing.Any]:
    try:
        return typing.get_type_hints(thing)
    except Exception:  # a name that is only there for type checkers, or a thing that has none
        return {}


def _class(cls: type, module: typing.Any) -> tuple[list[str], list[typing.Any], list[typing.Any]]:
    """Return (bases, attributes, methods) of a class; members of enumerations are attributes."""
    bases = [_name(base, module) for base in cls.__bases__ if base is not object]
    attributes = [(key, _annotation(value, module)) for key, value in _hints(cls).items() if not key.startswith("_")]
    methods = []
    for key in vars(cls):
        if key.startswith("_") and key != "__init__":
            continue
        raw = vars(cls)[key]
        if isinstance(raw, property):
            methods.append((key, "property", _function(raw.fget, module) if raw.fget else None))
        elif isinstance(raw, (staticmethod, classmethod)):
            methods.append((key, type(raw).__name__, _function(raw.__func__, module)))
        elif inspect.isfunction(raw):
            methods.append((key, "", _function(raw, module)))
        elif type(raw) is cls or _is_plain(raw):
            kind = "" if type(raw) is cls else _annotation(type(raw), module)
            attributes += [(key, kind)] if key not in [known for known, _ in attributes] else []
    return ([base for base in bases if base != "typing.Any"], attributes, methods)


def _annotation(value: typing.Any, module: typing.Any) -> str:
    """Return an annotation as text; modules that it names are those of the standard library."""
    if value is None or value is type(None):
        return "None"
    if value is Ellipsis:
        return "..."
    origin, arguments = getattr(value, "__origin__", None), getattr(value, "__args__", ())
    if origin is None and getattr(type(value), "__name__", "") == "UnionType":
        origin = typing.Union
    if origin is typing.Union:
        return " | ".join(dict.fromkeys(_annotation(one, module) for one in arguments))
    if origin is not None and str(origin) == "typing.Literal":
        return "typing.Literal[%s]" % ", ".join(map(repr, arguments))
    if origin is collections.abc.Callable and arguments:
        taken = (
            "..." if arguments[0] is Ellipsis else "[%s]" % ", ".join(_annotation(a, module) for a in arguments[:-1])
        )
        return "collections.abc.Callable[%s, %s]" % (taken, _annotation(arguments[-1], module))
    if isinstance(origin, type):
        name = _name(origin, module)
        inner = [_annotation(one, module) for one in arguments]
        generic = [one for one in arguments if isinstance(one, typing.TypeVar)]
        return name if name == "typing.Any" or not inner or generic else "%s[%s]" % (name, ", ".join(inner))
    name = _name(value, module) if isinstance(value, type) else "typing.Any"
    return name + _ITEMS.get(name, "")


def _name(cls: type, module: typing.Any) -> str:
    home, path = cls.__module__, cls.__qualname__
    if home == "builtins" and hasattr(sys.modules["builtins"], path):
        return path
    if cls is inspect.Parameter.empty or "<" in path:
        return "typing.Any"
    while "." in home and home not in _STANDARD:  # pathlib._local
        home = home.rpartition(".")[0]
    if home in _STANDARD and not path.startswith("_") and hasattr(sys.modules[home], path):
        return home + "." + path
    return path if not path.startswith("_") and getattr(module, path, None) is cls else "typing.Any"
