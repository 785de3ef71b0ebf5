"""From an environment and the options of a pool to what one worker is made of."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import venvoy_worker

from ..envs import Env
from ..options import WorkerOptions, check_env_vars
from ..values.classes import Classes
from ..workers.start import Recipe
from .sources import Sources

_MAIN_FILE = str(Path(venvoy_worker.__file__).with_name("__main__.py"))

EncodedInitializer = tuple[int, str, tuple[str, bytes] | None, bytes]
"""Kind of target, its name, digest and body of what DEFINE would carry for it, and the encoded arguments."""


def make_recipe(
    env: Env,
    options: WorkerOptions,
    home: Path,
    module: str,
    initializer: EncodedInitializer | None,
    classes: Classes,
    sources: Sources,
    slot: int | None,
) -> Recipe:
    """Return the recipe of the worker of a slot, or, for None, of the template of all.

    Args:
        classes: what the host makes of classes in their replies.
        sources: what every worker has.

    Raises:
        TypeError, ValueError: a function for `env_vars` returned something else. Besides this, what it raises.
    """
    env_vars = options.env_vars
    if callable(env_vars):
        env_vars = env_vars(slot) if slot is not None else {}
        check_env_vars(env_vars)
    if slot is None:
        initializer = None
    return Recipe(
        python=env.python,
        environment=env.key,
        flags=_flags(env_vars),
        main_file=_MAIN_FILE,
        pycache=str(home / "pycache"),
        slot=slot,
        environ=_environ(env, env_vars),
        env_vars=frozenset(env_vars or ()),
        cwd=None if options.cwd is None else os.path.abspath(options.cwd),
        settings=lambda: _settings(env, options, home, module, initializer, classes, sources),
        options=options,
    )


def _flags(env_vars: Mapping[str, str] | None) -> tuple[str, ...]:
    """Isolated, unless `PYTHON*` variables are to take effect: then a clean environment does the isolating."""
    return ("-s",) if any(name.startswith("PYTHON") for name in env_vars or ()) else ("-I",)


def _environ(env: Env, env_vars: Mapping[str, str] | None) -> dict[str, str]:
    """Return the host's environment without what would lead another interpreter astray, plus what was asked for."""
    environ = env.environ()
    if env.is_current and _flags(env_vars) != ("-I",):
        for name in [name for name in environ if name.startswith("PYTHON")]:
            del environ[name]
    environ.update(env_vars or {})
    return environ


def _settings(
    env: Env,
    options: WorkerOptions,
    home: Path,
    module: str,
    initializer: EncodedInitializer | None,
    classes: Classes,
    sources: Sources,
) -> dict[str, Any]:
    """Return what HELLO tells a worker; made for each, since the host's own `sys.path` may have grown."""
    return {
        "is_home": classes.is_home,
        "classes": list(classes.declared),
        "host_version": sys.version.split()[0],
        "sys_path": [os.path.abspath(path) for path in sys.path] if env.is_current else None,
        "paths": list(options.paths),
        "preload": _preload(options, module),
        "module": module,
        "sources_folder": str(home / "sources"),
        "sources": list(sources.texts),
        "initializer": initializer,
        "segments": options.segments,
        "log_levels": _log_levels(),
        "attributes_output": options.attributes_output,
    }


def _preload(options: WorkerOptions, module: str) -> list[str]:
    if options.preload is not None:
        return list(options.preload)
    return [module] if module and options.start == "zygote" else []


def _log_levels() -> dict[str, int]:
    """Return the levels that this process has set, so that a worker makes no record that would be thrown away here."""
    levels = {"": logging.root.level}
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level:
            levels[name] = logger.level
    return levels
