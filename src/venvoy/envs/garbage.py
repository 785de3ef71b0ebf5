"""Which environments there are, and which of them may go: `environments` and `collect_garbage`.

Owns no state. Laws: what a live process has leased is never touched; what is being built neither; least recently used
goes first; an environment is renamed before it is deleted, so nobody ever meets half of one.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any, NamedTuple

from venvoy.envs.env import Env, EnvInfo
from venvoy.envs.place import Place, environment_python, files_of


class Collected(NamedTuple):
    """What `collect_garbage` has removed: the environments, and how many bytes were `freed`, which only they had."""

    removed: tuple[EnvInfo, ...]
    freed: int


def environments_in(home: str) -> list[EnvInfo]:
    """Return what is known of every complete environment in a home folder, the last used first."""
    found = [info for place in _places(home) if (info := _info(place)) is not None]
    return sorted(found, key=lambda info: info.last_used, reverse=True)


def collect(home: str, max_age: float | None, max_bytes: int | None, keep_last: int | None) -> Collected:
    """Remove environments beyond the limits, and what broken builds and removals have left.

    Args:
        home: absolute path of the home folder.
        max_age: seconds since the last use.
        max_bytes: of all environments together.
        keep_last: so many of the last used stay in any case; given alone, all others go.

    Raises:
        EnvBuildError: something cannot be removed.
    """
    _sweep(home)
    infos = environments_in(home)
    spare = infos[keep_last or 0 :]
    is_alone = keep_last is not None and max_age is None and max_bytes is None
    space = _Space(infos) if max_bytes is not None else None
    removed = []
    freed = 0
    for info in reversed(spare):
        is_old = max_age is not None and _now() - info.last_used > max_age
        is_over = space is not None and max_bytes is not None and space.total > max_bytes
        if (is_old or is_over or is_alone) and _remove(info):
            removed.append(info)
            freed += info.size if space is None else space.without(info)
    return Collected(tuple(removed), freed)


class _Space:
    """The bytes that environments take together; files they share, by hard links, count once."""

    def __init__(self, infos: list[EnvInfo]) -> None:
        self._files = {info.env.key: files_of(info.env.prefix) for info in infos}
        self._owners = Counter(file for files in self._files.values() for file in files)
        self.total = sum({file: size for files in self._files.values() for file, size in files.items()}.values())

    def without(self, info: EnvInfo) -> int:
        """Take an environment out, and return the bytes that only it had."""
        files = self._files.pop(info.env.key)
        self._owners.subtract(files.keys())
        freed = sum(size for file, size in files.items() if not self._owners[file])
        self.total -= freed
        return freed


def _now() -> float:
    import time

    return time.time()


def _places(home: str) -> list[Place]:
    try:
        return [Place(home, name) for name in sorted(os.listdir(os.path.join(home, "envs")))]
    except OSError:
        return []  # nothing was ever built here


def _info(place: Place) -> EnvInfo | None:
    about: dict[str, Any] | None = place.about()
    if about is None:
        return None
    python, version = environment_python(place.folder), str(about.get("python", ""))
    return EnvInfo(
        env=Env(place.key, python, version, place.folder, home=place.home),
        spec=str(about.get("spec", "")),
        packages=tuple(about.get("packages", ())),
        size=int(about.get("size", 0)),
        created=float(about.get("created", 0)),
        last_used=place.last_used() or float(about.get("created", 0)),
        in_use=place.is_used(),
    )


def _remove(info: EnvInfo) -> bool:
    """Remove an environment unless it is in use, or has been used since it was looked at."""
    assert info.env.home is not None
    place = Place(info.env.home, info.env.key)
    if info.in_use:
        return False
    with place.locked(None) as lock:
        if lock is None or (place.last_used() or info.last_used) != info.last_used:
            return False
        return place.discard()


def _sweep(home: str) -> None:
    """Remove what broken builds and interrupted removals have left."""
    import shutil

    for place in _places(home):
        if place.about() is None:
            with place.locked(None) as lock:
                if lock is not None and place.about() is None:
                    place.clear()
    trash = os.path.join(home, "trash")
    for name in os.listdir(trash) if os.path.isdir(trash) else []:
        shutil.rmtree(os.path.join(trash, name), ignore_errors=True)  # others may do the same right now
