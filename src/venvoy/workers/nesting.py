"""Calls within calls: a function of the host's, called by a worker, calls the pool in its turn.

Stateless. If no worker is free, such a call runs on the one that waits for the function's answer: else it would wait
for itself.
"""

from __future__ import annotations

from collections.abc import Collection

from venvoy_worker.contract.frames import Frame, FrameError

from ..errors import NestedTooDeeply, PoolError, ProtocolError
from ..exchange import Call, ends
from .lane import Lane, WorkerLost
from .talk import Serving, serving
from .turn import ThreadWaiter, Turn
from .worker import Worker

_DEEPEST = 16  # calls within calls


class Place:
    """Where a call can run that must not wait for a worker.

    Args:
        lane: its call waits for an answer of this thread.
        deadline: of that call.
        turn: of those that were started for the same answer.
    """

    def __init__(self, lane: Lane, deadline: float | None, turn: Turn) -> None:
        self.lane = lane
        self.turn = turn
        self._deadline = deadline

    def deadline_of(self, call: Call) -> float | None:
        """Return when a call has to end that runs there: its deadline, or that of the call that waits."""
        return min((time for time in (call.deadline, self._deadline) if time is not None), default=None)

    def run(self, call: Call) -> Frame:
        """Run a call there, when it is its turn, and return its reply.

        Raises:
            TimeoutError: its deadline, or that of the call that waits, has passed; it has been told to stop.
            WorkerLost: the worker is gone.
        """
        waiter, deadline = ThreadWaiter(), self.deadline_of(call)
        try:
            if not self.turn.take(waiter):
                waiter.wait(deadline)
            return self._run(call, deadline)
        finally:
            self.turn.leave(waiter)

    def _run(self, call: Call, deadline: float | None) -> Frame:
        lane = self.lane
        call_id, pieces = lane.begin(call, is_nested=True)
        try:
            lane.talk.write(pieces, lane.channel, deadline, call, call_id)
            while True:
                frame = lane.channel.receive(deadline)
                if frame is None:
                    raise WorkerLost(lane, call, call_id)
                if not ends(frame, call_id, lane.last_id):
                    frame = lane.talk.hear(frame, call, call_id, lane)
                if frame is not None:
                    call.reply = frame
                    return frame
        except TimeoutError:
            if call.options.on_timeout == "cancel":
                lane.stop_call(call_id)
            raise
        except (OSError, FrameError, ProtocolError) as error:
            raise WorkerLost(lane, call, call_id) from error
        except BaseException:
            lane.stop_call(call_id)
            raise


def place_within(workers: dict[int, Worker], may_nest: bool = True) -> Place | None:
    """Return where a call of this thread has to be nested, given that none of the workers of its pool is free.

    Args:
        workers: of the pool, by id.
        may_nest: False for what wants a worker to itself.

    Raises:
        NestedTooDeeply: calls are nested without end.
        PoolError: it wants a worker to itself, and all there are wait for this thread.
    """
    chain = serving.get()
    if not chain:
        return None
    ours = [entry for entry in chain if isinstance(entry.lane, Lane) and _is_among(workers, entry.lane)]
    if not may_nest:
        if len({entry.lane for entry in ours}) == sum(len(worker.lanes) for worker in workers.values()):
            raise PoolError("all workers of the pool wait for this very function, so none will be free while it waits")
        return None
    return _innermost(ours)


def place_on(lanes: Collection[Lane]) -> Place | None:
    """Return where a call for one of these lanes has to be nested, if one of them waits for an answer of this thread.

    Raises:
        NestedTooDeeply: calls are nested without end.
    """
    return _innermost([entry for entry in serving.get() if entry.lane in lanes])


def _innermost(ours: list[Serving]) -> Place | None:
    depth = len(serving.get())
    if ours and depth > _DEEPEST:
        raise NestedTooDeeply(f"functions called by a worker have called the pool again, {depth} levels deep")
    return Place(*ours[-1]) if ours else None  # type: ignore[arg-type]


def _is_among(workers: dict[int, Worker], lane: Lane) -> bool:
    return workers.get(lane.worker.id) is lane.worker
