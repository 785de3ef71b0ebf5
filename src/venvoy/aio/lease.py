"""`AsyncLease` and `AsyncNamedWorker`: those of `lease`, awaitable.

A lease owns its ticket, the turn of its calls, and the tasks that were submitted to it.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Coroutine, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, Self

from venvoy_worker.contract.frames import Frame

from ..calling import make_call, make_eval, placeholder
from ..errors import CallTimeout
from ..exchange import Call
from ..leases.hold import Hold, LeaseSeat
from ..leases.lease import HasWorker, NamedWorker, check_count
from ..options import CallOptions, Target
from ..pool.async_calls import exit_of
from ..pool.convoy import TaskTicket
from ..pool.core import Core
from ..pool.port import Port
from ..workers.lane import Lane, WorkerLost
from ..workers.nesting import place_on
from ..workers.post_mortem import crash_error
from ..workers.worker import Worker
from . import asyncio_port
from .faces import begun
from .streams import AsyncSeat, AsyncStream, TaskSeat

_DEFAULT_CALL = CallOptions()


class AsyncOneWorker(HasWorker):
    """What can be done with one worker; the base of asynchronous leases and named workers."""

    _core: Core
    _options: CallOptions
    _session: str

    async def call(self, target: Target, /, *args: Any, **kwargs: Any) -> Any:
        """Run a target on this worker and return its result; as `AsyncPool.call`."""
        return await self._run(make_call(target, args, kwargs, self._options, self._core.table))

    def submit(self, target: Target, /, *args: Any, **kwargs: Any) -> asyncio.Task[Any]:
        """Run a target on this worker, after what was submitted before, and return a task that has its result."""
        return begun(self._run, make_call, target, args, kwargs, self._options, self._core.table)

    async def eval(self, text: str, /, **values: Any) -> Any:
        """Evaluate text on this worker, in a namespace that lasts as long as it is held; as `AsyncPool.eval`."""
        return await self._run(make_eval(text, values, "eval", self._session, self._options))

    async def exec(self, text: str, /, **values: Any) -> Any:
        """Execute text on this worker, in a namespace that lasts as long as it is held; as `AsyncPool.exec`."""
        return await self._run(make_eval(text, values, "exec", self._session, self._options))

    def stream(self, target: Target, /, *args: Any, **kwargs: Any) -> AsyncStream:
        """Run a target that yields, on this worker; an asynchronous iterator of its items, as `AsyncPool.stream`.

        Nothing else can run here before it is exhausted or closed.
        """
        call = make_call(target, args, kwargs, self._options, self._core.table)
        port = asyncio_port.running()
        return AsyncStream(self._core, self._seat(port), port, call, self)

    def _run(self, call: Call) -> Coroutine[Any, Any, Any]:
        raise NotImplementedError

    def _seat(self, port: Port) -> AsyncSeat:
        raise NotImplementedError


class _TaskHold(Hold):
    """What a lease and its views share: besides the ticket, whose turn it is, and what was submitted."""

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self.gate = asyncio.Lock()  # one call at a time on the worker's channel, first come, first served
        self.tasks: set[asyncio.Task[Any]] = set()

    async def take(self, timeout: float | None, port: Port) -> None:
        """Wait for a worker."""
        calls = self.core.async_calls
        self.ticket = calls.ticket(port)
        self.ticket.is_whole = self.core.roster.concurrency > 1
        self._claims = port.claims
        try:
            self.lane = await calls.acquire(self.ticket, placeholder("lease()", CallOptions(timeout=timeout)))
        except BaseException:
            del self._claims[self.ticket]
            raise
        self.lane.worker.is_leased = True

    def drop(self) -> None:
        """Give the worker back, although the lease has not ended."""
        self._claims.pop(self.ticket, None)
        self.core.engine.give_up(self.ticket)

    async def once(self, call: Call, port: Port) -> Frame:
        """Run a call when it is its turn, and return its reply."""
        place = place_on((self.living(),))
        if place is not None:  # the worker waits for an answer of this very task, whose turn it is
            return await self.core.async_calls.run_within(place, call, port)
        self.check_streams()
        await self.take_turn(call)
        try:
            self.living()
            return await self.core.async_calls.run_on(self.ticket, call, port)
        finally:
            self.gate.release()

    async def take_turn(self, call: Call) -> None:
        """Wait until it is the turn of a call; the gate has to be released then.

        Raises:
            CallTimeout: its deadline passed first.
        """
        async with asyncio.timeout(None if call.deadline is None else max(0.0, call.deadline - monotonic())) as scope:
            try:
                await self.gate.acquire()
            except asyncio.CancelledError as error:
                if scope.expired():
                    raise self.core.engine.timed_out(call, error) from None
                raise

    async def finish(self, error: BaseException | None) -> None:
        """Finish what was submitted, or stop it after an error, and give the worker back."""
        try:
            for task in self.tasks if error is not None else ():
                task.cancel()
            if not isinstance(error, GeneratorExit):  # then nothing can be awaited any more
                if self.tasks:
                    await asyncio.wait(self.tasks)
                if self.stream is not None:
                    self.stream.leave()
                async with self.gate:  # once the collector has seen to the stream's end
                    pass
        except BaseException:
            for task in self.tasks:
                task.cancel()
            raise
        finally:
            self._claims.pop(self.ticket, None)
            self.end(is_error=error is not None)


class _LeaseTaskSeat(LeaseSeat):
    """The turn of a stream on the lane of an asynchronous lease."""

    _hold: _TaskHold

    async def take_on(self, call: Call) -> Lane:
        """Wait until it is the stream's turn."""
        hold = self._hold
        hold.check_streams()
        self._loop = asyncio.get_running_loop()
        await hold.take_turn(call)
        try:
            self._lane = hold.living()
        except BaseException:
            hold.gate.release()
            raise
        hold.stream = self
        return self._lane

    async def lose_on(self, lost: WorkerLost, may_repeat: bool) -> None:
        """The worker is gone, and with it the lease."""
        self._hold.core.engine.give_up(self._hold.ticket)
        self._release()
        await exit_of(lost.worker, asyncio_port.running())
        raise crash_error(lost) from None

    def _release(self) -> None:
        """From any thread."""
        try:
            if asyncio._get_running_loop() is self._loop:
                self._let_go()
            else:
                self._loop.call_soon_threadsafe(self._let_go)
        except RuntimeError:  # the loop is closed, and with it the lease
            pass

    def _let_go(self) -> None:
        hold = self._hold
        if hold.stream is self:
            hold.stream = None
            hold.gate.release()


