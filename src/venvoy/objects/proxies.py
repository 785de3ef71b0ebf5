"""Proxies: what is done with them is done with an object in a worker, in one round trip.

A proxy has no names of its own: attributes that are read, written or deleted are those of the object, and what can be
done with the proxy itself are the functions here. Its class has just the special methods that the class of the object
has, so that it is callable, iterable, true or hashable as the object is. Owns these classes, one for each set of
special methods.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from venvoy_worker.contract import messages
from venvoy_worker.contract.references import OF_CALLABLES, SPECIALS, restore_object

from ..calling import make_operation
from ..errors import EncodingError
from ..options import CallOptions
from .references import Kind, Member, Reference, lend

if TYPE_CHECKING:
    import asyncio

_LOCAL = frozenset(
    [
        *("__class__", "__reduce_ex__", "__reduce__", "__copy__", "__deepcopy__"),
        *("__await__", "__aenter__", "__aexit__", "__anext__"),  # asyncio asks instances for these
        *("__array_struct__", "__array_interface__"),  # memory of another process; numpy takes `__array__` instead
    ]
)
_NOTHING: dict[str, Any] = {}
_FIRST_BATCH = 16  # items of an iteration that are fetched together, twice as many each time
_LARGEST_BATCH = 1024
_SHOWN = 500  # characters of an object's own text in that of its proxy


class RemoteProxy:
    """Stands for an object in a worker; made by `run_script`, `run_module`, `run_object` and `Pool.object`.

    Reading an attribute or an item gives a copy of what nobody can change and a proxy of everything else; a call gives
    a copy of plain values and a proxy of everything else. `venvoy.value(proxy)` copies, and
    `venvoy.keep(proxy.method)(...)` copies nothing.
    """

    __slots__ = ("_options", "_reference")

    def __new__(cls, *args: Any, **kwargs: Any) -> RemoteProxy:
        """Refuse: proxies are made by what makes their objects."""
        raise TypeError("proxies are made by run_script(), run_module(), run_object() and Pool.object()")

    def __getattribute__(self, name: str) -> Any:
        if name in _LOCAL:
            return object.__getattribute__(self, name)
        reference, options = reference_of(self), options_of(self)
        kind = reference.kind
        if kind is not None and name in kind.members and not reference.staleness:
            return make_proxy(Member(reference, name, _CALLABLE, _fetch), options)
        return operate(self, "getattr", (name,))

    def __setattr__(self, name: str, value: Any) -> None:
        operate(self, "setattr", (name, value))
        reference = reference_of(self)
        if reference.kind is not None and name in reference.kind.members:
            reference.kind = reference.kind.without(name)

    def __delattr__(self, name: str) -> None:
        operate(self, "delattr", (name,))

    def __dir__(self) -> list[str]:
        return list(operate(self, "dir"))

    def __repr__(self) -> str:
        reference = reference_of(self)
        what = f"<RemoteProxy of {reference.kind.name if reference.kind else 'an object'}"
        if reference.staleness:
            return f"{what}, stale: {reference.staleness}>"
        try:
            text = operate(self, "__repr__")
        except Exception as error:
            return f"{what}: {type(error).__name__}: {error}>"
        text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        return f"{what} in process {reference.residence.worker.process.pid}: {text}>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a proxy cannot be pickled: its object lives in a worker; venvoy.value(proxy) copies it")

    __reduce__ = __reduce_ex__  # type: ignore[assignment]


# Taken out of the class, so that the names are free for those of the objects.
_reference_slot: Any = RemoteProxy.__dict__["_reference"]
_options_slot: Any = RemoteProxy.__dict__["_options"]
del RemoteProxy._reference, RemoteProxy._options  # type: ignore[attr-defined]
reference_of: Callable[[Any], Reference] = _reference_slot.__get__
options_of: Callable[[Any], CallOptions] = _options_slot.__get__


def _reduce(proxy: Any) -> tuple[Any, ...]:
    """Let a proxy travel to calls on the object's own worker, where it becomes the object."""
    return restore_object, (lend(reference_of(proxy)),)


def operate(proxy: Any, operation: str, args: tuple[Any, ...] = (), kwargs: dict[str, Any] = _NOTHING) -> Any:
    """Run one operation on the object of a proxy, and return a value or a proxy."""
    options = options_of(proxy)
    own = reference_of(proxy)
    reference, operation = own.target(operation)
    result = reference.perform(make_operation(reference, operation, args, kwargs, options))
    if isinstance(result, Reference):
        return proxy if result is own else make_proxy(result, options)
    return result


