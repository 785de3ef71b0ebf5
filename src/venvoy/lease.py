"""One worker for one user, who keeps state in it between calls.

A lease owns a ticket of the engine from `with` to its end, so its worker serves nobody else meanwhile.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from types import TracebackType
from typing import Any, Self

from .calling import make_call, make_eval
from .errors import WorkerError
from .exchange import Call
from .options import CallOptions, Target
from .pool.core import Core
from .pool.roster import Ticket
from .worker import Worker

_numbers = itertools.count(1)


class Lease:
    """Exclusive use of one worker; made by `Pool.lease()`, used in a `with`.

    Calls of several threads on one lease run one after another. After a time-out or a crash the worker is gone, and
    every further use raises `WorkerError`.

    Args:
        core: the pool.
        timeout: seconds to wait for a worker; None waits for as long as it takes.
    """

    def __init__(self, core: Core, timeout: float | None, options: CallOptions | None = None) -> None:
        self._core = core
        self._timeout = timeout
        self._options = options or CallOptions()
        self._ticket = Ticket()
        self._session_name = f"lease-{next(_numbers)}"
        self._turn = threading.Lock()  # one call at a time on the worker's channel
        self._worker: Worker | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._parent: Lease | None = None

    def __enter__(self) -> Self:
        deadline = None if self._timeout is None else monotonic() + self._timeout
        try:
            self._worker = self._core.engine.acquire(self._ticket, deadline, "lease()")
        except BaseException:
            self._core.engine.give_up(self._ticket)
            raise
        # For a lease that is dropped, or whose end is interrupted: then the collector takes the worker back.
        self._end = weakref.finalize(self, self._core.engine.give_up, self._ticket)
        self._end.atexit = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=error is None, cancel_futures=error is not None)
        with self._turn:
            self._core.engine.release(self._ticket)
            self._end.detach()

    @property
    def pid(self) -> int:
        """The worker's process id.

        Raises:
            WorkerError: the lease has no worker, or no longer.
        """
        return self._living().process.pid

    def call(self, target: Target, /, *args: Any, **kwargs: Any) -> Any:
        """Run a target on this worker and return its result; as `Pool.call`."""
        return self._run(make_call(target, args, kwargs, self._options, self._core.table))

    def submit(self, target: Target, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a target on this worker, after what was submitted before, and return its future."""
        call = make_call(target, args, kwargs, self._options, self._core.table)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="venvoy-lease")
        return self._thread.submit(self._run, call)

    def eval(self, text: str, /, **values: Any) -> Any:
        """Evaluate an expression on this worker, in a namespace that lasts as long as the lease."""
        return self._run(make_eval(text, values, "eval", self._session(), self._options))

    def exec(self, text: str, /, **values: Any) -> None:
        """Execute statements on this worker, in a namespace that lasts as long as the lease."""
        self._run(make_eval(text, values, "exec", self._session(), self._options))

    def options(self, **options: Any) -> Lease:
        """Return a view of this lease with other `CallOptions` (`timeout=`, `returns=`, `max_bytes=`)."""
        view = Lease(self._core, self._timeout, self._options.replaced(**options))
        view._ticket, view._turn, view._worker = self._ticket, self._turn, self._worker
        view._session_name = self._session_name
        view._parent = self  # which ends the lease when nobody has it any more
        return view

    def terminate(self) -> None:
        """End the worker: cancel what it does, SIGTERM, and SIGKILL after the grace period."""
        self._living().terminate()

    def kill(self) -> None:
        """End the worker at once; a call running on it raises `WorkerCrashed`."""
        self._living().kill()

    def _session(self) -> str:
        return self._session_name

    def _living(self) -> Worker:
        worker = self._worker
        if worker is None or self._ticket.worker is not worker or worker.process.exited.is_set():
            raise WorkerError(
                "this lease has no worker: it has not begun, has ended, or its worker timed out or crashed"
            )
        return worker

    def _run(self, call: Call) -> Any:
        with self._turn:
            worker = self._living()
            frame = self._core.engine.run_on(self._ticket, call)
            worker.calls += 1
        return self._core.decoder.value(frame, call.convert)
