"""`Pool`: the blocking face. Its methods encode, hand on to the engine, and decode; nothing is decided here.

Owns the `Core`, and ends it when the last reference to the pool is gone.
"""

from __future__ import annotations

import itertools
import os
import weakref
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from .calling import encode_initializer
from .classes import declared_names
from .envs import Env, EnvSpec
from .faces import Calling, View
from .lease import Lease, NamedWorker, gather
from .named import NamedWorkers
from .options import (
    CallOptions,
    CallOptionsDict,
    PoolOptions,
    WorkerOptions,
    check_pool_options,
    pool_size,
)
from .policies import RestartPolicy, ScalePolicy
from .pool.core import Core, Setup, check_platform
from .pool.roster import Rules
from .pool.stats import PoolStats, WorkerInfo, pool_stats, worker_infos

T = TypeVar("T")
_numbers = itertools.count(1)
_DEFAULT_CALL = CallOptions()


class Pool(Calling, Executor):
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
    """

    def __init__(
        self,
        env: EnvSpec | Env | str | os.PathLike[str] | None = None,
        module: str | None = None,
        *,
        workers: int | tuple[int, int] | None = None,
        worker: WorkerOptions | None = None,
        max_workers: int | None = None,
        **options: Unpack[PoolOptions],
    ) -> None:
        if env is not None and not isinstance(env, EnvSpec | Env | str | os.PathLike):
            raise TypeError(f"env is an EnvSpec, an Env, a path or None, not {env!r}")
        check_pool_options(module, worker, options)
        worker = worker if worker is not None else WorkerOptions()
        limit = worker.max_message_bytes
        self._call_options = _DEFAULT_CALL if limit is None else CallOptions(max_bytes=limit)
        size, name = pool_size(workers, max_workers), options.get("name") or f"pool-{next(_numbers)}"
        self._core = Core(size, name, env, module or "", worker, _setup(worker, options))
        self._named = NamedWorkers(self._core, options.get("max_named", 10))
        self._core.on_reload = self._named.tell_outdated
        check_platform()
        weakref.finalize(self, _drop, self._core, self._named).atexit = False

    def options(self, **options: Unpack[CallOptionsDict]) -> View:
        """Return a light view of this pool whose calls have these `CallOptions`."""
        return View(self, self._call_options.replaced(**options))

    def lease(self, *, timeout: float | None = None) -> Lease:
        """Return the exclusive use of one worker, for a `with` block.

        Args:
            timeout: seconds to wait for a worker; `CallTimeout` after that.
        """
        return Lease(self._core, timeout, self._call_options)

    def leases(self, count: int, *, timeout: float | None = None) -> AbstractContextManager[list[Lease]]:
        """Return the exclusive use of up to `count` workers at once, for a `with` block.

        Args:
            count: how many; no more than the pool may have.
            timeout: seconds to wait for them; then those that were had are given, and `CallTimeout` is raised if
                that is none. None waits for all.
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
        """
        return self._named.get(name, create, worker_options)

    def warm(self, workers: int | None = None) -> int:
        """Build, start, and wait until so many workers are ready; return how many are.

        Args:
            workers: by default the least number this pool keeps.

        Raises:
            ValueError: more than the pool may have.
            WorkerStartError, EnvError: why one could not be started.
        """
        return self._core.opening.warm(workers)

    def reap(self) -> int:
        """End the idle workers above the least number now, the one idle longest first; return how many."""
        return self._core.renewal.reap()

    def reload(self) -> int:
        """Replace all workers by fresh ones that import the code as it is now; return how many are ready.

        The first fresh one has to start before anything is changed; then the others follow, and the old ones end
        when their calls are done. Named and leased workers keep the code they have.

        Raises:
            WorkerStartError: the first fresh one did not start; the old ones go on serving.
        """
        return self._core.reload()

    def stats(self) -> PoolStats:
        """Return the pool's numbers as they are now."""
        return pool_stats(self._core.roster)

    def workers(self) -> list[WorkerInfo]:
        """Return a snapshot of each worker, oldest first; the named ones last."""
        infos = worker_infos(self._core.roster)
        for name, core in self._named.all().items():
            infos += worker_infos(core.roster, name)
        return infos

    def output(self, worker: int | str | None = None, stream: str | None = None) -> str:
        """Return the last output of one worker, or of all, as text.

        Args:
            worker: its id or its name; the id also of one of the last workers that ended.
            stream: "stdout" or "stderr"; both by default.

        Raises:
            LookupError: there is no such worker.
        """
        named = self._find_named(worker)
        return self._core.output(worker, stream) if named is None else named.output(stream)  # type: ignore[arg-type]

    def terminate(self, worker: int | str) -> None:
        """End one worker: cancel its call, SIGTERM, and SIGKILL after the grace period.

        The call running there raises `CallCancelled`, or `WorkerCrashed` if it did not obey.

        Args:
            worker: its id or its name.

        Raises:
            LookupError: there is no such worker.
        """
        (self._find_named(worker) or self._core.staff.find(worker)).terminate()  # type: ignore[arg-type]

    def kill(self, worker: int | str) -> None:
        """End one worker at once; a call running on it raises `WorkerCrashed`.

        Args:
            worker: its id or its name.

        Raises:
            LookupError: there is no such worker.
        """
        (self._find_named(worker) or self._core.staff.find(worker)).kill()  # type: ignore[arg-type]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls and end the workers once all calls are done, as every Executor does.

        Args:
            wait: return only when nothing of the pool is left.
            cancel_futures: cancel the calls that wait in the queue; running ones are finished.
        """
        cores = [self._core]
        self._core.shutdown(False, cancel_futures)
        for core in self._named.all().values():  # looked for now: no more are made
            core.shutdown(False, cancel_futures)
            cores.append(core)
        for core in cores if wait else ():
            core.join(None)

    def close(self, timeout: float | None = None) -> None:
        """End the pool within a bounded time: what waits raises `PoolClosed`, what runs is ended after `timeout`.

        Args:
            timeout: seconds that running calls may take; by default the workers' grace period.
        """
        patience = self._core.options.grace_period if timeout is None else timeout
        deadline = monotonic() + patience
        self._core.staff.stop()
        cores = [*self._named.all().values(), self._core]  # looked for now: no more are made
        for core in cores:
            core.staff.stop()
        for core in cores:
            core.close(max(0.0, deadline - monotonic()))

    def _find_named(self, worker: int | str | None) -> NamedWorker | None:
        if isinstance(worker, str):
            return self._named.find(worker)
        return None if worker is None else self._named.find_by_id(worker)

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

    def __repr__(self) -> str:
        stats = self.stats()
        return f"<venvoy.Pool {stats.name!r} {stats.phase}, {sum(stats.workers.values())} workers>"


def _drop(core: Core, named: NamedWorkers) -> None:
    core.drop()
    named.drop()


def _setup(worker: WorkerOptions, options: PoolOptions) -> Setup:
    scale, restart = options.get("scale") or ScalePolicy(), options.get("restart") or RestartPolicy()
    return Setup(
        rules=Rules(scale=scale, restart=restart, max_waiting=options.get("max_waiting")),
        initializer=encode_initializer(worker),
        home=options.get("home"),
        progress=options.get("progress"),
        build_timeout=options.get("build_timeout", 600.0),
        on_event=options.get("on_event"),
        watch=options.get("watch", False),
        classes=declared_names(options.get("classes", ())),
        is_safe=options.get("unpickle") == "safe",
    )
