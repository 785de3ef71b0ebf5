"""One OS process: start it with its outputs, drain and keep what it writes, know how it ended, end its tree.

Owns pid, exit status, output pipes and tails. It knows no protocol, and not whose child the process is. Laws: a process
is reaped by the collector thread, or by somebody whom that has asked to, so a pid that has not been reaped is this
process and nobody else; the group is killed before the leader is reaped; what has left the group is looked for by
`strays`.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from signal import Signals
from time import monotonic
from typing import Protocol

from .. import collector as _collector
from ..aio.latch import Latch
from ..collector import Collector
from . import posix as _platform
from . import strays as _strays
from .posix import Spawned as Spawned
from .posix import StatusPage as StatusPage
from .posix import explain as explain
from .posix import watch_pidfd as watch_pidfd

Sink = Callable[..., object]  # gets a chunk, and whose it is where that is known
_CHUNK = 65_536  # bytes taken from one descriptor in one turn, so that a flood delays nobody else
_DRAIN_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: an exit status, or the number of the signal that killed it; both None if unknown."""

    status: int | None
    signal: int | None
    is_ours: bool = False  # it was told to end by us

    def __str__(self) -> str:
        if self.signal is not None:
            name = self.signal.name if isinstance(self.signal, Signals) else f"signal {self.signal}"
            return f"was killed by {name}"
        return "ended, nobody knows how" if self.status is None else f"exited with status {self.status}"


