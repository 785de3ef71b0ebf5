"""What the frames mean: opcodes, flags, and the table of who may send what.

No class per message: a frame already has named fields, and `typing.NamedTuple` would cost each worker 3 ms at
its start. docs/protocol.md says which field of which message means what.
"""

from __future__ import annotations

import os
import sys

from . import frames

# On the call channel.
HELLO = 1  # host -> worker, first: versions and capabilities in the target, settings in the body
READY = 2  # worker -> host: facts about the interpreter
CALL = 3  # host -> worker: run one target
RESULT = 4  # worker -> host: its value
ERROR = 5  # worker -> host: its error; with call id 0: the worker could not start
DEFINE = 6  # host -> worker, no reply: source text for later CALLs
RETRACTED = 7  # worker -> host: these calls were taken back before they started

# On the control socket.
PING = 32  # host -> worker
PONG = 33  # worker -> host
CANCEL = 34  # host -> worker: interrupt this call if it is the one that runs
RETRACT = 35  # host -> worker: take these calls back if they have not started
DUMP = 36  # host -> worker: where is the main thread?
STACK = 37  # worker -> host: there
RECORD = 38  # worker -> host: something was logged
SEGMENT = 39  # both ways, with a descriptor: memory for large parts of frames
SEGMENT_FREE = 40  # both ways: these segments are not lent any more, or not there any more

FROM_HOST = frozenset({HELLO, CALL, DEFINE, PING, CANCEL, RETRACT, DUMP, SEGMENT, SEGMENT_FREE})
FROM_WORKER = frozenset({READY, RESULT, ERROR, RETRACTED, PONG, STACK, RECORD, SEGMENT, SEGMENT_FREE})
TERMINAL = frozenset({RESULT, ERROR})

# Flags of CALL: what kind of target, and whether the body is one call or a chunk of a map.
KIND_MASK = 3
KIND_NAME = 0
KIND_SOURCE = 1
KIND_VALUE = 2
KIND_EVAL = 3
FLAG_CHUNK = 4

# Flags of RESULT: calls of a chunk raised; the body is (values, {index: snapshot of the error}).
FLAG_PARTIAL = 8

# Flags of RESULT and ERROR: the call was interrupted and something else than the interruption came out of it, so its
# code may still be at work, or an import was cut short; the worker should not serve on.
FLAG_DIRTY = 16

# Flag of CALL: the target begins with the most bytes its result may have, in decimal digits, and a space.
FLAG_LIMITED = 32

CAPABILITIES = ("signals", "segments")


def capabilities() -> tuple[str, ...]:
    """Return what this system can do of `CAPABILITIES`."""
    return CAPABILITIES if sys.platform == "linux" and hasattr(os, "memfd_create") else ("signals",)


def greeting(oldest: int, newest: int, capabilities: tuple[str, ...]) -> bytes:
    """Return the target of HELLO and READY: `oldest newest capability,capability`."""
    return ("%d %d %s" % (oldest, newest, ",".join(capabilities))).encode()


def read_greeting(target: bytes | bytearray) -> tuple[int, int, tuple[str, ...]]:
    """Return (oldest version, newest version, capabilities) of the peer.

    Raises:
        ValueError: it is not a greeting.
    """
    oldest, newest, names = target.decode("utf-8").split(" ")
    return int(oldest), int(newest), tuple(name for name in names.split(",") if name)


def pack_ids(ids: list[int]) -> bytes:
    """Return call ids as the body of RETRACT and RETRACTED: 8 bytes each."""
    return b"".join([number.to_bytes(8, "little") for number in ids])


def read_ids(body: Body) -> list[int]:
    """Return the call ids in the body of RETRACT or RETRACTED."""
    return [int.from_bytes(body[offset : offset + 8], "little") for offset in range(0, len(body), 8)]


def free_segments(numbers: list[int], flags: int) -> list[bytes | bytearray | memoryview]:
    """Return a SEGMENT_FREE frame."""
    return frames.pack(SEGMENT_FREE, flags, body=[pack_ids(numbers)])


TYPE_CHECKING = False
if TYPE_CHECKING:
    from .frames import Body
