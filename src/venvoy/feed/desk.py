"""Where feeding threads and the I/O thread of a swarm meet: lanes of blocks, bounds, the swarm's state, one lock.

Owns what waits and is not yet given to a process, and the amounts that were. Laws: under the lock nothing is encoded,
written, or called back; a thread that waits for room is woken when there is some, when the swarm fails, and when it
is closed; the I/O thread is woken only while it sleeps (`is_awake`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from ..errors import SwarmClosed, SwarmError
from .blocks import Block, Lane, Stage
from .options import Plan

LANE_BYTES = 8 << 20  # cost of what waits for any process
OWN_LANE_BYTES = 1 << 20  # cost of what waits for one


class State(Enum):
    """Of a swarm; it only moves downwards."""

    NEW = "was not started"
    RUNNING = "is running"
    ENDING = "is being closed"
    FAILED = "has failed"
    CLOSED = "is closed"


class Desk:
    """What waits, under one lock.

    Args:
        plan: of the swarm.
        wake: makes the I/O thread look here; called under the lock, does not block.
    """

    def __init__(self, plan: Plan, wake: Callable[[], object]) -> None:
        self.plan = plan
        self.lock = threading.Lock()  # guards all below
        self.changed = threading.Condition(self.lock)
        self.state = State.NEW
        self.failure: SwarmError | None = None
        self.shared = Lane()
        self.lanes = [Lane() for _ in range(plan.count)]
        self.is_awake = False
        self.has_started = False  # the first process
        self.is_open = False  # for items: nobody has closed it, or broken it
        self.given = [0] * plan.count  # cost of what each process was given and has not received
        self.stages: list[Stage] = []  # of threads that feed many items
        self.demand = [0] * plan.count  # bytes that each would take now; used where an item's bytes depend on it
        self.is_alive = [True] * plan.count
        self.generation = [0] * plan.count  # how often each was started
        self.raw: deque[list[Any]] = deque()  # items to be encoded anew, since their process is gone
        self.endings: dict[int, list[bytes]] = {}
        self.refused: list[Any] = []  # items that were drawn from an iterable and could not be fed
        self.lost: list[Any] = []  # items of processes that are gone, where nobody else takes them
        self.waiting = 0  # threads that wait for room
        self.is_draining = False  # somebody waits until everything was received
        self.calls_for_room: list[Callable[[], object]] = []
        self.call = wake  # the I/O thread
        self.limit = min(LANE_BYTES, plan.max_bytes)
        self.own_limit = min(OWN_LANE_BYTES, plan.max_bytes)

    def substitute(self, process_id: int) -> int:
        """Under the lock: return who gets the items of a process that is gone."""
        for step in range(self.plan.count):
            other = (process_id + step) % self.plan.count
            if self.is_alive[other]:
                return other
        return process_id

    def wake(self) -> None:
        """Under the lock: make the I/O thread look here."""
        if not self.is_awake:
            self.is_awake = True
            self.call()

    def waiting_input(self) -> str:
        """Return in words where input is held up."""
        given = ", ".join(f"process {number}: {cost:,}" for number, cost in enumerate(self.given))
        return f"Bytes of memory that wait for each ({given}) and for any of them ({self.shared.cost:,})."

    def check_open(self) -> None:
        """Under the lock: raise why no item is taken, if none is.

        Raises:
            SwarmError: what the swarm failed with.
            SwarmClosed: it was closed, or not started.
        """
        if self.failure is not None:
            raise self.failure
        if not self.is_open:
            raise SwarmClosed(f"{self.plan.name} takes no items: it {self.state.value}")

    # For the I/O thread.

    def take(self, process_id: int, limits: Sequence[int | None]) -> Block | None:
        """Return what a process is to get next, at least one item; None where nothing waits for it."""
        with self.changed:
            own = self.lanes[process_id]
            if not own and not self.shared:
                for stage in self.stages:
                    stage.hand_over(self.shared)
            block = own.take(limits) if own else self.shared.take(limits)
            if block is not None:
                self.given[process_id] += block.cost
                self.make_room_known()
            return block

    def make_room_known(self) -> None:
        """Under the lock: wake those who wait for room, once there is a good deal of it."""
        if not self.waiting and not self.calls_for_room:
            return
        if self.shared.cost <= self.limit // 2:
            self.changed.notify_all()
            calls, self.calls_for_room = self.calls_for_room, []
            for call in calls:
                call()

    def received(self, process_id: int, cost: int) -> None:
        """A process has received what it was given, or is gone."""
        with self.changed:
            self.given[process_id] -= cost
            if self.is_draining:
                self.changed.notify_all()

    def ask(self, process_id: int, demand: int) -> None:
        """A process has room and finds nothing: let threads that encode for it know."""
        with self.changed:
            if self.demand[process_id] <= 0:
                self.demand[process_id] = demand
                self.changed.notify_all()

    def may_take_more(self, process_id: int) -> bool:
        """Return whether a process may be given more before it has received what it was given."""
        with self.changed:
            return self.given[process_id] < self.plan.max_process_bytes and sum(self.given) < self.plan.max_bytes

    def has_nothing_for(self, process_id: int) -> bool:
        """Return whether the input of a process is complete."""
        with self.changed:
            if self.state is not State.ENDING or self.shared or self.raw or self.stages or self.lanes[process_id]:
                return False
            others = (cost for other, cost in enumerate(self.given) if other != process_id)
            is_held_up = self.plan.on_exit == "reroute" and not self.given[process_id]
            return not (is_held_up and any(others))  # what they do not receive may have to go to this one

    def fail(self, error: SwarmError) -> bool:
        """Let the swarm have failed; return False if it had before."""
        with self.changed:
            if self.failure is not None or self.state is State.CLOSED:
                return False
            self.failure = error
            self.set_state(State.FAILED)
            return True

    def set_state(self, state: State) -> None:
        """Under the lock: enter a state, and tell everybody who waits."""
        self.state = state
        self.is_open = state is State.RUNNING
        self.changed.notify_all()
        calls, self.calls_for_room = self.calls_for_room, []
        for call in calls:
            call()

    def left(self) -> list[Any]:
        """Return the items that were fed and given to nobody, or back by somebody."""
        with self.changed:
            for stage in self.stages:
                stage.hand_over(self.shared)
            items = list(self.lost)
            for lane in (*self.lanes, self.shared):
                blocks = lane.take_all()
                for block in blocks:
                    lane.put(block)
                    items += block.rest()
            for raw in self.raw:
                items += raw
            return items
