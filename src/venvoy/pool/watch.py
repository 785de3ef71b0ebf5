"""Where a pool's own code lies, and the threads that reload the pool when it changes.

Owns the threads: one for folders, one for single files, which are found again in their folder when an editor has put a
new file in place of the old one. A change that comes while the workers are being replaced leads to one more round, so
the last one wins.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from ..envs import Env
from ..errors import PoolError, VenvoyError
from ..log import logger
from ..options import WorkerOptions

_DEBOUNCE = 150  # milliseconds of rest after a change; editors write in several steps
_RECENT = 3.0  # seconds: bytecode is matched to its source by whole seconds and the size
_MOST_FILES = 20_000  # looked at for recent changes


def code_places(options: WorkerOptions, module: str, env: Env) -> list[str]:
    """Return the folders and files a pool's own code is in.

    Args:
        options: of its workers; of the modules they preload, those that are installed count as others' code.
        module: of the pool, or "".
        env: of the pool; the host's own gives its `sys.path` to the workers.
    """
    paths = [os.fspath(path) for path in options.paths]
    folders = [*paths, *(sys.path if env.is_current else [])]
    places = [*paths, *_places_of(module, folders)]
    for name in options.preload or ():
        places += [place for place in _places_of(name, folders) if not _is_installed(place)]
    return [place for place in dict.fromkeys(places) if os.path.exists(place)]


def _places_of(module: str, folders: list[str]) -> list[str]:
    top = module.partition(".")[0]
    spec = PathFinder.find_spec(top, folders) if top else None
    if spec is not None and spec.submodule_search_locations:
        return list(spec.submodule_search_locations)
    return [spec.origin] if spec is not None and spec.origin else []


def _is_installed(place: str) -> bool:
    return "site-packages" in place or place.startswith(os.path.dirname(os.__file__) + os.sep)


def forget_bytecode(places: Iterable[str]) -> None:
    """Remove the bytecode of sources changed just now: Python would take it for current after an edit of equal size."""
    now = time.time()
    for file in _sources(places):
        try:
            if now - file.stat().st_mtime > _RECENT:
                continue
            for cached in file.parent.glob(f"__pycache__/{file.stem}.*.pyc"):
                cached.unlink(missing_ok=True)
        except OSError:  # not ours to remove, or gone
            pass


def _sources(places: Iterable[str]) -> Iterator[Path]:
    seen = 0
    for place in places:
        if os.path.isfile(place):
            yield Path(place)
            continue
        for folder, folders, files in os.walk(place):
            folders[:] = [name for name in folders if not name.startswith((".", "__")) and name != "site-packages"]
            for name in files:
                if name.endswith(".py"):
                    seen += 1
                    yield Path(folder, name)
            if seen > _MOST_FILES:
                return


class Watcher:
    """The threads, from their making to `stop()`.

    Args:
        places: folders and files.
        reload: replaces the workers; raises what stands in the way, which is logged.
        name: of the pool.

    Raises:
        PoolError: there is nothing to watch, or the package for it is not installed.
    """

    def __init__(self, places: list[str], reload: Callable[[], object], name: str) -> None:
        try:
            import watchfiles  # noqa: F401 - optional
        except ImportError:
            raise PoolError("watch=True needs the package watchfiles: pip install 'venvoy[watch]'") from None
        if not places:
            raise PoolError("watch=True has nothing to watch: give paths= or a module whose file can be found")
        self._reload = reload
        self._name = name
        self._stop = threading.Event()
        self._files = frozenset(place for place in places if os.path.isfile(place))
        folders = [place for place in places if place not in self._files]
        parents = list(dict.fromkeys(os.path.dirname(file) for file in self._files))
        for args in ((folders, True), (parents, False)):
            if args[0]:
                threading.Thread(target=self._run, args=args, name=f"venvoy-watch-{name}", daemon=True).start()

    def stop(self) -> None:
        """Let the threads end."""
        self._stop.set()

    def _run(self, folders: list[str], is_deep: bool) -> None:
        """Reload at each change in some folders; those below them included, or of the single files only."""
        from watchfiles import PythonFilter, watch

        watched = watch(
            *folders,
            recursive=is_deep,
            watch_filter=PythonFilter() if is_deep else lambda _, path: path in self._files,
            debounce=_DEBOUNCE,
            stop_event=self._stop,
            raise_interrupt=False,
        )
        for _ in watched:
            try:
                self._reload()
            except VenvoyError as error:
                if not self._stop.is_set():
                    logger.error("pool %r goes on with the code it has: %s", self._name, error)
            except Exception:  # a defect of ours; the next change is to be seen all the same
                logger.exception("pool %r could not be reloaded", self._name)
