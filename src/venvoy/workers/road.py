"""The one road on which a call is stopped, whoever wants it: deadline, cancellation, Ctrl-C, the end of a lease.

Cancel now, once more after a quarter of the grace period; at its end the call costs the worker. Owns the timers of
that, and the reading of a channel whose driver has left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from venvoy_worker.contract import messages
from venvoy_worker.contract.channel import PIPE_SIZE
from venvoy_worker.contract.frames import Frame, FrameError

from ..collector import Collector, Timers
from ..processes.posix import resize_if_pipe
from .state import Reason, State

if TYPE_CHECKING:
    from .lane import Lane

_EXIT_SECONDS = 1.0  # how long a worker whose channel broke may take to be seen exiting


class Road:
    """See the module.

    Args:
        lane: whose calls are stopped.
    """

    def __init__(self, lane: Lane, collector: Collector) -> None:
        self._lane = lane
        self._collector = collector
        self._timers = Timers(collector)
        self._then: Callable[[Frame | None], object] | None = None  # what comes when all has been thrown away
        self._stopping = 0  # the call that was stopped last
        self._pending: set[int] = set()  # calls whose ends are to be thrown away before

    def stop(self, call_id: int) -> None:
        """Cancel a call, and see to it that it ends."""
        worker = self._lane.worker
        grace, newest = worker.recipe.grace_period, self._lane.last_id
        self._stopping = call_id
        worker.control.say(messages.CANCEL, call_id)
        self._timers.later(grace / 4, lambda: self._insist(call_id, newest, is_last=False))
        self._timers.later(grace, lambda: self._insist(call_id, newest, is_last=True))

    def leave(self) -> None:
        """The process is gone: forget what was to be done later."""
        self._timers.drop()
        then, self._then = self._then, None
        if then is not None:
            then(None)

    def _is_running(self, call_id: int, newest: int) -> bool:
        """Return True if a call runs, or one within it.

        Args:
            newest: the last that may do so, if it is itself within another: nobody answers for it any more.
        """
        lane, started = self._lane, self._lane.started
        if not lane.worker.page.finished(lane.index) < call_id <= started:
            return False
        if call_id == started:
            return True
        # A newer call runs: within this one, or after it. One that was taken back, or ran within another, is never
        # said to have finished.
        return started <= newest if call_id > lane.last_outer else call_id == lane.last_outer

    def _insist(self, call_id: int, newest: int, is_last: bool) -> None:
        lane = self._lane
        is_running = self._is_running(call_id, newest)
        if not is_last and is_running:
            lane.worker.control.say(messages.CANCEL, call_id)
        if is_last and (is_running or (lane.state is State.ABANDONED and call_id in self._pending)):
            self._lose()

    def _lose(self) -> None:
        """Code runs here that does not obey: the worker has to end, at once if nobody else needs it."""
        worker = self._lane.worker
        if len(worker.lanes) == 1:
            worker.process.kill_tree()
        else:
            worker.listener.lane_lost(self._lane)

    def abandon(self, is_to_stop: bool) -> None:
        """On the collector thread: stop the call whose driver left, if it is to stop, and read until it has ended."""
        lane, call_id = self._lane, self._lane.open_call
        lane.talk.forget()
        if is_to_stop:
            self.stop(call_id)
        if lane.state is State.ABANDONED:
            self._discard({call_id, *lane.sent_ahead}, self._free)

    def drain(self, call_id: int, then: Callable[[], object]) -> None:
        """Let the collector thread stop a call, read until it has ended, and then tell the holder. Takes no lock."""
        self._collector.call_soon(lambda: self._drain(call_id, then))

    def _drain(self, call_id: int, then: Callable[[], object]) -> None:
        lane = self._lane
        if lane.state is State.BUSY and call_id and lane.open_call == call_id and lane.was_sent:
            if self._then is None:  # else it was asked for before
                self.stop(call_id)
                self._discard({call_id}, lambda frame: then())
        else:  # it has ended, was never sent, or the lane, too, was let go meanwhile
            then()

    def _discard(self, call_ids: set[int], then: Callable[[Frame | None], object]) -> None:
        """Read and throw away what comes up to the replies to some calls; None is for a broken channel."""
        fd = self._lane.channel.fileno()
        self._collector.unwatch(fd)  # a drain that the lane's holder did not wait for
        self._collector.watch(fd, self._on_discard)
        self._pending, self._lane.sent_ahead = call_ids, []
        self._then = then
        self._on_discard()  # the reply may be here, and no byte more will come

    def _on_discard(self) -> None:
        lane = self._lane
        frame = lane.channel.parser.last  # that the driver may not have got to see
        try:
            while frame is None or not self._is_last(frame):
                frame = lane.channel.try_receive()
                if frame is None:
                    return
                if frame.opcode == messages.ASK and not lane.talk.refuse(frame, lane.channel):
                    self._lose()  # it has not read for very long
        except (EOFError, OSError, FrameError):
            self._collector.unwatch(lane.channel.fileno())
            self._timers.later(_EXIT_SECONDS, lane.worker.process.kill_tree)  # usually it is exiting already
            return
        self._collector.unwatch(lane.channel.fileno())
        self._timers.drop()
        lane.channel.parser.last = None
        lane.open_call = 0
        resize_if_pipe(lane.channel.fileno(), PIPE_SIZE)  # a stream may have widened it
        if lane.is_attributed:
            lane.worker.authors.end(lane.worker.process.outputs.values())
        if frame.opcode == messages.RESULT and frame.flags & messages.FLAG_REFERENCE:
            lane.worker.control.say(messages.RELEASE, body=frame.target)  # nobody will ever have these
        then, self._then = self._then, None
        if then is not None:
            then(frame)

    def _is_last(self, frame: Frame) -> bool:
        """Take note of a frame; return True if nothing more is to come of the calls that were given up."""
        lane, pending = self._lane, self._pending
        if frame.opcode == messages.RETRACTED:
            pending.difference_update(messages.read_ids(frame.body))
        elif frame.opcode in messages.TERMINAL and frame.call_id in pending:
            pending.discard(frame.call_id)
            if pending and frame.flags & messages.FLAG_DIRTY:
                lane.worker.reason = lane.worker.reason or Reason.DRAINED
        else:
            return False
        first = min(pending, default=0)
        if first and first != self._stopping:
            self.stop(first)  # it begins now if it cannot be taken back
        return not pending

    def _free(self, frame: Frame | None) -> None:
        if frame is not None:
            self._lane.worker.listener.lane_freed(self._lane, not frame.flags & messages.FLAG_DIRTY)
