"""Calls with a future: what `submit` and `map` put into the queue, and how a reply becomes a result.

A job's future is completed by whoever owns the job at that time: the engine while it waits, a driver while it runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from venvoy_worker.contract import codec, messages
from venvoy_worker.contract.frames import Frame

from ..classes import Classes
from ..collector import Timer
from ..errors import CallCancelled, EncodingError
from ..exchange import Call, Convert
from ..worker import Worker


class _Condition(threading.Condition):
    """A condition whose `with` runs no Python code while the lock changes hands.

    The standard library's takes the lock inside a Python function: an interrupt at the end of that function leaves the
    lock taken for ever, and would stop the driver that completes the future.
    """

    __enter__ = property(lambda self: self._lock.__enter__)
    __exit__ = property(lambda self: self._lock.__exit__)


class CallFuture(Future[Any]):
    """A `concurrent.futures.Future` that can also stop a call that is running.

    `cancel()` of a running call asks the worker to stop and returns True; the future stays RUNNING until the worker
    has obeyed, or was killed at the end of the grace period, and then raises `CallCancelled`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._condition.__class__ = _Condition

    _job: Job | None = None  # until it is done, else future and job would keep each other
    _stop: Callable[[Job], bool]  # of the engine, one for all futures of a pool

    def cancel(self) -> bool:
        """Cancel the call, waiting or running; return False when it is already done."""
        if super().cancel():
            return True
        job = self._job
        return self._stop(job) if job is not None and not self.done() else False


class Job:
    """A call in the queue, or on a worker, with its future."""

    __slots__ = ("call", "future", "is_begun", "is_given_up", "place", "seconds", "timer")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.future = CallFuture()
        self.is_begun = False  # the future was told that it runs, which may be done once only
        self.is_given_up = False  # by its deadline or by cancel(): what comes back is discarded
        self.place: tuple[Worker, int] | None = None  # where it runs, and under which id
        self.seconds = 0.0  # it took in the worker
        self.timer: Timer | None = None

    def begin(self) -> bool:
        """Tell the future that it runs; return False when nobody wants the result any more."""
        future = self.future
        if not self.is_begun and (future.cancelled() or not future.done()):
            self.is_begun = True
            if future.set_running_or_notify_cancel():  # a cancelled one tells those who wait for it
                return True
        if future.done():
            self._end()
            return False
        return True

    @property
    def has_callbacks(self) -> bool:
        """True when completing the future runs code of the user's in the completing thread."""
        return bool(self.future._done_callbacks)  # type: ignore[attr-defined]

    def succeed(self, value: object) -> None:
        """Complete the future."""
        self._end()
        if not self.future.done():
            self.future.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Complete the future with an error."""
        if self.begin():
            self.future.set_exception(error)
        self._end()

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
        self._trusts = not classes.is_safe

    def value(self, frame: Frame, convert: Convert | None = None) -> Any:
        """Return the value of a RESULT.

        Args:
            convert: makes of the value what `options(returns=)` asks for.

        Raises:
            EncodingError: it cannot be decoded here, or is not what was asked for.
            BaseException: the frame is an ERROR; whatever it describes.
        """
        try:
            value = codec.decode_frame(frame, self._find_class, self._trusts)
            if frame.opcode == messages.ERROR:
                raise self._classes.rebuild(value)
        except codec.CodecError as error:
            raise EncodingError(f"the result {error}") from error.__cause__
        return value if convert is None else convert(value)

    def chunk(self, frame: Frame, convert: Convert | None = None) -> tuple[list[Any], BaseException | None]:
        """Return the values of a chunk of a map, and the error that ended it early, if one did.

        Raises:
            As `value`, when the chunk failed as a whole.
        """
        value = self.value(frame)
        error: BaseException | None = None
        if frame.flags & messages.FLAG_PARTIAL:
            value, snapshot = value
            try:
                error = self._classes.rebuild(snapshot)
            except codec.CodecError as refused:
                error = EncodingError(f"the result {refused}")
        return (value, error) if convert is None else _converted(value, error, convert)


def _converted(
    values: list[Any], error: BaseException | None, convert: Convert
) -> tuple[list[Any], BaseException | None]:
    done: list[Any] = []
    for value in values:
        try:
            done.append(convert(value))
        except EncodingError as mismatch:
            return done, mismatch
    return done, error
