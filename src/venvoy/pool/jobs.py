"""Calls with a future: what `submit` and `map` put into the queue, and how a reply becomes a result.

A job's future is completed by whoever owns the job at that time: the engine while it waits, a driver while it runs.
"""

from __future__ import annotations

import threading
from _thread import LockType, allocate_lock
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from venvoy_worker.contract import codec, messages
from venvoy_worker.contract.frames import Frame

from ..collector import Timer
from ..errors import CallCancelled, EncodingError
from ..exchange import Call, Convert
from ..options import Progress
from ..values.classes import Classes
from ..workers.lane import Lane
from ..workers.talk import serving

if TYPE_CHECKING:
    from .roster import Ticket


class _Condition(threading.Condition):
    """A condition whose `with` runs no Python code while the lock changes hands.

    The standard library's takes the lock inside a Python function: an interrupt at the end of that function leaves the
    lock taken for ever, and would stop the driver that completes the future.
    """

    __enter__ = property(lambda self: self._lock.__enter__)
    __exit__ = property(lambda self: self._lock.__exit__)


class _OnDemand:
    """An attribute of a future that is made when somebody first asks for it.

    Most futures are done before anybody waits for them; a condition for each would be most of what they cost.
    """

    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, future: Any, owner: type) -> Any:
        future._is_watched = True  # before it can be used: see `CallFuture._complete`
        return future.__dict__.setdefault(self._name, self._make())


class Runner(Protocol):
    """What a future asks of the pool that runs its call."""

    def stop(self, job: Job) -> bool:
        """Cancel a job whose future is RUNNING; return False when it has ended meanwhile."""

    def repeat(self, job: Job) -> None:
        """Run a job again."""

    def read(self, job: Job, timeout: float | None) -> None:
        """Read the reply of a job in this thread, if nobody else does yet; it may not have come when this returns."""


class CallFuture(Future[Any]):
    """A `concurrent.futures.Future` that can also stop a call that is running.

    `cancel()` of a running call asks the worker to stop and returns True; the future stays RUNNING until the worker
    has obeyed, or was killed at the end of the grace period, and then raises `CallCancelled`.

    Examples:
        >>> with vv.Pool() as pool:
        ...     future = pool.submit("time:sleep", 60)
        ...     future.cancel()
        True
    """

    # The standard library's state, with its names; what it locks against each other is decided by `_fate` here.
    _state: str = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _condition = _OnDemand(_Condition)
    _waiters = _OnDemand(list)
    _done_callbacks = _OnDemand(list)
    _is_watched = False  # somebody may be waiting for it
    _job: Job | None = None  # until it is done, else future and job would keep each other
    progress: Progress | None = None
    """How far the call said it is, last; None before it said so."""
    _runner: Runner

    def __init__(self) -> None:  # the attributes above need nothing
        self._fate = allocate_lock()  # taken once, by whoever decides whether it runs or is cancelled

    def cancel(self) -> bool:
        """Cancel the call, waiting or running; return False when it is already done."""
        if self._state == PENDING and self._fate.acquire(False):
            self._state = CANCELLED
            self._tell()
        if self.cancelled():
            return True
        job = self._job
        return self._runner.stop(job) if job is not None and not self.done() else False

    def result(self, timeout: float | None = None) -> Any:
        """Return the call's result, waiting for it at most `timeout` seconds; see `concurrent.futures.Future`."""
        if self._state != FINISHED:
            deadline = None if timeout is None else monotonic() + timeout
            self._read(timeout)
            timeout = None if deadline is None else max(0.0, deadline - monotonic())
        if self._state == FINISHED and self._exception is None:
            return self._result
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call raised, or None; waits as `result` does."""
        deadline = None if timeout is None else monotonic() + timeout
        self._read(timeout)
        return super().exception(None if deadline is None else max(0.0, deadline - monotonic()))

    def cancelled(self) -> bool:
        """Return True if it was cancelled before it ran."""
        return self._state == CANCELLED or self._state == CANCELLED_AND_NOTIFIED

    def running(self) -> bool:
        """Return True if it is running, or being cancelled while it runs."""
        return self._state == RUNNING

    def done(self) -> bool:
        """Return True if it has a result or an error, or was cancelled."""
        return self._state != RUNNING and self._state != PENDING

    def _read(self, timeout: float | None) -> None:
        job = self._job
        if job is not None and (job.ticket is not None or serving.get()):
            self._runner.read(job, timeout)

    def _begin(self) -> bool:
        """Say that it runs from now on; False, having told those who wait, when it was cancelled first."""
        if self._fate.acquire(False):
            self._state = RUNNING
            return True
        self._state = CANCELLED_AND_NOTIFIED
        if self._is_watched:
            with self._condition:
                for waiter in self._waiters:
                    waiter.add_cancelled(self)
                self._condition.notify_all()
        return False

    def _complete(self, value: object, error: BaseException | None) -> None:
        """Finish; called once, by whoever has the job.

        Whoever wants to wait first makes the condition and then looks at the state under it. Here it is the other way
        round, so one of the two sees the other.
        """
        self._result, self._exception = value, error
        self._state = FINISHED
        if self._is_watched:
            with self._condition:
                for waiter in self._waiters:
                    waiter.add_result(self) if error is None else waiter.add_exception(self)
            self._tell()

    def _tell(self) -> None:
        if self._is_watched:
            with self._condition:
                self._condition.notify_all()
            self._invoke_callbacks()  # type: ignore[attr-defined]


class Watcher:
    """Somebody who waits for the first of some futures without blocking, as `concurrent.futures.wait` does blocking.

    Args:
        wake: called by whoever completes one, on any thread.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        self.add_result = self.add_exception = self.add_cancelled = lambda future: wake()

    def watch(self, futures: Iterable[CallFuture]) -> bool:
        """Watch until `leave`; return True, watching no more of them, if one is done already."""
        for future in futures:
            with future._condition:
                if future.done():
                    return True
                future._waiters.append(self)
        return False

    def leave(self, futures: Iterable[CallFuture]) -> None:
        """Watch no longer."""
        for future in futures:
            with future._condition:
                if self in future._waiters:
                    future._waiters.remove(self)


