"""venvoy in the kernel of a notebook, which an environment of its own runs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import venvoy as vv

SOURCES = Path(vv.__file__).parents[1]

RUN = """
import asyncio, json, sys
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

cells = json.load(sys.stdin)
client = NotebookClient(new_notebook(cells=[new_code_cell(cell) for cell in cells]), timeout=60, allow_errors=True)

async def main():
    async with client.async_setup_kernel():
        for number, cell in enumerate(client.nb.cells):
            run = asyncio.ensure_future(client.async_execute_cell(cell, number))
            while "INTERRUPTED" in cell.source and not cell.outputs:  # it says when it has begun
                await asyncio.sleep(0.05)
            if "INTERRUPTED" in cell.source:
                await client.km.interrupt_kernel()
            await run
    print(json.dumps([[dict(output) for output in cell.outputs] for cell in client.nb.cells]))

asyncio.run(main())
"""

CELLS = {
    "pool": "import venvoy as vv\nFACTOR = 3\npool = vv.Pool(workers=1)\nfirst = pool.call('os:getpid')",
    "function": "def scaled(x):\n    return FACTOR / x\nprint(pool.call(scaled, 3))",
    "run again": "FACTOR = 6\nprint(pool.call(scaled, 3))",
    "new pool": (
        "import os, psutil\nold = psutil.Process(first)\npool = vv.Pool(workers=1)\nfirst = pool.call('os:getpid')\n"
        "old.wait(30)\nprint(pool.call(scaled, 2), 'the old one has ended')"
    ),
    "error": "pool.call(scaled, 0)",
    "bar": (
        "with vv.progress_bar('roots', total=300) as bar:\n"
        "    roots = list(bar.track(pool.map('math:sqrt', range(300))))"
    ),
    "interrupt": "print('begun', flush=True)\npool.call('time:sleep', 600)  # INTERRUPTED",
    "goes on": "print(pool.call(scaled, 2), pool.call('os:getpid') == first)",
    "awaited": "print(await pool.aio.call(scaled, 1))",
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, home: Path) -> dict[str, str]:
    """What a kernel shows below each cell."""
    try:
        env = vv.build(vv.EnvSpec(packages=["ipykernel", "nbclient", "msgspec", "psutil", "platformdirs"]))
    except vv.EnvBuildError:
        pytest.skip("Jupyter cannot be had here")
    folder = tmp_path_factory.mktemp("notebook")
    variables = {"PYTHONPATH": str(SOURCES), "IPYTHONDIR": str(folder), "JUPYTER_RUNTIME_DIR": str(folder)}
    done = subprocess.run(
        [env.python, "-c", RUN],
        input=json.dumps(list(CELLS.values())),
        env={**env.environ(), **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(CELLS, map(_text, json.loads(done.stdout.splitlines()[-1])), strict=True))


def _text(shown: list[dict[str, object]]) -> str:
    """All that one cell shows."""
    return "\n".join(str(part.get("text") or part.get("data") or part.get("traceback")) for part in shown)


def test_functions_of_cells_run_as_they_are_now(outputs: dict[str, str]) -> None:
    """With the values that their names have when they are called."""
    assert outputs["function"] == "1.0\n"
    assert outputs["run again"] == "2.0\n"
    assert outputs["awaited"] == "6.0\n"


def test_an_error_shows_the_line_of_the_cell(outputs: dict[str, str]) -> None:
    """Below the one in the cell that has made the call."""
    assert "return FACTOR / x" in outputs["error"]


def test_a_bar_is_drawn_below_its_cell(outputs: dict[str, str]) -> None:
    """Once, in the place where it began."""
    assert outputs["bar"].count("300/300") == 1
    assert "━" in outputs["bar"]


def test_interrupting_the_kernel_stops_the_call(outputs: dict[str, str]) -> None:
    """And the worker, with what it has loaded, serves the next cell."""
    assert "KeyboardInterrupt" in outputs["interrupt"]
    assert outputs["goes on"] == "3.0 True\n"


def test_a_pool_that_is_made_again_ends_the_one_before(outputs: dict[str, str]) -> None:
    """As soon as its name stands for the new one."""
    assert outputs["new pool"] == "3.0 the old one has ended\n"
