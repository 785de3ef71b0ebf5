"""`venvoy env`, `venvoy run` and `venvoy call` as a person at a terminal, or a program, meets them."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

VENVOY = [sys.executable, "-c", "from venvoy.cli import main; main()"]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small wheel, so that nothing here needs the network."""
    folder = tmp_path_factory.mktemp("wheels")
    info = "tiny-1.0.dist-info"
    files = {
        "tiny.py": "WORD = 'here'\ndef double(x, times=2):\n    print('printed')\n    return x * times\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": f"tiny.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n",
    }
    with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    return folder


class Shell:
    """Runs `venvoy` with a home of its own."""

    def __init__(self, home: Path, wheels: Path, cwd: Path) -> None:
        self.environ = {**os.environ, "VENVOY_HOME": str(home), "UV_FIND_LINKS": str(wheels)}
        self.cwd = cwd

    def __call__(self, *arguments: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run it, and check how it ends."""
        command = [*VENVOY, *map(str, arguments)]
        done = subprocess.run(command, env=self.environ, cwd=self.cwd, capture_output=True, text=True, timeout=60)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for the tests that only look or build the same."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def venvoy(shared_home: Path, wheels: Path, tmp_path: Path) -> Shell:
    """The command, in the shared home."""
    return Shell(shared_home, wheels, tmp_path)


TINY = ("--with", "tiny<2", "--offline")


def test_an_environment_is_built_listed_shown_found_and_removed(wheels: Path, tmp_path: Path) -> None:
    """The life of one, in text and in JSON."""
    venvoy = Shell(tmp_path / "home", wheels, tmp_path)
    folder = venvoy("env", "build", "tiny<2", "--offline").stdout.strip()
    assert Path(folder, "ready.json").exists()
    built = json.loads(venvoy("env", "build", "tiny<2", "--offline", "--json").stdout)
    assert (built["prefix"], built["packages"], built["in_use"]) == (folder, ["tiny==1.0"], False)
    key = built["key"]
    (line,) = [line for line in venvoy("env", "list").stdout.splitlines() if key[:12] in line]
    assert "EnvSpec(packages=['tiny<2'], offline=True)" in line
    assert json.loads(venvoy("env", "list", "--json").stdout)[0]["key"] == key
    assert re.search(r"packages: +tiny==1\.0", venvoy("env", "show", key[:6]).stdout)
    assert json.loads(venvoy("env", "show", key[:6], "--json").stdout)["key"] == key
    assert venvoy("env", "path", key[:6]).stdout.strip() == folder
    assert venvoy("env", "path", key, "--python").stdout.strip() == f"{folder}/bin/python"
    assert "nothing" not in venvoy("env", "gc", "--max-age", "1d", "--max-bytes", "1GB").stdout
    assert Path(folder).exists()
    assert folder in venvoy("env", "rm", key[:6]).stdout
    assert not Path(folder).exists()
    assert "no environment begins with" in venvoy("env", "rm", key, status=1).stderr
    venvoy("env", "build", "tiny<2", "--offline")
    done = json.loads(venvoy("env", "gc", "--keep-last", "0", "--json").stdout)
    assert done["removed"] == [key]
    assert done["freed"] > 10_000


def test_every_kind_of_spec_can_be_built(venvoy: Shell, tmp_path: Path) -> None:
    """A requirements file, a script, a project; with packages on top."""
    (tmp_path / "r.txt").write_text("tiny\n")
    (tmp_path / "s.py").write_text('# /// script\n# dependencies = ["tiny"]\n# ///\n')
    for option, file in (("--requirements", "r.txt"), ("--script", "s.py")):
        built = json.loads(venvoy("env", "build", option, file, "--offline", "--json").stdout)
        assert built["packages"] == ["tiny==1.0"]
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')
    assert "no extra 'nope'" in venvoy("env", "build", "--project", ".", "--extra", "nope", status=2).stderr


def test_run_becomes_the_script(venvoy: Shell, tmp_path: Path) -> None:
    """Its arguments, its status, its environment; a script's own block is followed."""
    (tmp_path / "s.py").write_text("import sys, tiny\nprint(tiny.WORD, sys.argv[1:])\nsys.exit(7)\n")
    assert venvoy("run", *TINY, "s.py", "--json", "-x", status=7).stdout == "here ['--json', '-x']\n"
    (tmp_path / "t.py").write_text('# /// script\n# dependencies = ["tiny"]\n# ///\nimport tiny\nprint(tiny.WORD)\n')
    assert venvoy("run", "--offline", "t.py").stdout == "here\n"
    done = venvoy("run", *TINY, "python", "-c", "import os; print(os.environ['PATH'].split(':')[0])")
    assert done.stdout.strip().endswith("/bin")
    assert "there is no program 'nope'" in venvoy("run", *TINY, "nope", status=1).stderr
    assert "there is no file nope.py" in venvoy("run", *TINY, "nope.py", status=2).stderr


def test_a_running_script_holds_its_environment(venvoy: Shell, tmp_path: Path) -> None:
    """It cannot be removed before the script ends; a signal reaches the script itself."""
    (tmp_path / "s.py").write_text("import sys, time\nprint(sys.prefix, flush=True)\ntime.sleep(60)\n")
    command = [*VENVOY, "run", *TINY, "s.py"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=venvoy.environ, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        key = Path(process.stdout.readline().strip()).name
        assert "in use by a live process" in venvoy("env", "rm", key, status=1).stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
    venvoy("env", "rm", key)


def test_call_prints_the_result_as_json_and_nothing_else(venvoy: Shell) -> None:
    """Positional arguments, keywords, a single value; what the function prints goes to stderr."""
    done = venvoy("call", "tiny:double", "[[1, 2]]", *TINY)
    assert (done.stdout, done.stderr) == ("[1, 2, 1, 2]\n", "printed\n")
    assert venvoy("call", "tiny:double", '{"x": "a", "times": 3}', *TINY).stdout == '"aaa"\n'
    assert venvoy("call", "math:sqrt", "16").stdout == "4.0\n"
    assert venvoy("call", "builtins:set", "[[1]]").stdout == "[1]\n"
    assert venvoy("call", "datetime:date", "[2024, 2, 29]").stdout == '"2024-02-29"\n'
    assert venvoy("call", "array:array", '["b", [1, 2]]').stdout == "[1, 2]\n"


def test_call_tells_failures_apart(venvoy: Shell) -> None:
    """Wrong usage is 2; an error of the function, a missing one, a deadline, a value JSON cannot express are 1."""
    assert "not JSON" in venvoy("call", "math:sqrt", "{", status=2).stderr
    assert "math:sqrt raised ValueError: math domain error" in venvoy("call", "math:sqrt", "[-1]", status=1).stderr
    assert "math" in venvoy("call", "math:nope", status=1).stderr
    shown = venvoy("call", "math:sqrt", "[-1]", "--traceback", status=1).stderr
    assert shown.startswith("ValueError: math domain error\nvenvoy: math:sqrt raised")
    assert "deadline" in venvoy("call", "time:sleep", "60", "--timeout", "0.3", status=1).stderr
    assert "a complex) has no plain form" in venvoy("call", "builtins:complex", "[1, 2]", status=1).stderr


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (["env", "build", "tiny=1"], "'tiny=1' is not a requirement", 2),
        (["env", "build", "tiny==9", "--offline"], "unsatisfiable", 1),
        (["env", "build", "--requirements", "nope.txt"], "nope.txt cannot be read", 2),
        (["env", "build", "--project", "a", "--script", "b"], "exclude each other", 2),
        (["env", "build", "six", "--extra", "x"], "belong to --project", 2),
        (["env", "build", "--installer", "conda"], "'conda' is none of", 2),
        (["env", "build", "--python", "3.99"], "no CPython 3.99", 1),
        (["env", "build", "--timeout", "0"], "--timeout", 2),
        (["call", "math:sqrt", "4", "--timeout", "0"], "--timeout: 0.0 is not a positive number", 2),
        (["worker"], "say what the worker is to speak: --stdio-json", 2),
        (["worker", "--stdio-json", "--source", "nope.py"], "--source: there is no file nope.py", 2),
        (["env", "gc", "--max-age", "soon"], "--max-age: 'soon'", 2),
        (["env", "gc", "--keep-last", "-1"], "--keep-last", 2),
        (["env", "show", "zzz"], "no environment begins with 'zzz'", 1),
    ],
)
def test_errors_are_a_clear_paragraph_and_a_status(
    venvoy: Shell, arguments: list[str], words: str, status: int
) -> None:
    """On stderr, with nothing on stdout."""
    done = venvoy(*arguments, status=status)
    assert words in done.stderr
    assert done.stderr.startswith("venvoy: ")
    assert done.stdout == ""


