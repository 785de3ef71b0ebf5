"""Detached calls and their replies as bytes that a call store can keep: frames, as on the wire. Stateless.

A request is the frame of its options, DEFINE if it is shipped as source, and CALL; a reply is RESULT or ERROR as the
worker sent it, or the frame of a failure that the host itself found. Arguments and results are not decoded on the way.
Two opcodes of the files of a store are never on the wire; their bodies are JSON.
"""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from typing import Any

from venvoy_worker.contract import codec, frames, messages
from venvoy_worker.contract.frames import Frame, FrameError

from .. import errors
from ..errors import CallStoreError, VenvoyError
from ..exchange import Call, Definition
from ..log import logger
from ..options import CallOptions
from .store import Pieces

_OPTIONS = 254  # name and options of the call that follows
_FAILURE = 255  # an error of the host's: the call never got a reply of a worker
_PLAIN = (bool, int, float, str, type(None))
_KEPT = ("timeout", "retries", "on_timeout", "kill_on_exception", "max_bytes")  # of the options of a call


@dataclass(frozen=True, slots=True)
class _StoredDefinition(Definition):
    """Source text whose values stay encoded."""

    body: bytes = b""

    def encoded(self) -> bytes:
        return self.body


def pack_request(call: Call) -> Pieces:
    """Return what it takes to run a call again, in another process."""
    options = {name: getattr(call.options, name) for name in _KEPT}
    options["retry_on"] = [f"{kind.__module__}:{kind.__qualname__}" for kind in call.options.retry_on]  # type: ignore[union-attr]
    pieces = frames.pack(_OPTIONS, target=call.name.encode(), body=[json.dumps(options).encode()])
    if call.definition is not None:
        pieces += call.definition.pieces([])
    return [
        *pieces,
        *frames.pack(messages.CALL, call.flags, codec.PICKLE, 0, 0, 0, call.target, call.body, call.buffers),
    ]


def unpack_request(data: bytes) -> Call:
    """Return the call of a request; its deadline is counted from now.

    Raises:
        CallStoreError: the bytes are not those of a request.
    """
    first, *definition, last = _parse([data])
    try:
        options = json.loads(bytes(first.body))
        options["retry_on"] = _classes(options["retry_on"])
        call = Call(
            bytes(first.target).decode(),
            last.flags,
            bytes(last.target),
            ([bytes(last.body)], [memoryview(buffer) for buffer in last.buffers]),
            _StoredDefinition(bytes(definition[0].target).decode(), "", "", {}, bytes(definition[0].body))
            if definition
            else None,
            CallOptions(**options),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise CallStoreError(f"the request of a stored call cannot be read: {error}") from error
    return call


def pack_reply(frame: Frame) -> Pieces:
    """Return the reply of a worker."""
    body, *buffers = (_kept(piece) for piece in (frame.body, *frame.buffers))
    return frames.pack(frame.opcode, frame.flags, frame.codec, body=[body], buffers=buffers)


def _kept(piece: Any) -> bytes | memoryview:
    """Return a piece of a frame; what lies in memory that is lent by the worker is copied, so that it is given back."""
    return bytes(piece) if isinstance(piece, memoryview) else memoryview(piece)


def pack_failure(error: BaseException) -> Pieces:
    """Return an error that the host itself raised: its code, its text and its plain attributes."""
    if not isinstance(error, VenvoyError):
        error = VenvoyError(f"{type(error).__name__}: {error}")
    plain = {name: value for name, value in vars(error).items() if isinstance(value, _PLAIN)}
    described = {"code": error.code, "message": str(error), "attributes": plain}
    return frames.pack(_FAILURE, body=[json.dumps(described).encode()])


def unpack_reply(pieces: Pieces) -> Frame | VenvoyError:
    """Return the reply of a worker, or the host's error; neither shares memory with what is stored.

    Raises:
        CallStoreError: the bytes are not those of a reply.
    """
    frame = _parse(pieces)[-1]
    if frame.opcode != _FAILURE:
        return frame
    try:
        described = json.loads(bytes(frame.body))
        error = _classes_by_code()[described["code"]](described["message"])
        for name, value in described["attributes"].items():
            setattr(error, name, signal.Signals(value) if name == "signal" and value is not None else value)
    except (ValueError, TypeError, KeyError, AttributeError) as damage:
        raise CallStoreError(f"the reply of a stored call cannot be read: {damage}") from damage
    return error


def _parse(pieces: Pieces) -> list[Frame]:
    parser, found = frames.FrameParser(), []
    try:
        for piece in pieces:
            found += parser.feed(piece)
    except FrameError as error:
        raise CallStoreError(f"a stored call is damaged: {error}") from error
    if not found or not parser.is_between_frames:
        raise CallStoreError("a stored call is damaged: its end is missing")
    return found


def _classes_by_code() -> dict[str, type[VenvoyError]]:
    kinds = [VenvoyError, *(kind for kind in vars(errors).values() if isinstance(kind, type))]
    return {kind.code: kind for kind in kinds if issubclass(kind, VenvoyError)}


def _classes(names: list[str]) -> tuple[Any, ...]:
    """Return the exception classes on which a call is to be run again, as far as they are here."""
    found = []
    for name in names:
        module, _, qualname = name.partition(":")
        try:
            found.append(codec.import_global(module, qualname))
        except (ImportError, AttributeError) as error:
            logger.warning("a stored call is not run again on %s: %s", name, error)
    return tuple(found)
