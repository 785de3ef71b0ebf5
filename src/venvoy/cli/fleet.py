"""`venvoy check` and `venvoy up`: the fleet that a configuration file describes, tried, or run in the foreground."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import monotonic
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

import venvoy as vv
from venvoy.cli import specs
from venvoy.cli.specs import WrongUsage
from venvoy.envs import Progress
from venvoy.fleets.config import defined_pools, find_config, read_config

Names = Annotated[list[str] | None, typer.Argument(metavar="POOL", help="Of the configuration; all by default.")]
Config = Annotated[str | None, typer.Option(metavar="FILE", help="The file or its folder, instead of this one.")]

_FACTS = "(__import__('sys').version.split()[0], __import__('sys').executable)"


@dataclass(frozen=True)
class _Finding:
    """What became of one pool: `version` and `python` of its workers, or the `error` and its `code`."""

    name: str
    version: str = ""
    python: str = ""
    module: str = ""
    code: str = ""
    error: str = ""


def check(
    names: Names = None,
    config: Config = None,
    home: specs.Home = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Check the configuration: build the environments, start one worker of each pool, import its module."""
    pools = _pools(names, config, home)
    with _progress(list(pools)) as report, ThreadPoolExecutor(len(pools)) as threads:
        findings = list(threads.map(lambda name: _try(name, pools[name], report), pools))
    if as_json:
        typer.echo(json.dumps([vars(finding) for finding in findings], indent=1))
    for finding in findings if not as_json else ():
        what = f"{finding.module} of " if finding.module else ""
        said = finding.error or f"ok, {what}Python {finding.version} ({finding.python})"
        typer.echo(f"{finding.name}: {said}")
    if any(finding.error for finding in findings):
        raise typer.Exit(1)


def up(
    names: Names = None,
    config: Config = None,
    home: specs.Home = None,
    refresh: Annotated[float, typer.Option(metavar="SECONDS", help="Between two looks at the pools.")] = 1.0,
) -> None:
    """Start the fleet and show what it does, until Ctrl-C or SIGTERM.

    This shows how pools start, what they print and what they need; a program's own fleet has workers of its own.
    """
    if not 0.05 <= refresh <= 3600:
        raise WrongUsage(f"--refresh: {refresh} is not a number of seconds from 0.05 to 3600")
    from venvoy.cli.board import Board  # rich

    pools = _pools(names, config, home)
    board = Board(list(pools))
    if board.is_live:  # what workers print would tear the table apart; its last line is in it
        pools = {name: _quiet(spec) for name, spec in pools.items()}
    try:
        with (
            _ended_by_sigterm(),
            _progress(list(pools), is_kept=False) as report,
            vv.Fleet(pools, progress=report) as fleet,
        ):
            report.close()
            if len(fleet.errors()) == len(fleet):
                for name, error in fleet.errors().items():
                    typer.echo(f"venvoy: {name}: {error}", err=True)
                raise typer.Exit(1)
            board.run(fleet, refresh)
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)


def _pools(names: list[str] | None, config: str | None, home: str | None) -> dict[str, vv.PoolSpec]:
    pools = defined_pools(read_config(find_config(config)), names or [])
    return pools if home is None else {name: spec.replaced(home=home) for name, spec in pools.items()}


def _quiet(spec: vv.PoolSpec) -> vv.PoolSpec:
    if spec.worker.output != "forward":
        return spec
    return spec.replaced(worker=replace(spec.worker, output="discard"))


def _try(name: str, spec: vv.PoolSpec, report: Any) -> _Finding:
    begin = monotonic()
    pool = spec.make(
        name=name, workers=1, max_workers=None, watch=False, progress=lambda step: report(name, step), call_store=None
    )
    try:
        with pool:
            version, python = pool.eval(_FACTS)
    except vv.VenvoyError as error:
        report(name, Progress("done", f"failed, {monotonic() - begin:.1f} s"))
        return _Finding(name, code=error.code, error=str(error))
    report(name, Progress("done", f"ok, {monotonic() - begin:.1f} s"))
    return _Finding(name, version, python, spec.module or "")


class _Silent:
    """Reports nothing: who reads the output of a program wants its results."""

    def __call__(self, name: str, step: Progress) -> None:
        pass

    def close(self) -> None:
        pass


@contextmanager
def _progress(names: list[str], is_kept: bool = True) -> Iterator[Any]:
    """Show builds on a terminal's stderr, and leave the lines there or not."""
    import sys

    if not sys.stderr.isatty():
        yield _Silent()
        return
    from rich.console import Console

    from venvoy.cli.building import reporter

    with reporter(Console(stderr=True, highlight=False), names, is_kept) as report:
        yield report


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end what runs as Ctrl-C does."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
