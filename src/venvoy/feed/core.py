"""The life of a swarm: opened, fed, ended, reported on; what both faces, the blocking and the asynchronous, share.

Owns the I/O thread and the desk. Laws: encoders run in the thread that feeds or in the encoding threads,
never in ours; closing takes the processes' ends in order: drained, end of file, waited for, SIGTERM, SIGKILL.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import Any

from .. import collector as _collector
from ..collector import Collector
from ..errors import FeedStalled, SwarmClosed, SwarmError
from .crew import Crew
from .desk import Desk, State
from .feeding import Feeding
from .options import Plan
from .report import ProcessReport, SwarmReport, summary
from .routes import Routes


class Core:
    """A swarm without a face.

    Args:
        plan: of the swarm.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.desk = Desk(plan, self._wake)
        self.feeding = Feeding(plan, self.desk)
        self._close_lock = threading.RLock()  # one thread closes, the others wait for it
        self._loop: Collector | None = None
        self._crew: Crew | None = None
        self._routes: Routes | None = None
        self._began = 0.0
        self._report: SwarmReport | None = None
        self._pid = os.getpid()

    def _wake(self) -> None:
        if self._loop is not None and self._crew is not None:
            self._loop.call_soon(self._crew.pump.turn)

    # Opening.

    def start(self) -> None:
        """Start all processes; return when the first is there.

        Raises:
            SwarmError: none could be started.
            SwarmClosed: it was started before.
            OSError: a file of the outputs cannot be opened.
        """
        with self.desk.changed:
            if self.desk.state is not State.NEW:
                raise SwarmClosed(f"{self.plan.name} was started before: it {self.desk.state.value}")
            self.desk.set_state(State.RUNNING)
        self._began = monotonic()
        self._loop = Collector("venvoy-feed", self._on_defect)
        _collector.tell_after_fork(self)
        _started.add(self)
        try:
            self._routes = Routes(self.plan, self._loop, self._on_output_failure)
            self._crew = Crew(self.plan, self.desk, self._loop, self._routes)
            self._routes.open_files()
            self._crew.on_over = self._routes.lines_box.close
            for child in self._crew.children:
                self._loop.call_soon(partial(self._crew.start, child))
            with self.desk.changed:
                while not (self.desk.has_started or self.desk.failure):
                    self.desk.changed.wait()
            if self.desk.failure is not None and not self.desk.has_started:
                raise self.desk.failure
        except BaseException:
            self.abort()
            raise

    def _on_defect(self, error: BaseException) -> None:
        """On the I/O thread: a defect of ours fails the swarm, and nobody waits in vain."""
        if self._crew is not None:
            self._crew.fail(f"internal error: {error!r}", error)

    def _on_output_failure(self, error: BaseException) -> None:
        crew, loop = self._crew, self._loop
        if crew is not None and loop is not None:
            loop.call_soon(lambda: crew.fail(f"what consumes the output raised {type(error).__name__}: {error}", error))

    # Ending.

    def close(self, timeout: float | None) -> SwarmReport:
        """Let the processes finish their input and end.

        Raises:
            SwarmError: one has failed.
        """
        with self._close_lock:
            if self._report is None:
                self._close(timeout)
            assert self._report is not None
            self._raise_what_failed(self._report)
            return self._report

    def _close(self, timeout: float | None) -> None:
        deadline = None if timeout is None else monotonic() + timeout
        try:
            if self._crew is None:
                with self.desk.changed:
                    self.desk.set_state(State.CLOSED)
                self._report = SwarmReport((), 0, 0, 0, 0.0)
                return
            self.end_input()
            if self._routes is not None:
                self._routes.lines_box.drop_unread()
            self._wait_until_over(deadline)
        except BaseException:  # Ctrl-C, or an encoder that raised: whoever waits no longer wants them gone
            self.abort()
            raise
        self._finish()

    def end_input(self) -> None:
        """Take no more items; what was fed is still delivered, then the processes get their end of file.

        Raises:
            Exception: what an encoder raised.
        """
        with self.desk.changed:
            if self.desk.state is not State.RUNNING:
                return
            self.desk.is_open = self.feeding.has_state  # what has to be encoded anew still is
        if self.feeding.has_state:
            self.feeding.write_endings()
        with self.desk.changed:
            if self.desk.state is State.RUNNING:
                self.desk.set_state(State.ENDING)
        assert self._loop is not None
        assert self._crew is not None
        self._loop.call_soon(self._crew.pump.turn)

    def _wait_until_over(self, deadline: float | None) -> None:
        crew = self._crew
        assert crew is not None
        with self.desk.changed:
            while not crew.is_over:
                remaining = None if deadline is None else deadline - monotonic()
                if remaining is not None and remaining <= 0:
                    break
                self.desk.changed.wait(remaining)
        if not crew.is_over:
            reports = crew.reports()
            text = summary(self.plan.name, "processes had not ended when the time for closing was over", reports)
            self.desk.fail(FeedStalled(text, processes=reports))
            self.abort()

    def abort(self) -> None:
        """End all processes now: SIGTERM, after the grace period SIGKILL; what they have not received is kept."""
        with self.desk.changed:
            if self.desk.state in (State.NEW, State.RUNNING, State.ENDING):
                self.desk.set_state(State.CLOSED)
        crew, loop = self._crew, self._loop
        if crew is not None and loop is not None:
            loop.call_soon(crew.end_processes)
        with self._close_lock:
            if crew is not None and self._report is None:
                with self.desk.changed:
                    while not crew.is_over:
                        self.desk.changed.wait()
            self._finish()

    def abandon(self) -> None:
        """Nobody holds the swarm any more: end it without waiting. Takes no lock: finalizers may call this."""
        crew, loop = self._crew, self._loop
        if crew is None or loop is None or self._report is not None or self._pid != os.getpid():
            return

        def over() -> None:
            assert self._routes is not None
            self._routes.finish()
            loop.stop()

        def end() -> None:
            crew.on_over = over
            crew.end_processes()
            if crew.is_over:
                over()

        loop.call_soon(end)

    def _finish(self) -> None:
        """Everything has ended: deliver the rest of the output, end the threads, write the report."""
        if self._report is not None:
            return
        if self._routes is not None:
            self._routes.finish()
        if self._loop is not None:
            self._loop.stop()
            if threading.current_thread() is not self._loop.thread:
                self._loop.thread.join()
        with self.desk.changed:
            if self.desk.state is not State.FAILED:
                self.desk.set_state(State.CLOSED)
        self._report = self.report()

    def _raise_what_failed(self, report: SwarmReport) -> None:
        if self.desk.failure is not None:
            raise self.desk.failure
        bad = [process for process in report.processes if self._is_bad(process)]
        if bad and self.plan.check:
            raise SwarmError(summary(self.plan.name, _bad_words(bad), report.processes), processes=report.processes)

    def _is_bad(self, process: ProcessReport) -> bool:
        is_replaced = process.is_early and self.plan.on_exit == "reroute"
        return process.status != 0 and not is_replaced and process.pid is not None

    def routes(self) -> Routes:
        """Return where the outputs go.

        Raises:
            SwarmClosed: the swarm was not started.
        """
        if self._routes is None:
            raise SwarmClosed(f"{self.plan.name} has no output: it {self.desk.state.value}")
        return self._routes

    def report(self) -> SwarmReport:
        """Return how everything stands."""
        if self._report is not None:
            return self._report
        processes = self._crew.reports() if self._crew is not None else ()
        return SwarmReport(
            processes,
            sum(process.items for process in processes),
            sum(sum(process.written.values()) for process in processes),
            len(self.undelivered()),
            monotonic() - self._began if self._began else 0.0,
        )

    def stop_listening(self) -> None:
        """Whoever iterated over lines has left: throw away the rest, and take no more items."""
        if self._routes is not None:
            self._routes.lines_box.drop_unread()
        with self.desk.changed:
            self.desk.is_open = False
            self.desk.changed.notify_all()

    def desk_is_closed(self) -> None:
        """Let threads that feed give up."""
        with self.desk.changed:
            if self.desk.state in (State.RUNNING, State.ENDING):
                self.desk.set_state(State.CLOSED)

    def undelivered(self) -> list[Any]:
        """Return the items that no process received whole."""
        return [*self.desk.left(), *self.desk.refused]

    def after_fork_in_child(self) -> None:
        """In a process the host forked: the swarm is the parent's."""
        self.desk.lock = threading.Lock()
        self.desk.changed = threading.Condition(self.desk.lock)
        self.desk.state, self.desk.is_open = State.CLOSED, False
        self._close_lock = threading.RLock()
        crew, loop, self._crew, self._loop = self._crew, self._loop, None, None
        if self._report is not None or crew is None or loop is None:
            return
        self._report = SwarmReport((), 0, 0, 0, 0.0)
        for child in crew.children:
            child.close_in_fork()
        try:
            loop.close()
        except OSError:  # its thread was just closing it
            pass


def _bad_words(bad: Sequence[ProcessReport]) -> str:
    first = f"process {bad[0].id} {bad[0].reason}"
    return first if len(bad) == 1 else f"{first}, and {len(bad) - 1} more failed"


_started: weakref.WeakSet[Core] = weakref.WeakSet()


def _abort_all() -> None:
    """At the interpreter's end: a process that was just being started must not outlive us."""
    for core in list(_started):
        core.abort()


atexit.register(_abort_all)
