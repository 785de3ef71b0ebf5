"""What an environment shall contain: `EnvSpec`, its validation and its content hash.

Owns no state: a spec is a frozen value, equal to another one that means the same, and says nothing about
whether the environment exists. Wrong values are refused here, by the name of the field, before anything starts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from venvoy.envs.requirement import VersionRequest, normalise_requirement
from venvoy.envs.settings import index_settings, redact
from venvoy.errors import EnvError

# Part of every key: raise it when a folder built by an earlier venvoy must not be used any more.
FORMAT_VERSION = 1


def content_hash(*parts: object) -> str:
    """Return 32 hex digits that stand for the parts, by their `repr`."""
    try:
        from _blake2 import blake2b  # hashlib would load OpenSSL as well: 5 ms on every cached start
    except ImportError:
        from hashlib import blake2b
    return blake2b(repr(parts).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _strings(field: str, value: object) -> tuple[str, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{field} must be a list of strings, not {type(value).__name__}: {field}=[…]")
    items = tuple(os.fspath(item) if isinstance(item, os.PathLike) else item for item in value)
    for item in items:
        if not isinstance(item, str):
            raise TypeError(f"{field} must be a list of strings; it contains {type(item).__name__}")
        if not item.strip() or "\n" in item or "\0" in item:
            raise EnvError(f"{field}: {redact(item)!r} is empty or has more than one line")
    return items


def _requirements(field: str, value: object) -> tuple[str, ...]:
    return tuple(sorted({normalise_requirement(field, item) for item in _strings(field, value)}))


def _location(field: str, text: str) -> str:
    """Return a URL unchanged and a local path absolute, so that the working folder does not matter later."""
    text = text.strip()
    if text.startswith("-") or not text:
        raise EnvError(f"{field}: {text!r} is neither a URL nor a path")
    return text if "://" in text else os.path.abspath(os.path.expanduser(text))


def _python_request(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, os.PathLike):
        return python_path(value)
    if not isinstance(value, str):
        raise TypeError(f"python must be a version in quotes, as '3.11', or a path, not {type(value).__name__}")
    text = value.strip()
    if os.sep in text or text.startswith("~"):
        return python_path(text)
    return VersionRequest.parse(text).text


def python_path(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of an interpreter; a folder stands for the virtual environment in it.

    Symbolic links are kept: the link in a virtual environment *is* the environment's interpreter.
    """
    absolute = os.path.abspath(os.path.expanduser(os.fspath(path)))
    if os.path.isdir(absolute):
        return os.path.join(absolute, "Scripts", "python.exe") if os.name == "nt" else f"{absolute}/bin/python"
    return absolute


@dataclass(frozen=True, repr=False, slots=True)
class EnvSpec:
    """What an environment shall contain; the environment itself is made by `build`.

    Args:
        packages: requirements, as `["numpy==1.26.4", "six"]`; their order does not matter.
        python: a version ("3.11", "3.11.7"), a specifier (">=3.9"), or the path of an interpreter;
            None is the version that runs the host.
        index_url: package index that replaces the configured one; a URL or a folder.
        extra_index_urls: further indexes, asked before the main one.
        find_links: folders or pages that list packages.
        constraints: requirements that only narrow versions down, as `["urllib3<2"]`.
        offline: never use the network; packages come from `find_links` or the installer's cache.
        kind: set by `existing` and `current`; leave it alone.

    Raises:
        TypeError: a field has the wrong type; a single string for `packages`, say.
        EnvError: a value cannot be understood; the message names the field.
    """

    packages: tuple[str, ...] | list[str] = ()
    python: str | os.PathLike[str] | None = None
    index_url: str | None = None
    extra_index_urls: tuple[str, ...] | list[str] = ()
    find_links: Sequence[str | os.PathLike[str]] = ()
    constraints: tuple[str, ...] | list[str] = ()
    offline: bool = False
    kind: str = "packages"

    def __post_init__(self) -> None:
        fields: dict[str, object] = {
            "packages": _requirements("packages", self.packages),
            "python": _python_request(self.python),
            "extra_index_urls": self._locations("extra_index_urls"),
            "find_links": self._locations("find_links"),
            "constraints": _requirements("constraints", self.constraints),
        }
        if self.index_url is not None:
            (fields["index_url"],) = (_location("index_url", url) for url in _strings("index_url", [self.index_url]))
        if not isinstance(self.offline, bool):
            raise TypeError(f"offline must be True or False, not {type(self.offline).__name__}")
        if self.kind not in ("packages", "existing", "current"):
            raise EnvError(f"kind: {self.kind!r} is unknown")
        is_path = fields["python"] is not None and os.path.isabs(str(fields["python"]))
        if (self.kind == "existing" and not is_path) or (self.kind == "current" and fields["python"] is not None):
            raise EnvError("kind: leave it alone; EnvSpec.existing(path) and EnvSpec.current() set it")
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        if self.kind != "packages" and any(self._contents()):
            raise EnvError(f"an environment that is only found ({self.kind}) cannot be given packages or indexes")

    def _locations(self, field: str) -> tuple[str, ...]:
        return tuple(_location(field, item) for item in _strings(field, getattr(self, field)))

    def _contents(self) -> tuple[object, ...]:
        return (
            self.packages,
            self.constraints,
            self.index_url,
            self.extra_index_urls,
            self.find_links,
            self.offline,
        )

    @classmethod
    def existing(cls, python: str | os.PathLike[str]) -> EnvSpec:
        """Return the spec of an environment somebody else made; nothing is ever installed in it.

        Args:
            python: path of its interpreter, or the folder of a virtual environment.
        """
        if not isinstance(python, (str, os.PathLike)):
            raise TypeError(f"existing() takes the path of an interpreter, not {type(python).__name__}")
        return cls(python=python_path(python), kind="existing")

    @classmethod
    def current(cls) -> EnvSpec:
        """Return the spec of the environment the host itself runs in."""
        return cls(kind="current")

    @property
    def key(self) -> str:
        """The content hash of what is asked for, here and now: 32 hex digits.

        Covers the fields, the package index settings of the process environment and of the user's uv
        configuration, the platform, and the format of the store; never credentials. The folder's name
        (`Env.key`) covers the interpreter that was found as well.
        """
        if self.kind == "current":
            return content_hash(FORMAT_VERSION, self.kind, sys.executable, sys.version, sys.prefix)
        if self.kind == "existing":
            return content_hash(FORMAT_VERSION, self.kind, self.python)
        uname = os.uname() if hasattr(os, "uname") else None
        platform = (sys.platform, uname.machine if uname else "")
        contents = redact(repr(self._contents()))
        return content_hash(FORMAT_VERSION, self.kind, contents, self.python, index_settings(), platform)

    def __repr__(self) -> str:
        if self.kind != "packages":
            return f"EnvSpec.{self.kind}({self.python!r})" if self.python else f"EnvSpec.{self.kind}()"
        shown = ((name, getattr(self, name)) for name in self.__slots__ if name != "kind")
        given = (f"{name}={list(v) if isinstance(v, tuple) else v!r}" for name, v in shown if v)
        return redact(f"EnvSpec({', '.join(given)})")
