"""`Fleet`: several pools by name, started side by side; what is wrong with one is an error of that one alone.

Owns the pools, and for each the store of its detached calls, so that results outlive a restart. Laws: what starts,
stops or replaces a pool does so under the lock of its member; nothing else is done under it but waiting for that pool.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self

from .. import collector
from ..client import Pool
from ..detached.store import CallStore
from ..envs import Env, EnvSpec, Progress
from ..errors import PoolClosed
from ..log import logger
from ..pool.stats import PoolStats
from .config import read_config
from .pool_spec import PoolSpec

Report = Callable[[str, Progress], object]


class _Member:
    """One pool of a fleet, or why there is none.

    Args:
        name: in the fleet.
        spec: what its pools are made from.
        report: is told of the steps of its build, if given.
    """

    def __init__(self, name: str, spec: PoolSpec, report: Report | None) -> None:
        self.name = name
        self.spec = spec
        self.error: BaseException | None = None
        self._arguments: dict[str, Any] = {} if report is None else {"progress": partial(report, name)}
        self._lock = threading.Lock()
        self._store: tuple[CallStore, bool] | None = None
        self._is_stopped = False
        self._pool: Pool | None = None

    def pool(self) -> Pool:
        """Return the pool, which may not have been started yet.

        Raises:
            PoolClosed: it was stopped. Besides this, why it could not be started.
        """
        with self._lock:
            if self.error is not None:
                raise self.error.with_traceback(None)
            if self._is_stopped:
                raise PoolClosed(f"pool {self.name!r} of this fleet is stopped: start({self.name!r}) starts it again")
            return self._made()

    def existing(self) -> Pool | None:
        """Return the last pool there was, whatever became of it."""
        return self._pool

    def start(self) -> None:
        """Start the pool, unless it runs.

        Raises:
            EnvError, WorkerStartError, CallStoreError: why it cannot be started.
        """
        with self._lock:
            self.error, self._is_stopped = None, False
            try:
                self._made().warm()
            except BaseException as error:
                self.error = error
                if self._pool is not None:
                    self._pool.close(0)
                raise

    def stop(self, end: Callable[[Pool], object]) -> None:
        """End the pool; `end` is how."""
        pool = self._pool
        if pool is not None:
            end(pool)  # first, since whoever starts it holds the lock, and waits
        with self._lock:
            self.error, self._is_stopped = None, True
            if self._pool is not None and self._pool is not pool:
                end(self._pool)

    def release(self) -> None:
        """Close the store, if it was made here, once the fleet is done with it."""
        with self._lock:
            made, self._store = self._store, None
        close = getattr(made[0], "close", None) if made is not None and made[1] else None
        if close is not None:
            close()

    def after_fork_in_child(self) -> None:
        """In a process the host forked."""
        self._lock = threading.Lock()

    def _made(self) -> Pool:
        """Locked: return the pool that is there, or a fresh one."""
        if self._pool is None or self._pool.stats().phase in ("closing", "closed"):
            self._store = self._store or self.spec.make_store()
            name = self.spec.name or self.name
            self._pool = self.spec.make(name=name, call_store=self._store[0], **self._arguments)
        return self._pool


class Fleet:
    """Several pools, by name.

    `with` builds their environments and starts them side by side. A pool that cannot be started raises its own error
    when it is asked for, `fleet["v1"]`; the others serve.

    Args:
        pools: what each is: a `PoolSpec`, or just an environment.
        progress: called as `progress(name, step)` with each step of each build, on a background thread.

    Raises:
        TypeError, ValueError: an argument is not what is described here.

    Examples:
        >>> with vv.Fleet({"v1": vv.PoolSpec(module="math", workers=1), "v2": vv.EnvSpec.current()}) as fleet:
        ...     fleet["v1"].call("hypot", 3.0, 4.0)
        5.0
    """

    def __init__(self, pools: Mapping[str, PoolSpec | EnvSpec | Env], *, progress: Report | None = None) -> None:
        if not isinstance(pools, Mapping):
            raise TypeError(f"Fleet() takes a dict of names to PoolSpec(...), not {type(pools).__name__}")
        self._members = {name: _Member(name, _spec(name, spec), progress) for name, spec in pools.items()}
        collector.tell_after_fork(self)

    @classmethod
    def from_config(cls, path: str | os.PathLike[str] | None = None, *, progress: Report | None = None) -> Fleet:
        """Return the fleet that a file describes; nothing of it is started.

        Args:
            path: of the file, or of its folder; by default the working folder. In a folder it is `venvoy.toml`, else
                the table `[tool.venvoy]` of `pyproject.toml`.
            progress: as of `Fleet`.

        Raises:
            ConfigError: the file cannot be read, or says what cannot be understood; file and key are named.

        Examples:
            >>> with vv.Fleet.from_config("venvoy.toml") as fleet:  # [pools.numbers] module = "math"
            ...     fleet["numbers"].call("sqrt", 9.0)
            3.0
        """
        return cls(read_config(path), progress=progress)

    def start(self, name: str | None = None) -> None:
        """Start one pool, and raise what stands in its way; or all that do not run, and raise nothing.

        Args:
            name: of the pool; None means all of them.

        Raises:
            KeyError: there is none of that name.
            EnvError, WorkerStartError, CallStoreError: why the pool of that name cannot be started.
        """
        if name is not None:
            self._member(name).start()
            return
        self._each(lambda member: member.start())
        for failed, error in self.errors().items():
            logger.warning("fleet: pool %r cannot be started: %s", failed, error)

    def stop(self, name: str | None = None, timeout: float | None = None) -> None:
        """End one pool, or all; using it raises `PoolClosed` until `start` is called.

        Args:
            name: of the pool; None means all of them.
            timeout: seconds that running calls may take, as of `Pool.close`.

        Raises:
            KeyError: there is none of that name.
        """
        if name is not None:
            self._member(name).stop(lambda pool: pool.close(timeout))
        else:
            self._each(lambda member: member.stop(lambda pool: pool.close(timeout)))

    def reload(self, name: str | None = None) -> None:
        """Replace the workers of one pool, or of all, by fresh ones with the code as it is now.

        Args:
            name: of the pool; None means all of them.

        Raises:
            KeyError: there is none of that name.
            WorkerStartError: the first fresh worker did not start, so that the old ones go on; of several pools, the
                first such error, after all were tried.
        """
        members = [self._member(name)] if name is not None else list(self._members.values())
        errors: list[BaseException] = []
        for member in members:
            try:
                member.pool().reload()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def stats(self) -> dict[str, PoolStats]:
        """Return the numbers of each pool that was made so far, by name."""
        made = {name: member.existing() for name, member in self._members.items()}
        return {name: pool.stats() for name, pool in made.items() if pool is not None}

    def errors(self) -> dict[str, BaseException]:
        """Return why pools could not be started, by name; those that could are not in it."""
        return {name: member.error for name, member in self._members.items() if member.error is not None}

    def shutdown(self, wait: bool = True) -> None:
        """End all pools once their calls are done, as `Pool.shutdown` does."""
        for member in self._members.values():
            member.stop(lambda pool: pool.shutdown(wait=False))  # first all of them: they end side by side
        if wait:
            self._each(lambda member: member.stop(lambda pool: pool.shutdown(wait=True)))
            self._release()

    def close(self, timeout: float | None = None) -> None:
        """End all pools within a bounded time, as `Pool.close` does."""
        self.stop(timeout=timeout)
        self._release()

    def _release(self) -> None:
        for member in self._members.values():
            member.release()

    def _member(self, name: str) -> _Member:
        if name not in self._members:
            raise KeyError(f"this fleet has no pool {name!r}; it has {', '.join(self._members) or 'none'}")
        return self._members[name]

    def _each(self, act: Callable[[_Member], object]) -> None:
        """Do something with all members side by side; what is wrong with one is kept by it."""
        threads = [
            threading.Thread(target=_quietly, args=(act, member), name=f"venvoy-fleet-{name}", daemon=True)
            for name, member in self._members.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def after_fork_in_child(self) -> None:
        """In a process the host forked: whoever held the locks is not here, and the pools are the parent's."""
        for member in self._members.values():
            member.after_fork_in_child()

    def __getitem__(self, name: str) -> Pool:
        return self._member(name).pool()

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close(0)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Exception):
            self.shutdown()
        else:
            self.close(0)

    def __repr__(self) -> str:
        return f"<venvoy.Fleet of {', '.join(self._members) or 'no pools'}>"


def _spec(name: object, spec: object) -> PoolSpec:
    if not isinstance(name, str) or not name:
        raise TypeError(f"a pool of a fleet has a name, a str, not {name!r}")
    if isinstance(spec, EnvSpec | Env):
        return PoolSpec(spec)
    if not isinstance(spec, PoolSpec):
        raise TypeError(f"pool {name!r} of a fleet is a PoolSpec(...), not {spec!r}")
    return spec


def _quietly(act: Callable[[_Member], object], member: _Member) -> None:
    try:
        act(member)
    except BaseException as error:  # a start keeps it; the others go on
        logger.debug("fleet: pool %r: %s", member.name, error)
