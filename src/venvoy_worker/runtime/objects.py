"""Live objects behind proxies of the host: which there are, and how results come to be among them.

Owns the table from handle to object. Laws: a handle is given out once, in one reply, and is never used again, so that
releasing it twice does no harm; the host has been sent every handle in the table, or the call that made it is being
replied to (`disown` takes back those of a reply that is not sent); objects are let go between two calls on the main
thread, since their destructors are code of the user's.
"""

from __future__ import annotations

import os
from itertools import count

from ..contract import codec, messages, references
from . import interrupt, replies, travel
from .kinds import kind_of
from .operations import BATCH, COPY, KEEP, OPERATIONS, ORIGINS, READ, Batch, finished, is_new
from .targets import Gone

_table: dict[int, tuple[object, int]] = {}  # handle -> (object, id of the call in whose reply it was sent)
NOBODY = object()  # in place of the object that was asked
_handles = count(int.from_bytes(os.urandom(4), "little") << 32 | 1)  # not those of any other worker


def operate(target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[object, str, object]:
    """Do what a CALL of kind OBJECT says.

    Args:
        target: "HANDLE OPERATION", or "HANDLE .METHOD"; handle 0 is nobody's, and its operations make objects.

    Returns:
        The result, what is to become of it, and the object itself.

    Raises:
        Gone: there is no such object any more. Besides this, what the operation raises.
    """
    handle, _, name = target.partition(" ")
    if handle == "0":
        return ORIGINS[name](*args, **kwargs), KEEP, NOBODY
    found = _table.get(int(handle))
    if found is None:
        raise Gone("the object was released")
    subject = found[0]
    if name[0] == ".":
        return getattr(subject, name[1:])(*args, **kwargs), "", subject
    function, rule = OPERATIONS[name]
    if rule == READ and is_new(name, subject, args):
        rule = ""
    return function(subject, *args, **kwargs), rule, subject


def reply(
    result: object, rule: str, subject: object, call: Frame, limit: int | None
) -> tuple[codec.Encoded, int, bytes]:
    """Return body, flags and target of the reply with a result.

    Args:
        rule: what is to become of it: "" for the result of a call, or as the operation says.
        subject: the object that was asked; a result that is the same is said to be that.
        limit: the most bytes that a copy may have.

    Raises:
        CodecError: it is to travel, and cannot, or is too large.
    """
    if rule == BATCH:
        assert isinstance(result, Batch)
        return _reply_with_batch(result, call.call_id)
    if call.flags & messages.FLAG_KEEP:
        rule = KEEP
    if result is subject and rule != COPY and not travel.is_frozen(result):
        return codec.encode((0, 0, None)), messages.FLAG_REFERENCE, b""
    encoded = None
    if rule == COPY:
        encoded = replies.encode_result(result, limit)
    elif rule == "" or (rule == READ and travel.is_frozen(result)):
        encoded = travel.copy_of(result)
    if encoded is not None:
        return replies.within(encoded, result, limit), 0, b""
    reference, _ = _keep([result], call.call_id)
    return codec.encode(reference[0]), messages.FLAG_REFERENCE, messages.pack_ids([reference[0][0]])


def _reply_with_batch(batch: Batch, call_id: int) -> tuple[codec.Encoded, int, bytes]:
    items = batch.items
    staying = [index for index, item in enumerate(items) if not travel.is_frozen(item)]
    kept = [items[index] for index in staying] + ([] if batch.rest is None else [batch.rest])
    if not kept:
        return codec.encode((items, {}, None)), 0, b""
    made, handles = _keep(kept, call_id)
    rest = made.pop() if batch.rest is not None else None
    for index in staying:
        items[index] = None
    body = codec.encode((items, dict(zip(staying, made)), rest))
    return body, messages.FLAG_REFERENCE, messages.pack_ids(handles)


def _keep(values: list[Any], call_id: int) -> tuple[list[Reference], list[int]]:
    """Put objects into the table; return the references for the host, and their handles."""
    handles = [next(_handles) for _ in values]
    made = [(handle, *kind_of(value)) for handle, value in zip(handles, values)]
    for handle, value in zip(handles, values):
        _table[handle] = (value, call_id)
    return made, handles


def disown(call_id: int) -> None:
    """Forget what was put into the table for a reply that will not be sent."""
    for handle in reversed(list(_table)):
        if _table[handle][1] < call_id:
            break
        if _table[handle][1] == call_id:
            del _table[handle]


def release(handles: list[int]) -> None:
    """From any thread: the host has no proxy of these any more."""
    interrupt.do_soon(lambda: _let_go(handles))


def _let_go(handles: list[int]) -> None:
    for handle in handles:
        _table.pop(handle, None)


def size() -> int:
    """Return how many objects the host has proxies of, as far as is known here."""
    return len(_table)


__all__ = ["NOBODY", "disown", "finished", "operate", "release", "reply", "size"]

references.serve(_table.__getitem__)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Tuple

    from ..contract.frames import Frame
    from .kinds import Description

    Reference = Tuple[int, int, Optional[Description]]  # handle, number of its kind, description if it is new
