"""The one background I/O thread of the host process: control sockets, output, exits, abandoned exchanges, timers.

It moves raw bytes and nothing else: it never decodes a value, logs, forwards, starts a process, or runs user code,
because whatever it waits for, everything waits for. Laws: its callbacks are venvoy's own and do not block;
`call_soon` takes no lock, so that finalizers may use it; the thread lives while somebody holds it.
"""

from __future__ import annotations

import heapq
import os
import select
import selectors
import threading
import weakref
from collections import deque
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import Protocol

from .held import Held
from .log import logger

_MOST_TIMERS = 64  # before those that were cancelled are looked for


class Timer:
    """A callback of the collector at a later time; `cancel()` is safe from any thread and at any time."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self.when = when
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """Forget the callback, and what it refers to."""
        self.callback = None


class Collector:
    """The thread, its selector and its timers; use `hold()` to get the running one.

    Args:
        name: of the thread. A swarm of fed commands has one of its own, so that its bulk data delays no call.
        on_defect: called with what a callback raised, after it was logged.
    """

    def __init__(self, name: str = "venvoy-collector", on_defect: Callable[[Exception], object] | None = None) -> None:
        self._on_defect = on_defect
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._drain_wakes)
        self._soon: deque[Callable[[], object]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._sweep_at = _MOST_TIMERS
        self._order = count()
        self._replies = select.epoll()
        self._on_reply: dict[int, Callable[[], object]] = {}
        self._selector.register(self._replies, selectors.EVENT_READ, self._tell_replies)
        self._is_stopping = False
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.threads = [self.thread]
        self.thread.start()

    # From any thread.

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Run a callback on the collector thread. Takes no lock: finalizers may call it."""
        self._soon.append(callback)
        try:
            os.write(self._wake_writer, b"\0")
        except OSError:  # full (it will wake anyway), or closed: there is nothing left to do it for
            pass

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Run a callback on the collector thread `delay` seconds from now."""
        timer = Timer(monotonic() + delay, callback)
        self.call_soon(lambda: self._push(timer))
        return timer

    def arm(self, fd: int) -> None:
        """Call back once, as `expect` said, when `fd` can be read.

        Raises:
            OSError, ValueError: it is not expected any more.
        """
        self._replies.modify(fd, select.EPOLLIN | select.EPOLLONESHOT)

    def disarm(self, fd: int) -> None:
        """Undo `arm`; the callback may be on its way already.

        Raises:
            OSError, ValueError: it is not expected any more.
        """
        self._replies.modify(fd, select.EPOLLONESHOT)

    def stop(self) -> None:
        """Let the thread end after what is queued now."""
        self.call_soon(self._stop)

    # On the collector thread only.

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Call back whenever `fd` can be read."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def watch_room(self, fd: int, callback: Callable[[], object]) -> None:
        """Call back whenever `fd` can be written."""
        self._selector.register(fd, selectors.EVENT_WRITE, callback)

    def unwatch(self, fd: int) -> None:
        """Stop watching; harmless where it is not watched. To be done before `fd` is closed."""
        try:
            self._selector.unregister(fd)
        except (KeyError, ValueError):
            pass

    def expect(self, fd: int, callback: Callable[[], object]) -> None:
        """Say what `arm` is to call back, until `unexpect`."""
        self._on_reply[fd] = callback
        self._replies.register(fd, select.EPOLLONESHOT)

    def unexpect(self, fd: int) -> None:
        """Undo `expect`; harmless where it was not called. To be done before `fd` is closed."""
        if self._on_reply.pop(fd, None) is not None:
            self._replies.unregister(fd)

    def _tell_replies(self) -> None:
        for fd, _ in self._replies.poll(0):
            if fd in self._on_reply:
                self._guarded(self._on_reply[fd])

    def _push(self, timer: Timer) -> None:
        if len(self._timers) > self._sweep_at:  # mostly cancelled ones, whose time is far away
            self._timers = [entry for entry in self._timers if entry[2].callback is not None]
            heapq.heapify(self._timers)
            self._sweep_at = max(_MOST_TIMERS, 2 * len(self._timers))
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))

    def _stop(self) -> None:
        self._is_stopping = True

    def _drain_wakes(self) -> None:
        try:
            os.read(self._wake_reader, 4096)
        except BlockingIOError:
            pass

    def _run(self) -> None:
        while not self._is_stopping:
            for key, _ in self._selector.select(self._patience()):
                self._guarded(key.data)
            while self._soon:
                self._guarded(self._soon.popleft())
            self._run_due_timers()
        self.close()

    def _patience(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - monotonic()) if self._timers else None

    def _run_due_timers(self) -> None:
        now = monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            callback, timer.callback = timer.callback, None
            if callback is not None:
                self._guarded(callback)

    def _guarded(self, callback: Callable[[], object]) -> None:
        try:
            callback()
        except Exception as error:  # a defect of ours: it must not stop everybody's I/O
            logger.exception("internal error on thread %s", self.thread.name)
            if self._on_defect is not None:
                self._on_defect(error)

    def close(self) -> None:
        """Close the selector and the wake pipe; nothing is unregistered, since a fork shares the kernel's object."""
        self._selector.close()
        self._replies.close()
        for fd in (self._wake_reader, self._wake_writer):
            os.close(fd)
        self._wake_reader = self._wake_writer = -1


class Timers:
    """Timers that one owner forgets together."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._timers: list[Timer] = []

    def later(self, seconds: float, callback: Callable[[], object]) -> None:
        """Run a callback on the collector thread, unless `drop` comes first."""
        if len(self._timers) > _MOST_TIMERS:
            self._timers = [timer for timer in self._timers if timer.callback is not None]
        self._timers.append(self._collector.call_later(seconds, callback))

    def drop(self) -> None:
        """Forget them all."""
        timers, self._timers = self._timers, []
        for timer in timers:
            timer.cancel()


# --- the running one --------------------------------------------------------------------------

_held = Held(Collector)
hold, let_go = _held.hold, _held.let_go


# --- os.fork() in the host ----------------------------------------------------------------------


class Forked(Protocol):
    """Something with descriptors or threads that a forked child of the host does not own."""

    def after_fork_in_child(self) -> None:
        """Close the descriptors and forget the threads; the parent goes on with its own."""


_forked: weakref.WeakSet[Forked] = weakref.WeakSet()
opening = (
    threading.Lock()
)  # held from the first descriptor of a worker until it is told after forks; a fork waits for it
_forker = 0  # the thread that holds it because it forks
_FORK_PATIENCE = 5.0  # seconds; a spawn that hangs, on a network file system say, must not hang those who fork


def tell_after_fork(thing: Forked) -> None:
    """Let `thing.after_fork_in_child()` be called in every process the host forks."""
    _forked.add(thing)


def _before_fork() -> None:
    global _forker
    if opening.acquire(timeout=_FORK_PATIENCE):
        _forker = threading.get_ident()


def _after_fork_in_parent() -> None:
    global _forker
    if _forker == threading.get_ident():
        _forker = 0
        opening.release()


def _after_fork_in_child() -> None:
    global _forker, opening
    opening, _forker = threading.Lock(), 0
    last = _held.forget()
    for thing in list(_forked):
        try:
            thing.after_fork_in_child()
        except Exception:  # a defect of ours: the others' descriptors have to be closed all the same
            logger.exception("internal error after a fork")
    if last is not None:
        last.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
