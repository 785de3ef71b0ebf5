"""What a project or a script says of itself in TOML: pyproject.toml, and inline script metadata.

Pure functions on tables that were read; no state. Formats: PEP 621 (project), PEP 735 (dependency groups), PEP 723
(scripts), and uv's `[tool.uv]` for where packages come from.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from venvoy.envs.files import parse_toml, read_text
from venvoy.envs.requirement import plain_name
from venvoy.errors import EnvError

# The regular expression of PEP 723, "Reference implementation".
_BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")

Tables = Mapping[str, Any]


class Indexes(NamedTuple):
    """Where packages come from: URLs or absolute paths."""

    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False


def read_script_metadata(path: str) -> dict[str, Any]:
    """Return the tables of a script's `# /// script` block.

    Raises:
        EnvError: there is no such file or block, there are two, or it is not TOML.
    """
    text = read_text(path, "script")
    blocks = [match for match in _BLOCK.finditer(text) if match["type"] == "script"]
    if len(blocks) != 1:
        said = "has no" if not blocks else "has more than one"
        raise EnvError(f"script: {path} {said} '# /// script' block (PEP 723), which says what it needs")
    lines = (line[2:] if line.startswith("# ") else line[1:] for line in blocks[0]["content"].splitlines(keepends=True))
    return parse_toml("".join(lines), f"script: the metadata of {path}")


def table(tables: Tables, names: Sequence[str], where: str) -> dict[str, Any]:
    """Return the table at a path in the tables; empty where there is none.

    Raises:
        EnvError: something else is there.
    """
    found: dict[str, Any] = dict(tables)
    for count, name in enumerate(names, 1):
        value = found.get(name, {})
        if not isinstance(value, dict):
            raise EnvError(f"{where}: {'.'.join(names[:count])} must be a table")
        found = value
    return found


def texts(tables: Tables, names: Sequence[str], where: str) -> list[str]:
    """Return the list of strings at a path in the tables; empty where there is none.

    Raises:
        EnvError: something else is there.
    """
    value = table(tables, names[:-1], where).get(names[-1], [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise EnvError(f"{where}: {'.'.join(names)} must be a list of strings")
    return value


def requires_python(tables: Tables, where: str) -> str | None:
    """Return a table's `requires-python`, pre-release suffixes left out; None where there is none."""
    value = tables.get("requires-python")
    if value is None:
        return None
    if not isinstance(value, str):
        raise EnvError(f"{where}: requires-python must be a string")
    return re.sub(r"(?<=\d)\.?(?:a|b|rc|dev|post)\d+", "", value).strip(" ,") or None


def group_requirements(tables: Tables, group: str, where: str, including: tuple[str, ...] = ()) -> list[str]:
    """Return the requirements of a dependency group, included groups resolved.

    Raises:
        EnvError: there is no such group, or it includes itself.
    """
    groups = {plain_name(name): items for name, items in table(tables, ["dependency-groups"], where).items()}
    name = plain_name(group)
    if name in including:
        raise EnvError(f"{where}: the dependency group {group!r} includes itself")
    if not isinstance(groups.get(name), list):
        known = ", ".join(sorted(groups)) or "none"
        raise EnvError(f"{where} has no dependency group {group!r}; it has {known}")
    found: list[str] = []
    for item in groups[name]:
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, Mapping) and isinstance(item.get("include-group"), str):
            found += group_requirements(tables, item["include-group"], where, (*including, name))
        else:
            raise EnvError(f"{where}: the dependency group {group!r} contains {item!r}")
    return found


def uv_indexes(tables: Tables, folder: str, where: str) -> Indexes:
    """Return the index settings of `[tool.uv]`; paths are relative to the folder of the file."""
    settings = table(tables, ["tool", "uv"], where)
    indexes = settings.get("index", [])
    if not isinstance(indexes, list) or any(not _has_url(index) for index in indexes):
        raise EnvError(f"{where}: [[tool.uv.index]] must be tables with a url")
    main = [index["url"] for index in indexes if index.get("default")]
    more = [index["url"] for index in indexes if not index.get("default")]
    main += [settings["index-url"]] if isinstance(settings.get("index-url"), str) else []
    more += texts(settings, ["extra-index-url"], where)
    links = texts(settings, ["find-links"], where)
    return Indexes(
        index_url=_place(main[0], folder) if main else None,
        extra_index_urls=tuple(_place(url, folder) for url in more),
        find_links=tuple(_place(url, folder) for url in links),
        no_index=settings.get("no-index") is True,
    )


def _has_url(index: object) -> bool:
    return isinstance(index, Mapping) and isinstance(index.get("url"), str)


def with_sources(requirements: Sequence[str], tables: Tables, folder: str, where: str) -> list[str]:
    """Return requirements with `[tool.uv.sources]` applied: those that name a path, a URL or a repository.

    Raises:
        EnvError: a source is of another kind.
    """
    sources = {plain_name(name): source for name, source in table(tables, ["tool", "uv", "sources"], where).items()}
    found = []
    for text in requirements:
        name, rest = re.fullmatch(r"\s*([\w.-]*\w)?(.*)", text, re.S).groups()  # type: ignore[union-attr]
        source = sources.get(plain_name(name or ""))
        if source is None or (isinstance(source, Mapping) and "index" in source):
            found.append(text)
            continue
        extras = re.match(r"\s*(\[[^\]]*\])?", rest)[1] or ""  # type: ignore[index]
        marker = f" ;{rest.partition(';')[2]}" if ";" in rest else ""
        found.append(f"{name}{extras} @ {_address(source, folder, f'{where}: tool.uv.sources.{name}')}{marker}")
    return found


def _address(source: object, folder: str, where: str) -> str:
    if isinstance(source, Mapping):
        if isinstance(source.get("path"), str):
            return PurePath(_place(source["path"], folder)).as_uri()
        if isinstance(source.get("url"), str):
            return str(source["url"])
        if isinstance(source.get("git"), str):
            revision = next((source[key] for key in ("rev", "tag", "branch") if key in source), None)
            return f"git+{source['git']}" + (f"@{revision}" if revision else "")
    raise EnvError(f"{where}: only path, url, git and index are understood in a script")


def _place(text: str, folder: str) -> str:
    return text if "://" in text else os.path.normpath(os.path.join(folder, os.path.expanduser(text)))
