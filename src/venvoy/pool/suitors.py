"""Those who wait for one very worker: objects of theirs live there. Their queue is `Worker.suitors`.

Every function is called with the roster's lock held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from ..workers.worker import Worker


def queue_of(worker: Worker, waiting: deque[Any]) -> deque[Any]:
    """Return the queue whose turn it is to get a lane of a worker that some wait for and no other.

    Args:
        waiting: those who would take any worker.
    """
    worker.is_suitors_turn = not worker.is_suitors_turn
    return worker.suitors if worker.is_suitors_turn or not waiting else waiting


def turn_away(worker: Worker, error: Callable[[], BaseException]) -> None:
    """Tell those who wait for a worker that they wait in vain."""
    while worker.suitors:
        worker.suitors.popleft().grant(None, error)
