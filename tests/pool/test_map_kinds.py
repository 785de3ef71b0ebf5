"""`map` as completed and with errors as results; `map_kwargs`; `call_many`."""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]
Make = Callable[..., Iterator[Any]]


@pytest.fixture
def pool(make_pool: MakePool) -> vv.Pool:
    """Two workers."""
    return make_pool(workers=2)


def counted(drawn: list[int]) -> Iterator[int]:
    """Count without end, and note what was drawn."""
    for n in itertools.count():
        drawn.append(n)
        yield n


# --- as completed -----------------------------------------------------------------------------------------------------


def test_what_is_done_first_comes_first(pool: vv.Pool, tmp_path: Path) -> None:
    """A slow item holds up nobody when order does not matter."""
    go = tmp_path / "go"
    results = pool.map("poolwork:wait_for", [str(go), __file__, __file__, __file__], ordered=False, chunksize=1)
    assert [next(results), next(results), next(results)] == [None] * 3
    go.touch()
    assert list(results) == [None]


def test_each_result_comes_once_in_whatever_order(pool: vv.Pool) -> None:
    """With chunks that grow by themselves too."""
    assert sorted(pool.map("poolwork:double", range(5000), ordered=False)) == [2 * n for n in range(5000)]
    assert sorted(pool.map("poolwork:double", range(50), ordered=False, buffersize=7)) == [2 * n for n in range(50)]


def test_a_result_that_comes_too_late_is_a_timeout_in_any_order(pool: vv.Pool, is_settled: Callable[..., None]) -> None:
    """What is done is yielded before; the rest is cancelled."""
    results = pool.map("poolwork:nap", [60, 0, 60], ordered=False, chunksize=1, timeout=1.0)
    assert next(results) is None
    with pytest.raises(vv.CallTimeout):
        next(results)
    is_settled(pool)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("leave", ["close", "drop", "break"])
def test_leaving_early_cancels_what_runs_and_what_waits(
    pool: vv.Pool, is_settled: Callable[..., None], leave: str, ordered: bool
) -> None:
    """However it is left, workers are free again soon, and a window at most was drawn."""
    drawn: list[int] = []
    naps = itertools.chain([0] * 10, itertools.repeat(60))
    results = pool.map("poolwork:nap", naps, counted(drawn), ordered=ordered, chunksize=1)
    assert sorted(itertools.islice(results, 10)) == list(range(10))
    assert len(drawn) <= 10 + 4
    if leave == "close":
        results.close()  # type: ignore[attr-defined]
    elif leave == "break":
        for _ in itertools.chain([0], results):
            break
    del results
    gc.collect()
    is_settled(pool, seconds=5)


# --- errors as results ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"chunksize": 4}, {"chunksize": 20}, {"buffersize": 3}])
def test_an_error_is_the_result_of_its_item_and_the_others_are_run(pool: vv.Pool, options: dict[str, int]) -> None:
    """Inside a chunk as between chunks."""
    results = list(pool.map("poolwork:fails_on", range(20), itertools.repeat(6), return_exceptions=True, **options))
    assert isinstance(results[6], KeyError)
    assert results[6].args == (6,)
    assert results[6].__cause__ is not None
    assert [result for result in results if result is not results[6]] == [n for n in range(20) if n != 6]


def test_several_errors_of_one_chunk_are_in_their_places(pool: vv.Pool) -> None:
    """Also those of functions shipped as source, whose items are single arguments."""
    results = list(pool.map(vv.by_source(fail_if_odd), range(10), chunksize=10, return_exceptions=True))
    assert [n if isinstance(result, ValueError) else result for n, result in enumerate(results)] == list(range(10))
    assert [str(result) for result in results[1::2]] == ["1", "3", "5", "7", "9"]


def fail_if_odd(n: int) -> int:
    """Raise for odd numbers."""
    if n % 2:
        raise ValueError(str(n))
    return n


def test_values_that_cannot_travel_are_errors_of_their_items(pool: vv.Pool) -> None:
    """Results, and arguments, whatever they are sent together with."""
    results = list(pool.map(vv.by_source(lock_if_two), range(5), chunksize=5, return_exceptions=True))
    assert [type(result) for result in results] == [int, int, vv.EncodingError, int, int]
    items = [1, threading.Lock(), 3, threading.Lock()]
    results = list(pool.map("poolwork:double", items, chunksize=4, return_exceptions=True))
    assert results[::2] == [2, 6]
    assert [type(result) for result in results[1::2]] == [vv.EncodingError] * 2


def lock_if_two(n: int) -> Any:
    """Return what cannot be pickled for one of the numbers."""
    return threading.Lock() if n == 2 else n


def test_results_that_are_not_what_was_asked_for_are_errors_of_their_items(pool: vv.Pool) -> None:
    """options(returns=) and options(max_bytes=) speak of each item."""
    view = pool.options(returns=int)
    results = list(view.map("poolwork:nap", [0] * 3, [1, "x", 3], chunksize=3, return_exceptions=True))
    assert results[::2] == [1, 3]
    assert isinstance(results[1], vv.EncodingError)
    view = pool.options(max_bytes=1000)
    results = list(view.map("poolwork:size_of", [b""] * 3, [1, 5000, 3], chunksize=3, return_exceptions=True))
    assert results[::2] == [(0, b"r"), (0, b"rrr")]
    assert isinstance(results[1], vv.MessageTooLarge)