class Job:
    """A call in the queue, or on a worker, with its future."""

    __slots__ = (
        "call",
        "future",
        "is_answered",
        "is_begun",
        "is_given_up",
        "place",
        "reader",
        "reply",
        "seconds",
        "ticket",
        "timer",
    )

    keeps_reply = False  # the future gets the worker's reply as it came, not the value in it

    def __init__(self, call: Call) -> None:
        self.call = call
        self.future = CallFuture()
        self.is_begun = False  # the future was told that it runs, which may be done once only
        self.is_given_up = False  # by its deadline or by cancel(): what comes back is discarded
        self.is_answered = False  # by its driver, which runs a function of the user's for it right now
        self.place: tuple[Lane, int] | None = None  # where it runs, and under which id
        self.seconds = 0.0  # it took in the worker
        self.timer: Timer | None = None
        self.ticket: Ticket | None = None  # these three belong to `direct`
        self.reader: LockType | None = None
        self.reply: Frame | None = None

    def begin(self) -> bool:
        """Tell the future that it runs; return False when nobody wants the result any more."""
        if self.is_begun:
            return not self.future.done()
        self.is_begun = True
        if self.future._begin():
            return True
        self._end()
        return False

    @property
    def has_callbacks(self) -> bool:
        """True when completing the future runs code of the user's in the completing thread."""
        return self.future._is_watched and bool(self.future._done_callbacks)

    def succeed(self, value: object) -> None:
        """Complete the future."""
        self._end()
        if not self.future.done():
            self.future._complete(value, None)

    def fail(self, error: BaseException) -> None:
        """Complete the future with an error."""
        if self.begin():
            self._end()
            self.future._complete(None, error)

    def cancel(self) -> None:
        """Cancel a job that has been taken out of the queue."""
        if not self.is_begun:
            self.future.cancel()
        self.fail(self.cancelled_error())

    def fail_aside(self, error: BaseException) -> None:
        """Complete the future with an error; callbacks of the user's run on a thread of their own."""
        if self.has_callbacks:
            run_aside(self.fail, error)
        else:
            self.fail(error)

    def cancelled_error(self) -> CallCancelled:
        """Return what a call that was running when it was cancelled ends with."""
        return CallCancelled(f"{self.call.name} was cancelled while it ran")

    def _end(self) -> None:
        if self.call.dialogue is not None:
            self.call.dialogue.close()
        if self.timer is not None:
            self.timer.cancel()
        self.future._job = None


