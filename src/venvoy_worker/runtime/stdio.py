"""Keep protocol descriptors private; give 0, 1 and 2 to user code.

The host starts a worker with an empty stdin and with pipes it always drains as stdout and stderr, so user code may
do with them what it likes. The protocol's own descriptors have numbers user code never hears of, are not inherited
by programs it starts, and are closed in processes it forks.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import sys

_is_fork = False
_private: list[int] = []  # the descriptors of this process that a fork has to close
_page = -1  # the status page's
_flush_libc: Callable[[None], object] | None = None


def guard(descriptors: list[int], page: int) -> None:
    """Make the descriptors private to this process, and text output line by line.

    Args:
        descriptors: of what connects us to the host.
        page: of the status page's file; behind the page, the Python stack is written should this process crash. Where
            there is no such page, of a copy of stderr.
    """
    _keep_private(descriptors, page)
    os.register_at_fork(after_in_child=_leave_to_parent)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # an exotic env_vars may have closed them
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]


def guard_anew(descriptors: list[int], page: int, outputs: list[int]) -> None:
    """In a worker that a guarded template has forked: as `guard`, with its own descriptors in place of the template's.

    Args:
        outputs: of its own stdout and stderr.
    """
    global _is_fork
    _is_fork = False
    old_page = _page  # the number of a copy of the template's stderr by now
    for number, fd in enumerate([os.open(os.devnull, os.O_RDONLY), *outputs]):
        os.dup2(fd, number)
        os.close(fd)
    _keep_private(descriptors, page)
    _close([old_page])


def keep_standard() -> None:
    """Open what user code has closed of 0, 1 and 2, so that no other descriptor gets these numbers."""
    fd = 0
    while fd <= 2:
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)


def _keep_private(descriptors: list[int], page: int) -> None:
    global _private, _page
    for fd in [*descriptors, page]:
        os.set_inheritable(fd, False)
    _private, _page = descriptors, page
    try:
        os.lseek(page, mmap.PAGESIZE, os.SEEK_SET)
    except OSError:  # stderr is a pipe
        pass
    faulthandler.enable(page)  # user code may enable it for another file, and has the stack there then


def _leave_to_parent() -> None:
    """In a process that user code forked: it must neither answer calls nor keep the host's sockets open."""
    global _is_fork
    _is_fork = True
    descriptors = _private
    try:
        os.dup2(2, _page, inheritable=False)  # a crash there is no crash of the worker: its stack goes to stderr
    except OSError:
        descriptors = [*descriptors, _page]
    _close(descriptors)


def _close(descriptors: list[int]) -> None:
    for fd in descriptors:
        try:
            os.close(fd)
        except OSError:
            pass


def is_fork() -> bool:
    """Return True in a process that user code forked."""
    return _is_fork


def leave_if_forked() -> None:
    """End a process that user code forked and that came back out of its call."""
    if _is_fork:
        flush()
        os._exit(0)


def tie_to_host(fd: int) -> None:
    """Let the kernel kill this worker's process group as soon as the host is gone.

    `fd` is the read end of a pipe that carries no data; its hang-up is the signal. Works while C code holds the
    interpreter lock, and for grandchildren in the group. fcntl(2), F_SETSIG; a no-op where the system lacks it,
    and there the control thread's end-of-file has to do.
    """
    try:
        import fcntl
        import select

        set_signal = fcntl.F_SETSIG
    except (ImportError, AttributeError):
        return
    fcntl.fcntl(fd, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(fd, set_signal, 9)  # SIGKILL
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(fd, 0)
    if poll.poll(0):  # the host was gone before the kernel knew whom to tell
        os._exit(1)


def flush() -> None:
    """Write out what user code printed, so that it arrives before the reply does."""
    try:
        sys.stdout.flush()
    except Exception:  # closed, replaced by something else, or None
        pass
    try:
        sys.stderr.flush()
    except Exception:
        pass
    if "ctypes" in sys.modules:
        _flush_c_library()


def _flush_c_library() -> None:
    """Flush C's own stdout, which only code that loaded ctypes is likely to have used by hand."""
    global _flush_libc
    if _flush_libc is None:
        try:
            _flush_libc = sys.modules["ctypes"].CDLL(None).fflush
        except Exception:  # half-imported by another thread, or a C library without it
            return
    _flush_libc(None)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable
