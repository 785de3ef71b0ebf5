"""`@isolated(packages=[…])`: a function of this program that runs in an environment of its own.

Owns the pools of such functions, one for each environment and way to start its workers; functions that agree in
both share it. A pool is made at the first call, and ends with the interpreter or by `Isolated.close`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar, Unpack

from .client import Pool
from .envs import EnvSpec
from .envs.spec import SpecOptions
from .options import PoolOptions, WorkerOptions
from .pool.jobs import CallFuture
from .pool.phase import Phase
from .source import BySource, by_source
from .values.public import Record

P = ParamSpec("P")
R = TypeVar("R")

_lock = threading.Lock()  # guards the table; nothing is started under it
_pools: dict[tuple[Any, ...], Pool] = {}


class Isolated(BySource[P, R], Generic[P, R]):
    """A function that runs in workers of another environment; made by `isolated`.

    Calling it waits for the result; `submit` returns a future, `map` an iterator, and `aio` is to be awaited. The
    function itself is `__wrapped__`.
    """

    def __init__(self, function: Callable[P, R], make: Callable[[], Pool]) -> None:
        super().__init__(function)
        self._make = make
        self._pool: Pool | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function in a worker and return its result; raises what `Pool.call` raises."""
        result: R = self.pool.call(self, *args, **kwargs)
        return result

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> CallFuture:
        """Run the function in a worker and return a future of its result at once."""
        return self.pool.submit(self, *args, **kwargs)

    def map(self, *iterables: Any, **options: Any) -> Iterator[R]:
        """Run the function for each item, with the keyword `options` of `Pool.map`."""
        return self.pool.map(self, *iterables, **options)

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function in a worker and return its result. Cancelling the task that awaits it stops the call."""
        import asyncio  # 30 ms, for those who use it anyway

        result: R = await asyncio.wrap_future(self.submit(*args, **kwargs))
        return result

    @property
    def pool(self) -> Pool:
        """The pool that runs it, with `options`, `stats` and all else that a pool has."""
        pool = self._pool
        if pool is None or not _serves(pool):
            pool = self._pool = self._make()
        return pool

    def close(self, timeout: float | None = None) -> None:
        """End the pool, which may be that of other functions too; the next call starts another.

        Args:
            timeout: seconds that running calls may take, as of `Pool.close`.
        """
        self.pool.close(timeout)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Make it a method: the worker gets a `Record` of the instance's attributes as its first argument."""
        if isinstance(instance, type):
            raise TypeError(f"{self.__qualname__}: a class cannot go along; make it a @staticmethod, above @isolated")
        return self if instance is None else _Bound(self, instance)

    def __reduce__(self) -> str:
        """Travel by name, as functions do."""
        return self.__qualname__

    def __repr__(self) -> str:
        return f"isolated({self.__wrapped__!r})"


class _Bound(Generic[R]):
    """An isolated function as a method of one object."""

    def __init__(self, function: Isolated[..., R], instance: object) -> None:
        self.__wrapped__, self.__self__ = function, instance
        self.__doc__, self.__name__ = function.__doc__, function.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        return self.__wrapped__(_record(self.__self__), *args, **kwargs)

    def submit(self, *args: Any, **kwargs: Any) -> CallFuture:
        """As `Isolated.submit`."""
        return self.__wrapped__.submit(_record(self.__self__), *args, **kwargs)

    def map(self, *iterables: Any, **options: Any) -> Iterator[R]:
        """As `Isolated.map`."""
        function = self.__wrapped__
        return function.pool.map(partial(function, _record(self.__self__)), *iterables, **options)

    async def aio(self, *args: Any, **kwargs: Any) -> R:
        """As `Isolated.aio`."""
        return await self.__wrapped__.aio(_record(self.__self__), *args, **kwargs)

    def __repr__(self) -> str:
        return f"<{self.__wrapped__!r} of {self.__self__!r}>"


def _record(instance: object) -> Record:
    """Return what a worker gets of an object: its attributes, since the class is in this program only."""
    kind = type(instance)
    slots = [name for base in kind.__mro__ for name in _names(vars(base).get("__slots__", ()))]
    fields = {name: getattr(instance, name) for name in slots if hasattr(instance, name)}
    return Record({**fields, **getattr(instance, "__dict__", {})}, type_name=f"{kind.__module__}.{kind.__qualname__}")


def _names(slots: str | Iterable[str]) -> Iterable[str]:
    found = (slots,) if isinstance(slots, str) else slots
    return (name for name in found if not name.startswith("__"))


def isolated(
    env: EnvSpec | str | os.PathLike[str] | None = None,
    *,
    workers: int | tuple[int, int] | None = None,
    worker: WorkerOptions | None = None,
    pool: PoolOptions | None = None,
    **spec: Unpack[SpecOptions],
) -> Callable[[Callable[P, R]], Isolated[P, R]]:
    """Turn a function into one that runs in an environment of its own.

    The function travels as source, with the functions, imports and plain values of its module that it uses; imports
    of packages that only that environment has belong inside it. Decorators below this one go with it, those above it
    run here.

    Args:
        env: the environment, if it is not described by `packages=`, `python=` and so on.
        workers, worker: as those of `Pool`.
        pool: further options of `Pool`.
        spec: fields of `EnvSpec`.

    Raises:
        TypeError: it is applied without arguments, or to something that is not callable.
        EnvError: the environment is described wrongly.
        EncodingError: the function was not made by Python source.

    Examples:
        >>> @vv.isolated(workers=1)
        ... def describe(n):
        ...     import os
        ...     return n * 2, os.getpid()
        >>> import os
        >>> doubled, pid = describe(21)
        >>> doubled, pid == os.getpid()
        (42, False)
        >>> describe.close()
    """
    if env is not None and not isinstance(env, EnvSpec | str | os.PathLike):
        raise TypeError("isolated needs to be told where: @isolated(packages=[...])")
    if env is not None and spec:
        raise TypeError(f"isolated() takes an environment or the fields of one, not both: {', '.join(spec)}")
    where = EnvSpec(**spec) if env is None else env if isinstance(env, EnvSpec) else os.fspath(env)
    make = partial(_pool, where, workers, worker, pool or {})

    def decorate(function: Callable[P, R]) -> Isolated[P, R]:
        if isinstance(function, staticmethod | classmethod | property):
            raise TypeError(f"isolated takes a function: write @{type(function).__name__} above @isolated, not below")
        return Isolated(by_source(function).__wrapped__, make)

    return decorate


def _pool(
    env: EnvSpec | str,
    workers: int | tuple[int, int] | None,
    worker: WorkerOptions | None,
    options: PoolOptions,
) -> Pool:
    """Return the pool of one environment, which is made if there is none that takes calls."""
    key = (env, repr((workers, worker, sorted(options.items()))))
    with _lock:
        known = _pools.get(key)
        if known is None or not _serves(known):
            known = _pools[key] = Pool(env, workers=workers, worker=worker, **options)
        return known


def _serves(pool: Pool) -> bool:
    return pool._core.roster.phase not in (Phase.CLOSING, Phase.CLOSED)


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
