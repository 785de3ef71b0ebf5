"""Decides how a callable travels to a worker: by name, by source text, or by value.

Laws: a name is sent only when looking it up here yields the very object that was given; a function sent as
source is remembered only while everything it refers to is still the same object with the same contents.
The costly half (reading, parsing and writing source) is `module`, imported at the first use.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from types import BuiltinFunctionType, BuiltinMethodType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypeVar

from venvoy.errors import EncodingError
from venvoy.source.names import MAIN_MODULES, name_of, yields

if TYPE_CHECKING:
    from venvoy.source.module import Shipped

NAME, SOURCE, VALUE = 0, 1, 2

_FUNCTIONS: Any = (FunctionType, BuiltinFunctionType)  # not as a union, which would be built anew at each check

_P = ParamSpec("_P")
_R = TypeVar("_R")
_UNSEEN = "_venvoy_unseen"  # among the bindings: (file name, first line, text) of lines that only the host has


class Source(NamedTuple):
    """A module to be made in the worker: put `bindings` into its globals, then execute `text` as `filename`."""

    digest: str
    text: str
    filename: str
    bindings: dict[str, object]


class Target(NamedTuple):
    """What a call runs, in the form in which it is sent.

    `name` is "pkg.mod:attr.sub" or a bare "name" (NAME), "<digest>:<qualname>" (SOURCE), or for display (VALUE).
    `value` is for VALUE only: the pair (object, name of its method); "__call__" if the object itself is called.
    `bound_args` and `bound_kwargs` come from `functools.partial` and go before the call's own.
    """

    kind: int
    name: str
    source: Source | None = None
    value: tuple[object, str] | None = None
    bound_args: tuple[object, ...] = ()
    bound_kwargs: dict[str, object] = {}  # read only: one dict shared by all targets without any


class BySource(Generic[_P, _R]):
    """A function that always travels as source text; made by `by_source`, still callable here."""

    __name__: str
    __qualname__: str

    def __init__(self, function: Callable[_P, _R]) -> None:
        functools.update_wrapper(self, function)
        self.__wrapped__ = function

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return self.__wrapped__(*args, **kwargs)

    def __repr__(self) -> str:
        return f"by_source({self.__wrapped__!r})"


def by_source(function: Callable[_P, _R]) -> BySource[_P, _R]:
    """Make `function` travel as source text, even where its module could be imported; also a decorator.

    The functions and classes of its own module that it uses travel with it; other modules are imported by name.

    Raises:
        TypeError: it is not callable.
        EncodingError: it has no Python source that can be found. What it refers to is checked when it is
            called, because a decorator runs before the rest of the module exists.

    Examples:
        >>> def area(width, height):
        ...     return width * height
        >>> with vv.Pool() as pool:
        ...     pool.call(vv.by_source(area), 3, 4)
        12
    """
    if isinstance(function, BySource):
        return function
    if not callable(function):
        raise TypeError(f"by_source() takes a function or a class, not {type(function).__name__}")
    innermost: Any = function
    while isinstance(innermost, functools.partial):
        innermost = innermost.func
    if _may_have_source(innermost):
        from venvoy.source import module as shipping  # it imports ast, inspect, dis: not at start-up

        if shipping.can_cut(innermost, _home(innermost, True)):
            return BySource(function)
    raise EncodingError(f"{innermost!r} was not made by Python source, so it cannot be sent as source")


def target_for(target: str | Callable[..., Any]) -> Target:
    """The form in which `target` travels.

    Raises:
        ValueError: a string that is not "module:attribute" or a bare name.
        TypeError: neither a string nor callable.
        EncodingError: a callable that cannot travel; the message says why, and what to do instead.
    """
    if isinstance(target, str):
        return _named(str(target))
    if isinstance(target, _FUNCTIONS):  # the usual case
        name = name_of(target)
        if name is not None:
            return _found(name)
    if isinstance(target, functools.partial):
        return _with_arguments(target, target_for(target.func))
    if isinstance(target, BySource):
        return _target_by_source(target.__wrapped__)
    if isinstance(target, staticmethod):
        return target_for(target.__func__)
    if not callable(target):
        raise TypeError(f"a target is 'module:name', a callable or by_source(f), not {type(target).__name__}")
    name = name_of(target)
    if name is not None:
        return Target(NAME, name)
    return _by_source(target, forced=False) or _by_value(target)


@functools.lru_cache(maxsize=1024)
def _found(name: str) -> Target:
    return Target(NAME, name)


@functools.lru_cache(maxsize=1024)
def _named(name: str) -> Target:
    module, colon, path = name.partition(":")
    parts = module.split(".") + (path.split(".") if colon else [])
    if not all(part.isidentifier() for part in parts):
        raise ValueError(f"{name!r} is not a target; write 'module:attribute', or a bare 'name'")
    return Target(NAME, name)


def _with_arguments(partial: functools.partial[Any], inner: Target) -> Target:
    placeholder = getattr(functools, "Placeholder", None)  # Python 3.14
    if placeholder is not None and any(argument is placeholder for argument in partial.args):
        raise EncodingError("a functools.partial with Placeholder cannot be sent; use keywords or a function")
    return inner._replace(
        bound_args=inner.bound_args + partial.args, bound_kwargs={**inner.bound_kwargs, **partial.keywords}
    )


# --- by value -------------------------------------------------------------------------------------


def _by_value(target: Any) -> Target:
    owner, method = getattr(target, "__self__", None), "__call__"
    bound = isinstance(target, MethodType | BuiltinMethodType | MethodWrapperType)
    if not bound or owner is None or isinstance(owner, ModuleType):
        owner = target
    else:
        method = target.__name__
        if not yields(owner, method, target):
            raise EncodingError(f"{target!r} is not what {method!r} of its object is; pass a function instead")
    cls = owner if isinstance(owner, type) else type(owner)
    if cls.__module__ in MAIN_MODULES or "<locals>" in cls.__qualname__:
        raise EncodingError(
            f"{method!r} of an instance of {cls.__qualname__!r} cannot be sent: the class is defined in "
            f"{cls.__module__!r}{' inside a function' if '<locals>' in cls.__qualname__ else ''}, which a worker "
            "cannot import; put the class in a module of its own, or send a function that makes the instance "
            "inside the worker"
        )
    return Target(VALUE, f"{cls.__qualname__}.{method}", value=(owner, method))


# --- by source ------------------------------------------------------------------------------------


class _Remembered(NamedTuple):
    """A target sent as source, and what has to be unchanged for it to be sent again."""

    target: Target
    shipped: Shipped
    digest: str
    has_containers: bool  # a binding's contents may change while it stays the same object


_remembered: weakref.WeakKeyDictionary[Any, dict[bool, _Remembered]] = weakref.WeakKeyDictionary()


def _target_by_source(function: Any) -> Target:
    if isinstance(function, functools.partial):
        return _with_arguments(function, _target_by_source(function.func))
    found = _by_source(function, forced=True)
    if found is None:
        raise EncodingError(f"{function!r} was not made by Python source, so it cannot be sent as source")
    return found


def _by_source(target: Any, *, forced: bool) -> Target | None:
    """The target as source; None where it was made neither by a `def`, `lambda` or `class` nor by a decorator."""
    if not _may_have_source(target):
        return None
    known = _recall(target).get(forced)
    if known is not None and _is_current(known):
        return known.target
    from venvoy.source import module as shipping  # it imports ast, inspect, dis: not at start-up

    shipped = shipping.ship(target, _home(target, forced))
    if shipped is None:
        return None
    source = _pack(shipped)
    made = Target(SOURCE, f"{source.digest}:{shipped.entry}", source)
    containers = any(isinstance(value, list | dict | set | tuple) for value in shipped.bindings.values())
    _recall(target)[forced] = _Remembered(made, shipped, source.digest, containers)
    return made


def _recall(target: Any) -> dict[bool, _Remembered]:
    """What is remembered of `target`, to read and to write; nothing of wrappers that allow no weak reference."""
    try:
        return _remembered.setdefault(target, {})
    except TypeError:
        return {}


def _is_current(known: _Remembered) -> bool:
    if not known.shipped.is_current():
        return False
    return not known.has_containers or _pack(known.shipped).digest == known.digest


def _may_have_source(target: Any) -> bool:
    if isinstance(target, MethodType):
        return isinstance(target.__self__, type)
    return isinstance(target, FunctionType | type) or hasattr(target, "__wrapped__")


def _home(target: Any, forced: bool) -> frozenset[str]:
    """The modules whose functions travel as source wherever they are referred to."""
    module = getattr(target, "__module__", None)
    return MAIN_MODULES | {module} if forced and isinstance(module, str) else MAIN_MODULES


def _pack(shipped: Shipped) -> Source:
    import hashlib  # both imports: only those who send source pay for them
    import pickle

    unseen = {_UNSEEN: shipped.unseen} if shipped.unseen else {}
    payload = pickle.dumps({**shipped.bindings, **unseen}, protocol=5)
    # The bindings count: two closures of one function have the same text, and must be two modules.
    parts = (shipped.text.encode(), shipped.filename.encode("utf-8", "surrogateescape"), payload)
    digest = hashlib.blake2b(b"\0".join(parts), digest_size=16).hexdigest()
    # Loaded again: the snapshot that the digest stands for, whatever happens to a list meanwhile.
    return Source(digest, shipped.text, shipped.filename, pickle.loads(payload))
