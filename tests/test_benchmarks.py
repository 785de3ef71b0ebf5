"""The benchmarks run from a checkout, whatever peers are installed, and write figures of the promised shape."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import psutil
import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
OURS = "raw pipe,venvoy,ProcessPoolExecutor"


def run(script: str, *arguments: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run a benchmark; return how it ended, and a mark that all its processes carry in their environment."""
    mark = uuid.uuid4().hex
    command = [sys.executable, str(FOLDER / script), "--quick", *arguments]
    environ = {**os.environ, "MARK_OF_A_BENCHMARK": mark}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=80, check=False), mark


def figures(script: str, tmp_path: Path, *arguments: str) -> tuple[dict[str, Any], str, str]:
    """Run a benchmark that must succeed; return what it wrote, what it printed, and its mark."""
    path = tmp_path / "figures.json"
    done, mark = run(script, "--json", str(path), *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text()), done.stdout, mark


def processes_with(mark: str) -> list[psutil.Process]:
    """Return the processes that have inherited a mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MARK_OF_A_BENCHMARK") == mark:
                found.append(process)
        except (psutil.Error, OSError):
            pass
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        "arrays.py",
        "call_latency.py",
        "compare.py",
        "concurrency.py",
        "throughput.py",
        "start.py",
        "environments.py",
        "feed.py",
        "supervision.py",
        "asyncio_calls.py",
        "proxies.py",
        "streams.py",
    ],
)
def test_benchmark_with_all_peers_prints_a_table_writes_figures_and_leaves_no_process(
    script: str, tmp_path: Path
) -> None:
    """Each script measures whatever peers there are, names those that are not, and ends all processes."""
    data, printed, mark = figures(script, tmp_path)
    _, alive = psutil.wait_procs(processes_with(mark), timeout=5)
    assert not alive
    assert data["benchmark"] == script.removesuffix(".py")
    assert data["is_quick"] is True
    assert data["versions"]["venvoy"]
    assert data["machine"]["cpus"] == os.cpu_count()
    assert "p50" in printed
    assert "p99" in printed
    for name, why in data["skipped"].items():
        assert why == "not installed"
        assert f"{name}: skipped, {why}" in printed
    assert_rows_are_whole(data)
    for target in data["targets"]:
        assert set(target) == {"what", "where", "value", "limit", "is_met"}
        assert target["what"] in printed


def assert_rows_are_whole(data: dict[str, Any]) -> None:
    """Each row has its figures, its blocks' medians, and a ratio to each row of its table."""
    assert data["passes"]
    for one in data["passes"]:
        names = {row["name"] for row in one["rows"]}
        for row in one["rows"]:
            assert 0 < row["p50"] <= row["p99"]
            assert row["samples"] >= len(row["blocks"]) > 0
            assert set(row["ratios"]) == names
            assert row["ratios"][row["name"]] == 1.0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin processes")
@pytest.mark.parametrize("script", ["call_latency.py", "throughput.py"])
def test_pinned_pass_runs_every_process_on_one_cpu(script: str, tmp_path: Path) -> None:
    """Host and workers share the CPU that the pass names; the other pass has all CPUs this process may use."""
    data, _, _ = figures(script, tmp_path, "--only", OURS)
    assert {one["cpu"] is None for one in data["passes"]} == {True, False}
    for one in data["passes"]:
        assert one["cpus_of_children"] == ([one["cpu"]] if one["cpu"] is not None else sorted(os.sched_getaffinity(0)))


def test_contenders_that_are_not_asked_for_are_left_out(tmp_path: Path) -> None:
    """`--only` measures the named ones, and the figures say why the others are missing."""
    data, _, _ = figures("call_latency.py", tmp_path, "--only", "raw pipe,venvoy")
    assert {row["name"] for one in data["passes"] for row in one["rows"]} == {"raw pipe", "venvoy", "venvoy submit"}
    assert data["skipped"]["ProcessPoolExecutor"] == "not asked for"


def test_unknown_contender_is_refused_with_the_names_there_are() -> None:
    """A misspelt name ends the script with a message, before anything is started."""
    done, _ = run("throughput.py", "--only", "nobody")
    assert done.returncode != 0
    assert "'nobody'" in done.stderr
    assert "ProcessPoolExecutor" in done.stderr
