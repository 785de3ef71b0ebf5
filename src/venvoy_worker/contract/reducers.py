"""Which class is pickled how: the dispatch tables of our picklers, filled when a class is first met.

Pickle's own form of a value names modules that other versions of Python or of a library do not have, and classes the
other side need not have. A `Table` answers for each class with a reducer whose form every receiver reads. What is
heavy (`classes`, `standard`, `arrays`, `pandas_values`) is imported when a value of that kind is first met, so that a
worker which never meets one does not pay for it.

Owns the classes registered by `register`, and the tables' memory of what they found. Law: builtin scalars, str, bytes
and containers never come here; the pickler does them in C.
"""

from __future__ import annotations

import os
import sys
from _operator import methodcaller
from copyreg import dispatch_table as _of_copyreg

by_pickle = methodcaller("__reduce_ex__", 5)  # what a pickler does without a table
_FAMILIES = {"numpy": "arrays", "pandas": "pandas_values", "polars": "arrow_values", "pyarrow": "arrow_values"}
_MOST_KINDS = 2000  # remembered by a table: classes may be made again and again, and must not live for ever
_NATIVE = (type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, type)
_LIBRARY = os.path.dirname(os.__file__) + os.sep
_STANDARD = getattr(sys, "stdlib_module_names", None)  # since Python 3.10

_registered: dict[type, Reducer] = {}
_decoders: dict[str, Callable[[Any], object]] = {}
_changes = 0  # of `_registered`


class Table(dict):  # type: ignore[type-arg]
    """A dispatch table for values that go to one kind of receiver.

    Args:
        is_home: the receiver is in the same environment, so that classes go by name as pickle does, but for those
            that live in no module it could import.
        is_strict: classes that are neither declared nor have a plain form are refused, not named.
        declared: names of modules, packages, or classes ("module:Class") that go by name in spite of that.
        own_folders: modules below these folders need not be importable for the receiver, though it is at home.
    """

    def __init__(
        self,
        is_home: bool,
        is_strict: bool = False,
        declared: tuple[str, ...] = (),
        own_folders: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.is_home = is_home
        self.is_strict = is_strict
        self.declared = declared
        self.own_folders = own_folders
        self._seen = (0, 0)

    def fresh(self) -> Table:
        """Return this table, emptied if a class has been registered since it was last used."""
        seen = (_changes, len(_of_copyreg))
        if seen != self._seen or len(self) > _MOST_KINDS:
            self.clear()
            self._seen = seen
        return self

    def get(self, kind: type, otherwise: Any = None) -> Any:
        """Return the reducer of a class; the pickler written in Python asks like this."""
        try:
            return self[kind]
        except KeyError:
            return otherwise

    def __missing__(self, kind: type) -> Reducer:
        reducer = self._find(kind)
        if reducer is None:
            raise KeyError(kind)
        self[kind] = reducer
        return reducer

    def _find(self, kind: type) -> Reducer | None:
        registered = _registered.get(kind) or kind.__dict__.get("__venvoy_reduce__")
        if registered is not None or issubclass(kind, type):  # a class itself is a name, whatever its metaclass is
            return registered
        module = str(kind.__module__)
        top = module.partition(".")[0]
        if top in _FAMILIES:
            family = __import__("%s.%s" % (__package__, _FAMILIES[top]), fromlist=["*"])
            found: Reducer | None = family.reducer_of(kind, sys.modules[top])
            return found if found is not None else _of_copyreg.get(kind, by_pickle)
        if is_standard(module):
            return self._standard(kind)
        if (self.is_home and not self._lives_apart(module)) or top == "venvoy_worker":
            return _of_copyreg.get(kind, by_pickle)
        from . import classes

        return classes.reducer_of(kind, self)

    def _standard(self, kind: type) -> Reducer:
        if "enum" in sys.modules and issubclass(kind, sys.modules["enum"].Enum):
            if self.is_home:
                return by_pickle
            from . import classes

            return classes.reducer_of(kind, self)
        from . import standard

        return standard.reducer_of(kind) or _of_copyreg.get(kind, by_pickle)

    def _lives_apart(self, module: str) -> bool:
        if module in ("__main__", "venvoy_session", "venvoy_sources") or module.startswith("venvoy_source_"):
            return True
        path = getattr(sys.modules.get(module), "__file__", None) or ""
        return path.startswith(self.own_folders)

    def is_declared(self, kind: type) -> bool:
        """Return True when the receiver has said that it has this class."""
        return is_declared(str(kind.__module__), kind.__qualname__, self.declared)


HOME = Table(is_home=True)
ARGUMENTS = Table(is_home=False)  # to a worker of another environment, whose classes are wanted where it has them


def is_declared(module: str, qualname: str, declared: Collection[str]) -> bool:
    """Return True when a class, its module or a package it is in is among the declared names."""
    if "%s:%s" % (module, qualname) in declared:
        return True
    while module:
        if module in declared:
            return True
        module = module.rpartition(".")[0]
    return False


def is_standard(module: str) -> bool:
    """Return True for a module of the standard library."""
    top = module.partition(".")[0]
    if _STANDARD is not None:
        return top in _STANDARD
    path = getattr(sys.modules.get(top), "__file__", None)
    if path is None:
        return top in sys.builtin_module_names
    return path.startswith(_LIBRARY) and "-packages" not in path


def register(
    cls: type, encode: Callable[[Any], object], decode: Callable[[Any], object], *, name: str | None = None
) -> None:
    """Have instances of a class travel as what `encode` returns; where they arrive `decode` makes them again.

    Both sides have to register it; a receiver that has not gets what `encode` returned, a dict as a `Record`.

    Args:
        cls: exactly this class, not its subclasses.
        encode: takes an instance, returns a value that can travel.
        decode: takes that value, returns an instance.
        name: what it is called on its way; by default "module:Class". Give one where the modules differ.

    Raises:
        TypeError: an argument is not what is described here, or builtin values of this class never need it.

    Examples:
        >>> class Money:
        ...     def __init__(self, cents):
        ...         self.cents = cents
        >>> vv.register(Money, lambda money: money.cents, Money, name="shop.Money")
        >>> with vv.Pool() as pool:
        ...     pool.eval("type(price).__name__", price=Money(250))  # where it is not registered
        'int'
    """
    global _changes
    if not isinstance(cls, type):
        raise TypeError("register() takes a class, not %r" % (cls,))
    if cls in _NATIVE:
        raise TypeError("register() cannot change how a builtin %s travels" % cls.__name__)
    if not callable(encode) or not callable(decode):
        raise TypeError("register(%s): encode and decode are functions" % cls.__name__)
    known_as = name if name is not None else name_of(cls)

    def reduce_registered(value: object) -> tuple[object, ...]:
        from . import records

        return records.restore_registered, (known_as, encode(value))

    _registered[cls] = reduce_registered
    _decoders[known_as] = decode
    _changes += 1


def decoder_of(name: str) -> Callable[[Any], object] | None:
    """Return the function that makes instances of a registered class, None if it is not registered here."""
    return _decoders.get(name)


def name_of(cls: type) -> str:
    """Return "module:Class", the name of a class on its way."""
    return "%s:%s" % (cls.__module__, cls.__qualname__)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Collection

    Reducer = Callable[[Any], Any]
