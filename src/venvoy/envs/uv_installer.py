"""uv at work: `uv venv`, then `uv pip install`, or `uv sync` for a project with a lock of uv's own.

Owns nothing; see `installer` for the laws. uv sees no project configuration, except that of a locked project, whose
lock cannot be understood without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from venvoy.envs.installer import Job, Progress, as_url
from venvoy.envs.place import environment_python
from venvoy.envs.settings import tool_environment, user_config
from venvoy.errors import EnvError


def find_uv() -> str | None:
    """Return the path of uv: the one of its wheel beside us, else the one on PATH, or None."""
    try:
        from uv import find_uv_bin  # start-up time; and the wheel may be left out where the system has uv

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        pass
    import shutil

    found = shutil.which("uv")
    return None if found is None else os.path.abspath(found)


def build_with_uv(job: Job) -> None:
    """Create the job's environment and install what it asks for.

    Raises:
        EnvBuildError: uv failed, or the limit was reached; everything in the folder is of no use then.
        EnvError: uv is missing.
    """
    uv = find_uv()
    if uv is None:
        raise EnvError("uv is missing, so no environment can be built with it: pip install uv, or installer='pip'")
    python = job.interpreter.origin
    environment = _environment(job)
    job.tell(Progress("create", f"making an environment with {python}"))
    create = [uv, "venv", "--quiet", "--no-project", "--python", python, job.folder, *_config()]
    job.run("create", create, environment, "uv runs 'venv'")
    environment |= job.begin_scratch()
    commands = list(_commands(job))
    for command in commands:
        arguments = command()
        if command is commands[-1]:
            arguments.append("--compile-bytecode")
        job.run("install", [uv, *arguments], environment, f"uv runs '{' '.join(arguments[:2])}'")
    job.end_scratch()


def _commands(job: Job) -> Iterator[Callable[[], list[str]]]:
    """Yield what makes each command, which is called when the one before it is done."""
    lock, project = job.source.lock, job.source.project
    together = [] if project is None or lock else _project(job)
    files = [argument for path in job.source.files for argument in ("-r", path)]
    if lock == "pylock.toml":
        files += ["--preview-features", "pylock"]
    if lock == "uv.lock":
        yield lambda: _sync(job)
    elif job.packages or files or together:
        yield lambda: _pip_install(job, [*files, *together], job.packages, job.constraints)
    if project is not None and lock == "pylock.toml":
        yield lambda: _pip_install(job, ["--no-deps", *_project(job)])
    if job.additions:
        yield lambda: _pip_install(job, [], job.additions, (*job.pin_installed(), *job.constraints))


def _pip_install(
    job: Job, arguments: Sequence[str], packages: Sequence[str] = (), constraints: Sequence[str] = ()
) -> list[str]:
    files = [*job.file("-r", packages), *job.file("-c", constraints)]
    options = ["--offline"] if job.spec.offline else []
    if job.source.indexes.no_index:
        options += ["--no-index"]
    return ["pip", "install", "--python", environment_python(job.folder), *options, *arguments, *files, *_config()]


def _project(job: Job) -> list[str]:
    project = job.source.project
    assert project is not None
    # uv would take the wheel it built from this folder last time, as long as pyproject.toml is unchanged.
    fresh = ["--reinstall-package", project.name] if project.name and not project.editable else []
    return [*fresh, *(["--editable"] if project.editable else []), job.target]


def _sync(job: Job) -> list[str]:
    project = job.source.project
    assert project is not None
    options = ["--offline"] if job.spec.offline else []
    if not project.editable:
        options += ["--no-editable", *(["--reinstall-package", project.name] if project.name else [])]
    options += [word for extra in project.extras for word in ("--extra", extra)]
    options += [word for group in project.groups for word in ("--group", group)]
    named = os.environ.get("UV_CONFIG_FILE")
    config = ["--config-file", named] if named else []
    where = ["--project", project.folder, "--python", environment_python(job.folder)]
    return ["sync", "--frozen", "--no-default-groups", *where, *options, *config]


def _config() -> list[str]:
    config = user_config()
    return ["--config-file", config] if config else ["--no-config"]


def _environment(job: Job) -> dict[str, str]:
    """Return uv's process environment, in which the spec's indexes come before the configured ones."""
    environment = tool_environment()
    environment["UV_PROJECT_ENVIRONMENT"] = job.folder
    if job.index_url is not None:
        environment.pop("UV_INDEX_URL", None)
        environment["UV_DEFAULT_INDEX"] = as_url(job.index_url)
    more = {"UV_INDEX": (job.extra_index_urls, " "), "UV_FIND_LINKS": (job.find_links, ",")}
    for name, (places, separator) in more.items():
        given = [as_url(place) for place in places]
        configured = environment.get(name)
        if given or configured:
            environment[name] = separator.join([*given, *([configured] if configured else [])])
    return environment
