"""asyncio as a port of the driver: one epoll set for each loop, one reader on the loop for all workers.

Owns the set and who waits for what in it. A descriptor is armed for one event (EPOLLONESHOT), which is one system call,
where `add_reader` and `remove_reader` of a loop are two and some Python. Whoever waits for it goes on in the turn of
the loop that sees the event. Law: a port lives as long as its loop keeps its reader; a loop that is closed drops the
reader, and what its tasks had is given up then.
"""

from __future__ import annotations

import asyncio
import select
import weakref
from asyncio import events as _events
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context
from time import monotonic
from types import coroutine
from typing import Any, TypeVar

from ..collector import tell_after_fork
from ..pool.port import HasFileno
from ..pool.roster import Ticket

T = TypeVar("T")
_READ, _WRITE = select.EPOLLIN | select.EPOLLONESHOT, select.EPOLLOUT | select.EPOLLONESHOT
_MOST_EVENTS = 64  # of one turn; the default makes room for a thousand each time


class _Sleep:
    """What one task waits for in the set: as much of a future as asyncio asks of what a task yields.

    A future lets its task go on in the next turn of the loop, which takes as long as all that we do for a call.
    """

    __slots__ = ("_asyncio_future_blocking", "_cancelled", "_context", "_loop", "_wake", "is_late", "source")

    def __init__(self, loop: asyncio.AbstractEventLoop, source: HasFileno | None) -> None:
        self._loop = loop
        self.source = source
        self._wake: Callable[[_Sleep], object] | None = None  # the task, until it is told to go on
        self._asyncio_future_blocking = True  # as `asyncio.isfuture` has it: it is about to be yielded
        self._cancelled: asyncio.CancelledError | None = None  # what the task is to raise
        self.is_late = False

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop of the task."""
        return self._loop

    def add_done_callback(self, callback: Callable[[_Sleep], object], *, context: Context) -> None:
        """Of the task: it sleeps now."""
        self._wake, self._context = callback, context

    def cancel(self, msg: object = None) -> bool:
        """Of the task: it is cancelled; return False if it has been told to go on.

        Args:
            msg: goes with the error; by it a cancel scope of anyio knows its own.
        """
        if self._wake is None or self._cancelled is not None:
            return False
        self._cancelled = asyncio.CancelledError(*(() if msg is None else (msg,)))
        self._loop.call_soon(self.wake)  # not now: whoever cancels may be a task that runs
        return True

    def result(self) -> None:
        """Of the task: it goes on."""
        if self._cancelled is not None:
            raise self._cancelled

    def expire(self) -> None:
        """The time is over."""
        self.is_late = True
        self.wake()

    def wake(self) -> None:
        """Let the task go on, here and now; called by the loop itself, never by a task."""
        wake, self._wake = self._wake, None
        if wake is not None:
            self._context.run(wake, self)


class AsyncioPort:
    """The port of one loop; `running()` returns that of the running one."""

    def __init__(self) -> None:
        self.claims: dict[Ticket, Callable[[Ticket], object]] = {}
        self._epoll = select.epoll()
        self._sleepers: dict[int, _Sleep] = {}  # by the descriptor that is armed for them
        self._left: HasFileno | None = None  # is armed for reading, too, though nobody waits for it at the moment
        tell_after_fork(self)

    def wait_readable(self, source: HasFileno, deadline: float | None) -> Awaitable[None]:
        """Sleep until `source` can be read; `TimeoutError` at the deadline."""
        return self._wait(source.fileno(), _READ, deadline, source)

    def wait_writable(self, fd: int, deadline: float | None) -> Awaitable[None]:
        """Sleep until `fd` can be written; `TimeoutError` at the deadline."""
        return self._wait(fd, _WRITE, deadline)

    async def until(self, deadline: float, work: Coroutine[Any, Any, T]) -> T:
        """Run code of the user's; `TimeoutError` at the deadline, at which it is cancelled."""
        async with asyncio.timeout(max(0.0, deadline - monotonic())):
            return await work

    def bell(self) -> AsyncioBell:
        """Return a bell for the running task."""
        return AsyncioBell()

    @coroutine
    def _wait(
        self, fd: int, events: int, deadline: float | None, source: HasFileno | None = None
    ) -> Generator[_Sleep, None, None]:
        loop = _events.get_running_loop()
        is_armed = source is not None and self._left is source
        if is_armed:
            self._left = None
        sleep = self._sleepers[fd] = _Sleep(loop, source)
        timer = None if deadline is None else loop.call_later(max(0.0, deadline - monotonic()), sleep.expire)
        try:
            if not is_armed:
                self._arm(fd, events)
            yield sleep
        finally:
            if timer is not None:
                timer.cancel()
            if self._sleepers.get(fd) is sleep:
                self._disarm(fd)
        if sleep.is_late:
            raise TimeoutError

    def _arm(self, fd: int, events: int) -> None:
        try:
            self._epoll.modify(fd, events)
        except FileNotFoundError:  # the first time
            self._epoll.register(fd, events)

    def _disarm(self, fd: int) -> None:
        del self._sleepers[fd]
        try:
            self._epoll.modify(fd, select.EPOLLONESHOT)
        except (OSError, ValueError):  # it was never armed, or we are in a forked child
            pass

    def on_events(self) -> None:
        """On the loop: let everybody go on whose descriptor is ready now."""
        sleepers = self._sleepers
        if len(sleepers) == 1 and self._left is None:  # nothing else is armed: no need to ask what the event is,
            fd, sleep = sleepers.popitem()
            self._left = sleep.source
            if sleep.source is not None:  # nor to arm it anew for the next time
                sleep.wake()
                return
            sleepers[fd] = sleep
        if self._left is not None and self._left.fileno() < 0:  # closed meanwhile: its event will never come
            self._left = None
        ready: list[_Sleep | None] = []
        for fd, _ in self._epoll.poll(0, _MOST_EVENTS):
            if self._left is not None and self._left.fileno() == fd:
                self._left = None
            ready.append(sleepers.pop(fd, None))
        self._wake_all([sleep for sleep in ready if sleep is not None])

    def _wake_all(self, sleeps: list[_Sleep]) -> None:
        try:
            while sleeps:
                sleeps.pop().wake()
        except BaseException:  # what ends the loop's run went through a task: the others go on when it runs again
            _events.get_running_loop().call_soon(self._wake_all, sleeps)
            raise

    def fileno(self) -> int:
        """Return the descriptor of the set, which the loop reads."""
        return self._epoll.fileno()

    def end(self) -> None:
        """The loop was closed: give up what its tasks have. From a finalizer."""
        self._epoll.close()
        self._sleepers.clear()
        while self.claims:
            ticket, give_up = self.claims.popitem()
            give_up(ticket)

    def after_fork_in_child(self) -> None:
        """In a process the host forked: the kernel's set is the parent's, and must not be changed."""
        self._epoll.close()


