"""`map` as `Executor.map`, drawn lazily."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]


class Source:
    """An input that counts what is drawn from it."""

    def __init__(self, end: int | None = None, error_at: int | None = None) -> None:
        self.drawn = 0
        self._end = end
        self._error_at = error_at

    def __iter__(self) -> Iterator[int]:
        for n in itertools.count() if self._end is None else range(self._end):
            if n == self._error_at:
                raise LookupError("the input broke")
            self.drawn += 1
            yield n


@pytest.fixture
def pool(make_pool: MakePool) -> vv.Pool:
    """Two workers."""
    return make_pool(workers=2)


@pytest.mark.parametrize("options", [{}, {"chunksize": 3}, {"buffersize": 2}, {"chunksize": 4, "buffersize": 3}])
def test_results_come_in_order(pool: vv.Pool, options: dict[str, int]) -> None:
    """Whatever the window, the answers are those of the builtin map."""
    assert list(pool.map("poolwork:double", range(57), **options)) == [2 * n for n in range(57)]
    assert list(pool.map(pow, range(9), range(5), **options)) == [n**n for n in range(5)]
    assert list(pool.map("poolwork:capture", "ab", "cd", "ef", **options)) == [
        (("a", "c", "e"), {}),
        (("b", "d", "f"), {}),
    ]


def test_an_empty_input_gives_nothing(pool: vv.Pool) -> None:
    """No item, no call; also when the shortest of several is empty."""
    assert list(pool.map(abs, [])) == []
    assert list(pool.map(pow, [1, 2], [])) == []
    assert list(pool.map("poolwork:double", iter(()), timeout=0)) == []


def test_no_iterable_is_no_call(pool: vv.Pool) -> None:
    """As `Executor.map(fn)`, which zips nothing."""
    assert list(pool.map("poolwork:pid")) == []


def test_an_infinite_input_is_drawn_as_far_as_needed(pool: vv.Pool) -> None:
    """Ten results of slow calls draw ten items and a window, not everything."""
    source = Source()
    results = pool.map("poolwork:nap", itertools.repeat(0.01), source)
    assert list(itertools.islice(results, 10)) == list(range(10))
    assert source.drawn < 10 + 40
    results.close()  # type: ignore[attr-defined]


def test_the_first_window_is_drawn_by_the_call(pool: vv.Pool) -> None:
    """As in the standard library, work begins before the first result is asked for."""
    source = Source()
    results = pool.map("poolwork:nap", itertools.repeat(0), source, buffersize=3)
    assert source.drawn == 3
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("buffersize", [1, 2, 7])
def test_buffersize_bounds_what_is_drawn_ahead(pool: vv.Pool, buffersize: int) -> None:
    """Never are more items drawn than results taken and the buffer."""
    source = Source()
    results = pool.map("poolwork:nap", itertools.repeat(0), source, buffersize=buffersize)
    for taken in range(30):
        assert source.drawn <= taken + buffersize
        assert next(results) == taken
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["chunksize", "buffersize"])
@pytest.mark.parametrize("number", [0, -1])
def test_sizes_below_one_are_refused_at_the_call(pool: vv.Pool, name: str, number: int) -> None:
    """With the standard library's words."""
    with pytest.raises(ValueError, match=f"{name} must be >= 1"):
        pool.map(abs, [1], **{name: number})


def test_what_is_no_iterable_is_refused_at_the_call(pool: vv.Pool) -> None:
    """A TypeError where the mistake is, not at the first result."""
    with pytest.raises(TypeError):
        pool.map(abs, 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="target"):
        pool.map(None, [1])  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"chunksize": 4}, {"buffersize": 2}])
def test_an_error_comes_after_the_results_before_it(pool: vv.Pool, options: dict[str, int]) -> None:
    """The iterator yields what came before, raises the error, and is then over."""
    results = pool.map("poolwork:fails_on", range(20), itertools.repeat(6), **options)
    got: list[Any] = []
    with pytest.raises(KeyError):
        got.extend(results)
    assert got == list(range(6))
    assert list(results) == []


