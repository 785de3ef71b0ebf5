"""Frames of the JSON protocol: 4 bytes of length, most significant first, then a JSON object in UTF-8. Stateless."""

from __future__ import annotations

import json
import os
from _struct import Struct

_LENGTH = Struct(">I")
_LONGEST = 0xFFFFFFFF
_PIECE = 1 << 20  # memory is taken as bytes come, whatever a length says

FIELDS = {
    "define": (("opID", str), ("code", str)),
    "call": (("callID", str), ("func", str), ("args", object)),
    "cancel": (("callID", str),),
    "ping": (),
}  # what the host may say, and what each frame must have


class TooLarge(Exception):
    """A length beyond the limit: where the next frame begins is not known."""


class Malformed(Exception):
    """A frame that means nothing; the ones after it may."""

    def __init__(self, text: str, frame: object = None) -> None:
        super().__init__(text)
        self.frame = frame if isinstance(frame, dict) else {}


def read(fd: int, limit: int) -> bytes | None:
    """Return the body of the next frame, None at the end.

    Raises:
        TooLarge: it would have more than `limit` bytes.
        EOFError: the end came in the middle of a frame.
    """
    head = _read_exactly(fd, _LENGTH.size)
    if not head:
        return None
    size: int = _LENGTH.unpack(head)[0]
    if size > limit:
        raise TooLarge("a frame of %d bytes is beyond the limit of %d" % (size, limit))
    body = _read_exactly(fd, size)
    if len(body) < size:
        raise EOFError
    return body


def _read_exactly(fd: int, size: int) -> bytes:
    """Return so many bytes; none at the end.

    Raises:
        EOFError: the end came after some of them.
    """
    pieces: list[bytes] = []
    left = size
    while left:
        piece = os.read(fd, min(left, _PIECE))
        if not piece:
            if pieces:
                raise EOFError
            break
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def parse(body: bytes) -> dict[str, Any]:
    """Return the message of a frame of the host's.

    Raises:
        Malformed: it is none, or lacks a field.
    """
    try:
        message = json.loads(body.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Malformed("not JSON: %s" % error) from None
    if not isinstance(message, dict):
        raise Malformed("a frame is a JSON object, not a %s" % type(message).__name__)
    kind = message.get("type")
    fields = FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise Malformed("unknown type %r; there are %s" % (kind, ", ".join(FIELDS)), message)
    for name, wanted in fields:
        if name not in message:
            raise Malformed("%s: the field %r is missing" % (kind, name), message)
        if not isinstance(message[name], wanted):
            what = type(message[name]).__name__
            raise Malformed("%s: the field %r is a %s, not a %s" % (kind, name, what, wanted.__name__), message)
    return message


def _refuse(name: str) -> None:
    raise ValueError("%s is no JSON" % name)


def pack(message: dict[str, object]) -> bytes:
    """Return a frame.

    Raises:
        ValueError: it is too large for its length.
    """
    body = json.dumps(message, allow_nan=False, separators=(",", ":")).encode("ascii")
    if len(body) > _LONGEST:
        raise ValueError("a frame of %d bytes does not fit into its length of 4 bytes" % len(body))
    return _LENGTH.pack(len(body)) + body


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
