"""Both sides of the segments of one worker, as each end has them: what it lends, and what it borrows."""

from __future__ import annotations

from . import frames, messages
from .borrowing import Borrower
from .lending import Lender


class Loans:
    """The segments between this process and one other.

    Args:
        line: the control line.
        terms: what `terms_of` returned.
        pump: see `Borrower`.
    """

    def __init__(self, line: Line, terms: tuple[int | None, int, bool], pump: Callable[[], bool]) -> None:
        least, most, is_readonly = terms
        self.lender = Lender(line.announce, line.tell, least, most)
        self.borrower = Borrower(line.tell, is_readonly, pump)

    def hear(self, frame: Frame, fd: int | None) -> None:
        """On the thread of the control line: the other side has said something about segments.

        Args:
            fd: the descriptor that came with SEGMENT; None if it was lost on its way.
        """
        if frame.opcode == messages.SEGMENT:
            self.borrower.add(frame.call_id, frame.flags, fd)
            return
        numbers = messages.read_ids(frame.body)
        if frame.flags & frames.SEGMENT_GONE:
            self.borrower.forget(numbers)
        else:
            self.lender.free(numbers, bool(frame.flags & frames.SEGMENT_KEPT))

    def close(self) -> None:
        """The other side is gone."""
        self.lender.close()
        self.borrower.close()


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, List, Protocol, Union

    from .frames import Frame

    Pieces = List[Union[bytes, bytearray, memoryview]]

    class Line(Protocol):
        """The control line of either end."""

        def announce(self, pieces: Pieces, fd: int) -> bool:
            """Send a frame and a descriptor; return False if that cannot be done now."""

        def tell(self, pieces: Pieces) -> bool:
            """Send a frame; return False if that cannot be done now."""
