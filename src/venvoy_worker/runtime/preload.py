"""Importing for all workers at once, in the template: what is imported, and what must not have come of it.

Stateless. Law: after `run` and `freeze` this process can be forked: it has one thread, or others only that are known to
survive.
"""

from __future__ import annotations

import gc
import os
import sys

from . import targets

EVERYTHING = ""  # stands for the whole environment among the names that were read
_PATIENCE = 0.5  # seconds that a thread which is about to end may take
_READERS = ("os", "collections.abc", __name__)  # modules through which others read the environment
_PASSING_ON = ("ctypes.util", "subprocess")  # modules that read it to hand it on
_SURVIVING = frozenset({"jemalloc_bg_thd"})  # native threads whose library looks after forks itself


def run(names: list[str]) -> dict[str, str]:
    """Import modules; return where each environment variable was read meanwhile, by name.

    Raises:
        RuntimeError: one has left a thread of Python code running. Besides this, as `targets.import_module`.
    """
    reads: dict[str, str] = {}
    environ = os.environ
    plain = type(environ)
    environ.__class__ = _watched(plain, reads)
    try:
        for name in names:
            targets.import_module(name)
            _refuse_threads(name)
    finally:
        environ.__class__ = plain
    return reads


def freeze() -> None:
    """Keep what there is for ever, so that no garbage collection of a worker touches, and thereby copies, it.

    Raises:
        RuntimeError: threads of native code would be lost in a fork.
    """
    _refuse_native_threads()
    gc.collect()  # what is garbage now would be kept too
    gc.freeze()


# --- environment variables ------------------------------------------------------------------------


def _watched(plain: Any, reads: dict[str, str]) -> Any:
    """Return a class for `os.environ` that notes what is read, and by whom."""

    class Watched(plain):  # type: ignore[misc]
        """As the class that it takes the place of, which all other ways to read go through."""

        def __getitem__(self, key: str) -> object:
            _note(reads, key)
            return plain.__getitem__(self, key)

        def __iter__(self) -> object:
            _note(reads, EVERYTHING)
            return plain.__iter__(self)

    return Watched


def _note(reads: dict[str, str], key: object) -> None:
    if not isinstance(key, str) or key in reads:
        return
    frame = sys._getframe(2)
    while frame.f_globals.get("__name__") in _READERS and frame.f_back is not None:
        frame = frame.f_back
    if frame.f_globals.get("__name__") not in _PASSING_ON:
        reads[key] = "%s, line %d" % (frame.f_code.co_filename, frame.f_lineno)


# --- threads --------------------------------------------------------------------------------------


def _refuse_threads(module: str) -> None:
    """Raise RuntimeError if an import has left a thread that runs Python code."""
    import _thread

    threading = sys.modules.get("threading")
    known = dict(threading._active) if threading is not None else {}
    for ident in sys._current_frames():
        if ident == _thread.get_ident():
            continue
        thread = known.get(ident)
        if thread is not None and type(thread).__name__ != "_DummyThread":
            thread.join(_PATIENCE)
        frame = sys._current_frames().get(ident)
        if frame is not None:
            name = thread.name if thread is not None else "of _thread"
            raise RuntimeError(
                "preload of %r has left the thread %r running (%s); a forked worker would be without it. Start it in "
                "an initializer, leave the module out of preload, or use start='spawn'" % (module, name, _place(frame))
            )


def _place(frame: FrameType) -> str:
    """Return where the code of a thread began, leaving out what the standard library's `threading` does first."""
    found, outer = frame, frame.f_back
    while outer is not None:
        if outer.f_globals.get("__name__") != "threading":
            found = outer
        outer = outer.f_back
    code = found.f_code
    return "%s of module %s, line %d" % (code.co_name, found.f_globals.get("__name__"), found.f_lineno)


def _refuse_native_threads() -> None:
    """Raise RuntimeError if threads that are not Python's are left after a fork.

    Libraries that are made for it end their threads when the process forks, and start them anew (numpy's OpenBLAS
    does); so the process is forked once, and then its threads are looked at.
    """
    pid = fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    left = [name for name in _native_threads() if name not in _SURVIVING]
    if left:
        raise RuntimeError(
            "preload has left threads of native code running: %s; a forked worker would be without them. Leave what "
            "starts them out of preload, or use start='spawn'" % ", ".join(map(repr, left))
        )


def fork() -> int:
    """Fork, without the warning of Python 3.12 for native threads that are known to survive."""
    from warnings import catch_warnings, simplefilter

    with catch_warnings():
        simplefilter("ignore")
        return os.fork()


def _native_threads() -> list[str]:
    """Return the names that the system has for the other threads of this process."""
    found = []
    for number in os.listdir("/proc/self/task"):
        try:
            fd = os.open("/proc/self/task/%s/comm" % number, os.O_RDONLY)
            try:
                name = os.read(fd, 64).decode("utf-8", "replace").strip()
            finally:
                os.close(fd)
        except OSError:  # it has just ended
            continue
        if int(number) != os.getpid():
            found.append(name)
    return found


TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any