def test_a_result_that_cannot_travel_fails_in_its_place(pool: vv.Pool) -> None:
    """The values before it in the same chunk are not lost."""
    results = pool.map("poolwork:nap", [0, 0, 0], ["a", "b", "c"], chunksize=3)
    assert list(results) == ["a", "b", "c"]
    results = pool.map(vv.by_source(lock_if_two), [0, 1, 2, 3], chunksize=4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(vv.EncodingError):
        next(results)


def lock_if_two(n: int) -> Any:
    """Return what cannot be pickled for one of the numbers."""
    return threading.Lock() if n == 2 else n


def test_an_argument_that_cannot_travel_is_an_error_of_the_results(pool: vv.Pool) -> None:
    """The results before it are yielded, then the error is raised; the workers live."""
    results = pool.map("poolwork:double", [1, 2, threading.Lock(), 4], chunksize=1)
    assert [next(results), next(results)] == [2, 4]
    with pytest.raises(vv.EncodingError):
        next(results)
    assert pool.call("poolwork:double", 1) == 2


def test_an_error_of_the_input_is_raised_after_the_results_before_it(pool: vv.Pool) -> None:
    """What was drawn is computed and yielded; then the input's own error comes."""
    source = Source(error_at=40)
    results = pool.map("poolwork:nap", itertools.repeat(0), source, buffersize=4)
    got: list[Any] = []
    with pytest.raises(LookupError, match="the input broke"):
        got.extend(results)
    assert got == list(range(40))


def test_an_error_of_the_first_window_is_raised_and_cancels_what_was_sent(
    pool: vv.Pool, is_settled: Callable[..., None]
) -> None:
    """An input that breaks at once raises, from the call or the first results, and leaves nothing running."""
    with pytest.raises(LookupError):
        list(pool.map("poolwork:nap", itertools.repeat(0.01), Source(error_at=2)))
    is_settled(pool)


def test_a_result_that_comes_too_late_is_a_timeout(pool: vv.Pool, is_settled: Callable[..., None]) -> None:
    """The deadline counts from the call; the results before it were yielded, the rest is cancelled."""
    results = pool.map("poolwork:nap", [0, 0, 60, 60, 60], timeout=1.0)
    assert [next(results), next(results)] == [None, None]
    with pytest.raises(vv.CallTimeout) as caught:
        next(results)
    assert isinstance(caught.value, FutureTimeout | TimeoutError)
    is_settled(pool)


def test_a_timeout_of_the_users_code_is_not_taken_for_ours(pool: vv.Pool) -> None:
    """A TimeoutError that the function raises arrives as it is."""
    with pytest.raises(TimeoutError, match="the user's own") as caught:
        pool.call("poolwork:fail_with_timeout")
    assert not isinstance(caught.value, vv.CallTimeout)
    with pytest.raises(TimeoutError, match="the user's own"):
        next(pool.map(vv.by_source(raise_timeout), [1], timeout=20))


def raise_timeout(_: object) -> None:
    """Raise what a socket may raise."""
    raise TimeoutError("the user's own")


def test_leaving_early_cancels_what_has_not_begun(
    make_pool: MakePool, tmp_path: Path, is_settled: Callable[..., None]
) -> None:
    """close(), or dropping the iterator, ends the rest; what has not begun never runs."""
    pool = make_pool(workers=1)
    paths = [str(tmp_path / str(n)) for n in range(50)]
    results = pool.map(vv.by_source(touch_slowly), paths)
    assert next(results) == paths[0]
    results.close()  # type: ignore[attr-defined]
    is_settled(pool)
    touched = len(list(tmp_path.iterdir()))
    assert touched < 10
    assert pool.call("poolwork:double", 1) == 2
    assert len(list(tmp_path.iterdir())) == touched


def touch_slowly(path: str) -> str:
    """Leave a trace and take some time."""
    open(path, "w").close()
    time.sleep(0.05)
    return path


def test_dropping_the_results_unread_lets_the_pool_end(make_pool: MakePool) -> None:
    """As the standard library's `executor.map(...)` whose results nobody wants."""
    with make_pool(workers=2) as pool:
        pool.map("poolwork:double", range(5))


def test_a_large_map_needs_few_calls(pool: vv.Pool) -> None:
    """By default quick items are sent in growing chunks, so that a hundred thousand are no hundred thousand calls."""
    assert sum(pool.map("poolwork:double", range(100_000))) == 100_000 * 99_999
    assert pool.stats().calls_done < 5_000


def test_quick_results_do_not_wait_for_a_slow_item_in_a_later_chunk(pool: vv.Pool, tmp_path: Path) -> None:
    """Items that take long are sent one by one until they are measured to be quick."""
    go = tmp_path / "go"
    results = pool.map("poolwork:wait_for", [__file__, __file__, str(go)])
    assert [next(results), next(results)] == [None, None]
    go.touch()
    assert list(results) == [None]


def test_a_deadline_of_the_options_is_that_of_each_call(pool: vv.Pool) -> None:
    """options(timeout=).map() fails in the place of the call that took too long."""
    results = pool.options(timeout=1.0).map("poolwork:nap", [0, 60, 0], ["a", "b", "c"])
    assert next(results) == "a"
    with pytest.raises(vv.CallTimeout):
        next(results)
