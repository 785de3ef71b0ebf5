"""`venvoy feed`, as it is called; `feeding` does it, and is imported by those only who feed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

Flag = typer.Option


def feed(
    command: Annotated[list[str], typer.Argument(help="The command and its arguments, after --.")],
    count: Annotated[int, Flag("-n", "--count", min=1, help="How many processes.")] = 1,
    lines: Annotated[bool, Flag("--lines", help="An item is a line (the default).")] = False,
    null: Annotated[bool, Flag("--null", help="An item ends with a NUL.")] = False,
    block: Annotated[str | None, Flag(help="An item is a block of whole lines of about this size: 64K, 1M.")] = None,
    records: Annotated[str | None, Flag(help="An item is a record: jsonl.")] = None,
    files: Annotated[list[Path] | None, Flag("--in", help="Read this instead of stdin; may be repeated.")] = None,
    side: Annotated[list[str] | None, Flag(help="NAME=EXPR: a channel for a Python expression of `item`.")] = None,
    out: Annotated[str | None, Flag(help="Where stdout goes: a path with {id}, or discard.")] = None,
    err: Annotated[str | None, Flag(help="Where stderr goes, as --out.")] = None,
    key: Annotated[str | None, Flag(help="Items of one value of this Python expression stay together.")] = None,
    on_exit: Annotated[str, Flag(help="If a process ends early: fail, reroute or restart.")] = "fail",
    template: Annotated[bool, Flag("--template", help="Replace {id} in the command's arguments.")] = False,
    detach: Annotated[bool, Flag("--detach", help="Run in the background.")] = False,
    log: Annotated[Path | None, Flag(help="With --detach: the log file.")] = None,
    pid_file: Annotated[Path | None, Flag(help="With --detach: the file for the process id.")] = None,
) -> None:
    """Split standard input over processes of a command; the exit status is that of the worst."""
    from venvoy.cli import feeding  # only this command needs the swarm and rich

    try:
        split, size = _split(lines, null, block, records), feeding.parse_size(block or "1M")
        files, side = files or [], side or []
        wanted = feeding.Wanted(command, count, split, size, files, side, out, err, key, on_exit, template)
        if detach:
            arguments = sys.argv[1:]
            arguments.remove("--detach")  # the first: what follows -- belongs to the command
            typer.echo(feeding.detach(wanted, arguments, log, pid_file))
            return
        status = feeding.run(wanted)
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from None
    except OSError as error:
        typer.echo(f"venvoy: {error}", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(status)


def _split(lines: bool, null: bool, block: str | None, records: str | None) -> str:
    wishes = {"lines": lines, "null": null, "block": block is not None, "records": records is not None}
    chosen = [name for name, wish in wishes.items() if wish]
    if len(chosen) > 1:
        raise ValueError("choose one of --lines, --null, --block and --records")
    if records not in (None, "jsonl"):
        raise ValueError(f"--records is jsonl, not {records!r}")
    return chosen[0] if chosen else "lines"
