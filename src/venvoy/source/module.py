"""Collects everything a function refers to, and writes it as the text of one module for a worker.

What each name in the shipped module becomes: a module is imported; an object of an importable module is imported
by name; a function or class of `home` (the main module, or the one `by_source` was asked to take along) is a
`Part`, cut out of its file; a plain value is a binding; a container or partial of all these is an expression of
their names; loggers, patterns, paths and type variables are made again. Anything else is an `EncodingError`.

Laws of the text: every definition keeps its file's own line numbers, so that tracebacks are true. It stands there
as it is, padded with empty lines, where its place is still free; else (other file, place taken, name taken) it is
a string that is compiled under its own file name and executed.

Differences from running it here: the shipped module has its own copies of the variables it refers to, so
assigning to a `global` changes only the worker's copy. Rebinding by `nonlocal` is refused, because the variable
would silently stop being shared with the enclosing function.
"""

from __future__ import annotations

import builtins
import functools
import itertools
import sys
import weakref
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from venvoy.errors import EncodingError
from venvoy.source import cut as cutting
from venvoy.source import values as values
from venvoy.source.parts import Origins, Part, cannot
from venvoy.source.write import Placed, write

_MISSING = object()
_OF_THE_MODULE_ITSELF = {
    "__name__",
    "__builtins__",
    "__spec__",
    "__loader__",
    "__package__",
    "__doc__",
    "__annotations__",
}


class Shipped(NamedTuple):
    """What one function takes along, ready to be sent; it keeps neither the function nor its helpers alive."""

    entry: str  # the path to the function in the shipped module
    text: str
    filename: str
    bindings: dict[str, object]
    watched: list[Callable[[], bool]]
    unseen: list[Placed]

    def is_current(self) -> bool:
        """Whether every variable that was looked at still is what it was."""
        return all(is_unchanged() for is_unchanged in self.watched)


def ship(thing: Any, home: frozenset[str]) -> Shipped | None:
    """Everything `thing` needs in a worker; None where it was not made by source.

    Raises:
        EncodingError: something it refers to cannot travel, or its source cannot be found.
    """
    collected = _Collector(home)
    found = collected.add(thing)
    if found is None:
        return None
    main, path = found
    text, name, unseen = write(
        main, list(collected.parts.values()), collected.imports, collected.aliases, collected.meanings
    )
    return Shipped(name + path, text, main.cut.filename, collected.bindings, collected.watched, unseen)


def can_cut(thing: Any, home: frozenset[str]) -> bool:
    """Whether `thing` was made by source that can be found; what it refers to is not looked at."""
    return Origins(home).cut(thing) is not None


