"""The worker: greet the host, then run one call after another on the main thread.

Owns the call channel. Laws: user code (unpickling, importing, the call, pickling) runs only inside the armed
region of `interrupt.run`; a reply is encoded whole before its first byte is written; whatever a call does, the
loop goes on.
"""

from __future__ import annotations

import _socket
import _thread
import mmap
from _struct import Struct
from functools import partial
from time import perf_counter

from ..contract import codec, frames, host_functions, messages
from ..contract.channel import Channel, inherited
from ..contract.descriptors import DescriptorChannel
from . import control, greeting, interrupt, lent, replies, sources, stdio, targets
from .line import Line
from .perform import disown_result, microseconds_since, perform, report

_put_word, _get_word = Struct("<Q").pack_into, Struct("<Q").unpack_from
_WORDS = 16  # bytes in the status page for each lane: `started` and `finished`


def main(arguments: list[str], outputs: list[int] | None = None) -> None:
    """Serve until the host closes the call channel.

    Args:
        arguments: descriptors of call channel (a socket, or two descriptors as "READ,WRITE"; several channels are
            separated by colons), control socket, lifeline and status page, as on the command line.
        outputs: descriptors of stdout and stderr, in a worker that a template has forked.
    """
    lane_fds = [[int(fd) for fd in lane.split(",")] for lane in arguments[0].split(":")]
    control_fd, lifeline, page_fd = (int(fd) for fd in arguments[1:])
    private = [*(fd for lane in lane_fds for fd in lane), control_fd, lifeline]
    if outputs is None:
        stdio.guard(private, page_fd)
    else:
        stdio.guard_anew(private, page_fd, outputs)
    stdio.tie_to_host(lifeline)
    interrupt.install()
    page = mmap.mmap(page_fd, mmap.PAGESIZE)
    calls: Any = interrupt
    if len(lane_fds) > 1:
        from . import lanes  # start-up time: it brings asyncio along

        lanes.open_loop()
        calls = lanes
    channels = [inherited(fds) for fds in lane_fds]
    host_functions.lines.clear()  # of the template that this was forked from
    servers = [Server(channel, page, index, calls) for index, channel in enumerate(channels)]
    replies_to = [server.send for server in servers]
    line = control.Control(DescriptorChannel(_socket.socket(fileno=control_fd)), replies_to, calls.request)
    line.start()
    prepare = greeting.prepare_spawned if outputs is None else greeting.prepare_forked
    if not greeting.greet(channels[0], servers[0].send, line, prepare):
        return
    if len(servers) == 1:
        servers[0].serve()
        return
    for channel in channels:
        channel.parser.borrower = channels[0].parser.borrower
    lanes.serve([server.serve for server in servers])


class Server:
    """A call channel's side of the worker.

    Args:
        channel: the call channel; read by one thread only, which is the main one where there is one channel.
        page: the status page shared with the host: `started`, `finished`, eight bytes each, for each lane.
        lane: the number of the channel.
        calls: the module that runs a function as a call: `interrupt` or `lanes`.
    """

    def __init__(self, channel: Channel, page: mmap.mmap, lane: int, calls: Any) -> None:
        self._channel = channel
        self._page = page
        self._lane = lane
        self._started = lane * _WORDS
        self._finished = lane * _WORDS + _WORDS // 2
        self._run = calls.run
        self._run_within = calls.run_within
        self._write_lock = _thread.allocate_lock()  # one frame at a time; the control thread writes RETRACTED
        self._line = Line(channel, self.send, self._call_within, calls.is_open)
        host_functions.lines.append(self._line)

    def send(self, pieces: Pieces) -> None:
        """Write one frame; safe from any thread."""
        with self._write_lock:
            self._channel.send(pieces)

    def serve(self) -> None:
        """Run calls until the host closes the channel."""
        receive, line = self._channel.receive, self._line
        frame = receive()
        while frame is not None:
            if frame.opcode == messages.CALL:
                self._call(frame)
                if interrupt.chores:
                    interrupt.do_chores()
            elif frame.opcode == messages.DEFINE:
                _define(frame, self._lane)
            frame = None  # an argument must not live until the next call
            if lent.by_host:
                lent.give_back()  # an error's traceback had it
            frame = line.next_frame() if line.is_used else receive()

    def _call(self, frame: Frame) -> None:
        call_id = frame.call_id
        if not control.claim(call_id):
            return  # the control thread has told the host so
        begin = perf_counter()
        _put_word(self._page, self._started, call_id)
        try:
            pieces = self._run(call_id, perform, (frame, begin), {})
        except BaseException as error:
            stdio.leave_if_forked()
            stdio.flush()
            if self._line.is_used:
                self._line.end(call_id)
            _put_word(self._page, self._finished, call_id)
            disown_result(frame)
            lent.take_back(call_id)
            self._send_error(call_id, report(error), interrupt.is_dirty(error), begin, frame)
            return
        stdio.leave_if_forked()
        stdio.flush()
        if self._line.is_used:
            self._line.end(call_id)
        _put_word(self._page, self._finished, call_id)
        if lent.by_host:
            lent.give_back()
        self.send(pieces)

    def _call_within(self, frame: Frame) -> None:
        """Run a call that the host makes while it answers a question of another, on the thread that waits there."""
        call_id, begin = frame.call_id, perf_counter()
        (outer,) = _get_word(self._page, self._started)
        _put_word(self._page, self._started, call_id)
        problem = None
        try:
            pieces = self._run_within(call_id, perform, (frame, begin))
        except BaseException as error:
            problem = report(error)
        stdio.leave_if_forked()
        stdio.flush()
        self._line.end(call_id)
        if problem is None:
            self.send(pieces)
        else:
            disown_result(frame)
            lent.take_back(call_id)
            self._send_error(call_id, problem, False, begin, frame)
        _put_word(self._page, self._started, outer)

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


def _define(frame: Frame, lane: int) -> None:
    """Remember a text for the calls after it; nothing is decoded or run before one of them begins."""
    if frame.flags & messages.FLAG_SHARED:
        sources.pending.append(lambda: (frame.number, *codec.decode_frame(frame)))
    else:
        targets.define(frame.target.decode().split(" "), partial(codec.decode_frame, frame), lane)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Union

    from ..contract.frames import Frame

    Pieces = List[Union[bytes, bytearray, memoryview]]
