"""What a pool answers to its workers while a call runs: functions of the host's are called, progress is told.

Owns the table of exposed functions. Law: whatever goes wrong with a question is the answer to it, so that nobody in a
worker waits in vain.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from venvoy_worker.contract import codec, failures, frames, messages, reducers
from venvoy_worker.contract.frames import Frame

from ..errors import EncodingError
from ..exchange import Call, Pieces
from ..log import logger
from ..options import Progress
from ..workers.talk import Asker
from .jobs import Decoder

_FOLDER = str(Path(__file__).parents[1]) + os.sep  # whose frames are no business of a worker's

Post = Callable[[Callable[[], object]], object]


class Question(NamedTuple):
    """An ASK, understood: a function of the host's to be called with these arguments."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Responder:
    """See the module.

    Args:
        exposed: functions of the host's that every call may use, by name.
        table: how values are encoded for the pool's workers.
        decoder: returns the decoder of what they say.
        post: runs a callback on the notifier thread.
    """

    def __init__(
        self,
        exposed: Mapping[str, Callable[..., Any]],
        table: reducers.Table,
        decoder: Callable[[], Decoder],
        post: Post,
    ) -> None:
        self.exposed = dict(exposed)
        self.is_asked = bool(exposed)
        self._table = table
        self._decoder = decoder
        self._post = post

    def answer(self, call: Call, frame: Frame, lane: Asker, is_caller: bool) -> Pieces:
        """Call the function that an ASK is for, and return the ANSWER.

        Args:
            lane: which asks.
            is_caller: this thread waits for the call, so what is meant to end the thread goes through to it.
        """
        try:
            question = self.question(call, frame)
            value = question.function(*question.args, **question.kwargs)
            if inspect.iscoroutine(value):
                value.close()
                raise TypeError(f"{_shown(frame)} is a coroutine function: only an AsyncPool can run it")
            return self.value(frame, value, lane)
        except Exception as error:
            return self.failure(frame, error)
        except BaseException as error:
            if is_caller:
                raise
            return self.failure(frame, error)

    async def answer_on_loop(self, call: Call, frame: Frame, lane: Asker) -> Pieces:
        """As `answer`, for a task that waits for the call; what the function returns is awaited if it can be."""
        try:
            question = self.question(call, frame)
            value = question.function(*question.args, **question.kwargs)
            return self.value(frame, await value if inspect.isawaitable(value) else value, lane)
        except Exception as error:
            return self.failure(frame, error)

    def question(self, call: Call, frame: Frame) -> Question:
        """Return what an ASK is for.

        Raises:
            LookupError: there is no such function.
            EncodingError: an argument cannot be decoded here.
        """
        if frame.flags & messages.FLAG_PASSED:
            passed = call.dialogue.passed if call.dialogue is not None else []
            function = passed[int(frame.target)]
        else:
            name = frame.target.decode()
            if name not in self.exposed:
                known = ", ".join(map(repr, self.exposed)) or "none"
                raise LookupError(f"the host exposes no function {name!r} (Pool(expose={{...}})); it exposes {known}")
            function = self.exposed[name]
        args, kwargs = self._decoder().arguments(frame, _shown(frame))
        return Question(function, args, kwargs)

    def value(self, ask: Frame, value: object, lane: Asker) -> Pieces:
        """Return the ANSWER that gives a value.

        Raises:
            EncodingError: it cannot travel.
        """
        try:
            body, buffers = lane.answers.place(ask.number, codec.encode(value, self._table))
        except codec.CodecError as error:
            path, part = codec.failing_part(value, self._table)
            where = f"result{path}" if path else "the result"
            text = f"{where} (a {type(part).__name__}) of {_shown(ask)} {error}"
            raise EncodingError(text) from error.__cause__
        return frames.pack(messages.ANSWER, 0, codec.PICKLE, 0, ask.call_id, ask.number, b"", body, buffers)

    def failure(self, ask: Frame, error: BaseException) -> Pieces:
        """Return the ANSWER that raises an error in the worker."""
        report = failures.snapshot(error, _FOLDER)
        try:
            body = codec.encode_inline(report, self._table)
        except codec.CodecError:  # a str subclass of the user's among the attributes
            body = codec.encode_inline(dict(report, attributes={}, args=(), notes=[], pickled=None), self._table)
        return frames.pack(messages.ANSWER, messages.FLAG_RAISED, codec.PICKLE, 0, ask.call_id, ask.number, b"", [body])

    def progress(self, frame: Frame) -> Progress | None:
        """Return what a PROGRESS says, None if that is not to be understood here."""
        try:
            done, total, message = self._decoder().arguments(frame, "progress")
        except (EncodingError, ValueError, TypeError):
            return None
        return Progress(done, total, message)

    def report(self, call: Call, frame: Frame, is_caller: bool) -> Progress | None:
        """Return what a PROGRESS says, and tell whoever wants to know.

        Args:
            is_caller: tell here and now; else on the notifier thread.
        """
        progress = self.progress(frame)
        tell = call.options.on_progress
        if progress is None or call.dialogue is None:
            return progress
        if call.dialogue.listener is not None:
            call.dialogue.listener(progress)
        if tell is not None and is_caller:
            _guarded(tell, progress)
        elif tell is not None:
            news = call.dialogue.news
            news.append(progress)
            self._post(lambda: _tell_newest(tell, news))
        return progress


def _tell_newest(tell: Callable[[Progress], object], news: Any) -> None:
    """Tell of the newest only, if nobody has yet: a function that takes long gets no queue of old ones."""
    try:
        newest = news.pop()
    except IndexError:
        return
    _guarded(tell, newest)


def _guarded(tell: Callable[[Progress], object], progress: Progress) -> None:
    try:
        tell(progress)
    except Exception:  # what goes wrong with showing it must not stop the work
        logger.exception("on_progress raised")


def _shown(frame: Frame) -> str:
    name = bytes(frame.target).decode("utf-8", "replace")
    return f"callback {name}" if frame.flags & messages.FLAG_PASSED else f"host function {name!r}"
