"""From the value of a call to the body of its reply, whole and within its limit. Stateless."""

from __future__ import annotations

from ..contract import codec, messages
from ..contract.failures import failure

_SHORT = 8192  # characters of a text in an error that is beyond its limit


def limit_of(flags: int, target: bytes | bytearray) -> tuple[int | None, bytes | bytearray]:
    """Return the most bytes that the result of a CALL may have, None for any number, and its target proper."""
    if not flags & messages.FLAG_LIMITED:
        return None, target
    digits, _, rest = target.partition(b" ")
    return int(digits), rest


def encode_result(value: object, limit: int | None = None) -> codec.Encoded:
    """Return body and buffers of a result.

    Raises:
        CodecError: a part of it cannot travel; the message says where it is.
        MessageTooLarge: it takes more than `limit` bytes.
    """
    if limit is None and type(value) in codec.SCALARS:
        return codec.encode_small(value)
    try:
        encoded = codec.encode_result(value)
    except codec.CodecError as error:
        path, part = codec.failing_part(value)
        where = "result%s" % path if path else "the result"
        raise codec.CodecError("%s (a %s) %s" % (where, type(part).__name__, error)) from error.__cause__
    return encoded if limit is None else within(encoded, value, limit)


def within(encoded: codec.Encoded, value: object, limit: int | None) -> codec.Encoded:
    """Return an encoded result.

    Raises:
        MessageTooLarge: it takes more than `limit` bytes.
    """
    if limit is not None:
        size = codec.size_of(encoded)
        if size > limit:
            what = type(value).__name__
            text = "the result (a %s) takes %d bytes, but at most %d are allowed (max_bytes)" % (what, size, limit)
            raise codec.MessageTooLarge(text, size, limit)
    return encoded


def encode_item(value: object, number: int, limit: int | None) -> codec.Encoded:
    """Return body and buffers of a frame with one item of a stream.

    Args:
        number: of the item, from 0.
        limit: the most bytes it may have.

    Raises:
        CodecError: a part of it cannot travel; the message says where it is.
        MessageTooLarge: it takes more than `limit` bytes.
    """
    try:
        encoded = codec.encode([value])
    except codec.CodecError as error:
        path, part = codec.failing_part(value)
        text = "item %d%s of the stream (a %s) %s" % (number, path, type(part).__name__, error)
        raise codec.CodecError(text) from error.__cause__
    size = codec.size_of(encoded)
    if limit is not None and size > limit:
        what = type(value).__name__
        text = "item %d of the stream (a %s) takes %d bytes, but at most %d are allowed (max_bytes)"
        raise codec.MessageTooLarge(text % (number, what, size, limit), size, limit)
    return encoded


def encode_chunk(values: list[Any], problems: Problems, limit: int | None, goes_on: bool) -> tuple[codec.Encoded, int]:
    """Return body and buffers of the results of a chunk, and the flags of its frame.

    Args:
        problems: reports of errors, by their places.
        limit: of each value.
        goes_on: the values behind one that cannot be sent are sent.

    Raises:
        CodecError: the values cannot be sent together, though each could be.
    """
    try:
        encoded = _chunk(values, problems)
    except codec.CodecError:
        values, problems = _encodable(values, problems, limit, goes_on)
        encoded = _chunk(values, problems)
    if limit is not None and codec.size_of(encoded) > limit:
        values, problems = _encodable(values, problems, limit, goes_on)
        encoded = _chunk(values, problems)
    return encoded, messages.FLAG_PARTIAL if problems else 0


def _chunk(values: list[Any], problems: Problems) -> codec.Encoded:
    return codec.encode((values, problems) if problems else values)


def _encodable(values: list[Any], problems: Problems, limit: int | None, goes_on: bool) -> tuple[list[Any], Problems]:
    """Return the results that can be sent, those before the first that cannot unless it goes on, and the reports."""
    kept: list[Any] = []
    found = dict(problems)
    for index, value in enumerate(values):
        try:
            encode_result(value, limit)
        except codec.CodecError as error:
            if not goes_on:
                return kept, {index: report_of(error)}
            found[index], value = report_of(error), None
        kept.append(value)
    return kept, found


def encode_report(report: dict[str, object], limit: int | None) -> Sequence[bytes]:
    """Return the body of an error snapshot; one beyond the limit keeps its class and the ends of its texts."""
    try:
        pieces, _ = codec.encode(report)
    except codec.CodecError as error:  # e.g. a str subclass of the user's among the attributes
        pieces, _ = codec.encode(failure("remote_error", str(error)))
    if limit is not None and sum(map(len, pieces)) > max(limit, _SHORT) and "type" in report:
        message, traceback = str(report["message"]), str(report["traceback"])
        short = dict(report, args=(), attributes={}, notes=[], pickled=None)
        pieces, _ = codec.encode(dict(short, message=message[:_SHORT], traceback=traceback[-_SHORT:]))
    return pieces


def report_of(error: codec.CodecError, traceback: str = "") -> dict[str, object]:
    """Return the error snapshot of a value that cannot travel."""
    if not isinstance(error, codec.MessageTooLarge):
        return failure("encoding_error", str(error), traceback)
    return dict(failure("message_too_large", str(error)), size=error.size, limit=error.limit)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Sequence

    Problems = Dict[int, Dict[str, object]]
