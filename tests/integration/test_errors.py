"""The exception tree: every class has a stable code, is importable from `venvoy`, and extends the builtin it is."""

from __future__ import annotations

import concurrent.futures
import inspect
import pickle

import pytest

import venvoy as vv
from venvoy import errors

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, BaseException) and value.__module__ == errors.__name__
]
CODES = {
    "CallCancelled": "call_cancelled",
    "CallStoreError": "call_store_failed",
    "CallTimeout": "call_timeout",
    "ConfigError": "config_error",
    "EncodingError": "encoding_error",
    "EnvBuildError": "env_build_failed",
    "EnvError": "env_error",
    "FeedStalled": "feed_stalled",
    "InterpreterNotFound": "interpreter_not_found",
    "MessageTooLarge": "message_too_large",
    "NestedTooDeeply": "nested_too_deeply",
    "PoolClosed": "pool_closed",
    "PoolError": "pool_error",
    "ProtocolError": "protocol_error",
    "RemoteError": "remote_error",
    "RemoteTraceback": "remote_traceback",
    "ResultNotReady": "result_not_ready",
    "StaleProxy": "stale_proxy",
    "SwarmClosed": "swarm_closed",
    "SwarmError": "swarm_failed",
    "TargetNotFound": "target_not_found",
    "TooManyWaiting": "too_many_waiting",
    "UnknownCall": "unknown_call",
    "VenvoyError": "venvoy_error",
    "WorkerCrashed": "worker_crashed",
    "WorkerError": "worker_error",
    "WorkerStartError": "worker_start_failed",
}


def test_every_error_has_the_code_it_always_had() -> None:
    """Programs compare codes, so they never change; a new class gets a new code here."""
    assert {cls.__name__: cls.code for cls in CLASSES} == CODES
    assert len(set(CODES.values())) == len(CODES)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_is_a_venvoy_error_that_can_be_imported(cls: type[errors.VenvoyError]) -> None:
    """From the package itself, with a docstring of its own and a code of its own."""
    assert issubclass(cls, vv.VenvoyError)
    assert getattr(vv, cls.__name__) is cls
    assert cls.__name__ in vv.__all__
    assert cls.__dict__["__doc__"]
    assert "code" in cls.__dict__


@pytest.mark.parametrize(
    ("cls", "parents"),
    [
        (vv.EnvBuildError, (vv.EnvError,)),
        (vv.InterpreterNotFound, (vv.EnvError, LookupError)),
        (vv.PoolClosed, (vv.PoolError, RuntimeError)),
        (vv.TooManyWaiting, (vv.PoolError,)),
        (vv.WorkerStartError, (vv.WorkerError,)),
        (vv.WorkerCrashed, (vv.WorkerError,)),
        (vv.CallTimeout, (vv.WorkerError, TimeoutError, concurrent.futures.TimeoutError)),
        (vv.CallCancelled, (vv.WorkerError, concurrent.futures.CancelledError)),
        (vv.TargetNotFound, (LookupError,)),
        (vv.EncodingError, (TypeError,)),
        (vv.MessageTooLarge, (vv.EncodingError, ValueError)),
    ],
    ids=lambda value: value.__name__ if inspect.isclass(value) else "",
)
def test_errors_extend_the_builtin_whose_meaning_they_have(
    cls: type[Exception], parents: tuple[type[Exception], ...]
) -> None:
    """So that code which knows nothing of venvoy catches them."""
    assert all(issubclass(cls, parent) for parent in parents)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_errors_can_be_made_shown_and_pickled(cls: type[errors.VenvoyError]) -> None:
    """As loggers, test runners and other pools do."""
    error = cls("what happened")
    assert "what happened" in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.code) == (cls, str(error), cls.code)


def test_the_facts_of_an_error_survive_pickling() -> None:
    """Attributes too, keyword arguments of the constructor or not."""
    error = vv.WorkerCrashed("gone", pid=5, signal=9, started=False, target="a:b", output_tail="tail")
    copy = pickle.loads(pickle.dumps(error))
    assert vars(copy) == vars(error)


def test_a_program_can_tell_apart_what_happened_to_a_call(home: object) -> None:
    """One `except vv.VenvoyError` and the code, for each outcome of a real pool."""
    seen = []
    with vv.Pool(workers=1, worker=vv.WorkerOptions(output="discard", grace_period=0.5)) as pool:
        for view, target, args in [
            (pool, "no_such_module:f", ()),
            (pool, "os:_exit", (3,)),
            (pool.options(timeout=0.1), "time:sleep", (60,)),
            (pool, "threading:Lock", ()),
        ]:
            try:
                view.call(target, *args)
            except vv.VenvoyError as error:
                seen.append(error.code)
    try:
        pool.call("math:sqrt", 4)
    except vv.VenvoyError as error:
        seen.append(error.code)
    assert seen == ["target_not_found", "worker_crashed", "call_timeout", "encoding_error", "pool_closed"]
