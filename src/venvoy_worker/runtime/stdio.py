"""Keep protocol descriptors private; give 0, 1 and 2 to user code.

The host starts a worker with an empty stdin and with pipes it always drains as stdout and stderr, so user code may
do with them what it likes. The protocol's own descriptors have numbers user code never hears of, are not inherited
by programs it starts, and are closed in processes it forks.
"""

from __future__ import annotations

import faulthandler
import os
import sys

_is_fork = False
_flush_libc: Callable[[None], object] | None = None


def guard(descriptors: list[int], page: int) -> None:
    """Make the descriptors private to this process, and text output line by line.

    Args:
        descriptors: of what connects us to the host.
        page: of the file where the Python stack is written should this process crash.
    """
    for fd in [*descriptors, page]:
        os.set_inheritable(fd, False)
    os.register_at_fork(after_in_child=lambda: _leave_to_parent(descriptors, page))
    faulthandler.enable(page)  # user code may enable it for another file, and has the stack there then
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # an exotic env_vars may have closed them
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]


def _leave_to_parent(descriptors: list[int], page: int) -> None:
    """In a process that user code forked: it must neither answer calls nor keep the host's sockets open."""
    global _is_fork
    _is_fork = True
    try:
        os.dup2(2, page, inheritable=False)  # a crash there is no crash of the worker: its stack goes to stderr
    except OSError:
        descriptors = [*descriptors, page]
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
