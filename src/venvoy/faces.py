"""The calling methods that a pool and its views share: they encode, hand on to the engine, and decode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from .calling import keywords_of, make_call, make_chunks, make_eval, make_request, placeholder
from .detached.calls import DetachedCalls
from .detached.ledger import Ledger
from .errors import EncodingError
from .exchange import Call
from .objects.making import make_kept, start_object
from .options import CallOptions, Target
from .pool.core import Core
from .pool.jobs import CallFuture, Job
from .pool.mapping import MapOptions, Window
from .pool.mapping import Mapping as PoolMapping
from .source import target_for
from .streams.stream import PoolSeat, Stream
from .values.binding import bind

T = TypeVar("T")
_DEFAULT_CALL = CallOptions()


class Begins:
    """What begins maps and batches, whoever then waits for their results; the base of all calling faces.

    The first window of a map is sent here and now, as `Executor.map` does.
    """

    _core: Core
    _call_options: CallOptions

    def _mapping(self, target: Target, iterables: tuple[Iterable[Any], ...], options: MapOptions) -> PoolMapping:
        is_starred = len(iterables) != 1
        items = zip(*iterables) if is_starred else iterables[0]  # noqa: B905 - the shortest ends it, as in Executor.map
        return self._chunks(target, items, is_starred, options)

    def _chunks(self, target: Target, items: Iterable[Any], is_starred: bool, options: MapOptions) -> PoolMapping:
        resolved, core, call_options = target_for(target), self._core, self._call_options
        is_each_timed = call_options.timeout is not None  # a deadline is that of one call
        chunksize = 1 if is_each_timed and options.chunksize is None else options.chunksize
        window = Window(items, 2 * core.roster.size.most * core.roster.concurrency, chunksize, options.buffersize)

        def submit(chunk: list[Any]) -> list[tuple[Job, int]]:
            calls = make_chunks(resolved, chunk, is_starred, call_options, core.table, options.return_exceptions)
            return [(self._send(call), size) for call, size in calls]

        mapping = PoolMapping(window, submit, options)
        mapping.fill()
        return mapping

    def _batch(self, requests: Iterable[Sequence[Any]], options: MapOptions) -> PoolMapping:
        core, call_options = self._core, self._call_options
        window = Window(requests, 32 * core.roster.size.most * core.roster.concurrency, 1, options.buffersize)

        def submit(chunk: list[Any]) -> list[tuple[Job, int]]:
            return [(self._send(make_request(chunk[0], call_options, core.table)), 1)]

        mapping = PoolMapping(window, submit, options, lambda value: ([value], None))
        mapping.fill()
        return mapping

    def _bound(self, protocol: Callable[..., T], module: str | None, run: Callable[[Call], Any]) -> T:
        """Return a handle whose methods are calls that `run` runs, with the types that they declare."""
        options, core = self._call_options, self._core

        def call_as(returns: Any, target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            wanted = options if returns is None else replace(options, returns=returns)
            return run(make_call(target, args, kwargs, wanted, core.table))

        bound: T = bind(protocol, call_as, f"{module}:" if module else "")
        return bound

    def _send(self, call: Call | Exception) -> Job:
        """Put a call into the queue; an error stands for one that could not be made, and is that of its future."""
        if isinstance(call, Exception):
            job = Job(placeholder("", _DEFAULT_CALL))
            job.fail(call)
            return job
        job = Job(call)
        self._core.calls.enqueue(job)
        return job


class Calling(Begins):
    """The calling methods, of a pool and of its views alike."""

    _ledger: Ledger

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

        Examples:
            >>> with vv.Pool() as pool:
            ...     pool.call("math:hypot", 3.0, 4.0)
            5.0
        """
        return self._core.calls.run(make_call(target, args, kwargs, self._call_options, self._core.table))

    def submit(self, target: Target, /, *args: Any, **kwargs: Any) -> CallFuture:
        """Run a target in a worker and return a future of its result at once.

        Raises:
            PoolClosed: the pool is closed. What `call` raises besides is raised by `future.result()`.

        Examples:
            >>> with vv.Pool() as pool:
            ...     future = pool.submit("math:hypot", 3.0, 4.0)
            ...     future.result(timeout=30)
            5.0
        """
        try:
            call = make_call(target, args, kwargs, self._call_options, self._core.table)
        except EncodingError as error:
            return self._send(error).future
        return self._send(call).future

    def stream(self, target: Target, /, *args: Any, **kwargs: Any) -> Stream:
        """Run a target that is a generator function, or returns an iterable, and yield its items while it runs.

        The items come as fast as they are taken: a worker is held, and runs ahead of the consumer by a window only.
        Leaving early (`break`, `close()`, dropping the iterator) closes the generator in the worker. The deadline of
        `options(timeout=)` is that of the whole stream.

        Raises:
            TypeError: the result is not iterable. Besides this, as `call`; errors come after the items before them.

        Examples:
            >>> with vv.Pool() as pool:
            ...     for pair in pool.stream("itertools:pairwise", "abc"):
            ...         print(*pair)
            a b
            b c
        """
        call = make_call(target, args, kwargs, self._call_options, self._core.table)
        return Stream(self._core, PoolSeat(self._core), call, self)

    def map(
        self,
        target: Target,
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> Iterator[Any]:
        """Run a target for each item (or each tuple of items of several iterables); yield the results.

        The input is drawn as results are taken, so it may be infinite. Leaving early (`break`, `close()`, dropping the
        iterator) cancels what has not ended.

        Args:
            timeout: seconds from now until a result that is waited for must be there.
            chunksize: items sent together; by default sized by the time calls are measured to take.
            buffersize: how many items are drawn ahead of the results taken, at most; by default two chunks a worker.
            ordered: yield in the order of the items; else as they are done.
            return_exceptions: yield the error of an item in the place of its result, and go on. A worker that crashes
                is the error of each item of its chunk.

        Raises:
            CallTimeout: a result was not there in time. Besides this, what `call` raises, in the place of a result.

        Examples:
            >>> with vv.Pool() as pool:
            ...     list(pool.map("math:sqrt", [1, 4, 9]))
            [1.0, 2.0, 3.0]
        """
        options = MapOptions(timeout, chunksize, buffersize, ordered, return_exceptions)
        return self._mapping(target, iterables, options).results()

    def map_kwargs(
        self,
        target: Target,
        items: Iterable[Mapping[str, Any]],
        /,
        *,
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> Iterator[Any]:
        """Run a target for each dict of keyword arguments, as in `[{"n": 0}, {"n": 1}]`; otherwise as `map`.

        Examples:
            >>> with vv.Pool() as pool:
            ...     [str(delta) for delta in pool.map_kwargs("datetime:timedelta", [{"hours": 1}, {"minutes": 1}])]
            ['1:00:00', '0:01:00']
        """
        options = MapOptions(timeout, chunksize, buffersize, ordered, return_exceptions)
        return self._chunks(target, map(keywords_of, items), True, options).results()

    def call_many(
        self,
        requests: Iterable[Sequence[Any]],
        /,
        *,
        timeout: float | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> Iterator[Any]:
        """Run different calls, each given as `(target, args, kwargs)`; yield their results.

        Args:
            requests: of each, `kwargs` or both may be left out; drawn as results are taken.
            buffersize: how many calls are made ahead of the results taken, at most; by default 32 a worker.
            timeout, ordered, return_exceptions: as in `map`.

        Raises:
            TypeError: a request is none. Besides this, as `map`.

        Examples:
            >>> with vv.Pool() as pool:
            ...     list(pool.call_many([("math:sqrt", [9]), ("builtins:int", ["ff"], {"base": 16})]))
            [3.0, 255]
        """
        options = MapOptions(timeout, None, buffersize, ordered, return_exceptions)
        return self._batch(requests, options).results()

    def eval(self, text: str, /, **values: Any) -> Any:
        """Evaluate a Python expression in a worker, or statements with a `return`, and return the value.

        At the top level of the text `await` may be used. Errors show its lines where they stand in your file.

        Args:
            text: Python, as the worker's version has it.
            values: names the text may use, besides the builtins.

        Raises:
            SyntaxError: the worker's Python cannot parse it. Besides this, as `call`.

        Examples:
            >>> with vv.Pool() as pool:
            ...     pool.eval("sum(range(n + 1))", n=100)
            5050
        """
        return self._core.calls.run(make_eval(text, values, "eval", "", self._call_options))

    def exec(self, text: str, /, **values: Any) -> Any:
        """Execute the text of Python statements in a worker, as `eval`; return what they `return`, else None.

        Examples:
            >>> with vv.Pool() as pool:
            ...     pool.exec("import math; return math.isqrt(n)", n=17)
            4
        """
        return self._core.calls.run(make_eval(text, values, "exec", "", self._call_options))

    def module(self, name: str, /) -> Module:
        """Return a handle whose attributes are functions of a module of the worker's environment.

        Args:
            name: of the module, as "numpy.linalg"; it is imported with the first call.

        Examples:
            >>> with vv.Pool() as pool:
            ...     pool.module("math").hypot(3.0, 4.0)
            5.0
        """
        return Module(self.call, name, ())

    def bind(self, protocol: Callable[..., T], module: str | None = None) -> T:
        """Return a typed handle: each method of a protocol is a call of the function of that name in a worker.

        Results are converted to the types that the methods declare, as by `options(returns=)`.

        Args:
            protocol: a class, usually a `typing.Protocol`, whose public methods are annotated.
            module: where the functions are; by default the pool's own module.

        Raises:
            TypeError: it declares no methods, or annotations that cannot be resolved.

        Examples:
            >>> from typing import Protocol
            >>> class Geometry(Protocol):
            ...     def hypot(self, x: float, y: float) -> float: ...
            >>> with vv.Pool(module="math") as pool:
            ...     pool.bind(Geometry).hypot(3, 4)
            5.0
        """
        return self._bound(protocol, module, self._core.calls.run)

    @property
    def detached(self) -> DetachedCalls:
        """Calls that outlive whoever started them: `start`, `result`, `peek`, `cancel`, `list`."""
        return DetachedCalls(self, self._core, self._ledger, self._call_options)

    def object(self, target: Target, /, *args: Any, **kwargs: Any) -> Any:
        """Make an object on one of the workers and return a proxy of it; see `RemoteProxy`.

        The worker goes on serving other calls, and is not replaced by plan while the object lives there.

        Args:
            target: a class, or whatever else makes the object; all other arguments are the target's own.

        Raises:
            As `call`.

        Examples:
            >>> with vv.Pool() as pool:
            ...     letters = pool.object("collections:Counter", "banana")
            ...     letters.most_common(1)
            [('a', 3)]
        """
        call = make_kept(self._core, target, args, kwargs, self._call_options)
        return start_object(self._core, call, self._call_options, owner=self)


class View(Calling):
    """A pool with other options for its calls; made by `Pool.options()`."""

    def __init__(self, pool: Calling, options: CallOptions) -> None:
        self._pool = pool  # keeps it alive
        self._core = pool._core
        self._ledger = pool._ledger
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
