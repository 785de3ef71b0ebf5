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

    from .aio.lease import AsyncLease, AsyncNamedWorker
    from .aio.pool import AsyncPool
    from .client import Pool
    from .detached.calls import Peek
    from .detached.sqlite_store import SqliteCallStore
    from .detached.store import CallStore, DetachedCall, MemoryCallStore
    from .envs import Collected, Env, EnvInfo, EnvLease, EnvSpec, build, collect_garbage, environments
    from .errors import (
        CallCancelled,
        CallStoreError,
        CallTimeout,
        ConfigError,
        EncodingError,
        EnvBuildError,
        EnvError,
        FeedStalled,
        InterpreterNotFound,
        MessageTooLarge,
        NestedTooDeeply,
        PoolClosed,
        PoolError,
        ProtocolError,
        RemoteError,
        RemoteTraceback,
        ResultNotReady,
        StaleProxy,
        SwarmClosed,
        SwarmError,
        TargetNotFound,
        TooManyWaiting,
        UnknownCall,
        VenvoyError,
        WorkerCrashed,
        WorkerError,
        WorkerStartError,
    )
    from .events import Event
    from .fleets.fleet import Fleet
    from .fleets.pool_spec import PoolSpec
    from .isolation import Isolated, isolated
    from .leases.lease import Lease, NamedWorker
    from .objects.making import (
        close,
        instance,
        keep,
        options,
        run_module,
        run_object,
        run_script,
        value,
        worker_info,
    )
    from .objects.proxies import RemoteProxy, awaited
    from .options import OutputChunk, Progress, WorkerOptions
    from .policies import RestartPolicy, ScalePolicy
    from .pool.jobs import CallFuture
    from .pool.stats import PoolStats, WorkerInfo
    from .progress_bars import ProgressBar, progress_bar
    from .source import by_source
    from .values.arrays import shared_array
    from .values.public import Record, callback, register

__version__ = "0.1.0"

_HOMES = {
    "aio.pool": ("AsyncPool",),
    "aio.lease": (
        "AsyncLease",
        "AsyncNamedWorker",
    ),
    "values.arrays": ("shared_array",),
    "detached.store": (
        "CallStore",
        "DetachedCall",
        "MemoryCallStore",
    ),
    "client": ("Pool",),
    "detached.calls": ("Peek",),
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
        "CallStoreError",
        "CallTimeout",
        "ConfigError",
        "EncodingError",
        "EnvBuildError",
        "EnvError",
        "FeedStalled",
        "InterpreterNotFound",
        "MessageTooLarge",
        "NestedTooDeeply",
        "PoolClosed",
        "PoolError",
        "ProtocolError",
        "RemoteError",
        "RemoteTraceback",
        "ResultNotReady",
        "StaleProxy",
        "SwarmClosed",
        "SwarmError",
        "TargetNotFound",
        "TooManyWaiting",
        "UnknownCall",
        "VenvoyError",
        "WorkerCrashed",
        "WorkerError",
        "WorkerStartError",
    ),
    "events": ("Event",),
    "fleets.fleet": ("Fleet",),
    "isolation": (
        "Isolated",
        "isolated",
    ),
    "leases.lease": (
        "Lease",
        "NamedWorker",
    ),
    "objects.making": (
        "close",
        "instance",
        "keep",
        "options",
        "run_module",
        "run_object",
        "run_script",
        "value",
        "worker_info",
    ),
    "policies": (
        "RestartPolicy",
        "ScalePolicy",
    ),
    "options": (
        "OutputChunk",
        "Progress",
        "WorkerOptions",
    ),
    "pool.jobs": ("CallFuture",),
    "pool.stats": (
        "PoolStats",
        "WorkerInfo",
    ),
    "progress_bars": (
        "ProgressBar",
        "progress_bar",
    ),
    "fleets.pool_spec": ("PoolSpec",),
    "objects.proxies": ("RemoteProxy", "awaited"),
    "source": ("by_source",),
    "detached.sqlite_store": ("SqliteCallStore",),
    "values.public": ("Record", "callback", "register"),
}  # where each public name lives: they are imported at their first use, since together they take 50 ms

__all__ = [
    "AsyncLease",
    "AsyncNamedWorker",
    "AsyncPool",
    "CallCancelled",
    "CallFuture",
    "CallStore",
    "CallStoreError",
    "CallTimeout",
    "Collected",
    "ConfigError",
    "DetachedCall",
    "EncodingError",
    "Env",
    "EnvBuildError",
    "EnvError",
    "EnvInfo",
    "EnvLease",
    "EnvSpec",
    "Event",
    "FeedStalled",
    "Fleet",
    "InterpreterNotFound",
    "Isolated",
    "Lease",
    "MemoryCallStore",
    "MessageTooLarge",
    "NamedWorker",
    "NestedTooDeeply",
    "OutputChunk",
    "Peek",
    "Pool",
    "PoolClosed",
    "PoolError",
    "PoolSpec",
    "PoolStats",
    "Progress",
    "ProgressBar",
    "ProtocolError",
    "Record",
    "RemoteError",
    "RemoteProxy",
    "RemoteTraceback",
    "RestartPolicy",
    "ResultNotReady",
    "ScalePolicy",
    "SqliteCallStore",
    "StaleProxy",
    "SwarmClosed",
    "SwarmError",
    "TargetNotFound",
    "TooManyWaiting",
    "UnknownCall",
    "VenvoyError",
    "WorkerCrashed",
    "WorkerError",
    "WorkerInfo",
    "WorkerOptions",
    "WorkerStartError",
    "awaited",
    "build",
    "by_source",
    "callback",
    "close",
    "collect_garbage",
    "environments",
    "instance",
    "isolated",
    "keep",
    "options",
    "progress_bar",
    "register",
    "run_module",
    "run_object",
    "run_script",
    "shared_array",
    "value",
    "worker_info",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(f".{home}", __name__), name)
            globals().pop("options", None)  # the import system has put the submodule there; it is a function of ours
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if _os.environ.get("VENVOY_LOG"):
    from . import log as _log  # noqa: F401 - it configures itself; nothing else here needs `logging` yet