def make_proxy(reference: Reference, options: CallOptions) -> Any:
    """Return a proxy of what is referred to."""
    kind = reference.kind
    if kind is None:
        reference.kind = kind = Kind(reference.perform(make_operation(reference, "kind", (), {}, options)))
    face = kind.face
    if face is None:
        face = kind.face = _face(kind.specials)
    proxy: Any = object.__new__(face)
    _reference_slot.__set__(proxy, reference)
    _options_slot.__set__(proxy, options)
    return proxy


def _fetch(reference: Reference, name: str) -> Reference:
    """Return a reference to an attribute that is called without having been fetched, usually."""
    call = make_operation(reference, "getattr", (name,), {}, CallOptions(), messages.FLAG_KEEP)
    fetched: Reference = reference.perform(call)
    return fetched


_CALLABLE = Kind(("callable", OF_CALLABLES, frozenset()))


# --- special methods ----------------------------------------------------------------------------------------------


def _special(name: str) -> Callable[..., Any]:
    """Return a special method that is one operation."""

    def method(self: Any, *args: Any) -> Any:
        return operate(self, name, args)

    method.__name__ = name
    return method


def _operator(name: str) -> Callable[..., Any]:
    """Return the method of an operator with two operands; one that cannot travel is left to its own class."""

    def method(self: Any, other: Any, *modulo: Any) -> Any:
        try:
            return operate(self, name, (other, *modulo))
        except EncodingError:
            return NotImplemented

    method.__name__ = name
    return method


def _call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
    return operate(self, "__call__", args, kwargs)


def _iterate(self: Any) -> Iterator[Any]:
    return _items(self, "iterate")


def _iterate_reversed(self: Any) -> Iterator[Any]:
    return _items(self, "reversed")


def _items(proxy: Any, operation: str) -> Iterator[Any]:
    """Return an iterator over the items of an object, whose first batch has been fetched."""
    options = options_of(proxy)
    reference, operation = reference_of(proxy).target(operation)
    call = make_operation(reference, operation, (_FIRST_BATCH,), {}, options)
    return _unpack(reference.perform(call, is_batch=True), options)


def _unpack(batch: tuple[list[Any], Reference | None], options: CallOptions) -> Iterator[Any]:
    items, rest = batch
    most = _FIRST_BATCH
    while True:
        for item in items:
            yield make_proxy(item, options) if isinstance(item, Reference) else item
        if rest is None:
            return
        most = min(2 * most, _LARGEST_BATCH)
        reference, operation = rest.target("take")
        items, rest = reference.perform(make_operation(reference, operation, (most,), {}, options), is_batch=True)


def _contains(self: Any, item: Any) -> bool:
    try:
        return bool(operate(self, "__contains__", (item,)))
    except EncodingError:  # it cannot be there
        return False


def _check(name: str) -> Callable[[Any, Any], bool]:
    def method(self: Any, subject: Any) -> bool:
        try:
            return bool(operate(self, name, (subject,)))
        except EncodingError:
            return False

    return method


def _exit(self: Any, kind: Any, error: Any, trace: Any) -> bool:
    return bool(operate(self, "__exit__", _portable(kind, error)))


def _portable(kind: Any, error: Any) -> tuple[Any, Any]:
    """Return what `__exit__` in the worker is told of an exception: the builtin base of a class that is none."""
    if error is None or kind.__module__ == "builtins":
        return kind, error
    base = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    try:
        return base, base(str(error))
    except TypeError:  # UnicodeDecodeError and groups want more than a text
        return Exception, Exception(str(error))


def _deep_copy(self: Any, memo: Any) -> Any:
    return operate(self, "__deepcopy__")


# --- coroutines ---------------------------------------------------------------------------------------------------


