"""What both faces of a pool have, the blocking and the asyncio one: how it is made, and all that does not wait.

Owns the `Core`, and ends it when the last reference to the pool is gone.
"""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Iterable
from functools import partial
from typing import Any, Unpack

from .calling import encode_initializer, make_call
from .detached.ledger import Ledger, begin
from .detached.store import MemoryCallStore
from .envs import Env, EnvSpec
from .leases.lease import NamedWorker
from .leases.named import NamedWorkers
from .options import CallOptions, PoolOptions, WorkerOptions, check_pool_options, pool_size
from .places import Source
from .policies import RestartPolicy, ScalePolicy
from .pool.core import Core, Setup, check_platform, drop
from .pool.roster import Rules
from .pool.sources import Sources, check_parses, news_of
from .pool.stats import PoolStats, WorkerInfo, pool_stats, worker_infos
from .values.classes import declared_names

_numbers = itertools.count(1)
_DEFAULT_CALL = CallOptions()


class AnyPool:
    """Warm workers of one environment; see `Pool` for the arguments."""

    _pool: AnyPool | None = None  # whose face it is, if it did not make the workers itself

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
        self._ledger = Ledger(self._core, options.get("call_store") or MemoryCallStore())
        self._core.on_open = partial(begin, self._ledger)
        check_platform()
        weakref.finalize(self, _drop, self._core, self._named).atexit = False

    def reap(self) -> int:
        """End the idle workers above the least number now, the one idle longest first; return how many."""
        return self._core.renewal.reap()

    def stats(self) -> PoolStats:
        """Return the pool's numbers as they are now.

        Examples:
            >>> with vv.Pool() as pool:
            ...     pool.call("math:sqrt", 9.0)
            ...     pool.stats().calls_done
            3.0
            1
        """
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

        Examples:
            >>> with vv.Pool(worker=vv.WorkerOptions(output="discard")) as pool:
            ...     pool.call("builtins:print", "hello")
            ...     print(pool.output(), end="")
            hello
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
        (self._find_named(worker) or self._core.staff.find(worker, is_to_end=True)).terminate()  # type: ignore[arg-type]

    def kill(self, worker: int | str) -> None:
        """End one worker at once; a call running on it raises `WorkerCrashed`.

        Args:
            worker: its id or its name.

        Raises:
            LookupError: there is no such worker.
        """
        (self._find_named(worker) or self._core.staff.find(worker)).kill()  # type: ignore[arg-type]

    def _define(self, text: str, place: Any) -> None:
        """Add source text, and where it stands, to the namespace of all workers; waits for one."""
        core = self._core
        core.opening.warm(0)  # then the version of its Python is known
        assert core.env is not None
        check_parses((text, place), core.env.version)
        with core.setup.sources.turn:
            number = len(core.setup.sources.texts) + 1
            call = make_call("venvoy_worker.runtime.sources:add", (number, text, place), {})
            call.name = f"define({text[:60]!r})"  # what errors name is what was called
            core.calls.run(call)
            _spread((text, place), [core, *self._named.all().values()])

    def _begin_shutdown(self, cancel_futures: bool) -> list[Core]:
        """Take no more calls; return what is to be waited for."""
        self._ledger.end()
        self._core.shutdown(False, cancel_futures)
        named = list(self._named.all().values())  # looked for now: no more are made
        for core in named:
            core.shutdown(False, cancel_futures)
        return [self._core, *named]

    def _begin_close(self) -> list[Core]:
        """Take no more calls and fail those that wait; return what is to be closed."""
        self._ledger.end()
        self._core.staff.stop()
        cores = [*self._named.all().values(), self._core]  # looked for now: no more are made
        for core in cores:
            core.staff.stop()
        return cores

    def _find_named(self, worker: int | str | None) -> NamedWorker | None:
        if isinstance(worker, str):
            return self._named.find(worker)
        return None if worker is None else self._named.find_by_id(worker)

    def __repr__(self) -> str:
        stats = self.stats()
        return f"<venvoy.{type(self).__name__} {stats.name!r} {stats.phase}, {sum(stats.workers.values())} workers>"


def _drop(core: Core, named: NamedWorkers) -> None:
    drop(core)
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
        sources=Sources(worker.sources),
        expose=options.get("expose") or {},
    )


def _spread(source: Source, cores: Iterable[Core]) -> None:
    """Give a text to all workers of these pools, now and later; it has been tried in one of the first pool's."""
    numbers: dict[int, int] = {}
    for core in cores:
        sources = core.setup.sources
        with core.roster.lock:
            number = numbers.get(id(sources)) or sources.append(source)  # named workers share those of their pool
            numbers[id(sources)] = number
            for worker in core.roster.workers.values():
                for lane in worker.lanes:
                    lane.news.append(news_of(number, source))
