"""Functions and iterators of the host's among the arguments of proxies' methods, and proxies in such functions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import version_of

import venvoy as vv

from .conftest import ENDS

SCRIPT = """
class Model:
    def __init__(self, factor):
        self.factor = factor

    def train(self, on_step, steps=3):
        return [on_step(step) for step in range(steps)]

    def total(self, *iterables):
        return sum(map(sum, iterables)) * self.factor

    def keep(self, function):
        self.function = function

    def use(self):
        return self.function()


def call(function, *args):
    return function(*args)
"""


@pytest.fixture(params=ENDS, ids=version_of)
def models(home: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A script whose functions want functions, in a worker of the oldest and of the newest Python."""
    worker = vv.WorkerOptions(output="discard", grace_period=0.6)
    proxy = vv.run_script(SCRIPT, python=request.param, worker=worker)
    yield proxy
    vv.close(proxy)


def test_a_method_may_be_given_functions_of_the_host(models: Any) -> None:
    """As arguments of calls: they run here, in the thread that waits, and their errors are raised there."""
    model = models.Model(2)
    assert model.train(vv.callback(lambda step: step * 10)) == [0, 10, 20]
    assert model.train(on_step=vv.callback(lambda step: step), steps=1) == [0]
    with pytest.raises(ZeroDivisionError):
        models.call(vv.callback(lambda: 1 / 0))
    assert model.factor == 2


def test_a_method_draws_from_iterators_of_the_host(models: Any) -> None:
    """While it runs; they are closed then."""
    closed = []

    def numbers() -> Any:
        try:
            yield from range(100_000)
        finally:
            closed.append(True)

    source = numbers()
    assert models.Model(2).total((number for number in range(5)), [1]) == 22
    with pytest.raises(TypeError):
        models.Model(2).total(source, 5)
    assert closed == [True]


def test_a_function_that_a_call_was_given_ends_with_it(models: Any) -> None:
    """The object may keep it, and is told so when it uses it; an attribute cannot be set to one."""
    model = models.Model(1)
    model.keep(vv.callback(print))
    with pytest.raises(RuntimeError, match="has ended"):
        model.use()
    with pytest.raises(vv.EncodingError, match="callback"):
        model.function = vv.callback(print)


def test_such_a_function_may_use_objects_of_the_same_worker(models: Any) -> None:
    """They do not wait for the worker, which waits for them."""
    model = models.Model(3)
    assert model.train(vv.callback(lambda step: step * model.factor)) == [0, 3, 6]
    assert models.call(vv.callback(lambda: models.call(vv.callback(lambda: model.factor)))) == 3


def test_a_function_given_to_a_call_of_a_pool_may_use_its_objects(pool: vv.Pool) -> None:
    """In a pool whose only worker has the object, and waits for the function."""
    thing = pool.object("things:Thing")
    thing.number = 5
    view = pool.options(timeout=20)
    assert view.call(ask, vv.callback(lambda: thing.number)) == 5
    assert view.submit(ask, vv.callback(lambda: thing.number)).result() == 5
    with pool.lease() as worker:
        leased = worker.object("things:Thing")
        leased.number = 6
        assert worker.options(timeout=20).call(ask, vv.callback(lambda: (leased.number, thing.number))) == (6, 5)


def test_a_deadline_holds_for_what_is_asked_within(models: Any) -> None:
    """The innermost operation ends at that of the outermost call."""
    with pytest.raises(vv.CallTimeout):
        vv.options(models, timeout=0.3).call(vv.callback(lambda: models.call(vv.callback(__import__("time").sleep), 5)))


def test_calling_each_other_without_end_is_an_error(models: Any) -> None:
    """Before a stack overflows; the worker goes on."""

    def again() -> Any:
        return models.call(vv.callback(again))

    with pytest.raises(RecursionError, match="levels deep"):
        again()
    assert models.Model(1).factor == 1


def ask(function):  # type: ignore[no-untyped-def]
    """Goes to workers as source."""
    return function()
