"""From an item to the desk: which process it goes to, which encoders make its bytes, how many at a time.

Owns the encoders, and the number of the next item. Laws: encoders run on the thread that calls; of one process, one
encoder runs for one item at a time, and its bytes are put in the same order.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from ..errors import SwarmError
from .blocks import BLOCK_BYTES, Block, cost_of
from .desk import Desk
from .encoding import Encoders, have_state, key_index, split_by
from .intake import Intake
from .options import Plan

_FEWEST, _MOST = 64, 8192  # items encoded in one go
_MOST_STAGED = 128  # items between two looks at the bounds


class Feeding:
    """What feeding does with items.

    Args:
        plan: of the swarm.
        desk: where their bytes wait.
    """

    def __init__(self, plan: Plan, desk: Desk) -> None:
        self.has_state = have_state(plan.channels)
        self.encoders = None if self.has_state else Encoders(plan.channels, None)
        self.intake = Intake(desk)
        self._plan = plan
        self._desk = desk
        self._own_encoders: dict[int, tuple[int, Encoders]] = {}
        self._encode_locks = [threading.Lock() for _ in range(plan.count)]  # one encoder runs for one item at a time
        self._turn_lock = threading.Lock()  # guards the number of the next item, for "round-robin"
        self._number = 0

    def feed_one(self, item: Any, timeout: float | None) -> None:
        """Feed one item that goes to a certain process, or whose bytes depend on the process."""
        target = None if self._plan.distribute == "ready" else self.target_of(item)
        if self.encoders is None:
            self.feed_encoded_by_process(item, target, timeout)
            return
        pieces = [[piece] for piece in self.encoders.one(item)]
        self.intake.put(Block([item], pieces, cost_of(pieces)), target, timeout)

    def feed_batch(self, items: list[Any], timeout: float | None) -> None:
        """Feed items that were drawn already; those that are not taken are among the undelivered.

        Raises:
            Exception: what an encoder raised; the items before were fed.
        """
        done = 0
        try:
            for target, part in self._parts(items):
                if self.has_state:
                    for item in part:
                        self.feed_encoded_by_process(item, target, timeout)
                        done += 1
                    continue
                assert self.encoders is not None
                block, failure = self.encoders.many(part)
                if block.items:
                    self.intake.put(block, target, timeout)
                done += len(block.items)
                if failure is not None:
                    raise failure
        except BaseException:
            with self._desk.changed:
                self._desk.refused += items[done:]
            raise

    def _parts(self, items: list[Any]) -> Iterator[tuple[int | None, list[Any]]]:
        """Yield (process, items) as the items are to be distributed; None for the process is whoever has room."""
        if self._plan.distribute == "ready":
            yield None, items
            return
        parts = split_by([self.target_of(item) for item in items], self._plan.count, items)
        for target, part in enumerate(parts):
            if part:
                yield target, part

    def target_of(self, item: Any) -> int:
        """Return the process that an item goes to."""
        if self._plan.key is not None:
            return key_index(self._plan.key(item), self._plan.count)
        with self._turn_lock:
            self._number += 1
            return (self._number - 1) % self._plan.count

    def feed_encoded_by_process(self, item: Any, target: int | None, timeout: float | None) -> None:
        """Feed one item whose bytes depend on the process that gets it."""
        self.encode_anew()
        self._feed_with_state([item], target, timeout)

    def _feed_with_state(self, items: list[Any], target: int | None, timeout: float | None) -> None:
        while True:
            process_id, generation = self.intake.choose(target, timeout)
            with self._encode_locks[process_id]:
                encoders = self._encoders_of(process_id, generation)
                block, failure = encoders.many(items)
                if block.items and not self.intake.put_encoded(process_id, generation, block):
                    continue
            if failure is not None:
                raise failure
            return

    def _encoders_of(self, process_id: int, generation: int) -> Encoders:
        found = self._own_encoders.get(process_id)
        if found is None or found[0] != generation:
            found = self._own_encoders[process_id] = generation, Encoders(self._plan.channels, process_id)
        return found[1]

    def encode_anew(self) -> None:
        """Encode for the others what processes that are gone did not receive."""
        while self._desk.raw:
            with self._desk.changed:
                if not self._desk.raw:
                    return
                items = self._desk.raw.popleft()
            target = None if self._plan.distribute == "ready" else self.target_of(items[0])
            try:
                self._feed_with_state(items, target, None)
            except BaseException:
                with self._desk.changed:
                    self._desk.lost += items
                raise

    def feed_sequence(self, items: Sequence[Any], timeout: float | None) -> int:
        """Feed a list, tuple or range in large batches; return how many there were."""
        size, begin = _FEWEST, 0
        while begin < len(items):
            batch = list(items[begin : begin + size])
            self.feed_batch(batch, timeout)
            begin += len(batch)
            size = min(_MOST, 2 * size) if self._desk.shared.cost < 4 * BLOCK_BYTES else size
        return begin

    def feed_eagerly(self, iterable: Iterable[Any], timeout: float | None) -> int:
        """Feed an iterable that may take its time for each item; return how many there were."""
        assert self.encoders is not None
        desk, intake, one = self._desk, self.intake, self.encoders.one
        stage = intake.open_stage()
        add_item, add_row = stage.items.append, stage.rows.append
        iterator = iter(iterable)
        count, size = 0, 1
        try:
            while True:
                before = count
                for item in islice(iterator, size):
                    try:
                        row = one(item)
                    except BaseException:
                        self.lose([item])
                        raise
                    add_item(item)
                    add_row(row)
                    count += 1
                    if not desk.is_awake:
                        intake.wake_now()
                intake.hand_over(stage, timeout)
                if count - before < size:
                    return count
                size = min(2 * size, _MOST_STAGED)
        finally:
            intake.close_stage(stage)

    def lose(self, items: list[Any]) -> None:
        """Count items that were drawn and could not be fed among the undelivered."""
        with self._desk.changed:
            self._desk.refused += items

    def write_endings(self) -> None:
        """Ask the encoders of each process for what they write before the end of file."""
        try:
            self._await_rerouting()
            for process_id in range(self._plan.count):
                if self._desk.is_alive[process_id]:
                    with self._encode_locks[process_id]:
                        encoders = self._encoders_of(process_id, self._desk.generation[process_id])
                        self._desk.endings[process_id] = encoders.endings()
        except SwarmError:  # it failed meanwhile, which closing tells
            return

    def _await_rerouting(self) -> None:
        """Where processes may be replaced: wait until everything was received, and encode anew what was not."""
        while True:
            self.encode_anew()
            if self._plan.on_exit == "fail":
                return
            with self._desk.changed:
                self._desk.is_draining = True
                while not self._desk.raw and self._desk.failure is None and self._is_undelivered():
                    self._desk.changed.wait()
                if self._desk.failure is not None or not self._desk.raw:
                    return

    def _is_undelivered(self) -> bool:
        return any(self._desk.given) or any(self._desk.lanes) or bool(self._desk.shared)
