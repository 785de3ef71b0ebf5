"""Starting: a worker until it is ready, `import venvoy`, and a cached environment; beside bare interpreters and peers.

    python benchmarks/start.py [--json FILE] [--quick] [--only NAME,...]

"bare" is `python -I -c pass` of the same interpreter, from its spawn to its end. "worker ready" is one more worker of
a pool that is open. A "forked" worker comes from a template that has imported numpy, beside spawned ones that import it
themselves; "ballast" is more memory in the template. The memory of a group of workers is their share of it (PSS), the
template's included. The peers start one process of this interpreter and get the first result from it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import contenders
import measure
from contenders import RAW, VENVOY, Contender
from measure import Block, Row, Target
from venvoy import EnvSpec, Pool, WorkerOptions, build

IMPORT, BARE_IMPORT = "import venvoy", "nothing imported"
SPAWNED, FORKED, BALLAST = "spawned, imports numpy", "forked, has numpy", "forked, has numpy and ballast"
_MEMORY_OF = 8  # workers
_OLDEST = (3, 8)


def interpreters() -> dict[str, str]:
    """Return one CPython of each minor version on this machine, the running one included, by version."""
    found = {sys.version_info[:2]: sys.executable}
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    folders = [*map(Path, os.environ.get("PATH", "").split(os.pathsep)), *sorted(root.glob("3.*/bin"))]
    for path in (path for folder in folders for path in sorted(folder.glob("python3.*"))):
        match = re.fullmatch(r"python3\.(\d+)", path.name)
        version = (3, int(match[1])) if match else _OLDEST
        if match and version >= _OLDEST and version not in found and _version_of(path) == version:
            found[version] = str(path)
    return {f"{major}.{minor}": found[major, minor] for major, minor in sorted(found)}


def _version_of(path: Path) -> tuple[int, ...] | None:
    code = "import sys; print(*sys.version_info[:2], sys.implementation.name)"
    done = subprocess.run([path, "-I", "-c", code], capture_output=True, text=True, check=False)
    words = done.stdout.split()  # a shim of an interpreter that is not installed prints nothing
    return tuple(map(int, words[:2])) if words[2:] == ["cpython"] else None


def run(*command: str) -> None:
    """Run a command to its end, with byte code written and read as on any machine."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, check=True, env=environ, stdin=subprocess.DEVNULL)


def worker_blocks(version: str, python: str, most: int, stack: ExitStack) -> dict[str, Block]:
    """Return blocks of one bare start, of one more worker in an open pool, and of a pool with its first worker."""
    growing = stack.enter_context(Pool(EnvSpec.existing(python), workers=(1, most)))
    numbers = count(2)

    def open_one() -> None:
        pool = Pool(EnvSpec.existing(python), workers=1)
        stack.callback(pool.close)  # not part of the start, so it waits until all is measured
        pool.warm()

    return {
        f"{version} bare": partial(measure.once, partial(run, python, "-I", "-c", "pass")),
        f"{version} worker ready": partial(measure.once, lambda: growing.warm(next(numbers))),
        f"{version} pool ready": partial(measure.once, open_one),
    }


def import_blocks() -> dict[str, Block]:
    """Return a block of an interpreter that imports nothing, and one that imports venvoy."""
    commands = {BARE_IMPORT: "pass", IMPORT: "import venvoy"}
    return {name: partial(measure.once, partial(run, sys.executable, "-c", code)) for name, code in commands.items()}


def first_result_blocks(kinds: dict[str, type[Contender]]) -> dict[str, Block]:
    """Return, for each contender with workers, a block of its first result from a process just started."""

    def first(kind: type[Contender]) -> Sequence[float]:
        started: list[Contender] = []
        figures = measure.once(lambda: started.append(kind(1)))
        started[0].close()
        return figures

    return {name: partial(first, kind) for name, kind in kinds.items() if name != RAW}


def resolve_blocks(home: str) -> tuple[dict[str, Block], Callable[[], int]]:
    """Return blocks that resolve an environment that is there, and a function that counts processes started."""
    spec = EnvSpec(packages=[])
    build(spec, home=home)
    begun: list[str] = []
    sys.addaudithook(lambda event, _: begun.append(event) if event in _STARTS else None)
    return {"cached environment": partial(measure.once, partial(build, spec, home=home))}, lambda: len(begun)


_HAS_TEMPLATES = sys.platform == "linux" and find_spec("numpy") is not None
_STARTS = frozenset({"subprocess.Popen", "os.posix_spawn", "os.fork", "os.exec", "os.system"})


def template_blocks(most: int, gigabytes: float, stack: ExitStack) -> dict[str, Block]:
    """Return blocks of one more worker with numpy: spawned, forked, and forked from a template with so much ballast."""
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    text = f"import numpy\nballast = [b'x' * 65536 for _ in range({int(gigabytes * 16384)})]\n"
    Path(folder, "ballast_of_benchmark.py").write_text(text)
    kinds = {
        SPAWNED: WorkerOptions(preload=["numpy"]),
        FORKED: WorkerOptions(start="zygote", preload=["numpy"]),
        BALLAST: WorkerOptions(start="zygote", preload=["ballast_of_benchmark"], paths=[folder]),
    }
    blocks = {}
    for name, options in kinds.items():
        pool = stack.enter_context(Pool(workers=(1, most), worker=options))
        blocks[name] = partial(measure.once, partial(_warm_one_more, pool, count(2)))
    return blocks


