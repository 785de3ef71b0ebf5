"""When one worker has done enough: after so many calls, at an age, at an amount of memory."""

from __future__ import annotations

import math
import random
from time import monotonic

from ..options import WorkerOptions
from .state import Reason

_SPREAD = 0.1  # of a limit, by which a worker may be earlier, so that not all go at once
_SOFT = 0.8  # of `max_rss`: a replacement is started
_LEAD_SECONDS = 0.5  # before its last call, at the rate of its calls, a replacement is started
_REST = 0.02  # seconds between two looks at memory


class Limits:
    """The limits of one worker, made when it is; used by whoever holds the worker."""

    def __init__(self, options: WorkerOptions) -> None:
        part = 1.0 - _SPREAD * random.random()
        self._calls = math.ceil(options.max_calls * part) if options.max_calls else None
        self._rss = options.max_rss
        self.age = options.max_age * part if options.max_age is not None else None
        self._born = monotonic()
        self._looked = 0.0

    @staticmethod
    def of(options: WorkerOptions) -> Limits | None:
        """Return those of one more worker; None where there are none."""
        has_some = options.max_calls or options.max_rss or options.max_age is not None
        return Limits(options) if has_some else None

    def check(self, calls: int, pid: int) -> tuple[Reason | None, Reason | None]:
        """Return why the worker must take no further call, and why it should be replaced, after so many calls."""
        now = monotonic()
        if self._calls is not None:
            if calls >= self._calls:
                return Reason.MAX_CALLS, Reason.MAX_CALLS
            lead = calls / max(now - self._born, 0.001) * _LEAD_SECONDS
            if calls >= self._calls - max(1.0, lead):
                return None, Reason.MAX_CALLS
        if self.age is not None and now >= self._born + self.age:
            return None, Reason.AGE
        if self._rss is not None and now >= self._looked + _REST:
            self._looked = now
            rss = resident_bytes(pid) - _shared_bytes(pid)
            if rss >= self._rss * _SOFT:
                return (Reason.MEMORY if rss >= self._rss else None), Reason.MEMORY
        return None, None


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process in bytes; 0 once it is gone."""
    import psutil  # 15 ms that only pools with a limit, and stats, need

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _shared_bytes(pid: int) -> int:
    """Return how much of that is memory it shares, as it does for large values; 0 if that is not known."""
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            return next((int(line.split()[1]) << 10 for line in status if line.startswith(b"RssShmem:")), 0)
    except OSError:
        return 0
