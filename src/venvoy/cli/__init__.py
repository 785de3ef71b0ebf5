"""The command line: `venvoy …`. It uses the public API only; `typer` and `rich` are imported here and nowhere else."""

from __future__ import annotations

import sys

import typer

import venvoy
from venvoy.cli import doctor, env, fleet, run, stubs
from venvoy.cli.feed import feed
from venvoy.cli.specs import WrongUsage
from venvoy.cli.worker import worker
from venvoy.errors import VenvoyError

app = typer.Typer(
    help="Run Python code in warm worker processes inside isolated environments.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(env.app, name="env")
app.command(context_settings={"allow_interspersed_args": False})(run.run)  # what follows the script is the script's
app.command()(run.call)
app.command()(worker)
app.command()(fleet.up)
app.command()(fleet.check)
app.command()(doctor.doctor)
app.command()(stubs.stubs)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"venvoy {venvoy.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    """Run Python code in warm worker processes inside isolated environments."""


@app.command()
def demo(
    home: str | None = typer.Option(None, help="Keep the environments here instead of the cache folder."),
    offline: bool = typer.Option(False, help="Use what uv's cache holds; do not touch the network."),
) -> None:
    """Build two environments with clashing numpy versions and call both side by side."""
    from venvoy.cli.demo import run as run_demo  # only this command needs rich's progress bars

    run_demo(home, offline)


app.command(context_settings={"allow_interspersed_args": False})(feed)


def main() -> None:
    """Run the command line: status 0 for success, 1 for a failure, 2 for wrong usage."""
    try:
        app()
    except WrongUsage as error:
        typer.echo(f"venvoy: {error}", err=True)
        sys.exit(2)
    except VenvoyError as error:
        typer.echo(f"venvoy: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
