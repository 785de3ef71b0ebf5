"""Checks that option classes share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping


def check_seconds(name: str, value: object) -> None:
    """Raise TypeError or ValueError, naming the option, unless the value is a number of seconds from 0 up."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is a number of seconds, not {value!r}")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} is a number of seconds from 0 up, not {value!r}")


def check_names(
    what: str, given: Iterable[str], known: Collection[str], elsewhere: Mapping[str, Collection[str]] | None = None
) -> None:
    """Raise TypeError for a keyword that there is not, naming what was probably meant.

    Args:
        what: takes the keywords.
        elsewhere: how keywords are written, with {} for the name, that belong somewhere else.
    """
    for name in sorted(set(given) - set(known)):
        import difflib  # only those who err wait for it

        places = [form.format(name) for form, names in (elsewhere or {}).items() if name in names]
        close = difflib.get_close_matches(name, known, 1)
        hint = f"it has {', '.join(known)}"
        if places:
            hint = f"write {places[0]}"
        elif close:
            hint = f"did you mean {close[0]!r}?"
        raise TypeError(f"{what} has no option {name!r}; {hint}")
