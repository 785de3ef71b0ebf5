"""Frozen option objects, validated where they are made; what is passed wrongly is refused before anything starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypedDict

from .checks import check_names, check_seconds
from .detached.store import CallStore
from .events import Event
from .places import sources_of
from .policies import RestartPolicy, ScalePolicy

Target = str | Callable[..., Any]
"""What to call: `"module:attr.sub"`, a bare `"name"` of the pool's module, `by_source(f)`, or a callable."""

_MOST_LANES = 256  # each costs a descriptor here; and as many fit into the status page

OutputPolicy = Literal["forward", "log", "discard"] | Callable[["OutputChunk"], object]


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """A piece of what a worker wrote: `worker` (its id), `pid`, `stream` ("stdout" or "stderr"), `text`.

    `pool` is the pool's name; `call` and `target` are the number, on its worker, and the name of the call during which
    it was written, 0 and "" where there was none.
    """

    worker: int
    pid: int
    stream: str
    text: str
    pool: str = ""
    call: int = 0
    target: str = ""


class Progress(NamedTuple):
    """How far a call is, as it said with `venvoy_worker.progress(done, total, message)`."""

    done: float
    total: float | None
    message: str


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How each worker of a pool is started and ended.

    Args:
        paths: folders put first on the worker's `sys.path`, in this order.
        env_vars: environment variables set for the worker, or a function that returns them for the number of its
            slot: 0, 1, ... up to the most workers at a time, and the numbers after these for named workers; who
            replaces a worker has its slot. `PYTHON*` variables take effect as they would on a command line.
        cwd: the worker's working folder; None is the host's.
        sources: source texts run in order, in one namespace, by every worker before it is ready; targets with a bare
            name are looked up there first. A path is a file that is read now; a pair is (text, file name), for errors.
        preload: modules imported before a worker is ready; with `start="zygote"` once for all workers, and None is the
            pool's module then.
        initializer: a target run once in every worker before it is ready, with `initializer_args`.
        start: "spawn" makes each worker a fresh interpreter; "zygote" forks it from a template that has imported
            `preload`, in a few milliseconds and sharing its memory (Linux only).
        concurrency: how many calls a worker runs at once: functions on threads, coroutine functions on the event loop
            of its main thread. What they share is one process; with 1, calls run on its main thread, one by one.
        grace_period: seconds between asking a call or a worker to stop and SIGKILL.
        start_timeout: seconds a worker may take from its start until it is ready.
        max_calls: a worker that has run so many calls is replaced; each up to a tenth earlier, by chance.
        max_age: seconds after which a worker is replaced once its replacement is ready; spread likewise.
        max_rss: bytes of resident memory, but for that which is shared, at which a worker takes no more calls; it is
            looked at between calls, and from four fifths of it a replacement is started.
        kill_on_exception: end a worker whose call raised.
        output: where what workers print goes: "forward" (the host's stdout and stderr), "log" (logger
            `venvoy.output`), "discard", or a function called with each `OutputChunk` on a background thread.
        output_tail_bytes: how many bytes of each stream are kept for `Pool.output()` and for errors.
        max_message_bytes: the most bytes that the arguments or the result of a call may take, encoded; None is any
            number. `options(max_bytes=)` says less for single calls.
        segment_bytes: arrays, bytes and other buffers of at least so many bytes travel in shared memory, where the
            system has it (Linux); None sends all through the socket.
        segment_cache_bytes: the most bytes of shared memory kept for the next large values, in each direction.
        segment_access: "private", the receiver may write into what it received in shared memory, unseen by the
            sender; "readonly", it may not.

    Raises:
        TypeError, ValueError: an argument is not what is described here.

    Examples:
        >>> with vv.Pool(worker=vv.WorkerOptions(env_vars=lambda slot: {"GPU": str(slot)})) as pool:
        ...     pool.eval("__import__('os').environ['GPU']")
        '0'
    """

    paths: Sequence[str | os.PathLike[str]] = ()
    env_vars: Mapping[str, str] | Callable[[int], Mapping[str, str]] | None = None
    cwd: str | os.PathLike[str] | None = None
    sources: Sequence[str | os.PathLike[str] | tuple[str, Any]] = ()
    preload: Sequence[str] | None = None
    initializer: Target | None = None
    initializer_args: Sequence[Any] = ()
    start: Literal["spawn", "zygote"] = "spawn"
    concurrency: int = 1
    grace_period: float = 2.0
    start_timeout: float = 60.0
    max_calls: int | None = None
    max_age: float | None = None
    max_rss: int | None = None
    kill_on_exception: bool = False
    output: OutputPolicy = "forward"
    output_tail_bytes: int = 262_144
    max_message_bytes: int | None = None
    segment_bytes: int | None = 262_144
    segment_cache_bytes: int = 1 << 30
    segment_access: Literal["private", "readonly"] = "private"

    @property
    def segments(self) -> tuple[int | None, int, bool]:
        """The terms on which memory is shared: `segment_bytes`, `segment_cache_bytes`, whether it is read only."""
        return (self.segment_bytes, self.segment_cache_bytes, self.segment_access == "readonly")

    @property
    def attributes_output(self) -> bool:
        """True when somebody wants to know which call wrote what."""
        return callable(self.output) or self.output == "log"

    def __post_init__(self) -> None:
        if isinstance(self.paths, str | bytes | os.PathLike):
            raise TypeError(f"paths is a list of folders, not one: use paths=[{os.fspath(self.paths)!r}]")
        paths = tuple(os.path.abspath(os.fspath(path)) for path in self.paths)
        object.__setattr__(self, "paths", paths)  # frozen, and made absolute while the host's cwd is known
        object.__setattr__(self, "sources", sources_of(self.sources))
        if not callable(self.env_vars):
            check_env_vars(self.env_vars)
        self._check_start()
        self._check_limits()
        if not isinstance(self.kill_on_exception, bool):
            raise TypeError(f"kill_on_exception is True or False, not {self.kill_on_exception!r}")
        check_seconds("grace_period", self.grace_period)
        check_seconds("start_timeout", self.start_timeout)
        if not callable(self.output) and self.output not in ("forward", "log", "discard"):
            raise ValueError(f"output is 'forward', 'log', 'discard' or a function, not {self.output!r}")
        if self.cwd is not None and not isinstance(self.cwd, str | os.PathLike):
            raise TypeError(f"cwd is the path of a folder, not {self.cwd!r}")
        if isinstance(self.output_tail_bytes, bool) or not isinstance(self.output_tail_bytes, int):
            raise TypeError(f"output_tail_bytes is a number of bytes, not {self.output_tail_bytes!r}")
        if self.output_tail_bytes < 0:
            raise ValueError(f"output_tail_bytes is a number of bytes, not {self.output_tail_bytes!r}")
        _check_bytes("max_message_bytes", self.max_message_bytes)
        _check_bytes("segment_bytes", self.segment_bytes)
        if self.segment_cache_bytes != 0:
            _check_bytes("segment_cache_bytes", self.segment_cache_bytes, is_optional=False)
        if self.segment_access not in ("private", "readonly"):
            raise ValueError(f"segment_access is 'private' or 'readonly', not {self.segment_access!r}")

    def _check_start(self) -> None:
        if self.start not in ("spawn", "zygote"):
            raise ValueError(f"start is 'spawn' or 'zygote', not {self.start!r}")
        if self.preload is not None and (isinstance(self.preload, str) or not isinstance(self.preload, Sequence)):
            raise TypeError(f"preload is a list of names of modules, not {self.preload!r}")
        for name in self.preload or ():
            if not isinstance(name, str):
                raise TypeError(f"preload lists names of modules, not {name!r}")
            if not all(part.isidentifier() for part in name.split(".")):
                raise ValueError(f"preload lists names of modules, as in an import statement, not {name!r}")

    def _check_limits(self) -> None:
        number = self.concurrency
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= _MOST_LANES:
            raise ValueError(f"concurrency is a whole number from 1 to {_MOST_LANES}, not {number!r}")
        for name in ("max_calls", "max_rss"):
            number = getattr(self, name)
            if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
                raise ValueError(f"{name} is a whole number from 1 up, or None, not {number!r}")
        if self.max_age is not None:
            check_seconds("max_age", self.max_age)
            if not self.max_age:
                raise ValueError("max_age is a number of seconds above 0, or None")


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Options of single calls, made by `Pool.options()`.

    Args:
        timeout: seconds from the call to its deadline, waiting in the queue included; None has no deadline.
        retries: how often a call whose worker crashed is run again, besides those that never started.
        retry_on: exception classes of the call's own on which it is run again, too.
        on_timeout: "cancel" stops the work at the deadline, "abandon" lets it end by itself, unseen.
        queue_timeout: seconds to wait for a worker, after which the call raises `TooManyWaiting`; 0 does not wait
            when all the workers there may be are busy.
        kill_on_exception: end the worker if the call raises; None as the pool's `WorkerOptions` say.
        returns: the type that a result is converted to, or "plain" for values that JSON can say; see `returns`.
        max_bytes: the most bytes that the arguments or the result may take, encoded; for `map` those of one item.
        on_progress: called with each `Progress` of the call: in the thread that waits for it, and for `submit` and
            `map` on a background thread.
    """

    timeout: float | None = None
    retries: int = 0
    retry_on: type[BaseException] | tuple[type[BaseException], ...] = ()
    on_timeout: Literal["cancel", "abandon"] = "cancel"
    queue_timeout: float | None = None
    kill_on_exception: bool | None = None
    returns: Any = None
    max_bytes: int | None = None
    on_progress: Callable[[Progress], object] | None = None

    def __post_init__(self) -> None:
        if self.timeout is not None:
            check_seconds("timeout", self.timeout)
        if isinstance(self.retries, bool) or not isinstance(self.retries, int) or self.retries < 0:
            raise ValueError(f"retries is a number of further attempts, not {self.retries!r}")
        if isinstance(self.retry_on, type):
            object.__setattr__(self, "retry_on", (self.retry_on,))
        kinds = self.retry_on
        if not isinstance(kinds, tuple) or not all(isinstance(k, type) and issubclass(k, BaseException) for k in kinds):
            raise TypeError(f"retry_on is an exception class or a tuple of them, not {kinds!r}")
        if kinds and not self.retries:
            raise ValueError("retry_on= needs retries=: how often")
        if self.on_timeout not in ("cancel", "abandon"):
            raise ValueError(f"on_timeout is 'cancel' or 'abandon', not {self.on_timeout!r}")
        if self.queue_timeout is not None:
            check_seconds("queue_timeout", self.queue_timeout)
        if self.kill_on_exception not in (None, True, False):
            raise TypeError(f"kill_on_exception is True, False or None, not {self.kill_on_exception!r}")
        _check_function("on_progress", self.on_progress)
        _check_bytes("max_bytes", self.max_bytes)
        if isinstance(self.returns, str) and self.returns != "plain":
            raise ValueError(f'returns is a type or "plain", not {self.returns!r}')

    def replaced(self, **given: Any) -> CallOptions:
        """Return options for a view: what is given, within the limit that these set."""
        check_names("options()", given, CallOptions.__dataclass_fields__)
        limits = [limit for limit in (self.max_bytes, given.get("max_bytes")) if limit is not None]
        options = CallOptions(**given)  # checks them first
        return options if not limits else CallOptions(**{**given, "max_bytes": min(limits)})


