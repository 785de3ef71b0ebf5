"""The named workers of one pool.

Owns their pools of one, by name. A name whose worker is gone can be used anew.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from ..calling import encode_initializer
from ..collector import tell_after_fork
from ..errors import PoolError, WorkerError
from ..options import Size, WorkerOptions
from ..pool.core import Core, drop
from ..pool.phase import Phase
from ..pool.port import Port
from ..pool.roster import Rules
from ..pool.sources import Sources
from .lease import NamedWorker

_UNLIMITED = {"max_calls": None, "max_age": None, "max_rss": None}  # the pool's limits would cost it its state

_PRELOADED = ("start", "preload", "paths", "cwd")  # what makes up a template, whoever is forked from it


@dataclass(frozen=True)
class _Entry:
    """One name: its pool of one, what users hold, the options it was asked for with, its place after the pool's."""

    core: Core
    handle: NamedWorker
    options: Mapping[str, Any]
    place: int


class NamedWorkers:
    """See the module.

    Args:
        core: the pool.
        most: how many there may be at a time.
    """

    def __init__(self, core: Core, most: int) -> None:
        self._core = core
        self._most = most
        self._lock = threading.Lock()  # guards the table below; nothing is started under it
        self._entries: dict[str, _Entry] = {}
        tell_after_fork(self)

    def after_fork_in_child(self) -> None:
        """In a process the host forked: the lock may be held by a thread that is not here."""
        self._lock = threading.Lock()

    def get(self, name: str, create: bool, options: Mapping[str, Any]) -> NamedWorker:
        """Return the worker of that name, having started it if need be.

        Raises:
            LookupError: there is none, and none is to be made.
            ValueError: there is one with other options.
            PoolError: there are as many as there may be.
            WorkerStartError, EnvError, PoolClosed: why it could not be started.
        """
        if self._is_new(name, create, options):
            self._core.opening.warm(0)  # the environment
        entry, is_new = self._find_or_make(name, options)
        try:
            self._check_parent()
            entry.core.opening.warm(1)  # whoever comes while it starts waits too
        except BaseException:
            if is_new:
                entry.core.close(0)
            raise
        return entry.handle

    async def get_on(self, port: Port, name: str, create: bool, options: Mapping[str, Any]) -> NamedWorker:
        """As `get`, on an event loop."""
        if self._is_new(name, create, options):
            await self._core.async_calls.warm(0, port)
        entry, is_new = self._find_or_make(name, options)
        try:
            self._check_parent()
            await entry.core.async_calls.warm(1, port)
        except BaseException:
            if is_new:
                entry.core.staff.end()
            raise
        return entry.handle

    def _check_parent(self) -> None:
        """Raise PoolClosed if the pool was closed meanwhile: it may not have seen the worker that is being started."""
        parent = self._core.roster
        if parent.phase in (Phase.CLOSING, Phase.CLOSED):
            raise parent.closed_error()

    def _is_new(self, name: str, create: bool, options: Mapping[str, Any]) -> bool:
        """Return True if a worker of that name is to be made."""
        if not isinstance(name, str) or not name:
            raise TypeError(f"the name of a worker is a str, not {name!r}")
        with self._lock:
            entry = self._known(name, options)
            if entry is None and not create:
                raise LookupError(self._unknown(name))
        return entry is None

    def _find_or_make(self, name: str, options: Mapping[str, Any]) -> tuple[_Entry, bool]:
        """Return the entry of a name, and whether it was made now."""
        with self._lock:
            entry = self._known(name, options)
            if entry is not None:
                return entry, False
            entry = self._entries[name] = self._make(name, options)
            return entry, True

    def _known(self, name: str, options: Mapping[str, Any]) -> _Entry | None:
        """Locked: return the entry of a name if there is one, which has to have these options if any are given."""
        self._forget_gone()
        entry = self._entries.get(name)
        if entry is not None and options and dict(options) != entry.options:
            raise ValueError(f"the worker {name!r} has other options: {entry.options!r}, not {dict(options)!r}")
        return entry

    def _make(self, name: str, options: Mapping[str, Any]) -> _Entry:
        """Locked: return one more, whose worker is not started yet."""
        if len(self._entries) >= self._most:
            raise PoolError(f"there are {self._most} named workers already (max_named): {sorted(self._entries)}")
        parent = self._core
        taken = {entry.place for entry in self._entries.values()}
        place = next(place for place in count() if place not in taken)
        rules = Rules(
            is_lone=True,
            closed_error=WorkerError,
            numbers=parent.roster.numbers,
            first_slot=parent.roster.size.most + place,
        )
        worker: WorkerOptions = replace(parent.options, **{**_UNLIMITED, **options})
        initializer = encode_initializer(worker) if "initializer" in options else parent.setup.initializer
        sources = Sources(worker.sources) if "sources" in options else parent.setup.sources
        is_alike = all(getattr(worker, field) == getattr(parent.options, field) for field in _PRELOADED)
        templates = parent.templates if is_alike else None
        setup = replace(parent.setup, rules=rules, initializer=initializer, label=name, watch=False)
        setup = replace(setup, sources=sources, templates=templates)
        core = Core(Size(1, 1), f"{parent.roster.name}/{name}", parent.env, parent.module, worker, setup)
        core.roster.closed_why = f"the worker {name!r} is gone"
        return _Entry(core, NamedWorker(core, name), dict(options), place)

    def _unknown(self, name: str) -> str:
        return f"there is no worker named {name!r}; there are {sorted(self._entries)}"

    def _forget_gone(self) -> None:
        """Locked."""
        for name, entry in list(self._entries.items()):
            if entry.core.roster.phase in (Phase.CLOSING, Phase.CLOSED):
                del self._entries[name]

    def find(self, name: str) -> NamedWorker:
        """Return the worker of that name.

        Raises:
            LookupError: there is none.
        """
        with self._lock:
            self._forget_gone()
            if name not in self._entries:
                raise LookupError(self._unknown(name))
            return self._entries[name].handle

    def find_by_id(self, number: int) -> NamedWorker | None:
        """Return the named worker of that id, or None."""
        for entry in self._living():
            if any(worker.id == number for worker in entry.core.staff.known()):
                return entry.handle
        return None

    def all(self) -> dict[str, Core]:
        """Return those there are, by name."""
        return {entry.handle.name: entry.core for entry in self._living()}

    def _living(self) -> list[_Entry]:
        with self._lock:
            self._forget_gone()
            return list(self._entries.values())

    def tell_outdated(self) -> None:
        """Tell `on_event` of those that a reload leaves alone."""
        for core in self.all().values():
            for worker in core.staff.known():
                core.emit("outdated", worker, "it keeps its state and the code it has loaded")

    def drop(self) -> None:
        """From a finalizer: end all when their work is done. Takes no lock."""
        for entry in list(self._entries.values()):
            drop(entry.core)
