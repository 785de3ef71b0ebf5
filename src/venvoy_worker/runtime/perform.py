"""From the frame of a call to its reply: decode, run, encode. Owns nothing but what it has imported late."""

from __future__ import annotations

import os
from time import perf_counter

import venvoy_worker

from ..contract import codec, frames, messages
from ..contract.failures import failure, snapshot
from ..contract.host_functions import lines
from . import interrupt, lent, replies, sources, stdio, targets
from .coroutines import COROUTINE, finish, finishing

_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_MOST_MICROSECONDS = 0xFFFFFFFF
_objects: Any = None  # the module, once it is needed
_MAY_STAY = messages.KIND_OBJECT | messages.FLAG_KEEP


def perform(frame: Frame, begin: float) -> Pieces:
    """Decode, run, encode: everything in which code of the user's can run. Return the reply."""
    if sources.pending:
        sources.catch_up()
    if frame.flags:
        return _perform_flagged(frame, begin)
    args, kwargs = codec.decode_frame(frame)  # a plain call by name, which most are
    frame.body, frame.buffers = b"", []
    result = resolve(messages.KIND_NAME, frame.target.decode())(*args, **kwargs)
    if type(result) is COROUTINE:
        result = finish(result)
    args = kwargs = None
    return _packed(frame, begin, replies.encode_result(result), 0)


def _perform_flagged(frame: Frame, begin: float) -> Pieces:
    """As `perform`, of a call that is more than that."""
    value = codec.decode_frame(frame)
    frame.body, frame.buffers = b"", []
    kind = frame.flags & messages.KIND_MASK
    limit, target = replies.limit_of(frame.flags, frame.target)
    if frame.flags & _MAY_STAY:
        return _perform_for_proxy(frame, begin, value, target.decode(), limit)
    result: Any = None
    problems: dict[int, dict[str, object]] = {}
    if kind == messages.KIND_EVAL:
        from . import snippets  # most workers never need it

        text, values, mode, place = value
        result = snippets.evaluate(text, values, mode, target.decode(), place)
    else:
        function, value = _function_of(kind, target.decode(), value)
        if frame.flags & messages.FLAG_CHUNK:
            goes_on = value[3]
            result, problems = _chunk(finishing(function), *value)
        else:
            args, kwargs = value
            result = function(*args, **kwargs)
            if type(result) is COROUTINE:
                result = finish(result)
            if frame.flags & messages.FLAG_STREAM:
                lines[frame.call_id >> frames.LANE_SHIFT].stream(frame.call_id, result, limit)
                result = None
    value = args = kwargs = None
    if frame.flags & messages.FLAG_CHUNK:
        encoded, flags = replies.encode_chunk(result, problems, limit, goes_on)
    else:
        encoded, flags = replies.encode_result(result, limit), 0
    return _packed(frame, begin, encoded, flags)


def _perform_for_proxy(frame: Frame, begin: float, value: Any, target: str, limit: int | None) -> Pieces:
    """As `perform`, where the result may stay here."""
    objects = _load_objects() if _objects is None else _objects
    kind = frame.flags & messages.KIND_MASK
    if kind == messages.KIND_OBJECT:
        args, kwargs = value
        result, rule, subject = objects.operate(target, args, kwargs)
    else:
        function, (args, kwargs) = _function_of(kind, target, value)
        result, rule, subject = function(*args, **kwargs), "", objects.NOBODY
        if type(result) is COROUTINE:
            result = objects.finished(result)
    value = args = kwargs = None
    encoded, flags, handles = objects.reply(result, rule, subject, frame, limit)
    return _packed(frame, begin, encoded, flags, handles)


def _load_objects() -> Any:
    global _objects
    from . import objects  # start-up time: most workers have none

    _objects = objects
    return objects


def disown_result(frame: Frame) -> None:
    """A call that was interrupted on its way back has raised: what was to stay for it is nobody's."""
    if frame.flags & _MAY_STAY and _objects is not None:
        _objects.disown(frame.call_id)


