"""`venvoy stubs`: what a module looks like in its environment, as a file for type checkers and editors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from venvoy.cli.fleet import Config
from venvoy.cli.specs import WrongUsage
from venvoy.fleets.config import defined_pools, find_config, read_config
from venvoy.stubs import stub


def stubs(
    name: Annotated[str, typer.Argument(metavar="POOL", help="Of the configuration.")],
    output: Annotated[str | None, typer.Option("--output", "-o", metavar="FILE", help="Instead of stdout.")] = None,
    module: Annotated[str | None, typer.Option(help="Another module than the pool's own.")] = None,
    config: Config = None,
) -> None:
    """Write a stub of a pool's module, as it is in the pool's environment.

    A file whose name ends in .py gets a Protocol instead, for `pool.bind`.
    """
    spec = defined_pools(read_config(find_config(config)), [name])[name]
    wanted = module or spec.module
    if wanted is None:
        raise WrongUsage(f"pool {name!r} has no module of its own: say which one with --module")
    with spec.make(name=name, workers=1, max_workers=None, watch=False, call_store=None) as pool:
        text = stub(pool, wanted, as_protocol=output is not None and output.endswith(".py"))
    if output is None:
        sys.stdout.write(text)
        return
    try:
        Path(output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise WrongUsage(f"--output: {output} cannot be written: {error}") from error
