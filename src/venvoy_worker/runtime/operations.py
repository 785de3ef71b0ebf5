"""What can be done with an object from a proxy: one function for each operation that Python looks up on a class.

Each is run by Python's own operator or builtin function, which know what to do where the class has no such method.
Owns the event loop in which coroutines of objects run, made when the first one is awaited.
"""

from __future__ import annotations

import _operator as operator
from time import perf_counter

from . import coroutines
from .kinds import describe

# What becomes of a result; "" stands for that of a call: a copy where it is plain, else it stays.
READ = "read"  # a copy where nobody could change it, else it stays: what an object gives access to
COPY = "copy"  # a copy, as results of calls by name are
KEEP = "keep"  # it stays
BATCH = "batch"  # a `Batch`

_BATCH_SECONDS = 0.005  # for which items are gathered, so that slow ones do not come late
_SEQUENCES = frozenset([list, tuple, bytearray])  # a slice of which is a new one


class Batch:
    """Some items of an iteration; `rest` gives the others, None when there are none."""

    def __init__(self, items: list[object], rest: Rest | None) -> None:
        self.items = items
        self.rest = rest


class Rest:
    """An iteration that has not come to its end."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator
        self._error: BaseException | None = None  # to be raised after the items before it

    def take(self, most: int) -> Batch:
        """Return the next items, `most` at most."""
        if self._error is not None:
            raise self._error
        items: list[object] = []
        end = perf_counter() + _BATCH_SECONDS
        try:
            for item in self._iterator:
                items.append(item)
                if len(items) >= most or perf_counter() > end:
                    return Batch(items, self)
        except Exception as error:
            if not items:
                raise
            self._error = error
            return Batch(items, self)
        return Batch(items, None)


def _iterate(subject: Any, most: int) -> Batch:
    return Rest(iter(subject)).take(most)


def _iterate_reversed(subject: Any, most: int) -> Batch:
    return Rest(iter(reversed(subject))).take(most)


def _binary(function: Any, is_reflected: bool = False) -> Operation:
    def operate(subject: Any, other: Any, *more: Any) -> object:
        try:
            return function(other, subject, *more) if is_reflected else function(subject, other, *more)
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is None and _says_unsupported(error):
                return NotImplemented
            raise

    return operate


def _says_unsupported(error: TypeError) -> bool:
    text = str(error)
    return text.startswith("unsupported operand") or "not supported between" in text


def _get_item(subject: Any, key: Any) -> object:
    return subject[key]


def is_new(name: str, subject: object, args: tuple[object, ...]) -> bool:
    """Return True for an item that is not in the object but made of it: a slice of a builtin sequence."""
    return name == "__getitem__" and type(subject) in _SEQUENCES and type(args[0]) is slice


def _exit(subject: Any, kind: Any, error: Any) -> bool:
    return bool(type(subject).__exit__(subject, kind, error, None))


# --- coroutines ---------------------------------------------------------------------------------------------------

_loop: Any = None


def finished(awaitable: Any) -> object:
    """Run an awaitable in the event loop of this worker, and return what it gives.

    It is one loop for all, unlike that of calls, since objects may be bound to the one they were made in.
    """
    global _loop
    import asyncio  # start-up time

    async def wait() -> object:
        return await awaitable

    if coroutines.has_loop():
        return coroutines.finish(wait())
    if _loop is None or _loop.is_closed():
        _loop = asyncio.new_event_loop()
        asyncio.set_event_loop(_loop)

    task = _loop.create_task(wait())
    try:
        return _loop.run_until_complete(task)
    except BaseException:
        if not task.done():  # interrupted between two steps of it: it has to end before the next one runs
            task.cancel()
            _loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        raise


def _anext(subject: Any) -> object:
    return finished(type(subject).__anext__(subject))


def _aenter(subject: Any) -> object:
    return finished(type(subject).__aenter__(subject))


def _aexit(subject: Any, kind: Any, error: Any) -> bool:
    return bool(finished(type(subject).__aexit__(subject, kind, error, None)))


def _aiter(subject: Any) -> object:
    return type(subject).__aiter__(subject)


# --- the tables ---------------------------------------------------------------------------------------------------


def _copy(subject: Any) -> object:
    import copy

    return copy.copy(subject)


def _deep_copy(subject: Any) -> object:
    import copy

    return copy.deepcopy(subject)


def _floor(name: str) -> Operation:
    def operate(subject: Any) -> object:
        import math

        return getattr(math, name)(subject)

    return operate


def _call(subject: Any, *args: Any, **kwargs: Any) -> object:
    return subject(*args, **kwargs)


def _same(subject: Any) -> object:
    return subject


def _fspath(subject: Any) -> object:
    import os

    return os.fspath(subject)


OPERATIONS: dict[str, tuple[Operation, str]] = {
    "getattr": (getattr, READ),
    "setattr": (setattr, COPY),
    "delattr": (delattr, COPY),
    "dir": (dir, COPY),
    "value": (_same, COPY),
    "kind": (describe, COPY),
    "iterate": (_iterate, BATCH),
    "reversed": (_iterate_reversed, BATCH),
    "take": (Rest.take, BATCH),
    "__call__": (_call, ""),
    "__getitem__": (_get_item, READ),
    "__setitem__": (operator.setitem, COPY),
    "__delitem__": (operator.delitem, COPY),
    "__contains__": (operator.contains, COPY),
    "__next__": (next, READ),
    "__iter__": (iter, KEEP),
    "__len__": (len, COPY),
    "__length_hint__": (operator.length_hint, COPY),
    "__bool__": (bool, COPY),
    "__hash__": (hash, COPY),
    "__str__": (str, COPY),
    "__repr__": (repr, COPY),
    "__bytes__": (bytes, COPY),
    "__format__": (format, COPY),
    "__fspath__": (_fspath, COPY),
    "__int__": (int, COPY),
    "__float__": (float, COPY),
    "__complex__": (complex, COPY),
    "__index__": (operator.index, COPY),
    "__round__": (round, ""),
    "__trunc__": (_floor("trunc"), ""),
    "__floor__": (_floor("floor"), ""),
    "__ceil__": (_floor("ceil"), ""),
    "__neg__": (operator.neg, ""),
    "__pos__": (operator.pos, ""),
    "__abs__": (operator.abs, ""),
    "__invert__": (operator.invert, ""),
    "__instancecheck__": (lambda subject, value: isinstance(value, subject), COPY),
    "__subclasscheck__": (lambda subject, value: issubclass(value, subject), COPY),
    "__enter__": (lambda subject: type(subject).__enter__(subject), ""),
    "__exit__": (_exit, COPY),
    "__await__": (finished, ""),
    "__aenter__": (_aenter, ""),
    "__aexit__": (_aexit, COPY),
    "__aiter__": (_aiter, KEEP),
    "__anext__": (_anext, READ),
    "__copy__": (_copy, KEEP),
    "__deepcopy__": (_deep_copy, KEEP),
}

for _name in ("lt", "le", "eq", "ne", "gt", "ge"):
    OPERATIONS["__%s__" % _name] = (_binary(getattr(operator, _name)), "")
for _name in ["add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "lshift", "rshift", "and_", "or_", "xor"]:
    _plain_name = _name.rstrip("_")
    OPERATIONS["__%s__" % _plain_name] = (_binary(getattr(operator, _name)), "")
    OPERATIONS["__r%s__" % _plain_name] = (_binary(getattr(operator, _name), is_reflected=True), "")
    OPERATIONS["__i%s__" % _plain_name] = (_binary(getattr(operator, "i" + _plain_name)), "")
for _name, _function in (("divmod", divmod), ("pow", pow)):
    OPERATIONS["__%s__" % _name] = (_binary(_function), "")
    OPERATIONS["__r%s__" % _name] = (_binary(_function, is_reflected=True), "")
OPERATIONS["__ipow__"] = (_binary(operator.ipow), "")


def _script(text: str, file: str) -> object:
    from . import scripts

    return scripts.run(text, file)


def _module(name: str, file: str | None, folder: str | None) -> object:
    from . import scripts

    return scripts.load(name, file, folder)


ORIGINS: dict[str, Operation] = {"script": _script, "module": _module, "instance": _same}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterator

    Operation = Callable[..., Any]
