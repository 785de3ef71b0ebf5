"""What arrives for an instance of a class: the class where this side may have it, else its plain form.

The functions here are what bodies name (see docs/protocol.md); the senders' half is `classes`. Each asks `find` which
class to use: by default the class of that name if it can be imported and has the same fields. A host passes a `find`
of its own for environments other than its own. Stateless.
"""

from __future__ import annotations

import sys

from . import reducers
from .codec import CodecError, import_global


class Record(dict):  # type: ignore[type-arg]
    """The plain form of an object whose class is not taken for the same here: a dict with attribute access.

    `type_name` is the full name of the class it had. Fields called like a method of dict are reached as
    `record["items"]`. It is hashable where its fields are, so that it can be the key or the member of a set that the
    object was; do not change one that is. Sent to where the class is, it becomes an object of it again.

    Args:
        fields, more: as for dict.
        type_name: "module.Class"; "" for none.

    Examples:
        >>> item = vv.Record({"name": "tea", "price": 3}, type_name="app.models.Item")
        >>> item.name, item["price"], item.type_name
        ('tea', 3, 'app.models.Item')
    """

    __slots__ = ("_name", "_names")

    def __init__(self, fields: Any = (), /, *, type_name: str = "", **more: Any) -> None:
        super().__init__(fields, **more)
        module, dot, name = type_name.rpartition(".")
        _set(self, "_name", module + ":" + name if dot else type_name)
        _set(self, "_names", None)

    @property
    def type_name(self) -> str:
        """The full name of the class, as in "app.models.Item"."""
        return str(self._name).replace(":", ".")

    def __getattr__(self, name: str) -> Any:
        if name in self and not name.startswith("__"):  # by such names libraries ask for their protocols
            return self[name]
        known = ", ".join(map(str, self)) or "none"
        raise AttributeError("this Record of %s has no field %r; it has %s" % (self.type_name, name, known))

    def __setattr__(self, name: str, value: object) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self:
            raise AttributeError(name)
        del self[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name in self if isinstance(name, str))]

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __repr__(self) -> str:
        fields = dict.__repr__(self)  # which knows what to do about cycles
        return "Record(%s: %s)" % (self.type_name, fields) if self._name else "Record(%s)" % fields

    def copy(self) -> Record:
        """Return a shallow copy, which is a Record too."""
        return self.__copy__()

    def __copy__(self) -> Record:
        other = _new_record(self._name, self._names)
        other.update(self)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Record:
        from copy import deepcopy  # start-up time

        other = memo[id(self)] = _new_record(self._name, self._names)
        for key, value in self.items():
            other[deepcopy(key, memo)] = deepcopy(value, memo)
        return other

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        names = self._names if self._names is not None else tuple(self)
        return new_object, ((self._name, names),), dict(self), None, None, fill_object


_set = object.__setattr__


def _new_record(name: str, names: tuple[str, ...] | None) -> Record:
    record = Record.__new__(Record)
    _set(record, "_name", name)
    _set(record, "_names", names)
    return record


# --- which class --------------------------------------------------------------------------------------------------


def importable(name: str) -> type | None:
    """Return the class of that name where it can be imported, else None; modules of scripts never can."""
    module, _, qualname = name.partition(":")
    if not module or module == "__main__" or "<locals>" in qualname:
        return None
    try:
        found = import_global(module, qualname)
    except (ImportError, AttributeError):
        return None
    return found if isinstance(found, type) else None


def fields_of(kind: type) -> tuple[str, ...] | None:
    """Return the names of the fields of a class that declares them (dataclass, attrs, msgspec, pydantic), else None."""
    fields = getattr(kind, "__dataclass_fields__", None)
    if fields is not None:  # class variables and InitVars are in there too
        return tuple([name for name, field in fields.items() if field._field_type.name == "_FIELD"])
    attributes = getattr(kind, "__attrs_attrs__", None)
    if attributes is not None:
        return tuple([attribute.name for attribute in attributes])
    names = getattr(kind, "__struct_fields__", None)
    if names is not None:
        return tuple(names)
    fields = getattr(kind, "__pydantic_fields__", None)
    return None if fields is None else tuple(fields)


