"""What an interpreter is, learnt by running it once: `Interpreter`, `probe`, and the memory of both.

Owns `interpreters/` in the home folder: one small JSON file per path or request, written atomically, never
locked; a lost or broken file costs one more run. A remembered interpreter counts only while the file at its path
is the one that was run (time, size, inode, `pyvenv.cfg`), so a cached environment resolves without any process.
Paths are kept as they are: the symbolic link in a virtual environment is the environment's interpreter.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from venvoy.envs.command import run
from venvoy.envs.hashing import content_hash
from venvoy.envs.limit import Limit
from venvoy.envs.requirement import MINIMUM, Version
from venvoy.envs.settings import tool_environment
from venvoy.errors import EnvError, InterpreterNotFound

_PROBE_TIMEOUT = 30.0
_MARK = "venvoy-interpreter:"
# Parses on any Python that knows -I, so that an old one is refused for its version and not for a syntax error.
_PROBE = f"""
import json, platform, sys, sysconfig
print("{_MARK}" + json.dumps(dict(
    path=sys.executable,
    version="%d.%d.%d" % sys.version_info[:3],
    implementation=sys.implementation.name,
    platform=sysconfig.get_platform(),
    abi=sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag,
    prefix=sys.prefix,
    base_prefix=sys.base_prefix,
)))
"""


class Interpreter(NamedTuple):
    """One interpreter of this machine.

    Args:
        path: absolute path that starts it; links are kept.
        version: three numbers, as "3.11.7".
        implementation: "cpython" for every interpreter that is accepted.
        platform: as `sysconfig.get_platform()` of the interpreter says.
        abi: the tag of its extension modules.
        prefix: its `sys.prefix`.
        base_prefix: its `sys.base_prefix`; other than the prefix in a virtual environment.
    """

    path: str
    version: str
    implementation: str
    platform: str
    abi: str
    prefix: str
    base_prefix: str

    @property
    def numbers(self) -> Version:
        """The version as three numbers."""
        return tuple(int(part) for part in self.version.split("."))

    @property
    def origin(self) -> str:
        """The path environments are made from.

        Links such as /usr/bin/python3 are followed, since they may lead to another version tomorrow and an
        environment would go along; the link of a virtual environment is not, since it is its interpreter.
        """
        return os.path.realpath(self.path) if self.prefix == self.base_prefix else self.path

    @property
    def identity(self) -> tuple[str, ...]:
        """What makes an environment built from it different from one built from another interpreter."""
        return (self.version, self.implementation, self.platform, self.abi, self.base_prefix)


def existing(path: str, *, home: str, limit: Limit) -> Interpreter:
    """Return the interpreter at a path, running it only if it is not remembered.

    Args:
        path: absolute path; a link is not followed.
        home: the home folder.
        limit: when to give up.

    Raises:
        InterpreterNotFound: there is no such file.
        EnvError: it is not executable, is no CPython, or is too old.
        EnvBuildError: the limit was reached.
    """
    memory_key = content_hash("path", path)
    interpreter = recall(home, memory_key)
    if interpreter is None:
        interpreter = accept(probe(path, limit))
        # A script (a pyenv shim, a wrapper) may start another interpreter tomorrow.
        if not is_script(path):
            remember(home, memory_key, interpreter)
    return interpreter


def accept(interpreter: Interpreter) -> Interpreter:
    """Return the interpreter if workers run on it.

    Raises:
        EnvError: it is not CPython, or older than the minimum.
    """
    least = ".".join(map(str, MINIMUM))
    if interpreter.numbers < MINIMUM:
        raise EnvError(f"{interpreter.path} is Python {interpreter.version}; CPython {least} is the minimum")
    if interpreter.implementation != "cpython":
        raise EnvError(f"{interpreter.path} is {interpreter.implementation}; only CPython {least}+ will do")
    return interpreter


def probe(path: str, limit: Limit) -> Interpreter:
    """Run the interpreter once and return what it says about itself, whatever its version.

    Raises:
        InterpreterNotFound: there is no such file.
        EnvError: it cannot be run, or is no Python.
        EnvBuildError: the limit was reached.
    """
    import json  # start-up time

    if not os.path.exists(path):
        dangling = " (a link that leads nowhere)" if os.path.islink(path) else ""
        name = os.path.basename(path)
        hint = "" if "python" in name else f"; if a package is meant, EnvSpec(packages=[{name!r}])"
        raise InterpreterNotFound(f"there is no interpreter at {path}{dangling}{hint}")
    if os.path.isdir(path) or not os.access(path, os.X_OK):
        raise EnvError(f"{path} is not an executable file, so it cannot be an interpreter")
    argv = [path, "-I", "-c", _PROBE]
    folder, soon = os.path.dirname(path), limit.sooner(_PROBE_TIMEOUT)
    status, output = run(argv, env=tool_environment(), cwd=folder, limit=soon, doing=f"asking {path}")
    answer = next((line for line in reversed(output.splitlines()) if line.startswith(_MARK)), None)
    if answer is None:
        least = ".".join(map(str, MINIMUM))
        raise EnvError(
            f"{path} does not answer as CPython {least} or later does (exit status {status}): {output.strip()[-2000:]}"
        )
    facts = json.loads(answer.removeprefix(_MARK))
    # A wrapper script may set things up that the interpreter needs: keep the path that was asked for.
    return Interpreter(**{**facts, "path": path})


def host_base() -> str | None:
    """Return the path of the interpreter behind the host's own environment, or None where it is unknown."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    return os.path.abspath(base) if base and os.path.isfile(base) else None


def is_script(path: str) -> bool:
    """Whether the file is a script that starts an interpreter, not the interpreter itself."""
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False


def recall(home: str, key: str) -> Interpreter | None:
    """Return the remembered interpreter if the file at its path is still the one that was run."""
    import json

    try:
        with open(_memory_path(home, key), encoding="utf-8") as file:
            entry = json.load(file)
        interpreter = Interpreter(**entry["interpreter"])
        return interpreter if entry["signature"] == _signature(interpreter.path) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # nothing, or something another format wrote: ask the interpreter again


def remember(home: str, key: str, interpreter: Interpreter) -> None:
    """Write down what a path or a request led to; a failure to write is no failure."""
    import json

    path = _memory_path(home, key)
    draft = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(draft, "x", encoding="utf-8") as file:
            json.dump({"signature": _signature(interpreter.path), "interpreter": interpreter._asdict()}, file)
        os.replace(draft, path)
    except OSError:
        pass  # a read-only home costs a run of the interpreter each time, nothing else


def _memory_path(home: str, key: str) -> str:
    return os.path.join(home, "interpreters", f"{key}.json")


def _signature(path: str) -> list[int]:
    found = os.stat(path)
    signature = [found.st_mtime_ns, found.st_size, found.st_ino]
    config = os.path.join(os.path.dirname(os.path.dirname(path)), "pyvenv.cfg")
    try:
        return [*signature, os.stat(config).st_mtime_ns]
    except OSError:
        return signature
