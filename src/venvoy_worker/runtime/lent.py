"""Large values in memory shared with the host.

Owns this worker's side of it, which is there where both have said in their greetings that they can.
"""

from __future__ import annotations

FOR_GOOD = -1  # the tag of frames between a call and its reply, which are sent in any case
by_host: list[Borrowed] = []  # segments of the host that are, or were, in use here
_loans: Loans | None = None


def open_line(line: Control, terms: tuple[int | None, int, bool]) -> Borrower:
    """Begin; return what knows the host's segments.

    Args:
        terms: the setting `segments` of HELLO.
    """
    global _loans, by_host
    from ..contract.loans import Loans  # start-up time: not every system has it

    _loans = line.loans = Loans(line, terms, lambda: False)
    by_host = _loans.borrower.lent
    return _loans.borrower


def place(tag: int, body: Sequence[Data], buffers: Sequence[Data]) -> tuple[Sequence[Data], Sequence[Part]]:
    """Return body and buffers of a frame for `frames.pack`; see `Lender.place`."""
    return (body, buffers) if _loans is None else _loans.lender.place(tag, body, buffers)


def take_back(tag: int) -> None:
    """The frame of this tag is not going to be sent."""
    if _loans is not None:
        _loans.lender.take_back(tag)


def give_back() -> None:
    """Tell the host which of its segments nothing here refers to any more."""
    if _loans is not None:
        _loans.borrower.give_back()


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Sequence, Union

    from ..contract.borrowing import Borrowed, Borrower
    from ..contract.frames import Part
    from ..contract.loans import Loans
    from .control import Control

    Data = Union[bytes, bytearray, memoryview]