class _Collector:
    """The walk over what a function refers to; each object is met once, so cycles end."""

    def __init__(self, home: frozenset[str]) -> None:
        self.home = home
        self.origins = Origins(home)
        self.bindings: dict[str, object] = {}
        self.imports: list[str] = []
        self.parts: dict[int, Part] = {}
        self.aliases: list[tuple[str, Part, str]] = []  # name = the part's object, or an attribute of it
        self.meanings: dict[str, Any] = {}  # every module-level name, and the object it stands for here
        self.watched: list[Callable[[], bool]] = []
        self._open: set[int] = set()  # containers being taken apart
        self._numbers = itertools.count(1)

    def fresh_name(self) -> str:
        return f"_venvoy_{next(self._numbers)}"

    # --- which source makes an object ---

    def add(self, thing: Any) -> tuple[Part, str] | None:
        """The part that makes `thing`, and the path to it from there (methods are made by their class)."""
        owner = self.origins.class_of(thing)
        if owner is not None:
            found = self.add(owner)
            return found and (found[0], f"{found[1]}.{thing.__name__}")
        if id(thing) not in self.parts:
            part = self.origins.cut(thing)
            if part is None:
                return None
            self.parts[id(thing)] = part
            self._resolve(part)
        return self.parts[id(thing)], ""

    # --- what a part refers to ---

    def _resolve(self, part: Part) -> None:
        function = part.definition
        if isinstance(function, type):
            cells, space = cutting.cells_of_class(function), vars(sys.modules[function.__module__])
        else:
            cells, space = cutting.cells_of(function), function.__globals__
            self._watch_cells(function)
            self._resolve_defaults(part, function)
        rebound = cutting.rebound_names(part.cut.node) & set(cells)
        if rebound:
            raise EncodingError(
                f"{cannot(part)}it rebinds {min(rebound)!r} of the enclosing function "
                "(nonlocal), which is not shared with the worker; pass the value and return the new one"
            )
        names = cutting.names_in(part.cut.node)
        for name in sorted((names.at_definition | names.later) & set(cells)):
            self._resolve_cell(part, name, cells[name])
        for name in sorted(names.at_definition - set(cells)):
            part.runs += self._resolve_global(part, name, space)
        for name in sorted(names.later - set(cells)):
            part.uses += self._resolve_global(part, name, space)
        for name in sorted(names.annotations - set(cells)):
            self._resolve_annotation(part, name, space)
        self._import_submodules(part, space)

    def _resolve_defaults(self, part: Part, function: FunctionType) -> None:
        replaced = []
        for parameter, expression, value in cutting.defaults_of(part.cut, function):
            name = self.fresh_name()
            part.defaults += self._bind(name, value, part, f"the default value of its parameter {parameter!r}")
            replaced.append((expression, name))
        if replaced:
            part.cut = cutting.replace_defaults(part.cut, replaced)

    def _resolve_cell(self, part: Part, name: str, value: Any) -> None:
        if value is part.thing and name == part.cut.name:
            return  # it refers to itself, and its definition makes that name
        part.cells[name] = self.fresh_name()
        for found in self._bind(part.cells[name], value, part, f"the variable {name!r} of the enclosing function"):
            part.cell_parts[name] = found

    def _resolve_global(self, part: Part, name: str, space: dict[str, Any]) -> list[Part]:
        value = space.get(name, _MISSING)
        if name in _OF_THE_MODULE_ITSELF:
            return []
        self._watch(value, functools.partial(space.get, name, _MISSING))
        by_decorator = name in cutting.decorator_names(part.cut)
        if value is _MISSING:
            if by_decorator and not hasattr(builtins, name):
                raise EncodingError(f"{cannot(part)}its decorator uses {name!r}, which is not a global variable")
            return []  # a builtin, or a NameError when it is used: as here
        module = sys.modules.get(str(space.get("__name__")))
        if module is not None and vars(module) is space and module.__name__ not in self.home:
            self._import(name, f"from {module.__name__} import {name}", value, part)
            return []
        return self._bind(name, value, part, f"its {'decorator' if by_decorator else 'global variable'} {name!r}")

    def _resolve_annotation(self, part: Part, name: str, space: dict[str, Any]) -> None:
        """Make a name there if that is possible, but never fail: perhaps nobody evaluates the annotation."""
        if name in self.meanings or name not in space:
            return
        collections = (self.bindings, self.imports, self.parts, self.aliases, self.meanings)
        before: list[Any] = [collection.copy() for collection in collections]
        try:
            part.uses += self._resolve_global(part, name, space)
            new = len(before[1])
            self.imports[new:] = [values.optional(statement) for statement in self.imports[new:]]
        except EncodingError:
            self.bindings, self.imports, self.parts, self.aliases, self.meanings = before

    def _bind(self, name: str, value: Any, part: Part, label: str) -> list[Part]:
        """Make `name` stand for `value` in the shipped module; the part this needs, if any."""
        if type(value).__module__.partition(".")[0] == "venvoy" and hasattr(value, "__wrapped__"):
            value = value.__wrapped__  # our own wrappers stand for the function: a worker has no venvoy
        if name in self.meanings:
            self._check_meaning(name, value, part)
            return [found for alias, found, _ in self.aliases if alias == name]
        self.meanings[name] = value
        if values.is_plain(value):
            self.bindings[name] = value
            return []
        statement = values.import_statement(name, value, self.home)
        if statement is not None:
            self.imports.append(statement)
            return []
        found = self._add_container(name, value, part, label) or self.add(value)
        if found is None:
            raise EncodingError(
                f"{cannot(part)}{label} is of type {values.type_name(value)}, which can travel neither as text "
                "nor as a plain value; pass it as an argument, or make it inside the function"
            )
        self.aliases.append((name, *found))
        return [found[0]]

    def _add_container(self, name: str, value: Any, part: Part, label: str) -> tuple[Part, str] | None:
        """A container (or partial) of things that are not all plain, as an expression of their names."""
        items = values.items_of(value)
        if items is None or id(value) in self._open:
            return None
        if id(value) not in self.parts:
            self._open.add(id(value))
            names = [self.fresh_name() for _ in items]
            pairs = zip(names, items, strict=True)
            needed = [found for n, item in pairs for found in self._bind(n, item, part, f"an item of {label}")]
            self._open.remove(id(value))
            line = f"{name} = {values.container_expression(value, names)}"
            made = self.parts[id(value)] = Part(value, value, cutting.own_line(part.cut, line, name), 0)
            made.defaults = needed
            self.watched.append(lambda: list(map(id, items)) == list(map(id, values.items_of(value) or ())))
        return self.parts[id(value)], ""

    def _check_meaning(self, name: str, value: Any, part: Part) -> None:
        if self.meanings[name] is not value:
            raise EncodingError(
                f"{cannot(part)}the name {name!r} means different things in the modules it was collected from; "
                "put one of them in a module that the worker can import"
            )

    # --- imports ---

    def _import(self, name: str, statement: str, value: Any, part: Part) -> None:
        if name in self.meanings:
            self._check_meaning(name, value, part)
        else:
            self.meanings[name] = value
            self.imports.append(statement)

    def _import_submodules(self, part: Part, space: dict[str, Any]) -> None:
        """`import xml.dom` and `xml.dom.minidom.parse(...)`: the name alone is not enough."""
        for name, path in sorted(cutting.attribute_paths(part.cut.node)):
            module, steps = space.get(name), path.split(".")
            for end in range(1, len(steps) + 1):
                full = f"{getattr(module, '__name__', '')}.{'.'.join(steps[:end])}"
                if isinstance(module, ModuleType) and name in self.meanings and full in sys.modules:
                    statement = values.optional(f"__import__({full!r})")  # it may be no module there
                    if statement not in self.imports:
                        self.imports.append(statement)

    def _watch_cells(self, function: FunctionType) -> None:
        for index, name in enumerate(function.__code__.co_freevars):
            value = cutting.cells_of(function).get(name, _MISSING)
            self._watch(value, functools.partial(_cell_now, weakref.ref(function), index))

    def _watch(self, value: Any, now: Callable[[], Any]) -> None:
        """Note what a variable is, keeping no function or class alive by it."""
        try:
            before = weakref.ref(value)
        except TypeError:
            self.watched.append(lambda: value is now())
        else:
            self.watched.append(lambda: before() is now() is not None)


def _cell_now(function: Callable[[], FunctionType | None], index: int) -> Any:
    alive = function()
    try:
        return alive and (alive.__closure__ or ())[index].cell_contents
    except ValueError:
        return _MISSING
