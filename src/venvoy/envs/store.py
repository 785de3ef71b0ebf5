"""The environments venvoy knows: `Env`, and `build` and `resolve`, which return one that is complete.

Owns no state but the home folder, whose environments are `place`s. Law: whoever asks for an environment gets one
that is ready, whatever other threads and processes do, or an error and nothing left behind.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from venvoy.envs.discovery import find_interpreter, installed_interpreters, recall_interpreter
from venvoy.envs.installer import Progress, Tell, UvInstaller
from venvoy.envs.interpreter import Interpreter, existing
from venvoy.envs.limit import Cancel, Limit
from venvoy.envs.place import Place, environment_python
from venvoy.envs.spec import EnvSpec, content_hash
from venvoy.errors import EnvBuildError, EnvError
from venvoy.log import logger

if TYPE_CHECKING:
    from pathlib import Path

_REMOVE_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Env:
    """An environment that is there and complete.

    Args:
        key: names it uniquely; the folder's name where venvoy built it.
        python: absolute path of its interpreter; in a virtual environment a link, which is not followed.
        version: of its interpreter, as "3.11.7".
        prefix: its `sys.prefix`.
        is_current: the host itself runs in it.
        home: the home folder it was built in; None where somebody else made it.
    """

    key: str
    python: str
    version: str
    prefix: str
    is_current: bool = False
    home: str | None = None

    def remove(self) -> None:
        """Delete the environment from disk; a no-op if it is gone already.

        Raises:
            EnvError: venvoy did not build it, or somebody builds it for more than a minute.
        """
        if self.home is None:
            raise EnvError(f"{self.prefix} was not built by venvoy, so it is not removed")
        place = Place(self.home, self.key)
        with place.locked(Limit(_REMOVE_TIMEOUT)):
            place.clear()


def home_folder(home: str | os.PathLike[str] | None = None) -> Path:
    """Return the absolute folder everything is kept in: the argument, `VENVOY_HOME`, or the user's cache."""
    from pathlib import Path  # start-up time

    return Path(_home(home))


def _home(home: str | os.PathLike[str] | None) -> str:
    given = home if home is not None else os.environ.get("VENVOY_HOME")
    if given:
        return os.path.abspath(os.path.expanduser(given))
    if sys.platform == "linux":
        # What platformdirs returns, without the 20 ms it takes to import.
        cache = os.environ.get("XDG_CACHE_HOME", "").strip() or os.path.expanduser("~/.cache")
        return os.path.join(os.path.abspath(cache), "venvoy")
    else:  # noqa: RET505 - the type checker takes one platform's branch only, and says so unless it is a branch
        from platformdirs import user_cache_dir

        return user_cache_dir("venvoy", appauthor=False)


def interpreters(*, home: str | os.PathLike[str] | None = None, timeout: float = 60) -> list[Interpreter]:
    """Return the interpreters of this machine that environments can be made from, newest first.

    Args:
        home: where what is known of them is kept; see `home_folder`.
        timeout: seconds for all of them.

    Raises:
        EnvBuildError: they took longer.
    """
    return installed_interpreters(home=_home(home), limit=Limit(timeout))