def _matching(find: Find, name: str, names: Sequence[str]) -> type | None:
    """Return the class if its fields are those of the object that was sent."""
    kind = find(name)
    fields = None if kind is None else fields_of(kind)
    return kind if fields is not None and set(fields) == set(names) else None


# --- what bodies name ---------------------------------------------------------------------------------------------


def new_object(reference: tuple[str, tuple[str, ...]], find: Find = importable) -> object:
    """Return an empty object of the class, or an empty `Record`; `fill_object` gives it its fields.

    In two steps, so that an object may hold itself.

    Args:
        reference: name of the class, names of its fields.
    """
    name, names = reference
    kind: Any = _matching(find, name, names)
    return _new_record(name, names) if kind is None else kind.__new__(kind)


def fill_object(target: object, state: dict[str, object]) -> None:
    """Give an object its attributes, frozen or in slots; a `Record` its items."""
    if type(target) is Record:
        target.update(state)
    elif isinstance(target, type) or (type(target).__module__ in ("builtins", "functools") and callable(target)):
        raise CodecError("names a class or function where an object should be")
    elif type(target) not in (dict, list):  # the plain forms of their subclasses have no attributes
        for name, value in state.items():
            _set(target, name, value)


def make_object(name: str, fields: dict[str, Any], find: Find = importable) -> object:
    """Return an object whose class wants its fields when it is made (msgspec, pydantic), or a `Record`."""
    kind = _matching(find, name, tuple(fields))
    if kind is None:
        record = _new_record(name, tuple(fields))
        record.update(fields)
        return record
    return getattr(kind, "model_construct", kind)(**fields)


def make_record(name: str, value: object) -> object:
    """Return what an object said of itself by `model_dump`, `dict` or `__json__`: a dict becomes a `Record`."""
    if not isinstance(value, dict):
        return value
    record = _new_record(name, None)
    record.update(value)
    return record


def new_container(name: str, base: str, find: Find = importable) -> object:
    """Return an empty list or dict of the class, or the builtin one; the pickle then fills it."""
    plain = {"dict": dict, "list": list}[base]
    kind = find(name)
    return kind.__new__(kind) if kind is not None and issubclass(kind, plain) else plain()


def restore_subclass(name: str, value: Any, state: dict[str, object] | None, find: Find = importable) -> object:
    """Return a value of a subclass of str, int and their like, or the builtin value."""
    kind = find(name)
    if kind is None or not issubclass(kind, type(value)):
        return value
    made: Any = type(value).__new__(kind, value)
    if isinstance(made, (set, bytearray)):
        (made.update if isinstance(made, set) else made.extend)(value)
    fill_object(made, state or {})
    return made


def restore_tuple(name: str, fields: tuple[str, ...], items: tuple[Any, ...], find: Find = importable) -> object:
    """Return a named tuple of the class, or a plain tuple."""
    kind = find(name)
    if kind is not None and issubclass(kind, tuple) and getattr(kind, "_fields", None) == fields:
        return tuple.__new__(kind, items)
    return items


def restore_enum(name: str, member: str | None, is_plain: bool, value: Any, find: Find = importable) -> object:
    """Return the member of an enumeration; its value where the class or member is not here.

    Args:
        is_plain: `value` is the member's value; else it is its name, since the value is nothing that travels.
    """
    kind = find(name)
    if kind is None or "enum" not in sys.modules or not issubclass(kind, sys.modules["enum"].Enum):
        return value
    found = getattr(kind, "__members__", {}).get(member)
    if found is not None and (not is_plain or found.value == value):
        return found
    try:
        return kind(value) if is_plain and found is None else value
    except (ValueError, TypeError):
        return value


def restore_registered(name: str, value: object) -> object:
    """Return what the registered function makes of a value; else the value, a dict as a `Record`."""
    decode = reducers.decoder_of(name)
    return make_record(name, value) if decode is None else decode(value)


def restore_error(report: dict[str, Any]) -> object:
    """Return the exception an error snapshot describes; only hosts do that."""
    raise CodecError("holds an error of class %s, which only a host can receive" % report.get("type"))


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Optional, Sequence

    Find = Callable[[str], Optional[type]]
