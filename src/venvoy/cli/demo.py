"""`venvoy demo`: the main job on real input, in half a minute."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter

from rich.console import Console

import venvoy as vv
from venvoy.cli.building import Reporter, reporter
from venvoy.envs import Progress as Step
from venvoy.envs import interpreters

_CALLS = 2000


def run(home: str | None, offline: bool) -> None:
    """Run the demo and print what happens."""
    console = Console(highlight=False, soft_wrap=True)
    old, new = _specs(home, offline)
    console.print("[bold]1. Two environments that cannot be one[/bold]")
    old_env, new_env = _build_both(console, {"old": old, "new": new}, home)
    options = vv.WorkerOptions(output="discard")  # the crash below leaves a stack that is not news here
    with (
        vv.Pool(old_env, name="old", workers=1, worker=options, home=home) as one,
        vv.Pool(new_env, name="new", workers=1, worker=options, home=home) as two,
    ):
        _side_by_side(console, one, two)
        _latency(console, one)
        _crash(console, one)
        _timeout(console, two)
    console.print("\nNothing is left running. The environments stay cached: the next run starts at once.")


def _specs(home: str | None, offline: bool) -> tuple[vv.EnvSpec, vv.EnvSpec]:
    """Return two specs whose numpy versions clash, on two Python versions where the machine has them."""
    host = sys.version_info[:2]
    others = sorted({found.numbers[:2] for found in interpreters(home=home)} - {host})
    ancient = [version for version in others if (3, 8) <= version <= (3, 12)]  # numpy 1 has wheels for these
    if ancient:
        version, old = "{}.{}".format(*ancient[0]), "numpy<2"
    else:
        version, old = None, "numpy<2" if host <= (3, 12) else "numpy<2.4"
    new = "numpy>=2.4" if old == "numpy<2.4" else "numpy>=2"
    return (
        vv.EnvSpec(packages=[old], python=version, offline=offline),
        vv.EnvSpec(packages=[new], offline=offline),
    )


def _build_both(console: Console, specs: dict[str, vv.EnvSpec], home: str | None) -> list[vv.Env]:
    with reporter(console, specs) as report, ThreadPoolExecutor(len(specs)) as threads:
        futures = [threads.submit(_build, name, spec, home, report) for name, spec in specs.items()]
        return [future.result() for future in futures]


def _build(name: str, spec: vv.EnvSpec, home: str | None, report: Reporter) -> vv.Env:
    begin = perf_counter()
    env = vv.build(spec, home=home, progress=lambda step: report(name, step))
    report(name, Step("done", f"Python {env.version} with {', '.join(spec.packages)}, {perf_counter() - begin:.1f} s"))
    return env


def _side_by_side(console: Console, one: vv.Pool, two: vv.Pool) -> None:
    console.print("\n[bold]2. Both at once, as local calls[/bold]")
    for pool in (one, two):
        python, numpy = pool.eval("__import__('sys').version.split()[0]"), pool.eval("__import__('numpy').__version__")
        mean = float(pool.call("numpy:mean", [1, 2, 3]))
        where = f"Python {python}, numpy {numpy}, process {pool.workers()[0].pid}"
        console.print(f"   {pool.stats().name}: {where}: mean([1, 2, 3]) = {mean}")
    array = one.call("numpy:arange", 1_000_000, dtype="f8")
    total = float(two.call("numpy:sum", array))
    console.print(f"   an array of 8 MB made by the old numpy, summed by the new one: {total:,.0f}")


def _latency(console: Console, pool: vv.Pool) -> None:
    console.print("\n[bold]3. Warm calls[/bold]")
    times = []
    for _ in range(_CALLS):
        begin = perf_counter()
        pool.call("math:sqrt", 2.0)
        times.append(perf_counter() - begin)
    console.print(f"   {_CALLS} calls of math.sqrt in the other process: median {median(times) * 1e6:.0f} µs each")


def _crash(console: Console, pool: vv.Pool) -> None:
    console.print("\n[bold]4. A crash is an error of one call[/bold]")
    try:
        pool.call("ctypes:string_at", 0)
    except vv.WorkerCrashed as error:
        console.print(f"   WorkerCrashed: {str(error).splitlines()[0]}")
    begin = perf_counter()
    answer = pool.call("math:sqrt", 2.0)
    console.print(f"   the next call: {answer:.3f}, after {(perf_counter() - begin) * 1e3:.0f} ms, from a new worker")


def _timeout(console: Console, pool: vv.Pool) -> None:
    console.print("\n[bold]5. A deadline holds[/bold]")
    begin = perf_counter()
    try:
        pool.options(timeout=0.5).call("time:sleep", 60)
    except vv.CallTimeout as error:
        console.print(f"   CallTimeout: {error} ({perf_counter() - begin:.2f} s)")
    console.print(f"   the next call: {pool.call('math:sqrt', 2.0):.3f}, served by process {pool.call(os.getpid)}")
