"""What code that runs in a venvoy worker may call; always importable there, never installed.

import venvoy_worker
if venvoy_worker.is_cancelled(): ...
"""

from __future__ import annotations

from .contract.reducers import register

__all__ = ["Cancelled", "call_id", "is_cancelled", "register"]

_call_id = 0  # of the call that runs now; set by the runtime
_cancelled = 0  # the newest call that was asked to stop
_current: Any = None  # where several calls run at once: returns the one of this thread or task


class Cancelled(BaseException):
    """Raised in the middle of a call that was cancelled or whose deadline passed; clean up and let it go."""


def call_id() -> int:
    """Return the number of the call that is running, unique within this worker; 0 between calls.

    Where several run at once, it is that of this thread or task; 0 in threads that a call has started.
    """
    return _call_id if _current is None else int(_current().id)


def is_cancelled() -> bool:
    """Return True when the running call has been asked to stop; for code that catches `Cancelled`, or cannot get it."""
    if _current is not None:
        return bool(_current().is_cancelled)
    return _call_id != 0 and _cancelled == _call_id


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
