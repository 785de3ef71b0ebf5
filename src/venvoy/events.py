"""What happens to a pool's workers, as frozen records for `Pool(on_event=...)`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "spawned",
    "forked",
    "ready",
    "start_failed",
    "retired",
    "crashed",
    "scaled",
    "reloaded",
    "reload_failed",
    "outdated",
    "circuit_opened",
    "circuit_closed",
    "closed",
]


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a pool.

    Args:
        kind: "spawned", or "forked" from a template, and "ready" of a start, or "start_failed"; then one of "retired"
            (planned, see `reason`) and "crashed" for each worker; "scaled" when the number of workers above the least
            one changes; "reloaded" or "reload_failed"; "outdated" for a named worker that a reload leaves alone;
            "circuit_opened", "circuit_closed"; "closed" once nothing of the pool is left. The template of
            `start="zygote"` has "spawned" and so on too, with no `worker`.
        pool: its name.
        worker: the worker's id, where it is about one.
        pid: its process id.
        name: of a named worker.
        reason: why it ended: "idle", "max_calls", "age", "memory", "drained", "killed", "closed", "crashed",
            "start_failed".
        detail: for people: an exit status, an error's text, numbers of workers.
        at: seconds since the epoch.
    """

    kind: Kind
    pool: str
    worker: int | None = None
    pid: int | None = None
    name: str | None = None
    reason: str | None = None
    detail: str = ""
    at: float = field(default_factory=time.time)