class AsyncioBell:
    """What a task sleeps on; see `port.Bell`."""

    __slots__ = ("_future", "_has_rung", "_loop")

    def __init__(self) -> None:
        self._loop = _events.get_running_loop()
        self._future: asyncio.Future[bool] | None = None  # while somebody sleeps
        self._has_rung = False

    def release(self) -> None:
        """Wake the task."""
        try:
            if _events._get_running_loop() is self._loop:
                self._ring()
            else:
                self._loop.call_soon_threadsafe(self._ring)
        except RuntimeError:  # the loop is closed, and `claims` are seen to
            pass

    def _ring(self) -> None:
        if self._future is None or self._future.done():
            self._has_rung = True
        else:
            self._future.set_result(True)

    def wait(self, seconds: float | None) -> Awaitable[bool]:
        """Sleep until it rings, at once if it has since the last time; return False when the time passes first."""
        self._future = future = self._loop.create_future()
        if self._has_rung:
            self._has_rung = False
            future.set_result(True)
        return future if seconds is None else _until(future, seconds)


async def _until(future: asyncio.Future[bool], seconds: float) -> bool:
    """Return what a future is set to, or False after so many seconds."""
    timer = _events.get_running_loop().call_later(max(0.0, seconds), _expire, future)
    try:
        return await future
    finally:
        timer.cancel()


def _expire(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)


_ports: dict[int, AsyncioPort] = {}  # by the id of their loop


def running() -> AsyncioPort:
    """Return the port of the running loop.

    Raises:
        RuntimeError: none is running.
    """
    loop = _events.get_running_loop()
    port = _ports.get(id(loop))
    if port is None:
        port = _ports[id(loop)] = AsyncioPort()
        reader = port.on_events
        loop.add_reader(port.fileno(), reader)
        weakref.finalize(reader, _end, id(loop), port).atexit = False
    return port


def _end(number: int, port: AsyncioPort) -> None:
    """The loop of that id has dropped its reader."""
    del _ports[number]
    port.end()
