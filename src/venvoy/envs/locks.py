"""Kernel locks on files: one builder at a time, and leases that any number of users hold together.

Owns the lock files it opens. Laws: the kernel frees every lock when its last holder is gone, SIGKILL included; a
descriptor of ours is inherited by nobody but those it is handed to; a lock is unlocked, not only closed, since a fork
of this process may have it too. flock, since it belongs to the open file and so to every process that inherits the
descriptor: after a SIGKILL of a builder its lock is free when the installer is gone too. (A POSIX record lock would end
with the builder; `filelock` takes this same lock but keeps the descriptor to itself.)
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from venvoy.envs.command import run
from venvoy.envs.limit import Limit
from venvoy.errors import EnvBuildError, EnvError
from venvoy.log import logger


@contextmanager
def exclusive(
    path: str, limit: Limit | None, doing: str, waiting: Callable[[], object] | None = None
) -> Iterator[int | None]:
    """Hold a file's lock alone and give its descriptor.

    Args:
        path: of the file, which is made if need be.
        limit: when to give up; None does not wait at all and gives None where somebody else holds it.
        doing: what is being waited for, for the message.
        waiting: called once if somebody else holds it.

    Raises:
        EnvBuildError: the limit was reached.
        EnvError: this platform has no such lock.
        OSError: the file cannot be opened.
    """
    fcntl = _fcntl()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    is_held = False
    try:
        is_held = _try(descriptor, fcntl.LOCK_EX)
        if not is_held and limit is not None:
            if waiting is not None:
                waiting()
            _wait(descriptor, limit, doing)
            is_held = True
        yield descriptor if is_held else None
    finally:
        if is_held or limit is not None:  # a waiter may have been interrupted when it had just got it
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _fcntl() -> Any:
    try:
        import fcntl
    except ImportError:
        raise EnvError("environments cannot be built on this platform; use EnvSpec.existing(path)") from None
    return fcntl


def _try(descriptor: int, kind: int) -> bool:
    fcntl = _fcntl()
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(descriptor: int, limit: Limit, doing: str) -> None:
    """Lock an open file alone, waiting for somebody else's lock as long as the limit allows.

    flock knows no deadline and cannot be polled, so a child process waits: the lock belongs to the open file, which it
    inherits, so what it gets is ours. It can be killed at the deadline.
    """
    code = "import fcntl, sys; fcntl.flock(int(sys.argv[1]), fcntl.LOCK_EX)"
    argv = [sys.executable, "-I", "-S", "-c", code, str(descriptor)]
    status, words = run(argv, env=dict(os.environ), cwd=os.sep, limit=limit, doing=doing, keep=[descriptor])
    if status:
        raise EnvBuildError(f"failed while {doing}: {words}", output=words)


class EnvLease:
    """A promise of the kernel that an environment stays as it is: nobody removes it while this process holds it.

    Made by `Env.lease()`; for a `with` block, or until `release()`. Any number of processes hold leases together; the
    end of a process, however it comes, ends its leases. Programs that are started inherit none.
    """

    def __init__(self, path: str | None) -> None:
        descriptor = None if path is None else _open_shared(path)
        self._descriptor = descriptor
        self._releasing = threading.Lock()  # once it is released for one thread, it is for all
        if descriptor is not None:
            _held.add(self)
            _watch_forks()

    def release(self) -> None:
        """Give it back; a no-op the second time."""
        with self._releasing:
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                fcntl = _fcntl()
                fcntl.flock(descriptor, fcntl.LOCK_UN)
                os.close(descriptor)

    def pass_on(self) -> None:
        """Let the program that takes the place of this one by `exec` hold the lease."""
        if self._descriptor is not None:
            os.set_inheritable(self._descriptor, True)

    def _after_fork_in_child(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)  # and not unlocked: the lock is the parent's as well
        self._releasing = threading.Lock()  # the parent may hold the other one

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self.release()


def _open_shared(path: str) -> int | None:
    """Return a descriptor that holds the file's lock together with others; None where the store is read-only."""
    fcntl = _fcntl()
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            logger.debug("no lease on %s: %s", path, error)  # nobody can remove anything from there either
            return None
    try:
        os.utime(descriptor)  # when it was used last
    except OSError:
        pass
    # Held alone by others only for as long as a rename takes.
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


_held: weakref.WeakSet[EnvLease] = weakref.WeakSet()
_watches_forks = False


def _watch_forks() -> None:
    global _watches_forks
    if not _watches_forks and hasattr(os, "register_at_fork"):
        _watches_forks = True
        os.register_at_fork(after_in_child=_leave_to_the_parent)


def _leave_to_the_parent() -> None:
    for lease in list(_held):
        lease._after_fork_in_child()
