"""Environments: a new one beside plain uv, one that is there, and the first import in a fresh one.

    python benchmarks/environments.py [--json FILE] [--quick] [--only NAME,...]

"plain uv" is `uv venv && uv pip install` by hand, with and without `--compile-bytecode`; packages come from uv's cache,
which the first round fills, and the interpreter is known to both. "first import" starts the interpreter of a fresh
environment and imports numpy; without byte code from the build it compiles every module, as a read-only or shared
environment would do each time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import uv

import measure
from measure import Block, Row
from venvoy import Env, EnvSpec, build

OURS, PLAIN, BARE = "venvoy build", "plain uv, compiled", "plain uv"
COMPILED, NOT_COMPILED = "import numpy, compiled", "import numpy, not compiled"
_STARTS = frozenset({"subprocess.Popen", "os.posix_spawn", "os.fork", "os.exec", "os.system"})


def run(*command: str | Path, **variables: str) -> None:
    """Run a command to its end, quietly."""
    environ = {**os.environ, **variables}
    subprocess.run(command, check=True, env=environ, stdin=subprocess.DEVNULL, capture_output=True)


def plain_uv(folder: Path, packages: Sequence[str], *options: str) -> None:
    """Make an environment by hand."""
    binary = uv.find_uv_bin()
    run(binary, "venv", "--quiet", "--no-project", "--python", sys.executable, folder)
    python = folder / "bin" / "python"
    run(binary, "pip", "install", "--quiet", "--python", python, *options, *packages)


class Scratch:
    """Folders of one run of this benchmark."""

    def __init__(self, folder: str) -> None:
        self.home = Path(folder, "home")
        self._plain = Path(folder, "plain")
        self._envs: dict[EnvSpec, Env] = {}

    def build_blocks(self, packages: Sequence[str]) -> dict[str, Block]:
        """Return blocks of one new environment each; what was there before is removed first, outside of the time."""
        spec = EnvSpec(list(packages))

        def ours() -> Sequence[float]:
            if spec in self._envs:
                self._envs[spec].remove()
            return measure.once(lambda: self._envs.update({spec: build(spec, home=self.home)}))

        def plain(*options: str) -> Sequence[float]:
            shutil.rmtree(self._plain, ignore_errors=True)
            return measure.once(lambda: plain_uv(self._plain, packages, *options))

        return {PLAIN: partial(plain, "--compile-bytecode"), OURS: ours, BARE: plain}

    def cached_blocks(self) -> tuple[dict[str, Block], Callable[[], int]]:
        """Return blocks that resolve environments that are there, and a function that counts processes started."""
        folder = self.home.parent / "project"
        folder.mkdir()
        (folder / "requirements.txt").write_text("six\niniconfig  # small\n")
        (folder / "pyproject.toml").write_text(
            '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
            '[project]\nname = "measured"\nversion = "1"\ndependencies = ["six"]\n'
        )
        (folder / "measured.py").write_text("")
        specs = {
            "packages": EnvSpec(["six", "iniconfig"]),
            "requirements file": EnvSpec.requirements(folder / "requirements.txt"),
            "project": EnvSpec.project(folder),
        }
        for spec in specs.values():
            build(spec, home=self.home)
        begun: list[str] = []
        sys.addaudithook(lambda event, _: begun.append(event) if event in _STARTS else None)
        blocks = {name: partial(measure.once, partial(build, spec, home=self.home)) for name, spec in specs.items()}
        return blocks, lambda: len(begun)

    def import_blocks(self) -> dict[str, Block]:
        """Return blocks of a first import, in an environment of ours and in one whose modules are not compiled."""
        env = build(EnvSpec(["numpy"]), home=self.home)
        bare = self.home.parent / "not compiled"
        plain_uv(bare, ["numpy"])
        never = {"PYTHONDONTWRITEBYTECODE": "1"}  # else only the first of the runs would be a first import
        code = ("-c", "import numpy")
        return {
            COMPILED: partial(measure.once, partial(run, env.python, *code, **never)),
            NOT_COMPILED: partial(measure.once, partial(run, bare / "bin" / "python", *code, **never)),
        }


class Run:
    """One run of this benchmark: measures, prints, and keeps what is to be written."""

    def __init__(self, argv: Sequence[str] | None) -> None:
        self._options = measure.arguments(__doc__.splitlines()[0], argv)
        self.data = measure.report("environments", self._options)
        self._blocks = 1 if self._options.quick else 7

    def all(self) -> None:
        """Measure everything."""
        with tempfile.TemporaryDirectory() as folder:
            scratch = Scratch(folder)
            sizes = {"six": ["six"]} if self._options.quick else {"six": ["six"], "numpy": ["numpy"]}
            for name, packages in sizes.items():
                table = self._note(f"a new environment with {name}", scratch.build_blocks(packages), PLAIN)
                ours = next(row for row in table if row.name == OURS)
                self._target(f"new environment with {name}: x plain uv", ours.ratios[PLAIN], 1.15)
            made, processes = scratch.cached_blocks()
            for row in self._note("an environment that is there", made, ""):
                self._target(f"{row.name}: ms", row.p50, 5.0)
            self._target("environments that are there: processes started", processes(), 0)
            if not self._options.quick:
                self._note("the first import in a fresh environment", scratch.import_blocks(), COMPILED)
        measure.show_targets(self.data["targets"])
        measure.write(self.data, self._options.json)

    def _target(self, what: str, value: float, limit: float) -> None:
        self.data["targets"].append(measure.at_most(what, "not pinned", value, limit))

    def _note(self, name: str, made: dict[str, Block], against: str) -> list[Row]:
        table = measure.rows(measure.take_turns(made, self._blocks), "ms", lambda seconds: seconds * 1e3)
        measure.show(name, table, [against])
        self.data["passes"].append({"name": name, "cpu": None, "cpus_of_children": [], "rows": table})
        return table


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    Run(argv).all()


if __name__ == "__main__":
    main()
