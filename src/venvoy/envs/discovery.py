"""Which interpreter of this machine a request means: the host's own, PATH, pyenv's versions, uv's own.

Owns no state. Laws: every interpreter that is offered has been run and is what was asked for; nothing is
downloaded; the same request finds the same interpreter for as long as that one stays as it is.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator

from venvoy.envs.command import run
from venvoy.envs.hashing import content_hash
from venvoy.envs.interpreter import Interpreter, existing, host_base, is_script, recall, remember
from venvoy.envs.limit import Limit
from venvoy.envs.requirement import Version, VersionRequest
from venvoy.envs.settings import tool_environment
from venvoy.envs.uv_installer import find_uv
from venvoy.errors import EnvBuildError, EnvError, InterpreterNotFound

# A place to look: the path of something that should be an interpreter, and what its name says of its version.
Candidate = tuple[str, Version]


def recall_interpreter(request: str | None, home: str) -> Interpreter | None:
    """Return what the request led to last time, if that interpreter is unchanged; starts nothing."""
    if request is not None and os.path.isabs(request):
        return recall(home, content_hash("path", request))
    base = host_base()
    if request is None and base is not None:
        return recall(home, content_hash("path", base))
    return recall(home, _request_key(request))


def find_interpreter(request: str | None, *, home: str, limit: Limit) -> Interpreter:
    """Return the interpreter an environment shall be made from.

    Args:
        request: a version ("3.11", "3.11.7"), a specifier (">=3.9"), an absolute path, or None for the one the
            host's environment is made from.
        home: the home folder, where the answer is remembered.
        limit: when to give up.

    Raises:
        InterpreterNotFound: none of this version is on the machine; the message lists what is.
        EnvError: the path given is no CPython, or too old.
        EnvBuildError: the limit was reached.
    """
    if request is not None and os.path.isabs(request):
        return existing(request, home=home, limit=limit)
    base = host_base()
    if request is None and base is not None:
        return existing(base, home=home, limit=limit)
    key = _request_key(request)
    wanted = VersionRequest.parse(_request_text(request))
    interpreter = recall(home, key) or _search(wanted, home, limit)
    remember(home, key, interpreter)
    return interpreter


def installed_interpreters(*, home: str, limit: Limit) -> list[Interpreter]:
    """Return the usable interpreters of this machine, newest first; one of each version and place."""
    anything = VersionRequest.parse(">=0")
    found = {i.identity: i for i in _running(anything, home, limit, scripts=False)}
    return sorted(found.values(), key=lambda interpreter: interpreter.numbers, reverse=True)


def _request_text(request: str | None) -> str:
    return "{}.{}".format(*sys.version_info) if request is None else request


def _request_key(request: str | None) -> str:
    places = [os.environ.get(name) for name in ("PATH", "PYENV_ROOT", "HOME", "UV_PYTHON_INSTALL_DIR")]
    return content_hash("request", _request_text(request), places, host_base())


def _search(wanted: VersionRequest, home: str, limit: Limit) -> Interpreter:
    for interpreter in _running(wanted, home, limit, scripts=True):
        return interpreter
    found = installed_interpreters(home=home, limit=limit)
    listed = "".join(f"\n  {interpreter.version}  {interpreter.path}" for interpreter in found)
    raise InterpreterNotFound(
        f"python: no CPython {wanted.text} on this machine, and none is downloaded; install it, "
        f"or give the path of one. Found{listed or ' none'}"
    )


def _running(wanted: VersionRequest, home: str, limit: Limit, *, scripts: bool) -> Iterator[Interpreter]:
    """Yield the interpreters that run and are what is wanted; scripts (shims, wrappers) only as a last resort."""
    later: list[str] = []
    seen: set[str] = set()
    for path, hint in _candidates(limit):
        real = os.path.realpath(path)  # only to meet each interpreter once; it is run by its own path
        if not wanted.may_match(hint) or real in seen:
            continue
        seen.add(real)
        if is_script(path):
            later.append(path)
            continue
        yield from _if_wanted(path, wanted, home, limit)
    for path in later if scripts else ():
        yield from _if_wanted(path, wanted, home, limit)


def _if_wanted(path: str, wanted: VersionRequest, home: str, limit: Limit) -> Iterator[Interpreter]:
    try:
        interpreter = existing(path, home=home, limit=limit)
    except EnvError:
        limit.check(f"looking for Python {wanted.text}")
        return
    if wanted.matches(interpreter.numbers):
        yield interpreter


def _candidates(limit: Limit) -> Iterator[Candidate]:
    base = host_base()
    if base is not None:
        yield base, tuple(sys.version_info[:3])
    for folder in dict.fromkeys(os.environ.get("PATH", os.defpath).split(os.pathsep)):
        yield from _on_path(folder)
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    yield from _versions_folder(os.path.join(pyenv, "versions"), re.compile(r"(\d+)\.(\d+)\.(\d+)"))
    managed = _uv_folder(limit)
    if managed:
        yield from _versions_folder(managed, re.compile(r"cpython-(\d+)\.(\d+)\.(\d+)-[^+]*"))


def _on_path(folder: str) -> Iterator[Candidate]:
    found = _listed(folder, re.compile(r"python(?:(\d+)(?:\.(\d+))?)?").fullmatch)
    for hint, name in found:
        yield os.path.abspath(os.path.join(folder, name)), hint


def _versions_folder(folder: str, name: re.Pattern[str]) -> Iterator[Candidate]:
    for hint, entry in _listed(folder, name.fullmatch):
        # The name with the version is there in every layout, and says by itself what to expect.
        yield os.path.join(folder, entry, "bin", f"python{hint[0]}.{hint[1]}"), hint


def _listed(folder: str, read: Callable[[str], re.Match[str] | None]) -> list[tuple[Version, str]]:
    """Return the folder's entries whose names say a version (or nothing but python), newest first."""
    try:
        matches = [match for entry in os.listdir(folder or ".") if (match := read(entry))]
    except OSError:
        return []
    return sorted(((tuple(int(n) for n in m.groups() if n), m[0]) for m in matches), reverse=True)


def _uv_folder(limit: Limit) -> str | None:
    """Return the folder of the interpreters uv has installed, or None; its other finds are the same as ours."""
    uv = find_uv()
    if uv is None:
        return None
    try:
        argv = [uv, "python", "dir", "--no-config"]
        environment, doing = tool_environment(), "asking uv for its interpreters"
        status, output = run(argv, env=environment, cwd=os.sep, limit=limit.sooner(10), doing=doing)
    except EnvBuildError:
        limit.check("asking uv for its interpreters")
        return None
    return output.strip() if status == 0 else None
