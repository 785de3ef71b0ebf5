"""When results that nobody fetches are removed. Owns the timer of one store."""

from __future__ import annotations

import weakref
from functools import partial

from ..errors import CallStoreError
from ..log import logger
from ..pool.core import Core
from ..pool.jobs import run_aside
from ..pool.phase import Phase
from .store import CallStore


class Expiry:
    """Sees to it that a store's memory is given back though nobody looks at it, while the pool is there."""

    def __init__(self, core: Core, store: CallStore) -> None:
        self._core = core
        self._store = store
        self._has_timer = False

    def begin(self, seconds: float | None) -> None:
        """Look at the store in so many seconds, unless it is going to be looked at."""
        if seconds is not None and not self._has_timer and self._core.roster.phase is Phase.OPEN:
            self._has_timer = True
            self._core.call_later(seconds, partial(_expire, weakref.ref(self)))

    def expire(self) -> None:
        """Remove what nobody has fetched in time."""
        self._has_timer = False
        try:
            self.begin(self._store.expire())
        except CallStoreError as problem:
            logger.warning("results that have expired are not removed: %s", problem)


def _expire(expiry: weakref.ref[Expiry]) -> None:
    """On the collector thread, which is not to wait for a disk; and a pool that is gone needs nothing any more."""
    alive = expiry()
    if alive is not None:
        run_aside(alive.expire)
