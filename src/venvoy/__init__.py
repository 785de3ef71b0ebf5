"""venvoy: run Python code in warm worker processes inside isolated environments, as if it were a local call.

import venvoy as vv
with vv.Pool(vv.EnvSpec(packages=["numpy<2"])) as pool:
    pool.call("numpy:mean", [1, 2, 3])
"""

from __future__ import annotations

import os as _os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .aio import AsyncPool
    from .async_lease import AsyncLease, AsyncNamedWorker
    from .client import Pool
    from .envs import Collected, Env, EnvInfo, EnvLease, EnvSpec, build, collect_garbage, environments
    from .errors import (
        CallCancelled,
        CallTimeout,
        EncodingError,
        EnvBuildError,
        EnvError,
        FeedStalled,
        InterpreterNotFound,
        MessageTooLarge,
        PoolClosed,
        PoolError,
        ProtocolError,
        RemoteError,
        RemoteTraceback,
        SwarmClosed,
        SwarmError,
        TargetNotFound,
        TooManyWaiting,
        VenvoyError,
        WorkerCrashed,
        WorkerError,
        WorkerStartError,
    )
    from .events import Event
    from .lease import Lease, NamedWorker
    from .options import OutputChunk, WorkerOptions
    from .policies import RestartPolicy, ScalePolicy
    from .pool.jobs import CallFuture
    from .pool.stats import PoolStats, WorkerInfo
    from .source import by_source
    from .values import Record, register

__version__ = "0.1.0"

_HOMES = {
    "aio": ("AsyncPool",),
    "async_lease": (
        "AsyncLease",
        "AsyncNamedWorker",
    ),
    "client": ("Pool",),
    "envs": (
        "Collected",
        "Env",
        "EnvInfo",
        "EnvLease",
        "EnvSpec",
        "build",
        "collect_garbage",
        "environments",
    ),
    "errors": (
        "CallCancelled",
        "CallTimeout",
        "EncodingError",
        "EnvBuildError",
        "EnvError",
        "FeedStalled",
        "InterpreterNotFound",
        "MessageTooLarge",
        "PoolClosed",
        "PoolError",
        "ProtocolError",
        "RemoteError",
        "RemoteTraceback",
        "SwarmClosed",
        "SwarmError",
        "TargetNotFound",
        "TooManyWaiting",
        "VenvoyError",
        "WorkerCrashed",
        "WorkerError",
        "WorkerStartError",
    ),
    "events": ("Event",),
    "lease": (
        "Lease",
        "NamedWorker",
    ),
    "policies": (
        "RestartPolicy",
        "ScalePolicy",
    ),
    "options": (
        "OutputChunk",
        "WorkerOptions",
    ),
    "pool.jobs": ("CallFuture",),
    "pool.stats": (
        "PoolStats",
        "WorkerInfo",
    ),
    "source": ("by_source",),
    "values": ("Record", "register"),
}  # where each public name lives: they are imported at their first use, since together they take 50 ms

__all__ = [
    "AsyncLease",
    "AsyncNamedWorker",
    "AsyncPool",
    "CallCancelled",
    "CallFuture",
    "CallTimeout",
    "Collected",
    "EncodingError",
    "Env",
    "EnvBuildError",
    "EnvError",
    "EnvInfo",
    "EnvLease",
    "EnvSpec",
    "Event",
    "FeedStalled",
    "InterpreterNotFound",
    "Lease",
    "MessageTooLarge",
    "NamedWorker",
    "OutputChunk",
    "Pool",
    "PoolClosed",
    "PoolError",
    "PoolStats",
    "ProtocolError",
    "Record",
    "RemoteError",
    "RemoteTraceback",
    "RestartPolicy",
    "ScalePolicy",
    "SwarmClosed",
    "SwarmError",
    "TargetNotFound",
    "TooManyWaiting",
    "VenvoyError",
    "WorkerCrashed",
    "WorkerError",
    "WorkerInfo",
    "WorkerOptions",
    "WorkerStartError",
    "build",
    "by_source",
    "collect_garbage",
    "environments",
    "register",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if _os.environ.get("VENVOY_LOG"):
    from . import log as _log  # noqa: F401 - it configures itself; nothing else here needs `logging` yet
