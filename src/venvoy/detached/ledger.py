"""The detached calls of one pool: which of them run here, who waits for them, what goes into the store.

Owns the table of calls that run in this process. Laws: a call is in the table until its reply is in the store; a reply
is put into the table before those who wait are woken, and whoever waits joins them before it looks; who takes a call
does so under the one lock, so one of many gets it. Waiting takes no lock, so an interrupt costs the waiter nothing but
its wait: the work goes on.
"""

from __future__ import annotations

import math
import os
import threading
from _thread import LockType, allocate_lock
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any

from venvoy_worker.contract import messages
from venvoy_worker.contract.frames import Frame

from .. import collector
from ..errors import CallCancelled, CallStoreError, PoolClosed, ResultNotReady, VenvoyError, WorkerCrashed
from ..exchange import Call, Convert
from ..log import logger
from ..pool.core import Core
from ..pool.jobs import CallFuture, Decoder, Job
from ..pool.phase import Phase
from .expiry import Expiry
from .patience import Patience, pauses
from .store import CallStore, DetachedCall, Pieces, unknown_call
from .stored import pack_failure, pack_reply, pack_request, unpack_reply, unpack_request

Settle = Callable[[Frame | None, BaseException | None], None]
_LOST = "the process that ran it has ended; a SqliteCallStore(resume=True) runs such calls again"


class _Future(CallFuture):
    """Of a detached call: nobody waits for it, but the ledger is told when it is done."""

    def __init__(self, settle: Settle) -> None:
        super().__init__()
        self._settle = settle

    def _complete(self, value: Any, error: BaseException | None) -> None:
        super()._complete(None, None)
        self._settle(value, error)


class _Job(Job):
    """A detached call in the queue, or on a worker."""

    __slots__ = ("_closed_error",)
    keeps_reply = True

    def __init__(self, call: Call, settle: Settle, closed_error: Callable[[], VenvoyError]) -> None:
        super().__init__(call)
        self.future = _Future(settle)
        self._closed_error = closed_error

    def cancel(self) -> None:
        """The pool ends without having run it."""
        self.fail(self._closed_error())


class _Running:
    """One call of the table."""

    __slots__ = ("is_settled", "job", "reply", "waiters")

    def __init__(self, job: _Job | None, reply: Pieces | None = None) -> None:
        self.job = job
        self.reply = reply  # the store has it too, unless it could not be written
        self.is_settled = reply is not None
        self.waiters: list[LockType] = []

    def wake(self) -> None:
        while self.waiters:
            self.waiters.pop().release()


