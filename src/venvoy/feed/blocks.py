"""Items and their encoded bytes on the way to a process: blocks, and lanes in which blocks wait.

A lane belongs to whoever holds the swarm's lock. Laws: an item's bytes of all channels stay in one block; the order of
a lane is the order of feeding; what was given back (`put_back`) goes first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

BLOCK_BYTES = 65_536  # cost at which a block is full and the next one begins
PIECE_COST = 64  # bytes of memory that an encoded item takes besides its bytes, about
_MOST_CANDIDATES = 65_536  # items looked at when a block is cut


class Block:
    """Some items and, for each channel, the list of their bytes.

    Args:
        items: as they were fed.
        pieces: per channel, a list as long as `items`.
        cost: bytes of memory all this takes, about.
    """

    __slots__ = ("cost", "items", "pieces", "start")

    def __init__(self, items: list[Any], pieces: list[list[bytes]], cost: int) -> None:
        self.items = items
        self.pieces = pieces
        self.cost = cost
        self.start = 0  # what is before it was cut off already

    def __len__(self) -> int:
        return len(self.items) - self.start

    def rest(self) -> list[Any]:
        """Return the items that were not cut off."""
        return self.items[self.start :] if self.start else self.items

    def cut(self, limits: Sequence[int | None]) -> Block | None:
        """Cut off and return as many items as fit, at least one; None where all fit.

        Args:
            limits: bytes per channel; None is unlimited.
        """
        count = len(self)
        for column, limit in zip(self.pieces, limits, strict=True):
            if limit is not None:
                candidates = column[self.start : self.start + min(count, _MOST_CANDIDATES)]
                count = min(count, max(1, bisect_right(list(accumulate(map(len, candidates))), limit)))
        if count >= len(self):
            return None
        end = self.start + count
        pieces = [column[self.start : end] for column in self.pieces]
        part = Block(self.items[self.start : end], pieces, cost_of(pieces))
        self.start = end
        self.cost -= part.cost
        return part

    def joined(self) -> list[bytes]:
        """Return the bytes for each channel, and forget what was cut off before."""
        if self.start:
            self.items = self.items[self.start :]
            self.pieces = [column[self.start :] for column in self.pieces]
            self.start = 0
        return [column[0] if len(column) == 1 else b"".join(column) for column in self.pieces]


def cost_of(pieces: Sequence[Sequence[bytes]]) -> int:
    """Return about how many bytes of memory encoded items take."""
    return sum(sum(map(len, column)) + PIECE_COST * len(column) for column in pieces)


class Lane:
    """A queue of blocks, and of items that are not a block yet."""

    __slots__ = ("_blocks", "_items", "_open_cost", "_rows", "cost")

    def __init__(self) -> None:
        self._blocks: deque[Block] = deque()
        self._items: list[Any] = []  # the block that grows: its items, and the bytes of each for all channels
        self._rows: list[Sequence[bytes]] = []
        self._open_cost = 0
        self.cost = 0

    def __bool__(self) -> bool:
        return bool(self._blocks or self._items)

    def put_one(self, item: Any, pieces: Sequence[bytes]) -> None:
        """Append one item."""
        cost = 0
        for piece in pieces:
            cost += len(piece) + PIECE_COST
        self._items.append(item)
        self._rows.append(pieces)
        self.cost += cost
        self._open_cost += cost
        if self._open_cost >= BLOCK_BYTES:
            self._seal()

    def put_rows(self, items: list[Any], rows: list[Sequence[bytes]]) -> None:
        """Append items, given the bytes of each for all channels."""
        self._seal()
        columns = [list(column) for column in zip(*rows, strict=True)]
        self.put(Block(items, columns, cost_of(columns)))

    def _seal(self) -> None:
        if self._items:
            columns = [list(column) for column in zip(*self._rows, strict=True)]
            self._blocks.append(Block(self._items, columns, self._open_cost))
            self._items, self._rows, self._open_cost = [], [], 0

    def put(self, block: Block) -> None:
        """Append a block."""
        self._seal()
        self._blocks.append(block)
        self.cost += block.cost

    def put_back(self, block: Block) -> None:
        """Prepend a block whose process is gone."""
        self._blocks.appendleft(block)
        self.cost += block.cost

    def take(self, limits: Sequence[int | None]) -> Block | None:
        """Remove and return what fits of the first block, at least one item; None where nothing waits."""
        if not self._blocks:
            self._seal()
            if not self._blocks:
                return None
        block = self._blocks[0]
        part = block.cut(limits)
        if part is None:
            part = self._blocks.popleft()
        self.cost -= part.cost
        return part

    def take_all(self) -> list[Block]:
        """Remove and return all blocks."""
        self._seal()
        blocks = list(self._blocks)
        self._blocks.clear()
        self.cost = 0
        return blocks


class Stage:
    """What one thread has encoded and not handed over yet.

    It appends to `items`, then to `rows`, without a lock; whoever holds the swarm's lock may take what is whole.
    So nothing is held back while the thread waits for its next item.
    """

    __slots__ = ("items", "rows")

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.rows: list[Sequence[bytes]] = []

    def hand_over(self, lane: Lane) -> int:
        """Under the lock: move what is whole to a lane; return how many items that were."""
        count = len(self.rows)
        if count:
            items, rows = self.items[:count], self.rows[:count]
            del self.rows[:count], self.items[:count]
            lane.put_rows(items, rows)
        return count
