"""Where what workers print goes: forwarded, logged, thrown away, or given to a function of the user's.

Chunks arrive on whatever thread read them and are decoded and delivered on the notifier thread. Owns one decoder per
stream of a worker, and the count of what had to be dropped because nobody took it in time.
"""

from __future__ import annotations

import codecs
import logging
import sys
from collections.abc import Callable

from ..notifier import Notifier
from ..options import OutputChunk, OutputPolicy
from ..worker import Worker

_LONGEST_LINE = 1 << 20  # characters of one log record
_log = logging.getLogger("venvoy.output")


class Router:
    """Makes the sinks of a pool's workers.

    Args:
        policy: `WorkerOptions.output`.
    """

    def __init__(self, policy: OutputPolicy) -> None:
        self._policy = policy
        self.notifier: Notifier | None = None  # given once the pool is opened

    def sink(self, worker: Worker, stream: str) -> Callable[[bytes], object] | None:
        """Return what gets the chunks of one stream."""
        if self._policy == "discard" or self.notifier is None:
            return None
        if callable(self._policy):
            deliver = self._policy
        else:
            deliver = _forward if self._policy == "forward" else _LineLog()
        return _Stream(worker, stream, deliver, self.notifier).take


class _Stream:
    def __init__(
        self, worker: Worker, stream: str, deliver: Callable[[OutputChunk], object], notifier: Notifier
    ) -> None:
        self._worker = worker
        self._stream = stream
        self._deliver = deliver
        self._notifier = notifier
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._dropped = 0

    def take(self, data: bytes) -> None:
        """Pass a chunk on without waiting; called under the lock of the output, so in order."""
        dropped = self._dropped
        if self._notifier.post_output(lambda: self._emit(data, dropped), len(data)):
            self._dropped = 0
        else:
            self._dropped += len(data)

    def _emit(self, data: bytes, dropped: int) -> None:
        text = self._decoder.decode(data, final=not data)
        if dropped:
            text = f"\n[venvoy: {dropped} bytes of output were dropped here]\n{text}"
        if not text and (data or not isinstance(self._deliver, _LineLog)):
            return  # half a character, or the end of a stream that only the log wants to know
        self._deliver(OutputChunk(self._worker.id, self._worker.process.pid, self._stream, text))


def _forward(chunk: OutputChunk) -> None:
    target = sys.stdout if chunk.stream == "stdout" else sys.stderr
    if target is None:  # a windowed host
        return
    try:
        target.write(chunk.text)
        target.flush()
    except (OSError, ValueError):  # closed by the host: the tail still has it
        pass


class _LineLog:
    """Logs whole lines of one stream; what has no end yet waits, up to a bound, for its rest."""

    def __init__(self) -> None:
        self._rest = ""

    def __call__(self, chunk: OutputChunk) -> None:
        *lines, self._rest = (self._rest + chunk.text).split("\n")
        if len(self._rest) > _LONGEST_LINE or not chunk.text:  # the empty chunk is the end of the stream
            lines.append(self._rest)
            self._rest = ""
        for line in lines:
            if line or chunk.text:
                _log.info("worker %d %s: %s", chunk.worker, chunk.stream, line)
