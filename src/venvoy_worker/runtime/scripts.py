"""Scripts and modules as objects: run from their text, or imported from where the host has found them. Stateless."""

from __future__ import annotations

import sys

from . import targets


def run(text: str, file: str) -> object:
    """Run the text of a script as `__main__`, and return that module.

    Args:
        file: what tracebacks call it.
    """
    code = compile(text, file, "exec", dont_inherit=True)
    targets.show_lines_of(file, 1, text)
    module = type(sys)("__main__")
    sys.modules["__main__"] = module  # where pickles and processes that the script forks look for what it defines
    exec(code, module.__dict__)
    return module


def load(name: str, file: str | None, folder: str | None) -> object:
    """Import a module, from a given file where there is one, and return it.

    Args:
        file: of the module, or, if that is in a package, of its top-level package; None for this Python's own.
        folder: where modules next to it are found, after those of the environment.

    Raises:
        NotFound: there is no such module.
    """
    if folder is not None and folder not in sys.path:
        sys.path.append(folder)
    top = name.partition(".")[0]
    if file is not None and top not in sys.modules:
        _load_file(top, file)
    return targets.import_module(name)


def _load_file(name: str, file: str) -> None:
    import os
    from importlib.util import module_from_spec, spec_from_file_location

    places = [os.path.dirname(file)] if os.path.basename(file).startswith("__init__.") else None
    spec = spec_from_file_location(name, file, submodule_search_locations=places)
    if spec is None or spec.loader is None:
        raise targets.NotFound("%r is no file of a Python module" % file)
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