def _warm_one_more(pool: Pool, numbers: Iterator[int]) -> None:
    pool.warm(next(numbers))


def memory_of(options: WorkerOptions, workers: int) -> float:
    """Return the megabytes of memory that so many workers have together, their template included."""
    with Pool(workers=workers, worker=options) as pool:
        pids = [info.pid for info in pool.workers()]
        if options.start == "zygote":
            pids.append(pool.call("os:getppid"))
        return sum(map(_share_of_memory, pids)) / 1e6


def _share_of_memory(pid: int) -> int:
    """Return the bytes of memory of a process, each page divided by the number of those who have it (proc(5), Pss)."""
    (line,) = (line for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) * 1024


def template_targets(table: Sequence[Row], gigabytes: float, where: str) -> list[Target]:
    """Return what is aimed at for forked workers."""
    found = {row.name: row.p50 for row in table}
    limit = 5.0 + 25.0 * gigabytes
    return [
        measure.at_most("forked worker with numpy ready: ms", where, found[FORKED], 5.0 + 25.0 * 0.03),
        measure.at_most(f"forked with {gigabytes:g} GB of ballast: ms", where, found[BALLAST], limit),
    ]


def worker_target(table: Sequence[Row], version: str, where: str) -> Target:
    """Return what is aimed at for one interpreter."""
    ready = next(row for row in table if row.name == f"{version} worker ready")
    return measure.at_most(f"{version} worker ready: x bare", where, ready.ratios[f"{version} bare"], 2.0)


def import_target(table: Sequence[Row], where: str) -> Target:
    """Return what is aimed at for the import."""
    found = {row.name: row.p50 for row in table}
    return measure.at_most("import venvoy: ms beyond bare", where, found[IMPORT] - found[BARE_IMPORT], 40.0)


class Run:
    """One run of this benchmark: measures, prints, and keeps what is to be written."""

    def __init__(self, argv: Sequence[str] | None) -> None:
        self._options = measure.arguments(__doc__.splitlines()[0], argv)
        self.data = measure.report("start", self._options)
        self._kinds, self.data["skipped"] = contenders.chosen(self._options.only)
        self._blocks = 1 if self._options.quick else 20
        self._gigabytes = 0.05 if self._options.quick else 1.0
        self._pythons = interpreters()
        if self._options.quick:
            self._pythons = dict(list(self._pythons.items())[:1])
        self.data["interpreters"] = self._pythons

    def all(self) -> None:
        """Measure everything."""
        for cpu in measure.passes():
            with measure.pinned(cpu):
                self._pass(cpu, "not pinned" if cpu is None else f"pinned to CPU {cpu}")
        if VENVOY in self._kinds:
            self._resolve()
            if _HAS_TEMPLATES:
                self._memory()
        measure.show_targets(self.data["targets"])
        measure.write(self.data, self._options.json)

    def _pass(self, cpu: int | None, where: str) -> None:
        targets = self.data["targets"]
        if VENVOY in self._kinds:
            for version, python in self._pythons.items():
                with ExitStack() as stack:
                    made = worker_blocks(version, python, self._blocks + 2, stack)
                    table = self._note(f"a worker of Python {version}", cpu, where, made, f"{version} bare")
                targets.append(worker_target(table, version, where))
            targets.append(import_target(self._note("import", cpu, where, import_blocks(), BARE_IMPORT), where))
            if _HAS_TEMPLATES:
                with ExitStack() as stack:
                    made = template_blocks(self._blocks + 2, self._gigabytes, stack)
                    table = self._note("a worker with numpy", cpu, where, made, SPAWNED)
                targets += template_targets(table, self._gigabytes, where)
        self._note("from nothing to the first result", cpu, where, first_result_blocks(self._kinds), VENVOY)

    def _memory(self) -> None:
        """Compare the memory of a group of workers with numpy, spawned and forked."""
        spawned = memory_of(WorkerOptions(preload=["numpy"]), _MEMORY_OF)
        forked = memory_of(WorkerOptions(start="zygote", preload=["numpy"]), _MEMORY_OF)
        self.data["memory"] = {"workers": _MEMORY_OF, "spawned": spawned, "forked": forked}
        print(f"\nmemory of {_MEMORY_OF} workers with numpy: spawned {spawned:.0f} MB, forked {forked:.0f} MB")
        what = "memory of forked workers with numpy: x spawned ones"
        self.data["targets"].append(measure.at_most(what, "not pinned", forked / spawned, 0.5))

    def _resolve(self) -> None:
        """Measure the resolving of a cached environment, in which no process is to be started."""
        with tempfile.TemporaryDirectory() as home:
            made, processes = resolve_blocks(home)
            table = self._note("an environment that is there", None, "not pinned", made, "")
        targets = self.data["targets"]
        targets.append(measure.at_most("cached environment: ms", "not pinned", table[0].p50, 5.0))
        targets.append(measure.at_most("cached environment: processes started", "not pinned", processes(), 0))

    def _note(self, name: str, cpu: int | None, where: str, made: dict[str, Block], against: str) -> list[Row]:
        table = measure.rows(measure.take_turns(made, self._blocks), "ms", lambda seconds: seconds * 1e3)
        measure.show(f"{name}, {where}", table, [against])
        cpus = measure.cpus_of_children()
        self.data["passes"].append({"name": name, "cpu": cpu, "cpus_of_children": cpus, "rows": table})
        return table


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    Run(argv).all()


if __name__ == "__main__":
    main()