class CallOptionsDict(TypedDict, total=False):
    """Keywords of `Pool.options()`; see `CallOptions`."""

    timeout: float | None
    retries: int
    retry_on: type[BaseException] | tuple[type[BaseException], ...]
    on_timeout: Literal["cancel", "abandon"]
    queue_timeout: float | None
    kill_on_exception: bool | None
    returns: Any
    max_bytes: int | None
    on_progress: Callable[[Progress], object] | None


class PoolOptions(TypedDict, total=False):
    """Keywords of `Pool` besides its first arguments.

    `scale` is a `ScalePolicy`, `restart` a `RestartPolicy`; `max_waiting` calls may wait for a worker at a time, more
    raise `TooManyWaiting`; `max_named` named workers may live; `on_event` is called with each `Event` on a background
    thread; `watch` reloads the workers when their code changes; `home`, `progress`, `build_timeout` are those of
    `build`.
    `call_store` keeps the detached calls: a `MemoryCallStore` of its own by default, or a `SqliteCallStore`.
    `classes` lists the classes, modules and packages whose instances come back from workers of another environment as
    themselves, where their fields are the same here; all others come in their plain form. With `unpickle="safe"` a
    reply can construct builtins, standard value types, arrays, frames, and these and registered classes, nothing else.
    `expose` gives names to functions of this process that a running call may call: `venvoy_worker.host(name)(...)`.
    """

    name: str
    scale: ScalePolicy
    restart: RestartPolicy
    max_waiting: int | None
    max_named: int
    on_event: Callable[[Event], object] | None
    watch: bool
    home: str | os.PathLike[str] | None
    progress: Callable[[Any], object] | None
    build_timeout: float
    classes: Iterable[str | type]
    unpickle: Literal["full", "safe"]
    expose: Mapping[str, Callable[..., Any]]
    call_store: CallStore | None


