"""Several calls at once: each lane has a thread, which runs what is called; coroutines run on the main thread's loop.

Imported by workers with more than one lane only. Owns the event loop, the lanes' threads, and what each lane runs.
Laws: the thread of a lane is the only one that reads its channel, and it waits for a coroutine as it does for a
function, so a lane is served as the only one of other workers is; the loop runs until the last lane has ended. A call
is asked to stop, never interrupted: a coroutine is cancelled, a function may look at `is_cancelled()`.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from contextvars import Context, ContextVar, copy_context

import venvoy_worker as _face

from ..contract.frames import LANE_SHIFT, FrameError
from ..contract.host_functions import lines
from . import coroutines, targets

_MAIN = threading.get_ident()
_loop: asyncio.AbstractEventLoop
_context: Context  # of the main thread, with what an initializer has put there: calls begin with a copy
_running: dict[int, Running] = {}  # by lane: its call, or the last one
_around: list[int] = []  # calls that wait while others run within them, on their lanes
_cancelled: dict[int, int] = {}  # by lane: the call that was asked to stop last, which may not have begun


class Running:
    """A call, as its thread or task knows it."""

    __slots__ = ("id", "is_cancelled", "is_over", "task")

    def __init__(self, call_id: int) -> None:
        self.id = call_id
        self.is_cancelled = False
        self.is_over = False
        self.task: asyncio.Task[object] | None = None  # on the loop


_current: ContextVar[Running] = ContextVar("venvoy_call", default=Running(0))  # noqa: B039 - nobody changes that one


def open_loop() -> None:
    """In the main thread, before anything else: make the loop, and let coroutines and calls be known by it."""
    global _loop
    _loop = asyncio.new_event_loop()
    asyncio.set_event_loop(_loop)
    _face._current = _current.get
    targets.share()
    coroutines.finish_with(_finish)


def serve(servers: list[Callable[[], None]]) -> None:
    """In the main thread: run the loop until each lane has been served to its end.

    Args:
        servers: serve one lane each, until the host closes its channel.
    """
    global _context
    _context = copy_context()
    left = list(range(len(servers)))
    for index, server in enumerate(servers):
        threading.Thread(target=_serve, args=(server, left), name="venvoy-lane-%d" % index, daemon=True).start()
    while left:
        try:
            _loop.run_forever()
        except BaseException:  # sys.exit in a task: it is the error of its call, which has been told
            pass
    _close_loop()


def _serve(server: Callable[[], None], left: list[int]) -> None:
    if sys.version_info < (3, 10):
        asyncio.set_event_loop(_loop)  # where asyncio's locks ask for it when they are made, in modules say
    try:
        server()
    except (OSError, FrameError):  # the host has given up this lane
        pass
    finally:
        left.pop()
        _loop.call_soon_threadsafe(_loop.stop)


def _close_loop() -> None:
    """Let what is left on the loop end, as `asyncio.run` does."""
    tasks = asyncio.all_tasks(_loop)
    for task in tasks:
        task.cancel()
    _loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    _loop.run_until_complete(_loop.shutdown_asyncgens())
    _loop.close()


def run(call_id: int, function: Callable[..., object], args: Iterable[object], kwargs: dict[str, object]) -> object:
    """In a lane's thread: return `function(*args, **kwargs)`, which knows itself by this call id.

    Raises:
        Cancelled: it was to stop before it began. Besides this, whatever the function raises.
    """
    lane = call_id >> LANE_SHIFT
    running = _running[lane] = Running(call_id)
    try:
        if _cancelled.get(lane) == call_id:
            raise _face.Cancelled("call %d was cancelled" % call_id)
        return _context.copy().run(_run, running, function, args, kwargs)
    finally:
        running.is_over = True
        if "venvoy_worker.runtime.printing" in sys.modules:
            sys.modules["venvoy_worker.runtime.printing"].finish(call_id)


def run_within(call_id: int, function: Callable[..., object], args: Iterable[object]) -> object:
    """As `run`, while another call of that lane waits."""
    lane = call_id >> LANE_SHIFT
    around = _running[lane]
    _around.append(around.id)
    try:
        return run(call_id, function, args, {})
    finally:
        _around.remove(around.id)
        _running[lane] = around


def is_open(call_id: int) -> bool:
    """Return True while a call runs, or waits for others that run within it."""
    running = _running.get(call_id >> LANE_SHIFT)
    return (running is not None and running.id == call_id and not running.is_over) or call_id in _around


def _run(running: Running, function: Callable[..., object], args: Iterable[object], kwargs: Any) -> object:
    _current.set(running)
    return function(*args, **kwargs)


def request(call_id: int) -> None:
    """From the control thread: ask a call to stop."""
    lane = call_id >> LANE_SHIFT
    _cancelled[lane] = call_id  # before the look at what runs, as a call that begins does it the other way round
    running = _running.get(lane)
    if running is not None and running.id == call_id:
        running.is_cancelled = True
        lines[lane].wake()
        _loop.call_soon_threadsafe(_cancel, running)


def _cancel(running: Running) -> None:
    if running.task is not None:
        running.task.cancel()


def _finish(coroutine: Any) -> object:
    """Run a coroutine on the loop, in the context of the thread that waits for it here."""
    if threading.get_ident() == _MAIN:  # an initializer's
        return _loop.run_until_complete(coroutine)
    running, ended = _current.get(), threading.Lock()
    ended.acquire()
    _loop.call_soon_threadsafe(_start, coroutine, running, ended)
    ended.acquire()
    task, running.task = running.task, None
    assert task is not None
    if running.is_cancelled and task.cancelled():
        raise _face.Cancelled("call %d was cancelled" % running.id)
    return task.result()


def _start(coroutine: Any, running: Running, ended: threading.Lock) -> None:
    task = running.task = _loop.create_task(coroutine)
    task.add_done_callback(lambda task: ended.release())
    if running.is_cancelled:
        task.cancel()


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable
