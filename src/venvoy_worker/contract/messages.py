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
ITEMS = 8  # worker -> host: what a streamed call has yielded
ASK = 9  # worker -> host: call a function of the host's for the call that runs
PROGRESS = 10  # worker -> host: how far the call is
ANSWER = 11  # host -> worker: what came of an ASK

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
CREDIT = 41  # host -> worker: the consumer of a stream takes more
RELEASE = 42  # host -> worker: these objects have no proxy any more
PRINTED = 47  # worker -> host: a call has printed this, where several run at once

# On the control socket of a template, which forks workers and runs no calls.
FORK = 43  # host -> template, with descriptors: fork a worker that has these
FORKED = 44  # template -> host: there it is
REAPED = 45  # template -> host: how a worker ended
REAP = 46  # host -> template: this worker has ended, and its process id is needed no more

FROM_HOST = frozenset(
    {HELLO, CALL, DEFINE, ANSWER, PING, CANCEL, RETRACT, DUMP, SEGMENT, SEGMENT_FREE, CREDIT, RELEASE, FORK, REAP}
)
FROM_WORKER = frozenset(
    {READY, RESULT, ERROR, RETRACTED, ITEMS, ASK, PROGRESS, PONG, STACK, RECORD, PRINTED}
    | {SEGMENT, SEGMENT_FREE, FORKED, REAPED}
)
TERMINAL = frozenset({RESULT, ERROR})
INTERIM = frozenset({ITEMS, ASK, PROGRESS})  # come before the reply

# Flags of CALL: what kind of target, and whether the body is one call or a chunk of a map.
KIND_MASK = 11
KIND_NAME = 0
KIND_SOURCE = 1
KIND_VALUE = 2
KIND_EVAL = 3
KIND_OBJECT = 8
FLAG_CHUNK = 4

# Flags of RESULT: calls of a chunk raised; the body is (values, {index: snapshot of the error}).
FLAG_PARTIAL = 8

# Flags of RESULT and ERROR: the call was interrupted and something else than the interruption came out of it, so its
# code may still be at work, or an import was cut short; the worker should not serve on.
FLAG_DIRTY = 16

# Flag of CALL: the target begins with the most bytes its result may have, in decimal digits, and a space.
FLAG_LIMITED = 32

# Flag of PRINTED: to standard error.
FLAG_STDERR = 2

# Flag of DEFINE: the text belongs to the namespace that all workers of the pool have; its number is in the header.
FLAG_SHARED = 1

# Flag of CALL: the result stays in the worker, and its reply is a reference.
FLAG_KEEP = 64

# Flag of RESULT: objects stay in the worker for it; their handles are in the target, in the form of `pack_ids`.
FLAG_REFERENCE = 64
# Flag of CALL: what the result yields goes to the host, in ITEMS.
FLAG_STREAM = 16

# Flag of CALL: made by a function that answers an ASK, so it is to run now, within the call that waits for that answer.
FLAG_NESTED = 128

# Flag of ASK: the target is the number of a function that came with the arguments, not the name of one.
FLAG_PASSED = 4

# Flag of ANSWER: the body is the snapshot of an error.
FLAG_RAISED = 16
# Flag of FORKED and REAPED: it could not be done; the number of FORKED is the system's error number then.
FLAG_FAILED = 1

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
    """Return call ids, or handles of objects, as they are in RETRACT, RETRACTED and RELEASE: 8 bytes each."""
    return b"".join([number.to_bytes(8, "little") for number in ids])


def read_ids(body: Body) -> list[int]:
    """Return the ids in the body of RETRACT, RETRACTED or RELEASE."""
    return [int.from_bytes(body[offset : offset + 8], "little") for offset in range(0, len(body), 8)]


def free_segments(numbers: list[int], flags: int) -> list[bytes | bytearray | memoryview]:
    """Return a SEGMENT_FREE frame."""
    return frames.pack(SEGMENT_FREE, flags, body=[pack_ids(numbers)])


TYPE_CHECKING = False
if TYPE_CHECKING:
    from .frames import Body