class AsyncLease(AsyncOneWorker):
    """Exclusive use of one worker; made by `AsyncPool.lease()`, used in an `async with`. See `Lease`.

    Args:
        core: the pool.
        timeout: seconds to wait for a worker; None waits for as long as it takes.
        options: of its calls.
    """

    def __init__(self, core: Core, timeout: float | None, options: CallOptions = _DEFAULT_CALL) -> None:
        self._timeout = timeout
        self._core = core
        self._options = options
        self._hold = _TaskHold(core)
        self._session = self._hold.session
        self._parent: AsyncLease | None = None

    async def __aenter__(self) -> Self:
        await self._hold.take(self._timeout, asyncio_port.running())
        # For a lease whose end is never reached: then the collector takes the worker back.
        self._end = weakref.finalize(self, self._hold.drop)
        self._end.atexit = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._hold.finish(error)
        self._end.detach()

    def submit(self, target: Target, /, *args: Any, **kwargs: Any) -> asyncio.Task[Any]:
        """Run a target on this worker, after what was submitted before, and return a task that has its result."""
        self._living()
        tasks, task = self._hold.tasks, super().submit(target, *args, **kwargs)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    def options(self, **options: Any) -> AsyncLease:
        """Return a view of this lease with other `CallOptions`; as `Pool.options`."""
        view = AsyncLease.__new__(AsyncLease)
        view._timeout, view._hold, view._session = self._timeout, self._hold, self._session
        view._core = self._core
        view._options = self._options.replaced(**options)
        view._parent = self  # which ends the lease when nobody has it any more
        return view

    def _run(self, call: Call) -> Coroutine[Any, Any, Any]:
        return self._core.async_calls.result(call, self._hold.once, asyncio_port.running())

    def _seat(self, port: Port) -> AsyncSeat:
        return _LeaseTaskSeat(self._hold)

    def _living(self) -> Worker:
        return self._hold.living().worker


