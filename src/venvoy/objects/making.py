"""Objects that live in workers: making them, and what can be done with their proxies besides using them. Stateless.

`run_script`, `run_module` and `run_object` start a pool of one whose worker lives for the objects in it; `start_object`
makes one on a worker of any pool.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from venvoy_worker.contract import messages
from venvoy_worker.contract.frames import Frame

from ..calling import encode_initializer, make_call, make_operation, make_origin
from ..checks import check_seconds
from ..envs import Env, EnvSpec
from ..errors import WorkerError
from ..exchange import Call
from ..options import CallOptions, Size, Target, WorkerOptions
from ..pool.core import Core, Setup, check_platform, drop
from ..pool.roster import Rules
from ..pool.stats import WorkerInfo, info
from ..workers.worker import Worker
from .proxies import RemoteProxy, make_proxy, operate, options_of, reference_of
from .references import Reference, Residence
from .whereabouts import find_module

_numbers = itertools.count(1)
_UNLIMITED: dict[str, Any] = {"max_calls": None, "max_age": None, "max_rss": None}  # would cost the objects their lives

AnyEnv = EnvSpec | Env | str | os.PathLike[str] | None


# --- in a worker of their own -------------------------------------------------------------------------------------


class Instance:
    """A value that is to live in a worker; made by `instance`."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def instance(value: Any) -> Instance:
    """Have `run_object` send a value, and give a proxy of the copy that then lives in the worker.

    Args:
        value: whatever can travel, a str too, which would be a target otherwise.

    Examples:
        >>> names = vv.run_object(vv.instance(["Ada", "Alan"]))
        >>> names.append("Grace")
        >>> len(names)
        3
        >>> vv.close(names)
    """
    return Instance(value)


def run_script(
    text: str,
    *,
    python: str | os.PathLike[str] | None = None,
    env: AnyEnv = None,
    timeout: float | None = None,
    worker: WorkerOptions | None = None,
) -> Any:
    """Run the text of a script in a worker of its own and return a proxy of its module, whose `__name__` is "__main__".

    The worker ends when the last proxy of an object in it is gone, or with `venvoy.close(proxy)`.

    Args:
        python: the path of an interpreter, or a version such as "3.9", in an environment without packages.
        env: as that of `Pool`; give one of the two, or none for the host's own environment.
        timeout: seconds that the script, and then each operation, may take.
        worker: how the worker is started.

    Raises:
        TypeError, ValueError: an argument is not what is described here.
        WorkerStartError, EnvError: the worker could not be started. Besides these, what the script raises.

    Examples:
        >>> script = vv.run_script("total = 0\\ndef add(n):\\n    global total\\n    total += n")
        >>> script.add(42)
        >>> script.total
        42
        >>> vv.close(script)
    """
    if not isinstance(text, str):
        raise TypeError(f"run_script() takes the text of a script, not {type(text).__name__}")
    return _run(lambda core, options: make_origin("script", (text, "<script>"), options), python, env, timeout, worker)


def run_module(
    name: str,
    path: str | os.PathLike[str] | None = None,
    *,
    python: str | os.PathLike[str] | None = None,
    env: AnyEnv = None,
    timeout: float | None = None,
    worker: WorkerOptions | None = None,
) -> Any:
    """Import a module in a worker of its own and return a proxy of it; the other arguments are those of `run_script`.

    Args:
        name: of the module. Where the host finds it, its file is imported from there, whatever the environment is.
        path: its file, or the folder that has it.

    Raises:
        TargetNotFound: there is no such module, in the host and in the worker's environment. Else as `run_script`.

    Examples:
        >>> calendar = vv.run_module("calendar")
        >>> calendar.setfirstweekday(calendar.SUNDAY)
        >>> calendar.firstweekday()
        6
        >>> vv.close(calendar)
    """
    place = find_module(name, path)
    return _run(lambda core, options: make_origin("module", place, options), python, env, timeout, worker)


