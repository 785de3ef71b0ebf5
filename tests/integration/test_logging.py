"""venvoy's own diagnostics: silent by default, configured by the environment or by `logging`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

RunScript = Callable[..., Any]
CRASH = """
    import venvoy as vv
    with vv.Pool(workers=1, name="watched") as pool:
        try:
            pool.call("os:_exit", 3)
        except vv.WorkerCrashed:
            print("crashed")
        print(pool.call("math:sqrt", 4))
"""


def test_it_is_silent_by_default(run_script: RunScript) -> None:
    """Not a word on stderr, not even of a crash: that is an error of the call."""
    done = run_script(CRASH)
    assert (done.stdout.split(), done.stderr, done.returncode) == (["crashed", "2.0"], "", 0)


def test_venvoy_log_writes_readable_lines(run_script: RunScript) -> None:
    """With time, level and logger; DEBUG shows more than WARNING."""
    debug = run_script(CRASH, VENVOY_LOG="debug").stderr.splitlines()
    warning = run_script(CRASH, VENVOY_LOG="WARNING").stderr.splitlines()
    assert len(debug) > len(warning) > 0
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d.* (DEBUG|INFO|WARNING) venvoy", line) for line in debug)
    assert any("watched" in line and "exited with status 3" in line for line in warning)


def test_venvoy_log_json_writes_one_object_per_line(run_script: RunScript) -> None:
    """For machines."""
    lines = run_script(CRASH, VENVOY_LOG="DEBUG", VENVOY_LOG_JSON="1").stderr.splitlines()
    records = [json.loads(line) for line in lines]
    assert records
    assert all({"time", "level", "logger", "message"} <= set(record) for record in records)
    assert any(record["level"] == "WARNING" and "watched" in record["message"] for record in records)


def test_venvoy_log_format_is_a_format_of_logging(run_script: RunScript) -> None:
    """As `logging.Formatter` takes it."""
    lines = run_script(CRASH, VENVOY_LOG="WARNING", VENVOY_LOG_FORMAT="<%(levelname)s|%(name)s>").stderr.splitlines()
    assert lines
    assert set(lines) == {"<WARNING|venvoy>"}


@pytest.mark.parametrize("variables", [{"VENVOY_LOG": ""}, {"VENVOY_LOG_JSON": "1"}, {"VENVOY_LOG_FORMAT": "%(name)s"}])
def test_without_a_level_nothing_is_written(run_script: RunScript, variables: dict[str, str]) -> None:
    """The other variables only say how."""
    assert run_script(CRASH, **variables).stderr == ""


def test_a_wrong_level_is_named(run_script: RunScript) -> None:
    """With those there are."""
    done = run_script("import venvoy", VENVOY_LOG="LOUD")
    assert done.returncode != 0
    assert "VENVOY_LOG" in done.stderr
    assert "LOUD" in done.stderr
    assert "DEBUG" in done.stderr


def test_the_application_can_listen(run_script: RunScript) -> None:
    """The logger `venvoy` passes its records on, as every library's."""
    done = run_script(
        "import logging\nlogging.basicConfig(level=logging.WARNING, format='app %(name)s')\n"
        + CRASH.replace("\n    ", "\n")
    )
    assert set(done.stderr.splitlines()) == {"app venvoy"}
