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
from ..options import WorkerOptions
from ..worker_start import Recipe

_MAIN_FILE = str(Path(venvoy_worker.__file__).with_name("__main__.py"))
_NOT_INHERITED = (
    "VIRTUAL_ENV",
    "VIRTUAL_ENV_PROMPT",
    "__PYVENV_LAUNCHER__",
    "UV_PROJECT_ENVIRONMENT",
)

EncodedInitializer = tuple[int, str, tuple[str, bytes] | None, bytes]
"""Kind of target, its name, digest and body of what DEFINE would carry for it, and the encoded arguments."""


def make_recipe(
    env: Env,
    options: WorkerOptions,
    home: Path,
    module: str,
    initializer: EncodedInitializer | None,
) -> Recipe:
    """Return the recipe of a pool's workers."""
    return Recipe(
        python=env.python,
        environment=env.key,
        flags=_flags(options.env_vars),
        main_file=_MAIN_FILE,
        pycache=str(home / "pycache"),
        environ=_environ(env, options.env_vars),
        cwd=None if options.cwd is None else os.path.abspath(options.cwd),
        settings=lambda: _settings(env, options, home, module, initializer),
        keep=options.output_tail_bytes,
        attributes=callable(options.output) or options.output == "log",
        grace_period=options.grace_period,
        start_timeout=options.start_timeout,
    )


def _flags(env_vars: Mapping[str, str] | None) -> tuple[str, ...]:
    """Isolated, unless `PYTHON*` variables are to take effect: then a clean environment does the isolating."""
    return ("-s",) if any(name.startswith("PYTHON") for name in env_vars or ()) else ("-I",)


def _environ(env: Env, env_vars: Mapping[str, str] | None) -> dict[str, str]:
    """Return the host's environment without what would lead another interpreter astray, plus what was asked for."""
    environ = dict(os.environ)
    if not env.is_current:
        for name in [name for name in environ if name in _NOT_INHERITED or name.startswith(("PYTHON", "CONDA_"))]:
            del environ[name]
    elif _flags(env_vars) != ("-I",):
        for name in [name for name in environ if name.startswith("PYTHON")]:
            del environ[name]
    scripts = os.path.dirname(env.python)
    environ["PATH"] = os.pathsep.join(filter(None, [scripts, environ.get("PATH", "")]))
    environ.update(env_vars or {})
    return environ


def _settings(
    env: Env, options: WorkerOptions, home: Path, module: str, initializer: EncodedInitializer | None
) -> dict[str, Any]:
    """Return what HELLO tells a worker; made for each, since the host's own `sys.path` may have grown."""
    return {
        "host_version": sys.version.split()[0],
        "sys_path": [os.path.abspath(path) for path in sys.path] if env.is_current else None,
        "paths": list(options.paths),
        "module": module,
        "sources_folder": str(home / "sources"),
        "initializer": initializer,
        "log_levels": _log_levels(),
    }


def _log_levels() -> dict[str, int]:
    """Return the levels that this process has set, so that a worker makes no record that would be thrown away here."""
    levels = {"": logging.root.level}
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level:
            levels[name] = logger.level
    return levels
