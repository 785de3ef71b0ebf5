"""The named workers of one pool.

Owns their pools of one, by name. A name whose worker is gone can be used anew.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .calling import encode_initializer
from .errors import PoolError, WorkerError
from .lease import NamedWorker
from .options import Size, WorkerOptions
from .pool.core import Core
from .pool.phase import Phase
from .pool.roster import Rules


class NamedWorkers:
    """See the module.

    Args:
        core: the pool.
        most: how many there may be at a time.
    """

    def __init__(self, core: Core, most: int) -> None:
        self._core = core
        self._most = most
        self._lock = threading.Lock()  # guards the two below; a worker is started under it, so that one name is one
        self._cores: dict[str, Core] = {}
        self._handles: dict[str, tuple[NamedWorker, Mapping[str, Any]]] = {}

    def get(self, name: str, create: bool, options: Mapping[str, Any]) -> NamedWorker:
        """Return the worker of that name, having started it if need be.

        Raises:
            LookupError: there is none, and none is to be made.
            ValueError: there is one with other options.
            PoolError: there are as many as there may be.
            WorkerStartError, EnvError, PoolClosed: why it could not be started.
        """
        if not isinstance(name, str) or not name:
            raise TypeError(f"the name of a worker is a str, not {name!r}")
        with self._lock:
            self._forget_gone()
            if name in self._handles:
                handle, given = self._handles[name]
                if options and dict(options) != given:
                    raise ValueError(f"the worker {name!r} has other options: {given!r}, not {dict(options)!r}")
                return handle
            if not create:
                raise LookupError(f"there is no worker named {name!r}; there are {sorted(self._handles)}")
            if len(self._handles) >= self._most:
                raise PoolError(f"there are {self._most} named workers already (max_named): {sorted(self._handles)}")
            core = self._start(name, options)
            handle = NamedWorker(core, name)
            self._cores[name], self._handles[name] = core, (handle, dict(options))
            return handle

    def _start(self, name: str, options: Mapping[str, Any]) -> Core:
        parent = self._core
        worker: WorkerOptions = replace(parent.options, **options)
        setup = parent.setup
        parent.opening.warm(0)
        rules = Rules(is_lone=True, closed_error=WorkerError, numbers=parent.roster.numbers)
        initializer = encode_initializer(worker) if "initializer" in options else setup.initializer
        own = replace(setup, rules=rules, initializer=initializer, label=name, watch=False)
        core = Core(Size(1, 1), f"{parent.roster.name}/{name}", parent.env, parent.module, worker, own)
        core.roster.closed_why = f"the worker {name!r} is gone"
        try:
            core.opening.warm(1)
        except BaseException:
            core.close(0)
            raise
        return core

    def _forget_gone(self) -> None:
        """Locked."""
        for name, core in list(self._cores.items()):
            if core.roster.phase in (Phase.CLOSING, Phase.CLOSED):
                del self._cores[name], self._handles[name]

    def find(self, name: str) -> Core:
        """Return the pool of one of that name.

        Raises:
            LookupError: there is none.
        """
        with self._lock:
            self._forget_gone()
            if name not in self._cores:
                raise LookupError(f"there is no worker named {name!r}; there are {sorted(self._handles)}")
            return self._cores[name]

    def all(self) -> dict[str, Core]:
        """Return those there are."""
        with self._lock:
            self._forget_gone()
            return dict(self._cores)

    def end(self, name: str, gently: bool) -> None:
        """End one; old handles raise from now on.

        Raises:
            LookupError: there is none.
        """
        core = self.find(name)
        for worker in core.staff.known():
            worker.terminate() if gently else worker.kill()
        how = "was terminated" if gently else "was killed"
        for job in core.staff.close(drop_waiting=True, why=f"the worker {name!r} {how}"):
            job.fail(core.roster.closed_error())

    def tell_outdated(self) -> None:
        """Tell `on_event` of those that a reload leaves alone."""
        for core in self.all().values():
            for worker in core.staff.known():
                core.emit("outdated", worker, "it keeps its state and the code it has loaded")

    def drop(self) -> None:
        """From a finalizer: end all when their work is done. Takes no lock."""
        for core in list(self._cores.values()):
            core.drop()
