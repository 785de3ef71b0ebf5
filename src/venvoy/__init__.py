"""venvoy: run Python code in warm worker processes inside isolated environments, as if it were a local call.

import venvoy as vv
with vv.Pool(vv.EnvSpec(packages=["numpy<2"])) as pool:
    pool.call("numpy:mean", [1, 2, 3])
"""

from .client import Pool
from .envs import Env, EnvSpec, build
from .errors import (
    CallCancelled,
    CallTimeout,
    EncodingError,
    EnvBuildError,
    EnvError,
    InterpreterNotFound,
    PoolClosed,
    PoolError,
    ProtocolError,
    RemoteError,
    RemoteTraceback,
    TargetNotFound,
    TooManyWaiting,
    VenvoyError,
    WorkerCrashed,
    WorkerError,
    WorkerStartError,
)
from .lease import Lease
from .log import configure_from_environment as _configure_log
from .options import OutputChunk, WorkerOptions
from .pool.jobs import CallFuture
from .pool.stats import PoolStats, WorkerInfo
from .source import by_source

__version__ = "0.1.0"

__all__ = [
    "CallCancelled",
    "CallFuture",
    "CallTimeout",
    "EncodingError",
    "Env",
    "EnvBuildError",
    "EnvError",
    "EnvSpec",
    "InterpreterNotFound",
    "Lease",
    "OutputChunk",
    "Pool",
    "PoolClosed",
    "PoolError",
    "PoolStats",
    "ProtocolError",
    "RemoteError",
    "RemoteTraceback",
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
]

_configure_log()
