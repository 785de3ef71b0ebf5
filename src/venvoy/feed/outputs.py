"""What processes write: drained on the swarm's I/O thread, kept as tails, handed on to whoever consumes it.

A `Reader` belongs to the I/O thread. A `Mailbox` stands between that and one consumer, a thread of ours or the user's:
it is bounded, and a full one lets the processes wait, since nothing of their output may be lost.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator

from ..collector import Collector

_CHUNK = 262_144  # bytes taken in one read
_MOST_WAITING = 32 << 20  # bytes in a mailbox before processes have to wait
_LONGEST_LINE = 16 << 20  # a line without an end is passed on in pieces of this size
_TAIL = 16_384


class Kept:
    """The last bytes of a stream.

    Args:
        limit: how many are kept; None keeps all.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self.dropped = 0
        self._lock = threading.Lock()  # guards all here: reports are made on other threads

    def add(self, data: bytes) -> None:
        """Append bytes, and forget the oldest chunks."""
        with self._lock:
            self._chunks.append(data)
            self._size += len(data)
            while self._limit is not None and self._chunks and self._size - len(self._chunks[0]) >= self._limit:
                first = self._chunks.popleft()
                self._size -= len(first)
                self.dropped += len(first)
            if len(self._chunks) > 64 and self._size < len(self._chunks) * 1024:
                self._chunks = deque([b"".join(self._chunks)])  # many small writes: no object for each

    def value(self) -> tuple[bytes, int]:
        """Return the bytes, and how many before them were not kept."""
        with self._lock:
            data = b"".join(self._chunks)
            over = 0 if self._limit is None else max(0, len(data) - self._limit)
            return data[over:], self.dropped + over


class Splitter:
    """Cuts a stream into whole lines."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def whole_lines(self, data: bytes) -> bytes:
        """Return the lines that are complete now, with their ends."""
        end = data.rfind(b"\n") + 1
        if not end and self._size + len(data) < _LONGEST_LINE:
            self._parts.append(data)
            self._size += len(data)
            return b""
        end = end or len(data)
        whole = b"".join([*self._parts, data[:end]])
        self._parts = [data[end:]] if end < len(data) else []
        self._size = len(data) - end
        return whole

    def rest(self) -> bytes:
        """Return the last line if it had no end."""
        rest, self._parts, self._size = b"".join(self._parts), [], 0
        return rest


class Reader:
    """One output pipe of one process.

    Args:
        process_id: whose.
        fd: read end, non-blocking; owned from now on.
        loop: the swarm's I/O thread.
        take: called with each chunk, and with b"" at the end.
        on_progress: called after each read.
    """

    def __init__(
        self,
        process_id: int,
        fd: int,
        loop: Collector,
        take: Callable[[Reader, bytes], object],
        on_progress: Callable[[], object],
    ) -> None:
        self.process_id = process_id
        self.splitter = Splitter()
        self.tail = Kept(_TAIL)
        self._fd = fd
        self._loop = loop
        self._take = take
        self._on_progress = on_progress
        self._is_watched = False
        self.resume()

    def resume(self) -> None:
        """Read on."""
        if self._fd >= 0 and not self._is_watched:
            self._loop.watch(self._fd, self._read)
            self._is_watched = True

    def pause(self) -> None:
        """Leave what comes in the pipe."""
        self._unwatch()

    def _unwatch(self) -> None:
        if self._is_watched:
            self._is_watched = False
            self._loop.unwatch(self._fd)

    def _read(self) -> bool:
        if self._fd < 0:
            return False
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._unwatch()  # closed by the process; ours is closed when that has ended
            return False
        self._on_progress()
        self.tail.add(data)
        self._take(self, data)
        return True

    def finish(self) -> None:
        """The process is gone: take what is still in the pipe, and say that this was all."""
        if self._fd >= 0:
            while self._read():
                pass
            self.close()
            self._take(self, b"")

    def close(self) -> None:
        """Close our end."""
        self._unwatch()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def close_in_fork(self) -> None:
        """In a process the host forked: close the copy, and leave the kernel's watch to the parent."""
        self._is_watched = False
        self.close()


class Mailbox:
    """Chunks on their way from the I/O thread to one consumer.

    Args:
        loop: the I/O thread, which reads on when there is room.
    """

    def __init__(self, loop: Collector) -> None:
        self._loop = loop
        self._changed = threading.Condition(threading.Lock())  # guards all below; no callback under it
        self._chunks: deque[tuple[Reader, bytes]] = deque()
        self._size = 0
        self._is_closed = False
        self._is_dropped = False
        self._was_read = False
        self._readers = 0  # that iterate now
        self._paused: set[Reader] = set()

    @property
    def is_full(self) -> bool:
        """Whether processes wait for the consumer."""
        return bool(self._paused)

    def put(self, reader: Reader, data: bytes) -> None:
        """On the I/O thread: append a chunk; the reader is paused where there are too many."""
        with self._changed:
            if self._is_dropped:
                return
            self._chunks.append((reader, data))
            self._size += len(data)
            is_full = self._size > _MOST_WAITING and bool(data)
            if is_full:
                self._paused.add(reader)
            self._changed.notify()
        if is_full:
            reader.pause()

    def _read_on(self) -> None:
        with self._changed:
            paused, self._paused = self._paused, set()
        for reader in paused:
            reader.resume()

    def drop_unread(self) -> None:
        """Nobody reads on who began to: throw away what is there and what comes."""
        with self._changed:
            self._is_dropped = self._was_read and not self._readers
            if self._is_dropped:
                self._chunks.clear()
                self._size = 0
        if self._is_dropped:
            self._loop.call_soon(self._read_on)

    def close(self) -> None:
        """Nothing comes any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[tuple[Reader, bytes]]:
        """Yield chunks until the mailbox is closed and empty."""
        with self._changed:
            self._was_read = True
            self._readers += 1
        try:
            while (chunk := self._get()) is not None:
                yield chunk
        finally:
            with self._changed:
                self._readers -= 1

    def _get(self) -> tuple[Reader, bytes] | None:
        with self._changed:
            while not self._chunks and not self._is_closed:
                self._changed.wait()
            if not self._chunks:
                return None
            chunk = self._chunks.popleft()
            self._size -= len(chunk[1])
            may_read_on = bool(self._paused) and self._size <= _MOST_WAITING // 2
        if may_read_on:
            self._loop.call_soon(self._read_on)
        return chunk
