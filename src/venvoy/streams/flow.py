"""How much a streamed call may send ahead of its consumer: credits, in items and bytes. No I/O.

The window begins small, so that a slow consumer has little done in vain, and doubles whenever the consumer has to wait
for more although the worker has used all its credit.
"""

from __future__ import annotations

from venvoy_worker.contract import batches, codec, messages
from venvoy_worker.contract.channel import PIPE_SIZE
from venvoy_worker.contract.frames import Frame

_MOST_BYTES = 8 << 20  # that may be on their way
_LARGE = PIPE_SIZE // 2


class Flow:
    """The consumer's side of one stream: what came, what was taken, what is allowed."""

    def __init__(self) -> None:
        self._window, self._byte_window = batches.FIRST_ITEMS, batches.FIRST_BYTES
        self._items, self._bytes = self._window, self._byte_window  # allowed in all
        self._came = self._came_bytes = 0
        self._taken = self._taken_bytes = 0
        self._told = self._told_bytes = 0  # of what was taken, to the worker
        self.is_large = False  # a frame has come of which not two are in a pipe at once

    @property
    def has_begun(self) -> bool:
        """True when an item has come."""
        return self._came > 0

    def came(self, frame: Frame) -> None:
        """ITEMS have come; what came before has been taken."""
        self._taken, self._taken_bytes = self._came, self._came_bytes
        self._came += frame.number
        size = codec.size_of(((frame.body,), frame.buffers))  # type: ignore[arg-type]
        self._came_bytes += size
        self.is_large = self.is_large or size > _LARGE

    def credit(self, is_waiting: bool) -> bytes | None:
        """Return the body of the CREDIT that is to be sent now, or None.

        Args:
            is_waiting: the consumer has taken all that came, and needs more.
        """
        if is_waiting:
            self._taken, self._taken_bytes = self._came, self._came_bytes
            if self._came >= self._items:
                self._window = min(2 * self._window, batches.MOST_ITEMS)
            if self._came_bytes >= self._bytes:
                self._byte_window = min(2 * self._byte_window, _MOST_BYTES)
        items, size = self._taken - self._told, self._taken_bytes - self._told_bytes
        if not items or not (is_waiting or items >= self._window // 2 or size >= self._byte_window // 2):
            return None
        self._told, self._told_bytes = self._taken, self._taken_bytes
        self._items, self._bytes = self._taken + self._window, self._taken_bytes + self._byte_window
        return messages.pack_ids([self._taken, self._items, self._bytes])
