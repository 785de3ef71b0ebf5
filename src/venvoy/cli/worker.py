"""`venvoy worker`: an environment's worker for a host in another language, on this process's stdin and stdout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

import venvoy_worker
from venvoy.cli import specs
from venvoy.cli.run import become
from venvoy.cli.specs import WrongUsage

_MAIN_FILE = str(Path(venvoy_worker.__file__).with_name("__main__.py"))

Source = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE", help="Python code, run before the first call; may be repeated."),
]


def worker(
    packages: specs.With = None,
    python: specs.Python = None,
    project: specs.Project = None,
    requirements: specs.Requirements = None,
    source: Source = None,
    max_workers: Annotated[int, typer.Option(min=1, help="How many calls run at once, on threads.")] = 4,
    stdio_json: Annotated[
        bool, typer.Option("--stdio-json", help="Speak the JSON frames of docs/protocol.md on stdin and stdout.")
    ] = False,
    output_frames: Annotated[
        bool, typer.Option("--output-frames", help="Send what code prints as frames, not to stderr.")
    ] = False,
    find_links: specs.FindLinks = None,
    index_url: specs.IndexUrl = None,
    installer: specs.Installer = "auto",
    offline: specs.Offline = False,
    home: specs.Home = None,
    timeout: specs.Timeout = 600,
) -> None:
    """Build an environment and become its worker, for a host in another language: see docs/protocol.md."""
    if not stdio_json:
        raise WrongUsage("say what the worker is to speak: --stdio-json")
    files = [part for path in source or () for part in ("--source", _readable(path))]
    spec = specs.make_spec(
        packages,
        project=project,
        requirements=requirements,
        python=python,
        find_links=find_links,
        index_url=index_url,
        installer=installer,
        offline=offline,
    )
    env = specs.build(spec, home, timeout)
    options = ["--max-workers", str(max_workers), *(["--output-frames"] if output_frames else [])]
    become(env, ["python", "-I", _MAIN_FILE, "--stdio-json", *options, *files])


def _readable(path: str) -> str:
    if not os.path.isfile(path):
        raise WrongUsage(f"--source: there is no file {path}")
    if not os.access(path, os.R_OK):
        raise WrongUsage(f"--source: {path} cannot be read: Permission denied")
    return os.path.abspath(path)