class Output:
    """One output pipe of a process: read end, bounded tail, and a function that gets each chunk.

    Args:
        keep: bytes of the tail.
        sink: called with each chunk, in order, by whoever reads, and with b"" at the end; must not block.
    """

    def __init__(self, fd: int, keep: int, sink: Sink | None) -> None:
        self.fd = fd
        self._keep = keep
        self._sink = sink
        self._lock = threading.Lock()  # guards all here; reading happens under it so that chunks keep their order
        self._chunks: deque[bytes] = deque()
        self._size = 0
        os.set_blocking(fd, False)

    def read(self) -> int | None:
        """Take up to one chunk and return its size; 0 at the end of the stream, None when nothing is there now."""
        with self._lock:
            if self.fd < 0:
                return 0
            try:
                data = os.read(self.fd, _CHUNK)
            except BlockingIOError:
                return None
            if data:
                self._append(data)
                if self._sink is not None:
                    self._sink(data)
            return len(data)

    def _append(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        while self._size - len(self._chunks[0]) >= self._keep and len(self._chunks) > 1:
            self._size -= len(self._chunks.popleft())
        if len(self._chunks) > 64 and self._size < len(self._chunks) * 256:
            joined = b"".join(self._chunks)  # many small writes: do not keep an object for each
            self._chunks = deque([joined])

    def put(self, data: bytes, author: object) -> None:
        """Take what has come by another way than the pipe, as if it had been read.

        Args:
            author: whose it is, for the sink.
        """
        with self._lock:
            self._append(data)
            if self._sink is not None:
                self._sink(data, author)

    def drain(self) -> None:
        """Take everything that is there now, for at most a tenth of a second."""
        deadline = monotonic() + _DRAIN_SECONDS
        while self.read() and monotonic() < deadline:
            pass

    def tail(self) -> bytes:
        """Return the last bytes written, as many as are kept."""
        with self._lock:
            return b"".join(self._chunks)[-self._keep :] if self._keep else b""

    def close(self) -> None:
        """Close the read end and tell the sink so with an empty chunk; the tail stays."""
        with self._lock:
            if self.fd >= 0:
                os.close(self.fd)
                self.fd = -1
                if self._sink is not None:
                    self._sink(b"")


class Child(Protocol):
    """What a process is to the system: a child of ours, or of somebody who reaps it for us."""

    pid: int

    def watch(self, collector: Collector, callback: Callable[[], object]) -> Callable[[], None]:
        """Call back on the collector thread when it has exited; return what ends the watch."""

    def signal(self, number: int) -> None:
        """Send a signal to its process group; never after `reap`."""

    def reap(self, done: Callable[[int | None], object]) -> None:
        """On the collector thread: reap it, and call back there, now or soon.

        The callback gets what `Popen.wait` returns, or None where the exit status is lost.
        """

    def forget(self) -> None:
        """In a process the host forked: it is not ours there."""


Launch = Callable[[str, tuple[int, int]], Child]
"""Starts a process, given the value of its `VENVOY_WORKER` and the descriptors of its stdout and stderr."""


class Process:
    """A process, its outputs and its end.

    Args:
        launch: starts it.
        keep: bytes of output kept per stream.
        sinks: functions called with each chunk of stdout and of stderr.
        on_exit: called once, on the collector thread, after the process was reaped and its output drained.

    Raises:
        OSError: it cannot be started; the text names a limit that was hit.
    """

    def __init__(
        self,
        launch: Launch,
        *,
        keep: int,
        sinks: tuple[Sink | None, Sink | None],
        on_exit: Callable[[], object],
        collector: Collector,
    ) -> None:
        self.exit: Exit | None = None
        self.exited = Latch()
        self._is_over = False
        self._was_signalled = False
        self._on_exit = on_exit
        self._collector = collector
        self._lock = threading.Lock()  # held while a signal is sent: never to a stranger's pid, so not once it is over
        pipes = _pipes(2)
        self._mark, value = _strays.new_mark()
        try:
            (out, out_child), (err, err_child) = pipes
            self._child = launch(value, (out_child, err_child))
        except BaseException:
            _close(fd for pipe in pipes for fd in pipe)
            raise
        _close((out_child, err_child))
        self.pid = self._child.pid
        self.outputs = {"stdout": Output(out, keep, sinks[0]), "stderr": Output(err, keep, sinks[1])}
        _collector.tell_after_fork(self)
        collector.call_soon(self._watch_outputs)

    def watch(self) -> None:
        """Let its end be seen; `on_exit` may be called from now on."""
        self._end_watch = self._child.watch(self._collector, self._on_end)

    def _watch_outputs(self) -> None:
        for output in self.outputs.values():
            if output.fd >= 0:
                self._collector.watch(output.fd, lambda output=output: self._on_output(output))  # type: ignore[misc]

    def _on_output(self, output: Output) -> None:
        fd = output.fd
        if output.read() == 0:
            self._collector.unwatch(fd)

    def _on_end(self) -> None:
        with self._lock:
            self._child.signal(9)
            self._is_over = True
        self._end_watch()
        identity = _strays.identify(self.pid)
        self._child.reap(lambda code: self._finish(code, identity))

    def _finish(self, code: int | None, identity: _strays.Identity | None) -> None:
        _strays.sweep(self._mark, identity)
        for output in self.outputs.values():
            output.drain()
            self._collector.unwatch(output.fd)
            output.close()
        self.exit = Exit(None, None) if code is None else exit_of(code, self._was_signalled)
        try:
            self._on_exit()
        finally:
            self.exited.set()  # last: whoever waits for it finds everything said and counted

    def kill_tree(self) -> None:
        """Kill the process, its group and its other descendants at once; harmless when it is gone."""
        with self._lock:
            outside = _strays.outside_of_group(self.pid) if not self._is_over else []
        self.signal(9)
        _strays.kill(outside)

    def terminate(self) -> None:
        """Ask the process and its group to end (SIGTERM)."""
        self.signal(15)

    def signal(self, number: int) -> None:
        """Send a signal to the process and its group; harmless when it is gone."""
        with self._lock:
            if not self._is_over:
                self._was_signalled = True
                self._child.signal(number)

    def tail_text(self, stream: str | None = None) -> str:
        """Return the last output of one stream, or of both, as text; what is still in the pipes included."""
        parts = []
        for name, output in self.outputs.items():
            if stream not in (None, name):
                continue
            output.drain()
            parts.append(output.tail().decode("utf-8", "replace"))
        return "".join(parts)

    def after_fork_in_child(self) -> None:
        """In a process the host forked: close our copies, and never wait for a child that is not ours."""
        self._is_over = True  # for us: it is sent no signal from here
        self._child.forget()
        self._lock = threading.Lock()
        for output in self.outputs.values():
            fd, output.fd = output.fd, -1
            _close((fd,))


def exit_of(code: int, is_ours: bool) -> Exit:
    """Return what `Popen.wait` returned in our words."""
    if code >= 0:
        return Exit(code, None, is_ours)
    try:
        return Exit(None, Signals(-code), is_ours)
    except ValueError:  # a real-time signal has no name
        return Exit(None, -code, is_ours)


def _pipes(count: int) -> list[tuple[int, int]]:
    pipes: list[tuple[int, int]] = []
    try:
        for _ in range(count):
            pipes.append(os.pipe())
    except OSError as error:
        _close(fd for pipe in pipes for fd in pipe)
        raise _platform.explain(error) from error
    return pipes


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        try:
            os.close(fd)
        except OSError:
            pass
