"""Where a module of the host is found, so that a worker of another environment can import it from there. Stateless."""

from __future__ import annotations

import os
import sys
import sysconfig
from importlib.machinery import ModuleSpec
from importlib.util import find_spec

Place = tuple[str, str | None, str | None]
"""Name of a module; file of it or of its top-level package, None for the worker's own; folder of those next to it."""


def find_module(name: str, path: str | os.PathLike[str] | None) -> Place:
    """Return where a module is.

    Args:
        path: its file, or the folder that has it; None looks where the host would.

    Raises:
        TypeError, ValueError: `name` is no name of a module.
        FileNotFoundError: there is nothing at `path`.
    """
    if not isinstance(name, str):
        raise TypeError(f"run_module() takes the name of a module, not {type(name).__name__}")
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"run_module() takes the name of a module, as in an import statement, not {name!r}")
    return _found(name) if path is None else _given(name, os.path.abspath(os.fspath(path)))


def _given(name: str, path: str) -> Place:
    if os.path.isdir(path):
        top = name.partition(".")[0]
        for file in (os.path.join(path, top, "__init__.py"), os.path.join(path, top + ".py")):
            if os.path.exists(file):
                return name, file, path
        return name, None, path
    if not os.path.exists(path):
        raise FileNotFoundError(f"run_module({name!r}): there is no {path}")
    if "." in name:
        raise ValueError(f"run_module({name!r}): for a module in a package, path is the folder that has the package")
    is_package = os.path.basename(path).startswith("__init__.")
    folder = os.path.dirname(path)
    return name, path, os.path.dirname(folder) if is_package else folder


def _found(name: str) -> Place:
    top = name.partition(".")[0]
    spec = _spec_of(top)
    if spec is None or top in sys.stdlib_module_names:
        return name, None, None
    file = spec.origin if spec.has_location else None
    places = list(spec.submodule_search_locations or ())
    if file is None and not places:
        return name, None, None
    folder = os.path.dirname(places[0] if places else str(file))
    return name, file, None if _is_shared(folder) else folder


def _spec_of(top: str) -> ModuleSpec | None:
    try:
        return find_spec(top)
    except (ImportError, ValueError):  # a module without a spec, such as a script's __main__
        return None


def _is_shared(folder: str) -> bool:
    """Return True for the folders of the host's own environment, whose other packages are not for every interpreter."""
    paths = sysconfig.get_paths()
    return any(os.path.realpath(folder) == os.path.realpath(paths[key]) for key in ("purelib", "platlib", "stdlib"))
