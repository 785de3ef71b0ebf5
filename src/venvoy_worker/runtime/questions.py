"""What the running call asks of the host, and who reads the answers.

Owns the questions that wait and the right to read the call channel while there are any. Laws: one thread reads at a
time, the *leader*: whoever waits and finds nobody reading. It hands each frame to whom it is for; a leader that has its
answer appoints another that waits. A CALL that is nested runs on the main thread if that waits, else on the thread that
read it; another CALL is kept for the main loop. A question whose call has ended or whose thread was interrupted is
forgotten, and its answer is discarded.
"""

from __future__ import annotations

import _thread
import select
from functools import partial

import venvoy_worker as _face

from ..contract import codec, frames, messages
from . import host_errors, interrupt, lent, stdio, targets


class _Question:
    """What one thread waits for."""

    __slots__ = ("answer", "call_id", "calls", "event", "is_busy", "is_main", "is_over", "number")

    def __init__(self, call_id: int, number: int) -> None:
        self.call_id = call_id
        self.number = number
        self.answer: Frame | None = None
        self.is_over = False  # no answer will come
        self.calls: list[Frame] = []  # nested ones, that this thread is to run
        self.is_main = _thread.get_ident() == interrupt.main_thread()
        self.is_busy = False  # with a nested call
        self.event = _thread.allocate_lock()  # locked while there is nothing to wake up for
        self.event.acquire()

    @property
    def is_idle(self) -> bool:
        """True when it has nothing to do but to wait."""
        return self.answer is None and not self.is_over and not self.is_busy

    def wake(self) -> None:
        """Under the lock of the desk."""
        if self.event.locked():
            self.event.release()


