"""The template: imports what the pool wants, once, and forks a worker whenever the host asks for one.

Owns the control socket, which is all it reads once it is ready. Laws: it has one thread, since a fork copies no other;
it reaps a worker only when the host says so, so that until then the worker's number is no other process's; a worker's
descriptors are closed here as soon as it has been forked.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import errno
import faulthandler
import os
import sys

from ..contract import codec, frames, messages
from ..contract.channel import inherited
from ..contract.descriptors import DescriptorChannel
from . import control, greeting, preload, serve, stdio

_MARK = "VENVOY_WORKER"  # the variable by which the host finds what a worker has started


def main(arguments: list[str]) -> None:
    """Serve until the host closes the control socket; in each process forked here, be a worker.

    Args:
        arguments: as those of a worker.
    """
    template = Template(arguments)
    if template.greet():
        worker = template.serve()
        if worker is not None:
            serve.main(*worker)


class Template:
    """See the module.

    Args:
        arguments: as those of a worker.
    """

    def __init__(self, arguments: list[str]) -> None:
        call_fds = [int(fd) for fd in arguments[0].split(",")]
        control_fd, lifeline, page_fd = (int(fd) for fd in arguments[1:4])
        stdio.guard([*call_fds, control_fd, lifeline], page_fd)
        stdio.tie_to_host(lifeline)
        faulthandler.register(_signal.SIGURG, page_fd, all_threads=False)  # the host asks where a preload hangs
        self._call = inherited(call_fds)
        self._control = DescriptorChannel(_socket.socket(fileno=control_fd))
        self._line = control.Control(self._control, [], lambda call_id: None)  # for its writing; no thread
        self._on_child: Any = None  # what preload wants to be called with SIGCHLD

    def greet(self) -> bool:
        """Import what is to be imported; return True when workers can be forked."""
        return greeting.greet(self._call, self._call.send, self._line, self._prepare)

    def _prepare(self, settings: dict[str, Any]) -> dict[str, object]:
        greeting.settle(settings)
        reads = preload.run(settings["preload"])
        stdio.keep_standard()
        # Whatever preload has made of it: ignored, or waited for by others, there would be no exit status.
        self._on_child = _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        preload.freeze()
        return {"environment_read": reads}

    def serve(self) -> tuple[list[str], list[int]] | None:
        """Fork and reap as the host says; return None at the end, and in a forked worker arguments of `serve.main`."""
        frame = self._control.receive()
        while frame is not None:
            if frame.opcode == messages.FORK:
                worker = self._fork(frame)
                if worker is not None:
                    return worker
            elif frame.opcode == messages.REAP:
                self._reap(frame.call_id)
            frame = self._control.receive()
        return None

    def _fork(self, frame: Frame) -> tuple[list[str], list[int]] | None:
        wanted = codec.decode_frame(frame)
        fds = [fd for fd in self._control.take_descriptors() if fd is not None]
        number = flags = 0
        if len(fds) != wanted["descriptors"]:  # there was no room for them in this process
            number, flags = errno.EMFILE, messages.FLAG_FAILED
        else:
            stdio.flush()
            try:
                number = preload.fork()
            except OSError as error:
                number, flags = error.errno or errno.EAGAIN, messages.FLAG_FAILED
            if not number:
                self._become_worker(wanted)
                *ends, out, err = fds
                return [_renumbered(word, ends) for word in wanted["arguments"]], [out, err]
        for fd in fds:
            os.close(fd)
        self._line.send(frames.pack(messages.FORKED, flags, call_id=frame.call_id, number=number))
        return None

    def _become_worker(self, wanted: dict[str, Any]) -> None:
        """In a process just forked: have nothing of the template's that a worker must not have."""
        os.setsid()
        self._call.forget()  # their descriptors are closed, and the numbers may soon be others'
        self._control.forget()
        faulthandler.unregister(_signal.SIGURG)
        if self._on_child is not None:
            _signal.signal(_signal.SIGCHLD, self._on_child)
        for name in wanted["unset"]:
            os.environ.pop(name, None)
        os.environ.update(wanted["environ"])
        _set_mark(wanted["mark"])
        if "numpy.random" in sys.modules:  # `random` has seen to itself
            sys.modules["numpy.random"].seed()

    def _reap(self, pid: int) -> None:
        flags = 0
        try:
            status = os.waitpid(pid, 0)[1]
        except ChildProcessError:
            status, flags = 0, messages.FLAG_FAILED
        self._line.send(frames.pack(messages.REAPED, flags, call_id=pid, number=status))


def _renumbered(word: str, fds: list[int]) -> str:
    """Return an argument of the command line that has positions in a list of descriptors, with these in their place."""
    return ":".join([",".join([str(fds[int(place)]) for place in lane.split(",")]) for lane in word.split(":")])


def _set_mark(mark: str) -> None:
    """Let this worker, and what it starts, be found by a mark of its own instead of its template's.

    What /proc shows of a process is the memory that its environment was in when its program began, so the mark is
    written over there too; it is as long as the old one. Where this is not possible, processes that the worker forks
    and that leave its group are not found.
    """
    old = os.environ.get(_MARK, "")
    os.environ[_MARK] = mark
    try:
        fd = os.open("/proc/self/stat", os.O_RDONLY)
        fields = os.read(fd, 4096).rpartition(b")")[2].split()
        os.close(fd)
        start, end = int(fields[47]), int(fields[48])  # env_start, env_end; see proc(5)
        fd = os.open("/proc/self/mem", os.O_RDWR)
        place = os.pread(fd, end - start, start).find(("%s=%s\0" % (_MARK, old)).encode())
        if place >= 0 and len(old) == len(mark):
            os.pwrite(fd, mark.encode(), start + place + len(_MARK) + 1)
        os.close(fd)
    except (OSError, ValueError, IndexError):
        pass


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..contract.frames import Frame
