"""Arrays in memory that host and workers share. Owns nothing: the memory belongs to the arrays that are in it."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any

from venvoy_worker.contract import messages
from venvoy_worker.contract.mapping import SharedMemory, make_file

from ..errors import PoolError

if TYPE_CHECKING:
    import numpy
    from numpy.typing import DTypeLike


def shared_array(shape: int | tuple[int, ...], dtype: DTypeLike = float) -> numpy.ndarray[Any, Any]:
    """Return a numpy array of zeros that is passed to workers, and back, without a copy.

    All sides see what any of them writes into it; nobody keeps them from writing at the same time. Slices and other
    views of it are passed likewise. The memory has no name, and is freed when the last array in it is gone, on every
    side.

    Args:
        shape: number of elements, or of those along each axis.
        dtype: of the elements; anything numpy takes, but no Python objects.

    Raises:
        PoolError: this system cannot pass memory to another process.
        ImportError: numpy is not installed here.
        ValueError: there is no such array.
        OSError: the system has no descriptor left.

    Examples:
        >>> numbers = vv.shared_array(3)
        >>> with vv.Pool() as pool:
        ...     pool.exec("numbers[:] = 1, 2, 3", numbers=numbers)
        >>> float(numbers.sum())
        6.0
    """
    if "segments" not in messages.capabilities():
        raise PoolError("shared_array() needs memory that is passed by descriptor, which only Linux has")
    try:
        import numpy
    except ImportError as error:
        raise ImportError("shared_array() makes numpy arrays: install numpy into this environment") from error
    kind = numpy.dtype(dtype)
    if kind.hasobject:
        raise ValueError(f"shared_array() cannot share Python objects (dtype {kind})")
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if any(size < 0 for size in sizes):
        raise ValueError(f"an array has no negative size: {shape!r}")
    size = kind.itemsize
    for length in sizes:
        size *= length
    pages = max(1, -(-size // mmap.PAGESIZE))
    return numpy.ndarray(sizes, kind, SharedMemory(make_file(pages * mmap.PAGESIZE)))
