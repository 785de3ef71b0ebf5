"""Run by path on any interpreter: load this package by path, leave `sys.path` clean, serve.

    python -I .../venvoy_worker/__main__.py PYCACHE CALL_FD CONTROL_FD LIFELINE_FD STATUS_FD [template]
    python -I .../venvoy_worker/__main__.py --stdio-json [--max-workers N] [--source FILE]...

This file must be readable by every Python, so that one which is too old can say so.
"""

import sys

if sys.version_info < (3, 8) or sys.implementation.name != "cpython":
    sys.stderr.write(
        "venvoy: a worker needs CPython 3.8 or later; %s is %s\n" % (sys.executable, sys.version.replace("\n", " "))
    )
    sys.exit(3)

import os
from _frozen_importlib import module_from_spec  # type: ignore[import-not-found]
from _frozen_importlib_external import (  # type: ignore[import-not-found]
    FileFinder,
    SourceFileLoader,
    spec_from_file_location,
)

pycache = ""


class Loader(SourceFileLoader):  # type: ignore[misc]
    """Keeps byte code of this package in a folder of its own, now and when a module is imported later.

    A foreign interpreter cannot write into the host's site-packages, and ought not to.
    """

    def get_data(self, path):  # type: ignore[no-untyped-def]
        return super().get_data(pycache + path if path.endswith(".pyc") else path)

    def set_data(self, path, data, _mode=0o666):  # type: ignore[no-untyped-def]
        super().set_data(pycache + path, data, _mode=_mode)


def load(folder, arguments):  # type: ignore[no-untyped-def]
    """Import this package from its folder without putting anything on `sys.path`."""
    for part in ("", "/contract", "/runtime"):
        sys.path_importer_cache[folder + part] = FileFinder(folder + part, (Loader, [".py"]))
    file = os.path.join(folder, "__init__.py")
    loader = Loader("venvoy_worker", file)
    spec = spec_from_file_location("venvoy_worker", file, loader=loader, submodule_search_locations=[folder])
    module = module_from_spec(spec)
    sys.modules["venvoy_worker"] = module
    spec.loader.exec_module(module)
    if "--stdio-json" in arguments:
        from venvoy_worker.runtime.stdio_json import main
    elif arguments[-1] == "template":
        from venvoy_worker.runtime.template import main
    else:
        from venvoy_worker.runtime.serve import main
    return main


def run(arguments):  # type: ignore[no-untyped-def]
    global pycache
    folder = os.path.dirname(os.path.abspath(__file__))
    if sys.path and sys.path[0] == folder:  # without -I, Python puts the script's folder first
        del sys.path[0]
    pycache = "" if "--stdio-json" in arguments else arguments.pop(0)
    main = load(folder, arguments)
    # User code, and multiprocessing inside it, must find a __main__ that is not this file.
    sys.modules["__main__"] = type(sys)("__main__")
    sys.argv = [""]
    main(arguments)


if __name__ == "__main__":
    run(sys.argv[1:])
