"""Files an environment is described by: their text, and what stands for a file or a folder in a key.

Owns no state. A key must change when a build would give something else, so contents count, not times; a large file
(a wheel) counts by its size and time, since it is looked at each time the key is asked for.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any

from venvoy.envs.hashing import bytes_hash, content_hash
from venvoy.errors import EnvError

_LARGE = 8 << 20  # bytes; reading and hashing so many takes about 10 ms
_PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg")
_NOT_SOURCE = frozenset({"__pycache__", "node_modules", "build", "dist"})


def read_text(path: str, what: str) -> str:
    """Return a file's text.

    Args:
        path: absolute.
        what: names the thing in the message.

    Raises:
        EnvError: it cannot be read, or is not UTF-8.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise EnvError(f"{what}: {path} is not a regular file, and it is read more than once")
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except OSError as error:
        raise EnvError(f"{what}: {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise EnvError(f"{what}: {path} is not UTF-8 text ({error.reason} at byte {error.start})") from error


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Return the tables of a TOML text.

    Raises:
        EnvError: it is not TOML; the message says where.
    """
    import tomllib  # start-up time: only specs with such a file pay for it

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise EnvError(f"{where} is not valid TOML: {error}") from error


def path_fingerprint(path: str) -> str:
    """Return what stands for a file, or for a folder that is installed from: what says how to install it."""
    if os.path.isdir(path):
        return content_hash([file_fingerprint(os.path.join(path, name)) for name in _PROJECT_FILES])
    return file_fingerprint(path)


def file_fingerprint(path: str) -> str:
    """Return what stands for a file's content; "" where there is none."""
    try:
        facts = os.stat(path)
        if not stat.S_ISREG(facts.st_mode):
            return ""  # reading a pipe could wait for ever
        if facts.st_size > _LARGE:
            return f"{facts.st_size} {facts.st_mtime_ns}"
        with open(path, "rb") as file:
            return bytes_hash(file.read())
    except OSError:
        return ""


def tree_fingerprint(folder: str) -> str:
    """Return what stands for a source tree: the names and contents of its files, build results and caches left out."""
    return content_hash(
        [(name, file_fingerprint(os.path.join(folder, name))) for name in sorted(_source_files(folder))]
    )


def _source_files(folder: str) -> Iterator[str]:
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if _is_source(path, name)]
        relative = os.path.relpath(path, folder)
        yield from (os.path.normpath(os.path.join(relative, name)) for name in files if not name.endswith(".pyc"))


def _is_source(path: str, name: str) -> bool:
    if name.startswith(".") or name in _NOT_SOURCE or name.endswith(".egg-info"):
        return False
    inside = os.path.join(path, name)
    # Virtual environments, and caches that say so (https://bford.info/cachedir/), our own home among them.
    return not any(os.path.exists(os.path.join(inside, mark)) for mark in ("pyvenv.cfg", "CACHEDIR.TAG"))
