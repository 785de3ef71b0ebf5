"""One lane of a worker: a call channel of its own, with one call at a time on it.

Owns its state and the ids of the calls on its channel. A worker has as many lanes as it runs calls at once, usually
one. Laws: `move` is called under the engine's lock; an illegal move raises; the call channel is read by whoever holds
the lane (BUSY: a driver, ABANDONED and STARTING: the collector) and closed by the holder, or by the collector where
there is none.
"""

from __future__ import annotations

import fcntl
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from venvoy_worker.contract import codec, messages
from venvoy_worker.contract.borrowing import Borrowed
from venvoy_worker.contract.channel import Channel
from venvoy_worker.contract.frames import LANE_SHIFT, Frame, FrameError
from venvoy_worker.contract.loans import Loans

from ..collector import Collector
from ..errors import EncodingError, ProtocolError
from ..exchange import Call, Pieces, SourceMemory, ends
from .road import Road
from .state import MOVES, Reason, State
from .talk import Answers, Talk

if TYPE_CHECKING:
    from .worker import Worker

_WEIGHT = 0.2  # of the newest call in the moving average


class Lane:
    """See the module.

    Args:
        worker: whose it is.
        index: its place among the worker's; the ids of its calls begin with it.
    """

    channel: Channel  # from `open()` on
    capacity: int  # bytes of requests that are surely taken at once where none is on its way

    def __init__(self, worker: Worker, index: int, collector: Collector) -> None:
        self.worker = worker
        self.index = index
        self.state = State.STARTING
        self.mean_seconds: float | None = None  # of recent calls, as the worker measured them
        self.call_name = ""  # the target of the call that was begun last
        self.last_id = self.last_outer = index << LANE_SHIFT  # of all calls, and of those that run in no other
        self.open_call = 0  # the call that a blocked caller has begun here and not seen the end of
        self.sent_ahead: list[int] = []  # calls besides that one, when they are given up together
        self._sends_before = 0  # of the channel, when it was begun
        self.direct: object = None  # the job of `pool.direct` that is on it
        self.is_lost = False  # its call has not stopped in time
        self.is_cut = False  # by us, while the worker may go on for others
        self.is_attributed = False  # what is printed meanwhile is to be known as the call's
        self.news: deque[Pieces] = deque()  # to be said before the next call, from whatever thread
        self._loans: Loans | None = None
        self.answers = Answers(None, index)
        self._lent: list[Borrowed] = []  # segments of the worker that are, or were, in use here
        self.sources = SourceMemory()
        self._collector = collector
        self.road = Road(self, collector)
        self.talk = Talk(worker.listener.responder)

    # --- from start to exit -----------------------------------------------------------------

    def open(self, channel: Channel, is_attributed: bool) -> None:
        """Call on this channel."""
        self.channel, self.is_attributed = channel, is_attributed
        self.capacity = _capacity(channel.fileno_to_write())
        self.talk.is_uninterruptible = self.worker.recipe.options.concurrency > 1

    def expect(self, loans: Loans | None) -> None:
        """On the collector thread: the worker is ready; `lane_answered` is told from now on, where it is armed.

        Args:
            loans: the memory that is shared with it, if any can be.
        """
        self.channel.parser.last = None  # its greeting
        if loans is not None:
            self._loans, self._lent = loans, loans.borrower.lent
            self.answers = Answers(loans, self.index)
            self.channel.parser.borrower = loans.borrower
        self._collector.expect(self.channel.fileno(), partial(self.worker.listener.lane_answered, self))

    def end(self) -> None:
        """On the collector thread: the process is gone."""
        self.road.leave()
        self._collector.unexpect(self.channel.fileno())
        self._collector.unwatch(self.channel.fileno())  # an abandoned call's
        self.channel.shut()  # whoever reads wakes, even if a forked process holds the other end
        self.worker.listener.lane_answered(self)  # nor does anything come then for which nobody waits

    # --- state and calls ------------------------------------------------------------------

    def arm(self) -> None:
        """Let `lane_answered` be told, once, when its reply comes.

        Raises:
            OSError, ValueError: it is gone.
        """
        self._collector.arm(self.channel.fileno())

    def disarm(self) -> None:
        """Undo `arm`; the listener may still be told.

        Raises:
            OSError, ValueError: it is gone.
        """
        self._collector.disarm(self.channel.fileno())

    def move(self, state: State, reason: Reason | None = None) -> None:
        """Change the state, under the engine's lock.

        Args:
            reason: why the worker ends, unless there is one already.

        Raises:
            RuntimeError: the table does not allow it, which is a defect of venvoy.
        """
        if state not in MOVES[self.state]:
            raise RuntimeError(f"{self!r}: illegal move from {self.state.name} to {state.name}")
        self.state = state
        if reason is not None and self.worker.reason is None:
            self.worker.reason = reason

    def begin(self, call: Call, is_nested: bool = False) -> tuple[int, Pieces]:
        """Give a call its id here; return it and the pieces to be written.

        Args:
            is_nested: it runs within the open call, which stays the one that is settled when its driver leaves.

        Raises:
            EncodingError: its source text or its target does not fit into a frame.
        """
        call_id = self.last_id = self.last_id + 1
        if not is_nested:
            if self.channel.written:
                self.channel.note()
            self.open_call = self.last_outer = call_id  # no call between these two, see `engine`
            self._sends_before = self.channel.sends
            self.call_name = call.name
        if self._lent and self._loans is not None:
            self._loans.borrower.give_back()
        try:
            pieces = call.request(call_id, self._loans, messages.FLAG_NESTED if is_nested else 0)
            if call.definition is not None:
                pieces = self.sources.pieces_for(call.definition) + pieces
            if self.news:
                pieces = self._with_news(pieces)
        except (FrameError, codec.CodecError) as error:
            if not is_nested:
                self.open_call = 0
            raise EncodingError(f"{call.name[:200]}: {error}") from error
        if self.is_attributed and not is_nested:
            self.worker.authors.begin(call_id, call.name)
        return call_id, pieces

    def _with_news(self, pieces: Pieces) -> Pieces:
        said: Pieces = []
        while self.news:
            said += self.news.popleft()
        return said + pieces

    def run(self, call: Call) -> Frame:
        """Run a call and wait for its reply in this thread: the blocking driver.

        Raises:
            TimeoutError: the call's deadline passed. The lane has to be settled then, as after any error.
            WorkerLost: the worker is gone, or this channel is broken.
        """
        call_id, pieces = self.begin(call)
        channel, deadline = self.channel, call.deadline
        try:
            channel.send(pieces, deadline)
            while True:
                frame = channel.receive(deadline)
                if frame is None:
                    raise WorkerLost(self, call, call_id)
                is_result = frame.opcode == messages.RESULT and frame.call_id == call_id  # the usual case
                if not is_result and not ends(frame, call_id, self.last_id):
                    frame = self.talk.hear(frame, call, call_id, self)
                if frame is not None:
                    call.reply = frame
                    self.open_call = 0
                    channel.parser.last = None
                    self.worker.durations.append(frame.number)
                    if self.is_attributed:
                        self.worker.authors.end(self.worker.process.outputs.values())
                    return frame
        except TimeoutError:
            raise
        except (OSError, FrameError, ProtocolError) as error:
            raise WorkerLost(self, call, call_id) from error

    @property
    def was_sent(self) -> bool:
        """True when the call that was begun last has been written, by a thread that may have been interrupted then."""
        return self.channel.is_whole or self.channel.sends > self._sends_before

    def take_back(self) -> None:
        """On the collector thread: the call that was begun last was not sent, and never will be."""
        if self._loans is not None and self.open_call:
            self._loans.lender.take_back(self.open_call)

    @property
    def has_served(self) -> bool:
        """True when a call has been begun here."""
        return self.last_id != self.index << LANE_SHIFT

    @property
    def started(self) -> int:
        """The id of the newest call here whose code began to run."""
        return self.worker.page.started(self.index)

    def note_duration(self, frame: Frame) -> float:
        """Return the seconds that a call took in the worker, as its reply says; they go into `mean_seconds`."""
        self.worker.durations.append(frame.number)
        if self.is_attributed:
            self.worker.authors.end(self.worker.process.outputs.values())
        seconds, mean = frame.number * 1e-6, self.mean_seconds
        self.mean_seconds = seconds if mean is None else mean + _WEIGHT * (seconds - mean)
        return seconds

    # --- stopping -------------------------------------------------------------------------

    def cancel(self) -> None:
        """Ask the call that runs now to stop."""
        self.worker.control.say(messages.CANCEL, self.started)

    def stop_call(self, call_id: int) -> None:
        """Stop a call of this lane; see `Road`."""
        self.road.stop(call_id)

    def abandon_call(self, is_to_stop: bool) -> None:
        """On the collector thread: see to the call whose driver left; see `Road`."""
        self.road.abandon(is_to_stop)

    def cut(self) -> None:
        """A request was written in part, and nothing more can be said: end the channel, and so the worker."""
        self.worker.reason = self.worker.reason or Reason.DRAINED
        if len(self.worker.lanes) == 1:
            self.worker.process.kill_tree()
        else:
            self.is_cut = True
            self.channel.shut()

    def __repr__(self) -> str:
        return f"<lane {self.index} of worker {self.worker.id}, {self.state.value}>"


def _capacity(fd: int) -> int:
    try:
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) // 2  # small, of a user who has very many pipes
    except OSError:  # it is a socket
        return 1 << 16


class WorkerLost(Exception):
    """The worker that ran a call is gone: an event for the pool, which retries the call or makes an error of it."""

    def __init__(self, lane: Lane, call: Call, call_id: int) -> None:
        super().__init__(lane)
        self.lane = lane
        self.worker = lane.worker
        self.call = call
        self.call_id = call_id

    @property
    def started(self) -> bool:
        """False when the call's code cannot have run."""
        return self.lane.started >= self.call_id

    @property
    def is_bystander(self) -> bool:
        """True when the call's code cannot have run, and that of another was running."""
        page = self.worker.page
        return not self.started and any(page.finished(lane.index) < lane.started for lane in self.worker.lanes)
