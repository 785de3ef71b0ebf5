"""Make an environment's folder with uv: create it, install into it, nothing else.

Owns nothing but the folder it is given, for the time of the call; whether the folder is complete is for the
store to say. Laws: uv sees no project configuration and no setting of the host's own environment; credentials
reach it only through its process environment and a file only we can read, never through its arguments, which
every user of the machine can see.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from venvoy.envs.command import run
from venvoy.envs.limit import Limit
from venvoy.envs.place import environment_python, writing
from venvoy.envs.settings import redact, secrets_of, tool_environment, user_config
from venvoy.envs.spec import EnvSpec
from venvoy.errors import EnvBuildError, EnvError
from venvoy.log import logger


class Progress(NamedTuple):
    """What a build is doing: its phase (waiting, interpreter, create, install, ready) and one line of text."""

    phase: str
    message: str


Tell = Callable[[Progress], object]


def uv_binary() -> str:
    """Return the path of uv: the one of its wheel beside us, else the one on PATH.

    Raises:
        EnvError: there is none.
    """
    try:
        from uv import find_uv_bin  # start-up time; and the wheel may be left out where the system has uv

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        pass
    import shutil

    found = shutil.which("uv")
    if found is None:
        raise EnvError("uv is missing, so no environment can be built: pip install uv")
    return os.path.abspath(found)


class UvInstaller:
    """uv at work on one folder.

    Args:
        spec: what to install.
        folder: absolute path of the environment; it must not exist.
        limit: when to give up.
        tell: gets every line uv prints.
        keep: descriptors uv inherits, so that the folder's lock lives as long as uv does.
    """

    def __init__(self, spec: EnvSpec, folder: str, limit: Limit, tell: Tell, keep: Sequence[int] = ()) -> None:
        self.spec = spec
        self.folder = folder
        self.limit = limit
        self.tell = tell
        self.keep = keep

    def build(self, interpreter: str) -> None:
        """Create the environment from the interpreter at this path and install what the spec names.

        Raises:
            EnvBuildError: uv failed, or the limit was reached; everything in the folder is of no use then.
            EnvError: uv is missing.
        """
        self.tell(Progress("create", f"making an environment with {interpreter}"))
        self._uv("create", ["venv", "--quiet", "--no-project", "--python", interpreter, self.folder])
        if not self.spec.packages:
            return
        files = [*self._file("-r", self.spec.packages), *self._file("-c", self.spec.constraints)]
        options = ["--offline"] if self.spec.offline else []
        python = environment_python(self.folder)
        self._uv("install", ["pip", "install", "--python", python, "--compile-bytecode", *options, *files])
        for path in files[1::2]:
            os.unlink(path)  # nothing secret stays in the store

    def _file(self, option: str, lines: Iterable[str]) -> list[str]:
        """Write requirements, which may hold credentials, where only this user can read them."""
        lines = list(lines)
        if not lines:
            return []
        path = os.path.join(self.folder, f"requirements{option}.txt")
        with writing(path), open(path, "x", encoding="utf-8", opener=_private) as file:
            file.write("\n".join(lines) + "\n")
        return [option, path]

    def _uv(self, phase: str, arguments: list[str]) -> None:
        secrets = secrets_of(_urls(self.spec))
        config = user_config()
        argv = [uv_binary(), *arguments, *(["--config-file", config] if config else ["--no-config"])]
        doing = f"uv runs '{' '.join(arguments[: 1 if phase == 'create' else 2])}'"
        logger.debug("%s", argv)
        status, output = run(
            argv,
            env=_uv_environment(self.spec),
            cwd=os.path.dirname(self.folder),
            limit=self.limit,
            doing=doing,
            clean=lambda line: redact(line, secrets),
            on_line=lambda line: self.tell(Progress(phase, line)),
            keep=self.keep,
        )
        if status != 0:
            how = f"exit status {status}" if status > 0 else f"signal {-status}"
            raise EnvBuildError(f"{self.spec!r} cannot be built ({how}):\n{output.strip()[-8000:]}", output=output)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _urls(spec: EnvSpec) -> list[str]:
    places = (spec.index_url or "", *spec.extra_index_urls, *(os.fspath(place) for place in spec.find_links))
    return [*places, *spec.packages, *spec.constraints]


def _uv_environment(spec: EnvSpec) -> dict[str, str]:
    """Return uv's process environment, in which the spec's indexes come before the configured ones."""
    environment = tool_environment()
    if spec.index_url is not None:
        environment.pop("UV_INDEX_URL", None)
        environment["UV_DEFAULT_INDEX"] = _as_url(spec.index_url)
    more = {"UV_INDEX": (spec.extra_index_urls, " "), "UV_FIND_LINKS": (spec.find_links, ",")}
    for name, (places, separator) in more.items():
        given = [_as_url(os.fspath(place)) for place in places]
        configured = environment.get(name)
        if given or configured:
            environment[name] = separator.join([*given, *([configured] if configured else [])])
    return environment


def _as_url(place: str) -> str:
    """Return a place as a URL without the characters uv separates places by."""
    if "://" not in place:
        from pathlib import Path

        place = Path(place).as_uri()
    return place.replace(" ", "%20").replace(",", "%2C")