@asynccontextmanager
async def gather(
    core: Core, count: int, timeout: float | None, options: CallOptions
) -> AsyncIterator[list[AsyncLease]]:
    """Hold up to `count` workers of a pool at once, for an `async with` block; as `lease.gather`."""
    check_count(core, count)
    deadline = None if timeout is None else monotonic() + timeout
    turn = core.gathering
    port = asyncio_port.running()
    ticket = TaskTicket(port)
    port.claims[ticket] = lambda ticket: core.call_soon(partial(turn.leave, ticket))
    async with AsyncExitStack() as held:
        leases: list[AsyncLease] = []
        try:
            if not turn.take(ticket) and not await ticket.event.wait(timeout):
                raise CallTimeout("leases(): no worker was free before the deadline")
            while len(leases) < count:
                left = None if deadline is None else max(0.0, deadline - monotonic())
                leases.append(await held.enter_async_context(AsyncLease(core, left, options)))
        except CallTimeout:
            if not leases:
                raise
        finally:
            turn.leave(ticket)
            del port.claims[ticket]
        yield leases


class AsyncNamedWorker(AsyncOneWorker):
    """A worker with a name and a state of its own; made by `AsyncPool.named()`. See `NamedWorker`.

    Args:
        worker: its blocking face.
    """

    def __init__(self, worker: NamedWorker) -> None:
        self._worker = worker
        self._core, self._options, self._session = worker._core, worker._options, worker._session
        self.name = worker.name

    def options(self, **options: Any) -> AsyncNamedWorker:
        """Return a view of this worker with other `CallOptions`; as `Pool.options`."""
        return AsyncNamedWorker(self._worker.options(**options))

    def terminate(self) -> None:
        """End the worker: cancel what it does, SIGTERM, SIGKILL after the grace period; the name is free at once."""
        self._worker.terminate()

    def kill(self) -> None:
        """End the worker at once; a call running on it raises `WorkerCrashed`; the name is free."""
        self._worker.kill()

    async def object(self, target: Target, /, *args: Any, **kwargs: Any) -> Any:
        """Make an object on this worker and return a proxy of it; as `AsyncPool.object`."""
        return await asyncio.to_thread(self._worker.object, target, *args, **kwargs)

    def output(self, stream: str | None = None) -> str:
        """Return the worker's last output as text; `stream` is "stdout" or "stderr", both by default."""
        return self._worker.output(stream)

    def _run(self, call: Call) -> Coroutine[Any, Any, Any]:
        calls = self._core.async_calls
        return calls.result(call, calls.run, asyncio_port.running())

    def _seat(self, port: Port) -> AsyncSeat:
        return TaskSeat(self._core, port)

    def _living(self) -> Worker:
        return self._worker._living()

    def __repr__(self) -> str:
        return f"<venvoy.AsyncNamedWorker {self.name!r}>"


class Naming:
    """A named worker that is about to be had: await it, or use it in an `async with`, which does not end the worker."""

    def __init__(self, begin: Coroutine[Any, Any, NamedWorker]) -> None:
        self._begin = begin

    def __await__(self) -> Generator[Any, Any, AsyncNamedWorker]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> AsyncNamedWorker:
        return AsyncNamedWorker(await self._begin)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """It outlives the block."""
