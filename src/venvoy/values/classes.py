"""Which classes a worker's reply may bring: what the names in a body mean here.

In the host's own environment a name means what it means to pickle. In any other, a class of that name here may be
another version of it, so only the standard library, numpy and what the pool declares are looked up; an instance of
any other class arrives in its plain form (`venvoy_worker.contract.records`). A pool that does not trust its workers
looks up an allow-list only. Stateless.
"""

from __future__ import annotations

import array
import builtins
import sys
from collections.abc import Callable, Iterable
from functools import partial
from types import SimpleNamespace
from typing import Any

from venvoy_worker.contract import codec, records
from venvoy_worker.contract.codec import CodecError
from venvoy_worker.contract.reducers import is_declared, is_standard, name_of

from .failures import find_portable, rebuild

_CONTRACT = "venvoy_worker.contract."
_RESTORERS = ("arrays", "arrow_values", "pandas_values", "records", "standard")
_OF_CLASSES = ("new_object", "make_object", "new_container", "restore_subclass", "restore_tuple", "restore_enum")
_CONSTANTS = {"Ellipsis": ..., "NotImplemented": NotImplemented}
_SAFE = {
    "builtins": "bool bytearray bytes complex dict float frozenset int list range set slice str tuple",
    "collections": "Counter OrderedDict defaultdict deque",
    "array": "array",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "ipaddress": "IPv4Address IPv4Interface IPv4Network IPv6Address IPv6Interface IPv6Network",
    "re": "_compile",
}
_SAFE_NAMES = {f"{module}.{name}" for module, names in _SAFE.items() for name in names.split()}


class Classes:
    """What names in replies mean.

    Args:
        is_home: the workers run in the host's own environment.
        declared: names of modules, packages and classes whose instances may become themselves here.
        is_safe: nothing but builtins, standard value types, registered and declared classes, arrays and frames.
    """

    def __init__(self, is_home: bool = False, declared: tuple[str, ...] = (), is_safe: bool = False) -> None:
        self.is_home = is_home and not is_safe  # what is not trusted gives plain forms
        self.is_safe = is_safe
        self.declared = declared
        self.find_class: Callable[[str, str], object] | None = self._find
        self.load: codec.Load | None = None  # how bodies are read, if not as pickle does
        if is_safe:
            from .guarded import load  # start-up time: few pools ask for it, and it imports pickle

            self.find_class, self.load = self._find_safe, load
        elif self.is_home:
            self.find_class = None  # what pickle does by itself, in C

    def rebuild(self, snapshot: Any) -> BaseException:
        """Return the exception that an error snapshot describes.

        Raises:
            CodecError: a worker that is not trusted has sent something else.
        """
        if not self.is_safe:
            return rebuild(snapshot, is_home=self.is_home, find_class=self.find_class)
        try:
            return rebuild(snapshot, is_home=False, find_class=self.find_class, load=self.load)
        except Exception as error:
            raise CodecError(f"holds an error that is none: {error}") from error

    def _find(self, module: str, name: str) -> object:
        if module.startswith(_CONTRACT):
            return self._restorer(module, name)
        if is_declared(module, name, self.declared):
            found = codec.import_global(module, name)
            if _is_class_of(found, module, name):
                return found
        return find_portable(module, name)

    def _restorer(self, module: str, name: str) -> Any:
        if module == records.__name__ and name in _OF_CLASSES:
            return partial(getattr(records, name), find=self._class_named)
        return self.rebuild if name == "restore_error" else codec.import_global(module, name)

    def _class_named(self, name: str) -> type | None:
        """Return the class that an instance of "module:Class" may become here, None for its plain form."""
        module, _, qualname = name.partition(":")
        is_here = is_standard(module) and not (self.is_safe and module not in sys.modules)
        if not is_here and not is_declared(module, qualname, self.declared):
            return None
        found = records.importable(name)
        return found if found is not None and _is_class_of(found, module, qualname) else None

    # --- workers that are not trusted -----------------------------------------------------

    def _find_safe(self, module: str, name: str) -> object:
        """As `_find`, for bodies that may be forged.

        What is found is a function, or a class that is declared: of other objects such a body can neither set the
        state nor the items, see `guarded`.
        """
        if module == "builtins" and name in _CONSTANTS:
            return _CONSTANTS[name]
        if (module, name) in _REPLACED:
            return _REPLACED[module, name]
        if module.startswith(_CONTRACT):
            return partial(self._safe_restorer(module, name))
        if f"{module}.{name}" in _SAFE_NAMES or (module == "builtins" and _is_error(name)):
            found: Any = codec.import_global(module, name)
            return partial(found)
        if is_declared(module, name, self.declared):
            found = codec.import_global(module, name)
            if _is_class_of(found, module, name):
                return found
        raise CodecError(
            f'names {module}.{name}, which unpickle="safe" does not allow: builtins, standard value types, arrays, '
            "and classes that are declared (Pool(classes=...)) or registered"
        )

    def _safe_restorer(self, module: str, name: str) -> Any:
        allowed = name in ("fill_object", *_OF_CLASSES) or name.startswith(("restore_", "make_"))
        if module.removeprefix(_CONTRACT) not in _RESTORERS or not allowed or "." in name:
            raise CodecError(f"names {module}.{name}, which is nothing that rebuilds a value")
        if name == "fill_object":
            return self._fill
        found = self._restorer(module, name)
        return partial(_CHECKED[name], found) if name in _CHECKED else found

    def _fill(self, target: object, state: dict[str, object]) -> None:
        """Give an object its attributes, if it is one that such a body may have made."""
        kind = type(target)
        if kind not in (records.Record, dict, list) and self._class_named(name_of(kind)) is not kind:
            raise CodecError(f"sets attributes of a {kind.__name__}")
        if kind is not records.Record:
            _check_attributes(state)
        records.fill_object(target, state)


