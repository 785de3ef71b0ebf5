"""What calls that run at once print goes to the host with the number of the call: a pipe does not say whose it is.

Imported where the host wants to know, and several calls run at once. Owns the lines that calls have begun. Laws: what
is printed outside of calls, by C code or by other programs takes the pipe; a line goes as one piece when it ends, when
it is flushed, or with its call.
"""

from __future__ import annotations

import io
import sys

import venvoy_worker as _face

from ..contract import frames, messages
from . import stdio

_PATIENCE = 1.0  # seconds for a host that does not read; then the pipe has to do
_MOST = 16_384  # characters in one frame: it has to fit into a socket's buffer
_streams: list[_Stream] = []


class _Stream(io.TextIOWrapper):
    """Standard output or error, as user code sees it.

    Args:
        original: what it stands before; kept, since it would close the descriptor with itself.
        kind: the flags of its frames.
        send: writes a frame within so many seconds, or returns False.
    """

    def __init__(self, original: Any, kind: int, send: Callable[[Pieces, float], bool]) -> None:
        super().__init__(
            original.buffer, encoding=original.encoding, errors="backslashreplace", line_buffering=True, newline=None
        )
        self._original = original
        self._kind = kind
        self._send = send
        self._begun: dict[int, str] = {}  # by call

    def write(self, text: str) -> int:
        call_id = _face.call_id()
        if not call_id or stdio.is_fork() or not isinstance(text, str):
            return super().write(text)
        whole = self._begun.pop(call_id, "") + text
        end = whole.rfind("\n") + 1 or (len(whole) if len(whole) > _MOST else 0)
        if len(whole) > end:
            self._begun[call_id] = whole[end:]
        if end:
            self._tell(call_id, whole[:end])
        return len(text)

    def flush(self) -> None:
        self.finish(_face.call_id())
        super().flush()

    def finish(self, call_id: int) -> None:
        """Send what a call has begun."""
        text = self._begun.pop(call_id, "") if not stdio.is_fork() else ""
        if text:
            self._tell(call_id, text)

    def _tell(self, call_id: int, text: str) -> None:
        for start in range(0, len(text), _MOST):
            part = text[start : start + _MOST]
            body = part.encode(self.encoding, "backslashreplace")
            if not self._send(frames.pack(messages.PRINTED, self._kind, call_id=call_id, body=[body]), _PATIENCE):
                super().write(part)


def begin(send: Callable[[Pieces, float], bool]) -> None:
    """Stand before standard output and error, where there are any."""
    for name, kind in (("stdout", 0), ("stderr", messages.FLAG_STDERR)):
        original = getattr(sys, name)
        if isinstance(original, io.TextIOWrapper):
            stream = _Stream(original, kind, send)
            setattr(sys, name, stream)
            _streams.append(stream)


def finish(call_id: int) -> None:
    """A call has ended: what it has begun is whole now."""
    for stream in _streams:
        stream.finish(call_id)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, List, Union

    Pieces = List[Union[bytes, bytearray, memoryview]]
