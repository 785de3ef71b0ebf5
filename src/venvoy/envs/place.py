"""Where one environment is on disk, whether it is there, and who may change it.

Owns, below the home folder:

    envs/<key>/             the environment; complete if and only if `ready.json` is in it
    locks/<key>.lock        who holds its kernel lock may build or remove the folder; never deleted

Laws: `ready.json` is written last, by rename; a folder without it is removed, under the lock, by whoever builds
next; an environment is never moved (its scripts and caches hold its path) and never changed once it is ready.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from venvoy.envs.command import run
from venvoy.envs.limit import Limit
from venvoy.envs.spec import FORMAT_VERSION
from venvoy.errors import EnvBuildError, EnvError


def environment_python(folder: str) -> str:
    """Return the path of the interpreter in an environment's folder."""
    return os.path.join(folder, *(("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")))


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Turn a full disk, a missing permission and the like into an EnvBuildError that names the path."""
    try:
        yield
    except OSError as error:
        raise EnvBuildError(f"{path} cannot be written: {error}") from error


class Place:
    """Where the environment of one key belongs.

    Args:
        home: absolute path of the home folder.
        key: of the environment.
    """

    def __init__(self, home: str, key: str) -> None:
        self.home = home
        self.key = key
        self.folder = os.path.join(home, "envs", key)
        self.marker = os.path.join(self.folder, "ready.json")

    def about(self) -> dict[str, object] | None:
        """Return what the marker says; None where there is none, or one cut short by a power failure."""
        import json  # start-up time

        try:
            with open(self.marker, encoding="utf-8") as file:
                about = json.load(file)
        except (OSError, ValueError):
            return None
        return about if isinstance(about, dict) else None

    def is_ready(self) -> bool:
        """Whether the environment is complete, and the interpreter it was made from still installed."""
        return self.about() is not None and os.access(environment_python(self.folder), os.X_OK)

    def declare_ready(self, facts: dict[str, object]) -> None:
        """Write the marker, with the facts in it: the last thing a build does.

        Raises:
            EnvBuildError: it cannot be written.
        """
        import json
        import time

        about = {
            "format": FORMAT_VERSION,
            "key": self.key,
            **facts,
            "packages": sorted(self._installed()),
            "created": time.time(),
        }
        draft = f"{self.marker}.draft"
        with writing(self.folder):
            with open(draft, "w", encoding="utf-8") as file:
                json.dump(about, file, indent=1)
            os.replace(draft, self.marker)

    def _installed(self) -> Iterator[str]:
        """Yield `name==version` of what is in the environment; reading folder names starts no interpreter."""
        for path, folders, _ in os.walk(os.path.join(self.folder, "lib")):
            if os.path.basename(path) == "site-packages":
                metadata = (name for name in folders if name.endswith(".dist-info"))
                yield from ("==".join(name.removesuffix(".dist-info").split("-")) for name in metadata)
                return

    def clear(self) -> None:
        """Remove the folder and all that is in it; only under the lock.

        Raises:
            EnvBuildError: something in it cannot be removed.
        """
        import shutil

        with writing(self.folder):
            try:
                os.unlink(self.marker)  # first: an interrupted removal must not be taken for an environment
            except FileNotFoundError:
                pass
            if os.path.lexists(self.folder):
                shutil.rmtree(self.folder)

    @contextmanager
    def locked(self, limit: Limit, waiting: Callable[[], object] | None = None) -> Iterator[int]:
        """Hold the kernel's lock of this key and give its descriptor.

        flock, since it belongs to the open file and so to every process that inherits the descriptor: after a
        SIGKILL of the builder the lock is free when its installer is gone too. (A POSIX record lock would end with
        the builder; `filelock` takes this same lock but keeps the descriptor to itself.)

        Args:
            limit: when to give up.
            waiting: called once if somebody else holds it.

        Raises:
            EnvBuildError: the limit was reached, or the home folder cannot be written.
            EnvError: this platform has no such lock.
        """
        try:
            import fcntl
        except ImportError:
            raise EnvError("environments cannot be built on this platform; use EnvSpec.existing(path)") from None
        descriptor = self._open_lock()
        try:
            _take(descriptor, limit, waiting, self.key)
            yield descriptor
        finally:
            # Unlocked for every holder, not only closed: a fork of this process may have it too.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _open_lock(self) -> int:
        with writing(self.home):
            for name in ("envs", "locks"):
                os.makedirs(os.path.join(self.home, name), exist_ok=True)
            path = os.path.join(self.home, "locks", f"{self.key}.lock")
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def _take(descriptor: int, limit: Limit, waiting: Callable[[], object] | None, key: str) -> None:
    """Lock an open lock file, waiting for somebody else's lock as long as the limit allows.

    flock knows no deadline and cannot be polled, so a child process waits: the lock belongs to the open file, which it
    inherits, so what it gets is ours. It can be killed at the deadline.
    """
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        pass
    if waiting is not None:
        waiting()
    code = "import fcntl, sys; fcntl.flock(int(sys.argv[1]), fcntl.LOCK_EX)"
    argv = [sys.executable, "-I", "-S", "-c", code, str(descriptor)]
    doing = f"waiting for somebody else who builds or removes {key}"
    status, words = run(argv, env=dict(os.environ), cwd=os.sep, limit=limit, doing=doing, keep=[descriptor])
    if status:
        raise EnvBuildError(f"failed while {doing}: {words}", output=words)
