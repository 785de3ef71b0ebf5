"""Where a piece of code stands in its caller's file, so that a worker's errors can show that place.

Owns the memory of the places found, since texts are mostly run again and again from one line.
"""

from __future__ import annotations

import linecache
import os
import re
import sys
import tokenize
from itertools import islice
from textwrap import dedent
from types import CodeType, FrameType
from typing import Any

_PACKAGE = __name__.partition(".")[0]
_MOST_KNOWN = 1024

Place = tuple[str, int, tuple[int, ...]]
"""File name, number of the text's first line there, and by how many bytes each of its lines is moved to the right."""

Source = tuple[str, Place]
"""A text and its place."""

_known: dict[tuple[CodeType, int, str], Place] = {}


def placed(text: str, mode: str) -> tuple[str, Place]:
    """Return a text, dedented if its first line is indented, and its place in the file of who called this package.

    A text that is not found there, because it was made or read, is a file of its own that names the caller.

    Args:
        mode: "eval" or "exec", for that name.
    """
    if text[:1].isspace():
        text = dedent(text)
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_ours(frame.f_globals.get("__name__")):
        frame = frame.f_back
    if frame is None:
        return text, (f"<{mode}>", 1, ())
    key = (frame.f_code, frame.f_lasti, text)
    place = _known.get(key)
    if place is None:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        place = _known[key] = _find(text, frame) or (f"<{mode} at {frame.f_code.co_filename}:{frame.f_lineno}>", 1, ())
    return text, place


def sources_of(given: Any) -> tuple[Source, ...]:
    """Return the texts that `sources=` names, each with its place.

    Raises:
        TypeError, ValueError: one of them is none.
        OSError: a file cannot be read.
    """
    if isinstance(given, str | os.PathLike):
        raise TypeError("sources is a list of texts, not one: use sources=[text]")
    return tuple(_source(source, number) for number, source in enumerate(given))


def _source(source: Any, number: int) -> Source:
    if isinstance(source, os.PathLike):
        path = os.path.abspath(os.fspath(source))
        with tokenize.open(path) as file:  # which knows what encoding a Python file has
            return file.read(), (path, 1, ())
    if isinstance(source, tuple) and len(source) == 2 and isinstance(source[0], str):
        return (source[0], (source[1], 1, ())) if isinstance(source[1], str) else (source[0], source[1])
    if not isinstance(source, str):
        raise TypeError(f"sources[{number}] is a text, a path or a pair (text, file name), not {source!r}")
    if "\n" not in source and os.path.isfile(source):
        raise ValueError(f"sources[{number}] is a text, but {source!r} is a file: use pathlib.Path({source!r})")
    return placed(source, "source")


def _is_ours(name: object) -> bool:
    return isinstance(name, str) and name.partition(".")[0] == _PACKAGE


def _find(text: str, frame: FrameType) -> Place | None:
    """Look for a text in the call that is being made; then, if it has several lines, in the rest of the file."""
    filename = frame.f_code.co_filename
    lines, wanted = linecache.getlines(filename, frame.f_globals), text.splitlines()
    first, last = _lines_of_call(frame)
    found = [(number, columns) for number in range(first, last + 1) if (columns := _columns(wanted, lines, number))]
    if not found and sum(map(bool, map(str.strip, wanted))) > 1:
        everywhere = range(1, len(lines) + 1)
        found = [(number, columns) for number in everywhere if (columns := _columns(wanted, lines, number))]
        found = found if len(found) == 1 else []
    return (filename, *found[0]) if found else None


def _lines_of_call(frame: FrameType) -> tuple[int, int]:
    """Return the first and the last line of the expression that a frame is in."""
    first, last, _, _ = next(islice(frame.f_code.co_positions(), frame.f_lasti // 2, None), (None,) * 4)
    return first or frame.f_lineno, last or frame.f_lineno


def _columns(wanted: list[str], lines: list[str], first: int) -> tuple[int, ...]:
    """Return by how many bytes each line of a text is moved to the right in a file, if it stands there; else nothing.

    Args:
        first: number of the line in the file where it may begin; its indent there does not matter.
    """
    if first - 1 + len(wanted) > len(lines):
        return ()
    columns = []
    for index, text in enumerate(wanted):
        code, line = text.strip(), lines[first - 1 + index].rstrip()
        begin = r"(?:^\s*|['\"])" if index == 0 else r"^\s*"  # the first and the last line have quotes beside them
        end = r"(?:$|['\"])" if index == len(wanted) - 1 else "$"
        match = re.search(f"{begin}({re.escape(code)}){end}", line) if code else None
        if code and match is None:
            return ()
        indent = len(text[: text.find(code)].encode())
        columns.append(max(0, len(line[: match.start(1)].encode()) - indent) if match else 0)
    return tuple(columns) if any(map(str.strip, wanted)) else ()
