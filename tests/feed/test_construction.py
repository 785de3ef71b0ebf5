"""What is given wrongly is refused where it is given, with what is right; nothing is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.feed.conftest import number

from venvoy.feed import Swarm, blocks, collect, fifo, file, handle, lines, pipe


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (["sort -n"], {}, ValueError, "shell=True"),
        ([["sort"]], {"shell": True}, ValueError, "one string"),
        ([[]], {}, ValueError, "empty"),
        ([5], {}, TypeError, "list of arguments"),
        ([["sort", 5]], {}, TypeError, "not 5"),
        ([["a\0b"]], {}, ValueError, "NUL"),
        ([["cat"], 0], {}, ValueError, "count is at least 1"),
        ([["cat"], "2"], {}, TypeError, "count is a whole number"),
        ([["cat"], 1, {}], {}, ValueError, "no channel"),
        ([["cat"], 1, [number]], {}, TypeError, "dict"),
        ([["cat"], 1, {"stdin": None}], {}, ValueError, "'stdin' has no encoder"),
        ([["cat"], 1, {"stdin": number, "side": pipe()}], {}, ValueError, "'side' has no encoder"),
        ([["cat"], 1, {"stdin": 5}], {}, TypeError, "'stdin': an encoder"),
        ([["cat"], 1, {"stdout": number}], {}, ValueError, "is an output"),
        ([["cat"], 1, {"a=b": number}], {}, ValueError, "a name is"),
        ([["cat"], 1, {"PATH": number}], {}, ValueError, "env_name="),
        ([["cat"], 1, {"mine": number}], {"env_vars": {"mine": "1"}}, ValueError, "env_name="),
        ([["cat"], 1, {"stdin": file("x", number)}], {}, ValueError, "is a pipe, not a file"),
        ([["cat"], 2, {"side": fifo("x", number)}], {}, ValueError, "{id}"),
        (
            [["cat"], 1, {"side": fifo("no/such/x", number)}],
            {},
            FileNotFoundError,
            "no folder .*'side'|'side'.*no folder",
        ),
        ([["cat"]], {"stdout": "no/such/{id}.out"}, FileNotFoundError, "stdout: there is no folder"),
        ([["cat"]], {"stdout": 5}, TypeError, "stdout is"),
        ([["cat"]], {"stderr": pipe(number)}, ValueError, "stderr goes to"),
        ([["cat"]], {"cwd": "no-such-folder"}, NotADirectoryError, "no-such-folder"),
        ([["cat"]], {"on_exit": "ignore"}, ValueError, "'fail', 'reroute', 'restart'"),
        ([["cat"]], {"distribute": "random"}, ValueError, "'round-robin'"),
        ([["cat"]], {"distribute": "key"}, ValueError, "key=function"),
        ([["cat"]], {"key": len}, ValueError, "distribute='key'"),
        ([["cat"]], {"at_least_once": True}, ValueError, "on_exit="),
        ([["cat"]], {"encode_threads": -1}, ValueError, "encode_threads"),
        ([["cat"]], {"max_bytes": 0}, ValueError, "max_bytes"),
        ([["cat"]], {"stall_timeout": -1}, ValueError, "stall_timeout"),
        ([["cat"]], {"grace_period": None}, TypeError, "grace_period"),
        ([["cat"]], {"no_such": 1}, TypeError, "no option 'no_such'; it has env_vars"),
        ([["cat"]], {"env_vars": {"A": 1}}, TypeError, "env_vars"),
        ([["cat"]], {"name": 1}, TypeError, "name is a str"),
    ],
)
def test_a_wrong_argument_is_named(arguments: Any, options: Any, error: type[Exception], message: str) -> None:
    """In the words of the argument."""
    with pytest.raises(error, match=message):
        Swarm(*arguments, **options)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: pipe(5), TypeError),
        (lambda: pipe(number, encoding="no-such"), LookupError),
        (lambda: pipe(factory=True), ValueError),
        (lambda: fifo(5, number), TypeError),
        (lambda: handle(5, number), TypeError),
        (lambda: collect(-1), ValueError),
        (lambda: lines(5), TypeError),
        (lambda: blocks(None), TypeError),
    ],
)
def test_a_wrong_channel_is_refused(make: Any, error: type[Exception]) -> None:
    """Where it is described."""
    with pytest.raises(error):
        make()


def test_braces_stay_as_they_are(tmp_path: Path) -> None:
    """`{id}` is replaced in file names, and in arguments only where asked; nothing else is a template."""
    out = str(tmp_path / "{x}{id}{{}}.out")
    with Swarm(["/bin/sh", "-c", 'cat; echo "$0"', "{id} {} {x}"], 1, stdout=out) as swarm:
        pass
    assert (tmp_path / "{x}0{{}}.out").read_text() == "{id} {} {x}\n"
    with Swarm(["/bin/sh", "-c", 'cat; echo "$0"', "{id} {} {x}"], 2, stdout=out, template=True) as swarm:
        pass
    assert (tmp_path / "{x}1{{}}.out").read_text() == "1 {} {x}\n"
    assert repr(swarm).startswith("<Swarm 'swarm': 2 x ['/bin/sh'")


def test_environment_and_folder_are_those_given(tmp_path: Path) -> None:
    """A function gives each process its own variables."""
    with Swarm(
        "echo $MINE; pwd",
        2,
        shell=True,
        stdout="collect",
        cwd=tmp_path,
        env_vars=lambda process: {"MINE": str(process)},
    ) as swarm:
        pass
    assert [process.stdout.decode().split() for process in swarm.report.processes] == [
        ["0", str(tmp_path)],
        ["1", str(tmp_path)],
    ]