def test_crashes_and_deadlines_are_results_too(pool: vv.Pool) -> None:
    """One item's worker dies, another's is stopped; the others are served."""
    results = list(pool.map(vv.by_source(die_if_two), range(5), chunksize=1, return_exceptions=True))
    assert isinstance(results[2], vv.WorkerCrashed)
    assert [results[n] for n in (0, 1, 3, 4)] == [0, 1, 3, 4]
    view = pool.options(timeout=1.0)
    late = list(view.map("poolwork:nap", [0, 60], ["a", "b"], return_exceptions=True))
    assert late[0] == "a"
    assert isinstance(late[1], vv.CallTimeout)


def die_if_two(n: int) -> int:
    """End the worker for one of the numbers."""
    import os

    if n == 2:
        os._exit(7)
    return n


def test_a_pool_that_can_make_no_call_ends_the_iteration(make_pool: MakePool) -> None:
    """Else an infinite input would give its error without end."""
    pool = make_pool(module="poolwork_broken", workers=1)
    with pytest.raises(vv.WorkerStartError):
        next(pool.map("poolwork:double", itertools.count(), return_exceptions=True))
    pool.close(0)
    with pytest.raises(vv.PoolClosed):
        next(pool.map("poolwork:double", itertools.count(), return_exceptions=True))


# --- keywords ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"chunksize": 3}, {"ordered": False, "chunksize": 1}])
def test_dicts_are_keyword_arguments(pool: vv.Pool, options: dict[str, Any]) -> None:
    """Each item of `map_kwargs` is one call's."""
    results = pool.map_kwargs("poolwork:capture", [{"n": n} for n in range(9)], **options)
    assert sorted(results, key=repr) == [((), {"n": n}) for n in range(9)]


def test_keywords_meet_what_a_target_has_bound(pool: vv.Pool) -> None:
    """As `functools.partial`: those of the item win."""
    import functools

    target = functools.partial(int, base=2)
    assert list(pool.map_kwargs(target, [{}, {"base": 3}], return_exceptions=True))[1:] != []
    bound = functools.partial(max, 5, default=0)
    assert list(pool.map_kwargs(bound, [{"key": None}], return_exceptions=True))


def test_what_is_no_dict_of_keywords_is_refused_in_its_place(pool: vv.Pool) -> None:
    """After the results before it, with a text that shows it."""
    results = pool.map_kwargs("poolwork:capture", [{"n": 1}, ["n", 2]])  # type: ignore[list-item]
    assert next(results) == ((), {"n": 1})
    with pytest.raises(TypeError, match=r"\['n', 2\]"):
        next(results)


# --- different calls --------------------------------------------------------------------------------------------------


def test_different_calls_give_their_results_in_order(pool: vv.Pool) -> None:
    """Arguments and keywords may be left out."""
    requests = [("math:sqrt", (16,), {}), ("poolwork:capture", [1], {"n": 2}), (pow, (2, 5)), ("poolwork:capture",)]
    assert list(pool.call_many(requests)) == [4.0, ((1,), {"n": 2}), 32, ((), {})]
    assert list(pool.call_many([])) == []
    results = pool.call_many((("poolwork:double", (n,)) for n in range(3000)), ordered=False)
    assert sorted(results) == [2 * n for n in range(3000)]


def test_requests_are_drawn_as_results_are_taken(pool: vv.Pool) -> None:
    """An infinite number of them, and no more ahead than the buffer has."""
    drawn: list[int] = []
    results = pool.call_many((("poolwork:double", (n,)) for n in counted(drawn)), buffersize=5)
    for taken in range(30):
        assert len(drawn) <= taken + 5
        assert next(results) == 2 * taken
    results.close()  # type: ignore[attr-defined]
    drawn.clear()
    results = pool.call_many(("poolwork:double", (n,)) for n in counted(drawn))
    assert list(itertools.islice(results, 10)) == list(range(0, 20, 2))
    assert len(drawn) <= 10 + 64
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        ("math:sqrt", TypeError),
        ((), TypeError),
        (("math:sqrt", "16"), TypeError),
        (("math:sqrt", (1,), [("a", 1)]), TypeError),
        (("math:sqrt", (1,), {}, 0), TypeError),
        ((None, ()), TypeError),
        (("math sqrt:", ()), ValueError),
        (("math:sqrt", (threading.Lock(),)), vv.EncodingError),
        (("math:no_such_name", ()), vv.TargetNotFound),
    ],
)
def test_a_request_that_is_none_is_the_error_of_its_place(pool: vv.Pool, request_: Any, kind: type[Exception]) -> None:
    """The results before it come first; with errors as results the others are run."""
    requests = [("poolwork:double", (1,)), request_, ("poolwork:double", (3,))]
    results = pool.call_many(requests)
    assert next(results) == 2
    with pytest.raises(kind):
        next(results)
    first, error, last = pool.call_many(requests, return_exceptions=True)
    assert (first, last) == (2, 6)
    assert isinstance(error, kind)


@pytest.mark.parametrize("make", ["map", "map_kwargs", "call_many"])
@pytest.mark.parametrize("number", [0, -1])
def test_sizes_below_one_are_refused_at_the_call(pool: vv.Pool, make: str, number: int) -> None:
    """Before anything is drawn."""
    arguments = [[]] if make == "call_many" else ["math:sqrt", []]
    with pytest.raises(ValueError, match="buffersize must be >= 1"):
        getattr(pool, make)(*arguments, buffersize=number)


@pytest.mark.parametrize("name", ["ordered", "return_exceptions"])
def test_switches_are_true_or_false(pool: vv.Pool, name: str) -> None:
    """A text would be taken for True."""
    with pytest.raises(TypeError, match=f"{name} is True or False"):
        pool.map("math:sqrt", [1], **{name: "no"})
