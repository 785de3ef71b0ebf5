"""Checks that option classes share."""

from __future__ import annotations


def check_seconds(name: str, value: object) -> None:
    """Raise TypeError or ValueError, naming the option, unless the value is a number of seconds from 0 up."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is a number of seconds, not {value!r}")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} is a number of seconds from 0 up, not {value!r}")
