"""`Pool`: the blocking face. Its methods encode, hand on to the engine, and decode; nothing is decided here."""

from __future__ import annotations

from concurrent.futures import Executor
from contextlib import AbstractContextManager
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from .anypool import AnyPool
from .faces import Calling, View
from .leases.lease import Lease, NamedWorker, gather
from .options import CallOptionsDict
from .places import placed

if TYPE_CHECKING:
    from .aio.pool import AsyncPool


class Pool(Calling, AnyPool, Executor):
    """Warm workers of one environment, as a `concurrent.futures.Executor`.

    Making one only checks the arguments; `with`, `warm()` or the first call builds the environment and starts
    workers, and raises what stands in the way.

    Args:
        env: an `EnvSpec`, an `Env`, the path of a Python or of an environment's folder; None is the host's own.
        module: imported by every worker before it is ready; bare target names are looked up there.
        workers: their number, or a pair (least, most); by default from 1 to the number of processors, at least 2.
        worker: how each is started.
        max_workers: alias of `workers=(1, most)`, as in other executors.
        options: see `PoolOptions`.

    Raises:
        TypeError, ValueError: an argument is not what is described here.
        PoolError: this system cannot run workers.

    Examples:
        >>> import venvoy as vv
        >>> with vv.Pool(workers=(1, 4), name="numbers") as pool:
        ...     pool.call("math:sqrt", 9.0)
        3.0
    """

    def options(self, **options: Unpack[CallOptionsDict]) -> View:
        """Return a light view of this pool whose calls have these `CallOptions`.

        Args:
            options: fields of `CallOptions`; durations in seconds, sizes in bytes.

        Raises:
            TypeError, ValueError: an option is unknown, or not what is described there.

        Examples:
            >>> with vv.Pool() as pool:
            ...     pool.options(timeout=30, retries=2).call("math:sqrt", 9.0)
            3.0
        """
        return View(self, self._call_options.replaced(**options))

    @property
    def aio(self) -> AsyncPool:
        """The asyncio face of this pool, on the same workers."""
        from .aio.pool import face_of  # asyncio takes as long to import as all of this

        return face_of(self)

    def lease(self, *, timeout: float | None = None) -> Lease:
        """Return the exclusive use of one worker, for a `with` block.

        Args:
            timeout: seconds to wait for a worker; `CallTimeout` after that.

        Examples:
            >>> with vv.Pool() as pool, pool.lease() as worker:
            ...     worker.exec("total = 40")
            ...     worker.eval("total + 2")
            42
        """
        return Lease(self._core, timeout, self._call_options)

    def leases(self, count: int, *, timeout: float | None = None) -> AbstractContextManager[list[Lease]]:
        """Return the exclusive use of up to `count` workers at once, for a `with` block.

        Args:
            count: how many; no more than the pool may have.
            timeout: seconds to wait for them; then those that were had are given, and `CallTimeout` is raised if
                that is none. None waits for all.

        Examples:
            >>> with vv.Pool(workers=2) as pool, pool.leases(2) as workers:
            ...     len({worker.pid for worker in workers})
            2
        """
        return gather(self._core, count, timeout, self._call_options)

    def named(self, name: str, create: bool = True, **worker_options: Any) -> NamedWorker:
        """Return the worker of that name, which keeps its state; it is started at the first use of the name.

        Args:
            create: start one if there is none.
            worker_options: fields of `WorkerOptions` in which it differs from the pool's.

        Raises:
            LookupError: there is none, and `create` is False.
            ValueError: there is one with other options.
            PoolError: there are `max_named` already. Besides these, why it could not be started.

        Examples:
            >>> with vv.Pool() as pool:
            ...     pool.named("model").exec("weights = [1, 2, 3]")
            ...     pool.named("model").eval("sum(weights)")
            6
        """
        return self._named.get(name, create, worker_options)

    def warm(self, workers: int | None = None) -> int:
        """Build, start, and wait until so many workers are ready; return how many are.

        Args:
            workers: by default the least number this pool keeps.

        Raises:
            ValueError: more than the pool may have.
            WorkerStartError, EnvError: why one could not be started.

        Examples:
            >>> with vv.Pool(workers=(0, 2)) as pool:
            ...     pool.warm(1)
            1
        """
        return self._core.opening.warm(workers)

    def reload(self) -> int:
        """Replace all workers by fresh ones that import the code as it is now; return how many are ready.

        The first fresh one has to start before anything is changed; then the others follow, and the old ones end
        when their calls are done. Named and leased workers keep the code they have.

        Raises:
            WorkerStartError: the first fresh one did not start; the old ones go on serving.

        Examples:
            >>> with vv.Pool(workers=1) as pool:
            ...     before = pool.call("os:getpid")
            ...     pool.reload()
            ...     pool.call("os:getpid") == before
            1
            False
        """
        return self._core.reload()

    def define(self, text: str, /) -> None:
        """Add source text to the namespace of all workers, now and later; bare target names are looked up there first.

        It is run in one worker now, and in every other one, named ones included, before its next call.

        Raises:
            SyntaxError: it cannot be parsed. Besides this, what it raises; then no worker has any of it.

        Examples:
            >>> with vv.Pool() as pool:
            ...     pool.define("def double(n): return 2 * n")
            ...     pool.call("double", 21)
            42
        """
        if not isinstance(text, str):
            raise TypeError(f"define() takes source text, not {type(text).__name__}")
        self._define(*placed(text, "define"))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls and end the workers once all calls are done, as every Executor does.

        Args:
            wait: return only when nothing of the pool is left.
            cancel_futures: cancel the calls that wait in the queue; running ones are finished.
        """
        cores = self._begin_shutdown(cancel_futures)
        for core in cores if wait else ():
            core.join(None)
        if wait:
            self._ledger.flush()

    def close(self, timeout: float | None = None) -> None:
        """End the pool within a bounded time: what waits raises `PoolClosed`, what runs is ended after `timeout`.

        Args:
            timeout: seconds that running calls may take; by default the workers' grace period.
        """
        patience = self._core.options.grace_period if timeout is None else timeout
        deadline = monotonic() + patience
        for core in self._begin_close():
            core.close(max(0.0, deadline - monotonic()))
        self._ledger.flush()

    def __enter__(self) -> Self:
        try:
            self.warm()
        except BaseException:
            self.close(0)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Exception):
            self.shutdown(wait=True)
        else:  # Ctrl-C, sys.exit: whoever leaves like this does not wait for calls
            self.close(0)
