"""`pool.detached`: calls that outlive whoever started them, known by an id that can be written down. Stateless."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..calling import make_call
from ..checks import check_seconds
from ..exchange import Convert
from ..options import CallOptions, Target
from ..pool.core import Core
from ..values.returns import converter
from .ledger import Ledger
from .store import DetachedCall


@dataclass(frozen=True, slots=True)
class Peek:
    """What a detached call has come to, as `pool.detached.peek` sees it.

    Args:
        state: "pending", "value" or "error".
        value: its result, where it has one.
        error: what it raised, where it did.
    """

    state: Literal["pending", "value", "error"]
    value: Any = None
    error: BaseException | None = None


class DetachedCalls:
    """Starts, awaits and stops calls that nobody needs to wait for; made by `Pool.detached`.

    A call is known by its id, a str; whoever has it can fetch the result, once. With a `SqliteCallStore` that may be
    another process. Of the options of a view, `returns` is that of whoever fetches; all others are those of `start`.
    """

    def __init__(self, pool: object, core: Core, ledger: Ledger, options: CallOptions) -> None:
        self._pool = pool  # keeps it alive
        self._core = core
        self._ledger = ledger
        self._options = options

    def start(self, target: Target, /, *args: Any, **kwargs: Any) -> str:
        """Let a target be run in a worker, and return the id of the call at once.

        Args:
            target: what to run, as in `Pool.call`. All other arguments are the target's own.

        Raises:
            TypeError, ValueError: the target is none.
            EncodingError: an argument cannot travel.
            PoolClosed, TooManyWaiting: the pool takes no calls, or not so many.
            CallStoreError: the call cannot be kept.

        Examples:
            >>> with vv.Pool() as pool:
            ...     id = pool.detached.start("math:sqrt", 9.0)
            ...     pool.detached.result(id)
            3.0
        """
        return self._ledger.start(make_call(target, args, kwargs, self._options, self._core.table))

    def result(self, id: str, timeout: float | None = None) -> Any:
        """Wait for the result of a call and return it; the call is forgotten then.

        A result, or what the call raised, is given once. Everything else leaves the call as it is, and this can be
        called again: a time-out, Ctrl-C, a result that cannot be decoded here.

        Args:
            id: what `start` returned.
            timeout: seconds to wait; None waits for as long as it takes. For a call that another process runs, the
                store is looked into up to four times a second.

        Raises:
            ResultNotReady: it has not finished.
            UnknownCall: there is no such call, or its result was fetched by somebody else, or it has expired.
            EncodingError: the result cannot be decoded here, or is not what `options(returns=)` says.
            PoolClosed: the pool was closed before it was done.
            CallStoreError: the store cannot be read.
            WorkerCrashed, CallTimeout, CallCancelled: of the call. Besides these, whatever the target raises.

        Examples:
            >>> with vv.Pool() as pool:
            ...     id = pool.detached.start("math:sqrt", 9.0)
            ...     pool.detached.result(id, timeout=30)
            3.0
        """
        if timeout is not None:
            check_seconds("timeout", timeout)
        return self._ledger.result(id, timeout, self._convert(id))

    def peek(self, id: str) -> Peek:
        """Return what a call has come to, without waiting for it and without taking it.

        Args:
            id: what `start` returned.

        Raises:
            UnknownCall: there is no such call.
            CallStoreError: the store cannot be read.

        Examples:
            >>> with vv.Pool() as pool:
            ...     id = pool.detached.start("time:sleep", 60)
            ...     pool.detached.peek(id).state
            ...     pool.detached.cancel(id)
            'pending'
            True
        """
        is_done, value, error = self._ledger.look(id, self._convert(id))
        if not is_done:
            return Peek("pending")
        return Peek("value", value) if error is None else Peek("error", error=error)

    def cancel(self, id: str) -> bool:
        """Stop a call; `result` raises `CallCancelled` then.

        Args:
            id: what `start` returned.

        Returns:
            False if it has finished already, or is run by another process.

        Raises:
            UnknownCall: there is no such call.
            CallStoreError: the store cannot be read.

        Examples:
            >>> with vv.Pool() as pool:
            ...     id = pool.detached.start("time:sleep", 60)
            ...     pool.detached.cancel(id)
            True
        """
        return self._ledger.cancel(id)

    def list(self) -> Sequence[DetachedCall]:
        """Return the calls whose results have not been fetched, the oldest first.

        Raises:
            CallStoreError: the store cannot be read.

        Examples:
            >>> with vv.Pool() as pool:
            ...     id = pool.detached.start("math:sqrt", 9.0)
            ...     [call.target for call in pool.detached.list()]
            ['math:sqrt']
        """
        return self._ledger.entries()

    def _convert(self, id: str) -> Convert | None:
        return None if self._options.returns is None else converter(self._options.returns, f"detached call {id}")
