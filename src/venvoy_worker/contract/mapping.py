"""Memory behind a descriptor: made, mapped, and kept apart when a process forks. Linux only.

Owns the list of the mappings that live. Laws: a mapping has a descriptor of its own, closed with it; nobody can make
the memory smaller (it is sealed), so no reader is killed by a page that has gone; a process that forks first makes
private what it has been lent, since parent and child must not write into each other's values.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
from _weakref import ref
from itertools import count

_SEALS = 1 | 2 | 4  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW; fcntl(2)
_SHRINK = 2
_ADD_SEALS, _GET_SEALS = 1033, 1034  # not every C library says so
_POPULATE_WRITE = 23  # madvise(2), Linux 5.14
_FIXED = 0x10  # MAP_FIXED
STEP = 1 << 23  # bytes that are touched or copied in one go: other threads run between two
# One descriptor less for each mapping, since Python 3.13.
_UNTRACKED = {"trackfd": False} if sys.version_info >= (3, 13) else {}

_living: dict[int, ref[Mapping]] = {}  # by a number of their own; changed by single calls in C, from finalizers too
_numbers = count()
_can_populate = True  # until the kernel says otherwise


def make_file(size: int) -> int:
    """Return the descriptor of new, nameless memory of that size, all zeros.

    Raises:
        OSError: the system has no descriptor left.
    """
    fd = os.memfd_create("venvoy", 1 | 2)  # MFD_CLOEXEC, MFD_ALLOW_SEALING
    try:
        os.ftruncate(fd, size)
        _fcntl(fd, _ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _fcntl(fd: int, command: int, argument: int = 0) -> int:
    import fcntl  # start-up time: a worker without large values never needs it

    return fcntl.fcntl(fd, command, argument)


class _Descriptor:
    """Closes a descriptor when it is dropped; a mapping with a `__del__` of its own could be found while it goes."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


class Mapping(mmap.mmap):
    """The memory behind a descriptor.

    Args:
        fd: of sealed memory; owned from now on.
        is_readonly: it cannot be written through this mapping.
        is_common: a forked process goes on sharing it; else it becomes private before the fork.

    Raises:
        OSError, ValueError: it cannot be mapped, or is not sealed, so that its other owner could make it smaller.
    """

    __slots__ = ("_owner", "fd", "is_common", "is_private", "is_readonly", "ready")
    fd: int
    is_readonly: bool
    is_common: bool
    is_private: bool  # a process was forked that may still read it
    _owner: _Descriptor
    ready: int  # bytes from the start that are known to be there

    def __new__(cls, fd: int, is_readonly: bool = False, is_common: bool = False) -> Mapping:
        owner = _Descriptor(fd)
        if not _fcntl(fd, _GET_SEALS) & _SHRINK:
            raise ValueError("the memory is not sealed")
        protection = mmap.PROT_READ if is_readonly else mmap.PROT_READ | mmap.PROT_WRITE
        size = os.fstat(fd).st_size
        self = super().__new__(cls, fd, size, mmap.MAP_SHARED, protection, **_UNTRACKED)
        self._owner, self.fd = owner, fd
        self.is_readonly = is_readonly
        self.is_common = is_common
        self.is_private = False
        self.ready = 0
        number = next(_numbers)
        _living[number] = ref(self, lambda _: _living.pop(number, None))
        return self

    def __init__(self, fd: int, is_readonly: bool = False, is_common: bool = False) -> None:
        pass

    def fill(self, offset: int, pieces: Sequence[Data]) -> int:
        """Copy pieces of bytes into the memory, one behind the other, and return where they end.

        Raises:
            OSError: the system has no memory left.
        """
        for piece in pieces:
            view = memoryview(piece)
            for start in range(0, len(view), STEP):
                part = view[start : start + STEP]
                end = offset + len(part)
                if end > self.ready:
                    self._prepare(end)
                self[offset:end] = part
                offset = end
        return offset

    def _prepare(self, end: int) -> None:
        """Have the memory up to there: a lack of it must be an error here, not the death of this process."""
        global _can_populate
        while self.ready < end:
            upto = min(len(self), self.ready + STEP)
            if _can_populate:
                try:
                    self.madvise(_POPULATE_WRITE, self.ready, upto - self.ready)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    _can_populate = False
            if not _can_populate:
                os.posix_fallocate(self.fd, self.ready, upto - self.ready)
            self.ready = upto

    def make_private(self) -> None:
        """Stay at this place, with what is in the memory now, apart from all other processes.

        Other threads see the same bytes before and after.
        """
        self.is_private = True
        if self.is_readonly:
            return
        import ctypes

        place = ctypes.addressof(ctypes.c_char.from_buffer(self))
        remap = ctypes.CDLL(None).mmap
        remap.restype = ctypes.c_void_p
        remap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
        remap(place, len(self), mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | _FIXED, self.fd, 0)


class SharedMemory(Mapping):
    """Memory that is meant to be seen by several processes, and by those they fork.

    Args:
        fd: as for `Mapping`.
    """

    __slots__ = ()

    def __new__(cls, fd: int) -> SharedMemory:
        self: SharedMemory = super().__new__(cls, fd, is_common=True)  # type: ignore[assignment]
        number = os.fstat(fd).st_ino

        def forget(reference: object) -> None:
            if shared_here.get(number) is reference:
                del shared_here[number]

        shared_here[number] = ref(self, forget)
        return self

    def __init__(self, fd: int) -> None:
        pass

    @classmethod
    def of(cls, fd: int) -> SharedMemory:
        """Return the mapping of this memory that is here already, or a new one; the descriptor is owned from now on."""
        known = shared_here.get(os.fstat(fd).st_ino)
        memory = None if known is None else known()
        if memory is None:
            return cls(fd)
        os.close(fd)
        return memory


shared_here: dict[int, ref[SharedMemory]] = {}  # by the number of the file; changed by single calls in C


def shared_memory(holder: object) -> SharedMemory | None:
    """Return the shared memory in which an array, or a view of memory, lies; None if it does not."""
    while not isinstance(holder, memoryview) and hasattr(holder, "base"):
        holder = holder.base
    if isinstance(holder, memoryview):
        holder = holder.obj
    return holder if isinstance(holder, SharedMemory) else None


def _before_fork() -> None:
    for reference in list(_living.values()):
        mapping = reference()
        if mapping is not None and not mapping.is_common and not mapping.is_private:
            try:
                mapping.make_private()
            except (ImportError, AttributeError):  # no ctypes: what one of the two writes, the other sees
                pass


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Sequence, Union

    Data = Union[bytes, bytearray, memoryview]
