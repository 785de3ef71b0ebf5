"""How much may be sent to a worker ahead of its replies. Stateless.

Laws: only while calls are measured to be quick, so that none waits behind a slow one while other workers are idle; and
no more bytes than surely fit into a pipe or the buffer of a socket, so that host and worker never both wait to write.
"""

from __future__ import annotations

from ..workers.lane import Lane

ROOM = 32_768  # bytes of unanswered requests: they fit into a pipe or socket buffer, unless pipes are small
LARGEST = 4096  # bytes of one request that is sent ahead
UNCOUNTED = 64  # calls on a lane that never rests, of which the pool need not be told yet
STALL = 0.005  # seconds without a reply after which what was sent ahead is taken back
_QUICK = 0.001  # seconds; calls that take less are sent ahead of the reply before
_MOST = 64  # calls
_SECONDS = 0.005  # of work that is sent ahead, as calls are measured


def how_many(lane: Lane, unanswered: int) -> int:
    """Return how many calls more may be sent on a lane now, none while many are unanswered.

    Args:
        unanswered: how many are.
    """
    mean = lane.mean_seconds
    if mean is None or mean > _QUICK or unanswered > _MOST // 2:
        return 0
    if lane.is_attributed:  # what is printed must belong to one call
        return 0
    return max(0, min(_MOST, int(_SECONDS / mean) if mean else _MOST) - unanswered)
