"""The environments venvoy knows: `Env`, and `build` and `resolve`, which return one that is complete.

Owns no state but the home folder, whose environments are `place`s. Law: whoever asks for an environment gets one
that is ready, whatever other threads and processes do, or an error and nothing left behind.
"""

from __future__ import annotations

import os
import sys
from time import time
from typing import TYPE_CHECKING

from venvoy.envs.discovery import find_interpreter, installed_interpreters, recall_interpreter
from venvoy.envs.env import Env, EnvInfo
from venvoy.envs.garbage import Collected, collect, environments_in
from venvoy.envs.hashing import content_hash
from venvoy.envs.installer import Job, Progress, Tell
from venvoy.envs.interpreter import Interpreter, existing
from venvoy.envs.limit import Cancel, Limit
from venvoy.envs.locks import EnvLease
from venvoy.envs.pip_installer import build_with_pip
from venvoy.envs.place import Place, environment_python
from venvoy.envs.requirement import VersionRequest
from venvoy.envs.source import Source
from venvoy.envs.spec import EnvSpec
from venvoy.envs.uv_installer import build_with_uv, find_uv
from venvoy.errors import EnvBuildError, EnvError
from venvoy.log import logger

if TYPE_CHECKING:
    from pathlib import Path

FAILURE_MEMORY = 5.0  # seconds: long enough for all who ask at once, too short for a person to notice


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

    Examples:
        >>> env = vv.build(vv.EnvSpec(packages=[]), timeout=120)
        >>> with vv.Pool(env) as pool:
        ...     pool.eval("__import__('sys').prefix") == env.prefix
        True
    """
    if not isinstance(spec, EnvSpec):
        raise TypeError(f"build() takes an EnvSpec, not {type(spec).__name__}")
    return _build(spec, _home(home), Limit(timeout, cancel), progress or _silent)


def _build(spec: EnvSpec, home: str, limit: Limit, tell: Tell) -> Env:
    if spec.kind == "current":
        return _current()
    if spec.kind == "existing":
        return _found(spec, existing(str(spec.python), home=home, limit=limit))
    source = spec.read()
    interpreter = _interpreter(spec, source, home, limit, tell)
    place = Place(home, content_hash(spec.key_of(source), interpreter.identity))
    if place.is_ready():
        place.touch()
    else:
        _build_once(place, spec, source, interpreter, limit, tell)
    tell(Progress("ready", place.folder))
    return Env(place.key, environment_python(place.folder), interpreter.version, place.folder, home=home)


def _interpreter(spec: EnvSpec, source: Source, home: str, limit: Limit, tell: Tell) -> Interpreter:
    request = source.python if spec.python is None else str(spec.python)
    interpreter = recall_interpreter(request, home)
    if interpreter is None:
        tell(Progress("interpreter", f"looking for Python {request or 'of the host'}"))
        interpreter = find_interpreter(request, home=home, limit=limit)
    if source.python is not None and not VersionRequest.parse(source.python).matches(interpreter.numbers):
        raise EnvError(
            f"{spec.source} requires Python {source.python}, but {interpreter.path} is {interpreter.version}"
        )
    return interpreter


def _build_once(
    place: Place, spec: EnvSpec, source: Source, interpreter: Interpreter, limit: Limit, tell: Tell
) -> None:
    """Build what `place` is for, or wait until somebody else has done so, or has failed."""
    begun = time()
    with place.locked(limit, lambda: tell(Progress("waiting", f"somebody else builds {place.key}"))) as lock:
        if place.is_ready():
            return
        failure = place.failure()
        if failure is not None and min(begun, time() - FAILURE_MEMORY) <= failure.when <= time():
            # Nothing has changed since: the same resolver would say the same.
            ago = f"tried {time() - failure.when:.1f} s ago, and again not before {FAILURE_MEMORY:g} s have passed"
            raise EnvBuildError(f"{failure.message}\n({ago})", output=failure.output)
        assert lock is not None
        _make(place, Job(spec, source, interpreter, place.folder, limit, tell, [lock]))


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
    return _resolve(env, _home(home), Limit(timeout, cancel), progress or _silent)


def _resolve(env: EnvSpec | Env | str | os.PathLike[str] | None, home: str, limit: Limit, tell: Tell) -> Env:
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
    return _build(env, home, limit, tell)


def hold(
    env: EnvSpec | Env | str | os.PathLike[str] | None,
    *,
    home: str | os.PathLike[str] | None = None,
    progress: Tell | None = None,
    timeout: float | None = 600,
    cancel: Cancel | None = None,
) -> tuple[Env, EnvLease]:
    """Return the environment that is meant, as `resolve` does, and a lease on it: nobody has removed it in between.

    Raises:
        As `resolve`.
    """
    folder, limit, tell = _home(home), Limit(timeout, cancel), progress or _silent
    while True:
        found = _resolve(env, folder, limit, tell)
        try:
            return found, found.lease()
        except EnvError:
            if not isinstance(env, EnvSpec):
                raise
            limit.check("leasing an environment that others remove")


def environments(*, home: str | os.PathLike[str] | None = None) -> list[EnvInfo]:
    """Return what is known of every environment venvoy has built, the last used first.

    Args:
        home: where environments are kept; see `home_folder`.

    Examples:
        >>> env = vv.build(vv.EnvSpec(), home="environments")
        >>> [info.env == env for info in vv.environments(home="environments")]
        [True]
    """
    return environments_in(_home(home))


def collect_garbage(
    *,
    max_age: float | None = None,
    max_bytes: int | None = None,
    keep_last: int | None = None,
    home: str | os.PathLike[str] | None = None,
) -> Collected:
    """Remove environments beyond the limits, the least recently used first, and what broken builds have left.

    An environment that a live process uses (a pool, a command of `Env.run`, an `Env.lease`) is never touched. Without
    a limit no complete environment is removed.

    Args:
        max_age: seconds since the last use.
        max_bytes: bytes of all environments together; files they share count once.
        keep_last: so many of the last used stay in any case; given alone, all others go.
        home: where environments are kept; see `home_folder`.

    Raises:
        TypeError, ValueError: a limit is not a number, or is negative.
        EnvBuildError: something cannot be removed.

    Examples:
        >>> vv.collect_garbage(max_age=30 * 86400, max_bytes=20 << 30, home="environments")
        Collected(removed=(), freed=0)
    """
    for name, value in (("max_age", max_age), ("max_bytes", max_bytes), ("keep_last", keep_last)):
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise TypeError(f"{name} is a number, not {value!r}")
        if value is not None and not value >= 0:
            raise ValueError(f"{name} is a number from 0 up, not {value!r}")
    if isinstance(keep_last, float):
        raise TypeError(f"keep_last is a whole number, not {keep_last!r}")
    return collect(_home(home), max_age, max_bytes, keep_last)


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


def _make(place: Place, job: Job) -> None:
    """Build what `place` is for, or leave nothing; its lock is held."""
    spec, interpreter = job.spec, job.interpreter
    logger.info("building environment %s: %r with %s", place.key, spec, interpreter.path)
    try:
        place.forget_failure()
        place.clear()
        _install(job)
        if place.key != content_hash(spec.key, interpreter.identity):
            raise EnvBuildError(f"{spec!r}: a file changed while it was being built from; build again")
        place.declare_ready({"spec": repr(spec), "python": interpreter.version, "interpreter": interpreter.origin})
        if not place.is_ready():
            raise EnvBuildError(f"the installer made no interpreter in {place.folder}")
    except BaseException as error:
        try:
            place.clear()
        except EnvBuildError as left:  # incomplete all the same; the next builder removes it
            logger.warning("%s", left)
        if isinstance(error, EnvBuildError) and not job.limit.is_over():
            place.remember_failure(error)
        raise


def _install(job: Job) -> None:
    if job.spec.installer == "uv" or (job.spec.installer == "auto" and find_uv() is not None):
        build_with_uv(job)
    else:
        build_with_pip(job)
