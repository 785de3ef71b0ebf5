"""What a generator yields goes to the host while it runs, as fast as the consumer takes it.

A `Sender` owns the items that wait for others and counts what was sent. Laws: an item goes at once if the consumer has
taken all before it; else it waits, until there are enough for a frame, or until credit says that the consumer has taken
the rest, when the control thread sends it, whatever the generator does. Frames are made and written under one lock, so
they keep their order. A generator runs on only while it has credit, in items and bytes.
"""

from __future__ import annotations

import _thread

import venvoy_worker as _face

from ..contract import batches, codec, frames, messages
from . import coroutines, interrupt, lent, replies


class Sender:
    """See the module.

    Args:
        call_id: whose items.
        send: writes a frame, from any thread.
        limit: the most bytes of one item, None for any number.
    """

    def __init__(self, call_id: int, send: Callable[[Pieces], None], limit: int | None) -> None:
        self.call_id = call_id
        self._send = send
        self._limit = limit
        self._lock = _thread.allocate_lock()  # held while a frame is made and written
        self._waiting: list[object] = []  # appended to by the generator's thread only
        self._size = 0  # of these in bytes, roughly
        self._sent = self._sent_bytes = 0
        self._taken = 0  # by the consumer
        self._items, self._bytes = batches.FIRST_ITEMS, batches.FIRST_BYTES  # that may be sent in all
        self._wake: Callable[[], object] | None = None

    # --- the generator's thread -------------------------------------------------------------------

    def has_room(self) -> bool:
        """Return True if there is credit for one more item."""
        return self._sent + len(self._waiting) < self._items and self._sent_bytes < self._bytes

    def put(self, value: object) -> None:
        """Send an item, now or soon; there has to be room.

        Raises:
            CodecError: it cannot travel, or is too large.
        """
        item = batches.plain(value) if self._limit is None else batches.NOT_PLAIN
        if item is batches.NOT_PLAIN:
            self.flush()
            encoded = self._encoded(value)
            interrupt.shielded(self._write_one, encoded)
            return
        waiting = self._waiting
        waiting.append(item)
        self._size += batches.size_of(item)
        if self._taken == self._sent or self._size >= batches.LARGEST_BATCH or len(waiting) >= self._enough():
            self.flush()

    def _enough(self) -> int:
        """Return how many items are a batch: half of what the consumer allows ahead, so that it never waits for all."""
        return min(batches.MOST_ITEMS, max(1, (self._items - self._taken) // 2))

    def _encoded(self, value: object) -> codec.Encoded:
        number = self._sent + len(self._waiting)
        try:
            return replies.encode_item(value, number, self._limit)
        except codec.CodecError:
            self.flush()
            raise

    def flush(self) -> None:
        """Send what waits."""
        if self._waiting:
            interrupt.shielded(self._flush)

    def wait_for_room(self) -> None:
        """Wait until the consumer has taken enough.

        Raises:
            Cancelled: the call is to stop.
        """
        self.flush()
        event = _thread.allocate_lock()
        event.acquire()

        def wake() -> None:
            if event.locked():
                event.release()

        self.wake_by(wake)
        while not self.has_room() and not _face.is_cancelled():
            event.acquire()
        self.wake_by(None)
        if _face.is_cancelled():
            raise _face.Cancelled("call %d was cancelled" % self.call_id)

    def wake_by(self, wake: Callable[[], object] | None) -> None:
        """Call this function, on the control thread, when there may be room; for those who wait in their own way."""
        self._wake = wake

    # --- both threads -----------------------------------------------------------------------------

    def _flush(self) -> None:
        with self._lock:
            self._write_waiting()

    def _write_waiting(self) -> None:
        """Locked."""
        values = self._waiting[:]
        self._sent += len(values)
        del self._waiting[: len(values)]  # the generator's thread may have appended one since
        self._size = 0
        if values:
            self._write(codec.encode(values), len(values))

    def _write_one(self, encoded: codec.Encoded) -> None:
        with self._lock:
            self._sent += 1
            self._write(encoded, 1)

    def _write(self, encoded: codec.Encoded, count: int) -> None:
        self._sent_bytes += codec.size_of(encoded)
        body, buffers = lent.place(lent.FOR_GOOD, *encoded)
        self._send(frames.pack(messages.ITEMS, 0, codec.PICKLE, 0, self.call_id, count, body=body, buffers=buffers))

    # --- the control thread -----------------------------------------------------------------------

    def credit(self, taken: int, items: int, size: int) -> None:
        """The consumer has taken so many items, and allows so many, and so many bytes, in all."""
        self._items, self._bytes, self._taken = items, size, taken  # before the look at what waits, see `put`
        if self._waiting and taken == self._sent and self._lock.acquire(False):  # else the other thread sends it now
            try:
                self._write_waiting()
            finally:
                self._lock.release()
        self.wake()

    def wake(self) -> None:
        """Let the generator's thread look again, if it waits."""
        wake = self._wake
        if wake is not None:
            wake()


def run(sender: Sender, source: Any) -> None:
    """Send all that an iterable or an asynchronous one yields; it is closed in any case.

    Raises:
        TypeError: it is neither. Besides this, what the source raises, after the items before that.
    """
    if hasattr(source, "__aiter__"):
        coroutines.finish(_run_async(sender, source))
        return
    iterator = iter(source)
    try:
        put, has_room = sender.put, sender.has_room
        for value in iterator:
            if not has_room():
                sender.wait_for_room()
            put(value)
    except _face.Cancelled:
        raise
    except BaseException:
        sender.flush()
        raise
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
    sender.flush()


async def _run_async(sender: Sender, source: Any) -> None:
    iterator = source.__aiter__()
    try:
        async for value in iterator:
            if not sender.has_room():
                await _room(sender)
            sender.put(value)
    except _face.Cancelled:
        raise
    except BaseException:
        sender.flush()
        raise
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()
    sender.flush()


async def _room(sender: Sender) -> None:
    """Wait for room while other tasks of the loop go on."""
    import asyncio

    sender.flush()
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    sender.wake_by(lambda: loop.call_soon_threadsafe(event.set))
    while not sender.has_room():
        await event.wait()
        event.clear()
    sender.wake_by(None)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, List, Union

    Pieces = List[Union[bytes, bytearray, memoryview]]
