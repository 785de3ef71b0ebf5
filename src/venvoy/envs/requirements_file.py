"""What a requirements file means, as far as a key needs to know: pip's format, with the files it includes.

Pure reading, no state. The file itself is handed to the installer as it is; here it is only brought into a form that
does not change with comments, blank lines, line order, or the place it lies in. Format: pip's "Requirements File
Format".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from venvoy.envs.files import path_fingerprint, read_text
from venvoy.envs.requirement import normalise_requirement
from venvoy.envs.settings import redact
from venvoy.errors import EnvError

_COMMENT = re.compile(r"(^|\s+)#.*$")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
_INCLUDE = re.compile(r"(-r|--requirement|-c|--constraint)(?:\s+|=|(?<=-[rc]))(.+)")
_EDITABLE = re.compile(r"(?:-e|--editable)(?:\s+|=)(.+)")
_PLACE = re.compile(r"(?:-f|--find-links|-i|--index-url|--extra-index-url)(?:\s+|=)(.+)")
_HASH = re.compile(r"\s+--hash[=\s]\s*(\S+)")


class RequirementsFile(NamedTuple):
    """What was read.

    Args:
        requirements: one text per requirement, sorted; constraints begin with `-c`.
        options: the installer's options, in their order, which counts among indexes.
        texts: every line with its variables expanded, to find credentials in.
        has_hashes: the file pins by hash, so nothing can be added to it in the same resolution.
    """

    requirements: tuple[str, ...]
    options: tuple[str, ...]
    texts: tuple[str, ...]
    has_hashes: bool


def read_requirements_file(path: str) -> RequirementsFile:
    """Read a requirements file and everything it includes.

    Raises:
        EnvError: it, or a file it includes, cannot be read, or it includes itself.
    """
    lines = list(_lines(path, "", ()))
    requirements = sorted({line.text for line in lines if not line.is_option})
    options = dict.fromkeys(line.text for line in lines if line.is_option)
    texts = tuple(line.raw for line in lines)
    has_hashes = any("--hash=" in text or text == "--require-hashes" for text in texts)
    return RequirementsFile(tuple(requirements), tuple(options), texts, has_hashes)


class _Line(NamedTuple):
    """A logical line: as it stands with its variables expanded, and as it counts, without credentials."""

    raw: str
    text: str
    is_option: bool = False


def _lines(path: str, prefix: str, including: tuple[str, ...]) -> Iterator[_Line]:
    """Yield the logical lines of a file and of those it includes."""
    real = os.path.realpath(path)
    if real in including:
        raise EnvError(f"requirements: {path} includes itself")
    for number, line in _logical_lines(read_text(path, "requirements")):
        line = _VARIABLE.sub(lambda match: os.environ.get(match[1]) or match[0], line)
        folder = os.path.dirname(path)
        if include := _INCLUDE.fullmatch(line):
            inner = "-c " if include[1] in ("-c", "--constraint") else prefix
            yield from _included(include[2].strip(), folder, inner, (*including, real))
        elif line.startswith("-"):
            yield _option(line, folder)
        else:
            yield _Line(line, prefix + _requirement(line, folder, f"{path}, line {number}"))


def _included(place: str, folder: str, prefix: str, including: tuple[str, ...]) -> Iterator[_Line]:
    if "://" in place and not place.startswith("file://"):
        yield _Line(place, f"{prefix}-r {redact(place)}")  # only its address is known without the network
    else:
        yield from _lines(os.path.join(folder, place.removeprefix("file://")), prefix, including)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield (number, text) of the lines, continuations joined, comments and blank lines left out."""
    waiting = ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#"):
            line = ""  # a comment is one even in the middle of a continued line, and ends that
        if line.endswith("\\"):
            waiting += line[:-1]
            continue
        whole = _COMMENT.sub("", waiting + line).strip()
        waiting = ""
        if whole:
            yield number, whole
    if waiting.strip():
        yield 0, waiting.strip()


def _option(line: str, folder: str) -> _Line:
    if match := _EDITABLE.fullmatch(line):
        return _Line(line, f"-e {_local(match[1].strip(), folder)}")
    match = _PLACE.fullmatch(line)
    if match and "://" not in match[1]:
        name = re.split(r"[\s=]", line, maxsplit=1)[0]
        return _Line(line, f"{name} {os.path.normpath(os.path.join(folder, match[1].strip()))}", is_option=True)
    return _Line(line, redact(" ".join(line.replace("=", " ", 1).split())), is_option=True)


def _requirement(line: str, folder: str, where: str) -> str:
    hashes = sorted(_HASH.findall(line))
    text = " ".join(_HASH.sub("", line).split())
    try:
        text = normalise_requirement(where, text)
    except EnvError:
        if text.startswith(("<", ">", "=", "!", "~", "[")):
            raise
        text = _local(text, folder)  # a path or a URL; the installer is stricter than we are
    return redact(" ".join([text, *(f"--hash={value}" for value in hashes)]))


def _local(text: str, folder: str) -> str:
    """Return a path together with what is there; anything else as it is."""
    bare, bracket, extras = text.partition("[")
    path = os.path.normpath(os.path.join(folder, bare.removeprefix("file://")))
    if "://" in bare.removeprefix("file://") or not os.path.exists(path):
        return redact(text)
    return f"{path}{bracket}{extras} {path_fingerprint(path)}"
