"""Functions and iterators of the host's, away from the calls that they belong to."""

from __future__ import annotations

import pickle

import pytest

import venvoy as vv
import venvoy_worker
from venvoy_worker.contract.host_functions import HostIterator, restore_callback


def test_a_callback_is_its_function_on_this_side() -> None:
    """Code that takes it may be tried without a worker."""
    callback = vv.callback(abs)
    assert callback(-3) == 3
    assert repr(callback) == f"callback({abs!r})"
    with pytest.raises(TypeError, match="as an argument of a call only"):
        pickle.dumps(callback)


def test_functions_of_the_host_are_for_workers() -> None:
    """Elsewhere they say so; and so does a name that is none."""
    with pytest.raises(RuntimeError, match="can be called in a worker only"):
        venvoy_worker.host("rate")("EUR")
    with pytest.raises(TypeError, match=r"host\(\) takes the name of a function, not 1\.5"):
        venvoy_worker.host(1.5)  # type: ignore[arg-type]
    assert repr(venvoy_worker.host("rate")) == "<host function rate>"
    assert not venvoy_worker.is_cancelled()
    assert venvoy_worker.call_id() == 0


def test_what_belongs_to_a_call_cannot_travel_further() -> None:
    """The call it came with would have ended."""
    for thing in (restore_callback(0), HostIterator(restore_callback(0))):
        with pytest.raises(TypeError, match="belongs to the call it came with, and cannot travel"):
            pickle.dumps(thing)


def test_an_iterator_of_the_host_is_drawn_from_until_it_has_ended() -> None:
    """And never again."""
    batches = iter([([1, 2], False), ([3], True)])
    iterator = HostIterator(lambda: next(batches))  # type: ignore[arg-type]
    assert list(iterator) == [1, 2, 3]
    assert list(iterator) == []