def run_aside(function: Callable[..., object], *args: object) -> None:
    """Run a function, in which code of the user's runs, on a thread of its own."""
    try:
        threading.Thread(target=function, args=args, name="venvoy-callbacks", daemon=True).start()
    except RuntimeError:  # the interpreter is exiting, or the system has no thread left
        function(*args)


class Decoder:
    """Turns replies into values and errors, in the thread that waits for them.

    Args:
        classes: which classes a reply may bring.
    """

    def __init__(self, classes: Classes) -> None:
        self._classes = classes
        self._find_class = classes.find_class
        self._load = classes.load

    def value(self, frame: Frame, convert: Convert | None = None) -> Any:
        """Return the value of a RESULT.

        Args:
            convert: makes of the value what `options(returns=)` asks for.

        Raises:
            EncodingError: it cannot be decoded here, or is not what was asked for.
            BaseException: the frame is an ERROR; whatever it describes.
        """
        value, error = self.outcome(frame, convert)
        if error is not None:
            raise error
        return value

    def outcome(self, frame: Frame, convert: Convert | None = None) -> tuple[Any, BaseException | None]:
        """Return what `value` returns, and what it raises."""
        try:
            value = codec.decode_frame(frame, self._find_class, self._load)
            if frame.opcode == messages.ERROR:
                return None, self._classes.rebuild(value)
            return (value if convert is None else convert(value)), None
        except codec.CodecError as error:
            failed = EncodingError(f"the result {error}")
            failed.__cause__ = error.__cause__
            return None, failed
        except EncodingError as mismatch:
            return None, mismatch

    def arguments(self, frame: Frame, what: str) -> Any:
        """Return the value of a frame that is no reply.

        Raises:
            EncodingError: it cannot be decoded here; the message names `what` it is for.
        """
        try:
            return codec.decode_frame(frame, self._find_class, self._load)
        except codec.CodecError as error:
            raise EncodingError(f"an argument of {what} {error}") from error.__cause__

    def complete(self, job: Job, frame: Frame) -> None:
        """Complete a job with its reply; the value of a chunk is (values, the error that ended it early or None)."""
        if job.keeps_reply and (frame.opcode == messages.RESULT or not job.call.retries):
            job.succeed(frame)
            return
        is_chunk = job.call.flags & messages.FLAG_CHUNK
        value, error = self.outcome(frame, None if is_chunk else job.call.convert)
        if error is not None:
            if job.call.may_repeat(error):
                job.future._runner.repeat(job)
            elif job.keeps_reply:
                job.succeed(frame)
            else:
                job.fail(error)
        else:
            job.succeed(self._chunk(frame, value, job.call.convert) if is_chunk else value)

    def _chunk(self, frame: Frame, value: Any, convert: Convert | None) -> tuple[list[Any], BaseException | None]:
        """Return the values of a chunk of a map, errors among them if it went on, and the one that ended it early."""
        problems: dict[int, dict[str, Any]] = {}
        if frame.flags & messages.FLAG_PARTIAL:
            value, problems = value
        values, error = (value, None) if convert is None else _converted(value, convert)
        for index, snapshot in problems.items():
            if index < len(value):
                values[index] = self._rebuilt(snapshot)
            else:
                error = error or self._rebuilt(snapshot)
        return values, error

    def _rebuilt(self, snapshot: dict[str, Any]) -> BaseException:
        try:
            return self._classes.rebuild(snapshot)
        except codec.CodecError as refused:
            return EncodingError(f"the result {refused}")


def _converted(values: list[Any], convert: Convert) -> tuple[list[Any], BaseException | None]:
    done: list[Any] = []
    for value in values:
        try:
            done.append(convert(value))
        except EncodingError as mismatch:
            return done, mismatch
    return done, None
