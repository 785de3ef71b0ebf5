"""The pool's own thread for what takes time and is nobody's call: opening the environment, spawning workers.

Owns a queue of orders and, once the pool has been opened, the recipe of its workers. Nothing is spawned on a caller's
thread, so that a caller that is served by another worker meanwhile does not wait for a start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..collector import Collector
from ..errors import VenvoyError, WorkerStartError
from ..log import logger
from ..worker import Recipe, Worker
from .roster import OPEN
from .staff import Staff


class Supervisor:
    """See the module.

    Args:
        name: of the pool, for the thread's name.
        staff: told what was opened and spawned, and the listener of every worker.
        open_pool: builds the environment and returns the recipe; gets an event that asks it to stop.
    """

    def __init__(
        self, name: str, staff: Staff, collector: Collector, open_pool: Callable[[threading.Event], Recipe]
    ) -> None:
        self._staff = staff
        self._collector = collector
        self._open_pool = open_pool
        self._recipe: Recipe | None = None
        self._changed = threading.Condition(threading.Lock())  # guards the two below; no work is done under it
        self._orders: list[int] = []
        self._is_closed = False
        self._cancel = threading.Event()
        self.thread = threading.Thread(target=self._run, name=f"venvoy-supervisor-{name}", daemon=True)
        self.thread.start()

    def order(self, workers: int) -> None:
        """Start so many workers, or open the pool first, for `OPEN`."""
        with self._changed:
            self._orders.append(workers)
            self._changed.notify()

    def close(self) -> None:
        """Let the thread end; a build under way is stopped."""
        self._cancel.set()
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._orders and not self._is_closed:
                    self._changed.wait()
                if not self._orders:
                    return
                order = self._orders.pop(0)
            workers = self._open() if order == OPEN else order
            for _ in range(workers):
                self._spawn()

    def _open(self) -> int:
        try:
            self._recipe = self._open_pool(self._cancel)
        except BaseException as error:
            if not isinstance(error, VenvoyError):
                logger.exception("a pool could not be opened")
            self._staff.opening_failed(error)
            return 0
        return self._staff.opened()

    def _spawn(self) -> None:
        recipe = self._recipe
        assert recipe is not None
        worker = self._staff.add(lambda number: Worker(number, recipe, self._collector, self._staff))
        if worker is None:
            return
        try:
            worker.start()
        except OSError as error:
            reason = f"cannot start a worker with {recipe.python}: {error.strerror or error}"
            if error.filename and str(error.filename) != recipe.python:
                reason += f": {error.filename}"
            self._staff.spawn_failed(worker, WorkerStartError(reason))
            return
        except Exception as error:  # settings that cannot be encoded
            self._staff.spawn_failed(worker, WorkerStartError(f"cannot start a worker: {error}"))
            return
        if not self._staff.start_is_wanted(worker):
            worker.kill()
