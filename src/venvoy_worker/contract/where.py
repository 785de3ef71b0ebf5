"""Where in a value the part is that cannot travel: `['rows'][3].lock`. Runs after a failure only. Stateless."""

from __future__ import annotations

import sys

_MOST_STEPS = 60


def locate(value: Any, fails: Callable[[object], bool]) -> tuple[str, Any]:
    """Return the path to the innermost part that cannot travel, as an expression to follow a name, and that part.

    Args:
        fails: returns True for a value that cannot travel.
    """
    path = ""
    seen: set[int] = set()
    while id(value) not in seen and len(seen) < _MOST_STEPS:
        seen.add(id(value))
        found = _first(_parts(value), fails)
        if found is None:
            break
        path, value = path + found[0], found[1]
    return path, value


def _first(parts: list[tuple[str, Any]], fails: Callable[[object], bool]) -> tuple[str, Any] | None:
    """Return the first part that fails, by halving: a million parts are not tried one by one."""
    if not parts:
        return None
    while len(parts) > 1:
        half = parts[: len(parts) // 2]
        parts = half if fails([part for _, part in half]) else parts[len(half) :]
    return parts[0] if fails(parts[0][1]) else None


def _parts(value: Any) -> list[tuple[str, Any]]:
    """Return (step, part) for each part of a container or object."""
    if isinstance(value, dict):
        parts = [("[%s]" % _shown(key), item) for key, item in dict.items(value)]
        parts += [(" key %s" % _shown(key), key) for key in dict.keys(value)]
        return parts
    names = getattr(type(value), "_fields", None)
    if isinstance(value, tuple) and isinstance(names, tuple):
        return [(".%s" % name, item) for name, item in zip(names, value)]
    if isinstance(value, (list, tuple)) or type(value).__name__ == "deque":
        return [("[%d]" % index, item) for index, item in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return [(" item %s" % _shown(item), item) for item in value]
    return [(".%s" % name, item) for name, item in _attributes(value).items()]


def _attributes(value: Any) -> dict[str, Any]:
    if isinstance(value, (type, str, bytes, int, float, type(sys))) or callable(value):
        return {}
    found = dict(getattr(value, "__dict__", None) or {})
    for kind in type(value).__mro__:
        names = vars(kind).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if hasattr(value, name):
                found.setdefault(name, getattr(value, name))
    return found


def _shown(key: object) -> str:
    try:
        text = repr(key)
    except Exception:
        text = "<%s>" % type(key).__name__
    return text if len(text) <= 60 else text[:57] + "..."


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable
