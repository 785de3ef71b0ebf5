"""`venvoy run` and `venvoy call`: one-off use of an environment, without a line of Python around it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer

import venvoy as vv
from venvoy.cli import specs
from venvoy.cli.specs import WrongUsage

_ARGUMENTS = "JSON: a list of arguments, or an object of keywords; after --, if it begins with a minus."
Arguments = Annotated[str, typer.Argument(help=_ARGUMENTS)]


def run(
    command: Annotated[
        list[str], typer.Argument(metavar="SCRIPT|COMMAND [ARGS]…", help="A Python file, or a program.")
    ],
    packages: specs.With = None,
    python: specs.Python = None,
    project: specs.Project = None,
    requirements: specs.Requirements = None,
    find_links: specs.FindLinks = None,
    index_url: specs.IndexUrl = None,
    installer: specs.Installer = "auto",
    offline: specs.Offline = False,
    home: specs.Home = None,
    timeout: specs.Timeout = 600,
) -> None:
    """Run a script, or a program of an environment, and end as it ends.

    A script with a '# /// script' block gets what it asks for there.
    """
    is_script = command[0].endswith(".py") or os.sep in command[0]
    script = command[0] if is_script and project is None and requirements is None and _has_block(command[0]) else None
    spec = specs.make_spec(
        packages,
        project=project,
        requirements=requirements,
        script=script,
        python=python,
        find_links=find_links,
        index_url=index_url,
        installer=installer,
        offline=offline,
    )
    if is_script and not os.path.exists(command[0]):
        raise WrongUsage(f"there is no file {command[0]}")
    env = specs.build(spec, home, timeout)
    become(env, ["python", *command] if command[0].endswith(".py") else command)


def _has_block(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return any(line.rstrip() == "# /// script" for line in file)
    except OSError:
        return False


def become(env: vv.Env, command: list[str]) -> NoReturn:
    """Put a program in the place of this process: its signals, its terminal, its status are what the user meets."""
    environ = env.environ()
    program = shutil.which(command[0], path=environ["PATH"])
    if program is None:
        raise vv.EnvError(f"there is no program {command[0]!r} in {env.prefix}, nor on PATH")
    lease = env.lease()  # has a name, since a lease that is dropped is released
    lease.pass_on()
    sys.stdout.flush()
    try:
        os.execve(program, [program, *command[1:]], environ)
    except OSError as error:
        raise vv.EnvError(f"{program} cannot be run: {error}") from error


def call(
    target: Annotated[str, typer.Argument(help="What to call, as 'package.module:function'.")],
    arguments: Arguments = "[]",
    packages: specs.With = None,
    python: specs.Python = None,
    project: specs.Project = None,
    requirements: specs.Requirements = None,
    find_links: specs.FindLinks = None,
    index_url: specs.IndexUrl = None,
    installer: specs.Installer = "auto",
    offline: specs.Offline = False,
    home: specs.Home = None,
    path: Annotated[list[str] | None, typer.Option(help="A folder to import from; may be repeated.")] = None,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="How long the call may take.")] = None,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show the traceback of an error.")] = False,
) -> None:
    """Call one function in an environment and print its result as JSON."""
    args, kwargs = _arguments(arguments)
    if ":" not in target:
        raise WrongUsage(f"{target!r} is not 'package.module:function'")
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
    if timeout is not None and not timeout > 0:
        raise WrongUsage(f"--timeout: {timeout} is not a positive number of seconds")
    env = specs.build(spec, home)
    # What the function prints goes to stderr, so that stdout is the result and nothing else.
    options = vv.WorkerOptions(paths=path or (), output=lambda chunk: sys.stderr.write(chunk.text))
    with vv.Pool(env, workers=1, worker=options, home=home) as pool, _one_line_error(target, traceback):
        result = pool.options(timeout=timeout, returns="plain").call(target, *args, **kwargs)
    typer.echo(json.dumps(result))


@contextmanager
def _one_line_error(target: str, is_traceback_shown: bool) -> Iterator[None]:
    """Make of what a target raises the error that the command line prints in one line."""
    try:
        yield
    except vv.VenvoyError:
        raise
    except Exception as error:
        if is_traceback_shown and error.__cause__ is not None:
            typer.echo(str(error.__cause__).strip(), err=True)
        raise vv.RemoteError(f"{target} raised {type(error).__name__}: {error}") from error


def _arguments(text: str) -> tuple[list[Any], dict[str, Any]]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise WrongUsage(f"the arguments are not JSON ({error}): write '[1, 2]', or '{{\"name\": 1}}'") from error
    if isinstance(value, dict):
        return [], value
    return (value, {}) if isinstance(value, list) else ([value], {})
