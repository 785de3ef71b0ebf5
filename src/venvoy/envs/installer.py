"""Make an environment's folder: what all installers have in common, and which one is taken.

Owns nothing but the folder it is given, for the time of the call; whether the folder is complete is for the store to
say. Laws: an installer sees no setting of the host's own environment; credentials reach it only through its process
environment and files only we can read, never through its arguments, which every user of the machine can see; a
project is never written to.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from venvoy.envs.command import run
from venvoy.envs.interpreter import Interpreter
from venvoy.envs.limit import Limit
from venvoy.envs.place import installed_packages, writing
from venvoy.envs.settings import redact, secrets_of
from venvoy.envs.source import Source
from venvoy.envs.spec import EnvSpec
from venvoy.errors import EnvBuildError
from venvoy.log import logger

_SETUPTOOLS = "[egg_info]\negg_base = {0}\n[build]\nbuild_base = {0}/build\n"


class Progress(NamedTuple):
    """What a build is doing: its phase (waiting, interpreter, create, install, ready) and one line of text."""

    phase: str
    message: str


Tell = Callable[[Progress], object]


@dataclass(frozen=True, slots=True)
class Job:
    """One environment to be made.

    Args:
        spec: what to install.
        source: what its files say.
        interpreter: what to make it from.
        folder: absolute path of the environment; it must not exist.
        limit: when to give up.
        tell: gets every line the installer prints.
        keep: descriptors the installer inherits, so that the folder's lock lives as long as it does.
    """

    spec: EnvSpec
    source: Source
    interpreter: Interpreter
    folder: str
    limit: Limit
    tell: Tell
    keep: Sequence[int] = ()

    @property
    def scratch(self) -> str:
        """The folder for what only the build needs, inside the environment's."""
        return os.path.join(self.folder, ".venvoy-build")

    @property
    def packages(self) -> tuple[str, ...]:
        """What is resolved together with the files."""
        added = () if self.source.lock else self.spec.packages
        return (*self.source.packages, *added)

    @property
    def additions(self) -> tuple[str, ...]:
        """What is added once the versions of a lock are in place, which it must not move."""
        return tuple(self.spec.packages) if self.source.lock else ()

    @property
    def constraints(self) -> tuple[str, ...]:
        """What narrows versions down."""
        return (*self.source.constraints, *self.spec.constraints)

    @property
    def index_url(self) -> str | None:
        """The index that replaces the configured one."""
        return self.spec.index_url or self.source.indexes.index_url

    @property
    def extra_index_urls(self) -> list[str]:
        """Further indexes."""
        return [*self.spec.extra_index_urls, *self.source.indexes.extra_index_urls]

    @property
    def find_links(self) -> list[str]:
        """Folders and pages that list packages."""
        return [*(os.fspath(place) for place in self.spec.find_links), *self.source.indexes.find_links]

    @property
    def target(self) -> str:
        """The project to install, with its extras; only where the spec has one."""
        assert self.source.project is not None
        extras = ",".join(self.source.project.extras)
        return f"{self.source.project.folder}[{extras}]" if extras else self.source.project.folder

    def pin_installed(self) -> tuple[str, ...]:
        """Return constraints that keep everything at the version that is installed."""
        return tuple(sorted(installed_packages(self.folder)))

    def file(self, option: str, lines: Iterable[str]) -> list[str]:
        """Write requirements, which may hold credentials, where only this user can read them; return the arguments."""
        lines = list(lines)
        if not lines:
            return []
        path = os.path.join(self.scratch, f"{len(os.listdir(self.scratch))}{option}.txt")
        with writing(path), open(path, "x", encoding="utf-8", opener=_private) as file:
            file.write("\n".join(lines) + "\n")
        return [option, path]

    def begin_scratch(self) -> dict[str, str]:
        """Make the scratch folder; return the variables that keep a build out of the project's folder.

        setuptools would leave `*.egg-info` and `build` beside the source. The variable is that of its "Global
        configuration"; other build backends write nothing there for a pure Python project.
        """
        config = os.path.join(self.scratch, "setuptools.cfg")
        with writing(self.scratch):
            os.mkdir(self.scratch)
            with open(config, "w", encoding="utf-8") as file:
                file.write(_SETUPTOOLS.format(self.scratch))
        # A setup.py may import what lies beside it; a version plugin asks git, which may refresh its index.
        return {"DIST_EXTRA_CONFIG": config, "PYTHONDONTWRITEBYTECODE": "1", "GIT_OPTIONAL_LOCKS": "0"}

    def end_scratch(self) -> None:
        """Remove it: nothing secret stays in the store."""
        with writing(self.scratch):
            shutil.rmtree(self.scratch)

    def run(self, phase: str, argv: Sequence[str], env: dict[str, str], doing: str) -> None:
        """Run one command of the installer to its end.

        Raises:
            EnvBuildError: it failed, or the limit was reached.
        """
        secrets = secrets_of([*_places(self), *self.source.texts])
        logger.debug("%s", argv)
        status, output = run(
            argv,
            env=env,
            cwd=os.path.dirname(self.folder),
            limit=self.limit,
            doing=doing,
            clean=lambda line: redact(line, secrets),
            on_line=lambda line: self.tell(Progress(phase, line)),
            keep=self.keep,
        )
        if status != 0:
            how = f"exit status {status}" if status > 0 else f"signal {-status}"
            words = output.strip()[-8000:]
            raise EnvBuildError(f"{self.spec!r} cannot be built ({how}):\n{words}", output=output)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _places(job: Job) -> list[str]:
    places = (job.index_url or "", *job.extra_index_urls, *job.find_links)
    return [*places, *job.spec.packages, *job.source.packages, *job.constraints]


def as_url(place: str) -> str:
    """Return a place as a URL without the characters installers separate places by."""
    if "://" not in place:
        from pathlib import Path

        place = Path(place).as_uri()
    return place.replace(" ", "%20").replace(",", "%2C")
