"""Interrupt the call that runs, and nothing else.

Owns the armed region: the stretch in which user code of one call runs. The control thread asks with `request`; a
signal then reaches the main thread, whose handler raises `Cancelled` only inside the armed region of that very
call. Laws: the handler never writes; it forgets the request before it raises, so that one request raises once;
the armed region lies inside one `try`, whose `finally` disarms, so that nothing can escape between calls.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the module `signal` imports enum
import _thread

import venvoy_worker as _face

_SIGNAL = _signal.SIGURG  # ignored by default, and used by nobody for anything else
_SHIELDED = -1  # in place of a call's id: nothing of the user's is to run now, though a call does
_armed = 0
_requested = 0
_around: tuple[int, ...] = ()  # calls that wait for the answer to a question, and within which the newest runs
_has_struck = False  # an interrupt was raised in the call that runs, or ran last
_cut_import = False  # for good: what is half imported stays so
_main = _thread.get_ident()
chores: list[Callable[[], object]] = []  # what other threads want done between two calls


def install() -> None:
    """Install the handlers; called once, in the main thread."""
    global _main
    _main = _thread.get_ident()
    _signal.signal(_SIGNAL, _on_cancel)
    _signal.signal(_signal.SIGINT, _on_interrupt)


def run(call_id: int, function: Callable[..., object], args: Iterable[object], kwargs: dict[str, object]) -> object:
    """Return `function(*args, **kwargs)`, interruptible under this call id.

    Raises:
        Cancelled: `request(call_id)` came meanwhile. Besides this, whatever the function raises.
    """
    global _armed, _has_struck
    _face._call_id = call_id
    _has_struck = False
    try:
        try:
            _armed = call_id
            if call_id and _requested and _concerns(call_id):  # it was cancelled before it began
                _on_cancel(_SIGNAL, None)
            return function(*args, **kwargs)
        finally:
            _armed = 0  # a signal may come before this has been done,
    finally:
        _armed = 0  # but then not before this
        _face._call_id = 0


def run_within(call_id: int, function: Callable[..., object], args: Iterable[object]) -> object:
    """As `run`, while another call waits, whose interruption reaches this one too; threads cannot be interrupted."""
    global _armed, _around, _has_struck
    thread = _thread.get_ident()
    if thread != _main:
        return _run_elsewhere(thread, call_id, function, args)
    outer, has_struck = _face._call_id, _has_struck
    _around += (outer,)
    try:
        return run(call_id, function, args, {})
    finally:
        _armed = _SHIELDED
        _around = _around[:-1]
        _face._call_id, _has_struck = outer, has_struck


def _run_elsewhere(thread: int, call_id: int, function: Callable[..., object], args: Iterable[object]) -> object:
    outer = _face._call_ids.get(thread, 0)
    _face._call_ids[thread] = call_id
    try:
        return function(*args)
    finally:
        if outer:
            _face._call_ids[thread] = outer
        else:
            del _face._call_ids[thread]


def outermost() -> int:
    """Return the call of the main thread that all others there run within; 0 for none."""
    return _around[0] if _around else _face._call_id


def is_open(call_id: int) -> bool:
    """Return True while a call runs, or waits for others that run within it."""
    return call_id == _face._call_id or call_id in _around or call_id in _face._call_ids.values()


def shielded(function: Callable[..., object], *args: object) -> object:
    """Run something of our own in the middle of user code: an interrupt that comes meanwhile strikes after it."""
    global _armed
    call_id = _armed
    if not call_id or _thread.get_ident() != _main:
        return function(*args)
    _armed = _SHIELDED
    try:
        return function(*args)
    finally:
        _armed = call_id
        if _requested and _concerns(call_id):
            _on_cancel(_SIGNAL, None)


def exposed(function: Callable[..., object], *args: object) -> object:
    """In the middle of something shielded, on the main thread: wait in a way that an interrupt may end."""
    global _armed
    before = _armed
    try:
        try:
            _armed = _face._call_id
            if _requested and _concerns(_armed):
                _on_cancel(_SIGNAL, None)
            return function(*args)
        finally:
            _armed = before  # twice, as in `run`
    finally:
        _armed = before


def request(call_id: int) -> None:
    """From the control thread: interrupt this call if it is running now."""
    global _requested
    _face._cancelled = call_id
    _requested = call_id
    _signal.pthread_kill(_main, _SIGNAL)


def do_soon(chore: Callable[[], object]) -> None:
    """From any thread: run something on the main thread, now if no call runs there, else after it."""
    chores.append(chore)
    if not _armed:  # else the main thread looks for chores itself, once it has disarmed
        _signal.pthread_kill(_main, _SIGNAL)


def do_chores() -> None:
    """On the main thread, between two calls: run what other threads want done."""
    while chores:
        try:
            chore = chores.pop(0)
        except IndexError:  # the signal of the next one has struck here, and has done this one too
            return
        chore()


def is_dirty(error: BaseException | None) -> bool:
    """Return True when the last call was interrupted and may have left something behind.

    Either something else than `Cancelled` came out of it (`error`; None for a result), or an import was cut short,
    which leaves packages without some of their modules.
    """
    return _has_struck and (_cut_import or not isinstance(error, _face.Cancelled))


def main_thread() -> int:
    """Return the identifier of the thread that runs user code."""
    return _main


def _on_cancel(number: int, frame: FrameType | None) -> None:
    global _requested, _has_struck
    if not _armed:
        do_chores()
    elif _armed > 0 and _concerns(_armed):
        if _armed == _requested:
            _requested = 0
        _has_struck = True
        _note_import(frame)
        raise _face.Cancelled("call %d was cancelled" % _armed)


def _concerns(call_id: int) -> bool:
    """Return True if this call, or one that it runs within, is to be interrupted."""
    return call_id == _requested or _requested in _around


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    """SIGINT is an error of the call that runs; between calls it must not tear a frame apart."""
    global _has_struck
    if _armed > 0:
        _has_struck = True
        _note_import(frame)
        raise KeyboardInterrupt


def _note_import(frame: FrameType | None) -> None:
    """Look for an import on the stack now: Python leaves its frames out of tracebacks."""
    global _cut_import
    while frame is not None and not _cut_import:
        _cut_import = frame.f_code.co_filename == "<frozen importlib._bootstrap>"
        frame = frame.f_back


TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Callable, Iterable
