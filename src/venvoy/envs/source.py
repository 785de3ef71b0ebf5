"""What a spec gets from files: `Source`, read from a project, a requirements file or a script.

Owns no state; every reading looks at the files anew. Laws: reading starts no process and writes nothing; what can
change the result of a build is in `fingerprint`, what cannot (comments, blank lines, order, layout) is not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from venvoy.envs.files import file_fingerprint, parse_toml, read_text, tree_fingerprint
from venvoy.envs.metadata import (
    Indexes,
    Tables,
    group_requirements,
    read_script_metadata,
    requires_python,
    table,
    texts,
    uv_indexes,
    with_sources,
)
from venvoy.envs.requirement import VersionRequest, normalise_requirement, plain_name
from venvoy.envs.requirements_file import read_requirements_file
from venvoy.errors import EnvError

# Where `EnvSpec.auto` looks when there is no project, in this order.
REQUIREMENT_FILES = (
    "pylock.toml",
    "requirements.lock",
    "requirements.txt",
    os.path.join("requirements", "prod.txt"),
    os.path.join("requirements", "base.txt"),
)
_PYLOCK = re.compile(r"pylock(\.[^.]+)?\.toml")  # PEP 751, "File Name"


class Project(NamedTuple):
    """A project that is installed itself.

    Args:
        folder: absolute path.
        name: as pyproject.toml has it; None where only the build backend knows.
        extras: of its optional dependencies, sorted.
        groups: of its dependency groups, sorted.
        editable: whether edits of its source are seen without a new build.
    """

    folder: str
    name: str | None
    extras: tuple[str, ...]
    groups: tuple[str, ...]
    editable: bool


class Source(NamedTuple):
    """What the files say.

    Args:
        fingerprint: everything that can change the result.
        python: which versions will do, or None.
        packages: further requirements, one text each.
        constraints: what narrows versions down.
        files: requirements files and lock files, handed to the installer as they are.
        project: a project to install.
        lock: "uv.lock", "pylock.toml" or "hashes" where versions are fixed, so that nothing else may move them.
        indexes: where packages come from.
        texts: where credentials may stand.
    """

    fingerprint: tuple[object, ...] = ()
    python: str | None = None
    packages: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    project: Project | None = None
    lock: str | None = None
    indexes: Indexes = Indexes()
    texts: tuple[str, ...] = ()


def read_requirements(path: str) -> Source:
    """Read a requirements file, or a lock file of PEP 751.

    Raises:
        EnvError: it cannot be read or understood.
    """
    if _PYLOCK.fullmatch(os.path.basename(path)):
        return _read_pylock(path)
    found = read_requirements_file(path)
    fingerprint = (found.requirements, found.options)
    return Source(fingerprint, files=(path,), lock="hashes" if found.has_hashes else None, texts=found.texts)


def _read_pylock(path: str) -> Source:
    text = read_text(path, "requirements")
    tables = parse_toml(text, f"requirements: {path}")
    if not isinstance(tables.get("packages"), list):
        raise EnvError(f"requirements: {path} is no lock file of PEP 751: it has no [[packages]]")
    python = _python(tables, path)
    return Source((_canonical(tables),), python, files=(path,), lock="pylock.toml", texts=(text,))


def read_script(path: str) -> Source:
    """Read the inline metadata of a script (PEP 723).

    Raises:
        EnvError: it cannot be read or understood.
    """
    where, folder = f"script: {path}", os.path.dirname(path)
    tables = read_script_metadata(path)
    asked = with_sources(texts(tables, ["dependencies"], where), tables, folder, where)
    packages = _normalised(asked, where)
    constraints = _normalised(texts(tables, ["tool", "uv", "constraint-dependencies"], where), where)
    settings = _canonical(table(tables, ["tool", "uv"], where))
    python = _python(tables, path)
    indexes = uv_indexes(tables, folder, where)
    fingerprint = (packages, python, settings, indexes)
    return Source(fingerprint, python, packages, constraints, indexes=indexes, texts=(repr(tables),))


def is_project(folder: str) -> bool:
    """Whether a folder holds a project, and not only settings of tools in a pyproject.toml."""
    path = os.path.join(folder, "pyproject.toml")
    if not os.path.isfile(path):
        return os.path.isfile(os.path.join(folder, "setup.py"))
    tables = parse_toml(read_text(path, "project"), path)
    return "project" in tables or "build-system" in tables


def read_project(folder: str, extras: Sequence[str], groups: Sequence[str], editable: bool) -> Source:
    """Read a project's pyproject.toml and its lock file.

    Raises:
        EnvError: there is no project in the folder, or it has no such extra or group, or cannot be read.
    """
    path = os.path.join(folder, "pyproject.toml")
    where = f"project: {path}"
    if not is_project(folder):
        raise EnvError(f"project: there is none in {folder}: no pyproject.toml with [project] or [build-system]")
    text = read_text(path, "project") if os.path.isfile(path) else ""
    tables = parse_toml(text, path)
    about = table(tables, ["project"], where)
    _check_extras(about, table(about, ["optional-dependencies"], where), extras, where)
    grouped = [line for group in groups for line in group_requirements(tables, group, where)]
    project = Project(folder, about.get("name"), tuple(sorted(extras)), tuple(sorted(groups)), editable)
    lock = next((name for name in ("uv.lock", "pylock.toml") if os.path.isfile(os.path.join(folder, name))), None)
    if lock == "pylock.toml" and (extras or groups):
        raise EnvError(f"project: {folder} is locked by pylock.toml, which has no extras and groups to choose from")
    return Source(
        (
            project,
            _canonical({**tables, "project": {**about, **_sorted_dependencies(about, where)}}),
            lock,
            *_files(project, about, lock),
        ),
        _python(about, path),
        () if lock else _normalised(grouped, where),
        files=(os.path.join(folder, lock),) if lock == "pylock.toml" else (),
        project=project,
        lock=lock,
        indexes=uv_indexes(tables, folder, where),
        texts=(text,),
    )


def _check_extras(about: Tables, optional: Tables, extras: Sequence[str], where: str) -> None:
    if not about or "optional-dependencies" in about.get("dynamic", ()):
        return  # only the build backend knows them
    known = {plain_name(name): name for name in optional}
    for extra in extras:
        if plain_name(extra) not in known:
            raise EnvError(f"{where} has no extra {extra!r}; it has {', '.join(known.values()) or 'none'}")


def _files(project: Project, about: Tables, lock: str | None) -> list[str]:
    """Return what stands for the files beside pyproject.toml that say what is installed."""
    names = ["setup.py", "setup.cfg", *([lock] if lock else [])]
    if not about or "dependencies" in about.get("dynamic", ()) or "optional-dependencies" in about.get("dynamic", ()):
        # The build backend reads them from somewhere, by custom from text files beside it.
        names += sorted(name for name in os.listdir(project.folder) if name.endswith((".txt", ".in")))
    found = [file_fingerprint(os.path.join(project.folder, name)) for name in names]
    return found if project.editable else [*found, tree_fingerprint(project.folder)]


def _python(tables: Tables, path: str) -> str | None:
    request = requires_python(tables, path)
    if request is not None:
        try:
            VersionRequest.parse(request)
        except EnvError as error:
            raise EnvError(f"{path}: requires-python: {error}") from None
    return request


def _normalised(requirements: Sequence[str], where: str) -> tuple[str, ...]:
    return tuple(sorted({normalise_requirement(where, text) for text in requirements}))


def _sorted_dependencies(about: Tables, where: str) -> dict[str, Any]:
    """Return a project's lists of requirements, each sorted."""
    optional = table(about, ["optional-dependencies"], where)
    return {
        "dependencies": sorted(texts(about, ["dependencies"], where)),
        "optional-dependencies": {name: sorted(texts(optional, [name], where)) for name in optional},
    }


def _canonical(value: object) -> object:
    """Return tables as something whose `repr` does not depend on the order of keys."""
    if isinstance(value, Mapping):
        return [(name, _canonical(value[name])) for name in sorted(value)]
    return [_canonical(item) for item in value] if isinstance(value, list) else value