def run_object(
    target: Target | Instance,
    /,
    *args: Any,
    python: str | os.PathLike[str] | None = None,
    env: AnyEnv = None,
    timeout: float | None = None,
    worker: WorkerOptions | None = None,
    **kwargs: Any,
) -> Any:
    """Make an object in a worker of its own and return a proxy of it; options as those of `run_script`.

    Args:
        target: a class, or whatever else makes the object, as "module:Class" or itself; or `venvoy.instance(value)`.
        args, kwargs: its arguments.

    Raises:
        TargetNotFound: there is no such module or class. Else as `run_script`.

    Examples:
        >>> letters = vv.run_object("collections:Counter", "banana")
        >>> letters["a"], len(letters)
        (3, 3)
        >>> vv.close(letters)
    """

    def make(core: Core, options: CallOptions) -> Call:
        if isinstance(target, Instance):
            if args or kwargs:
                raise TypeError("run_object(instance(value)) takes no arguments for it")
            return make_origin("instance", (target.value,), options, core.table)
        return make_kept(core, target, args, kwargs, options)

    return _run(make, python, env, timeout, worker)


def _run(
    make: Callable[[Core, CallOptions], Call],
    python: str | os.PathLike[str] | None,
    env: AnyEnv,
    timeout: float | None,
    worker: WorkerOptions | None,
) -> Any:
    if timeout is not None:
        check_seconds("timeout", timeout)
    if worker is not None and not isinstance(worker, WorkerOptions):
        raise TypeError(f"worker is a WorkerOptions(...), not {worker!r}")
    check_platform()
    options = replace(worker or WorkerOptions(), **_UNLIMITED)
    setup = Setup(Rules(is_lone=True, closed_error=WorkerError), encode_initializer(options))
    core = Core(Size(1, 1), f"object-{next(_numbers)}", _environment(python, env), "", options, setup)
    try:
        core.opening.warm(1)
        wanted = CallOptions(timeout=timeout, max_bytes=options.max_message_bytes)
        proxy = start_object(core, make(core, wanted), wanted, on_empty=partial(drop, core))
        reference_of(proxy).is_root = True
        return proxy
    except BaseException:
        core.close(0)
        raise


def _environment(python: str | os.PathLike[str] | None, env: AnyEnv) -> AnyEnv:
    if python is None:
        return env
    if env is not None:
        raise ValueError("give python= or env=, not both")
    if not isinstance(python, str | os.PathLike):
        raise TypeError(f"python is the path of an interpreter or a version, not {python!r}")
    text = os.fspath(python)
    is_version = text[:1].isdigit() and not os.path.exists(text)
    return EnvSpec(python=text) if is_version else EnvSpec.existing(text)


# --- what can be done with a proxy itself -------------------------------------------------------------------------


def value(proxy: Any) -> Any:
    """Return a copy of the object behind a proxy; anything else is returned as it is.

    Raises:
        EncodingError: it cannot travel.
        StaleProxy: it is no more.

    Examples:
        >>> numbers = vv.run_object("builtins:list", [3, 1, 2])
        >>> numbers.sort()
        >>> vv.value(numbers)
        [1, 2, 3]
        >>> vv.close(numbers)
    """
    return operate(proxy, "value") if isinstance(proxy, RemoteProxy) else proxy


def keep(proxy: Any) -> Callable[..., Any]:
    """Return a function that calls a proxy, usually of a method, and gives a proxy of the result, even of a plain one.

    Raises:
        TypeError: it is no proxy.

    Examples:
        >>> words = vv.run_object("builtins:str", "to be or not to be")
        >>> parts = vv.keep(words.split)()
        >>> type(parts).__name__, parts.count("be")
        ('RemoteProxy', 2)
        >>> vv.close(words)
    """
    options, own = options_of(_checked(proxy, "keep")), reference_of(proxy)

    def call(*args: Any, **kwargs: Any) -> Any:
        reference, operation = own.target("__call__")
        call = make_operation(reference, operation, args, kwargs, options, messages.FLAG_KEEP)
        return make_proxy(reference.perform(call), options)

    return call


def close(proxy: Any) -> None:
    """Let go of the object behind a proxy now; that of a `run_...` function ends its worker. Twice is fine.

    Raises:
        TypeError: it is no proxy.

    Examples:
        >>> numbers = vv.run_object("builtins:list", [3, 1, 2])
        >>> vv.close(numbers)
        >>> numbers.sort()
        Traceback (most recent call last):
        venvoy.errors.StaleProxy: ...
    """
    reference = reference_of(_checked(proxy, "close"))
    reference.close("it was closed")
    if reference.is_root:
        reference.residence.core.close(None)


