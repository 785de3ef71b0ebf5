"""The pool's own thread for what takes time and is nobody's call: opening the environment, spawning workers.

Owns the recipe of the workers, once the pool has been opened. It is woken whenever more workers may be needed, and
then looks at the facts, so a wake-up too many does no harm. Nothing is spawned on a caller's thread, so that a caller
that is served by another worker meanwhile does not wait for a start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from ..collector import Collector, Timer
from ..envs import Cancel
from ..errors import VenvoyError, WorkerStartError
from ..log import logger
from ..worker import Worker
from ..worker_start import Recipe
from .drivers import Drivers
from .opening import Opening
from .renewal import Renewal
from .staff import Staff

RecipeMaker = Callable[[int], Recipe]
"""Returns what the worker of a slot is made of."""


class Supervisor:
    """See the module.

    Args:
        name: of the pool, for the thread's name.
        opening: told what was opened.
        staff: told what was spawned, and the listener of every worker.
        renewal: looks for workers that have done enough.
        drivers: kept at one thread a lane.
        open_pool: builds the environment and returns the recipe; gets the flag that asks it to stop.
    """

    def __init__(
        self,
        name: str,
        opening: Opening,
        staff: Staff,
        renewal: Renewal,
        drivers: Drivers,
        collector: Collector,
        open_pool: Callable[[Cancel], RecipeMaker],
    ) -> None:
        self._opening = opening
        self._staff = staff
        self._renewal = renewal
        self._drivers = drivers
        self._collector = collector
        self._open_pool = open_pool
        self._recipes: RecipeMaker | None = None
        self._wakes: SimpleQueue[bool] = SimpleQueue()  # True: look; False: end
        self._timer: Timer | None = None
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
            if self._opening.begin_opening():
                self._open()
            if self._recipes is not None:
                self._look(self._recipes)
        self._set_timer(0.0)
        self._drivers.close()  # here, since nobody else adds to them

    def _open(self) -> None:
        try:
            self._recipes = self._open_pool(self._cancel)
        except BaseException as error:
            if not isinstance(error, VenvoyError):
                logger.exception("a pool could not be opened")
            self._opening.opening_failed(error)
        else:
            self._opening.opened()
        finally:
            self._cancel.close()

    def _look(self, recipes: RecipeMaker) -> None:
        """Start and end what the facts ask for, and come back when time alone will have changed them."""
        waits = [self._renewal.look()]
        while True:
            worker, wait = self._staff.hire(self._make)
            waits.append(wait)
            if worker is None:
                break
            self._start(worker, recipes)
        self._drivers.grow(self._staff.drivers_needed())
        self._set_timer(min([wait for wait in waits if wait > 0], default=0.0))

    def _set_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._collector.call_later(seconds, self.attend) if seconds > 0 else None

    def _make(self, number: int, slot: int, generation: int, concurrency: int) -> Worker:
        return Worker(number, self._collector, self._staff, slot, generation, concurrency)

    def _start(self, worker: Worker, recipes: RecipeMaker) -> None:
        try:
            worker.start(recipes(worker.slot))
        except OSError as error:
            reason = f"cannot start a worker: {error.strerror or error}"
            reason += f": {error.filename}" if error.filename else ""
            self._staff.spawn_failed(worker, WorkerStartError(reason))
        except Exception as error:  # settings that cannot be encoded, a function of the user's for the environment
            self._staff.spawn_failed(worker, WorkerStartError(f"cannot start a worker: {error!r}"))
        else:
            self._staff.spawned(worker)
