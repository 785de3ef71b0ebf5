"""What `process` needs of a POSIX system: spawn into a session of its own, watch for the exit, end the tree.

It can be imported anywhere, since `import venvoy` must be; `pool.core.check_platform` refuses to go further.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import subprocess
import threading
from collections.abc import Callable, Sequence

from ..collector import Collector

_LONGEST_STACK = 1 << 18  # bytes read of what a crash has left


class Spawned:
    """A child of this process: a program that leads a session of its own and has an empty stdin.

    Args:
        argv: the program and its arguments.
        environ: its whole environment.
        cwd: its working folder; None is ours.
        inherited: descriptors it keeps, under the same numbers.
        outputs: its stdout and stderr.

    Raises:
        OSError: with the limit named in its text where one was hit.
    """

    def __init__(
        self,
        argv: Sequence[str],
        environ: dict[str, str],
        cwd: str | None,
        inherited: Sequence[int],
        outputs: tuple[int, int],
    ) -> None:
        try:
            self._popen = subprocess.Popen(
                argv,
                env=environ,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=outputs[0],
                stderr=outputs[1],
                pass_fds=inherited,
                start_new_session=True,
            )
        except OSError as error:
            raise explain(error) from error
        self.pid = self._popen.pid

    def watch(self, collector: Collector, callback: Callable[[], object]) -> Callable[[], None]:
        """Call back on the collector thread when it has exited; return what ends the watch."""
        return watch_exit(collector, self.pid, callback)

    def signal(self, number: int) -> None:
        """Send a signal to its process group."""
        kill_group(self.pid, number)

    def reap(self, done: Callable[[int | None], object]) -> None:
        """Reap it, and call back with what `Popen.wait` returns; None where the exit status is lost."""
        is_known = can_be_waited_for(self.pid)
        code = self._popen.wait()
        done(code if is_known else None)

    def forget(self) -> None:
        """In a process the host forked: never wait for a child that is not ours."""
        self._popen.returncode = 0


def explain(error: OSError) -> OSError:
    """Return the error with the limit it hit in its text."""
    import resource  # missing on Windows, where `import venvoy` has to work

    if error.errno in (errno.EMFILE, errno.ENFILE):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        text = f"too many open files: the limit of this process is {soft} (RLIMIT_NOFILE; it may be raised to {hard})"
    elif error.errno == errno.EAGAIN:
        soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        text = (
            f"no further process is allowed: the limit of this user is {soft} (RLIMIT_NPROC, hard {hard}, or pids.max)"
        )
    elif error.errno == errno.ENOMEM:
        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        text = f"not enough memory for a further process (RLIMIT_AS is {soft}, -1 meaning none)"
    else:
        return error
    return OSError(error.errno, text)


def kill_group(pid: int, number: int = 9) -> None:
    """Send a signal to the process group that `pid`, not reaped yet, leads."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def can_be_waited_for(pid: int) -> bool:
    """Return False when the exit status of a child is lost, as where SIGCHLD is ignored; Popen would call it 0."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def watch_exit(collector: Collector, pid: int, callback: Callable[[], object]) -> Callable[[], None]:
    """Call back on the collector thread when a child has exited; return what ends the watch."""
    if hasattr(os, "pidfd_open"):
        return watch_pidfd(collector, os.pidfd_open(pid), callback)
    threading.Thread(target=_wait_for, args=(collector, pid, callback), daemon=True).start()
    return lambda: None


def watch_pidfd(collector: Collector, fd: int, callback: Callable[[], object]) -> Callable[[], None]:
    """Call back on the collector thread when the process of a pidfd has exited; return what ends the watch.

    Args:
        fd: owned from now on.
    """
    collector.call_soon(lambda: collector.watch(fd, callback))

    def end() -> None:
        collector.unwatch(fd)
        os.close(fd)

    return end


def _wait_for(collector: Collector, pid: int, callback: Callable[[], object]) -> None:
    """Where there is no pidfd: a thread that sleeps until the child is a zombie, and leaves the reaping to others."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        pass
    collector.call_soon(callback)


class StatusPage:
    """What the child writes into memory that survives its death.

    Two numbers for each lane, the ids of the last call started and finished; and, behind the first page of the file,
    the Python stack of a crash.
    """

    def __init__(self) -> None:
        self.stack = b""  # of a crash, as faulthandler writes it; known once frozen
        self._frozen: bytes | None = None
        if hasattr(os, "memfd_create"):
            self.fd = os.memfd_create("venvoy-status")
        else:
            import tempfile  # start-up time: it brings shutil, random and three compressors along

            self.fd, path = tempfile.mkstemp()
            os.unlink(path)
        try:
            os.truncate(self.fd, mmap.PAGESIZE)
            self._page = mmap.mmap(self.fd, mmap.PAGESIZE)
        except BaseException:
            os.close(self.fd)
            raise

    def started(self, lane: int) -> int:
        """Return the id of the newest call of a lane whose code began to run."""
        return self._read(2 * lane)

    def finished(self, lane: int) -> int:
        """Return the id of the newest call of a lane whose code has ended."""
        return self._read(2 * lane + 1)

    def _read(self, index: int) -> int:
        words = self._frozen
        if words is None:
            try:
                return int.from_bytes(self._page[8 * index : 8 * index + 8], "little")
            except ValueError:  # frozen by another thread just now
                words = self._frozen or b""
        return int.from_bytes(words[8 * index : 8 * index + 8], "little")

    def freeze(self) -> None:
        """Keep what was written and give up the memory, which holds a descriptor; once the child is gone."""
        if self._frozen is None:
            self._frozen = self._page[: mmap.PAGESIZE]
            self.stack = self._read_stack()
            self._page.close()

    def _read_stack(self) -> bytes:
        try:
            size = min(self._page.size(), _LONGEST_STACK)
            if size > mmap.PAGESIZE:
                self._page.resize(size)
            return self._page[mmap.PAGESIZE :].rstrip(b"\0")
        except (OSError, ValueError, SystemError):  # where a mapping cannot be resized
            return b""

    def close_descriptor(self) -> None:
        """Close the descriptor that the child has inherited."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def resize_pipe(fd: int, size: int) -> None:
    """Let a pipe take so many bytes, if the system allows it.

    Raises:
        OSError: it is no pipe.
    """
    import fcntl  # there is none on Windows, where this module can be imported

    if hasattr(fcntl, "F_SETPIPE_SZ"):
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
        except OSError as error:  # smaller than what lies in it, or more than this user may have
            if error.errno not in (errno.EBUSY, errno.EPERM):
                raise


def resize_if_pipe(fd: int, size: int) -> None:
    """As `resize_pipe`, of what may also be a socket, or closed (-1): that stays as it is."""
    if fd >= 0 and stat.S_ISFIFO(os.fstat(fd).st_mode):
        resize_pipe(fd, size)
