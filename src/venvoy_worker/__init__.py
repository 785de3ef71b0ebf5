"""What code that runs in a venvoy worker may call; always importable there, never installed.

import venvoy_worker
if venvoy_worker.is_cancelled(): ...
"""

from __future__ import annotations

from _thread import get_ident

from .contract import host_functions
from .contract.frames import LANE_SHIFT
from .contract.reducers import register

__all__ = ["Cancelled", "call_id", "host", "is_cancelled", "progress", "register"]

_call_id = 0  # of the call that runs now; set by the runtime
_call_ids: dict[int, int] = {}  # by thread, of calls that run within others on threads that these have started
_cancelled = 0  # the newest call that was asked to stop
_current: Any = None  # where several calls run at once: returns the one of this thread or task


class Cancelled(BaseException):
    """Raised in the middle of a call that was cancelled or whose deadline passed; clean up and let it go."""


def call_id() -> int:
    """Return the number of the call that is running, unique within this worker; 0 between calls.

    Where several run at once, it is that of this thread or task; 0 in threads that a call has started.

    Examples:
        >>> def number():
        ...     import venvoy_worker
        ...     return venvoy_worker.call_id()
        >>> with vv.Pool() as pool:
        ...     pool.call(number) < pool.call(number)
        True
    """
    if _call_ids and get_ident() in _call_ids:
        return _call_ids[get_ident()]
    return _call_id if _current is None else int(_current().id)


host_functions.running = call_id


def is_cancelled() -> bool:
    """Return True when the running call has been asked to stop; for code that catches `Cancelled`, or cannot get it.

    Examples:
        >>> def serve():
        ...     import time, venvoy_worker
        ...     while not venvoy_worker.is_cancelled():
        ...         time.sleep(0.01)
        >>> with vv.Pool(worker=vv.WorkerOptions(concurrency=2)) as pool:  # where calls run on threads
        ...     pool.submit(serve).cancel()
        True
    """
    if _current is not None:
        return bool(_current().is_cancelled)
    return _call_id != 0 and _cancelled == _call_id


def progress(done: float, total: float | None = None, message: str = "") -> None:
    """Tell the host how far the running call is; without a running call it is dropped.

    It may be called at any rate: what comes more often than 20 times a second is left out, but never the last.

    Args:
        done: how much is done, in whatever unit.
        total: how much there is, if that is known.
        message: what is being done.

    Examples:
        >>> def work(n):
        ...     import venvoy_worker
        ...     for done in range(n):
        ...         venvoy_worker.progress(done + 1, n)
        >>> with vv.Pool() as pool:
        ...     pool.options(on_progress=print).call(work, 1)
        Progress(done=1, total=1, message='')
    """
    running = call_id()
    if host_functions.lines:
        host_functions.lines[running >> LANE_SHIFT].progress(running, done, total, message)


def host(name: str) -> host_functions.HostFunction:
    """Return a function of the host's that the pool exposes by this name: `Pool(expose={"name": f})`.

    It runs in the host, while the call that calls it waits; arguments, result and exceptions travel as those of calls.
    It may be called from any thread of the running call; without one it raises `RuntimeError`.

    Examples:
        >>> def in_dollars(euros):
        ...     import venvoy_worker
        ...     return euros * venvoy_worker.host("rate")("EUR")
        >>> with vv.Pool(expose={"rate": {"EUR": 1.5}.get}) as pool:
        ...     pool.call(in_dollars, 10)
        15.0
    """
    return host_functions.HostFunction(name)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
