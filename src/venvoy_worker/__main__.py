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
from _frozen_importlib_external import spec_from_file_location  # type: ignore[import-not-found]


def load(folder, arguments):  # type: ignore[no-untyped-def]
    """Import this package from its folder without putting anything on `sys.path`."""
    spec = spec_from_file_location(
        "venvoy_worker", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
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
    folder = os.path.dirname(os.path.abspath(__file__))
    if sys.path and sys.path[0] == folder:  # without -I, Python puts the script's folder first
        del sys.path[0]
    # A foreign interpreter cannot write byte code into the host's site-packages, and ought not to.
    pycache = None if "--stdio-json" in arguments else arguments.pop(0)
    previous, sys.pycache_prefix = sys.pycache_prefix, pycache or sys.pycache_prefix
    try:
        main = load(folder, arguments)
    finally:
        sys.pycache_prefix = previous
    # User code, and multiprocessing inside it, must find a __main__ that is not this file.
    sys.modules["__main__"] = type(sys)("__main__")
    sys.argv = [""]
    main(arguments)


if __name__ == "__main__":
    run(sys.argv[1:])
