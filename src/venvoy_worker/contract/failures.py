"""An exception as plain values that any Python can read: the error snapshot.

`snapshot` runs where the exception was raised, `venvoy.values.failures.rebuild` where it is raised again. A snapshot is
a dict of builtin values only, so that a class nobody else has cannot get in the way of its own report.
"""

from __future__ import annotations

import _pickle
import builtins
import sys

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_MAX_TEXT = 100_000
_MOST_DEPTH = 10  # of groups in groups
_MOST_PARTS = 100  # of a group
_MISSING = object()


def snapshot(error: BaseException, hidden_folder: str, depth: int = 0) -> dict[str, object]:
    """Return the exception as a dict of builtin values; never raises, whatever the exception's class does.

    Args:
        hidden_folder: frames of files below it are ours, and are left out at the top of the traceback.
        depth: in how many groups it is.

    The keys are documented in docs/protocol.md.
    """
    kind = type(error)
    name = "%s.%s" % (kind.__module__, kind.__qualname__)
    message = _guarded(lambda: str(error)[:_MAX_TEXT], "<the message of this %s cannot be made into text>" % name)
    return {
        "type": name,
        "bases": [base.__name__ for base in kind.__mro__ if base.__module__ == "builtins"],
        "message": message,
        "args": _guarded(lambda: tuple(_plain(value) for value in error.args), ()),
        "attributes": _guarded(lambda: _attributes(error), {}),
        "notes": _guarded(lambda: [str(note) for note in getattr(error, "__notes__", ())], []),
        "exceptions": _guarded(lambda: _parts(error, hidden_folder, depth), []),
        "pickled": _guarded(lambda: _pickled(error), None),
        "traceback": _guarded(
            lambda: _render(error, hidden_folder), "<no traceback: it cannot be rendered>\n%s" % name
        ),
    }


def _guarded(make: Callable[[], Any], otherwise: object) -> Any:
    """Return what `make` makes, or something else where code of the user's that it runs raises, whatever it raises."""
    try:
        return make()
    except BaseException:
        return otherwise


def nearest_builtin(bases: Iterable[str]) -> str:
    """Return the first of these that names a builtin exception that can be made from a text; else "Exception"."""
    return next((name for name in bases if _is_simple(name)), "Exception")


def _is_simple(name: str) -> bool:
    # SystemExit, KeyboardInterrupt and GeneratorExit of one side must not end the other, so only Exceptions count.
    found = getattr(builtins, name, None)
    if not isinstance(found, type) or not issubclass(found, Exception) or found is Exception:
        return False
    try:
        return isinstance(found("text"), found)
    except TypeError:  # UnicodeDecodeError and groups want more than a text
        return False


def failure(code: str, message: str, traceback: str = "") -> dict[str, object]:
    """Return the snapshot of a failure of venvoy's own making, such as `target_not_found`."""
    return {"code": code, "message": message, "traceback": traceback}


def _plain(value: object) -> object:
    if type(value) in _PLAIN:
        return value
    try:
        return repr(value)[:_MAX_TEXT]
    except Exception:
        return "<%s>" % type(value).__name__


def _attributes(error: BaseException) -> dict[str, object]:
    """Return the plain attributes, including those that builtin classes keep in slots."""
    found = dict(getattr(error, "__dict__", None) or {})
    for name in ("errno", "strerror", "filename", "name", "path", "code"):
        if name not in found:
            found[name] = _guarded(lambda name=name: getattr(error, name, _MISSING), _MISSING)  # type: ignore[misc]
    return {key: value for key, value in found.items() if type(value) in _PLAIN and type(key) is str}


def _parts(error: BaseException, hidden_folder: str, depth: int) -> list[dict[str, object]]:
    """Return the snapshots of the exceptions in a group; of any class of group, since Python 3.8 has but backports."""
    parts = getattr(error, "exceptions", ())
    if type(parts) is not tuple or depth == _MOST_DEPTH or not all(isinstance(part, BaseException) for part in parts):
        return []
    return [snapshot(part, hidden_folder, depth + 1) for part in parts[:_MOST_PARTS]]


def _pickled(error: BaseException) -> bytes | None:
    """Return the exception's own pickle if a copy of it, made here, is the same, so that it can be there."""
    data = _pickle.dumps(error, 4)
    copy = _pickle.loads(data)
    same = type(copy) is type(error) and str(copy) == str(error) and repr(copy.args) == repr(error.args)
    return data if same else None


def _render(error: BaseException, hidden_folder: str) -> str:
    import traceback  # start-up time: most workers never render one

    chain: BaseException | None = error
    seen = set()
    while chain is not None and id(chain) not in seen:
        seen.add(id(chain))
        chain.__traceback__ = _visible(chain.__traceback__, hidden_folder)
        chain = chain.__cause__ or chain.__context__
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def _visible(traceback: TracebackType | None, hidden_folder: str) -> TracebackType | None:
    rest = traceback
    while rest is not None and rest.tb_frame.f_code.co_filename.startswith(hidden_folder):
        rest = rest.tb_next
    return rest  # None when all of it is ours: the error's own place, as of a SyntaxError, is in its text


def main_stack(thread_id: int) -> str:
    """Return the Python stack of a thread as text, newest call last.

    Nothing is imported for it: a thread that is busy gives others their turn only every few milliseconds.
    """
    lines: list[str] = []
    frame = sys._current_frames().get(thread_id)
    while frame is not None:
        lines.append('  File "%s", line %d, in %s\n' % (frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    return "".join(reversed(lines))


TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Callable, Iterable
