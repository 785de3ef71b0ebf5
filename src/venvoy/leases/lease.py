"""One worker for one user, who keeps state in it between calls: leases for a while, named workers for good.

A lease owns a ticket of the engine from `with` to its end, so its worker serves nobody else meanwhile. A named worker
is a pool of one, whose worker is never replaced.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic
from types import TracebackType
from typing import Any, Self

from ..calling import make_call, make_eval, placeholder
from ..errors import CallTimeout, EncodingError, WorkerError
from ..exchange import Call
from ..objects.making import make_kept, object_on, residence_of
from ..objects.references import Residence
from ..options import CallOptions, Target
from ..pool.core import Core
from ..pool.jobs import CallFuture, Job
from ..pool.roster import Ticket
from ..streams.stream import PoolSeat, Seat, Stream
from ..workers.worker import Worker
from .hold import Hold, LeaseSeat

_numbers = itertools.count(1)
_DEFAULT_CALL = CallOptions()


class HasWorker:
    """What has one worker, whoever waits for its calls."""

    @property
    def pid(self) -> int:
        """The worker's process id.

        Raises:
            WorkerError: there is no worker, or no longer.
        """
        return self._living().process.pid

    def terminate(self) -> None:
        """End the worker: cancel what it does, SIGTERM, and SIGKILL after the grace period."""
        self._living().terminate()

    def kill(self) -> None:
        """End the worker at once; a call running on it raises `WorkerCrashed`."""
        self._living().kill()

    def _living(self) -> Worker:
        raise NotImplementedError


class OneWorker(HasWorker):
    """What can be done with one worker; the base of leases and named workers."""

    _core: Core
    _options = _DEFAULT_CALL
    _session: str

    def call(self, target: Target, /, *args: Any, **kwargs: Any) -> Any:
        """Run a target on this worker and return its result; as `Pool.call`."""
        return self._run(make_call(target, args, kwargs, self._options, self._core.table))

    def stream(self, target: Target, /, *args: Any, **kwargs: Any) -> Stream:
        """Run a target on this worker and yield the items of its result while it runs; as `Pool.stream`.

        Nothing else can run here before it is exhausted or closed.
        """
        call = make_call(target, args, kwargs, self._options, self._core.table)
        return Stream(self._core, self._seat(), call, self)

    def submit(self, target: Target, /, *args: Any, **kwargs: Any) -> CallFuture:
        """Run a target on this worker, after what was submitted before, and return its future; as `Pool.submit`."""
        try:
            job = Job(make_call(target, args, kwargs, self._options, self._core.table))
        except EncodingError as error:
            job = Job(placeholder("submit()", self._options))
            job.fail(error)
            return job.future
        self._enqueue(job)
        return job.future

    def eval(self, text: str, /, **values: Any) -> Any:
        """Evaluate text on this worker, in a namespace that lasts as long as it is held; as `Pool.eval`."""
        return self._run(make_eval(text, values, "eval", self._session, self._options))

    def exec(self, text: str, /, **values: Any) -> Any:
        """Execute text on this worker, in a namespace that lasts as long as it is held; as `Pool.exec`."""
        return self._run(make_eval(text, values, "exec", self._session, self._options))

    def object(self, target: Target, /, *args: Any, **kwargs: Any) -> Any:
        """Make an object on this worker and return a proxy of it, stale when the worker is let go; as `Pool.object`."""
        call = make_kept(self._core, target, args, kwargs, self._options)
        return object_on(self._residence(), call, self._options, owner=self)

    def _run(self, call: Call) -> Any:
        raise NotImplementedError

    def _enqueue(self, job: Job) -> None:
        raise NotImplementedError

    def _seat(self) -> Seat:
        raise NotImplementedError

    def _residence(self) -> Residence:
        raise NotImplementedError


class Lease(OneWorker):
    """Exclusive use of one worker; made by `Pool.lease()`, used in a `with`.

    It serves nobody else meanwhile, also where workers run several calls at once. Calls of several threads on one lease
    run one after another. After a time-out, a crash or an interrupted
    call (Ctrl-C) the worker is gone, and every further use raises `WorkerError`; a named worker outlives interrupts.

    Args:
        core: the pool.
        timeout: seconds to wait for a worker; None waits for as long as it takes.
        options: of its calls.

    Examples:
        >>> with vv.Pool() as pool, pool.lease() as worker:
        ...     worker.exec("import decimal; decimal.getcontext().prec = 5")
        ...     worker.eval("str(decimal.Decimal(2).sqrt())")
        '1.4142'
    """

    def __init__(self, core: Core, timeout: float | None, options: CallOptions = _DEFAULT_CALL) -> None:
        self._timeout = timeout
        self._core = core
        self._options = options
        self._hold = Hold(core)
        self._session = self._hold.session
        self._parent: Lease | None = None

    def __enter__(self) -> Self:
        hold = self._hold
        engine = hold.core.engine
        try:
            hold.lane = engine.acquire(hold.ticket, placeholder("lease()", CallOptions(timeout=self._timeout)))
        except BaseException:
            engine.give_up(hold.ticket)
            raise
        hold.lane.worker.is_leased = True
        # For a lease that is dropped, or whose end is interrupted: then the collector takes the worker back.
        self._end = weakref.finalize(self, engine.give_up, hold.ticket)
        self._end.atexit = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hold.end(is_error=error is not None)
        self._end.detach()

    def options(self, **options: Any) -> Lease:
        """Return a view of this lease with other `CallOptions`; as `Pool.options`."""
        view = Lease.__new__(Lease)
        view._timeout, view._hold, view._session = self._timeout, self._hold, self._session
        view._core = self._core
        view._options = self._options.replaced(**options)
        view._parent = self  # which ends the lease when nobody has it any more
        return view

    def _run(self, call: Call) -> Any:
        return self._hold.run(call)

    def _enqueue(self, job: Job) -> None:
        self._hold.enqueue(job)

    def _seat(self) -> Seat:
        return LeaseSeat(self._hold)

    def _living(self) -> Worker:
        return self._hold.living().worker

    def _residence(self) -> Residence:
        return self._hold.residence()


@contextmanager
def gather(core: Core, count: int, timeout: float | None, options: CallOptions) -> Iterator[list[Lease]]:
    """Hold up to `count` workers of a pool at once, for a `with` block.

    Args:
        timeout: seconds to wait for them; then those that were had are given. None waits for all.
        options: of their calls.

    Raises:
        ValueError: more than the pool may have.
        CallTimeout: there was none before the time was over.
    """
    check_count(core, count)
    deadline = None if timeout is None else monotonic() + timeout
    with ExitStack() as held:
        leases: list[Lease] = []
        turn, ticket = core.gathering, Ticket()  # of two that gather, one would wait for what the other has
        try:
            if not turn.take(ticket) and not ticket.event.acquire(timeout=-1 if timeout is None else timeout):
                raise CallTimeout("leases(): no worker was free before the deadline")
            while len(leases) < count:
                left = None if deadline is None else max(0.0, deadline - monotonic())
                leases.append(held.enter_context(Lease(core, left, options)))
        except CallTimeout:
            if not leases:
                raise
        finally:
            turn.leave(ticket)
        yield leases


def check_count(core: Core, count: int) -> None:
    """Raise ValueError unless a pool may have so many workers."""
    most = core.roster.size.most
    if not 1 <= count <= most:
        raise ValueError(f"leases({count}): this pool has at most {most} workers")


class NamedWorker(OneWorker):
    """A worker with a name and a state of its own; made by `Pool.named()`.

    It serves whoever asks the pool for it by name, one call after another, and is never replaced: once it is gone, this
    handle raises `WorkerError`, and the name can be used anew. A call that times out is stopped and the worker serves
    on, unless it had to be killed.

    Args:
        core: the pool of one that it is.
        name: its name.

    Examples:
        >>> with vv.Pool() as pool:
        ...     session = pool.named("session")
        ...     session.exec("seen = []")
        ...     session.eval("seen.append(1) or len(seen)")
        ...     session.terminate()  # the name is free now
        1
    """

    def __init__(self, core: Core, name: str) -> None:
        self._core = core
        self._options = CallOptions(max_bytes=core.options.max_message_bytes)
        self.name = name
        self._session = f"named-{next(_numbers)}"

    def options(self, **options: Any) -> NamedWorker:
        """Return a view of this worker with other `CallOptions`; as `Pool.options`."""
        view = NamedWorker(self._core, self.name)
        view._session, view._options = self._session, self._options.replaced(**options)
        return view

    def terminate(self) -> None:
        """End the worker: cancel what it does, SIGTERM, SIGKILL after the grace period; the name is free at once."""
        self._end(Worker.terminate, "was terminated")

    def kill(self) -> None:
        """End the worker at once; a call running on it raises `WorkerCrashed`; the name is free."""
        self._end(Worker.kill, "was killed")

    def _end(self, end: Callable[[Worker], None], how: str) -> None:
        core = self._core
        self._living()
        for worker in core.staff.known():
            end(worker)
        core.staff.stop(f"the worker {self.name!r} {how}")

    def output(self, stream: str | None = None) -> str:
        """Return the worker's last output as text; `stream` is "stdout" or "stderr", both by default."""
        return self._core.output(None, stream)

    def _run(self, call: Call) -> Any:
        return self._core.calls.run(call)

    def _enqueue(self, job: Job) -> None:
        self._core.calls.enqueue(job)

    def _seat(self) -> Seat:
        return PoolSeat(self._core)

    def _living(self) -> Worker:
        workers = self._core.staff.known()
        if not workers:
            raise WorkerError(self._core.roster.closed_why)
        return workers[0]

    def _residence(self) -> Residence:
        return residence_of(self._core, self._living())

    def __repr__(self) -> str:
        return f"<venvoy.NamedWorker {self.name!r}>"
