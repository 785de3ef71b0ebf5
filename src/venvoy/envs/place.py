"""Where one environment is on disk, whether it is there, and who may change it.

Owns, below the home folder:

    envs/<key>/             the environment; complete if and only if `ready.json` is in it
    locks/<key>.lock        whose kernel lock allows to build or remove the folder; its text is the last failure
    locks/<key>.lease       whose shared kernel lock users hold; its time is that of the last use
    trash/                  what is being deleted

Laws: `ready.json` is written last, by rename; a folder without it is removed, under the lock, by whoever builds
next; an environment is never moved while it can be used (its scripts and caches hold its path), never changed once it
is ready, and removed only while nobody holds a lease. Lock files are never deleted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from venvoy.envs.hashing import FORMAT_VERSION
from venvoy.envs.limit import Limit
from venvoy.envs.locks import exclusive
from venvoy.errors import EnvBuildError, EnvError

_CACHE_TAG = (  # https://bford.info/cachedir/: backups leave such folders out, and so does the hash of a source tree
    "Signature: 8a477f597d28d172789f06886806bc55\n# Environments that venvoy has built; it builds them again.\n"
)


def environment_python(folder: str) -> str:
    """Return the path of the interpreter in an environment's folder."""
    return os.path.join(folder, *(("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")))


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Turn a full disk, a missing permission and the like into an EnvBuildError that names the path."""
    try:
        yield
    except OSError as error:
        raise EnvBuildError(f"{path} cannot be written: {error}; VENVOY_HOME or home= give another folder") from error


def installed_packages(folder: str) -> list[str]:
    """Return `name==version` of what is in an environment; reading folder names starts no interpreter."""
    for path, folders, _ in os.walk(os.path.join(folder, "lib")):
        if os.path.basename(path) == "site-packages":
            names = (name.removesuffix(".dist-info") for name in folders if name.endswith(".dist-info"))
            return sorted("==".join(name.split("-", 1)) for name in names)
    return []


def files_of(folder: str) -> dict[tuple[int, int], int]:
    """Return the bytes on disk of each file below a folder, by device and inode: hard links to one file are one."""
    found = {}
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                facts = os.lstat(os.path.join(path, name))
            except OSError:
                continue  # just deleted
            found[facts.st_dev, facts.st_ino] = getattr(facts, "st_blocks", -(-facts.st_size // 512)) * 512
    return found


class Failure(NamedTuple):
    """A build that failed: when (seconds since the epoch), and with which words."""

    when: float
    message: str
    output: str


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
        self.lock_path = os.path.join(home, "locks", f"{key}.lock")
        self.lease_path = os.path.join(home, "locks", f"{key}.lease")

    # --- is it there? -------------------------------------------------------------------------

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

        found = {"packages": installed_packages(self.folder), "size": sum(files_of(self.folder).values())}
        about = {"format": FORMAT_VERSION, "key": self.key, **facts, **found, "created": time.time()}
        draft = f"{self.marker}.draft"
        with writing(self.folder):
            with open(draft, "w", encoding="utf-8") as file:
                json.dump(about, file, indent=1)
            os.replace(draft, self.marker)
        self.touch()

    def touch(self) -> None:
        """Note that it is used now; a failure to write is no failure."""
        try:
            os.close(os.open(self.lease_path, os.O_WRONLY | os.O_CREAT, 0o644))
            os.utime(self.lease_path)
        except OSError:
            pass  # a read-only home

    def last_used(self) -> float:
        """Return when it was used last, in seconds since the epoch; 0 where that is not known."""
        try:
            return os.stat(self.lease_path).st_mtime
        except OSError:
            return 0.0

    # --- changing it --------------------------------------------------------------------------

    @contextmanager
    def locked(self, limit: Limit | None, waiting: Callable[[], object] | None = None) -> Iterator[int | None]:
        """Hold the lock of this key, as `locks.exclusive` does, and give its descriptor.

        Raises:
            EnvBuildError: the limit was reached, or the home folder cannot be written.
            EnvError: this platform has no such lock.
        """
        self._make_folders()
        doing = f"waiting for somebody else who builds or removes {self.key}"
        with exclusive(self.lock_path, limit, doing, waiting) as descriptor:
            yield descriptor

    def _make_folders(self) -> None:
        with writing(self.home):
            for name in ("envs", "locks"):
                os.makedirs(os.path.join(self.home, name), exist_ok=True)
            tag = os.path.join(self.home, "CACHEDIR.TAG")
            if not os.path.exists(tag):
                with open(tag, "w", encoding="ascii") as file:
                    file.write(_CACHE_TAG)
            os.close(os.open(self.lock_path, os.O_RDWR | os.O_CREAT, 0o644))

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

    def discard(self) -> bool:
        """Remove the environment unless somebody uses it; only under the lock.

        It is renamed while no lease can be taken, and deleted afterwards: whoever takes one meets all or nothing.

        Returns:
            False where a live process holds a lease.

        Raises:
            EnvBuildError: something in it cannot be removed.
        """
        import shutil

        trash = os.path.join(self.home, "trash")
        doomed = os.path.join(trash, f"{self.key}-{os.getpid()}-{os.urandom(4).hex()}")
        with writing(self.folder):
            os.makedirs(trash, exist_ok=True)
            with exclusive(self.lease_path, None, "") as descriptor:
                if descriptor is None:
                    return False
                try:
                    os.rename(self.folder, doomed)
                except FileNotFoundError:
                    return True
            shutil.rmtree(doomed, ignore_errors=True)  # another collection may empty the trash at the same time
            if os.path.exists(doomed):
                shutil.rmtree(doomed)  # for the error
        return True

    def is_used(self) -> bool:
        """Whether a live process holds a lease."""
        if not os.path.exists(self.lease_path):
            return False
        try:
            with exclusive(self.lease_path, None, "") as descriptor:
                return descriptor is None
        except (OSError, EnvError):
            return False

    # --- the last failure ---------------------------------------------------------------------

    def remember_failure(self, error: EnvBuildError) -> None:
        """Write down why a build failed, for those who wait for it; only under the lock."""
        import json
        import time

        self._write_lock(json.dumps({"when": time.time(), "message": str(error), "output": error.output}))

    def forget_failure(self) -> None:
        """A build begins: what was does not count any more; only under the lock."""
        self._write_lock("")

    def failure(self) -> Failure | None:
        """Return the last failure, unless a build has begun since."""
        import json

        try:
            with open(self.lock_path, encoding="utf-8") as file:
                return Failure(**json.load(file))
        except (OSError, ValueError, TypeError):
            return None

    def _write_lock(self, text: str) -> None:
        try:
            if text or os.path.getsize(self.lock_path):
                with open(self.lock_path, "w", encoding="utf-8") as file:
                    file.write(text)
        except OSError:
            pass  # a full disk: whoever waits tries for himself
