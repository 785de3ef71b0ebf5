"""Every exception venvoy raises, in one tree; this module imports nothing of ours.

Each class says who is to blame and when you meet it, and has a stable `code` for programs.
Classes that extend a builtin's meaning inherit it too: a `CallTimeout` is a `TimeoutError`.
"""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import Any


class VenvoyError(Exception):
    """Base of all errors raised by venvoy itself; catch it to catch everything of ours."""

    code = "venvoy_error"


class ConfigError(VenvoyError, ValueError):
    """A configuration file cannot be read or understood; the message names the file, the key and what was expected."""

    code = "config_error"


# --- environments -----------------------------------------------------------------------------


class EnvError(VenvoyError):
    """An environment is described wrongly or cannot be used; fix the `EnvSpec`."""

    code = "env_error"


class EnvBuildError(EnvError):
    """The installer failed; the message ends with the installer's own words.

    `output` holds the whole of what it said.
    """

    code = "env_build_failed"

    def __init__(self, message: str, *, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class InterpreterNotFound(EnvError, LookupError):
    """No interpreter of the wanted version is on this machine; the message lists what is."""

    code = "interpreter_not_found"


# --- pools ------------------------------------------------------------------------------------


class PoolError(VenvoyError):
    """The pool as a whole cannot take this call."""

    code = "pool_error"


class PoolClosed(PoolError, RuntimeError):
    """The pool was closed, or belongs to another process (after `os.fork`)."""

    code = "pool_closed"


class TooManyWaiting(PoolError):
    """The pool's waiting queue is full, or no worker is free within `queue_timeout`."""

    code = "too_many_waiting"


class NestedTooDeeply(PoolError, RecursionError):
    """Functions of the host's, called by a worker, call the pool, whose worker calls them, more than 16 levels deep."""

    code = "nested_too_deeply"


# --- detached calls ---------------------------------------------------------------------------


class UnknownCall(VenvoyError, LookupError):
    """There is no detached call of that id: its result was taken by somebody else, it expired, or it never was."""

    code = "unknown_call"


class ResultNotReady(VenvoyError, TimeoutError):
    """A detached call has not finished yet; it goes on, and can be asked for again."""

    code = "result_not_ready"


class CallStoreError(VenvoyError):
    """A call store cannot keep or give what it should: a full disk, a locked or damaged file, one of a newer venvoy."""

    code = "call_store_failed"


# --- workers ----------------------------------------------------------------------------------


class WorkerError(VenvoyError):
    """Something happened to the one worker that served this call; other calls are untouched."""

    code = "worker_error"


class WorkerStartError(WorkerError):
    """A worker did not become ready: a failing import, an exit, a time-out, a limit of the system.

    `output` is what the process printed, `remote_traceback` the Python traceback where there is one (of a start that
    took too long: where it was), `exit_status` / `signal` how it ended where it ended, `python_stack` where it crashed,
    `oom_hint` what speaks for a lack of memory.

    Examples:
        >>> try:
        ...     vv.Pool(worker=vv.WorkerOptions(initializer="builtins:int", initializer_args=("x",))).warm()
        ... except vv.WorkerStartError as error:
        ...     print(error.remote_traceback.splitlines()[-1])
        ValueError: invalid literal for int() with base 10: 'x'
    """

    code = "worker_start_failed"

    def __init__(
        self,
        message: str,
        *,
        output: str = "",
        remote_traceback: str = "",
        exit_status: int | None = None,
        signal: int | None = None,
        python_stack: str = "",
        oom_hint: str = "",
    ) -> None:
        super().__init__(message)
        self.output = output
        self.remote_traceback = remote_traceback
        self.exit_status = exit_status
        self.signal = signal
        self.python_stack = python_stack
        self.oom_hint = oom_hint


class WorkerCrashed(WorkerError):
    """The worker process ended while it served this call.

    `exit_status` (None where unknown or killed by a signal), `signal` (a member of `signal.Signals`, so both number
    and name; None where it was none), `started` (False: the call's code never ran), `target`, `output_tail` (text of
    both streams), `python_stack` (where the code was when a fatal signal struck, "" where unknown), `oom_hint` (what
    speaks for a lack of memory, "" for nothing), `pid`, `environment` (key of the worker's environment), `reason`:
    "CRASHED", "KILLED" (by `Pool.kill` or `terminate`), or another name of `venvoy.workers.state.Reason`; `collateral`
    (True: the worker ran several calls, and was ended because another one did not stop in time).

    Examples:
        >>> with vv.Pool() as pool:
        ...     try:
        ...         pool.call("os:abort")
        ...     except vv.WorkerCrashed as error:
        ...         print(error.signal.name, error.target)
        SIGABRT os:abort
    """

    code = "worker_crashed"

    def __init__(
        self,
        message: str,
        *,
        pid: int | None = None,
        exit_status: int | None = None,
        signal: int | None = None,
        started: bool = True,
        target: str = "",
        output_tail: str = "",
        python_stack: str = "",
        oom_hint: str = "",
        environment: str = "",
        reason: str = "CRASHED",
        collateral: bool = False,
    ) -> None:
        super().__init__(message)
        self.pid = pid
        self.exit_status = exit_status
        self.signal = signal
        self.started = started
        self.target = target
        self.output_tail = output_tail
        self.python_stack = python_stack
        self.oom_hint = oom_hint
        self.environment = environment
        self.reason = reason
        self.collateral = collateral


class CallTimeout(WorkerError, TimeoutError):
    """The call's deadline passed; its worker is cancelled, or ended, behind the caller's back."""

    code = "call_timeout"


class CallCancelled(WorkerError, CancelledError):
    """The call was running and was stopped by `CallFuture.cancel()`."""

    code = "call_cancelled"


class StaleProxy(WorkerError, ReferenceError):
    """The object behind a proxy is no more: it was closed, or its worker ended; the message says why."""

    code = "stale_proxy"


# --- single calls -----------------------------------------------------------------------------


class TargetNotFound(VenvoyError, LookupError):
    """The worker's environment has no such module or attribute; close names are suggested."""

    code = "target_not_found"


class EncodingError(VenvoyError, TypeError):
    """An argument or a result cannot travel between the processes; only that call fails."""

    code = "encoding_error"


class MessageTooLarge(EncodingError, ValueError):
    """Arguments or a result take more bytes than `max_bytes` allows; `size` and `limit` say how many.

    Nothing of it was sent; the worker goes on.

    Examples:
        >>> with vv.Pool() as pool:
        ...     try:
        ...         pool.options(max_bytes=1000).call("builtins:len", bytes(5000))
        ...     except vv.MessageTooLarge as error:
        ...         print(error.limit, error.size > 5000)
        1000 True
    """

    code = "message_too_large"

    def __init__(self, message: str, *, size: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit


class ProtocolError(VenvoyError):
    """The bytes on a channel are not what docs/protocol.md allows; a defect, or a foreign writer."""

    code = "protocol_error"


class RemoteError(VenvoyError):
    """An exception of the worker whose class cannot be rebuilt here.

    Instances belong to a subclass that also inherits the nearest builtin base, so that
    `except ValueError` works. `type_name` is the full name of the class in the worker,
    `remote_args` its plain arguments (their `repr` where an argument is not plain).

    Examples:
        >>> with vv.Pool() as pool:
        ...     try:
        ...         pool.exec("raise type('Refused', (ValueError,), {})('no', 7)")
        ...     except ValueError as error:
        ...         print(isinstance(error, vv.RemoteError), error.remote_args)
        True ('no', 7)
    """

    code = "remote_error"

    def __init__(self, message: str = "", *, type_name: str = "", remote_args: tuple[object, ...] = ()) -> None:
        super().__init__(message)
        self.type_name = type_name
        self.remote_args = remote_args

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else self.type_name


class RemoteTraceback(VenvoyError):
    """The traceback as text, from the worker; the `__cause__` of an error raised there."""

    code = "remote_traceback"

    def __str__(self) -> str:
        return f"\n\n{self.args[0] if self.args else ''}"


# --- feeding commands ---------------------------------------------------------------------------


class SwarmError(VenvoyError):
    """A swarm of fed commands could not do its work; the message lists what became of each process.

    `processes` has a `venvoy.feed.ProcessReport` for each: status or signal, items and bytes written per channel,
    the end of its stderr. The items that no process received whole are in `Swarm.undelivered`.

    Examples:
        >>> from venvoy.feed import Swarm
        >>> try:
        ...     with Swarm(["false"]) as swarm:
        ...         swarm.end_input()
        ... except vv.SwarmError as error:
        ...     print(error.processes[0].status)
        1
    """

    code = "swarm_failed"

    def __init__(self, message: str, *, processes: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.processes = processes


class SwarmClosed(SwarmError, RuntimeError):
    """The swarm takes no items: it was closed, was never started, or belongs to another process (after `os.fork`)."""

    code = "swarm_closed"


class FeedStalled(SwarmError, TimeoutError):
    """Input waits and is not taken; the message names the process and the channel.

    `process_id` and `channel` are those, None where all processes are meant.

    Examples:
        >>> from venvoy.feed import Swarm
        >>> try:
        ...     with Swarm(["sleep", "60"], grace_period=0.1) as swarm:
        ...         swarm.feed_many([bytes(1 << 20)] * 100, timeout=0.1)
        ... except vv.FeedStalled as error:
        ...     print(error.code)
        feed_stalled
    """

    code = "feed_stalled"

    def __init__(
        self,
        message: str,
        *,
        processes: tuple[Any, ...] = (),
        process_id: int | None = None,
        channel: str | None = None,
    ) -> None:
        super().__init__(message, processes=processes)
        self.process_id = process_id
        self.channel = channel
