"""`Pool`: the blocking face. Its methods encode, hand on to the engine, and decode; nothing is decided here.

Owns the `Core`, and ends it when the last reference to the pool is gone.
"""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from venvoy_worker.contract import codec, reducers

from .binding import bind
from .calling import definition_of, make_call, make_chunk, make_eval
from .classes import declared_names
from .envs import Env, EnvSpec
from .errors import EncodingError
from .lease import Lease
from .options import CallOptions, PoolOptions, Target, WorkerOptions, check_pool_options, pool_size
from .pool.core import Core, check_platform
from .pool.jobs import CallFuture, Job
from .pool.mapping import Mapping
from .pool.recipe import EncodedInitializer
from .pool.stats import PoolStats, WorkerInfo, pool_stats, worker_infos
from .source import VALUE, target_for

T = TypeVar("T")
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
        core = self._core
        call = make_call(target, args, kwargs, self._call_options, core.table)
        frame = core.engine.run(call)
        return core.decoder.value(frame, call.convert)

    def submit(self, target: Target, /, *args: Any, **kwargs: Any) -> CallFuture:
        """Run a target in a worker and return a future of its result at once.

        Raises:
            PoolClosed: the pool is closed. What `call` raises besides is raised by `future.result()`.
        """
        table = self._core.table
        return self._submit(lambda: make_call(target, args, kwargs, self._call_options, table))

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
        resolved, core = target_for(target), self._core
        mapping = Mapping(
            zip(*iterables) if is_starred else iterables[0],  # noqa: B905 - the shortest ends it, as in Executor.map
            lambda items: self._enqueue(
                lambda: make_chunk(resolved, items, is_starred, self._call_options, core.table)
            ),
            core.roster.size.most,
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
        core = self._core
        call = make_eval(text, values, "eval", "", self._call_options)
        frame = core.engine.run(call)
        return core.decoder.value(frame, call.convert)

    def module(self, name: str, /) -> Module:
        """Return a handle whose attributes are functions of a module of the worker's environment."""
        return Module(self.call, name, ())

    def bind(self, protocol: type[T], module: str | None = None) -> T:
        """Return a typed handle: each method of a protocol is a call of the function of that name in a worker.

        Results are converted to the types that the methods declare, as by `options(returns=)`.

        Args:
            protocol: a class, usually a `typing.Protocol`, whose public methods are annotated.
            module: where the functions are; by default the pool's own module.

        Raises:
            TypeError: it declares no methods, or annotations that cannot be resolved.
        """
        options, core = self._call_options, self._core

        def call_as(returns: Any, target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            wanted = options if returns is None else replace(options, returns=returns)
            call = make_call(target, args, kwargs, wanted, core.table)
            frame = core.engine.run(call)
            return core.decoder.value(frame, call.convert)

        bound: T = bind(protocol, call_as, f"{module}:" if module else "")
        return bound

    def _submit(self, make: Callable[[], Any]) -> CallFuture:
        return self._enqueue(make).future

    def _enqueue(self, make: Callable[[], Any]) -> Job:
        """Put a job into the queue; an argument that cannot travel is the error of its future."""
        core = self._core
        try:
            job = Job(make())
        except EncodingError as error:
            job = Job(make_eval("None", {}, "eval", "", _DEFAULT_CALL))
            job.fail(error)
            return job
        future = job.future
        future._stop, future._job = core.stop, job
        core.queue.enqueue(job)
        if job.call.deadline is not None:
            job.timer = core.call_later(job.call.deadline - monotonic(), partial(core.queue.expire, job))
            if job.future.done():  # meanwhile; nobody else will forget the timer then
                job.timer.cancel()
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
        limit = worker.max_message_bytes
        self._call_options = _DEFAULT_CALL if limit is None else CallOptions(max_bytes=limit)
        self._core = Core(
            pool_size(workers, max_workers),
            options.get("name") or f"pool-{next(_numbers)}",
            env,
            module=module or "",
            options=worker,
            initializer=_encode_initializer(worker),
            home=options.get("home"),
            progress=options.get("progress"),
            build_timeout=options.get("build_timeout", 600.0),
            classes=declared_names(options.get("classes", ())),
            is_safe=options.get("unpickle") == "safe",
        )
        check_platform()
        weakref.finalize(self, self._core.drop).atexit = False

    def options(
        self, *, timeout: float | None = None, retries: int = 0, returns: Any = None, max_bytes: int | None = None
    ) -> View:
        """Return a light view of this pool whose calls have these `CallOptions`."""
        given = {"timeout": timeout, "retries": retries, "returns": returns, "max_bytes": max_bytes}
        return View(self, self._call_options.replaced(**given))

    def lease(self, *, timeout: float | None = None) -> Lease:
        """Return the exclusive use of one worker, for a `with` block.

        Args:
            timeout: seconds to wait for a worker; `CallTimeout` after that.
        """
        return Lease(self._core, timeout, self._call_options)

    def warm(self, workers: int | None = None) -> int:
        """Build, start, and wait until so many workers are ready; return how many are.

        Args:
            workers: by default the least number this pool keeps.

        Raises:
            ValueError: more than the pool may have.
            WorkerStartError, EnvError: why one could not be started.
        """
        return self._core.staff.warm(workers)

    def stats(self) -> PoolStats:
        """Return the pool's numbers as they are now."""
        return pool_stats(self._core.roster)

    def workers(self) -> list[WorkerInfo]:
        """Return a snapshot of each worker, oldest first."""
        return worker_infos(self._core.roster)

    def output(self, worker: int | None = None, stream: str | None = None) -> str:
        """Return the last output of one worker, or of all, as text.

        Args:
            worker: its id; also of the last workers that ended.
            stream: "stdout" or "stderr"; both by default.

        Raises:
            LookupError: there is no such worker.
        """
        return self._core.output(worker, stream)

    def terminate(self, worker: int) -> None:
        """End one worker: cancel its call, SIGTERM, and SIGKILL after the grace period. LookupError if unknown."""
        self._core.staff.find(worker).terminate()

    def kill(self, worker: int) -> None:
        """End one worker at once; a call running on it raises `WorkerCrashed`. LookupError if unknown."""
        self._core.staff.find(worker).kill()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls and end the workers once all calls are done, as every Executor does.

        Args:
            wait: return only when nothing of the pool is left.
            cancel_futures: cancel the calls that wait in the queue; running ones are finished.
        """
        self._core.shutdown(wait, cancel_futures)

    def close(self, timeout: float | None = None) -> None:
        """End the pool within a bounded time: what waits raises `PoolClosed`, what runs is ended after `timeout`.

        Args:
            timeout: seconds that running calls may take; by default the workers' grace period.
        """
        self._core.close(timeout)

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


def _encode_initializer(worker: WorkerOptions) -> EncodedInitializer | None:
    if worker.initializer is None:
        return None
    target = target_for(worker.initializer)
    if target.kind == VALUE:
        raise EncodingError(f"the initializer {target.name} has no name a worker could import; use a function")
    definition = definition_of(target)
    encoded = None if definition is None else (definition.digest, definition.encoded())
    args = (*target.bound_args, *worker.initializer_args)
    try:
        body = codec.encode_inline((args, dict(target.bound_kwargs)), reducers.ARGUMENTS)
    except codec.CodecError as error:
        raise EncodingError(f"an argument of the initializer {error}") from error.__cause__
    return target.kind, target.name, encoded, body
