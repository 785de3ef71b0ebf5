"""Where what workers print and log goes: forwarded, logged, thrown away, or given to a function of the user's.

Chunks and records arrive on whatever thread read them and are decoded and delivered on the notifier thread. Owns one
decoder per stream of a worker, the count of what had to be dropped because nobody took it in time, and which stream
has left a line of the host's stdout or stderr unfinished.
"""

from __future__ import annotations

import codecs
import logging
import sys
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TextIO

from venvoy_worker.contract import codec
from venvoy_worker.contract.frames import Frame

from ..collector import Collector
from ..notifier import Notifier
from ..options import OutputChunk, OutputPolicy
from ..workers.template import Template
from ..workers.worker import Worker

_LONGEST_LINE = 1 << 20  # characters of one log record, or of a line that is held back until it is whole
_QUIET = 0.2  # seconds after which an unfinished line is forwarded as it is
_RECORD_SIZE = 1024  # bytes a record takes in memory besides its body
_log = logging.getLogger("venvoy.output")


class Router:
    """Makes the sinks of a pool's workers, and logs their records.

    Args:
        policy: `WorkerOptions.output`.
        pool: its name.
    """

    def __init__(self, policy: OutputPolicy, pool: str) -> None:
        self._policy = policy
        self._pool = pool
        self._notifier: Notifier | None = None
        self._collector: Collector | None = None

    def open(self, notifier: Notifier, collector: Collector) -> None:
        """Deliver with these from now on."""
        self._notifier, self._collector = notifier, collector

    def sink(self, worker: Worker | Template, stream: str) -> Callable[[bytes], object] | None:
        """Return what gets the chunks of one stream."""
        if self._policy == "discard" or self._notifier is None:
            return None
        deliver: Callable[[OutputChunk], object]
        if callable(self._policy):
            deliver = self._policy
        else:
            deliver = _Forward(self._later) if self._policy == "forward" else _LineLog()
        return _Stream(worker, self._pool, stream, deliver, self._notifier).take

    def relog(self, worker: Worker | Template, frame: Frame) -> None:
        """Log a record of a worker here; dropped when too much is waiting."""
        if self._notifier is not None:
            target = worker.authors.name_of(frame.call_id)
            log = partial(_relog, frame, (self._pool, worker.id, worker.process.pid), target)
            self._notifier.post_output(log, len(frame.body) + _RECORD_SIZE)

    def _later(self, seconds: float, callback: Callable[[], object]) -> None:
        """Run something on the notifier thread a little later."""
        collector, notifier = self._collector, self._notifier
        if collector is not None and notifier is not None:
            collector.call_later(seconds, partial(notifier.post_output, callback, 0))


class _Stream:
    def __init__(
        self,
        worker: Worker | Template,
        pool: str,
        stream: str,
        deliver: Callable[[OutputChunk], object],
        notifier: Notifier,
    ) -> None:
        self._worker = worker
        self._pool = pool
        self._stream = stream
        self._deliver = deliver
        self._notifier = notifier
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._dropped = 0

    def take(self, data: bytes, author: tuple[int, str] | None = None) -> None:
        """Pass a chunk on without waiting; called under the lock of the output, so in order."""
        author = author or self._worker.authors.current
        if self._notifier.post_output(partial(self._emit, data, self._dropped, author), len(data)):
            self._dropped = 0
        else:
            self._dropped += len(data)

    def _emit(self, data: bytes, dropped: int, author: tuple[int, str]) -> None:
        text = self._decoder.decode(data, final=not data)
        if dropped:
            text = f"\n[venvoy: {dropped} bytes of output were dropped here]\n{text}"
        if not text and (data or not isinstance(self._deliver, _LineLog | _Forward)):
            return  # half a character, or the end of a stream that only those want to know who wait for whole lines
        pid = self._worker.process.pid
        self._deliver(OutputChunk(self._worker.id, pid, self._stream, text, self._pool, *author))


# --- forwarding -----------------------------------------------------------------------------------

_unfinished: dict[str, object] = {}  # stream of the host -> who has left a line open there; notifier thread only


