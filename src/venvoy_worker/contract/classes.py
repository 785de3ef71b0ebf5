"""How instances of classes are sent that the receiver need not have: by name and fields, to become what it decides.

The receivers' half is `records`. Stateless; `reducers.Table` remembers the answers.
"""

from __future__ import annotations

import sys

from . import records
from .codec import CodecError
from .reducers import by_pickle, name_of

_CUSTOM = ("__reduce_ex__", "__reduce__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__")
_GENERATED = ("dataclasses", "collections", "attr", "pydantic.")  # who writes such methods for the classes of others
_SCALARS = (str, bytes, int, float, complex, frozenset, set, tuple, bytearray)
_DUMPS = ("model_dump", "dict", "__json__")
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_VALUE_MODULES = ("datetime", "decimal", "fractions", "uuid", "pathlib", "pathlib._local", "ipaddress")


def reducer_of(kind: type, table: Table) -> Reducer:
    """Return how instances of a class travel to the receiver a table is for."""
    if "enum" in sys.modules and issubclass(kind, sys.modules["enum"].Enum):
        return _reduce_enum
    may_be_named = not table.is_strict or table.is_declared(kind)
    if may_be_named and _pickles_itself(kind):
        return by_pickle
    found = _plain_reducer(kind, table.is_strict)
    if found is not None:
        return found
    if may_be_named:
        return by_pickle
    return _dumper(kind) or _refuse


def _plain_reducer(kind: type, is_strict: bool) -> Reducer | None:
    name = name_of(kind)
    if issubclass(kind, tuple) and isinstance(getattr(kind, "_fields", None), tuple):
        return lambda value: (records.restore_tuple, (name, kind._fields, tuple(value)))  # type: ignore[attr-defined]
    if issubclass(kind, BaseException):
        return _reduce_error if is_strict else by_pickle
    fields = records.fields_of(kind)
    if fields is not None:
        if hasattr(kind, "__struct_fields__") or hasattr(kind, "__pydantic_fields__"):
            return lambda value: (records.make_object, (name, _fields(value, fields)))
        return _object_reducer(name, fields, is_strict)
    if issubclass(kind, (dict, list)):
        return _container_reducer(name, kind)
    for base in _SCALARS:
        if issubclass(kind, base):
            return lambda value: (records.restore_subclass, (name, _as_builtin(base, value), _extras(value)))
    return None


def _pickles_itself(kind: type) -> bool:
    """Return True when somebody wrote down how to pickle the class."""
    if hasattr(kind, "__struct_fields__"):
        return False
    for name in _CUSTOM:
        method = getattr(kind, name, None)
        if method is None or method is getattr(object, name, None):
            continue
        if str(getattr(method, "__module__", "")).startswith(_GENERATED):
            continue
        owner = next((base for base in kind.__mro__ if name in vars(base)), object)
        if owner.__module__ != "builtins":
            return True
    return False


def _object_reducer(name: str, fields: tuple[str, ...], is_strict: bool) -> Reducer:
    reference = (name, fields)  # one object, which the pickle says once

    def reduce_object(value: object) -> tuple[object, ...]:
        state = _fields(value, fields)
        if not is_strict:  # as pickle does: all that is in the instance
            state = {**getattr(value, "__dict__", {}), **state}
        return records.new_object, (reference,), state, None, None, records.fill_object

    return reduce_object


def _fields(value: object, names: tuple[str, ...]) -> dict[str, object]:
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _container_reducer(name: str, kind: type) -> Reducer:
    base: type = dict if issubclass(kind, dict) else list

    def reduce_container(value: Any) -> tuple[object, ...]:
        made = records.new_container, (name, base.__name__)
        items = list.__iter__(value) if base is list else None
        pairs = iter(dict.items(value)) if base is dict else None
        return (*made, _extras(value), items, pairs, records.fill_object)

    return reduce_container


def _extras(value: object) -> dict[str, object] | None:
    return dict(getattr(value, "__dict__", {})) or None


def _as_builtin(base: Any, value: Any) -> object:
    """Return the builtin value that one of a subclass is, past whatever the subclass does with `str()` and the like."""
    if base in (str, int, float, complex):
        return base.__getnewargs__(value)[0]
    if base is bytes:
        return bytes.__getitem__(value, slice(None))
    return base(value)


def _reduce_enum(value: Any) -> tuple[object, ...]:
    plain = value._value_
    is_plain = _is_plain(plain)
    return records.restore_enum, (name_of(type(value)), value._name_, is_plain, plain if is_plain else value._name_)


def _is_plain(value: Any) -> bool:
    """Return True for a value that means the same everywhere: builtin scalars, standard value types, tuples of them."""
    if type(value) in _PLAIN:
        return True
    if type(value) in (tuple, frozenset):
        return all(map(_is_plain, value))
    return type(value).__module__ in _VALUE_MODULES


def _reduce_error(error: BaseException) -> tuple[object, ...]:
    from .failures import snapshot

    return records.restore_error, (snapshot(error, "\0"),)


def _dumper(kind: type) -> Reducer | None:
    for method in _DUMPS:
        if callable(getattr(kind, method, None)):
            return lambda value: (records.make_record, (name_of(kind), getattr(value, method)()))
    return None


def _refuse(value: object) -> tuple[object, ...]:
    kind = type(value)
    raise CodecError(
        "has no plain form: class %s.%s is not declared by the receiver, and is no dataclass, named tuple, enumeration "
        "or the like; return one of these, or declare it (Pool(classes=...), register)"
        % (kind.__module__, kind.__qualname__)
    )


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from .reducers import Table

    Reducer = Callable[[Any], Any]
