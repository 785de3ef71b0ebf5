"""A template as the host sees it: one process that has imported what workers need, and from which they are forked.

Owns its process, the forks under way and the children it has to reap. Laws: one fork at a time; a child is reaped only
when this side has asked for it, after the child's group was killed, so its number is no stranger's until then; the
children and what becomes of them belong to the collector thread. A template that dies leaves its workers running; how
they end is not known then.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from venvoy_worker.contract import codec, frames, messages
from venvoy_worker.contract.frames import Frame

from .. import collector as _collector
from ..collector import Collector, Timers
from ..errors import PoolError, WorkerStartError
from ..processes.process import Process, Sink, StatusPage, explain, watch_pidfd
from .authors import Authors
from .ends import Ends
from .start import Lanes, Recipe, Start, command_line, spawn
from .state import Reason

_FORK_SECONDS = 10.0  # 25 ms a gigabyte is usual
_REAP_SECONDS = 1.0  # after which a template that does not answer has taken the exit status with it
_EVERYTHING = ""  # as `venvoy_worker.runtime.preload` has it
_AT_EXEC = ("PYTHON", "LD_")  # variables that are read when a program begins


def check_forkable() -> None:
    """Raise PoolError where no template can be had."""
    if not (sys.platform == "linux" and hasattr(os, "fork") and hasattr(os, "pidfd_open")):
        raise PoolError(f"start='zygote' needs Linux from 5.3 on, not {sys.platform}; use start='spawn'")


class TemplateGone(WorkerStartError):
    """The template ended before it could fork; the next start makes another one."""


class Listener(Protocol):
    """Who is told about a template, on the collector thread; nothing of it may block."""

    def template_ready(self, template: Template) -> None:
        """Workers can be forked."""

    def template_exited(self, template: Template) -> None:
        """Its process is gone and reaped."""

    def template_said(self, template: Template, frame: Frame) -> None:
        """Code that it imports has logged something."""


class Template:
    """See the module.

    Args:
        generation: how often the pool had been reloaded when it was made.
        listener: is told of its fate.
    """

    recipe: Recipe  # these from `start()` on
    process: Process
    page: StatusPage
    birth: Start
    _ends: Ends

    id = 0  # among the workers of the pool, which count from 1
    oom_hint = ""

    def __init__(self, generation: int, collector: Collector, listener: Listener) -> None:
        self.generation = generation
        self.authors = Authors()  # nobody: no call runs there
        self.reason: Reason | None = None  # why it ends
        self.is_ready = False
        self.is_retiring = False
        self._collector = collector
        self._listener = listener
        self._timers = Timers(collector)
        self._turn = threading.Lock()  # held by who forks
        self._requests = count(1)
        self._answers: SimpleQueue[Frame | None] = SimpleQueue()  # to FORK; None once it is gone
        self._children: set[int] = set()
        self._reaping: dict[int, Callable[[int | None], object]] = {}
        self._reads: dict[str, str] = {}  # where preload has read which variable of the environment

    # --- start ----------------------------------------------------------------------------

    def start(self, recipe: Recipe, sinks: tuple[Sink | None, Sink | None]) -> None:
        """Spawn the process and greet it; `template_ready` or `template_exited` will follow.

        Raises:
            OSError: the process cannot be started; the text names a limit that was hit.
        """
        self.recipe = recipe
        make = partial(spawn, recipe, self._collector, sinks, self._on_exit, mode=("template",))
        with _collector.opening:
            try:
                ends = self._ends = Ends(make, 1)
            except OSError as error:
                raise explain(error) from error
            self.process, self.page = ends.process, ends.page
            _collector.tell_after_fork(self)
        # The thread that answers DUMP in a worker would be a thread too many here.
        ask_where = partial(self.process.signal, signal.SIGURG)
        on_record = partial(self._listener.template_said, self)
        self.birth = Start(ends, recipe, self._collector, self._on_ready, on_record, self._on_answer, ask_where)
        self.birth.begin()
        if self.is_retiring:  # meanwhile
            self.kill()

    def _on_ready(self) -> None:
        frame = self.birth.frame
        assert frame is not None
        self._reads = codec.decode_frame(frame).get("environment_read", {})
        self.is_ready = True
        self._listener.template_ready(self)

    def _on_answer(self, frame: Frame) -> None:
        if frame.opcode == messages.FORKED:
            self._answers.put(frame)
        elif frame.opcode == messages.REAPED:
            self._reaped(frame.call_id, None if frame.flags & messages.FLAG_FAILED else frame.number)

    # --- forking --------------------------------------------------------------------------

    def fork(
        self,
        recipe: Recipe,
        collector: Collector,
        sinks: tuple[Sink | None, Sink | None],
        on_exit: Callable[[], object],
        lanes: Lanes,
        others: tuple[int, int, int],
    ) -> Process:
        """Fork the process of a worker; as `start.spawn`.

        Raises:
            TemplateGone: another template has to be asked.
            WorkerStartError: the environment of this worker comes too late for what was imported, or the system cannot
                fork.
        """
        changes = self._changes(recipe)
        places = count()
        arguments = command_line([tuple(next(places) for _ in lane) for lane in lanes], [next(places) for _ in others])
        inherited = [*(fd for lane in lanes for fd in lane), *others]
        launch = partial(self._launch, inherited, {**changes, "arguments": arguments})
        return Process(launch, keep=recipe.keep, sinks=sinks, on_exit=on_exit, collector=collector)

    def _changes(self, recipe: Recipe) -> dict[str, Any]:
        """Return what a worker has to change of the template's environment."""
        ours, wanted = self.recipe.environ, recipe.environ
        changed = {name for name in {**ours, **wanted} if ours.get(name) != wanted.get(name)}
        for name in sorted(changed & (self.recipe.env_vars | recipe.env_vars)):  # else this process has changed its own
            where = self._reads.get(name) or self._reads.get(_EVERYTHING)
            if name.startswith(_AT_EXEC):
                where = "at its start"
            if where is not None:
                raise WorkerStartError(
                    f"env_vars gives {name} a value of its own in slot {recipe.slot}, but what is preloaded has read "
                    f"it already ({where}), so it would have no effect: leave that out of preload, set the variable "
                    "for all workers alike, or use start='spawn'"
                )
        gone = [name for name in changed if name not in wanted]
        return {"environ": {name: wanted[name] for name in changed if name in wanted}, "unset": gone}

    def _launch(self, inherited: list[int], wanted: dict[str, Any], mark: str, outputs: tuple[int, int]) -> Forked:
        descriptors = [*inherited, *outputs]
        body, _ = codec.encode({**wanted, "mark": mark, "descriptors": len(descriptors)})
        try:
            with self._turn:
                request = next(self._requests)
                pieces = frames.pack(messages.FORK, codec=codec.PICKLE, call_id=request, body=body)
                if self.is_retiring or not self._ends.control.announce(pieces, *descriptors):
                    raise TemplateGone(f"the template (pid {self.process.pid}) takes no more requests")
                return self._child(self._await_fork(request))
        except TemplateGone:
            self.is_retiring = True  # whoever asks next gets another one
            raise
        finally:
            if self.is_retiring:  # which has waited for this
                self._collector.call_soon(self._leave)

    def _child(self, pid: int) -> Forked:
        """Return a process just forked: its number is its own, since it is not reaped before we say so."""
        try:
            return Forked(self, pid, os.pidfd_open(pid))
        except OSError:
            os.kill(pid, signal.SIGKILL)
            self._collector.call_soon(partial(self.reap, pid, lambda code: None))
            raise

    def _await_fork(self, request: int) -> int:
        frame: Frame | None = None
        while frame is None or frame.call_id != request:
            try:
                frame = self._answers.get(timeout=_FORK_SECONDS)
            except Empty:
                self.process.signal(signal.SIGKILL)  # and what has the group of the template, but not its workers
                raise TemplateGone(f"the template did not fork within {_FORK_SECONDS:g} s") from None
            if frame is None:
                self._answers.put(None)
                raise TemplateGone(f"the template (pid {self.process.pid}) is gone: it {self.process.exit}")
        if frame.flags & messages.FLAG_FAILED:
            raise WorkerStartError(f"the template (pid {self.process.pid}) cannot fork: {os.strerror(frame.number)}")
        self._collector.call_soon(partial(self._children.add, frame.number))
        return frame.number

    @property
    def is_gone(self) -> bool:
        """True once its process has ended, and with it the parent of the workers."""
        return self.process.exit is not None

    def reap(self, pid: int, done: Callable[[int | None], object]) -> None:
        """On the collector thread: let a child be reaped, and call back with how it ended, None if that is lost."""
        self._reaping[pid] = done
        if not self._ends.control.say(messages.REAP, pid):
            self._reaped(pid, None)
        else:
            self._timers.later(_REAP_SECONDS, partial(self._reaped, pid, None))

    def _reaped(self, pid: int, status: int | None) -> None:
        done = self._reaping.pop(pid, None)
        if done is None:
            return
        self._children.discard(pid)
        done(None if status is None else os.waitstatus_to_exitcode(status))
        if self.is_retiring:
            self._leave()

    # --- the end --------------------------------------------------------------------------

    def retire(self, reason: Reason) -> None:
        """Fork no more, and end once the workers that it has to reap have ended; at once if it is not ready yet."""
        self.reason = self.reason or reason
        self.is_retiring = True  # before `_leave` looks whether somebody forks, who looks at this first
        self._collector.call_soon(self._leave)

    def _leave(self) -> None:
        if not self.is_ready:
            self.kill()
        elif not self._children and not self._turn.locked():
            self._ends.control.say_no_more()
            self._timers.later(self.recipe.grace_period, self.kill)

    def kill(self) -> None:
        """End it at once, but not its workers."""
        self.reason = self.reason or Reason.KILLED
        if hasattr(self, "process"):  # else who is starting it will see that it is retiring
            self.process.signal(signal.SIGKILL)

    def _on_exit(self) -> None:
        self._timers.drop()
        self.birth.end()
        self._ends.channels[0].close()
        self._ends.close(self._collector)
        self._answers.put(None)
        for pid in list(self._reaping):
            self._reaped(pid, None)
        self._listener.template_exited(self)

    def after_fork_in_child(self) -> None:
        """In a process the host forked: close our ends, so that the template still sees its host die."""
        self._ends.channels[0].close()
        self._ends.close_in_fork()


class Forked:
    """A process that a template has forked: a `Child` of somebody else's.

    Args:
        pidfd: of it, owned from now on.
    """

    def __init__(self, template: Template, pid: int, pidfd: int) -> None:
        self.pid = pid
        self._template = template
        self._pidfd = pidfd

    def watch(self, collector: Collector, callback: Callable[[], object]) -> Callable[[], None]:
        """Call back on the collector thread when it has exited; return what ends the watch."""
        return watch_pidfd(collector, self._pidfd, callback)

    def signal(self, number: int) -> None:
        """Send a signal to its process group; to itself alone where that is not there yet, or may be a stranger's."""
        if not self._template.is_gone:  # else it is reaped by the system, and its number given away
            try:
                os.killpg(self.pid, number)
                return
            except ProcessLookupError:  # it has not got as far as to have one
                pass
            except PermissionError:
                return
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except OSError as error:
            if error.errno not in (errno.ESRCH, errno.EPERM, errno.EBADF):
                raise

    def reap(self, done: Callable[[int | None], object]) -> None:
        """Let the template reap it."""
        self._template.reap(self.pid, done)

    def forget(self) -> None:
        """In a process the host forked: it has our descriptor, but watches nobody."""
        os.close(self._pidfd)
