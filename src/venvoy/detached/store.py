"""Where detached calls are kept until their results are fetched: what a store has to do, and the one in memory.

A store keeps bytes and decodes none of them (see `stored` for what they are). Laws: a call is there from `add` to
`take` or to its expiry; the first reply stands; of all who `take` a call, one gets it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from ..checks import check_seconds
from ..errors import UnknownCall

Pieces = Sequence[bytes | bytearray | memoryview]
TTL = 900.0  # seconds that results are kept by default


@dataclass(frozen=True, slots=True)
class DetachedCall:
    """One entry of `pool.detached.list()`.

    Args:
        id: what `start` returned.
        target: what is called, as text.
        state: "pending", "done" or "failed".
        started: when it was given to `start`, in seconds since the epoch.
        finished: when its result or error came; None while it is pending.
    """

    id: str
    target: str
    state: Literal["pending", "done", "failed"]
    started: float
    finished: float | None = None


@runtime_checkable
class CallStore(Protocol):
    """What `Pool(call_store=)` takes; its methods are called by any thread, and wait for a few seconds at most.

    `ttl` is how many seconds a result is kept, or None for ever; `resumes` whether calls that an ended host left
    unfinished are to be run again. Whatever stands in the way of a method is raised as `CallStoreError`.
    """

    ttl: float | None
    resumes: bool

    def add(self, id: str, target: str, request: Pieces) -> None:
        """Keep a call that this host is about to run.

        Args:
            id: of the call.
            target: what it calls, as text.
            request: what it takes to run it again.
        """

    def finish(self, id: str, reply: Pieces, failed: bool) -> None:
        """Keep the reply of a call, if the call is there and has none.

        Args:
            id: of the call.
            reply: pieces of bytes, which `find` gives back as they are, in however many pieces.
            failed: whether it is an error.
        """

    def find(self, id: str) -> Pieces | None:
        """Return the reply of a call; None while there is none.

        Args:
            id: of the call.

        Raises:
            UnknownCall: there is no such call.
        """

    def take(self, id: str) -> bool:
        """Remove a call, known by its id; return False if it is not there."""

    def release(self, id: str) -> None:
        """Say that this host does not run the call of an id any more, though it is unfinished."""

    def adopt(self) -> list[tuple[str, bytes]]:
        """Return (id, request) of all unfinished calls that no living host runs; from now on this one does."""

    def expire(self) -> float | None:
        """Remove the replies that are older than `ttl`; return the seconds until the next will be."""

    def entries(self) -> list[DetachedCall]:
        """Return the calls there are, the oldest first."""


def check_ttl(ttl: float | None) -> None:
    """Raise TypeError or ValueError unless it is a positive number of seconds, or None."""
    if ttl is not None:
        check_seconds("ttl", ttl)
        if not ttl:
            raise ValueError("ttl is a number of seconds above 0, or None to keep results for ever")


def unknown_call(id: str) -> UnknownCall:
    """Return the error of an id that nothing is known of."""
    return UnknownCall(f"no detached call has the id {id!r}: its result was taken, it expired, or there never was one")


@dataclass(slots=True)
class _Entry:
    target: str
    started: float = field(default_factory=time.time)
    finished: float | None = None
    failed: bool = False
    reply: Pieces | None = None


class MemoryCallStore:
    """Keeps detached calls in this process.

    Args:
        ttl: seconds after which a result that nobody has fetched is forgotten; None keeps it.

    Raises:
        TypeError, ValueError: `ttl` is something else.

    Examples:
        >>> with vv.Pool(call_store=vv.MemoryCallStore(ttl=3600)) as pool:
        ...     id = pool.detached.start("math:sqrt", 9.0)
        ...     pool.detached.result(id)
        3.0
    """

    resumes = False  # there is nothing left of it when the host has ended

    def __init__(self, ttl: float | None = TTL) -> None:
        check_ttl(ttl)
        self.ttl = ttl
        self._lock = threading.Lock()  # guards the two below; nothing but assignments under it
        self._entries: dict[str, _Entry] = {}
        self._finished: OrderedDict[str, float] = OrderedDict()  # when, by the monotonic clock; the oldest first

    def add(self, id: str, target: str, request: Pieces) -> None:
        """See `CallStore`; the request is not kept."""
        with self._lock:
            self._entries[id] = _Entry(target)

    def finish(self, id: str, reply: Pieces, failed: bool) -> None:
        """See `CallStore`."""
        with self._lock:
            entry = self._entries.get(id)
            if entry is not None and entry.reply is None:
                entry.finished, entry.failed, entry.reply = time.time(), failed, reply
                self._finished[id] = time.monotonic()

    def find(self, id: str) -> Pieces | None:
        """See `CallStore`."""
        self.expire()
        with self._lock:
            entry = self._entries.get(id)
            if entry is None:
                raise unknown_call(id)
            return entry.reply

    def take(self, id: str) -> bool:
        """See `CallStore`."""
        with self._lock:
            self._finished.pop(id, None)
            return self._entries.pop(id, None) is not None

    def release(self, id: str) -> None:
        """See `CallStore`; a host that has ended has no store either, so there is nothing to say."""

    def adopt(self) -> list[tuple[str, bytes]]:
        """See `CallStore`; there are none."""
        return []

    def expire(self) -> float | None:
        """See `CallStore`."""
        if self.ttl is None:
            return None
        with self._lock:
            now = time.monotonic()
            while self._finished:
                id, finished = next(iter(self._finished.items()))
                if finished + self.ttl > now:
                    return finished + self.ttl - now
                del self._finished[id], self._entries[id]
            return None

    def entries(self) -> list[DetachedCall]:
        """See `CallStore`."""
        self.expire()
        with self._lock:
            return [_described(id, entry) for id, entry in self._entries.items()]

    def after_fork_in_child(self) -> None:
        """In a process the host forked: whoever held the lock is not here."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<venvoy.MemoryCallStore of {len(self._entries)} calls>"


def _described(id: str, entry: _Entry) -> DetachedCall:
    state: Literal["pending", "done", "failed"] = "failed" if entry.failed else "done"
    return DetachedCall(id, entry.target, "pending" if entry.reply is None else state, entry.started, entry.finished)
