"""Objects in workers as the host holds them: references, and the residence that all those of one worker share.

A `Residence` owns the handles of its worker's objects that this process refers to, and whether they are lost. Laws: a
handle is released once no `Reference` has it, and again does no harm; finalizers only append to a deque and wake the
collector, which releases over the control socket; whatever leaves an operation early appends its call to a deque, and
the collector releases what its reply would have brought; a timed-out operation ends the residence, since nobody knows
in what state it has left the objects.
"""

from __future__ import annotations

from _thread import get_ident
from collections import deque
from collections.abc import Callable
from typing import Any

from venvoy_worker.contract import frames, messages
from venvoy_worker.contract.frames import Frame
from venvoy_worker.contract.loans import Loans

from ..errors import CallTimeout, PoolClosed, StaleProxy, WorkerCrashed, WorkerError
from ..exchange import Call, Pieces
from ..pool.core import Core
from ..workers.worker import Worker

_MOST_HANDLES = 500  # in one frame of the control socket, which has to fit into its buffer at once
_MOST_KINDS = 2000
_PATIENCE = 0.05  # seconds, when that buffer is full

lent: dict[int, list[Reference]] = {}  # by thread: references that what it encodes now holds


class Operation(Call):
    """A call of kind OBJECT; it knows its number, so that it can be stopped by others than its caller."""

    __slots__ = ("id", "is_given_up")

    id: int
    is_given_up: bool

    def request(self, call_id: int, loans: Loans | None = None, flags: int = 0) -> Pieces:
        """Return the CALL frame under the id it has on one worker.

        Raises:
            CallTimeout: it was given up while it waited.
        """
        self.id = call_id
        if self.is_given_up:
            raise self.timeout_error()
        return super().request(call_id, loans, flags)

    def stop(self, worker: Worker) -> None:
        """Give it up: stop it if it runs on its worker; else it never will."""
        self.is_given_up = True
        if self.id:
            worker.lanes[self.id >> frames.LANE_SHIFT].stop_call(self.id)


class Kind:
    """What objects of one class have in common.

    Args:
        description: as the worker sends it: name, special methods, attributes that can be called without fetching.
    """

    __slots__ = ("face", "members", "name", "specials")

    def __init__(self, description: tuple[str, frozenset[str], frozenset[str]]) -> None:
        self.name, self.specials, self.members = description
        self.face: type | None = None  # the class of its proxies

    def without(self, member: str) -> Kind:
        """Return the kind of an object that has an attribute of its own in place of a method."""
        kind = Kind((self.name, self.specials, self.members - {member}))
        kind.face = self.face
        return kind


class Residence:
    """See the module.

    Args:
        core: the pool.
        worker: of it, the one.
        run: runs a call there and returns its reply.
        handles: what keeps the worker from being replaced.
        on_empty: called on the collector thread when the last object was released.
    """

    def __init__(
        self,
        core: Core,
        worker: Worker,
        run: Callable[[Call], Frame],
        handles: set[int],
        on_empty: Callable[[], object],
    ) -> None:
        self.core = core
        self.worker = worker
        self.why = ""  # the objects are lost
        self.handles = handles
        self._run = run
        self._on_empty = on_empty
        self._kinds: dict[int, Kind] = {}
        self._gone: deque[int] = deque()  # handles that nobody has any more
        self._astray: deque[Call] = deque()  # whose caller left early
        self._is_flush_due = False

    # --- operations -----------------------------------------------------------------------

    def perform(self, call: Call, subject: Reference | None, is_batch: bool = False) -> Any:
        """Run a call here and return its result: a value, or a `Reference` to what has stayed.

        Args:
            subject: what was asked; a result that is the same object gives it back.
            is_batch: the result is some items of an iteration, and a reference to the rest of it or None.

        Raises:
            StaleProxy: the objects are lost.
            WorkerCrashed: the worker ended while it ran this.
            CallTimeout: the deadline passed. Besides these, what the operation raises.
        """
        try:
            frame = self._run(call)
            value, error = self.core.decoder.outcome(frame)
            if error is None:
                if is_batch:
                    return self._adopt_batch(value)
                return self.adopt(value, subject) if frame.flags & messages.FLAG_REFERENCE else value
        except BaseException as reason:
            self._astray.append(call)
            self._wake()
            raise self._explain(reason, call) from reason.__cause__
        finally:
            if call.dialogue is not None:
                call.dialogue.close()
        raise error

    def adopt(self, reference: Any, subject: Reference | None = None) -> Reference:
        """Return the reference that a reply describes as (handle, number of its kind, description or None)."""
        handle, number, description = reference
        if not handle:
            assert subject is not None
            return subject
        self.handles.add(handle)
        adopted = Reference(self, handle, subject)
        if description is not None:
            if len(self._kinds) > _MOST_KINDS:
                self._kinds.clear()
            self._kinds[number] = Kind(description)
        adopted.kind = self._kinds.get(number)
        return adopted

    def _adopt_batch(self, value: Any) -> tuple[list[Any], Reference | None]:
        items, staying, rest = value
        for index, reference in staying.items():
            items[index] = self.adopt(reference)
        return items, None if rest is None else self.adopt(rest)

    def _explain(self, error: BaseException, call: Call) -> BaseException:
        """Return what the caller of an operation is told, having noted what it means for the objects."""
        if isinstance(error, WorkerCrashed):
            self.end(str(error).partition("\n")[0])
            return error if error.started else StaleProxy(self.why)
        if isinstance(error, CallTimeout):
            if getattr(call, "id", 1):
                self.end(f"{error}; nobody knows in what state it has left the objects of that worker")
            return error
        if isinstance(error, PoolClosed) or type(error) is WorkerError:
            self.end(str(error))
            return StaleProxy(self.why)
        return error

    # --- the end of objects ---------------------------------------------------------------

    def release(self, handle: int) -> None:
        """From a finalizer: nobody refers to an object any more. Takes no lock."""
        self._gone.append(handle)
        if not self._is_flush_due:
            self._wake()

    def _wake(self) -> None:
        try:
            self._is_flush_due = True
            self.worker.call_soon(self._flush)
        except BaseException:  # an interrupt, perhaps before it was said: the next one shall say it
            self._is_flush_due = False
            raise

    def end(self, why: str) -> None:
        """Make all its proxies stale, and release what they stand for."""
        self.why = self.why or why
        self._gone.extend(list(self.handles))
        self._wake()

    def _flush(self) -> None:
        """On the collector thread: tell the worker what is released."""
        self._is_flush_due = False  # before the deques are emptied: whoever appends later wakes us again
        while self._astray:
            reply = self._astray.popleft().reply
            if reply is not None and reply.opcode == messages.RESULT and reply.flags & messages.FLAG_REFERENCE:
                self._gone.extend(messages.read_ids(reply.target))
        handles = [self._gone.popleft() for _ in range(len(self._gone))]
        had_some = bool(self.handles)
        self.handles.difference_update(handles)
        for start in range(0, len(handles), _MOST_HANDLES):
            body = messages.pack_ids(handles[start : start + _MOST_HANDLES])
            control = self.worker.control
            if not control.say(messages.RELEASE, body=body) and control.is_open:
                self._gone.extend(handles[start:])
                self.worker.call_later(_PATIENCE, self._flush)
                break
        if had_some and not self.handles:
            self._on_empty()


