"""What to call: a name, or a function shipped as source.

Owns the modules made from source text.
"""

from __future__ import annotations

import _thread
import os
import sys

from . import sources

_is_shared = False  # several calls run at once: a module that is there may be half imported by another
_main_module = ""  # where bare names are looked up: the pool's `module`
_sources_folder = ""
_host_version = ""
_defined: dict[str, Definition] = {}  # by digest: encoded (text, file name, values), not decoded yet
_made: dict[str, object] = {}  # by digest: the modules of them
_users: dict[str, set[int]] = {}  # by digest: the lanes that may call it
_making = _thread.RLock()  # held while such a module is executed: another call waits for the whole of it
_writes = 0  # of source files, by this process
_MOST_SOURCES = 1024  # files kept in the sources folder


class NotFound(Exception):
    """There is no such module or attribute; becomes `TargetNotFound` at the host."""


class Gone(Exception):
    """There is no such object any more; becomes `StaleProxy` at the host."""


class NotParsable(Exception):
    """This Python cannot parse the text of a function; becomes `EncodingError` at the host."""


def configure(main_module: str, sources_folder: str, host_version: str) -> None:
    """Say where bare names live, where source texts may be written for processes that user code spawns, and for which
    Python they are written."""
    global _main_module, _sources_folder, _host_version
    _host_version = host_version
    _main_module = main_module
    _sources_folder = sources_folder


def share() -> None:
    """Let several calls run at once."""
    global _is_shared
    _is_shared = True


def by_name(name: str) -> Callable[..., object]:
    """Return what `"module:attr.sub"`, or a bare `"attr"` of the pool's sources or its module, names.

    Raises:
        NotFound: the module or the attribute does not exist. Errors of the module's own import pass through.
    """
    module_name, colon, path = name.partition(":")
    if not colon:
        module_name, path = _home_of(name), name
    found: object = sys.modules.get(module_name)
    if found is None or _is_shared:
        found = import_module(module_name)
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            found = _submodule(found, part, name, error)
    return found  # type: ignore[return-value]


def _home_of(name: str) -> str:
    """Return the module in which a bare name is to be looked up."""
    shared = sys.modules.get(sources.NAME)
    if shared is not None and (hasattr(shared, name.partition(".")[0]) or not _main_module):
        return sources.NAME
    if not _main_module:
        module, dot, attribute = name.rpartition(".")
        raise NotFound(
            "%r is a bare name, but this pool was given no module; use '%s:%s', Pool(env, 'module'), "
            "WorkerOptions(sources=[...]) or Pool.define(...)" % (name, module if dot else "module", attribute)
        )
    return _main_module


def import_module(name: str) -> object:
    """Import and return a module.

    Raises:
        NotFound: there is no such module. What the module itself raises while importing passes through.
    """
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise NotFound(_no_module(error.name)) from None
        raise
    return sys.modules[name]


def _submodule(owner: object, part: str, whole: str, missing: AttributeError) -> object:
    """Return a submodule that nobody has imported yet, as in `"scipy:linalg.norm"`.

    A lookup error inside a module's own `__getattr__` or a property is the user's error, not a missing name.
    """
    if _is_users(missing):
        raise missing
    if isinstance(owner, type(sys)) and hasattr(owner, "__path__"):
        name = "%s.%s" % (owner.__name__, part)
        try:
            __import__(name)
            return sys.modules[name]
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    import difflib  # start-up time: only wrong names need it

    close = difflib.get_close_matches(part, [name for name in dir(owner) if not name.startswith("__")])
    hint = "; did you mean %s?" % " or ".join(repr(name) for name in close) if close else _whereabouts(owner)
    raise NotFound("%r has no attribute %r (in %r)%s" % (_describe(owner), part, whole, hint))


def _is_users(error: AttributeError) -> bool:
    """Return True when the error comes from inside some Python code rather than from the lookup itself."""
    traceback = error.__traceback__
    inner = traceback.tb_next if traceback is not None else None
    return inner is not None and inner.tb_frame.f_code.co_name not in ("__getattr__", "__getattribute__")


def _whereabouts(owner: object) -> str:
    """Say which file a module is, since a file of the user's own may have the name of a library."""
    file = getattr(owner, "__file__", None) if isinstance(owner, type(sys)) else None
    return "; it is the module %s" % file if file else ""


def _describe(owner: object) -> str:
    return getattr(owner, "__name__", None) or type(owner).__name__


def _no_module(name: str) -> str:
    import difflib
    import pkgutil

    top = name.partition(".")[0]
    known = {module.name for module in pkgutil.iter_modules()} | set(sys.builtin_module_names)
    close = difflib.get_close_matches(top, known) if top not in known else []
    hint = "; did you mean %s?" % " or ".join(repr(found) for found in close) if close else ""
    return (
        "no module named %r in the worker's environment (%s)%s; "
        "give its folder with WorkerOptions(paths=[...]), or ship the function with by_source()"
        % (name, sys.prefix, hint)
    )


