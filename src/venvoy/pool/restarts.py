"""When the next worker may be started after some have failed to: back-off, and a circuit that opens.

Owns the recent failures. It reads no clock, and is used under the roster's lock.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from ..errors import WorkerStartError
from ..policies import RestartPolicy

_JITTER = 0.2  # of a delay is added by chance at most, so that many pools do not try at the same moment


class Restarts:
    """See the module."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._failures: deque[float] = deque(maxlen=policy.max_failures)
        self._in_a_row = 0
        self._is_relapse = False  # the last failure was one of a worker that had been ready, or might well have been
        self._has_succeeded = False
        self._before: tuple[int, list[float]] = (0, [])  # failures in a row and recent ones, at the last success
        self._not_before = 0.0
        self._error: Callable[[], BaseException] | None = None
        self.is_open = False  # the circuit: no start is tried unless a call asks for it after the back-off

    def failed(self, now: float, error: Callable[[], BaseException], is_relapse: bool = False) -> None:
        """A worker did not start, or died before it had done anything.

        Args:
            is_relapse: it had been ready, or others like it had; what was forgotten then counts again.
        """
        policy = self._policy
        in_a_row, failures = self._before
        if is_relapse and not self._in_a_row and failures and now - failures[-1] <= policy.within:
            self._in_a_row = in_a_row
            self._failures.extend(failures)
        self._failures.append(now)
        self._in_a_row += 1
        self._is_relapse = is_relapse
        self._error = error
        delay = min(policy.max_backoff, policy.backoff * 2.0 ** min(self._in_a_row - 1, 60))
        self._not_before = now + delay * (1.0 + _JITTER * random.random())
        is_full = len(self._failures) == policy.max_failures
        self.is_open = is_full and now - self._failures[0] <= policy.within

    def succeeded(self) -> None:
        """A worker is ready: forget what was before, unless it dies at once."""
        self._has_succeeded = True
        if self._in_a_row:
            self._before = (self._in_a_row, list(self._failures))
        self._in_a_row = 0
        self._failures.clear()
        self._not_before = 0.0
        self._error = None
        self.is_open = False

    def reset(self) -> None:
        """Somebody wants to try at once: forget everything."""
        self.succeeded()
        self._before = (0, [])
        self._has_succeeded = False

    @property
    def is_first_after_success(self) -> bool:
        """True while workers have started, and none has failed to since."""
        return self._has_succeeded and not self._in_a_row

    @property
    def is_hopeless(self) -> bool:
        """True when nothing speaks for a start that nobody asks for."""
        return self._in_a_row > 0 and (self.is_open or not self._is_relapse)

    def delay(self, now: float) -> float:
        """Return in how many seconds the next start may be tried: 0 or less for now."""
        return self._not_before - now

    def check(self, now: float) -> None:
        """Raise, while the circuit is open and its time is not over, why there will be no worker soon.

        Raises:
            WorkerStartError: with what the last start that failed had to say.
        """
        wait = self._not_before - now
        if self.is_open and wait > 0 and self._error is not None:
            error = self._error()
            count = len(self._failures)
            text = f"no worker is started for {wait:.1f} s, since the last {count} failed at once; the last: {error}"
            output, trace = getattr(error, "output", ""), getattr(error, "remote_traceback", "")
            raise WorkerStartError(text, output=output, remote_traceback=trace) from error
