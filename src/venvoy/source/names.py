"""Under which name an object can be imported: cheap, and asked for every callable that is sent."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import BuiltinFunctionType, BuiltinMethodType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any

MAIN_MODULES = frozenset({"__main__", "__mp_main__"})  # a worker has its own; no name in them means anything there

# Not written as unions, which would be built anew at each check.
_FUNCTIONS: Any = (FunctionType, BuiltinFunctionType)
_BOUND: Any = (MethodType, BuiltinMethodType, MethodWrapperType)


def name_of_function(target: Any) -> str | None:
    """As `name_of`, of a function that is where it says it is: the usual case, much faster than the search."""
    claimed, path = target.__module__, target.__qualname__
    module = sys.modules.get(claimed)
    if module is not None and module.__dict__.get(path) is target and claimed not in MAIN_MODULES:
        return f"{claimed}:{path}"
    return None


def name_of(target: Any) -> str | None:
    """The "module:path" under which `target` itself is found among the imported modules, or None.

    Builtins, C functions and ufuncs leave out or misstate where they live, so all they claim is tried.
    """
    if isinstance(target, _FUNCTIONS):
        if target.__module__ in MAIN_MODULES:
            return None
        name = name_of_function(target)
        if name is not None:
            return name
    paths = list(_claimed_paths(target))
    for module_name in _claimed_modules(target):
        module = sys.modules.get(module_name)
        if module is None or module_name in MAIN_MODULES:
            continue
        for path in paths:
            if yields(module, path, target):
                return f"{module_name}:{path}"
    return None


def yields(root: object, path: str, wanted: object) -> bool:
    """Whether following the dotted `path` from `root` ends at `wanted`."""
    found: Any = root
    try:
        for attribute in path.split("."):
            found = getattr(found, attribute)
    except Exception:  # a module's own __getattr__ may raise anything
        return False
    if found is wanted:
        return True
    # Methods bound to a class are made anew at each access; they are equal when class and function are the same.
    return type(found) is type(wanted) and isinstance(found, _BOUND) and found == wanted


def _claimed_modules(target: object) -> Iterator[str]:
    owner = getattr(target, "__self__", None)
    places = (
        getattr(target, "__module__", None),
        getattr(owner, "__name__", None) if isinstance(owner, ModuleType) else None,
        getattr(owner, "__module__", None),
        getattr(getattr(target, "__objclass__", None), "__module__", None),
        type(target).__module__,
    )
    return (place for place in places if isinstance(place, str))


def _claimed_paths(target: object) -> Iterator[str]:
    own, owner = getattr(target, "__name__", None), getattr(target, "__self__", None)
    inherited = f"{owner.__qualname__}.{own}" if isinstance(owner, type) else None
    for path in (getattr(target, "__qualname__", None), own, inherited):
        if isinstance(path, str) and "<" not in path:
            yield path
