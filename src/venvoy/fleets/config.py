"""`venvoy.toml`, or `[tool.venvoy]` in pyproject.toml: pools by name. Stateless.

What is wrong is said with the file, the key and what was expected. Paths are relative to the folder of the file.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from ..envs import EnvSpec
from ..errors import ConfigError, EnvError
from ..options import PoolOptions, WorkerOptions
from ..policies import RestartPolicy, ScalePolicy
from .pool_spec import PoolSpec

FILE, PROJECT, TABLE = "venvoy.toml", "pyproject.toml", "venvoy"
_SOURCES: dict[str, Callable[..., EnvSpec]] = {
    "project": EnvSpec.project,
    "requirements": EnvSpec.requirements,
    "script": EnvSpec.script,
    "auto": EnvSpec.auto,
    "existing": EnvSpec.existing,
}
_ENV = {field.name for field in fields(EnvSpec)} - {"kind", "source"}
_WORKER = {field.name for field in fields(WorkerOptions)}
_TABLES: dict[str, type] = {"scale": ScalePolicy, "restart": RestartPolicy}
_STORE = {"path", "ttl", "resume"}
_NO_TEXT = {"name", "progress", "on_event", "call_store"}  # options that a file cannot say, or says in another way
_OPTIONS = set(PoolOptions.__annotations__) - _NO_TEXT - set(_TABLES)
_BELOW = {"worker": _WORKER, **{name: {field.name for field in fields(kind)} for name, kind in _TABLES.items()}}
_POOL = {"module", "workers", "worker", "call_store", *_TABLES, *_OPTIONS, *_ENV, *_SOURCES}


def find_config(path: str | os.PathLike[str] | None = None) -> Path:
    """Return the file that describes a fleet.

    Args:
        path: the file or its folder; by default the working folder.

    Raises:
        ConfigError: there is none.
    """
    place = Path(os.path.abspath(os.path.expanduser(os.fspath(path or "."))))
    if not os.path.isdir(place):
        if not os.path.exists(place):
            raise ConfigError(f"{place}: there is no such file")
        return place
    if not os.access(place, os.X_OK):
        raise ConfigError(f"{place}: this folder cannot be looked into: Permission denied")
    for name in (FILE, PROJECT):
        found = place / name
        if os.path.isfile(found) and (name == FILE or TABLE in _read(found).get("tool", {})):
            return found
    example = "[pools.first]\n  packages = ['numpy<2']\n  module = 'numpy'"
    raise ConfigError(
        f"{place}: there is neither a {FILE} nor a [tool.{TABLE}] in a {PROJECT}; a {FILE} begins as\n  {example}"
    )


def read_config(path: str | os.PathLike[str] | None = None) -> dict[str, PoolSpec]:
    """Return the pools that a file describes, by name.

    Raises:
        ConfigError: the file cannot be read, or says what cannot be understood; file and key are named.
    """
    file = find_config(path)
    content, prefix = _read(file), ""
    if file.name == PROJECT:
        content, prefix = content.get("tool", {}).get(TABLE, {}), f"tool.{TABLE}."
    reader = _Reader(file)
    reader.check_table(prefix.rstrip("."), content, {"home", "pools"})
    pools = content.get("pools", {})
    reader.check_table(f"{prefix}pools", pools, None)
    if not pools:
        raise ConfigError(f"{file}: no pools: expected tables as [{prefix}pools.name]")
    common = {"home": reader.path(content["home"], f"{prefix}home")} if "home" in content else {}
    return {name: reader.pool(f"{prefix}pools.{name}", table, common) for name, table in pools.items()}


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            return tomllib.load(opened)
    except (OSError, ValueError) as error:  # a TOMLDecodeError says line and column
        raise ConfigError(f"{file}: {error}") from error


class _Reader:
    """Reads tables of one file.

    Args:
        file: for messages, and for what relative paths are relative to.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def pool(self, key: str, table: Any, common: dict[str, Any]) -> PoolSpec:
        """Return the pool of one table."""
        self.check_table(key, table, _POOL)
        arguments: dict[str, Any] = {**common, **{name: table[name] for name in _OPTIONS if name in table}}
        for name in ("module", "workers"):
            if name in table:
                arguments[name] = table[name]
        if "home" in table:
            arguments["home"] = self.path(table["home"], f"{key}.home")
        for name, kind in _TABLES.items():
            if name in table:
                arguments[name] = self._made(f"{key}.{name}", kind, table[name], {f.name for f in fields(kind)})
        if "worker" in table:
            arguments["worker"] = self._worker(f"{key}.worker", table["worker"])
        if "call_store" in table:
            arguments["store"] = self._store(f"{key}.call_store", table["call_store"])
        env = self._env(key, table)
        return self._guarded(key, lambda: PoolSpec(env, **arguments))  # type: ignore[no-any-return]

    def check_table(self, key: str, table: Any, known: set[str] | None) -> None:
        """Raise ConfigError unless it is a table of these keys; None allows any."""
        if not isinstance(table, dict):
            raise self._wrong(key, f"expected a table, not {table!r}")
        for name in table if known is not None else ():
            if name not in known:  # type: ignore[operator]
                close = difflib.get_close_matches(name, known or (), 1)
                hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(sorted(known or ()))}"
                if known is _POOL and (below := [table for table, names in _BELOW.items() if name in names]):
                    hint = f"it belongs below {below[0]!r}: {below[0]} = {{ {name} = … }}"
                raise self._wrong(f"{key}.{name}".lstrip("."), f"there is no such key; {hint}")

    def path(self, value: Any, key: str) -> str:
        """Return a path, which is relative to the folder of the file."""
        if not isinstance(value, str) or not value:
            raise self._wrong(key, f"expected a path in quotes, not {value!r}")
        return value if "://" in value else str(self._file.parent / os.path.expanduser(value))

    def _env(self, key: str, table: dict[str, Any]) -> EnvSpec | None:
        """Return the environment; None, the host's own, if nothing is said of it."""
        sources = [name for name in _SOURCES if name in table]
        if len(sources) > 1:
            raise self._wrong(f"{key}.{sources[1]}", f"{' and '.join(sources)} exclude each other")
        given = {name: table[name] for name in _ENV if name in table}
        for name in ("find_links",):
            if isinstance(given.get(name), list):
                given[name] = [self.path(place, f"{key}.{name}") for place in given[name]]
        if os.sep in str(given.get("python", "")):
            given["python"] = self.path(given["python"], f"{key}.python")
        if sources:
            place = self.path(table[sources[0]], f"{key}.{sources[0]}")
            return self._guarded(key, partial(_SOURCES[sources[0]], place, **given))  # type: ignore[no-any-return]
        return self._guarded(key, lambda: EnvSpec(**given)) if given else None

    def _worker(self, key: str, table: Any) -> WorkerOptions:
        self.check_table(key, table, _WORKER)
        given = dict(table)
        if isinstance(given.get("paths"), list):
            given["paths"] = [self.path(place, f"{key}.paths") for place in given["paths"]]
        if "cwd" in given:
            given["cwd"] = self.path(given["cwd"], f"{key}.cwd")
        return self._made(key, WorkerOptions, given, _WORKER)  # type: ignore[no-any-return]

    def _store(self, key: str, table: Any) -> Callable[[], Any]:
        from ..detached.sqlite_store import SqliteCallStore, check_options  # sqlite3, only for those who have one

        self.check_table(key, table, _STORE)
        if "path" not in table:
            raise self._wrong(f"{key}.path", "expected the path of a file")
        path = self.path(table["path"], f"{key}.path")
        rest = {name: table[name] for name in ("ttl", "resume") if name in table}
        self._guarded(key, lambda: check_options(**rest))
        return partial(SqliteCallStore, path, **rest)

    def _made(self, key: str, kind: type, table: Any, known: set[str]) -> Any:
        self.check_table(key, table, known)
        return self._guarded(key, lambda: kind(**table))

    def _guarded(self, key: str, make: Callable[[], Any]) -> Any:
        """Make something of values of the file; its errors say which value it was, but not where it stands."""
        try:
            return make()
        except (TypeError, ValueError, EnvError) as error:
            raise self._wrong(key, str(error)) from error

    def _wrong(self, key: str, what: str) -> ConfigError:
        return ConfigError(f"{self._file}: {key}: {what}" if key else f"{self._file}: {what}")


def defined_pools(pools: Mapping[str, PoolSpec], wanted: list[str]) -> dict[str, PoolSpec]:
    """Return the pools of these names, or all if none is named.

    Raises:
        ConfigError: there is none of a name.
    """
    for name in wanted:
        if name not in pools:
            raise ConfigError(f"there is no pool {name!r}; there are {', '.join(pools)}")
    return {name: pools[name] for name in wanted or pools}
