"""The calling methods that a pool and its views share: they encode, hand on to the engine, and decode."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from time import monotonic
from typing import Any, TypeVar

from .binding import bind
from .calling import make_call, make_chunk, make_eval
from .errors import EncodingError
from .exchange import Call
from .objects import make_kept, start_object
from .options import (
    CallOptions,
    Target,
)
from .pool.core import Core
from .pool.jobs import CallFuture, Job
from .pool.mapping import Mapping
from .source import target_for

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
        return self._core.calls.run(make_call(target, args, kwargs, self._call_options, self._core.table))

    def submit(self, target: Target, /, *args: Any, **kwargs: Any) -> CallFuture:
        """Run a target in a worker and return a future of its result at once.

        Raises:
            PoolClosed: the pool is closed. What `call` raises besides is raised by `future.result()`.
        """
        return self._enqueue(make_call, target, args, kwargs, self._call_options, self._core.table).future

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
            lambda items: self._enqueue(make_chunk, resolved, items, is_starred, self._call_options, core.table),
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
        return self._core.calls.run(make_eval(text, values, "eval", "", self._call_options))

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
            return core.calls.run(make_call(target, args, kwargs, wanted, core.table))

        bound: T = bind(protocol, call_as, f"{module}:" if module else "")
        return bound

    def object(self, target: Target, /, *args: Any, **kwargs: Any) -> Any:
        """Make an object on one of the workers and return a proxy of it; see `RemoteProxy`.

        The worker goes on serving other calls, and is not replaced by plan while the object lives there.

        Args:
            target: a class, or whatever else makes the object; all other arguments are the target's own.

        Raises:
            As `call`.
        """
        call = make_kept(self._core, target, args, kwargs, self._call_options)
        return start_object(self._core, call, self._call_options, owner=self)

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

    def __init__(self, pool: Calling, options: CallOptions) -> None:
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
