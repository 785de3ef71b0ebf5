"""The command line: `venvoy …`. It uses the public API only; `typer` and `rich` are imported here and nowhere else."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import typer

import venvoy
from venvoy.errors import VenvoyError

app = typer.Typer(
    help="Run Python code in warm worker processes inside isolated environments.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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
    from venvoy.cli.demo import run  # only this command needs rich's progress bars

    run(home, offline)


@app.command(context_settings={"allow_interspersed_args": False})
def feed(
    command: list[str] = typer.Argument(help="The command and its arguments, after --."),
    count: int = typer.Option(1, "-n", "--count", min=1, help="How many processes."),
    lines: bool = typer.Option(False, "--lines", help="An item is a line (the default)."),
    null: bool = typer.Option(False, "--null", help="An item ends with a NUL."),
    block: str | None = typer.Option(None, help="An item is a block of whole lines of about this size: 64K, 1M."),
    records: str | None = typer.Option(None, help="An item is a record: jsonl."),
    files: list[Path] = typer.Option([], "--in", help="Read this file instead of standard input; may be repeated."),
    side: list[str] = typer.Option([], help="NAME=EXPR: a side channel gets this Python expression of `item`."),
    out: str | None = typer.Option(None, help="Where stdout goes: a path with {id}, collect, discard."),
    err: str | None = typer.Option(None, help="Where stderr goes, as --out."),
    key: str | None = typer.Option(
        None, help="Items with the same value of this Python expression of `item` stay together."
    ),
    on_exit: str = typer.Option("fail", help="If a process ends early: fail, reroute or restart."),
    template: bool = typer.Option(False, help="Replace {id} in the command's arguments."),
    detached: bool = typer.Option(False, "--detach", help="Run in the background."),
    log: Path | None = typer.Option(None, help="With --detach: the log file."),
    pid_file: Path | None = typer.Option(None, help="With --detach: the file for the process id."),
) -> None:
    """Split standard input over processes of a command; the exit status is that of the worst."""
    from venvoy.cli import feed as feeding  # only this command needs the swarm and rich

    try:
        chosen = [name for name, wish in _splits(lines, null, block, records).items() if wish]
        if len(chosen) > 1:
            raise feeding.UsageError("choose one of --lines, --null, --block and --records")
        if records not in (None, "jsonl"):
            raise feeding.UsageError(f"--records is jsonl, not {records!r}")
        size = feeding.parse_size(block or "1M")
        split = chosen[0] if chosen else "lines"
        if detached:
            _detach(feeding, log, pid_file)
            return
        wanted = feeding.Wanted(command, count, split, size, files, side, out, err, key, on_exit, template)
        status = feeding.run(wanted)
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from None
    except OSError as error:
        typer.echo(f"venvoy: {error}", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(status)


def _splits(lines: bool, null: bool, block: str | None, records: str | None) -> dict[str, bool]:
    return {"lines": lines, "null": null, "block": block is not None, "records": records is not None}


def _detach(feeding: ModuleType, log: Path | None, pid_file: Path | None) -> None:
    """Start the same command line without `--detach`, and tell where it is to be found."""
    given = sys.argv[1:]
    given.remove("--detach")  # the first: what follows -- belongs to the command
    default_log, default_pid = feeding.default_files()
    log, pid_file = log or default_log, pid_file or default_pid
    pid = feeding.detach(given, log, pid_file)
    typer.echo(f"process {pid}, log {log}, pid file {pid_file}")


def main() -> None:
    """Run the command line: status 0 for success, 1 for a failure, 2 for wrong usage."""
    try:
        app()
    except VenvoyError as error:
        typer.echo(f"venvoy: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
