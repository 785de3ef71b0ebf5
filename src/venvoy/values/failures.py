"""Error snapshots back to exceptions: the same class where it can be rebuilt here, else a `RemoteError` on its base.

The snapshot's format is that of `venvoy_worker.contract.failures`. Owns the cache of classes made for foreign
exceptions, so that two errors of one remote class are of one class here.
"""

from __future__ import annotations

import builtins
import sys
from typing import Any

from venvoy_worker.contract import codec
from venvoy_worker.contract.failures import nearest_builtin

from .. import errors
from ..errors import MessageTooLarge, RemoteError, RemoteTraceback, VenvoyError

_OURS: dict[str, type[VenvoyError]] = {
    "target_not_found": errors.TargetNotFound,
    "encoding_error": errors.EncodingError,
    "message_too_large": errors.MessageTooLarge,
    "protocol_error": errors.ProtocolError,
    "stale_proxy": errors.StaleProxy,
    "call_cancelled": errors.CallCancelled,
}
_classes: dict[tuple[str, str], type[RemoteError]] = {}
_HINT = "options of a call are given by options(), as in pool.options({0}=…).call(…); call() passes {0} to the target"
_OPTION_NAMES = ("timeout", "retries")


def rebuild(
    snapshot: dict[str, Any],
    *,
    is_home: bool,
    find_class: codec.FindClass | None = None,
    load: codec.Load | None = None,
) -> BaseException:
    """Return the exception a snapshot describes, with the remote traceback as its cause.

    Args:
        is_home: the worker runs in the host's own environment, so classes go by name as pickle does; else only
            those of the standard library are taken for the same.
        find_class: what says so, if it is not that.
        load: as in `codec.decode`.
    """
    if find_class is None and not is_home:
        find_class = find_portable
    error = _ours(snapshot) or _same_class(snapshot, find_class, load)
    if error is None and snapshot.get("exceptions"):
        parts = [rebuild(part, is_home=is_home, find_class=find_class, load=load) for part in snapshot["exceptions"]]
        error = _remote_group(snapshot, parts)
    error = error or _remote_error(snapshot)
    for note in snapshot.get("notes", ()):
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
    if isinstance(error, TypeError):
        _hint_at_options(error)
    if snapshot.get("traceback"):
        error.__cause__ = RemoteTraceback(snapshot["traceback"])
    return error


def _ours(snapshot: dict[str, Any]) -> BaseException | None:
    if "code" not in snapshot:
        return None
    error: VenvoyError = _OURS.get(snapshot["code"], RemoteError)(snapshot["message"])
    if isinstance(error, MessageTooLarge):
        error.size, error.limit = snapshot.get("size", 0), snapshot.get("limit", 0)
    return error


def _same_class(
    snapshot: dict[str, Any], find_class: codec.FindClass | None, load: codec.Load | None
) -> BaseException | None:
    """Return the exception itself, where its class and all it holds are the same here."""
    if snapshot["pickled"] is None or "Exception" not in snapshot["bases"]:
        return None
    try:
        error = codec.decode(snapshot["pickled"], [], find_class, load)
    except codec.CodecError:  # a class that is not here, or whose constructor has changed
        return None
    return error if isinstance(error, Exception) else None


def find_portable(module: str, name: str) -> object:
    """Find a class named by a worker of another environment: the standard library's, ours, and numpy's only.

    A class of any other module may be another version there and here, so taking one for the other would be wrong
    without a sign of it.

    Raises:
        CodecError: it is of another module.
    """
    top = module.partition(".")[0]
    if (top in sys.stdlib_module_names and top != "__main__") or top in ("numpy", "venvoy_worker"):
        return codec.import_global(module, name)
    raise codec.CodecError(
        f"holds {module}.{name} of the worker's environment, which need not be what has that name here; "
        "return plain values, or declare it: Pool(classes=[...])"
    )


def _remote_group(snapshot: dict[str, Any], parts: list[Any]) -> BaseException:
    """Return a group of the rebuilt errors, so that `except*` finds them; of a class of its own as other errors."""
    name = snapshot["type"]
    text = next((text for text in snapshot["args"] if isinstance(text, str)), snapshot["message"])
    if name.rpartition(".")[2] in ("ExceptionGroup", "BaseExceptionGroup"):
        return ExceptionGroup(text, parts)  # what ends a program there is an error here
    kind = _made_class(name, "ExceptionGroup")
    return _described(kind.__new__(kind, text, parts), snapshot)


def _remote_error(snapshot: dict[str, Any]) -> RemoteError:
    kind = _class_for(snapshot["type"], snapshot["bases"])
    return _described(kind.__new__(kind), snapshot)


def _described(error: RemoteError, snapshot: dict[str, Any]) -> RemoteError:
    error.args = (snapshot["message"] or snapshot["type"],)
    for name, value in snapshot["attributes"].items():
        try:
            # `code` is ours, and stable; a remote one is among `remote_args` or in the message.
            if name != "code" and not name.startswith("__"):
                setattr(error, name, value)
        except (AttributeError, TypeError):  # read-only in the builtin base
            pass
    error.type_name = snapshot["type"]
    error.remote_args = tuple(snapshot["args"])
    return error


def _class_for(type_name: str, bases: list[str]) -> type[RemoteError]:
    """Return the class for a foreign exception: RemoteError and the nearest builtin that can be made from a text."""
    return _made_class(type_name, nearest_builtin(bases))


def _made_class(type_name: str, base: str) -> type[RemoteError]:
    known = _classes.get((type_name, base))
    if known is None:
        parents = (RemoteError,) if base == "Exception" else (RemoteError, getattr(builtins, base))
        members = {"__module__": type_name.rpartition(".")[0], "__doc__": f"{type_name}, raised in a worker."}
        known = _classes[type_name, base] = type(type_name.rpartition(".")[2], parents, members)
    return known


def _hint_at_options(error: TypeError) -> None:
    for name in _OPTION_NAMES:
        if f"unexpected keyword argument '{name}'" in str(error):
            error.add_note(_HINT.format(name))
