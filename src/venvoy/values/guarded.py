"""The unpickler for bodies that may be forged: pickle without what reaches beyond the values that are named.

A body can do more than call what `find_class` gives it. BUILD calls `__setstate__`, by which a dtype of numpy takes
any layout, and with it any memory; it sets attributes, of classes too, and one called `__array_interface__` makes
numpy read and write wherever it says; items can be set in arrays; the extension registry has names of its own. Laws:
only objects of classes that were handed out have their `__setstate__` called; others get attributes that Python and
libraries give no meaning to; items go into containers; there are no extensions. A body that names nothing can do none
of this, and is read in C. Stateless.
"""

from __future__ import annotations

import copyreg
import pickle
from collections import deque
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from venvoy_worker.contract.codec import CodecError, Unpickler

if TYPE_CHECKING:
    from venvoy_worker.contract.codec import FindClass
    from venvoy_worker.contract.frames import Body, Buffer

_CONTAINERS = (dict, list, set, deque)


class _NamesSomething(Exception):
    """The body has to be read with care."""


def load(body: Body, buffers: Sequence[Buffer], find_class: FindClass) -> object:
    """Return the value of a body; see `codec.decode`, which expects any exception of this."""
    if not copyreg._extension_cache:  # type: ignore[attr-defined]  # what is in there is not asked for by name in C
        try:
            return Unpickler(body, buffers, _name_nothing).load()
        except _NamesSomething:
            pass
    return _Guarded(body, buffers, find_class).load()


def _name_nothing(module: str, name: str) -> object:
    raise _NamesSomething


_Unpickler: Any = pickle._Unpickler  # the one in C has no opcodes to look at


class _Guarded(_Unpickler):  # type: ignore[misc]
    """Reads a body, and looks before each opcode that reaches into what is there."""

    dispatch = dict(_Unpickler.dispatch)  # below, some of it is changed

    def __init__(self, body: Body, buffers: Sequence[Buffer], find_class: FindClass) -> None:
        super().__init__(BytesIO(body), buffers=buffers)
        self._find_class = find_class
        self._handed_out: set[object] = set()  # classes; all other names are given as functions

    def find_class(self, module: str, name: str) -> object:
        found = self._find_class(module, name)
        if isinstance(found, type):
            self._handed_out.add(found)
        return found

    def get_extension(self, code: int) -> None:
        raise CodecError(f"names entry {code} of the extension registry")

    def check_build(self) -> None:
        target, state = self.stack[-2:]
        kind = type(target)
        own = getattr(kind, "__setstate__", None)
        if own is None or own is BaseException.__setstate__:
            _check_attributes(target, state)
        elif kind not in self._handed_out:
            raise CodecError(f"sets the state of a {kind.__name__}")

    def check_class(self, place: int) -> None:
        kind = self.stack[place]
        if not isinstance(kind, type) or kind not in self._handed_out:
            raise CodecError("makes an object of something that is no class")

    def check_item(self, place: int) -> None:
        self._check_container(self.stack[place])

    def check_items(self) -> None:
        self._check_container(self.metastack[-1][-1])

    def _check_container(self, target: object) -> None:
        if not isinstance(target, _CONTAINERS) and type(target) not in self._handed_out:
            raise CodecError(f"puts items into a {type(target).__name__}")


def _look_before(opcode: bytes, check: Callable[..., None], *place: int) -> None:
    go_on = _Unpickler.dispatch[opcode[0]]

    def load_checked(unpickler: _Guarded) -> None:
        check(unpickler, *place)
        go_on(unpickler)

    _Guarded.dispatch[opcode[0]] = load_checked


_look_before(pickle.BUILD, _Guarded.check_build)
_look_before(pickle.NEWOBJ, _Guarded.check_class, -2)
_look_before(pickle.NEWOBJ_EX, _Guarded.check_class, -3)
_look_before(pickle.APPEND, _Guarded.check_item, -2)
_look_before(pickle.SETITEM, _Guarded.check_item, -3)
_look_before(pickle.APPENDS, _Guarded.check_items)
_look_before(pickle.ADDITEMS, _Guarded.check_items)
_look_before(pickle.SETITEMS, _Guarded.check_items)


def _check_attributes(target: object, state: object) -> None:
    if isinstance(target, type):
        raise CodecError(f"sets attributes of class {target.__name__}")
    for attributes in state if type(state) is tuple else (state,):
        for name in attributes or ():
            check_attribute(name)


def check_attribute(name: object) -> None:
    """Refuse the name of an attribute to which Python or a library gives a meaning.

    Raises:
        CodecError: it is one.
    """
    if not isinstance(name, str) or (name.startswith("__") and name.endswith("__")):
        raise CodecError(f"sets the attribute {name!r} of an object")
