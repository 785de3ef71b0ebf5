"""The pool's own thread for what takes time and is nobody's call: opening the environment, spawning workers.

Owns the recipe of the workers, once the pool has been opened. It is woken whenever more workers may be needed, and
then looks at the facts, so a wake-up too many does no harm. Nothing is spawned on a caller's thread, so that a caller
that is served by another worker meanwhile does not wait for a start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from ..collector import Collector
from ..envs import Cancel
from ..errors import VenvoyError, WorkerStartError
from ..log import logger
from ..worker import Worker
from ..worker_start import Recipe
from .drivers import Drivers
from .staff import Staff


class Supervisor:
    """See the module.

    Args:
        name: of the pool, for the thread's name.
        staff: told what was opened and spawned, and the listener of every worker.
        drivers: kept at one thread a worker.
        open_pool: builds the environment and returns the recipe; gets the flag that asks it to stop.
    """

    def __init__(
        self,
        name: str,
        staff: Staff,
        drivers: Drivers,
        collector: Collector,
        open_pool: Callable[[Cancel], Recipe],
    ) -> None:
        self._staff = staff
        self._drivers = drivers
        self._collector = collector
        self._open_pool = open_pool
        self._recipe: Recipe | None = None
        self._wakes: SimpleQueue[bool] = SimpleQueue()  # True: look; False: end
        self._cancel = Cancel()
        self.thread = threading.Thread(target=self._run, name=f"venvoy-supervisor-{name}", daemon=True)
        self.thread.start()

    def attend(self) -> None:
        """See whether the pool is to be opened or workers are to be started."""
        self._wakes.put(True)

    def close(self) -> None:
        """Let the thread end; a build under way is stopped."""
        self._cancel.set()
        self._wakes.put(False)

    def _run(self) -> None:
        while self._wakes.get():
            if self._staff.begin_opening():
                self._open()
            if self._recipe is not None:
                while self._start_one(self._recipe):
                    pass
                self._drivers.grow(self._staff.drivers_needed())
        self._drivers.close()  # here, since nobody else adds to them

    def _open(self) -> None:
        try:
            self._recipe = self._open_pool(self._cancel)
        except BaseException as error:
            if not isinstance(error, VenvoyError):
                logger.exception("a pool could not be opened")
            self._staff.opening_failed(error)
        else:
            self._staff.opened()
        finally:
            self._cancel.close()

    def _start_one(self, recipe: Recipe) -> bool:
        """Start a worker if one is missing; return False when nothing more is to be tried now."""
        worker = self._staff.hire(lambda number: Worker(number, recipe, self._collector, self._staff))
        if worker is None:
            return False
        try:
            worker.start()
        except OSError as error:
            reason = f"cannot start a worker with {recipe.python}: {error.strerror or error}"
            if error.filename and str(error.filename) != recipe.python:
                reason += f": {error.filename}"
            self._staff.spawn_failed(worker, WorkerStartError(reason))
            return False
        except Exception as error:  # settings that cannot be encoded
            self._staff.spawn_failed(worker, WorkerStartError(f"cannot start a worker: {error}"))
            return False
        if worker.reason is not None:  # the pool was closed, or it was to be ended, while it was being spawned
            worker.kill()
        return True
