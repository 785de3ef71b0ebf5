"""Where in a value the part is that cannot travel."""

from __future__ import annotations

import collections
import threading
from typing import Any, NamedTuple

import pytest

from venvoy_worker.contract.where import locate

LOCK = threading.Lock()


class Pair(NamedTuple):
    left: Any
    right: Any


class Slotted:
    __slots__ = ("lock", "unset")


class OneSlot:
    __slots__ = "lock"


class Shy:
    """Cannot even be shown."""

    def __repr__(self) -> str:
        raise ValueError("not today")


def slotted(kind: type) -> Any:
    value: Any = kind()
    value.lock = LOCK
    return value


def fails(value: object) -> bool:
    """Return whether the lock is anywhere in a value."""
    if value is LOCK or isinstance(value, Shy):
        return True
    if isinstance(value, dict):
        return any(fails(key) or fails(item) for key, item in value.items())
    if isinstance(value, list | tuple | set | frozenset | collections.deque):
        return any(map(fails, value))
    return hasattr(value, "lock") and not isinstance(value, type)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"rows": [1, [2, LOCK]]}, "['rows'][1][1]"),
        ({LOCK: 1}, f" key {LOCK!r}"),
        ({"x" * 99: LOCK}, f"['{'x' * 56}...]"),
        (Pair(1, (LOCK,)), ".right[0]"),
        ([{1, LOCK}], f"[0] item {LOCK!r}"),
        (collections.deque([0, LOCK]), "[1]"),
        (slotted(Slotted), ".lock"),
        (slotted(OneSlot), ".lock"),
        ({Shy(): 1}, " key <Shy>"),
        ([LOCK], "[0]"),
        (LOCK, ""),
    ],
    ids=["dict", "key", "long key", "named tuple", "set", "deque", "slots", "one slot", "shy", "list", "itself"],
)
def test_the_path_follows_containers_and_attributes(value: object, path: str) -> None:
    """As an expression to follow a name."""
    assert locate(value, fails)[0] == path


def test_what_contains_itself_is_not_followed_for_ever() -> None:
    """However deep or round it is."""
    ring: list[Any] = []
    ring.append(ring)
    assert locate(ring, lambda value: True)[1] is ring
