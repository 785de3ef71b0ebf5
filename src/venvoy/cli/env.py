"""`venvoy env …`: build, list, show, find, collect and remove environments."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict
from typing import Annotated, Any

import typer

import venvoy as vv
from venvoy.cli import specs
from venvoy.cli.specs import WrongUsage

app = typer.Typer(help="Build, list, show, find, collect and remove environments.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Key = Annotated[str, typer.Argument(metavar="KEY", help="The environment's key, or the beginning of it.")]
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SIZES = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@app.command("build")
def build_one(
    packages: Annotated[list[str] | None, typer.Argument(metavar="SPEC", help="Packages, as 'numpy<2'.")] = None,
    python: specs.Python = None,
    project: specs.Project = None,
    requirements: specs.Requirements = None,
    script: specs.Script = None,
    extra: specs.Extra = None,
    group: specs.Group = None,
    editable: specs.Editable = True,
    constraint: specs.Constraint = None,
    index_url: specs.IndexUrl = None,
    extra_index_url: specs.ExtraIndexUrl = None,
    find_links: specs.FindLinks = None,
    installer: specs.Installer = "auto",
    offline: specs.Offline = False,
    home: specs.Home = None,
    timeout: specs.Timeout = 600,
    as_json: AsJson = False,
) -> None:
    """Build an environment unless it is there, and print its folder."""
    spec = specs.make_spec(
        packages,
        project=project,
        requirements=requirements,
        script=script,
        extra=extra,
        group=group,
        editable=editable,
        python=python,
        constraints=constraint,
        index_url=index_url,
        extra_index_urls=extra_index_url,
        find_links=find_links,
        installer=installer,
        offline=offline,
    )
    env = specs.build(spec, home, timeout)
    if as_json:
        _print_json(_as_dict(_find(env.key, home)))
    else:
        typer.echo(env.prefix)


@app.command("list")
def list_all(home: specs.Home = None, as_json: AsJson = False) -> None:
    """List the environments, the last used first."""
    infos = vv.environments(home=home)
    if as_json:
        _print_json([_as_dict(info) for info in infos])
        return
    from rich.console import Console  # only this listing needs it
    from rich.markup import escape
    from rich.table import Table

    table = Table("key", "python", "size", "last used", "", "spec", box=None, pad_edge=False)
    for info in infos:
        used = f"{_duration(time.time() - info.last_used)} ago"
        cells = (info.env.key[:12], info.env.version, _size(info.size), used, "in use" if info.in_use else "")
        table.add_row(*cells, escape(info.spec))
    console = Console()
    if not console.is_terminal:
        console.width = 1000  # a pipe has no width; one line each is what programs read
    console.print(table)


@app.command()
def show(key: Key, home: specs.Home = None, as_json: AsJson = False) -> None:
    """Show what is known of one environment."""
    info = _find(key, home)
    if as_json:
        _print_json(_as_dict(info))
        return
    for name, value in _as_dict(info).items():
        if name in ("created", "last_used"):
            value = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
        typer.echo(f"{name + ':':<11} {'  '.join(value) if isinstance(value, list) else value}")


@app.command()
def path(
    key: Key,
    python: Annotated[bool, typer.Option("--python", help="Of its interpreter, not of its folder.")] = False,
    home: specs.Home = None,
) -> None:
    """Print the path of one environment."""
    env = _find(key, home).env
    typer.echo(env.python if python else env.prefix)


@app.command()
def gc(
    max_age: Annotated[str | None, typer.Option(help="Time since the last use, as 30d, 12h, 90m, 60.")] = None,
    max_bytes: Annotated[str | None, typer.Option(help="Of all together, as 20GB, 500M.")] = None,
    keep_last: Annotated[int | None, typer.Option(help="So many stay; given alone, all others go.")] = None,
    home: specs.Home = None,
    as_json: AsJson = False,
) -> None:
    """Remove environments beyond the limits, the least recently used first; never one that is in use."""
    age = None if max_age is None else _parse("--max-age", max_age, _UNITS)
    size = (
        None if max_bytes is None else int(_parse("--max-bytes", re.sub(r"(?i)(?<=[kmgt])i?b$", "", max_bytes), _SIZES))
    )
    if keep_last is not None and keep_last < 0:
        raise WrongUsage(f"--keep-last: {keep_last} is not a number from 0 up")
    done = vv.collect_garbage(max_age=age, max_bytes=size, keep_last=keep_last, home=home)
    if as_json:
        _print_json({"removed": [info.env.key for info in done.removed], "freed": done.freed})
    else:
        what = "environment" if len(done.removed) == 1 else "environments"
        typer.echo(f"removed {len(done.removed)} {what}, {_size(done.freed)}")


@app.command()
def rm(
    keys: Annotated[list[str], typer.Argument(metavar="KEY", help="The environments' keys, or how they begin.")],
    home: specs.Home = None,
) -> None:
    """Remove environments, unless a live process uses them."""
    for env in [_find(key, home).env for key in keys]:
        env.remove()
        typer.echo(f"removed {env.prefix}")


def _find(key: str, home: str | None) -> vv.EnvInfo:
    found = [info for info in vv.environments(home=home) if info.env.key.startswith(key)]
    if len(found) != 1:
        said = "more than one environment begins" if found else "no environment begins"
        raise vv.EnvError(f"{said} with {key!r}; `venvoy env list` shows them")
    return found[0]


def _as_dict(info: vv.EnvInfo) -> dict[str, Any]:
    env = {name: getattr(info.env, name) for name in ("key", "python", "version", "prefix")}
    rest = {name: value for name, value in asdict(info).items() if name != "env"}
    return {**env, **rest, "packages": list(info.packages)}


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=1))


def _parse(option: str, text: str, units: dict[str, int]) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]?)", text.strip().lower())
    if match is None or match[2] not in units:
        raise WrongUsage(f"{option}: {text!r} is not a number with one of {' '.join(filter(None, units))}")
    return float(match[1]) * units[match[2]]


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