def define(digests: list[str], definition: Definition, lane: int = 0) -> None:
    """Remember source text for later calls; the first of them decodes and compiles it.

    Args:
        digests: that of the text, then those of texts that the host will not call again without a new definition.
        definition: returns (text, file name, values).
        lane: the call channel that it is for; others have their own.
    """
    with _making:
        _defined.setdefault(digests[0], definition)
        _users.setdefault(digests[0], set()).add(lane)
        for old in digests[1:]:
            users = _users.get(old, set())
            users.discard(lane)
            if not users:
                for table in (_users, _defined, _made):
                    table.pop(old, None)
                sys.modules.pop("venvoy_source_" + old, None)


def by_source(name: str) -> Callable[..., object]:
    """Return the function of `"digest:qualname"`, from text that was defined before.

    Raises:
        NotParsable: this Python cannot parse the text. Errors of executing it pass through.
    """
    digest, _, path = name.partition(":")
    found = _made.get(digest) or _make_module(digest)
    for part in path.split("."):
        found = getattr(found, part)
    return found  # type: ignore[return-value]


def _make_module(digest: str) -> object:
    with _making:
        if digest not in _made:  # by another call meanwhile
            _made[digest] = _execute(digest)
        return _made[digest]


def _execute(digest: str) -> object:
    text, filename, values = _defined[digest]()
    unseen = values.pop("_venvoy_unseen", ())
    name = "venvoy_source_" + digest
    module = type(sys)(name)
    module.__file__ = _write_module(name, text, values)
    module.__dict__.update(values)
    try:
        code = compile(text, filename, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise _not_parsable(error) from None
    for place in ((filename, 1, text), *unseen):
        show_lines_of(*place)
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)
    except SyntaxError as error:  # parts of the text are compiled by the text, to keep their line numbers
        del sys.modules[name]
        raise _not_parsable(error) from None
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _not_parsable(error: SyntaxError) -> NotParsable:
    versions = (_host_version, sys.version.split()[0], error)
    return NotParsable(
        "the function's source, written for Python %s, does not parse on the worker's Python %s: %s" % versions
    )


def show_lines_of(filename: str, first: int, text: str) -> None:
    """Let tracebacks show the lines of text whose file is not on this side, such as a notebook's.

    Args:
        first: the number of the text's first line in that file; what is known of other lines stays.
    """
    if os.path.exists(filename):
        return
    import linecache

    entry = linecache.cache.get(filename)
    lines = entry[2] if entry is not None and len(entry) == 4 else []
    shown = [line + "\n" for line in text.splitlines()]
    lines = lines + ["\n"] * (first - 1 + len(shown) - len(lines))
    lines[first - 1 : first - 1 + len(shown)] = shown
    linecache.cache[filename] = (sum(map(len, lines)), None, lines, filename)


def _write_module(name: str, text: str, values: dict[str, object]) -> str | None:
    """Write the module as a real file, for processes that user code spawns and that import it by name."""
    import _pickle

    path = os.path.join(_sources_folder, name + ".py")
    if not _sources_folder:
        return None
    if _sources_folder not in sys.path:
        sys.path.append(_sources_folder)
    prefix = (
        "import pickle as _p; globals().update(_p.loads(%r)); del _p; " % _pickle.dumps(values, 4) if values else ""
    )
    draft = "%s.%d" % (path, os.getpid())
    try:
        os.makedirs(_sources_folder, mode=0o700, exist_ok=True)
        _prune_sources()
        with open(draft, "w", encoding="utf-8") as file:
            file.write(_insert(prefix, text))
        os.replace(draft, path)
    except OSError:
        return None  # a read-only or full disk: only processes spawned by user code will miss it
    return path


def _prune_sources() -> None:
    """Keep the newest files only: functions with ever new values in them make ever new modules."""
    global _writes
    _writes += 1
    if _writes % (_MOST_SOURCES // 4):
        return
    paths = [os.path.join(_sources_folder, name) for name in os.listdir(_sources_folder)]
    for path in sorted((path for path in paths if path.endswith(".py")), key=os.path.getmtime)[:-_MOST_SOURCES]:
        os.unlink(path)


def _insert(prefix: str, text: str) -> str:
    """Put a statement after the `__future__` imports, which must come first."""
    if not prefix:
        return text
    lines = text.split("\n")
    for index, line in enumerate(lines):
        if line.startswith("from __future__"):
            lines[index] = "%s; %s" % (line, prefix.rstrip(" ;"))
            return "\n".join(lines)
    return prefix.rstrip(" ;") + "\n" + text


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Tuple

    Definition = Callable[[], Tuple[str, str, Dict[str, Any]]]