def _function_of(kind: int, target: str, value: Any) -> tuple[Callable[..., Any], Any]:
    """Return what a call runs, and what of its body are the arguments."""
    if kind == messages.KIND_VALUE:
        owner, method, *rest = value
        return getattr(owner, method), rest
    return resolve(kind, target), value


def _packed(frame: Frame, begin: float, encoded: codec.Encoded, flags: int, target: bytes = b"") -> Pieces:
    body: Sequence[bytes | bytearray | memoryview]
    buffers: Sequence[Part]
    body, buffers = encoded
    if interrupt.is_dirty(None):
        flags |= messages.FLAG_DIRTY
    number = microseconds_since(begin)
    if not buffers and not target and len(body) == 1 and len(body[0]) <= frames.SMALL:
        return frames.pack_small(messages.RESULT, flags, codec.PICKLE, frame.call_id, number, 0, body[0])
    if buffers or len(body) > 1:
        body, buffers = lent.place(frame.call_id, body, buffers)
    return frames.pack(messages.RESULT, flags, codec.PICKLE, 0, frame.call_id, number, target, body, buffers)


def resolve(kind: int, name: str) -> Callable[..., object]:
    """Return what a target by name or by source stands for.

    Raises:
        TypeError: it cannot be called. Besides this, as `targets.by_name` and `targets.by_source`.
    """
    found = targets.by_source(name) if kind == messages.KIND_SOURCE else targets.by_name(name)
    if not callable(found):
        raise TypeError("%r is not callable: it is a %s" % (name, type(found).__name__))
    return found


def _chunk(
    function: Callable[..., object],
    items: list[Any],
    first: tuple[object, ...] | None,
    kwargs: dict[str, object],
    goes_on: bool,
) -> tuple[list[object], dict[int, dict[str, object]]]:
    """Run one function over many arguments; return the values, and the reports of errors by their place.

    Args:
        items: tuples of arguments, or dicts of keywords, or, when `first` is None, single arguments.
        first: arguments before those of each item.
        goes_on: an error is followed by the items after it, with None in its place among the values; else it is last.
    """
    values: list[object] = []
    problems: dict[int, dict[str, object]] = {}
    keep = values.append
    rest = iter(items)
    while True:
        try:
            if first is None:
                for item in rest:
                    keep(function(item))
            elif type(items[0]) is dict:
                for item in rest:
                    keep(function(*first, **dict(kwargs, **item)))
            else:
                for item in rest:
                    keep(function(*first, *item, **kwargs))
            return values, problems
        except venvoy_worker.Cancelled:
            raise
        except BaseException as error:
            stdio.leave_if_forked()
            problems[len(values)] = report(error)
            if not goes_on:
                return values, problems
            keep(None)


def report(error: BaseException) -> dict[str, object]:
    """Return the snapshot of what ended a call."""
    if isinstance(error, targets.NotFound):
        return failure("target_not_found", str(error))
    if isinstance(error, targets.Gone):
        return failure("stale_proxy", str(error))
    if isinstance(error, codec.CodecError):
        return replies.report_of(error, _cause(error))
    if isinstance(error, targets.NotParsable):
        return failure("encoding_error", str(error))
    if isinstance(error, venvoy_worker.Cancelled):
        return failure("call_cancelled", str(error), snapshot(error, _FOLDER)["traceback"])  # type: ignore[arg-type]
    return snapshot(error, _FOLDER)


def _cause(error: BaseException) -> str:
    if error.__cause__ is None:
        return ""
    return str(snapshot(error.__cause__, _FOLDER)["traceback"])


def microseconds_since(begin: float) -> int:
    """Return the time from a `perf_counter` value until now, as it goes into a reply."""
    number = int((perf_counter() - begin) * 1e6)
    return number if number < _MOST_MICROSECONDS else _MOST_MICROSECONDS


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, List, Sequence, Union

    from ..contract.frames import Frame, Part

    Pieces = List[Union[bytes, bytearray, memoryview]]
