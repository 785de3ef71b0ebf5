"""Which definition made an object: a `def`, a `lambda`, a `class`, or a `def` with the decorators above it."""

from __future__ import annotations

import ast
from types import FunctionType, MethodType
from typing import Any

from venvoy.errors import EncodingError
from venvoy.source import cut as cutting
from venvoy.source.cut import Cut, describe
from venvoy.source.names import yields


class Part:
    """One definition of the shipped module: what it came from, its text, and which other parts it needs when."""

    def __init__(self, thing: Any, definition: Any, cut: Cut, layers: int) -> None:
        self.thing = thing
        self.definition = definition  # the function that `thing` wraps, or `thing`
        self.cut = cut
        self.layers = layers  # wrappers that kept decorators put around the function
        self.cells: dict[str, str] = {}  # free variable -> module-level name of its value
        self.cell_parts: dict[str, Part] = {}  # those whose value is a part
        self.defaults: list[Part] = []  # needed when the text is executed
        self.runs: list[Part] = []  # called, or inherited from, when the text is executed
        self.uses: list[Part] = []  # needed when it is called

    @property
    def is_lambda(self) -> bool:
        return isinstance(self.cut.node, ast.Lambda)

    @property
    def first_line(self) -> int:
        """Where its text begins: a line earlier, where something has to open around it."""
        opens = self.is_lambda or self.cut.indent or self.cells
        return max(1, self.cut.line - 1) if opens else self.cut.line

    def direct(self) -> set[Part]:
        """The parts whose names stand in the text that is executed."""
        cells = [part for name, part in self.cell_parts.items() if name != self.cut.name]
        return {*self.defaults, *self.runs, *cells} - {self}

    def needed(self) -> set[Part]:
        """The parts to be there first: what is executed now needs all that it uses in turn."""
        found, todo = self.direct(), list(self.runs)
        seen: set[Part] = set()
        while todo:
            part = todo.pop()
            if part not in seen:
                seen.add(part)
                todo += [*part.direct(), *part.uses]
        return (found | seen) - {self}


class Origins:
    """Finds the definitions of objects; functions of the modules in `home` travel as source."""

    def __init__(self, home: frozenset[str]) -> None:
        self.home = home

    def cut(self, thing: Any) -> Part | None:
        owner = self.class_of(thing)
        if owner is not None:
            return self.cut(owner)
        if isinstance(thing, type):
            return Part(thing, thing, cutting.cut_class(thing), 0)
        if isinstance(thing, FunctionType) and self._is_home(thing):
            return self._cut_function(thing, thing, 0)
        # An object made by somebody else's decorator (lru_cache, contextmanager, njit): apply it there again.
        function, layers = _unwrap(thing)
        if isinstance(function, FunctionType) and layers and self._is_home(function):
            part = self._cut_function(thing, function, layers)
            if hasattr(thing, "registry"):
                raise EncodingError(f"{cannot(part)}what was registered for it (singledispatch) would be lost")
            if part.cut.decorators:
                return part
        return self._cut_function(thing, thing, 0) if isinstance(thing, FunctionType) else None

    def _cut_function(self, thing: Any, function: FunctionType, layers: int) -> Part:
        """Its decorators stay where they made `thing`: a raw function that a decorator got is sent without it."""
        whole = cutting.cut_function(function, None)
        path = function.__code__.co_qualname
        if function.__globals__.get(path) is thing:
            return Part(thing, function, whole, layers)
        if layers == 0 and whole.decorators and all(map(cutting.is_wraps, whole.decorators)):
            return Part(thing, function, whole, layers)  # it only copies names and texts
        return Part(thing, function, cutting.cut_function(function, layers), layers)

    def _is_home(self, function: FunctionType) -> bool:
        return function.__globals__.get("__name__") in self.home

    def class_of(self, thing: Any) -> type | None:
        """The class that makes `thing`, where that class travels as source, too."""
        owner: Any = None
        if isinstance(thing, MethodType):
            owner = thing.__self__
        elif isinstance(thing, FunctionType):
            *path, _ = thing.__code__.co_qualname.split(".")
            owner = cutting.cells_of(thing).get("__class__", thing.__globals__.get(path[0]) if path else None)
            for attribute in path[1:] if "__class__" not in thing.__code__.co_freevars else ():
                owner = getattr(owner, attribute, None)
        if not isinstance(owner, type) or not yields(owner, thing.__name__, thing):
            return None
        return owner if owner.__module__ in self.home or "<locals>" in owner.__qualname__ else None


def _unwrap(thing: Any) -> tuple[Any, int]:
    layers = 0
    while not isinstance(thing, MethodType) and hasattr(thing, "__wrapped__") and layers < 100:
        thing, layers = thing.__wrapped__, layers + 1
    return thing, layers


def cannot(part: Part) -> str:
    return f"cannot send {describe(part.definition)} as source: "
