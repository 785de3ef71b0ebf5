"""`Env`: an environment that is there, what may be done with it, and what is known of it.

Owns no state; the folder belongs to its `Place`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from venvoy.envs.limit import Limit
from venvoy.envs.locks import EnvLease
from venvoy.envs.place import Place
from venvoy.envs.settings import program_environment
from venvoy.errors import EnvError

if TYPE_CHECKING:
    import subprocess

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

    def environ(self) -> dict[str, str]:
        """Return the process environment its programs run in.

        It is the host's without what belongs to the host's own environment (`PYTHON*`, `VIRTUAL_ENV`, `CONDA_*`, …),
        and `PATH` begins with the environment's programs. In the host's own environment nothing is left out.
        """
        if self.is_current:
            return {**os.environ, "PATH": self._path(os.environ.get("PATH", os.defpath))}
        in_venv = sys.prefix != sys.base_prefix and bool(sys.executable)
        environ = program_environment([os.path.dirname(os.path.abspath(sys.executable))] if in_venv else [])
        return {**environ, "PATH": self._path(environ["PATH"])}

    def _path(self, rest: str) -> str:
        return os.pathsep.join(filter(None, [os.path.dirname(self.python), rest]))

    def run(self, command: Sequence[str | os.PathLike[str]], /, **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run a command in it, as `uv run` does, and return how it ended.

        The command is looked up among the environment's programs first: `["python", "-c", "…"]` runs its interpreter.
        The environment is leased meanwhile.

        Args:
            command: the program and its arguments.
            options: keywords of `subprocess.run`; `env` replaces `environ()`, and its `PATH` is led by the same folder.

        Raises:
            EnvError: the environment was removed.
            FileNotFoundError: there is no such program. Besides these, what `subprocess.run` raises.

        Examples:
            >>> env = vv.build(vv.EnvSpec())
            >>> env.run(["python", "-c", "print('hello')"], capture_output=True, text=True).stdout.strip()
            'hello'
        """
        import subprocess  # start-up time

        if isinstance(command, (str, bytes)):
            raise TypeError(f"run() takes a list of a program and its arguments, not {type(command).__name__}")
        given = options.pop("env", None)
        environ = self.environ() if given is None else {**given, "PATH": self._path(given.get("PATH", os.defpath))}
        with self.lease():
            return subprocess.run(list(command), env=environ, **options)  # noqa: PLW1510 - for the caller to say

    def lease(self) -> EnvLease:
        """Return a lease: while it is held, by however many, nobody removes the environment.

        For an environment that venvoy did not build the lease holds nothing, since venvoy never removes those.

        Raises:
            EnvError: the environment was removed.
        """
        if self.home is None:
            return EnvLease(None)
        place = Place(self.home, self.key)
        try:
            lease = EnvLease(place.lease_path)
        except OSError as error:
            raise EnvError(f"the environment {self.prefix} cannot be leased: {error}") from error
        if not place.is_ready():
            lease.release()
            raise EnvError(f"the environment {self.prefix} is gone; build it again")
        return lease

    def remove(self) -> None:
        """Delete the environment from disk; a no-op if it is gone already.

        Raises:
            EnvError: venvoy did not build it, a live process uses it, or somebody builds it for more than a minute.
        """
        if self.home is None:
            raise EnvError(f"{self.prefix} was not built by venvoy, so it is not removed")
        place = Place(self.home, self.key)
        with place.locked(Limit(_REMOVE_TIMEOUT)):
            if not place.discard():
                raise EnvError(f"the environment {self.prefix} is in use by a live process, so it is not removed")


@dataclass(frozen=True, slots=True)
class EnvInfo:
    """What is known of an environment that venvoy built.

    Args:
        env: the environment.
        spec: the spec it was first built from, as text without credentials.
        packages: what was installed, as "name==version", sorted.
        size: bytes on disk; hard links to one file count once.
        created: seconds since the epoch.
        last_used: seconds since the epoch.
        in_use: a live process holds a lease on it.
    """

    env: Env
    spec: str
    packages: tuple[str, ...]
    size: int
    created: float
    last_used: float
    in_use: bool