class Reference:
    """One object in a worker, kept alive there for as long as this lives here.

    Args:
        residence: where it lives.
        handle: its number there.
        origin: what it was got from, which says who keeps the pool alive.
    """

    __slots__ = ("handle", "is_root", "kind", "owner", "residence", "why")

    def __init__(self, residence: Residence, handle: int, origin: Reference | None = None) -> None:
        self.residence = residence
        self.handle = handle
        self.kind: Kind | None = None  # None: its description was lost with another reply
        self.why = ""  # it was closed
        self.is_root = False  # its worker is there for it alone
        self.owner: object = None if origin is None else origin.owner

    @property
    def staleness(self) -> str:
        """Why it is of no use any more, "" if it is."""
        return self.why or self.residence.why

    def perform(self, call: Call, is_batch: bool = False) -> Any:
        """Run an operation on it; as `Residence.perform`."""
        return self.residence.perform(call, self, is_batch)

    def target(self, operation: str) -> tuple[Reference, str]:
        """Return what an operation on it is sent to, and under which name.

        Raises:
            StaleProxy: there is no such object any more.
        """
        why = self.why or self.residence.why
        if why:
            raise StaleProxy(why)
        return self, operation

    def close(self, why: str) -> None:
        """Release it now."""
        if not self.staleness:
            self.why = why
            self.residence.release(self.handle)
        if self.is_root:
            self.residence.end(why)

    def __del__(self) -> None:
        try:
            if not self.why:
                self.residence.release(self.handle)
        except AttributeError:  # it was interrupted before it was made, or the interpreter is exiting
            pass


class Member(Reference):
    """An attribute of an object that is called without having been fetched; fetched for whatever else is done with it.

    Args:
        owner: the object.
        name: of its attribute.
        fetch: returns a reference to what the attribute is.
    """

    __slots__ = ("_fetch", "_fetched", "_name", "_of")

    def __init__(self, owner: Reference, name: str, kind: Kind, fetch: Callable[[Reference, str], Reference]) -> None:
        self.residence = owner.residence
        self.owner = owner.owner
        self.kind = kind
        self.why = ""
        self.is_root = False
        self._of = owner
        self._name = name
        self._fetch = fetch
        self._fetched: Reference | None = None

    @property
    def staleness(self) -> str:
        """Why it is of no use any more, "" if it is."""
        return self.why or self._of.staleness

    def target(self, operation: str) -> tuple[Reference, str]:
        """Return what an operation on it is sent to: a call goes to the object it is an attribute of.

        Raises:
            StaleProxy: there is no such object any more.
        """
        if self.why:
            raise StaleProxy(self.why)
        if operation == "__call__" and self._fetched is None:
            return self._of.target("." + self._name)
        return self.fetched().target(operation)

    def fetched(self) -> Reference:
        """Return a reference to what the attribute is."""
        if self._fetched is None:
            self._fetched = self._fetch(self._of, self._name)
        return self._fetched

    def close(self, why: str) -> None:
        """Release what was fetched."""
        self.why = self.why or why
        self._fetched = None

    def __del__(self) -> None:
        """Nothing: it has no handle of its own."""


def lend(reference: Reference) -> int:
    """Return the handle of a reference that is being encoded, and note it in `lent`: its call has to keep it alive.

    Raises:
        StaleProxy: there is no such object any more.
    """
    if isinstance(reference, Member):
        reference = reference.fetched()
    reference.target("")
    lent.setdefault(get_ident(), []).append(reference)
    return reference.handle


def borrowed() -> list[Reference] | None:
    """Return the references that what this thread has encoded holds."""
    return lent.pop(get_ident(), None)
