"""A channel on which descriptors come along with the frames.

Owns the descriptors that have come and were not taken. Law: bytes of this socket are received here only: `recv_into`
would throw the descriptors away. A SEGMENT frame brings one descriptor, a FORK frame several, in order; one that the
system had no room for is None.
"""

from __future__ import annotations

import _socket
import os
from _struct import Struct

from .channel import Channel

_INT = Struct("i")
_MOST = 253  # that the system passes at a time
_ROOM = _socket.CMSG_SPACE(_MOST * _INT.size) if hasattr(_socket, "CMSG_SPACE") else 0
_CLOEXEC = getattr(_socket, "MSG_CMSG_CLOEXEC", 0)  # not every system has it


class DescriptorChannel(Channel):
    """See the module."""

    __slots__ = ("descriptors",)

    def __init__(self, sock: _socket.socket) -> None:
        super().__init__(sock)
        self.descriptors: list[int | None] = []
        if _ROOM:
            self._recv_into = self._receive_into

    def _receive_into(self, room: memoryview, size: int = 0, flags: int = 0) -> int:
        count, extra, said, _ = self.sock.recvmsg_into([room], _ROOM, flags | _CLOEXEC)
        for level, kind, data in extra:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                self.descriptors += [fd for (fd,) in _INT.iter_unpack(data[: len(data) // _INT.size * _INT.size])]
        if said & _socket.MSG_CTRUNC:
            self.descriptors.append(None)
        return int(count)

    def take_descriptor(self) -> int | None:
        """Return the descriptor of the SEGMENT frame that was received last; None if it was lost."""
        return self.descriptors.pop(0) if self.descriptors else None

    def take_descriptors(self) -> list[int | None]:
        """Return all that have come and were not taken, as those of a FORK frame that was received last."""
        found, self.descriptors = self.descriptors, []
        return found

    def try_send_with(self, pieces: list[bytes | bytearray | memoryview], *descriptors: int) -> int:
        """Write what fits now, with descriptors if there are any; return the number of bytes written, 0 for nothing."""
        rights = b"".join(map(_INT.pack, descriptors))
        said = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if rights else []
        try:
            return int(self._out.sendmsg(pieces, said, _socket.MSG_DONTWAIT))
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Close the socket and what nobody has taken."""
        super().close()
        while self.descriptors:
            fd = self.descriptors.pop()
            if fd is not None:
                os.close(fd)