def _namespace() -> SimpleNamespace:
    """Return an empty one, whose attributes the body then sets; since Python 3.13 its arguments can be attributes."""
    return SimpleNamespace()


def _array(kind: object, *parts: Any) -> object:
    """Return an `array.array`; the function that makes them wants the very class, which is not handed out."""
    return array._array_reconstructor(array.array, *parts)  # type: ignore[attr-defined]


def _check_attributes(names: Iterable[object]) -> None:
    from .guarded import check_attribute  # start-up time: it imports pickle

    for name in names:
        check_attribute(name)


def _subclass_of(restore: Callable[..., object], name: str, value: object, state: dict[str, object] | None) -> object:
    _check_attributes(state or ())
    return restore(name, value, state)


def _validated_table(restore: Callable[..., Any], kind: str, data: object) -> object:
    """Return what `restore_table` does, after pyarrow has looked whether its parts are where they say."""
    try:
        import pyarrow
    except ImportError:
        return restore(kind, data)
    if int(pyarrow.__version__.partition(".")[0]) < 15:
        raise CodecError("holds a table of Arrow: before 15, pyarrow ran code that a table may bring")
    table = restore(kind, data)
    table.validate(full=True)
    return table


_CHECKED: dict[str, Callable[..., object]] = {"restore_subclass": _subclass_of, "restore_table": _validated_table}
_REPLACED = {("types", "SimpleNamespace"): _namespace, ("array", "_array_reconstructor"): _array}


def _is_class_of(found: object, module: str, name: str) -> bool:
    """Return True for a class that was defined there: a declared module also has what it imported."""
    return isinstance(found, type) and (found.__module__, found.__qualname__) == (module, name)


def _is_error(name: str) -> bool:
    found = getattr(builtins, name, None)
    return isinstance(found, type) and issubclass(found, Exception)


def declared_names(classes: Iterable[str | type]) -> tuple[str, ...]:
    """Return what `Pool(classes=)` declares as names: of modules, of packages, or "module:Class".

    Raises:
        TypeError, ValueError: an entry is neither a class nor a name.
    """
    if isinstance(classes, str | type):
        raise TypeError(f"classes is a list of classes and names of modules, not one: use classes=[{classes!r}]")
    return tuple(_declared_name(entry) for entry in classes)


def _declared_name(entry: object) -> str:
    if isinstance(entry, type):
        if entry.__module__ == "__main__" or "<locals>" in entry.__qualname__:
            raise ValueError(f"classes: {entry.__qualname__} is in no module that a worker could import")
        return name_of(entry)
    if not isinstance(entry, str):
        raise TypeError(f"classes: {entry!r} is neither a class nor the name of a module")
    parts = entry.replace(":", ".", 1).split(".")
    if not all(part.isidentifier() for part in parts):
        raise ValueError(f'classes: {entry!r} is neither the name of a module nor "module:Class"')
    return entry
