"""Records of `logging` made in this process go to the host, which logs them again.

Nothing is imported for it: once user code imports `logging`, a finder that stands first in `sys.meta_path` sees it, and
leaves. Owns the count of records that were dropped because the host did not read. Laws: a record is sent if it would
reach the handlers of the root logger, whatever handlers there are; user code never waits for the host longer than
`_PATIENCE`, and not again until a record could be sent; a record is written whole or not at all.
"""

from __future__ import annotations

import sys

import venvoy_worker as _face

from ..contract import codec, frames, messages
from . import interrupt, stdio

_PATIENCE = 0.1  # seconds
_MOST_CHARACTERS = 16_000  # of a message, and of a traceback: a record has to fit into a socket's buffer
_PLAIN = (type(None), bool, int, float, str)
_send: Callable[[Pieces, float], bool] | None = None
_tell: Callable[[dict[str, object], int], object]
_levels: dict[str, int] = {}
_dropped = 0
_patience = _PATIENCE
_standard: set[str] = set()  # attributes that every record has


def relay(send: Callable[[Pieces, float], bool], levels: dict[str, int]) -> None:
    """Send records from now on; once more in a worker whose template has done so, for which only `send` is another.

    Args:
        send: writes a frame within so many seconds, or returns False.
        levels: by name of a logger, "" being the root; the host's own.
    """
    global _send, _levels
    is_forked, _send = _send is not None, send
    if is_forked:  # preload may have set other levels meanwhile
        return
    _levels = levels
    tell(_tell_host)


def tell(function: Callable[[dict[str, object], int], object]) -> None:
    """Give records to a function from now on, as dicts and with the number of the call that runs."""
    global _tell
    _tell = function
    if "logging" in sys.modules:
        _install(sys.modules["logging"])
    else:
        sys.meta_path.insert(0, _Finder())  # type: ignore[arg-type]  # its types would have to be imported


class _Finder:
    """Sees the import of `logging`, once."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        if name != "logging":
            return None
        from _frozen_importlib import _find_spec  # type: ignore[attr-defined]

        sys.meta_path.remove(self)  # type: ignore[arg-type]
        spec = _find_spec(name, path, target)
        if spec is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader:
    """Executes a module as its own loader does, and takes no part in anything else."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: object) -> object:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _install(module)


def _install(logging: Any) -> None:
    """Stand before the handlers of every logger; a handler of our own would not survive `basicConfig` and the like."""
    for name, level in _levels.items():
        logging.getLogger(name or None).setLevel(level)
    _standard.update(vars(logging.LogRecord("", 0, "", 0, "", (), None)), ("message", "asctime", "taskName"))
    call_handlers = logging.Logger.callHandlers

    def callHandlers(self: Any, record: Any) -> None:  # noqa: N802 - the name that logging has for it
        if not stdio.is_fork() and _reaches_root(self):
            _relay(logging, record)
        call_handlers(self, record)

    logging.Logger.callHandlers = callHandlers
    _keep_quiet(logging)


def _keep_quiet(logging: Any) -> None:
    """Let `logging.warning()` and loggers without handlers print nothing, since the host has the record."""

    class Placeholder(logging.Handler):  # type: ignore[misc]
        """Makes the root logger have a handler."""

        def emit(self, record: Any) -> None:
            if stdio.is_fork() and logging.lastResort and record.levelno >= logging.lastResort.level:
                logging.lastResort.handle(record)

    placeholder = Placeholder()
    configure = logging.basicConfig

    def basicConfig(**kwargs: Any) -> None:  # noqa: N802 - as above
        logging.root.removeHandler(placeholder)
        try:
            configure(**kwargs)
        finally:
            if not logging.root.handlers:
                logging.root.addHandler(placeholder)

    basicConfig.__doc__ = configure.__doc__
    logging.basicConfig = basicConfig
    if not logging.root.handlers:
        logging.root.addHandler(placeholder)


def _reaches_root(logger: Any) -> bool:
    while logger.parent is not None and logger.propagate:
        logger = logger.parent
    return logger.parent is None


def _relay(logging: Any, record: Any) -> None:
    try:
        fields = _fields(logging, record)
    except Exception:  # of the user's, whose handlers will say so if there are any
        return
    _tell(fields, _face.call_id())


def _tell_host(fields: dict[str, object], call_id: int) -> None:
    try:
        body = codec.encode_inline(fields)
    except Exception:  # a str subclass of the user's
        return
    interrupt.shielded(_write, body, call_id)


def _fields(logging: Any, record: Any) -> dict[str, object]:
    """Return what docs/protocol.md says of a record."""
    trace = record.exc_text or ""
    if record.exc_info and not trace:
        trace = logging.Formatter().formatException(record.exc_info)
    return {
        "name": record.name,
        "level": record.levelno,
        "message": _cut(_message(record)),
        "path": record.pathname,
        "line": record.lineno,
        "function": record.funcName,
        "created": record.created,
        "thread": record.threadName,
        "traceback": _cut(trace),
        "stack": _cut(record.stack_info or ""),
        "extra": {
            key: _cut(value) if isinstance(value, str) else value
            for key, value in vars(record).items()
            if key not in _standard and type(value) in _PLAIN
        },
    }


def _message(record: Any) -> object:
    try:
        return record.getMessage()
    except Exception as error:  # arguments that do not fit, a __str__ that raises
        return "%r with %s arguments (%s: %s)" % (record.msg, len(record.args or ()), type(error).__name__, error)


def _cut(value: object) -> str:
    text = str(value)
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + "…"


def _write(body: bytes, call_id: int) -> None:
    global _dropped, _patience
    pieces = frames.pack(messages.RECORD, 0, codec.PICKLE, call_id=call_id, number=_dropped, body=[body])
    if _send is not None and _send(pieces, _patience):
        _dropped, _patience = 0, _PATIENCE
    else:
        _dropped, _patience = _dropped + 1, 0.0


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, List, Union

    Pieces = List[Union[bytes, bytearray, memoryview]]