def test_a_terminal_shows_what_is_going_on(wheels: Path, tmp_path: Path) -> None:
    """While it is being built; the result stays alone on stdout."""
    shell = Shell(tmp_path / "home", wheels, tmp_path)
    reader, writer = pty.openpty()
    command = [*VENVOY, "env", "build", "tiny", "--offline"]
    environ = {**shell.environ, "TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stdin=writer, stderr=writer) as process:
        os.close(writer)
        shown = b""
        while True:
            try:
                shown += os.read(reader, 65536)
            except OSError:  # how a terminal says that it has ended
                break
        assert process.stdout is not None
        printed = process.stdout.read().decode().strip()
    os.close(reader)
    assert Path(printed, "ready.json").exists()
    assert b"create: making an environment" in shown or b"install:" in shown


def test_control_c_ends_a_build_with_its_installer(wheels: Path, tmp_path: Path) -> None:
    """Status 130, and nothing half-built."""
    shell = Shell(tmp_path / "home", wheels, tmp_path)
    (tmp_path / "backend.py").write_text(
        "import time\ndef build_wheel(*_):\n    time.sleep(60)\nbuild_editable = build_wheel\n"
    )
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "slow"\nversion = "1"\n'
    )
    command = [*VENVOY, "env", "build", "--project", ".", "--offline"]
    with subprocess.Popen(command, env=shell.environ, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 20
        while not list((tmp_path / "home").glob("envs/*/.venvoy-build")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        assert process.wait(10) == 130
        assert time.monotonic() - begin < 2
    assert os.listdir(tmp_path / "home" / "envs") == []
