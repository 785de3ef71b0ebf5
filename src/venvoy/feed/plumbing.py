"""Descriptors of one process before it starts: its ends of the input channels, its outputs, its lifeline.

All are opened together or not at all. The lifeline is a pipe without data. Once the process runs, the kernel is told to
kill its group when the host's end is gone; the process needs to do nothing for it and may be any program.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from .channels import Channel, Destination


@dataclass
class Ends:
    """The descriptors of one process.

    Args:
        ours: the host's ends of the input channels, by name; a FIFO's is opened when its process opens it.
        files: open files without a descriptor, by the name of their channel.
        fifos: paths of named pipes that were made.
        environ: variables that tell the process where its channels are.
        inherited: descriptors that it keeps.
        outputs: read ends of its stdout and stderr; -1 where it writes into a file itself.
        stdio: its descriptors 0, 1 and 2.
        lifeline: read end, inherited, and write end, ours; -1 where the system has no such thing.
    """

    ours: dict[str, int] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=dict)
    fifos: dict[str, str] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    inherited: list[int] = field(default_factory=list)
    outputs: dict[str, int] = field(default_factory=dict)
    stdio: list[int] = field(default_factory=list)
    lifeline: tuple[int, int] = (-1, -1)


def open_ends(
    channels: Mapping[str, Channel], outputs: Mapping[str, Destination], process_id: int, is_again: bool
) -> tuple[Ends, ExitStack, ExitStack]:
    """Open all descriptors of one process.

    Args:
        outputs: the destinations that the process writes by itself; the others get a pipe.
        is_again: the process was there before: add to its files.

    Returns:
        The ends; what closes ours; what closes the process's.

    Raises:
        OSError: one of them cannot be opened; nothing stays open.
    """
    ends = Ends()
    with ExitStack() as undo, ExitStack() as childs:
        ends.stdio.append(_open(os.devnull, os.O_RDONLY, childs) if "stdin" not in channels else -1)
        for name, channel in channels.items():
            _open_channel(ends, name, channel, process_id, is_again, undo, childs)
        for stream in ("stdout", "stderr"):
            _open_output(ends, stream, outputs.get(stream), process_id, is_again, undo, childs)
        if hasattr(fcntl, "F_SETSIG"):
            ends.lifeline = _pipe(undo, childs)
            ends.inherited.append(ends.lifeline[0])
        return ends, undo.pop_all(), childs.pop_all()


def _pipe(undo: ExitStack, childs: ExitStack) -> tuple[int, int]:
    reader, writer = os.pipe()
    childs.callback(os.close, reader)
    undo.callback(os.close, writer)
    return reader, writer


def _open(path: str, flags: int, stack: ExitStack) -> int:
    fd = os.open(path, flags | os.O_CLOEXEC, 0o666)
    stack.callback(os.close, fd)
    return fd


def _open_channel(
    ends: Ends, name: str, channel: Channel, process_id: int, is_again: bool, undo: ExitStack, childs: ExitStack
) -> None:
    variable = channel.env_name or name
    if channel.kind == "pipe":
        reader, ends.ours[name] = _pipe(undo, childs)
        if name == "stdin":
            ends.stdio[0] = reader
        else:
            ends.inherited.append(reader)
            ends.environ[variable] = str(reader)
    elif channel.kind == "handle":
        _open_handle(ends, name, channel.target, undo)
    else:
        path = os.path.abspath(os.fspath(channel.target).replace("{id}", str(process_id)))
        ends.environ[variable] = path
        if channel.kind == "fifo":
            if not (is_again and stat.S_ISFIFO(os.stat(path).st_mode)):
                os.mkfifo(path)
            ends.fifos[name] = path
        else:
            flags = os.O_APPEND if channel.append or is_again else os.O_TRUNC
            ends.ours[name] = _open(path, os.O_WRONLY | os.O_CREAT | flags, undo)


def _open_handle(ends: Ends, name: str, target: Any, undo: ExitStack) -> None:
    """Reopen an open file without blocking where that can be done, so that its owner's flags stay as they are."""
    try:
        fd = target.fileno()
    except (AttributeError, OSError):
        ends.files[name] = target
        return
    if hasattr(target, "flush"):
        target.flush()
    mode = os.fstat(fd).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        ends.ours[name] = _open(f"/dev/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK, undo)
    else:
        ends.ours[name] = os.dup(fd)
        undo.callback(os.close, ends.ours[name])


def _open_output(
    ends: Ends,
    stream: str,
    destination: Destination | None,
    process_id: int,
    is_again: bool,
    undo: ExitStack,
    childs: ExitStack,
) -> None:
    if destination is None:
        reader, writer = os.pipe()
        undo.callback(os.close, reader)
        childs.callback(os.close, writer)
        os.set_blocking(reader, False)
        ends.outputs[stream] = reader
        ends.stdio.append(writer)
        return
    ends.outputs[stream] = -1
    if destination.kind == "discard":
        ends.stdio.append(_open(os.devnull, os.O_WRONLY, childs))
    else:
        ends.stdio.append(open_file(destination, process_id, is_again, childs))


def open_file(destination: Destination, process_id: int, is_again: bool, stack: ExitStack) -> int:
    """Open the file of an output."""
    path = os.fspath(destination.target).replace("{id}", str(process_id))
    flags = os.O_APPEND if destination.append or is_again else os.O_TRUNC
    return _open(path, os.O_WRONLY | os.O_CREAT | flags, stack)


def tie_to_host(lifeline: int, pid: int) -> None:
    """Let the kernel kill the group that `pid` leads when the other end of its lifeline is closed."""
    if lifeline < 0:
        return
    try:
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -pid)
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, 9)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    except OSError:  # it has ended already
        pass


class FifoOpening:
    """A thread that waits until a process opens its named pipe; opening is the only wait that nothing can watch.

    Args:
        path: of the pipe.
        on_open: called on that thread with our descriptor.
    """

    def __init__(self, path: str, on_open: Callable[[int], object]) -> None:
        self._path = path
        self._on_open = on_open
        self._lock = threading.Lock()  # guards the flag: a descriptor is handed on or closed, never both
        self._is_given_up = False
        self._thread = threading.Thread(target=self._run, name="venvoy-feed-fifo", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError:  # somebody removed it: its process waits in vain, and will be called stalled
            return
        with self._lock:
            if self._is_given_up:
                os.close(fd)
            else:
                self._on_open(fd)

    def give_up(self) -> None:
        """Let the thread end: be the reader it waits for."""
        with self._lock:
            self._is_given_up = True
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return
        self._thread.join()  # held open meanwhile, since the thread may not have come to its open yet
        os.close(fd)
