"""What a process was given and has not received whole: blocks in flight, and where their bytes end on each channel.

Owns the count of items received. Law: an item is received when its bytes of all channels were written.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import accumulate

from .blocks import Block, cost_of


class Flight:
    """A block that was given to the process: where its bytes end on each channel."""

    __slots__ = ("begins", "block", "ends")

    def __init__(self, block: Block, begins: list[int], ends: list[int]) -> None:
        self.block = block
        self.begins = begins
        self.ends = ends

    def received(self, written: list[int]) -> int:
        """Return how many of its items were written whole, given the bytes written on each channel."""
        count = len(self.block.items)
        for column, begin, done in zip(self.block.pieces, self.begins, written, strict=True):
            if done < 0:
                continue
            count = min(count, bisect_right(list(accumulate(map(len, column))), done - begin))
        return count


class Flights:
    """The blocks of one process id, in order.

    Args:
        channels: how many there are.
        keeps_all: all blocks are kept until the process has ended well, to be sent again if it does not.
    """

    def __init__(self, channels: int, keeps_all: bool) -> None:
        self.items = 0  # received, by all processes of this id
        self._channels = channels
        self._keeps_all = keeps_all
        self._flights: deque[Flight] = deque()
        self._pushed = [0] * channels
        self._history: list[Block] = []

    def __bool__(self) -> bool:
        return bool(self._flights)

    def begin(self) -> None:
        """A new process has got nothing yet."""
        self._pushed = [0] * self._channels

    def add(self, block: Block) -> list[bytes]:
        """Append a block; return its bytes for each channel."""
        pieces = block.joined()
        begins = self._pushed
        self._pushed = [begin + len(data) for begin, data in zip(begins, pieces, strict=True)]
        self._flights.append(Flight(block, begins, self._pushed))
        if self._keeps_all:
            self._history.append(block)
        return pieces

    def settle(self, written: list[int]) -> int:
        """Forget the blocks that were received whole; return what they cost.

        Args:
            written: bytes on each channel; -1 where it does not matter.
        """
        cost = 0
        while self._flights:
            flight = self._flights[0]
            if any(0 <= done < end for done, end in zip(written, flight.ends, strict=True)):
                break
            self._flights.popleft()
            self.items += len(flight.block.items)
            cost += flight.block.cost
        return cost

    def take_back(self, written: list[int], is_well: bool) -> tuple[list[Block], int]:
        """Return the blocks that others are to receive, and what all blocks here cost; none is left here.

        Args:
            written: bytes on each channel; -1 where it does not matter.
            is_well: the process ended as it should; else all that were kept are sent again.
        """
        cost = self.settle(written)
        blocks = []
        for flight in self._flights:
            cost += flight.block.cost
            count = flight.received(written)
            self.items += count
            block = flight.block
            pieces = [column[count:] for column in block.pieces]
            if count < len(block.items):
                blocks.append(Block(block.items[count:], pieces, cost_of(pieces)))
        self._flights.clear()
        if self._history and not is_well:
            blocks = self._history
        self._history = []
        return blocks, cost