def check_pool_options(module: object, worker: object, options: Mapping[str, Any]) -> None:
    """Check the arguments of `Pool` that have no class of their own.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    known = ["env", "module", "workers", "worker", *PoolOptions.__annotations__]
    of_workers, of_calls = WorkerOptions.__dataclass_fields__, CallOptions.__dataclass_fields__
    elsewhere = {"worker=WorkerOptions({}=...)": of_workers, "pool.options({}=...)": of_calls}
    check_names("Pool()", options, known, elsewhere)
    if module is not None and not isinstance(module, str):
        raise TypeError(f"module is the name of a module, not {module!r}")
    if module is not None and not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(f"module is the name of a module, as in an import statement, not {module!r}")
    if worker is not None and not isinstance(worker, WorkerOptions):
        raise TypeError(f"worker is a WorkerOptions(...), not {worker!r}")
    for name, (kinds, what) in _POOL_OPTIONS.items():
        if options.get(name) is not None and not isinstance(options[name], kinds):
            raise TypeError(f"{name} is {what}, not {options[name]!r}")
    for name in ("max_waiting", "max_named"):
        if isinstance(options.get(name), bool) or (options.get(name) or 0) < 0:
            raise ValueError(f"{name} is a whole number from 0 up, not {options[name]!r}")
    _check_exposed(options.get("expose") or {})
    check_seconds("build_timeout", options.get("build_timeout", 0.0))
    if options.get("unpickle", "full") not in ("full", "safe"):
        raise ValueError(f'unpickle is "full" or "safe", not {options["unpickle"]!r}')


_POOL_OPTIONS: dict[str, tuple[Any, str]] = {
    "name": (str, "a str"),
    "home": (str | os.PathLike, "the path of a folder"),
    "progress": (Callable, "a function"),
    "on_event": (Callable, "a function"),
    "scale": (ScalePolicy, "a ScalePolicy(...)"),
    "restart": (RestartPolicy, "a RestartPolicy(...)"),
    "max_waiting": (int, "a number of calls"),
    "max_named": (int, "a number of workers"),
    "watch": (bool, "True or False"),
    "expose": (Mapping, "a dict of names to functions"),
    "call_store": (CallStore, "a MemoryCallStore(...) or a SqliteCallStore(...)"),
}


@dataclass(frozen=True, slots=True)
class Size:
    """How many workers a pool keeps at least and starts at most."""

    least: int
    most: int


def pool_size(workers: int | tuple[int, int] | None, max_workers: int | None) -> Size:
    """Return the size that `workers=` and its alias `max_workers=` ask for.

    Raises:
        TypeError, ValueError: neither a positive number nor a pair (least, most) of them; the texts of the
            standard library's executors where they have one.
    """
    if max_workers is not None:
        if workers is not None:
            raise ValueError("give workers= or its alias max_workers=, not both")
        if not isinstance(max_workers, int) or max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        return Size(1, max_workers)
    if workers is None:
        return Size(1, max(2, os.cpu_count() or 1))
    least, most = (workers, workers) if isinstance(workers, int) else _pair(workers)
    if isinstance(workers, bool) or least < 0 or most < 1 or least > most:
        raise ValueError(f"workers is a positive number or a pair (least, most), not {workers!r}")
    return Size(least, most)


def _pair(workers: Any) -> tuple[int, int]:
    try:
        least, most = workers
    except (TypeError, ValueError):
        raise TypeError(f"workers is a number or a pair (least, most), not {workers!r}") from None
    if not isinstance(least, int) or not isinstance(most, int):
        raise TypeError(f"workers is a pair of whole numbers (least, most), not {workers!r}")
    return least, most


def _check_function(name: str, value: object) -> None:
    if value is not None and not callable(value):
        raise TypeError(f"{name} is a function, not {value!r}")


def _check_exposed(functions: Mapping[Any, Any]) -> None:
    for name, function in functions.items():
        if not isinstance(name, str) or not callable(function):
            raise TypeError(f"expose is a dict of names to functions, not {{{name!r}: {function!r}}}")


def _check_bytes(name: str, value: object, is_optional: bool = True) -> None:
    if value is None and is_optional:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a number of bytes, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} is a number of bytes from 1 up, not {value!r}")


def check_env_vars(env_vars: object) -> None:
    """Raise TypeError or ValueError unless they are None or a dict of str to str that a process can be given."""
    if env_vars is None:
        return
    if not isinstance(env_vars, Mapping):
        raise TypeError(f"env_vars is a dict of names to values, not {type(env_vars).__name__}")
    for key, value in env_vars.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"env_vars[{key!r}] = {value!r}: names and values are str")
        if not key or "=" in key or "\0" in key + value:
            raise ValueError(f"env_vars[{key!r}]: a name has no '=', and neither has a NUL character")
