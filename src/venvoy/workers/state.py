"""What a worker can be doing, what may follow, and why it may have ended: the table behind `Worker.move`."""

from __future__ import annotations

import enum


class State(enum.Enum):
    """What a worker is doing."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    ABANDONED = "abandoned"  # its driver left; the collector waits for the call to end
    RETIRING = "retiring"
    EXITED = "exited"

    __hash__ = object.__hash__  # Enum's own is Python code, and three moves are in each call


class Reason(enum.Enum):
    """Why a worker ended."""

    CLOSED = "closed"  # its pool was
    IDLE = "idle"  # for too long
    MAX_CALLS = "max_calls"
    AGE = "age"
    MEMORY = "memory"
    DRAINED = "drained"  # replaced by one with newer code, or one whose state is known
    KILLED = "killed"  # by terminate() or kill()
    CRASHED = "crashed"
    START_FAILED = "start_failed"


MOVES = {
    State.STARTING: {State.IDLE, State.RETIRING, State.EXITED},
    State.IDLE: {State.BUSY, State.RETIRING, State.EXITED},
    State.BUSY: {State.IDLE, State.ABANDONED, State.RETIRING, State.EXITED},
    State.ABANDONED: {State.IDLE, State.RETIRING, State.EXITED},
    State.RETIRING: {State.EXITED},
    State.EXITED: set(),
}
