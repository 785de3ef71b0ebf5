"""`@isolated`: functions of this file that run in another Python."""

from __future__ import annotations

import asyncio
import functools
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv
from venvoy import isolation

FACTOR = 3
TABLE = {"a": [1, 2]}
OPTIONS: dict[str, Any] = {"workers": 1, "worker": vv.WorkerOptions(output="discard", grace_period=0.6)}


@pytest.fixture(scope="module")
def elsewhere(interpreters: list[str], home: Path, patience: float) -> Iterator[str]:
    """The oldest Python of the machine; the pools of the functions of a test are ended after all."""
    yield interpreters[0]
    for pool in isolation._pools.values():
        pool.close(patience)
    isolation._pools.clear()


@pytest.fixture(scope="module")
def here(elsewhere: str) -> Callable[..., Any]:
    """The decorator, with its pool begun, so that its threads are not left behind by a test."""
    decorate = vv.isolated(elsewhere, **OPTIONS)
    decorate(version).submit().result(30)
    return decorate


def version() -> tuple[int, ...]:
    import sys

    return tuple(sys.version_info[:2])


def scaled(x: int, *, by: int = FACTOR) -> int:
    """Multiply."""
    return x * by + len(TABLE["a"])


def factorial(n: int) -> int:
    return 1 if n < 2 else n * factorial(n - 1)


@functools.lru_cache(maxsize=None)  # noqa: UP033 - it goes to Python 3.8
def fibonacci(n: int) -> int:
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


class Model:
    def __init__(self, weight: int) -> None:
        self.weight = weight


@vv.isolated(sys.executable)
def at_the_top() -> None: ...


def test_it_runs_in_the_other_environment(here: Any, interpreters: list[str]) -> None:
    """By a call, as a future, for many arguments."""
    function = here(version)
    assert function() == function.submit().result(20)
    assert f"{function()[0]}.{function()[1]}" in interpreters[0] or interpreters[0] == sys.executable
    assert list(here(scaled).map([1, 2, 3])) == [5, 8, 11]


def test_defaults_and_globals_travel(here: Any) -> None:
    """Plain values of the module, as they are when it is called."""
    assert here(scaled)(2) == 8
    assert here(scaled)(2, by=10) == 22


def test_it_looks_like_the_function(here: Any) -> None:
    """Name, text, signature, and the function itself."""
    function = here(scaled)
    assert (function.__name__, function.__doc__) == ("scaled", "Multiply.")
    assert function.__wrapped__ is scaled
    assert function.__wrapped__(1) == 5


def test_closures_over_plain_values_travel(here: Any) -> None:
    """Each with its own values."""

    def make(k: int) -> Any:
        @here
        def inner(x: int) -> int:
            return x * k + FACTOR

        return inner

    assert (make(10)(2), make(20)(2)) == (23, 43)


def test_a_function_may_call_itself(here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the worker, where its name means the plain function."""
    monkeypatch.setitem(globals(), "factorial", here(factorial))
    assert factorial(10) == 3628800


def test_decorators_below_go_with_it(here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the cache this would take longer than the universe is old."""
    monkeypatch.setitem(globals(), "fibonacci", here(fibonacci))
    assert fibonacci(90) == 2880067194370816120


def test_decorators_above_run_here(here: Any) -> None:
    """Around the call."""
    seen = []

    def logged(function: Any) -> Any:
        @functools.wraps(function)
        def inner(*args: Any) -> Any:
            seen.append((os.getpid(), args))
            return function(*args)

        return inner

    @logged
    @here
    def pid(x: int) -> int:
        import os

        return os.getpid()

    assert pid(1) != os.getpid()
    assert seen == [(os.getpid(), (1,))]
    assert pid.__name__ == "pid"


def test_methods_get_the_attributes_of_their_object(here: Any) -> None:
    """As a record, whose changes stay in the worker; static methods get nothing."""

    class Scale:
        __slots__ = ("__dict__", "slot")

        def __init__(self, k: int) -> None:
            self.k = k
            self.slot = 100

        @here
        def times(self, x: int) -> int:
            self.k += 1
            return self.k * x + self.slot

        @staticmethod
        @here
        def plus(x: int) -> int:
            return x + 1

    scale = Scale(2)
    assert scale.times(5) == 115
    assert scale.times.submit(5).result(20) == 115
    assert list(scale.times.map([1, 2])) == [103, 106]
    assert scale.k == 2
    assert (scale.plus(1), Scale.plus(2)) == (2, 3)
    assert scale.times.__name__ == "times"


def test_it_can_be_awaited(here: Any, tmp_path: Path) -> None:
    """Many at once; whoever is cancelled stops its call."""

    @here
    def sleep(path: str, seconds: float) -> str:
        import time

        open(path, "w").close()
        time.sleep(seconds)
        return path

    async def run() -> None:
        assert await asyncio.gather(*(here(scaled).aio(n) for n in range(5))) == [2, 5, 8, 11, 14]
        task = asyncio.ensure_future(sleep.aio(str(tmp_path / "began"), 60))
        while not (tmp_path / "began").exists():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.wait_for(here(scaled).aio(1), 20) == 5  # its only worker is free again

    asyncio.run(run())


def test_it_can_be_the_main_coroutine(here: Any) -> None:
    """Of `asyncio.run`, and of a task."""
    assert asyncio.run(here(scaled).aio(2)) == scaled(2)


def test_it_can_be_pickled_by_its_name() -> None:
    """As a function can."""
    assert pickle.loads(pickle.dumps(at_the_top)) is at_the_top


def test_errors_are_those_of_the_function(here: Any) -> None:
    """With the line of this file in the traceback."""

    @here
    def fails() -> None:
        raise KeyError("of the function")

    with pytest.raises(KeyError, match="of the function") as caught:
        fails()
    assert "test_isolation.py" in str(caught.value.__cause__)


def test_functions_of_one_environment_share_its_pool(here: Any, elsewhere: str) -> None:
    """Whoever asks for other workers gets others; a pool that was closed is replaced."""
    assert here(version).pool is vv.isolated(elsewhere, **OPTIONS)(scaled).pool
    other = vv.isolated(elsewhere, workers=2)(version)
    assert other.pool is not here(version).pool
    other()
    other.close(0)
    assert other()
    other.close(0)


def test_packages_make_an_environment(home: Path) -> None:
    """Described as by `EnvSpec`; it is built at the first call."""

    @vv.isolated(packages=["no-such-package-at-all==1"], offline=True, pool={"home": home})
    def never() -> None: ...

    with pytest.raises(vv.EnvBuildError):
        never()
    never.close(0)


def test_wrong_uses_are_refused() -> None:
    """Where they are written."""
    for kind in (staticmethod, classmethod, property):
        with pytest.raises(TypeError, match=f"write @{kind.__name__} above @isolated"):
            vv.isolated(python="3")(kind(version))

    class Owner:
        @classmethod
        @vv.isolated(sys.executable)
        def make(cls) -> None: ...

    with pytest.raises(TypeError, match="make it a @staticmethod"):
        Owner.make()
    with pytest.raises(TypeError, match="where"):
        vv.isolated(version)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not both"):
        vv.isolated(sys.executable, packages=["numpy"])
    with pytest.raises(vv.EncodingError):
        vv.isolated(python="3")(len)
    with pytest.raises(vv.EnvError):
        vv.isolated(python="nonsense")
