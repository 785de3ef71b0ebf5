"""`Pool`: the blocking face. Its methods encode, hand on to the engine, and decode; nothing is decided here.

Owns the `Core`, and ends it when the last reference to the pool is gone.
"""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from time import monotonic
from types import TracebackType
from typing import Any, Self, Unpack

from .calling import encode_initializer, make_call, make_chunk, make_eval
from .envs import Env, EnvSpec
from .errors import EncodingError
from .exchange import Call
from .lease import Lease, NamedWorker, gather
from .named import NamedWorkers
from .options import (
    CallOptions,
    CallOptionsDict,
    PoolOptions,
    Target,
    WorkerOptions,
    check_pool_options,
    pool_size,
)
from .policies import RestartPolicy, ScalePolicy
from .pool.core import Core, Setup, check_platform
from .pool.jobs import CallFuture, Job
from .pool.mapping import Mapping
from .pool.roster import Rules
from .pool.stats import PoolStats, WorkerInfo, pool_stats, worker_infos
from .source import target_for

_numbers = itertools.count(1)
_DEFAULT_CALL = CallOptions()


class Calling:
    """The calling methods, of a pool and of its views alike."""

    _core: Core
    _call_options: CallOptions

    def call(self, target: Target, /, *args: Any, **kwargs: Any) -> Any:
        """Run a target in a worker and return its result.

        Args:
            target: what to run; see the README. All other arguments are the target's own.

        Raises:
            TargetNotFound: the worker's environment has no such module or attribute.
            EncodingError: an argument or the result cannot travel.
            CallTimeout: the deadline of `options(timeout=)` passed.
            WorkerCrashed: the worker ended while it ran this.
            WorkerStartError, EnvError: no worker could be started.
            PoolClosed: the pool is closed. Besides these, whatever the target raises.
        """
        return self._core.calls.run(make_call(target, args, kwargs, self._call_options))

    def submit(self, target: Target, /, *args: Any, **kwargs: Any) -> CallFuture:
        """Run a target in a worker and return a future of its result at once.

        Raises:
            PoolClosed: the pool is closed. What `call` raises besides is raised by `future.result()`.
        """
        return self._enqueue(make_call, target, args, kwargs, self._call_options).future

    def map(
        self,
        target: Target,
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Run a target for each item (or each tuple of items of several iterables); yield results in order.

        Args:
            timeout: seconds from now until a result that is waited for must be there.
            chunksize: items sent together; by default sized by the time calls are measured to take.
            buffersize: how many items are drawn ahead of the results taken, at most.

        Raises:
            CallTimeout: a result was not there in time. Besides this, what `call` raises, in the place of a result.
        """
        for name, number in (("chunksize", chunksize), ("buffersize", buffersize)):
            if number is not None and number < 1:
                raise ValueError(f"{name} must be >= 1")
        if self._call_options.timeout is not None and chunksize is None:
            chunksize = 1  # a deadline is that of one call
        deadline = None if timeout is None else monotonic() + timeout
        is_starred = len(iterables) != 1
        resolved = target_for(target)
        mapping = Mapping(
            zip(*iterables) if is_starred else iterables[0],  # noqa: B905 - the shortest ends it, as in Executor.map
            lambda items: self._enqueue(make_chunk, resolved, items, is_starred, self._call_options),
            self._core.roster.size.most,
            chunksize,
            buffersize,
        )
        mapping.fill()
        return mapping.results(deadline)

    def eval(self, text: str, /, **values: Any) -> Any:
        """Evaluate a Python expression in a worker and return its value.

        Args:
            values: names the expression may use, besides the builtins.

        Raises:
            SyntaxError: the worker's Python cannot parse it. Besides this, as `call`.
        """
        return self._core.calls.run(make_eval(text, values, "eval", "", self._call_options))

    def module(self, name: str, /) -> Module:
        """Return a handle whose attributes are functions of a module of the worker's environment."""
        return Module(self.call, name, ())

    def _enqueue(self, make: Callable[..., Call], *args: Any) -> Job:
        """Put a job into the queue; an argument that cannot travel is the error of its future."""
        core = self._core
        try:
            job = Job(make(*args))
        except EncodingError as error:
            job = Job(make_eval("None", {}, "eval", "", _DEFAULT_CALL))
            job.fail(error)
            return job
        core.calls.enqueue(job)
        return job


class View(Calling):
    """A pool with other options for its calls; made by `Pool.options()`."""

    def __init__(self, pool: Pool, options: CallOptions) -> None:
        self._pool = pool  # keeps it alive
        self._core = pool._core
        self._call_options = options


class Module:
    """A handle to a module in a worker: `handle.attr.sub(x)` calls `"module:attr.sub"`.

    It has no public names of its own, so every name of the remote module can be reached. Made by `Pool.module()`.
    """

    __slots__ = ("_call", "_name", "_path")

    def __init__(self, call: Callable[..., Any], name: str, path: tuple[str, ...]) -> None:
        self._call = call
        self._name = name
        self._path = path

    def __getattr__(self, name: str) -> Module:
        if name.startswith("_"):
            raise AttributeError(f"{self!r} gives no private names: {name!r}")
        return Module(self._call, self._name, (*self._path, name))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._path:
            raise TypeError(f"{self!r} is a module, not a function: call an attribute of it")
        return self._call(f"{self._name}:{'.'.join(self._path)}", *args, **kwargs)

    def __repr__(self) -> str:
        return f"<remote {self._name}:{'.'.join(self._path)}>" if self._path else f"<remote module {self._name}>"


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
        self._call_options = _DEFAULT_CALL
        size, name = pool_size(workers, max_workers), options.get("name") or f"pool-{next(_numbers)}"
        self._core = Core(size, name, env, module or "", worker, _setup(worker, options))
        self._named = NamedWorkers(self._core, options.get("max_named", 10))
        self._core.on_reload = self._named.tell_outdated
        check_platform()
        weakref.finalize(self, _drop, self._core, self._named).atexit = False

    def options(self, **options: Unpack[CallOptionsDict]) -> View:
        """Return a light view of this pool whose calls have these `CallOptions`."""
        return View(self, CallOptions(**options))

    def lease(self, *, timeout: float | None = None) -> Lease:
        """Return the exclusive use of one worker, for a `with` block.

        Args:
            timeout: seconds to wait for a worker; `CallTimeout` after that.
        """
        return Lease(self._core, timeout)

    def leases(self, count: int, *, timeout: float | None = None) -> AbstractContextManager[list[Lease]]:
        """Return the exclusive use of up to `count` workers at once, for a `with` block.

        Args:
            count: how many; no more than the pool may have.
            timeout: seconds to wait for them; then those that were had are given, and `CallTimeout` is raised if
                that is none. None waits for all.
        """
        return gather(self._core, count, timeout)

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
    )
