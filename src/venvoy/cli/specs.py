"""The options by which the command line describes an environment, and the building of it under the user's eyes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

import venvoy as vv

With = Annotated[
    list[str] | None,
    typer.Option("--with", metavar="REQUIREMENT", help="A package, as 'numpy<2' (in quotes); may be repeated."),
]
Python = Annotated[str | None, typer.Option(help="A version (3.9), a specifier ('>=3.9'), or a path.")]
Project = Annotated[str | None, typer.Option(metavar="FOLDER", help="The project of this folder, with its lock.")]
Requirements = Annotated[str | None, typer.Option(metavar="FILE", help="A requirements file, or a pylock.toml.")]
Script = Annotated[str | None, typer.Option(metavar="FILE", help="What a script's '# /// script' block asks for.")]
Extra = Annotated[list[str] | None, typer.Option(help="Of the project's optional dependencies; may be repeated.")]
Group = Annotated[list[str] | None, typer.Option(help="Of the project's dependency groups; may be repeated.")]
Editable = Annotated[bool, typer.Option(help="Whether edits of the project are seen without a new build.")]
Constraint = Annotated[list[str] | None, typer.Option(metavar="REQUIREMENT", help="Narrows versions down.")]
IndexUrl = Annotated[str | None, typer.Option(help="The package index, instead of the configured one.")]
ExtraIndexUrl = Annotated[list[str] | None, typer.Option(help="One more package index; may be repeated.")]
FindLinks = Annotated[list[str] | None, typer.Option(metavar="PLACE", help="A folder or page of packages.")]
Installer = Annotated[str, typer.Option(help="uv, pip, or auto.")]
Offline = Annotated[bool, typer.Option("--offline", help="Do not touch the network.")]
Home = Annotated[str | None, typer.Option(help="Keep environments here instead of the cache folder.")]
Timeout = Annotated[float, typer.Option(metavar="SECONDS", help="How long a build may take.")]


class WrongUsage(Exception):
    """The command line asks for something that cannot be understood: status 2."""


def make_spec(
    packages: list[str] | None,
    *,
    project: str | None = None,
    requirements: str | None = None,
    script: str | None = None,
    extra: list[str] | None = None,
    group: list[str] | None = None,
    editable: bool = True,
    **options: Any,
) -> vv.EnvSpec:
    """Return the spec the options describe.

    Raises:
        WrongUsage: they contradict each other, or one of them cannot be understood.
    """
    sources = {"--project": project, "--requirements": requirements, "--script": script}
    given = [name for name, value in sources.items() if value is not None]
    if len(given) > 1:
        raise WrongUsage(f"{' and '.join(given)} exclude each other")
    if project is None and (extra or group or not editable):
        raise WrongUsage("--extra, --group and --no-editable belong to --project")
    fields = {name: value for name, value in options.items() if value is not None}
    packages = packages or []
    try:
        if project is not None:
            chosen: dict[str, Any] = {"extras": extra or (), "groups": group or (), "editable": editable}
            return vv.EnvSpec.project(project, packages=packages, **chosen, **fields)
        if requirements is not None:
            return vv.EnvSpec.requirements(requirements, packages=packages, **fields)
        if script is not None:
            return vv.EnvSpec.script(script, packages=packages, **fields)
        return vv.EnvSpec(packages, **fields)
    except vv.EnvError as error:
        raise WrongUsage(str(error)) from error


def build(spec: vv.EnvSpec, home: str | None, timeout: float = 600) -> vv.Env:
    """Build an environment, with a line on a terminal's stderr that says what is going on."""
    if not timeout > 0:
        raise WrongUsage(f"--timeout: {timeout} is not a positive number of seconds")
    with _spinner() as show:
        return vv.build(spec, home=home, timeout=timeout, progress=show)


@contextmanager
def _spinner() -> Iterator[Any]:
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # only who sees it waits for it
    from rich.markup import escape

    with Console(stderr=True).status("…") as status:
        yield lambda step: status.update(f"{step.phase}: {escape(step.message[:100])}")
