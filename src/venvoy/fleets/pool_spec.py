"""`PoolSpec`: the arguments of a pool as a frozen value, from which pools are made. Owns nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NoReturn, Unpack

from ..client import Pool
from ..detached.store import CallStore, MemoryCallStore
from ..envs import Env, EnvSpec
from ..options import PoolOptions, WorkerOptions

StoreMaker = Callable[[], CallStore]


class PoolSpec:
    """What a pool shall be: the arguments of `Pool`, checked here and frozen.

    Args:
        env, module, workers, worker, max_workers, options: as those of `Pool`.
        store: makes the pool's call store when the pool is first started; instead of `call_store`.

    Raises:
        TypeError, ValueError: as `Pool`.

    Examples:
        >>> spec = vv.PoolSpec(module="math", workers=2)
        >>> with spec.make(name="numbers") as pool:
        ...     pool.call("sqrt", 9.0)
        3.0
    """

    __slots__ = ("_arguments", "_store")
    _arguments: dict[str, Any]
    _store: StoreMaker | None

    def __init__(
        self,
        env: EnvSpec | Env | str | os.PathLike[str] | None = None,
        module: str | None = None,
        *,
        workers: int | tuple[int, int] | None = None,
        worker: WorkerOptions | None = None,
        max_workers: int | None = None,
        store: StoreMaker | None = None,
        **options: Unpack[PoolOptions],
    ) -> None:
        if store is not None and (not callable(store) or options.get("call_store") is not None):
            raise TypeError("store is a function that makes a call store, and excludes call_store")
        given = {"env": env, "module": module, "workers": workers, "worker": worker, "max_workers": max_workers}
        object.__setattr__(self, "_arguments", {**given, **options})
        object.__setattr__(self, "_store", store)
        self.make(name="unused")  # which starts nothing, and refuses what is wrong

    def make(self, **changed: Any) -> Pool:
        """Return a pool; nothing of it is started.

        Args:
            changed: arguments that replace those of the spec.
        """
        return Pool(**{**self._arguments, **changed})

    def replaced(self, **changed: Any) -> PoolSpec:
        """Return a spec with other arguments.

        Args:
            changed: those that replace arguments of this one.
        """
        return PoolSpec(store=self._store, **{**self._arguments, **changed})

    def make_store(self) -> tuple[CallStore, bool]:
        """Return the call store of its pools, and whether it was made just now.

        Raises:
            CallStoreError: it cannot be made.
        """
        given = self._arguments.get("call_store")
        if given is not None:
            return given, False
        return (MemoryCallStore() if self._store is None else self._store()), True

    @property
    def name(self) -> str | None:
        """The name that its pools shall have, if it says one."""
        name: str | None = self._arguments.get("name")
        return name

    @property
    def module(self) -> str | None:
        """The module that its workers import."""
        module: str | None = self._arguments["module"]
        return module

    @property
    def worker(self) -> WorkerOptions:
        """How its workers are started."""
        return self._arguments["worker"] or WorkerOptions()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a PoolSpec is frozen: {name!r} cannot be set")

    __delattr__ = __setattr__  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PoolSpec):
            return NotImplemented
        return bool(self._arguments == other._arguments) and self._store == other._store

    __hash__ = None  # type: ignore[assignment]  # options may hold lists

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self._arguments.items() if value is not None)
        return f"PoolSpec({given})"
