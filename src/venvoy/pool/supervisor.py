"""The pool's own thread for what takes time and is nobody's call: opening the environment, spawning workers.

Owns the recipes of the workers, once the pool has been opened. It is woken whenever more workers may be needed, and
then looks at the facts, so a wake-up too many does no harm. Nothing is spawned on a caller's thread, so that a caller
that is served by another worker meanwhile does not wait for a start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import NamedTuple

from ..collector import Collector, Timer
from ..envs import Cancel
from ..errors import VenvoyError
from ..log import logger
from ..workers.post_mortem import launch_error
from ..workers.start import Launcher, Recipe, spawn
from ..workers.template import TemplateGone
from ..workers.worker import Worker
from .drivers import Drivers
from .opening import Opening
from .renewal import Renewal
from .roster import ErrorMaker
from .staff import Staff
from .templates import Templates

RecipeMaker = Callable[[int | None], Recipe]
"""Returns what the worker of a slot is made of; the template, for None."""


class Opened(NamedTuple):
    """What workers are made of, and what they are forked from, if they are."""

    recipes: RecipeMaker
    templates: Templates | None


class Supervisor:
    """See the module.

    Args:
        name: of the pool, for the thread's name.
        opening: told what was opened.
        staff: told what was spawned, and the listener of every worker.
        renewal: looks for workers that have done enough.
        drivers: kept at one thread a lane.
        open_pool: builds the environment; gets the flag that asks it to stop.
    """

    def __init__(
        self,
        name: str,
        opening: Opening,
        staff: Staff,
        renewal: Renewal,
        drivers: Drivers,
        collector: Collector,
        open_pool: Callable[[Cancel], Opened],
    ) -> None:
        self._opening = opening
        self._staff = staff
        self._renewal = renewal
        self._drivers = drivers
        self._collector = collector
        self._open_pool = open_pool
        self._opened: Opened | None = None
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
            if self._opened is not None:
                self._look(*self._opened)
        self._set_timer(0.0)
        self._drivers.close()  # here, since nobody else adds to them

    def _open(self) -> None:
        try:
            self._opened = self._open_pool(self._cancel)
        except BaseException as error:
            if not isinstance(error, VenvoyError):
                logger.exception("a pool could not be opened")
            self._opening.opening_failed(error)
        else:
            self._opening.opened()
        finally:
            self._cancel.close()

    def _look(self, recipes: RecipeMaker, templates: Templates | None) -> None:
        """Start and end what the facts ask for, and come back when time alone will have changed them."""
        waits = [self._renewal.look()]
        while True:
            may, wait = self._staff.may_hire()
            waits.append(wait)
            launch = self._launcher(templates) if may else None
            worker = self._staff.hire(self._make) if launch is not None else None
            if worker is None or launch is None:
                break
            self._start(worker, recipes, launch)
        self._drivers.grow(self._staff.drivers_needed())
        self._set_timer(min([wait for wait in waits if wait > 0], default=0.0))

    def _launcher(self, templates: Templates | None) -> Launcher | None:
        """Return what makes the process of a worker; None while the template of all is being made."""
        return spawn if templates is None else templates.get(self)

    def template_failed(self, error: ErrorMaker) -> None:
        """There is nothing to fork a worker from."""
        self._staff.spawn_failed(None, error)

    def _set_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._collector.call_later(seconds, self.attend) if seconds > 0 else None

    def _make(self, number: int, slot: int, generation: int, concurrency: int) -> Worker:
        return Worker(number, self._collector, self._staff, slot, generation, concurrency)

    def _start(self, worker: Worker, recipes: RecipeMaker, launch: Launcher) -> None:
        try:
            worker.start(recipes(worker.slot), launch)
        except Exception as error:  # of the system, of settings that cannot be encoded, of the user's `env_vars`
            is_to_retry = isinstance(error, TemplateGone)
            self._staff.spawn_failed(worker, partial(launch_error, error, "a worker"), is_to_retry)
        else:
            self._staff.spawned(worker)
