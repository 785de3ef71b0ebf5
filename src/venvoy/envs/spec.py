"""What an environment shall contain: `EnvSpec`, its validation and its content hash.

Owns no state: a spec is a frozen value, equal to another one that means the same, and says nothing about
whether the environment exists. Wrong values are refused here, by the name of the field, before anything starts.
A spec of a project, a requirements file or a script names it; its content counts when the key is asked for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from typing import TypedDict, Unpack

from venvoy.envs.hashing import FORMAT_VERSION, content_hash
from venvoy.envs.requirement import VersionRequest, normalise_requirement, plain_name
from venvoy.envs.settings import index_settings, redact
from venvoy.envs.source import REQUIREMENT_FILES, Source, is_project, read_project, read_requirements, read_script
from venvoy.errors import EnvError

_FOUND = ("existing", "current")
_FILED = ("project", "requirements", "script")
INSTALLERS = ("auto", "uv", "pip")


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


def _names(field: str, value: object) -> tuple[str, ...]:
    return tuple(sorted({plain_name(item) for item in _strings(field, value)}))


def _path(field: str, value: object) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{field}() takes a path, not {type(value).__name__}")
    return os.path.abspath(os.path.expanduser(os.fspath(value)))


class SpecOptions(TypedDict, total=False):
    """The fields of `EnvSpec` that go together with a project, a requirements file or a script."""

    packages: Sequence[str]
    python: str | os.PathLike[str] | None
    index_url: str | None
    extra_index_urls: Sequence[str]
    find_links: Sequence[str | os.PathLike[str]]
    constraints: Sequence[str]
    installer: str
    offline: bool


@dataclass(frozen=True, repr=False, slots=True)
class EnvSpec:
    """What an environment shall contain; the environment itself is made by `build`.

    `EnvSpec(packages)` names it here; `project`, `requirements`, `script` and `auto` take it from files, `existing`
    and `current` are environments that are there.

    Args:
        packages: requirements, as `["numpy==1.26.4", "six"]`; their order does not matter.
        python: a version ("3.11", "3.11.7"), a specifier (">=3.9"), or the path of an interpreter; None is what
            the project or script requires, else the version that runs the host.
        index_url: package index that replaces the configured one; a URL or a folder.
        extra_index_urls: further indexes, asked before the main one.
        find_links: folders or pages that list packages.
        constraints: requirements that only narrow versions down, as `["urllib3<2"]`.
        installer: "uv", "pip" (that of the interpreter), or "auto": uv where there is one.
        offline: never use the network; packages come from `find_links` or the installer's cache.
        kind, source, extras, groups, editable: set by `project`, `existing` and so on; leave them alone.

    Raises:
        TypeError: a field has the wrong type; a single string for `packages`, say.
        EnvError: a value cannot be understood; the message names the field.

    Examples:
        >>> spec = vv.EnvSpec(packages=["numpy<2", "six"], python="3.11")
        >>> spec == vv.EnvSpec(packages=["six", "NumPy < 2"], python="3.11")
        True
    """

    packages: tuple[str, ...] | Sequence[str] = ()
    python: str | os.PathLike[str] | None = None
    index_url: str | None = None
    extra_index_urls: tuple[str, ...] | Sequence[str] = ()
    find_links: Sequence[str | os.PathLike[str]] = ()
    constraints: tuple[str, ...] | Sequence[str] = ()
    installer: str = "auto"
    offline: bool = False
    kind: str = "packages"
    source: str | None = None
    extras: tuple[str, ...] | Sequence[str] = ()
    groups: tuple[str, ...] | Sequence[str] = ()
    editable: bool = True

    def __post_init__(self) -> None:
        fields: dict[str, object] = {
            "packages": _requirements("packages", self.packages),
            "python": _python_request(self.python),
            "extra_index_urls": self._locations("extra_index_urls"),
            "find_links": self._locations("find_links"),
            "constraints": _requirements("constraints", self.constraints),
            "extras": _names("extras", self.extras),
            "groups": _names("groups", self.groups),
        }
        if self.index_url is not None:
            (fields["index_url"],) = (_location("index_url", url) for url in _strings("index_url", [self.index_url]))
        for name in ("offline", "editable"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, not {type(getattr(self, name)).__name__}")
        if self.installer not in INSTALLERS:
            raise EnvError(f"installer: {self.installer!r} is none of {', '.join(INSTALLERS)}")
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        self._check_kind()
        self.read()  # a file that is missing or wrong is an error here, not when a worker starts

    def _check_kind(self) -> None:
        if self.kind not in ("packages", *_FOUND, *_FILED):
            raise EnvError(f"kind: {self.kind!r} is unknown")
        is_path = self.python is not None and os.path.isabs(str(self.python))
        misused = (self.kind == "existing" and not is_path) or (self.kind == "current" and self.python is not None)
        if misused or (self.kind in _FILED) != (self.source is not None):
            raise EnvError("kind: leave it and source alone; EnvSpec.existing(path), .project(folder), … set them")
        if self.kind in _FOUND and (any(self._contents()) or self.installer != "auto"):
            raise EnvError(f"an environment that is only found ({self.kind}) cannot be given packages or indexes")
        if self.kind != "project" and (self.extras or self.groups or not self.editable):
            raise EnvError("extras, groups and editable belong to EnvSpec.project(folder, extras=[…], …)")

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

    # --- other ways to make one ---------------------------------------------------------------

    @classmethod
    def project(
        cls,
        folder: str | os.PathLike[str] = ".",
        *,
        extras: Sequence[str] = (),
        groups: Sequence[str] = (),
        editable: bool = True,
        **options: Unpack[SpecOptions],
    ) -> EnvSpec:
        """Return the spec of a project's environment, the project itself installed in it.

        With a `uv.lock` its versions are taken exactly (and only uv can do that), else with a `pylock.toml` those;
        without either they are resolved. Nothing is ever written into the project.

        Args:
            folder: that of its pyproject.toml.
            extras: of its optional dependencies.
            groups: of its dependency groups (PEP 735); none by default, not even `dev`.
            editable: edits are seen by the next worker; if not, the source tree is part of the key.
            options: fields of EnvSpec, such as `packages=`, which come on top.

        Raises:
            EnvError: there is no project, it cannot be read, or it has no such extra or group.

        Examples:
            >>> vv.EnvSpec.project(".", extras=["plots"])
            EnvSpec.project('...', extras=['plots'])
        """
        source = _path("project", folder)
        return cls(kind="project", source=source, extras=extras, groups=groups, editable=editable, **options)

    @classmethod
    def requirements(cls, file: str | os.PathLike[str], **options: Unpack[SpecOptions]) -> EnvSpec:
        """Return the spec of what a requirements file asks for.

        Args:
            file: in pip's format, with `-r`, `-c`, hashes and index options in it; or a `pylock.toml` (PEP 751).
            options: fields of EnvSpec, such as `packages=`, which come on top.

        Raises:
            EnvError: the file, or one it includes, cannot be read or understood.

        Examples:
            >>> vv.EnvSpec.requirements("requirements.txt", python="3.11")
            EnvSpec.requirements('...requirements.txt', python='3.11')
        """
        return cls(kind="requirements", source=_path("requirements", file), **options)

    @classmethod
    def script(cls, file: str | os.PathLike[str], **options: Unpack[SpecOptions]) -> EnvSpec:
        """Return the spec of what a script asks for in its `# /// script` block (PEP 723).

        Args:
            file: the script; `requires-python`, `dependencies` and the index settings of `[tool.uv]` count.
            options: fields of EnvSpec, such as `packages=`, which come on top.

        Raises:
            EnvError: the file cannot be read, or has no such block.

        Examples:
            >>> vv.EnvSpec.script("script.py")
            EnvSpec.script('...script.py')
        """
        return cls(kind="script", source=_path("script", file), **options)

    @classmethod
    def auto(cls, folder: str | os.PathLike[str] = ".", **options: Unpack[SpecOptions]) -> EnvSpec:
        """Return the spec of what a folder holds: a project, else a lock or requirements file, else what is given.

        Args:
            folder: is searched for a pyproject.toml that describes a project, `pylock.toml`, `requirements.lock`,
                `requirements.txt`, `requirements/prod.txt`, `requirements/base.txt`; its parents are not.
            options: fields of EnvSpec, such as `packages=`, which come on top.

        Raises:
            EnvError: there is no such folder, or what is found cannot be read.

        Examples:
            >>> vv.EnvSpec.auto(".")
            EnvSpec.project('...')
        """
        path = _path("auto", folder)
        if not os.path.isdir(path):
            raise EnvError(f"auto: {path} is not a folder")
        if is_project(path):
            return cls.project(path, **options)
        for name in REQUIREMENT_FILES:
            if os.path.isfile(os.path.join(path, name)):
                return cls.requirements(os.path.join(path, name), **options)
        return cls(**options)

    @classmethod
    def existing(cls, python: str | os.PathLike[str]) -> EnvSpec:
        """Return the spec of an environment somebody else made; nothing is ever installed in it.

        Args:
            python: path of its interpreter, or the folder of a virtual environment.

        Raises:
            TypeError: it is no path.

        Examples:
            >>> vv.EnvSpec.existing("/opt/app/.venv/bin/python")
            EnvSpec.existing('/opt/app/.venv/bin/python')
        """
        if not isinstance(python, (str, os.PathLike)):
            raise TypeError(f"existing() takes the path of an interpreter, not {type(python).__name__}")
        return cls(python=python_path(python), kind="existing")

    @classmethod
    def current(cls) -> EnvSpec:
        """Return the spec of the environment the host itself runs in.

        Examples:
            >>> with vv.Pool(vv.EnvSpec.current()) as pool:
            ...     import sys
            ...     pool.eval("__import__('sys').prefix") == sys.prefix
            True
        """
        return cls(kind="current")

    # --- what it means ------------------------------------------------------------------------

    def read(self) -> Source:
        """Return what the files of this spec say now; empty for a spec without files.

        Raises:
            EnvError: a file cannot be read or understood.
        """
        if self.kind == "project":
            return read_project(str(self.source), self.extras, self.groups, self.editable)
        if self.kind == "requirements":
            return read_requirements(str(self.source))
        return read_script(str(self.source)) if self.kind == "script" else Source()

    @property
    def key(self) -> str:
        """The content hash of what is asked for, here and now: 32 hex digits.

        Covers the fields, the contents of the files, the package index settings of the process environment and of
        the user's configuration of the installer, the platform, and the format of the store; never credentials.
        The folder's name (`Env.key`) covers the interpreter that was found as well.
        """
        return self.key_of(self.read())

    def key_of(self, source: Source) -> str:
        """Return the key, given the source that `read` has returned."""
        if self.kind == "current":
            return content_hash(FORMAT_VERSION, self.kind, sys.executable, sys.version, sys.prefix)
        if self.kind == "existing":
            return content_hash(FORMAT_VERSION, self.kind, self.python)
        uname = os.uname() if hasattr(os, "uname") else None
        platform = (sys.platform, uname.machine if uname else "")
        asked = redact(repr((self._contents(), source.fingerprint)))
        settings = index_settings(self.installer)
        return content_hash(FORMAT_VERSION, self.kind, self.installer, asked, self.python, settings, platform)

    def __repr__(self) -> str:
        if self.kind in _FOUND:
            return f"EnvSpec.{self.kind}({self.python!r})" if self.python else f"EnvSpec.{self.kind}()"
        given = [] if self.source is None else [repr(self.source)]
        for name, default in _DEFAULTS.items():
            value = getattr(self, name)
            if value != default:
                given.append(f"{name}={list(value) if isinstance(value, tuple) else value!r}")
        return redact(f"EnvSpec{'' if self.source is None else '.' + self.kind}({', '.join(given)})")


_DEFAULTS = {field.name: field.default for field in dataclass_fields(EnvSpec) if field.name not in ("kind", "source")}
