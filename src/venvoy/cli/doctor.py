"""`venvoy doctor`: what this machine has, and what would not work here and why."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Annotated, Literal, NamedTuple

import typer

import venvoy as vv
from venvoy.cli import specs
from venvoy.envs import home_folder, interpreters
from venvoy.envs.uv_installer import find_uv
from venvoy.fleets.config import find_config, read_config

Status = Literal["ok", "warning", "failure"]
PER_WORKER = 9  # descriptors that a host has for each worker; a test counts them
_PER_POOL = 16  # and for all together
_LEAST_SPACE = 2e9  # bytes; some environments are larger than that


class Check(NamedTuple):
    """What was looked at, how it is, and what that means."""

    name: str
    status: Status
    detail: str


def doctor(
    home: specs.Home = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Look at this machine: interpreters, uv, home folder, locks, space, limits, and whether a worker starts."""
    checks = list(examine(home))
    if as_json:
        typer.echo(json.dumps([check._asdict() for check in checks], indent=1))
    width = max(len(check.name) for check in checks)
    for check in checks if not as_json else ():
        sign = {"ok": "  ", "warning": "! ", "failure": "X "}[check.status]
        detail = check.detail.replace("\n", "\n" + " " * (width + 4))
        typer.echo(f"{sign}{check.name:<{width}}  {detail}")
    if any(check.status == "failure" for check in checks):
        raise typer.Exit(1)


def examine(home: str | None) -> Iterator[Check]:
    """Yield what is found, one thing after the other; a thing that cannot be looked at is a failure of its own."""
    looks: list[Callable[[], Iterator[Check]]] = [
        _system,
        lambda: _interpreters(home),
        _uv,
        lambda: _home(home),
        _limits,
        _kernel,
        _extras,
        _configuration,
        lambda: _worker(home),
    ]
    for look in looks:
        try:
            yield from look()
        except Exception as error:  # whatever is wrong here is what the user wants to know
            yield Check("look", "failure", f"{type(error).__name__}: {error}")


def _system() -> Iterator[Check]:
    status: Status = {"linux": "ok", "darwin": "warning"}.get(sys.platform, "failure")  # type: ignore[assignment]
    why = {"ok": "", "warning": ": not tested there", "failure": ": workers run on Linux only"}[status]
    yield Check("system", status, f"{platform.system()} {platform.release()} on {platform.machine()}{why}")
    yield Check("host", "ok", f"venvoy {vv.__version__}, Python {platform.python_version()} ({sys.executable})")


def _interpreters(home: str | None) -> Iterator[Check]:
    found = interpreters(home=home)
    listed = "\n".join(f"{interpreter.version:<8} {interpreter.path}" for interpreter in found)
    yield Check("interpreters", "ok" if found else "failure", listed or "none: environments cannot be made")


def _uv() -> Iterator[Check]:
    path = find_uv()
    if path is None:
        yield Check("uv", "warning", "missing: environments are made with pip, which is slower; pip install uv")
        return
    done = subprocess.run([path, "--version"], check=False, capture_output=True, text=True, timeout=20)
    yield Check("uv", "failure" if done.returncode else "ok", f"{(done.stdout or done.stderr).strip()} ({path})")


def _home(home: str | None) -> Iterator[Check]:
    folder = home_folder(home)
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            can_lock = _can_lock(file.fileno())
    except OSError as error:
        yield Check("home", "failure", f"{folder} cannot be written: {error}; set VENVOY_HOME, or give home=")
        return
    infos = vv.environments(home=home)
    used, size = sum(info.in_use for info in infos), sum(info.size for info in infos)
    yield Check("home", "ok", f"{folder}: {len(infos)} environments, {size / 1e9:.1f} GB, {used} in use")
    why = "" if can_lock else ": the file system of the home folder has none, so environments cannot be built safely"
    yield Check("locks", "ok" if can_lock else "failure", f"flock{' works' if can_lock else why}")
    free, status = shutil.disk_usage(folder).free, os.statvfs(folder)
    few: Status = "warning" if free < _LEAST_SPACE or (status.f_files and status.f_favail < 100_000) else "ok"
    yield Check("free space", few, f"{free / 1e9:.1f} GB, {status.f_favail:,} files")
    if status.f_flag & os.ST_NOEXEC:
        yield Check("mount", "failure", f"{folder} is mounted noexec: compiled packages cannot be imported from it")


def _can_lock(descriptor: int) -> bool:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _limits() -> Iterator[Check]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    workers = max(0, (soft - _PER_POOL) // PER_WORKER)
    more = f"; up to {hard} can be asked for (ulimit -n)" if soft < hard else ""
    few: Status = "warning" if workers < 4 * (os.cpu_count() or 1) else "ok"
    yield Check("descriptors", few, f"{soft} for a process: {workers} workers, fewer with large values{more}")
    most = _most_processes()
    if most is not None:
        yield Check("processes", "warning" if most < 100 else "ok", f"{most} at most, threads included")


def _most_processes() -> int | None:
    """Return how many processes and threads this user, or this container, may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    limits = [soft] if soft != resource.RLIM_INFINITY and os.geteuid() else []
    try:
        limits += [int(Path("/sys/fs/cgroup/pids.max").read_text())]
    except (OSError, ValueError):  # "max", or no such group
        pass
    return min(limits, default=None)


def _kernel() -> Iterator[Check]:
    missing = [
        why
        for is_there, why in (
            (os.path.isdir("/proc/self"), "/proc is not mounted: descendants of workers that hide are not found"),
            (_works(lambda: os.pidfd_open(os.getpid())), "no pidfd (Linux 5.3): exits are noticed by a thread each"),
            (_works(lambda: os.memfd_create("venvoy")), "no memfd: large values go through sockets"),
        )
        if not is_there
    ]
    yield Check("kernel", "warning" if missing else "ok", "\n".join(missing) or "pidfd, memfd, /proc")


def _works(make: Callable[[], int]) -> bool:
    try:
        os.close(make())
    except (OSError, AttributeError):
        return False
    return True


def _extras() -> Iterator[Check]:
    if importlib.util.find_spec("watchfiles") is None:
        yield Check("watch", "warning", "watchfiles is missing: Pool(watch=True) needs it; pip install 'venvoy[watch]'")
    else:
        yield Check("watch", "ok", "watchfiles is there")


def _configuration() -> Iterator[Check]:
    try:
        path = find_config()
    except vv.ConfigError:  # most folders have none
        return
    try:
        yield Check("configuration", "ok", f"{path}: {', '.join(read_config(path))}")
    except vv.ConfigError as error:
        yield Check("configuration", "failure", str(error))


def _worker(home: str | None) -> Iterator[Check]:
    begin = perf_counter()
    try:
        with vv.Pool(workers=1, worker=vv.WorkerOptions(output="discard"), home=home) as pool:
            pool.call("builtins:abs", -1)
            yield Check("worker", "ok", f"starts and answers, {(perf_counter() - begin) * 1e3:.0f} ms")
    except vv.VenvoyError as error:
        yield Check("worker", "failure", str(error))
