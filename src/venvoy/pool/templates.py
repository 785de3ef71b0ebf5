"""The templates that the workers of one pool, and its named workers, are forked from.

Owns the template in use: one of the newest generation, started when a worker is wanted, and once more after it has
died. Those of older generations live until their workers have ended; all that live are in the roster, since the pool
is not gone before them. `get` runs on the threads of supervisors, the rest on the collector thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Protocol

from venvoy_worker.contract.frames import Frame

from ..collector import Collector
from ..log import logger
from ..workers.post_mortem import launch_error, start_error
from ..workers.start import Launcher, Recipe
from ..workers.state import Reason
from ..workers.template import Template
from . import policy
from .job_queue import Hands
from .output import Router
from .phase import Phase
from .roster import ErrorMaker, Roster


class Asker(Protocol):
    """Who wants to fork a worker."""

    def attend(self) -> None:
        """There is a template now, or may soon be asked for again."""

    def template_failed(self, error: ErrorMaker) -> None:
        """There is none; asking again may be of no use."""


class Templates:
    """See the module.

    Args:
        roster: of the pool.
        hands: does what is decided.
        make_recipe: returns what a template is made of.
        router: gets what it prints and logs.
    """

    def __init__(
        self, roster: Roster, hands: Hands, make_recipe: Callable[[], Recipe], router: Router, collector: Collector
    ) -> None:
        self._roster = roster
        self._hands = hands
        self._make_recipe = make_recipe
        self._router = router
        self._collector = collector
        self._lock = threading.Lock()  # guards the two below; taken before the roster's
        self._current: Template | None = None
        self._askers: list[Asker] = []

    def get(self, asker: Asker) -> Launcher | None:
        """Return what forks a worker; None if the asker will be told."""
        with self._lock:
            old = self._current
            if old is not None and old.generation == self._roster.generation and not old.is_retiring:
                if old.is_ready:
                    return old.fork
                self._wait(asker)
                return None
            template = self._register()
            if template is not None:
                self._current = template
                self._wait(asker)
        if template is None:
            asker.template_failed(self._roster.closed_error)
            return None
        if old is not None:
            old.retire(Reason.DRAINED)
        self._start(template)
        return None

    def _wait(self, asker: Asker) -> None:
        """Locked."""
        if asker not in self._askers:
            self._askers.append(asker)

    def _register(self) -> Template | None:
        """Return one more, which the pool will wait for; None if the pool has ended, or is about to."""
        roster = self._roster
        with roster.lock:
            if roster.phase is Phase.CLOSED or policy.has_no_work(roster):
                return None
            template = Template(roster.generation, self._collector, self)
            roster.templates.add(template)
            return template

    def _start(self, template: Template) -> None:
        try:
            template.start(self._make_recipe(), (self._sink(template, "stdout"), self._sink(template, "stderr")))
        except Exception as error:  # of the system, of settings that cannot be encoded
            template.reason = Reason.START_FAILED
            self._hands.emit("start_failed", template, f"the template: {error}")
            self._forget(template, partial(launch_error, error, "the template"))
        else:
            self._hands.emit("spawned", template, "the template")

    def _sink(self, template: Template, stream: str) -> Callable[[bytes], object] | None:
        return self._router.sink(template, stream)

    # --- on the collector thread ------------------------------------------------------------

    def template_ready(self, template: Template) -> None:
        """Workers can be forked."""
        logger.debug("pool %r: the template is ready, pid %d", self._roster.name, template.process.pid)
        self._hands.emit("ready", template, "the template")
        for asker in self._take_askers(template):
            asker.attend()

    def template_exited(self, template: Template) -> None:
        """It is gone: whoever waits for it is told why; nobody else misses it before the next worker is wanted."""
        template.reason = template.reason or (Reason.CRASHED if template.is_ready else Reason.START_FAILED)
        how = f"the template: it {template.process.exit}"
        if template.reason is Reason.START_FAILED:
            self._hands.emit("start_failed", template, how)
        else:
            self._hands.emit("crashed" if template.reason is Reason.CRASHED else "retired", template, how)
        if template.reason in (Reason.CRASHED, Reason.START_FAILED):
            logger.warning("pool %r: the template (pid %d) %s", self._roster.name, template.process.pid, how)
        self._forget(template, lambda: start_error(template))

    def template_said(self, template: Template, frame: Frame) -> None:
        """Code that it imports has logged something."""
        self._router.relog(template, frame)

    def _forget(self, template: Template, error: ErrorMaker) -> None:
        askers = self._take_askers(template)
        with self._lock:
            if self._current is template:
                self._current = None
        with self._roster.lock:
            self._roster.templates.discard(template)
        for asker in askers:
            asker.template_failed(error)
        self._hands.check_gone()

    def _take_askers(self, template: Template) -> list[Asker]:
        with self._lock:
            if self._current is not template:
                return []
            askers, self._askers = self._askers, []
            return askers
