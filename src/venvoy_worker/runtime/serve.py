"""The worker: greet the host, import what the pool wants, then run one call after another on the main thread.

Owns the call channel. Laws: user code (unpickling, importing, the call, pickling) runs only inside the armed
region of `interrupt.run`; a reply is encoded whole before its first byte is written; whatever a call does, the
loop goes on.
"""

from __future__ import annotations

import _socket
import _thread
import mmap
import os
import sys
from _struct import Struct
from functools import partial
from time import perf_counter

from ..contract import codec, frames, messages
from ..contract.channel import Channel
from ..contract.descriptors import DescriptorChannel
from ..contract.failures import failure
from ..contract.reducers import Table
from . import control, interrupt, lent, records, replies, sources, stdio, targets
from .perform import microseconds_since, perform, report, resolve

_put_word = Struct("<Q").pack_into
_FINISHED = 8  # offset in the status page, after the word `started`


def main(arguments: list[str]) -> None:
    """Serve until the host closes the call channel.

    Args:
        arguments: descriptors of call channel (one socket, or two as "READ,WRITE"), control socket, lifeline and
            status page, as on the command line.
    """
    call_fds = [int(fd) for fd in arguments[0].split(",")]
    control_fd, lifeline, page_fd = (int(fd) for fd in arguments[1:])
    stdio.guard([*call_fds, control_fd, lifeline], page_fd)
    stdio.tie_to_host(lifeline)
    interrupt.install()
    page = mmap.mmap(page_fd, mmap.PAGESIZE)
    server = Server(Channel(*[_socket.socket(fileno=fd) for fd in call_fds]), page)
    line = control.Control(DescriptorChannel(_socket.socket(fileno=control_fd)), server.send)
    line.start()
    if server.greet(line):
        server.serve()


class Server:
    """The call channel's side of the worker.

    Args:
        channel: the call channel; read by the main thread only.
        page: the status page shared with the host: `started`, `finished`, eight bytes each.
    """

    def __init__(self, channel: Channel, page: mmap.mmap) -> None:
        self._channel = channel
        self._page = page
        self._write_lock = _thread.allocate_lock()  # one frame at a time; the control thread writes RETRACTED

    def send(self, pieces: Pieces) -> None:
        """Write one frame; safe from any thread."""
        with self._write_lock:
            self._channel.send(pieces)

    def greet(self, line: control.Control) -> bool:
        """Answer HELLO with READY or with the error that stands in the way; return True when ready."""
        capabilities = messages.capabilities()
        try:
            frame = self._channel.receive()
            if frame is None:
                return False
            oldest, newest, abilities = messages.read_greeting(frame.target)
            if not oldest <= frames.PROTOCOL_VERSION <= newest:
                self._refuse(oldest, newest)
                return False
            settings = codec.decode_frame(frame)
            if settings.get("log_levels") is not None:
                records.relay(line.send_record, settings["log_levels"])
            if "segments" in abilities and "segments" in capabilities:
                self._channel.parser.borrower = lent.open_line(line, settings["segments"])
            interrupt.run(0, _prepare, (settings,), {})
        except BaseException as error:
            self._fail_to_start(error)
        stdio.leave_if_forked()
        stdio.flush()
        pieces, _ = codec.encode(_facts())
        target = messages.greeting(frames.OLDEST_PROTOCOL, frames.PROTOCOL_VERSION, capabilities)
        self.send(frames.pack(messages.READY, codec=codec.PICKLE, target=target, body=pieces))
        return True

    def _refuse(self, oldest: int, newest: int) -> None:
        text = "the host speaks protocol %d to %d, this worker %d to %d" % (
            oldest,
            newest,
            frames.OLDEST_PROTOCOL,
            frames.PROTOCOL_VERSION,
        )
        self._send_error(0, failure("protocol_error", text))

    def _fail_to_start(self, error: BaseException) -> None:
        stdio.leave_if_forked()
        stdio.flush()
        self._send_error(0, report(error))
        os._exit(1)  # threads of a module half imported must not keep the process

    def serve(self) -> None:
        """Run calls until the host closes the channel."""
        receive = self._channel.receive
        frame = receive()
        while frame is not None:
            if frame.opcode == messages.CALL:
                self._call(frame)
            elif frame.opcode == messages.DEFINE:
                _define(frame)
            frame = None  # an argument must not live until the next call
            if lent.by_host:
                lent.give_back()  # an error's traceback had it
            frame = receive()

    def _call(self, frame: Frame) -> None:
        call_id = frame.call_id
        if not control.claim(call_id):
            return  # the control thread has told the host so
        begin = perf_counter()
        _put_word(self._page, 0, call_id)
        try:
            pieces = interrupt.run(call_id, perform, (frame, begin), {})
        except BaseException as error:
            stdio.leave_if_forked()
            stdio.flush()
            _put_word(self._page, _FINISHED, call_id)
            lent.take_back(call_id)
            self._send_error(call_id, report(error), interrupt.is_dirty(error), begin, frame)
            return
        stdio.leave_if_forked()
        stdio.flush()
        _put_word(self._page, _FINISHED, call_id)
        if lent.by_host:
            lent.give_back()
        self.send(pieces)  # type: ignore[arg-type]

    def _send_error(
        self,
        call_id: int,
        problem: dict[str, object],
        is_dirty: bool = False,
        begin: float | None = None,
        call: Frame | None = None,
    ) -> None:
        flags = messages.FLAG_DIRTY if is_dirty else 0
        number = 0 if begin is None else microseconds_since(begin)
        limit = None if call is None else replies.limit_of(call.flags, call.target)[0]
        pieces = replies.encode_report(problem, limit)
        self.send(frames.pack(messages.ERROR, flags, codec.PICKLE, call_id=call_id, number=number, body=pieces))


def _prepare(settings: Settings) -> None:
    """Do what the pool asks for before a worker is ready."""
    if settings["sys_path"] is not None:
        sys.path[:] = settings["sys_path"]
    sys.path[:0] = settings["paths"]
    is_home = settings["is_home"]
    codec.use(Table(is_home, not is_home, tuple(settings["classes"]), tuple(settings["paths"])))
    targets.configure(settings["module"], settings["sources_folder"], settings["host_version"])
    if settings["module"]:
        targets.import_module(settings["module"])
    for number, (text, place) in enumerate(settings["sources"], 1):
        sources.add(number, text, place)
    if settings["initializer"] is not None:
        kind, name, definition, body = settings["initializer"]
        if definition is not None:
            digest, encoded = definition
            targets.define([digest], partial(codec.decode, encoded, []))
        arguments = codec.decode(body, [])
        resolve(kind, name)(*arguments[0], **arguments[1])


def _define(frame: Frame) -> None:
    """Remember a text for the calls after it; nothing is decoded or run before one of them begins."""
    if frame.flags & messages.FLAG_SHARED:
        sources.pending.append(lambda: (frame.number, *codec.decode_frame(frame)))
    else:
        targets.define(frame.target.decode().split(" "), partial(codec.decode_frame, frame))


def _facts() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "version": sys.version.split()[0],
        "implementation": sys.implementation.name,
        "executable": sys.executable,
        "prefix": sys.prefix,
        "platform": sys.platform,
    }


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Union

    from ..contract.frames import Frame

    Settings = Dict[str, Any]
    Pieces = List[Union[bytes, bytearray, memoryview]]