class Ledger:
    """See the module.

    Args:
        core: of the pool that runs the calls.
        store: keeps them.
    """

    def __init__(self, core: Core, store: CallStore) -> None:
        self._core = core
        self._store = store
        self._running: dict[str, _Running] = {}
        self._taking = threading.Lock()  # who gets a call; the store is written under it
        self._patience = Patience()
        self._is_ending = False
        self._expiry = Expiry(core, store)
        collector.tell_after_fork(self)

    # --- the calls --------------------------------------------------------------------------

    def start(self, call: Call) -> str:
        """Run a call detached from its caller; return its id.

        Raises:
            PoolClosed, TooManyWaiting: the pool takes no calls, or not so many.
            CallStoreError: it cannot be kept.
        """
        id = os.urandom(16).hex()
        self._store.add(id, call.name, pack_request(call))
        try:
            self._run(id, call)
        except BaseException:  # nobody will know its id
            self._running.pop(id, None)
            self._store.take(id)
            raise
        return id

    def result(self, id: str, timeout: float | None, convert: Convert | None) -> Any:
        """Wait for the result of a call, take it from the store, and return it.

        Raises:
            As `DetachedCalls.result`.
        """
        reply = self._awaited(id, timeout)
        value, error, is_whole = _decoded(reply, self._core.decoder, convert)
        if not is_whole:
            raise error  # type: ignore[misc]
        self._take(id, reply)
        if error is not None:
            raise error
        return value

    def look(self, id: str, convert: Convert | None) -> tuple[bool, Any, BaseException | None]:
        """Return (whether it is done, its value, its error)."""
        reply = self._reply(id)
        return (False, None, None) if reply is None else (True, *_decoded(reply, self._core.decoder, convert)[:2])

    def cancel(self, id: str) -> bool:
        """Stop a call that waits or runs here; return False if there is nothing to stop.

        Raises:
            UnknownCall: there is no such call.
        """
        if id not in self._running:
            self._reply(id)  # which takes over what a dead host has left
        running = self._running.get(id)
        if running is None or running.job is None or running.is_settled or not running.job.future.cancel():
            return False
        if running.job.future.cancelled():  # it will never run, and nobody else will say so
            self._settle(id, None, CallCancelled(f"{running.job.call.name} was cancelled before it ran"))
        return True

    def entries(self) -> list[DetachedCall]:
        """Return the calls that are kept, the oldest first."""
        found = self._store.entries()
        for number, entry in enumerate(found):
            running = self._running.get(entry.id)
            if (
                running is not None and running.reply is not None and entry.state == "pending"
            ):  # it could not be written
                found[number] = replace(entry, state="failed" if _failed(running.reply) else "done")
        return found

    def after_fork_in_child(self) -> None:
        """In a process the host forked: whoever held the locks is not here."""
        self._taking = threading.Lock()
        forget = getattr(self._store, "after_fork_in_child", None)
        if forget is not None:
            forget()

    # --- waiting ------------------------------------------------------------------------------

    def join(self, id: str, waiter: LockType) -> bool:
        """Let `waiter.release()` be called when a call is done or the pool ends; False if there is nothing to wait for.

        Args:
            waiter: a lock that is held, or anything else with that method; give it to `leave` afterwards.
        """
        running = self._running.get(id)
        if running is None:
            return False
        running.waiters.append(waiter)
        return not (running.is_settled or self.is_over)

    def leave(self, id: str, waiter: LockType) -> None:
        """Wait no longer."""
        running = self._running.get(id)
        if running is not None:
            try:
                running.waiters.remove(waiter)
            except ValueError:  # it was woken
                pass

    def _awaited(self, id: str, timeout: float | None) -> Pieces:
        """Wait for the reply of a call; for one that runs elsewhere the store is looked into now and then."""
        deadline = math.inf if timeout is None else monotonic() + timeout
        for pause in pauses():
            is_here = id in self._running
            reply = None if is_here else self._reply(id)
            if reply is None and (is_here or id in self._running):  # from now on: its host has ended
                self._await(id, deadline)
                reply = self._reply(id)
            if reply is not None:
                return reply
            if self.is_over:
                raise self._core.roster.closed_error()
            left = deadline - monotonic()
            if left <= 0:
                raise ResultNotReady(f"detached call {id} is run by another process or pool, and has not finished yet")
            self._patience.wait(min(pause, left))
        raise AssertionError  # there is always another pause

    def _await(self, id: str, deadline: float) -> None:
        """Wait for a call that runs here."""
        waiter = allocate_lock()
        waiter.acquire()
        try:
            if self.join(id, waiter):
                waiter.acquire(True, min(max(0.0, deadline - monotonic()), threading.TIMEOUT_MAX))
                if self.is_over:  # also if there is a reply by now: it is kept, for whoever asks again
                    raise self._core.roster.closed_error()
        finally:
            self.leave(id, waiter)
        running = self._running.get(id)
        if running is not None and running.reply is None and self.is_over:
            raise self._core.roster.closed_error()
        if running is not None and running.reply is None:
            raise ResultNotReady(f"detached call {id} has not finished yet; it goes on")

    @property
    def is_over(self) -> bool:
        """True when nobody is to wait any longer."""
        return self._is_ending or self._core.roster.phase in (Phase.CLOSING, Phase.CLOSED)

    # --- replies --------------------------------------------------------------------------------

    def _reply(self, id: str) -> Pieces | None:
        """Return the reply of a call; None while there is none.

        Raises:
            UnknownCall: there is no such call.
        """
        if not isinstance(id, str):
            raise TypeError(f"the id of a detached call is a str, not {id!r}")
        running = self._running.get(id)
        if running is not None and running.reply is not None:
            return running.reply
        reply = self._store.find(id)
        if reply is None and running is None:  # the host that ran it may have ended
            self.resume()
            running = self._running.get(id)
            reply = self._store.find(id) if running is None else running.reply
        return reply

    def _take(self, id: str, reply: Pieces) -> None:
        """Remove a call, whose result is about to be returned.

        Raises:
            UnknownCall: somebody else has taken it.
        """
        with self._taking:
            kept = self._running.pop(id, None)
            try:
                is_mine = self._store.take(id) or kept is not None
            except BaseException as error:
                if kept is None and not isinstance(error, Exception):  # Ctrl-C, and it may have been removed
                    kept = _Running(None, reply)
                if kept is not None:
                    self._running[id] = kept
                raise
        if not is_mine:
            raise unknown_call(id)

    # --- what becomes of them ---------------------------------------------------------------

    def _run(self, id: str, call: Call) -> None:
        job = _Job(call, partial(self._settle, id), self._core.roster.closed_error)
        self._running[id] = _Running(job)
        self._core.calls.enqueue(job)

    def _settle(self, id: str, frame: Frame | None, error: BaseException | None) -> None:
        """A call is done: keep its reply, then wake those who wait. On whatever thread completes it."""
        running = self._running.get(id)
        if running is None:  # whoever started it was interrupted, and nobody knows the id
            return
        try:
            if frame is None and isinstance(error, PoolClosed) and self._store.resumes:
                self._store.release(id)  # it is unfinished, for whoever comes next
                self._running.pop(id, None)
            else:
                running.reply = pack_reply(frame) if frame is not None else pack_failure(error or PoolClosed())
                self._write(id, running)
        except Exception as problem:  # a store of somebody else's may raise anything
            logger.error("detached call %s is done, and its reply is kept in memory only: %s", id, problem)
            running.reply = running.reply or pack_failure(problem)
        running.is_settled = True
        running.wake()
        self._expiry.begin(self._store.ttl)

    def _write(self, id: str, running: _Running) -> None:
        assert running.reply is not None
        self._store.finish(id, running.reply, _failed(running.reply))
        self._running.pop(id, None)

    def resume(self) -> None:
        """Run again, here, what hosts that have ended left unfinished, or say of it that it failed."""
        if self.is_over:
            return
        orphans = self._store.adopt()
        while orphans:
            id, request = orphans.pop(0)
            try:
                if self._store.resumes:
                    self._run(id, unpack_request(request))
                else:
                    self._store.finish(id, pack_failure(WorkerCrashed(f"detached call {id}: {_LOST}")), True)
            except CallStoreError as damage:
                self._store.finish(id, pack_failure(damage), True)
            except VenvoyError as error:  # the pool is closed, or takes no more for now
                logger.info("detached calls wait to be run again: %s", error)
                for left, _ in [(id, request), *orphans]:
                    self._running.pop(left, None)
                    self._store.release(left)
                return

    def end(self) -> None:
        """The pool ends: wake everybody who waits."""
        self._is_ending = True
        for running in list(self._running.values()):
            running.wake()
        self._patience.end()

    def flush(self) -> None:
        """Try once more to write the replies that are in memory only."""
        for id, running in list(self._running.items()):
            try:
                if running.reply is not None:
                    self._write(id, running)
            except CallStoreError as problem:
                logger.error("the reply of detached call %s is lost: %s", id, problem)


def begin(ledger: Ledger) -> None:
    """The pool begins; what is wrong with its store is an error of those who ask for detached calls only."""
    try:
        ledger.resume()
    except Exception as problem:  # a store of somebody else's may raise anything
        logger.error("detached calls are not run again: %s", problem)


def _decoded(reply: Pieces, decoder: Decoder, convert: Convert | None) -> tuple[Any, BaseException | None, bool]:
    """Return (value, error, whether that is what the call came to: a value that cannot be decoded is not)."""
    frame = unpack_reply(reply)
    if isinstance(frame, VenvoyError):
        return None, frame, True
    value, error = decoder.outcome(frame, convert)
    return value, error, error is None or frame.opcode == messages.ERROR


def _failed(reply: Pieces) -> bool:
    return bytes(reply[0][:1]) != bytes([messages.RESULT])