class _Forward:
    """Writes one stream of one worker to the host's, in whole lines, so that workers do not mix within a line.

    A line that is not finished is held back for a moment. If its worker takes longer, it is written as it is, so that
    progress shows, and whoever writes next begins a new line.
    """

    def __init__(self, later: Callable[[float, Callable[[], object]], object]) -> None:
        self._later = later
        self._rest = ""
        self._since = 0.0  # when the rest began
        self._stream = ""
        self._is_waiting = False

    def __call__(self, chunk: OutputChunk) -> None:
        self._stream = chunk.stream
        text = self._rest + chunk.text
        end = max(text.rfind("\n"), text.rfind("\r")) + 1
        if not chunk.text or len(text) - end > _LONGEST_LINE:  # the empty chunk is the end of the stream
            end = len(text)
        if end or not self._rest:
            self._since = monotonic()
        self._rest = text[end:]
        self._write(text[:end])
        self._wait()

    def _wait(self) -> None:
        if self._rest and not self._is_waiting:
            self._is_waiting = True
            self._later(max(0.0, self._since + _QUIET - monotonic()), self._on_time)

    def _on_time(self) -> None:
        self._is_waiting = False
        if self._since + _QUIET <= monotonic():
            text, self._rest = self._rest, ""
            self._write(text)
        self._wait()  # for a younger rest than the one this was for

    def _write(self, text: str) -> None:
        target = sys.stdout if self._stream == "stdout" else sys.stderr
        if target is None or not text:  # a windowed host has none
            return
        if _unfinished.get(self._stream) not in (None, self):
            text = "\n" + text
        _unfinished[self._stream] = None if text.endswith(("\n", "\r")) else self
        _write_and_flush(target, text)


def _write_and_flush(target: TextIO, text: str) -> None:
    try:
        try:
            target.write(text)
        except UnicodeEncodeError:
            encoding = getattr(target, "encoding", None) or "ascii"
            target.write(text.encode(encoding, "backslashreplace").decode(encoding))
        target.flush()
    except (OSError, ValueError):  # closed by the host: the tail still has it
        pass


# --- logging --------------------------------------------------------------------------------------


class _LineLog:
    """Logs whole lines of one stream; what has no end yet waits, up to a bound, for its rest."""

    def __init__(self) -> None:
        self._rest = ""
        self._author = (0, "")
        self._is_cut = False  # the line was too long, and only its end is to come

    def __call__(self, chunk: OutputChunk) -> None:
        text = chunk.text[1:] if self._is_cut and chunk.text.startswith("\n") else chunk.text
        if chunk.text and not text:
            self._is_cut = False
            return
        *lines, rest = (self._rest + text).split("\n")
        authors = [self._author if self._rest else (chunk.call, chunk.target)]  # a line is whoever's began it
        if len(rest) > _LONGEST_LINE or not chunk.text:  # the empty chunk is the end of the stream
            lines.append(rest)
            rest = ""
        self._is_cut = bool(chunk.text and lines) and not chunk.text.endswith("\n") and not rest
        for line in lines:
            author = authors.pop() if authors else (chunk.call, chunk.target)
            if line or chunk.text:
                extra = _attributes((chunk.pool, chunk.worker, chunk.pid), *author)
                extra["venvoy_stream"] = chunk.stream
                _log.info("worker %d %s: %s", chunk.worker, chunk.stream, line, extra=extra)
        self._author = authors.pop() if authors else (chunk.call, chunk.target)
        self._rest = rest


def _relog(frame: Frame, worker: tuple[str, int, int], target: str) -> None:
    """Log a record that a worker has made, under the name of its logger there."""
    said = codec.decode_frame(frame)
    logger = logging.getLogger(said["name"])
    if not logger.isEnabledFor(said["level"]):
        return
    if frame.number:
        logging.getLogger("venvoy").warning("worker %d: %d log records were dropped here", worker[1], frame.number)
    record = logger.makeRecord(
        *(said["name"], said["level"], said["path"], said["line"], said["message"]),
        *((), None, said["function"], None, said["stack"] or None),
    )
    record.exc_text = said["traceback"] or None
    record.created, record.process, record.threadName = said["created"], worker[2], said["thread"]
    record.msecs = (record.created - int(record.created)) * 1000
    record.processName = f"worker {worker[1]}"
    for name, value in {**said["extra"], **_attributes(worker, frame.call_id, target)}.items():
        record.__dict__.setdefault(name, value)
    logger.handle(record)


def _attributes(worker: tuple[str, int, int], call: int, target: str) -> dict[str, object]:
    """Return what venvoy adds to a log record."""
    pool, number, pid = worker
    return {
        "venvoy_pool": pool,
        "venvoy_worker": number,
        "venvoy_pid": pid,
        "venvoy_call": call,
        "venvoy_target": target,
    }
