"""Processes that a worker started and that have left its group: found through /proc, killed after an identity check.

Every worker has a mark of its own in its environment, which what it starts inherits. Owns the marks of workers that
have ended and a short-lived thread that looks for them. Laws: nothing is killed but a process that has the mark, or was
seen as a descendant while the worker lived, and that is still the same process (its start time) once a descriptor of
it is held; the walk is made on no other thread than its own. Where there is no /proc or no pidfd, only the group
is ended. A process that is to outlive its worker takes `VENVOY_WORKER` out of its environment.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import NamedTuple

from ..log import logger

VARIABLE = "VENVOY_WORKER"
_IS_POSSIBLE = os.path.isdir("/proc/self/task") and hasattr(signal, "pidfd_send_signal")
_MOST_WALKS = 20  # for one batch, while there is always somebody new
_GROUP, _STARTED = 2, 19  # fields of /proc/PID/stat, counted from the state; see proc(5)


class Identity(NamedTuple):
    """A process, and no later one of the same number."""

    pid: int
    started: int  # in clock ticks since the machine was started


def new_mark() -> tuple[str, str]:
    """Return a fresh mark and the value of the variable: it is behind those of workers that this host runs in."""
    mark = os.urandom(8).hex()
    return mark, "/".join(filter(None, [os.environ.get(VARIABLE, ""), mark]))


def identify(pid: int) -> Identity | None:
    """Return the identity of a process that there is, even if it only waits to be reaped."""
    fields = _stat(pid)
    return Identity(pid, int(fields[_STARTED])) if fields else None


def outside_of_group(pid: int) -> list[Identity]:
    """Return the descendants of a living worker that a signal to its group would miss, eldest first."""
    found = []
    parents = [pid] if _IS_POSSIBLE else []
    for parent in parents:  # which grows meanwhile
        for child in _children(parent):
            fields = _stat(child)
            if fields and int(fields[_GROUP]) != pid:
                found.append(Identity(child, int(fields[_STARTED])))
            parents.append(child)
    return found


def kill(strays: list[Identity]) -> None:
    """Kill those that are still the same processes."""
    for stray in strays:
        _kill(stray, mark=b"")


def _children(pid: int) -> list[int]:
    """Return the children of all threads of a process; none where the kernel has no such list."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    except OSError:
        pass
    return found


def _stat(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat from the state on; the name before them may have any characters."""
    try:
        return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return []


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [os.read(fd, 65_536)]
        while len(parts[-1]) == 65_536:
            parts.append(os.read(fd, 65_536))
        return b"".join(parts)
    finally:
        os.close(fd)


def _has_mark(pid: int, mark: bytes) -> bool:
    try:
        return any(
            variable.startswith(VARIABLE.encode() + b"=") and mark in variable
            for variable in _read(f"/proc/{pid}/environ").split(b"\0")
        )
    except OSError:  # gone, or somebody else's
        return False


def _kill(stray: Identity, mark: bytes) -> bool:
    """Kill a process if it is still this one and has the mark; return True if it was."""
    try:
        fd = os.pidfd_open(stray.pid)
    except OSError:
        return False
    try:
        if identify(stray.pid) != stray or not (not mark or _has_mark(stray.pid, mark)):
            return False
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


# --- the walk through all processes --------------------------------------------------------------

_lock = threading.Lock()  # guards the two below; nothing else under it
_ended: dict[str, int] = {}  # mark -> when the worker that had it was started
_walker: threading.Thread | None = None


def sweep(mark: str, worker: Identity | None) -> None:
    """Soon kill whatever has the mark of a worker that is gone."""
    global _walker
    if not _IS_POSSIBLE or worker is None:
        return
    with _lock:
        _ended[mark] = worker.started
        if _walker is not None:
            return
        _walker = threading.Thread(target=_walk_all, name="venvoy-strays", daemon=True)
        walker = _walker
    try:
        walker.start()
    except RuntimeError:  # no thread to be had, or the interpreter is exiting
        _walk_all()


def walker() -> threading.Thread | None:
    """Return the thread that is at work now, to be joined by whoever must not leave before it has ended."""
    return _walker


def _walk_all() -> None:
    global _walker
    while True:
        with _lock:
            marks = dict(_ended)
            _ended.clear()
            if not marks:
                _walker = None
                return
        try:
            for _ in range(_MOST_WALKS):  # until there is none: they may be starting others meanwhile
                if not _walk({mark.encode(): started for mark, started in marks.items()}):
                    break
        except Exception:  # a defect of ours: the next worker's strays must not be left alone for it
            logger.exception("internal error while looking for processes of ended workers")


def _walk(marks: dict[bytes, int]) -> int:
    """Kill every process with one of the marks; return how many there were."""
    oldest, own, uid, killed = min(marks.values()), os.getpid(), os.geteuid(), 0
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == own:
            continue
        fields = _stat(int(name)) if uid == 0 or _is_of(name, uid) else []
        if not fields or int(fields[_STARTED]) < oldest or fields[0] in (b"Z", b"X"):
            continue
        stray = Identity(int(name), int(fields[_STARTED]))
        killed += any(_has_mark(stray.pid, mark) and _kill(stray, mark) for mark in marks)
    return killed


def _is_of(name: str, uid: int) -> bool:
    try:
        return os.stat(f"/proc/{name}").st_uid == uid
    except OSError:
        return False


def _after_fork_in_child() -> None:
    global _lock, _walker
    _lock, _walker = threading.Lock(), None
    _ended.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
