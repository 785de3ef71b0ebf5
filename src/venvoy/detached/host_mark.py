"""How one process sees that another one lives: a file beside what they share, locked for as long as its maker lives.

The kernel takes the lock away when the process ends, whatever ends it; a process id could be somebody else's by then,
or belong to another container. Owns the descriptor of the file.
"""

from __future__ import annotations

import fcntl
import glob
import os


class HostMark:
    """A locked file that stands for this process.

    Args:
        prefix: path that the name of the file begins with; `token` is the rest.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, prefix: str) -> None:
        self.token = f"{os.getpid()}-{os.urandom(6).hex()}"
        self._path = prefix + self.token
        draft = f"{os.path.dirname(prefix)}/.{self.token}"  # a file of the final name is locked, or of a dead process
        self._fd = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        os.rename(draft, self._path)

    def close(self) -> None:
        """Remove the file: this process does not stand for anything any more."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            _unlink(self._path)
            os.close(fd)

    def forget(self) -> None:
        """In a forked process: the mark is its parent's."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def is_alive(prefix: str, token: str) -> bool:
    """Return True if the process that made a mark lives; what is left of a dead one is removed."""
    try:
        fd = os.open(prefix + token, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _unlink(prefix + token)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


def remove_dead(prefix: str) -> None:
    """Remove what processes have left that were killed."""
    for path in glob.glob(glob.escape(prefix) + "*"):
        is_alive(prefix, path.removeprefix(prefix))


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:  # somebody else was quicker
        pass
