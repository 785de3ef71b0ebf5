"""pip at work: the interpreter's own `venv` and `pip`, where uv is not wanted or not there.

Owns nothing; see `installer` for the laws. pip itself stays outside of the new environment, so that the result is
what uv makes: an environment with what was asked for and nothing else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence

from venvoy.envs.command import run
from venvoy.envs.installer import Job, Progress, as_url
from venvoy.envs.place import environment_python
from venvoy.envs.settings import tool_environment
from venvoy.errors import EnvError

_LEAST_PIP = (22, 3)  # knows `--python`


def build_with_pip(job: Job) -> None:
    """Create the job's environment and install what it asks for.

    Raises:
        EnvBuildError: venv or pip failed, or the limit was reached; everything in the folder is of no use then.
        EnvError: pip cannot install this.
    """
    if job.source.lock in ("uv.lock", "pylock.toml"):
        raise EnvError(f"{job.spec!r}: pip cannot install from {job.source.lock}; use installer='uv'")
    python = job.interpreter.origin
    environment = _environment(job)
    job.tell(Progress("create", f"making an environment with {python}"))
    job.run("create", [python, "-I", "-m", "venv", "--without-pip", job.folder], environment, "python runs 'venv'")
    environment |= job.begin_scratch()
    commands = list(_commands(job))
    if commands:
        pip = [_python_with_pip(job, environment), "-I", "-m", "pip", "--python", environment_python(job.folder)]
        for command in commands:
            job.run("install", [*pip, "install", *command()], environment, "pip runs 'install'")
    job.end_scratch()


def _python_with_pip(job: Job, environment: dict[str, str]) -> str:
    """Return an interpreter of the same version whose pip can install elsewhere: this one, or one made for it."""
    python, doing = job.interpreter.origin, "asking python for its pip"
    argv = [python, "-I", "-m", "pip", "--version"]
    status, output = run(argv, env=environment, cwd=os.sep, limit=job.limit, doing=doing, keep=job.keep)
    found = re.search(r"^pip (\d+)\.(\d+)", output, re.M)
    if status == 0 and found and (int(found[1]), int(found[2])) >= _LEAST_PIP:
        return python
    own = os.path.join(job.scratch, "pip")
    job.run("create", [python, "-I", "-m", "venv", own], environment, "python runs 'venv'")
    return environment_python(own)


def _commands(job: Job) -> Iterator[Callable[[], list[str]]]:
    """Yield what makes the arguments of each command, which is called when the one before it is done."""
    together = _together(job)
    if job.packages or together:
        yield lambda: _install(job, together, job.packages, job.constraints)
    if job.additions:
        yield lambda: _install(job, [], job.additions, (*job.pin_installed(), *job.constraints))


def _together(job: Job) -> list[str]:
    files = [argument for path in job.source.files for argument in ("-r", path)]
    project = job.source.project
    if project is None:
        return files
    return [*files, "--editable", job.target] if project.editable else [*files, job.target]


def _install(job: Job, arguments: Sequence[str], packages: Sequence[str], constraints: Sequence[str]) -> list[str]:
    options = ["--no-index"] if job.spec.offline or job.source.indexes.no_index else []
    return [*options, *arguments, *job.file("-r", packages), *job.file("-c", constraints)]


def _environment(job: Job) -> dict[str, str]:
    """Return pip's process environment, in which the spec's indexes come before the configured ones."""
    environment = tool_environment()
    if job.index_url is not None:
        environment["PIP_INDEX_URL"] = as_url(job.index_url)
    more = {"PIP_EXTRA_INDEX_URL": job.extra_index_urls, "PIP_FIND_LINKS": job.find_links}
    for name, places in more.items():
        given = [as_url(place) for place in places]
        if given:
            environment[name] = " ".join([*given, *filter(None, [environment.get(name)])])
    return environment
