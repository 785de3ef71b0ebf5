"""What a host is told about the class of an object, so that its proxy can be like it.

Owns the descriptions the host has been told, by number. A description is made once for a class, and anew for an object
that differs from the others of its class, and for a module that has got more names.
"""

from __future__ import annotations

import sys
from itertools import count

from ..contract.references import OF_CALLABLES, SPECIALS

_MOST = 1000  # classes may be made again and again, and must not live for ever
_MODULE = type(sys)
_FUNCTIONS = (type(lambda: None), type(len), staticmethod, classmethod, type(str.join), type(dict.__dict__["fromkeys"]))

_numbers = count(1)
# By id() of a class, module or the class of an object, and whether it is meant itself: (that, so that it stays the same
# one; how many names it had; description; number).
_known: dict[tuple[int, bool], tuple[object, int, Description, int]] = {}


def kind_of(value: object) -> tuple[int, Description | None]:
    """Return the number of an object's kind, and its description if the host does not have it yet."""
    is_own = isinstance(value, (_MODULE, type))  # of which each is a kind of its own
    thing = value if is_own else type(value)
    size = len(vars(thing)) if isinstance(value, _MODULE) else 0
    found = _known.get((id(thing), is_own))
    if found is not None and found[1] == size:
        number, description, is_told = found[3], found[2], True
    else:
        if len(_known) >= _MOST:
            _known.clear()
        number, description, is_told = next(_numbers), describe(value), False
        _known[id(thing), is_own] = (thing, size, description, number)
    shadowed = () if is_own else _shadowed(value, description[2])
    if shadowed:
        return next(_numbers), (*description[:2], description[2].difference(shadowed))
    return number, (None if is_told else description)


def describe(value: object) -> Description:
    """Return (name of the class, special methods, attributes that can be called without being fetched first)."""
    kind = type(value)
    specials = specials_of(kind)
    if isinstance(value, _MODULE):
        return "module %s" % value.__name__, specials, _callables(value)
    if isinstance(value, type):
        if hasattr(value, "__class_getitem__"):
            specials |= {"__getitem__"}
        return "class %s" % name_of(value), specials, _methods(value) - frozenset(dir(kind))
    return name_of(kind), specials, _methods(kind)


def name_of(kind: type) -> str:
    """Return the full name of a class, without the module of builtin ones."""
    module = str(getattr(kind, "__module__", "builtins"))
    return kind.__qualname__ if module == "builtins" else "%s.%s" % (module, kind.__qualname__)


def specials_of(kind: type) -> frozenset[str]:
    """Return the special methods that Python finds on a class; one that is None is a refusal, and is none."""
    found: dict[str, object] = {}
    for base in reversed(kind.__mro__):
        found.update((name, member) for name, member in vars(base).items() if name in SPECIALS)
    return frozenset(name for name, member in found.items() if member is not None)


def _callables(module: object) -> frozenset[str]:
    """Return the names of functions and of classes like others."""
    members = vars(module).items()
    return frozenset(
        name
        for name, member in members
        if type(name) is str and callable(member) and specials_of(type(member)) <= OF_CALLABLES
    )


def _methods(kind: type) -> frozenset[str]:
    """Return the names of methods; none where the class says itself what its attributes are."""
    lookup: Any = kind.__getattribute__
    if not isinstance(lookup, type(object.__getattribute__)):  # written in Python
        return frozenset()
    found: dict[str, object] = {}
    for base in reversed(kind.__mro__):
        found.update(vars(base))
    return frozenset(
        name for name, member in found.items() if isinstance(member, _FUNCTIONS) and not name.startswith("__")
    )


def _shadowed(value: object, methods: frozenset[str]) -> list[str]:
    """Return the methods that an object hides behind attributes of its own."""
    try:
        own = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return []
    return [name for name in own if name in methods] if type(own) is dict else []


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, FrozenSet, Tuple

    Description = Tuple[str, FrozenSet[str], FrozenSet[str]]
