"""One external command: in a process group of its own, with a deadline, and never outliving us.

Owns the group from its start to the return of `run`. Laws:

* However `run` ends (result, deadline, cancel, Ctrl-C, an error of the callback), its group is gone afterwards.
* However this process ends, SIGKILL included, the kernel kills the group: the command holds one end of a
  socket whose other end only we have, and the hang-up sends SIGKILL to the group. (A parent-death signal would
  do so as soon as the *thread* that started the command ends.) Linux only; elsewhere an orphan runs to its end.
* The command does nothing before that tie is made: a shell in front of it waits for a line.
* Descriptors in `keep` are inherited, so a file lock taken by us is held until the last of the group is gone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from venvoy.envs.limit import Limit
from venvoy.errors import EnvBuildError
from venvoy.log import logger

if TYPE_CHECKING:
    import socket
    import subprocess

_F_SETSIG = 10  # fcntl.F_SETSIG, which Python does not name
_GATE = 'read -r _ && exec "$@" </dev/null'
_DRAIN = 2.0  # how long a killed group may take to be gone


def run(
    argv: Sequence[str],
    *,
    env: dict[str, str],
    cwd: str,
    limit: Limit,
    doing: str,
    clean: Callable[[str], str] = str,
    on_line: Callable[[str], object] | None = None,
    keep: Sequence[int] = (),
) -> tuple[int, str]:
    """Run a command to its end and return its exit status and everything it printed on either stream.

    Args:
        argv: the program's absolute path and its arguments.
        env: its whole process environment.
        cwd: its working folder.
        limit: when to give up.
        doing: what is being done, for the message when the limit is reached.
        clean: applied to every line before anything else sees it, to take credentials out.
        on_line: called with every line as it comes.
        keep: descriptors it inherits.

    Raises:
        EnvBuildError: it cannot be started, or the limit was reached; `output` is what it had printed.
    """
    try:
        group = _Group(argv, env, cwd, keep, clean)
    except OSError as error:
        raise EnvBuildError(f"{argv[0]} cannot be started: {error}") from error
    try:
        group.begin()
        return group.finish(limit, doing, on_line)
    finally:
        group.end()


class _Group:
    """The process group of one command and our ends of its descriptors."""

    def __init__(
        self,
        argv: Sequence[str],
        env: dict[str, str],
        cwd: str,
        keep: Sequence[int],
        clean: Callable[[str], str],
    ) -> None:
        import socket  # start-up time: only who builds or looks for an interpreter pays for these
        import subprocess

        self._lifeline, self._held_by_group = socket.socketpair()
        self._lines: list[str] = []
        self._rest = b""
        self._clean = clean
        self._at_end = False
        # Readable at the exit of the first process; None where the platform has no such thing.
        self._exit: int | None = None
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                ["/bin/sh", "-c", _GATE, "sh", *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                pass_fds=(self._held_by_group.fileno(), *keep),
                start_new_session=True,
            )
        except BaseException:
            self._lifeline.close()
            self._held_by_group.close()
            raise
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._gate, self._output = self._process.stdin, self._process.stdout
        os.set_blocking(self._output.fileno(), False)

    def begin(self) -> None:
        """Tie the group to our life, then let the command start."""
        if hasattr(os, "pidfd_open"):
            self._exit = os.pidfd_open(self._process.pid)
        _kill_on_hangup(self._held_by_group, self._process.pid)
        self._held_by_group.close()
        try:
            self._gate.write(b"\n")
            self._gate.close()
        except BrokenPipeError:
            pass  # the shell is gone already; its exit status and words tell why

    def finish(self, limit: Limit, doing: str, on_line: Callable[[str], object] | None) -> tuple[int, str]:
        """Follow the command to its end; kill what it leaves behind."""
        running = True
        while running:
            running = self._wait(limit)
            if not running:
                self._finish_off()
            for line in self._take_lines(last=not running):
                if on_line is not None:
                    on_line(line)
            if running:
                limit.check(doing, self._text())
        assert self._process.returncode is not None
        return self._process.returncode, self._text()

    def end(self) -> None:
        """Kill whatever is left, wait until it is gone, close our descriptors."""
        if self._process.returncode is None:
            self._finish_off()
        for end in (self._lifeline, self._held_by_group, self._output):
            end.close()
        if self._exit is not None:
            os.close(self._exit)
        try:
            self._gate.close()
        except BrokenPipeError:
            pass

    def _finish_off(self) -> None:
        """Kill the group, read its last words, reap it."""
        if self._process.returncode is None:
            self._kill()
        deadline = time.monotonic() + _DRAIN
        # The output ends when the last process of the group is gone, not only its first.
        while not self._at_end and (seconds := deadline - time.monotonic()) > 0:
            if self._poll(seconds, self._output.fileno()):
                self._at_end = not self._read()
        self._process.wait()

    def _kill(self) -> None:
        # Only before the first process is reaped: until then its number cannot belong to anybody else.
        import signal

        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass

    def _wait(self, limit: Limit) -> bool:
        """Read what comes before the limit is reached; False when the first process has ended.

        That one counts, not the end of the output: a build may leave a server behind that holds the output open,
        and a process closes its output before it has an exit status.
        """
        seconds = limit.nap()
        watched = [] if self._exit is None else [self._exit]
        if limit.cancel is not None:
            watched.append(limit.cancel.fileno())
        ready = self._poll(seconds, *watched, *(() if self._at_end else (self._output.fileno(),)))
        if self._output.fileno() in ready:
            self._at_end = not self._read()
        if self._exit is None:  # no descriptor for an exit on this platform
            return not self._at_end or not self._has_exited(seconds)
        return self._exit not in ready

    def _has_exited(self, seconds: float | None) -> bool:
        import subprocess

        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _poll(self, seconds: float | None, *descriptors: int) -> set[int]:
        import select

        poll = select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, select.POLLIN | select.POLLHUP)
        return {ready for ready, _ in poll.poll(None if seconds is None else min(seconds, 86_400) * 1000)}

    def _read(self) -> bool:
        chunk = self._output.read(65536)
        self._rest += chunk or b""
        return chunk != b""  # None: nothing yet

    def _take_lines(self, last: bool = False) -> list[str]:
        *whole, self._rest = self._rest.split(b"\n")
        if last and self._rest:
            whole.append(self._rest)
        lines = [self._clean(line.decode("utf-8", "replace").rstrip("\r")) for line in whole]
        self._lines += lines
        return lines

    def _text(self) -> str:
        return "\n".join(self._lines)


def _kill_on_hangup(end: socket.socket, group: int) -> None:
    """Have the kernel send SIGKILL to the group when the other end of this socket is closed, by whatever."""
    import fcntl
    import signal
    import sys

    if sys.platform != "linux":
        return
    try:
        fcntl.fcntl(end, fcntl.F_SETOWN, -group)
        fcntl.fcntl(end, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(end, fcntl.F_SETFL, fcntl.fcntl(end, fcntl.F_GETFL) | fcntl.FASYNC)
    except OSError as error:  # a sandboxed kernel; the inherited lock still keeps an orphan harmless
        logger.debug("no lifeline for process group %d: %s", group, error)