def options(proxy: Any, *, timeout: float | None = None, max_bytes: int | None = None) -> Any:
    """Return another proxy of the same object, whose operations, and those of what comes from them, have these options.

    Args:
        timeout: seconds that an operation may take, waiting for its turn included.
        max_bytes: the most bytes that arguments or a result may take, encoded.

    Raises:
        TypeError: it is no proxy.

    Examples:
        >>> numbers = vv.run_object("builtins:list", [3, 1, 2])
        >>> vv.options(numbers, timeout=30).sort()
        >>> vv.close(numbers)
    """
    wanted = options_of(_checked(proxy, "options")).replaced(
        timeout=timeout, max_bytes=max_bytes, kill_on_exception=False
    )
    return make_proxy(reference_of(proxy), wanted)


def worker_info(proxy: Any) -> WorkerInfo:
    """Return a snapshot of the worker in which the object of a proxy lives; also once it is gone.

    Raises:
        TypeError: it is no proxy.

    Examples:
        >>> numbers = vv.run_object("builtins:list", [3, 1, 2])
        >>> vv.worker_info(numbers).state
        'idle'
        >>> vv.close(numbers)
    """
    residence = reference_of(_checked(proxy, "worker_info")).residence
    return info(residence.worker, residence.core.setup.label)


def _checked(proxy: Any, what: str) -> Any:
    if not isinstance(proxy, RemoteProxy):
        raise TypeError(f"{what}() takes a proxy of an object in a worker, not {type(proxy).__name__}")
    return proxy


# --- how objects come to be ---------------------------------------------------------------------------------------


def start_object(
    core: Core, call: Call, options: CallOptions, owner: object = None, on_empty: Callable[[], object] | None = None
) -> Any:
    """Run a call on any worker of a pool and return a proxy of its result, which stays there.

    Args:
        call: with FLAG_KEEP, or on nobody's object.
        options: of the operations on it.
        owner: what the proxy, and those that come from it, keep alive.
        on_empty: called on the collector thread when the last object there was released.

    Raises:
        As `Pool.call`.
    """
    found: list[Reference] = []

    def settle_in(worker: Worker, frame: Frame) -> None:
        found.append(_open(residence_of(core, worker, on_empty), frame, owner))

    while True:
        frame = core.pinned.start(call, settle_in)
        if found:
            return make_proxy(found[0], _of_operations(options))
        error = core.decoder.outcome(frame)[1]
        assert error is not None
        if not call.may_repeat(error):
            raise error


def residence_of(core: Core, worker: Worker, on_empty: Callable[[], object] | None = None) -> Residence:
    """Return what knows the objects of a worker that anybody may use."""
    residence: Residence | None = worker.residence
    if residence is None or residence.why:
        worker.tenants = set()
        run = partial(core.pinned.run, worker)
        residence = worker.residence = Residence(core, worker, run, worker.tenants, on_empty or core.attend)
    return residence


def object_on(residence: Residence, call: Call, options: CallOptions, owner: object = None) -> Any:
    """Run a call where other objects live already, or may live, and return a proxy of its result, which stays there.

    Raises:
        As `Pool.call`; `StaleProxy` where the worker is gone.
    """
    reference: Reference = residence.perform(call, None)
    reference.owner = owner
    return make_proxy(reference, _of_operations(options))


def make_kept(core: Core, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions) -> Call:
    """Return a call whose result stays in the worker.

    Raises:
        As `make_call`.
    """
    call = make_call(target, args, kwargs, options, core.table)
    call.flags |= messages.FLAG_KEEP
    return call


def _open(residence: Residence, frame: Frame, owner: object) -> Reference:
    described, error = residence.core.decoder.outcome(frame)
    if error is not None:
        raise error
    reference = residence.adopt(described)
    reference.owner = owner
    return reference


def _of_operations(options: CallOptions) -> CallOptions:
    """Return the options of operations; what an operation raises, even a missing attribute, must not end the worker."""
    return CallOptions(timeout=options.timeout, max_bytes=options.max_bytes, kill_on_exception=False)
