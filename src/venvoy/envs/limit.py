"""How long a build may go on: `Limit`, which everything that waits asks how long to wait, and then whether to go on.

Owns no state but a moment of the monotonic clock.
"""

from __future__ import annotations

import os
import threading
import time

from venvoy.errors import EnvBuildError


class Cancel:
    """A flag that one thread sets to stop the build of another, and that can be waited for with `poll`.

    (A `threading.Event` cannot be waited for together with a process or a pipe, except by looking again and again.)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the pipe, which is made when somebody waits
        self._pipe: tuple[int, int] | None = None
        self._is_set = False

    def set(self) -> None:
        """Stop the build, now or as soon as it begins."""
        with self._lock:
            self._is_set = True
            if self._pipe is not None:
                os.write(self._pipe[1], b"\0")

    def is_set(self) -> bool:
        """Return True once it was set."""
        return self._is_set

    def fileno(self) -> int:
        """Return a descriptor that can be read from as soon as the flag is set."""
        with self._lock:
            if self._pipe is None:
                self._pipe = os.pipe()
                if self._is_set:
                    os.write(self._pipe[1], b"\0")
            return self._pipe[0]

    def close(self) -> None:
        """Give up the descriptors, once nobody waits any more."""
        with self._lock:
            pipe, self._pipe = self._pipe, None
        for fd in pipe or ():
            os.close(fd)

    def __del__(self) -> None:
        self.close()


class Limit:
    """How long a build may go on: `timeout` seconds from now (None: for ever), or until somebody cancels it.

    Raises:
        ValueError: the timeout is not positive.
    """

    def __init__(self, timeout: float | None = None, cancel: Cancel | None = None) -> None:
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout must be a positive number of seconds or None, not {timeout!r}")
        self.timeout = timeout
        self.cancel = cancel
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def sooner(self, timeout: float) -> Limit:
        """Return this limit, or the one `timeout` seconds from now if that comes first."""
        return Limit(timeout, self.cancel) if self.left() > timeout else self

    def left(self) -> float:
        """Return the seconds that are left; infinite without a deadline."""
        return float("inf") if self._deadline is None else self._deadline - time.monotonic()

    def nap(self) -> float | None:
        """Return how long to sleep at most before the next `check`, in seconds; None is for ever."""
        seconds = max(0.0, self.left())
        return None if seconds == float("inf") else seconds

    def is_over(self) -> bool:
        """Whether the deadline has passed, or somebody has cancelled."""
        return self.left() <= 0 or (self.cancel is not None and self.cancel.is_set())

    def check(self, doing: str, output: str = "") -> None:
        """Raise EnvBuildError when the deadline has passed or somebody has cancelled."""
        last = f"; its last words:\n{_tail(output)}" if output.strip() else ""
        if self.cancel is not None and self.cancel.is_set():
            raise EnvBuildError(f"cancelled while {doing}{last}", output=output)
        if self.left() <= 0:
            raise EnvBuildError(f"not finished within {self.timeout:g} s, while {doing}{last}", output=output)


def _tail(output: str, lines: int = 20) -> str:
    return "\n".join(output.strip().splitlines()[-lines:])