def build(
    spec: EnvSpec,
    *,
    home: str | os.PathLike[str] | None = None,
    progress: Tell | None = None,
    timeout: float | None = 600,
    cancel: Cancel | None = None,
) -> Env:
    """Return the environment a spec describes, building it first unless it is there already.

    However many threads and processes ask at once, one builds and the others wait for it.

    Args:
        spec: what it shall contain.
        home: where environments are kept; see `home_folder`.
        progress: called in this thread with what is going on; an exception from it ends the build.
        timeout: seconds for everything, waiting for other processes included; None waits for ever.
        cancel: set it from another thread to stop the build at once.

    Raises:
        EnvBuildError: the installer failed (its words are in the message, all of them in `output`), the deadline
            passed, or it was cancelled; nothing half-built is left.
        InterpreterNotFound: no interpreter of the wanted version is on this machine.
        EnvError: the interpreter given cannot be used.
    """
    if not isinstance(spec, EnvSpec):
        raise TypeError(f"build() takes an EnvSpec, not {type(spec).__name__}")
    limit = Limit(timeout, cancel)
    tell = progress or _silent
    if spec.kind == "current":
        return _current()
    folder = _home(home)
    if spec.kind == "existing":
        return _found(spec, existing(str(spec.python), home=folder, limit=limit))
    request = None if spec.python is None else str(spec.python)
    interpreter = recall_interpreter(request, folder)
    if interpreter is None:
        tell(Progress("interpreter", f"looking for Python {request or 'of the host'}"))
        interpreter = find_interpreter(request, home=folder, limit=limit)
    place = Place(folder, content_hash(spec.key, interpreter.identity))
    if not place.is_ready():
        with place.locked(limit, lambda: tell(Progress("waiting", f"somebody else builds {place.key}"))) as lock:
            if not place.is_ready():
                installer = UvInstaller(spec, place.folder, limit, tell, [lock])
                _make(place, spec, interpreter, installer)
    tell(Progress("ready", place.folder))
    python = environment_python(place.folder)
    return Env(place.key, python, interpreter.version, place.folder, home=folder)


def resolve(
    env: EnvSpec | Env | str | os.PathLike[str] | None,
    *,
    home: str | os.PathLike[str] | None = None,
    progress: Tell | None = None,
    timeout: float | None = 600,
    cancel: Cancel | None = None,
) -> Env:
    """Return the environment that is meant, building it if need be.

    Args:
        env: a spec, an environment, the path of an interpreter or of a virtual environment's folder, or None
            for the host's own environment.
        home: as in `build`, as are `progress`, `timeout` and `cancel`.

    Raises:
        TypeError: `env` is none of these.
        EnvError: the environment was removed, or as `build` says.
    """
    if isinstance(env, Env):
        if not os.path.exists(env.python):
            raise EnvError(f"the environment {env.prefix} is gone; build it again")
        return env
    if env is None:
        env = EnvSpec.current()
    elif isinstance(env, (str, os.PathLike)):
        env = EnvSpec.existing(env)
    elif not isinstance(env, EnvSpec):
        raise TypeError(f"an environment is an EnvSpec, an Env, a path or None, not {type(env).__name__}")
    return build(env, home=home, progress=progress, timeout=timeout, cancel=cancel)


def _silent(_: Progress) -> None:
    pass


def _current() -> Env:
    if not sys.executable:
        raise EnvError("the host does not know its own interpreter (sys.executable is empty); give a path")
    version = "{}.{}.{}".format(*sys.version_info)
    return Env(EnvSpec.current().key, os.path.abspath(sys.executable), version, sys.prefix, is_current=True)


def _found(spec: EnvSpec, interpreter: Interpreter) -> Env:
    is_current = os.path.realpath(interpreter.prefix) == os.path.realpath(sys.prefix)
    key = content_hash(spec.key, interpreter.identity)
    return Env(key, interpreter.path, interpreter.version, interpreter.prefix, is_current)


def _make(place: Place, spec: EnvSpec, interpreter: Interpreter, installer: UvInstaller) -> None:
    """Build what `place` is for, or leave nothing; its lock is held."""
    logger.info("building environment %s: %r with %s", place.key, spec, interpreter.path)
    try:
        place.clear()
        installer.build(interpreter.origin)
        place.declare_ready({"spec": repr(spec), "python": interpreter.version, "interpreter": interpreter.origin})
        if not place.is_ready():
            raise EnvBuildError(f"uv made no interpreter in {place.folder}")
    except BaseException:
        try:
            place.clear()
        except EnvBuildError as error:  # incomplete all the same; the next builder removes it
            logger.warning("%s", error)
        raise
