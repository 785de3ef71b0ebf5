"""Calls within calls: a function of the host's, called by a worker, calls the pool in its turn.

Stateless. If no worker is free, such a call runs on the one that waits for the function's answer: else it would wait
for itself.
"""

from __future__ import annotations

from venvoy_worker.contract.frames import Frame, FrameError

from .errors import NestedTooDeeply, PoolError, ProtocolError
from .exchange import Call, ends
from .talk import serving
from .worker import Worker, WorkerLost

_DEEPEST = 16  # calls within calls


class Place:
    """Where a call can run that must not wait for a worker.

    Args:
        worker: waits for an answer of this thread.
        deadline: of the call that asked.
    """

    def __init__(self, worker: Worker, deadline: float | None) -> None:
        self._worker = worker
        self._deadline = deadline

    def run(self, call: Call) -> Frame:
        """Run a call there and return its reply.

        Raises:
            TimeoutError: its deadline, or that of the call that waits, has passed; it has been told to stop.
            WorkerLost: the worker is gone.
        """
        worker = self._worker
        deadline = min((time for time in (call.deadline, self._deadline) if time is not None), default=None)
        call_id, pieces = worker.begin(call, is_nested=True)
        try:
            worker.channel.send(pieces, deadline)
            while True:
                frame = worker.channel.receive(deadline)
                if frame is None:
                    raise WorkerLost(worker, call, call_id)
                if ends(frame, call_id, worker.last_id):
                    return frame
                reply = worker.talk.hear(frame, call, call_id, worker)
                if reply is not None:
                    return reply
        except TimeoutError:
            if call.options.on_timeout == "cancel":
                worker.stop_call(call_id)
            raise
        except (OSError, FrameError, ProtocolError) as error:
            raise WorkerLost(worker, call, call_id) from error
        except BaseException:
            worker.stop_call(call_id)
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
    ours = [place for place in chain if workers.get(place.worker.id) is place.worker]
    if not may_nest:
        if len({place.worker.id for place in ours}) == len(workers):
            raise PoolError("all workers of the pool wait for this very function, so none will be free while it waits")
        return None
    if ours and len(chain) > _DEEPEST:
        raise NestedTooDeeply(f"functions called by a worker have called the pool again, {len(chain)} levels deep")
    return Place(workers[ours[-1].worker.id], ours[-1].deadline) if ours else None
