"""The desk as threads that feed see it: they put items there, and wait for room.

Owns whose turn it is among the processes that ask for items. Nothing is encoded here, and nothing under the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from ..errors import FeedStalled
from .blocks import Block, Lane, Stage
from .desk import Desk


class Intake:
    """What feeding threads do at a desk.

    Args:
        desk: of the swarm.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._next = 0  # the process that gets the next item made on request

    def put_one(self, item: Any, pieces: Sequence[bytes], timeout: float | None) -> None:
        """Append an item for whoever has room, waiting for room here."""
        shared = self._desk.shared
        with self._desk.lock:  # entering a Condition costs a call more
            if not self._desk.is_open or shared.cost >= self._desk.limit:
                self._wait(lambda: shared.cost < self._desk.limit, timeout)
            shared.put_one(item, pieces)
            if not self._desk.is_awake:
                self._desk.wake()

    def try_put_one(self, item: Any, pieces: Sequence[bytes], call_for_room: Callable[[], object]) -> bool:
        """Append an item if there is room; else return False and call back once there is."""
        with self._desk.changed:
            self._desk.check_open()
            if self._desk.shared.cost >= self._desk.limit:
                self._desk.calls_for_room.append(call_for_room)
                return False
            self._desk.shared.put_one(item, pieces)
            if not self._desk.is_awake:
                self._desk.wake()
        return True

    def open_stage(self) -> Stage:
        """Return a stage for a thread that is going to feed many items."""
        with self._desk.lock:
            self._desk.check_open()
            self._desk.stages.append(Stage())
            return self._desk.stages[-1]

    def hand_over(self, stage: Stage, timeout: float | None) -> None:
        """Hand over what is on a stage, waiting for room here."""
        with self._desk.lock:
            if not self._desk.is_open or self._desk.shared.cost >= self._desk.limit:
                self._wait(lambda: self._desk.shared.cost < self._desk.limit, timeout)
            stage.hand_over(self._desk.shared)
            self._desk.wake()

    def close_stage(self, stage: Stage) -> None:
        """Hand over the rest, whatever there is of room: it was fed."""
        with self._desk.lock:
            stage.hand_over(self._desk.shared)
            self._desk.stages.remove(stage)
            self._desk.wake()

    def wake_now(self) -> None:
        """Make the I/O thread look here."""
        with self._desk.lock:
            self._desk.wake()

    def put(self, block: Block, process_id: int | None, timeout: float | None) -> None:
        """Append a block for one process, or for whoever has room (None), waiting for room here."""
        with self._desk.changed:
            lane, limit = self._lane(process_id)
            if not self._desk.is_open or lane.cost >= limit:
                self._wait(lambda: lane.cost < limit, timeout)
            if process_id is not None and not self._desk.is_alive[process_id]:
                lane = self._lane(self._desk.substitute(process_id))[0]
            lane.put(block)
            self._desk.wake()

    def _lane(self, process_id: int | None) -> tuple[Lane, int]:
        if process_id is None:
            return self._desk.shared, self._desk.limit
        return self._desk.lanes[process_id], self._desk.own_limit

    def put_encoded(self, process_id: int, generation: int, block: Block) -> bool:
        """Append a block encoded for one start of one process; return False when that is gone."""
        with self._desk.changed:
            if not self._desk.is_alive[process_id] or self._desk.generation[process_id] != generation:
                return False
            self._desk.lanes[process_id].put(block)
            self._desk.demand[process_id] -= max(sum(map(len, column)) for column in block.pieces)
            if self._desk.demand[process_id] <= 0:
                self._desk.is_awake = True
                self._desk.call()  # at once, since nobody puts more there until it was taken
            else:
                self._desk.wake()
        return True

    def choose(self, wanted: int | None, timeout: float | None) -> tuple[int, int]:
        """Wait until a process has room, and return its id and generation.

        Args:
            wanted: the only one that may be chosen; None is any.
        """
        with self._desk.changed:
            if not self._desk.is_open or self._with_room(wanted) is None:
                self._wait(lambda: self._with_room(wanted) is not None, timeout)
            found = self._with_room(wanted)
            assert found is not None
            return found, self._desk.generation[found]

    def _with_room(self, wanted: int | None) -> int | None:
        if wanted is not None:
            process_id = wanted if self._desk.is_alive[wanted] else self._desk.substitute(wanted)
            return process_id if self._desk.lanes[process_id].cost < self._desk.own_limit else None
        for step in range(self._desk.plan.count):
            process_id = (self._next + step) % self._desk.plan.count
            if self._desk.is_alive[process_id] and self._desk.demand[process_id] > 0:
                self._next = process_id  # until its demand is met: few large writes
                return process_id
        return None

    def _wait(self, has_room: Callable[[], bool], timeout: float | None) -> None:
        """Under the lock: wait for room.

        Raises:
            SwarmError: the swarm failed or was closed meanwhile.
            FeedStalled: there was none in time; the swarm goes on.
        """
        deadline = None if timeout is None else monotonic() + timeout
        self._desk.waiting += 1
        try:
            while True:
                self._desk.check_open()
                if has_room():
                    return
                remaining = None if deadline is None else deadline - monotonic()
                if remaining is not None and remaining <= 0:
                    raise FeedStalled(
                        f"{self._desk.plan.name}: no process took input within {timeout} s; the item was not fed."
                        f" {self._desk.waiting_input()}"
                    )
                self._desk.changed.wait(remaining)
        finally:
            self._desk.waiting -= 1
