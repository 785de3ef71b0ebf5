"""asyncio as a port of the driver: one epoll set for each loop, one reader on the loop for all workers.

Owns the set and who waits for what in it. A descriptor is armed for one event (EPOLLONESHOT), which is one system call,
where `add_reader` and `remove_reader` of a loop are two and some Python. Law: a port lives as long as its loop keeps
its reader; a loop that is closed drops the reader, and what its tasks had is given up then.
"""

from __future__ import annotations

import asyncio
import select
import weakref
from asyncio import events as _events
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from ..collector import tell_after_fork
from ..pool.roster import Ticket

_READ, _WRITE = select.EPOLLIN | select.EPOLLONESHOT, select.EPOLLOUT | select.EPOLLONESHOT
_MOST_EVENTS = 64  # of one turn; the default makes room for a thousand each time


class AsyncioPort:
    """The port of one loop; `running()` returns that of the running one."""

    def __init__(self) -> None:
        self.claims: dict[Ticket, Callable[[Ticket], object]] = {}
        self._epoll = select.epoll()
        self._sleepers: dict[int, asyncio.Future[bool]] = {}
        tell_after_fork(self)

    def wait_readable(self, fd: int, deadline: float | None) -> Coroutine[Any, Any, None]:
        """Sleep until `fd` can be read; `TimeoutError` at the deadline."""
        return self._wait(fd, _READ, deadline)

    def wait_writable(self, fd: int, deadline: float | None) -> Coroutine[Any, Any, None]:
        """Sleep until `fd` can be written; `TimeoutError` at the deadline."""
        return self._wait(fd, _WRITE, deadline)

    def bell(self) -> AsyncioBell:
        """Return a bell for the running task."""
        return AsyncioBell()

    async def _wait(self, fd: int, events: int, deadline: float | None) -> None:
        future = self._sleepers[fd] = _events.get_running_loop().create_future()
        try:
            try:
                self._epoll.modify(fd, events)
            except FileNotFoundError:  # the first time
                self._epoll.register(fd, events)
            if not await (future if deadline is None else _until(future, deadline - monotonic())):
                raise TimeoutError
        finally:
            if self._sleepers.get(fd) is future:
                self._disarm(fd)

    def _disarm(self, fd: int) -> None:
        del self._sleepers[fd]
        try:
            self._epoll.modify(fd, select.EPOLLONESHOT)
        except (OSError, ValueError):  # it was never armed, or we are in a forked child
            pass

    def on_events(self) -> None:
        """On the loop: wake whoever waits for what is there now."""
        for fd, _ in self._epoll.poll(0, _MOST_EVENTS):
            future = self._sleepers.pop(fd, None)
            if future is not None and not future.done():
                future.set_result(True)

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

    __slots__ = ("_future", "_loop")

    def __init__(self) -> None:
        self._loop = _events.get_running_loop()
        self._future: asyncio.Future[bool] = self._loop.create_future()

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
        if not self._future.done():
            self._future.set_result(True)

    async def wait(self, seconds: float | None) -> bool:
        """Sleep until it rings; return False when the time passes first."""
        return await (self._future if seconds is None else _until(self._future, seconds))


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