def awaited(proxy: Any) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return a function that calls a proxy, usually of a method, without blocking the event loop that awaits it.

    Cancelling the task that awaits stops the call.

    Raises:
        TypeError: it is no proxy.

    Examples:
        >>> import asyncio
        >>> words = vv.run_object("builtins:str", "to be or not to be")
        >>> asyncio.run(vv.awaited(words.count)("be"))
        2
        >>> vv.close(words)
    """
    if not isinstance(proxy, RemoteProxy):
        raise TypeError(f"awaited() takes a proxy of an object in a worker, not {type(proxy).__name__}")

    async def call(*args: Any, **kwargs: Any) -> Any:
        return await _operate_async(proxy, "__call__", args, kwargs)

    return call


async def _operate_async(
    proxy: Any, operation: str, args: tuple[Any, ...] = (), kwargs: dict[str, Any] = _NOTHING
) -> Any:
    """As `operate`, on a thread of its own; cancelling it stops what runs in the worker."""
    import asyncio  # half the time of importing venvoy; who awaits has it already
    from contextvars import copy_context

    loop = asyncio.get_running_loop()
    options, own = options_of(proxy), reference_of(proxy)
    reference, operation = own.target(operation)
    call = make_operation(reference, operation, args, kwargs, options)
    done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()  # StopIteration cannot be set

    def perform() -> Any:
        result = reference.perform(call)
        if isinstance(result, Reference):
            return proxy if result is own else make_proxy(result, options)
        return result

    # In a copy of the context, which knows whose answer this may be for: see `nesting`.
    args = (copy_context().run, perform, loop, done)
    threading.Thread(target=_work, args=args, name="venvoy-await", daemon=True).start()
    try:
        result, error = await done
    except asyncio.CancelledError:
        call.stop(reference.residence.worker)
        raise
    if error is not None:
        raise error
    return result


def _work(
    run: Callable[[Callable[[], Any]], Any],
    perform: Callable[[], Any],
    loop: asyncio.AbstractEventLoop,
    done: asyncio.Future[tuple[Any, BaseException | None]],
) -> None:
    outcome: tuple[Any, BaseException | None]
    try:
        outcome = run(perform), None
    except BaseException as raised:
        outcome = None, raised

    def tell() -> None:
        if not done.done():
            done.set_result(outcome)

    try:
        loop.call_soon_threadsafe(tell)
    except RuntimeError:  # the loop was closed meanwhile
        pass


def _await(self: Any) -> Any:
    return _operate_async(self, "__await__").__await__()


async def _anext(self: Any) -> Any:
    return await _operate_async(self, "__anext__")


async def _aenter(self: Any) -> Any:
    return await _operate_async(self, "__aenter__")


async def _aexit(self: Any, kind: Any, error: Any, trace: Any) -> bool:
    return bool(await _operate_async(self, "__aexit__", _portable(kind, error)))


# --- classes of proxies -------------------------------------------------------------------------------------------

_OPERATORS = (
    *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow"),
    *("lshift", "rshift", "and", "or", "xor"),
)
_ALWAYS: dict[str, Any] = {
    **{f"__{name}__": _operator(f"__{name}__") for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "__str__": _special("__str__"),
    "__format__": _special("__format__"),
    "__copy__": _special("__copy__"),
    "__deepcopy__": _deep_copy,
}
_METHODS: dict[str, Any] = {
    **{name: _special(name) for name in SPECIALS},
    **{f"__{how}{name}__": _operator(f"__{how}{name}__") for name in _OPERATORS for how in ("", "r", "i")},
    "__call__": _call,
    "__iter__": _iterate,
    "__reversed__": _iterate_reversed,
    "__contains__": _contains,
    "__instancecheck__": _check("__instancecheck__"),
    "__subclasscheck__": _check("__subclasscheck__"),
    "__exit__": _exit,
    "__await__": _await,
    "__anext__": _anext,
    "__aenter__": _aenter,
    "__aexit__": _aexit,
}
_faces: dict[frozenset[str], type] = {}


def _face(specials: frozenset[str]) -> type:
    """Return the class of proxies whose objects have these special methods."""
    wanted = set(specials & SPECIALS)
    for name in _OPERATORS:  # the object's class may have either half of an operator
        if {f"__{name}__", f"__r{name}__"} & wanted:
            wanted |= {f"__{name}__", f"__r{name}__"}
    if {"__iter__", "__getitem__"} & wanted:
        wanted.add("__contains__")
    key = frozenset(wanted)
    face = _faces.get(key)
    if face is None:
        members = {**_ALWAYS, **{name: _METHODS[name] for name in wanted}}
        members.update(__slots__=("__weakref__",), __module__=RemoteProxy.__module__, __doc__=RemoteProxy.__doc__)
        members.setdefault("__hash__", None)
        members["__venvoy_reduce__"] = _reduce
        if "__next__" in wanted:
            members["__iter__"] = lambda self: self
        face = _faces[key] = type("RemoteProxy", (RemoteProxy,), members)
    return face