class Questions:
    """See the module.

    Args:
        channel: the call channel.
        send: writes a frame on it, from any thread.
        run_call: runs a nested call, on the thread that calls it.
        is_open: says whether a call runs, or waits for others that run within it.
    """

    def __init__(
        self,
        channel: Channel,
        send: Callable[[Pieces], None],
        run_call: Callable[[Frame], None],
        is_open: Callable[[int], bool],
    ) -> None:
        self._is_open = is_open
        self._channel = channel
        self._send = send
        self._run_call = run_call
        self._poll = select.poll()
        self._poll.register(channel.fileno(), select.POLLIN)
        self._lock = _thread.allocate_lock()  # guards all below; nothing blocks under it
        self._waiting: dict[int, _Question] = {}  # by number
        self._kept: list[Frame] = []  # calls for the main loop
        self._leader: _Question | None = None
        self._loop: _Question | None = None  # the main loop, while it waits for a leader to hand it a call
        self._newest = 0
        self._is_closed = False  # the host says no more
        self.is_in_use = False  # the main loop has to look here for its next call

    # --- asking -----------------------------------------------------------------------------------

    def ask(self, name: str | int, call_id: int, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """From any thread: call a function of the host's and return what it returns.

        Args:
            name: what it is exposed by, or its number among the functions that came with the arguments.
            call_id: whose arguments; 0 for the call that runs.

        Raises:
            RuntimeError: the call has ended, or none runs. Besides this, what the function raises.
        """
        passed = call_id != 0
        call_id = call_id or self._running()
        if not call_id or not self._is_open(call_id) or stdio.is_fork():
            raise _ended(name, passed)
        if lent.by_host:  # what came with earlier answers, and was dropped since
            lent.give_back()
        body, buffers = lent.place(lent.FOR_GOOD, *codec.encode((args, kwargs)))
        flags, target = messages.FLAG_PASSED if passed else 0, str(name).encode()
        pack = partial(frames.pack, messages.ASK, flags, codec.PICKLE, 0, call_id, target=target, body=body)
        answer = interrupt.shielded(self._exchange, call_id, partial(pack, buffers=buffers))
        if answer is None:
            raise _ended(name, passed)
        value = codec.decode_frame(answer)  # type: ignore[arg-type]
        if answer.flags & messages.FLAG_RAISED:  # type: ignore[attr-defined]
            raise host_errors.rebuild(value)
        return value

    def _running(self) -> int:
        """Return the call that this thread works for: its own, or the outermost of the main thread."""
        thread = _thread.get_ident()
        own = _face.call_id()
        return own if thread == interrupt.main_thread() or thread in _face._call_ids else interrupt.outermost() or own

    def _exchange(self, call_id: int, pack: Callable[..., Pieces]) -> Frame | None:
        with self._lock:
            self._newest = (self._newest + 1) & 0xFFFFFFFF
            question = _Question(call_id, self._newest)
            self._waiting[question.number] = question
            self.is_in_use = True
            question.is_over = self._is_closed
        try:
            if not self._is_open(call_id):  # looked at after we have become visible to `end`
                return None
            if not question.is_over:
                self._send(pack(number=question.number))
            self._await(question)
        finally:
            self._leave(question)
        return question.answer

    def _await(self, question: _Question) -> None:
        while question.answer is None and not question.is_over:
            with self._lock:
                nested = question.calls.pop(0) if question.calls else None
                question.is_busy = nested is not None
                if question.is_busy:
                    self._step_down(question)
                elif self._leader is None:
                    self._leader = question
                leads = self._leader is question
            if nested is not None:
                self._run_call(nested)
            elif leads:
                self._read(question)
            elif question.is_main:
                interrupt.exposed(question.event.acquire)
            else:
                question.event.acquire()

    def _leave(self, question: _Question) -> None:
        with self._lock:
            del self._waiting[question.number]
            self._kept += question.calls  # it was interrupted before it ran them
            self._step_down(question)

    def _step_down(self, question: _Question) -> None:
        """Locked: this one does not read, or no longer; if nobody does, let another that waits."""
        if self._leader is question:
            self._leader = None
        if self._leader is None:
            others = (each for each in self._waiting.values() if each is not question and each.is_idle)
            follower = next(others, self._loop)
            if follower is not None:
                follower.wake()

    # --- reading ----------------------------------------------------------------------------------

    def _read(self, question: _Question) -> None:
        """As the leader: read a frame and hand it on."""
        try:
            frame = self._channel.buffered()
            if frame is None and question.is_main:  # an interrupt may end the wait, but tear no frame apart
                interrupt.exposed(self._poll.poll)
                frame = self._channel.try_receive()
                if frame is None:
                    return
            elif frame is None:
                frame = self._channel.receive()
        except (EOFError, OSError):
            frame = None
        if frame is not None and frame.opcode == messages.DEFINE:
            lane = question.call_id >> frames.LANE_SHIFT
            targets.define(frame.target.decode().split(" "), partial(codec.decode_frame, frame), lane)
            return
        with self._lock:
            self._hand_on(frame, question)

    def _hand_on(self, frame: Frame | None, reader: _Question) -> None:
        """Locked: give a frame to whom it is for; None is the end."""
        if frame is None:
            self._is_closed = True
            for question in self._waiting.values():
                question.is_over = True
                question.wake()
        elif frame.opcode == messages.ANSWER:
            asked = self._waiting.get(frame.number)
            if asked is not None and asked.call_id == frame.call_id:
                asked.answer = frame
                asked.wake()
        elif frame.opcode == messages.CALL and frame.flags & messages.FLAG_NESTED and not reader.is_over:
            runner = next((each for each in self._waiting.values() if each.is_main and each.is_idle), reader)
            runner.calls.append(frame)
            runner.wake()
        elif frame.opcode == messages.CALL:
            self._kept.append(frame)
        if self._loop is not None and (self._kept or self._is_closed):
            self._loop.wake()

    # --- the main loop ----------------------------------------------------------------------------

    def end(self, call_id: int) -> None:
        """A call has ended: whoever asks on its behalf in another thread gets no answer."""
        with self._lock:
            for question in self._waiting.values():
                if question.call_id == call_id:
                    question.is_over = True
                    question.wake()

    def next_frame(self) -> Frame | None:
        """On the main thread, between calls: return the next frame, as a thread that still reads hands it on."""
        while True:
            with self._lock:
                if self._kept:
                    return self._kept.pop(0)
                if self._is_closed:
                    return None
                if self._leader is None:
                    self.is_in_use = bool(self._waiting)
                    self._loop = None
                    break
                loop = self._loop = self._loop or _Question(0, 0)
            loop.event.acquire()
        return self._channel.receive()


def _ended(name: str | int, passed: bool) -> RuntimeError:
    if passed:
        return RuntimeError("the call that this callback belongs to has ended, in the worker or for the host")
    return RuntimeError("host(%r): no call is running, or the host waits for it no longer" % name)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, List, Union

    from ..contract.channel import Channel
    from ..contract.frames import Frame

    Pieces = List[Union[bytes, bytearray, memoryview]]
