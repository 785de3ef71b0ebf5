"""Environments in use: commands run in them, what of the host reaches these, every interpreter, no network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import venvoy as vv
from venvoy.envs import Env, EnvSpec, build
from venvoy.errors import EnvBuildError, EnvError

from .projects import files_in, make_project, write_word

POISON = {
    "PYTHONHOME": "/nowhere",
    "PYTHONPATH": "/nowhere",
    "PYTHONSTARTUP": "/nowhere",
    "VIRTUAL_ENV": "/nowhere",
    "VIRTUAL_ENV_PROMPT": "nowhere",
    "CONDA_PREFIX": "/nowhere",
    "_CONDA_ROOT": "/nowhere",
    "__PYVENV_LAUNCHER__": "/nowhere",
    "UV_PROJECT_ENVIRONMENT": "/nowhere",
    "UV_PYTHON": "3.99",
    "PIP_TARGET": "/nowhere",
    "PIP_USER": "1",
}


def say(env: Env, code: str) -> str:
    """Return what a line of Python prints in the environment, run as `Env.run` runs it."""
    return env.run(["python", "-c", code], capture_output=True, text=True, check=True).stdout.strip()


# --- commands -------------------------------------------------------------------------------------


def test_a_command_runs_among_the_programs_of_the_environment(tiny: EnvSpec, home: Path, tmp_path: Path) -> None:
    """With the keywords of `subprocess.run`, and its result."""
    env = build(tiny, home=home)
    assert say(env, "import sys, tiny; print(sys.prefix)") == env.prefix
    done = env.run(["python", "-c", "import os; print(input(), os.getcwd())"], input=b"in\n", cwd=tmp_path, stdout=-1)
    assert done.stdout.decode().split() == ["in", str(tmp_path)]
    assert env.run(["python", "-c", "raise SystemExit(7)"]).returncode == 7
    with pytest.raises(subprocess.CalledProcessError):
        env.run(["python", "-c", "raise SystemExit(7)"], check=True)
    with pytest.raises(subprocess.TimeoutExpired):
        env.run(["sleep", "20"], timeout=0.1)
    with pytest.raises(FileNotFoundError):
        env.run(["no-such-program-anywhere"])
    with pytest.raises(TypeError, match="takes a list"):
        env.run("python -c 1")


def test_a_command_in_an_environment_that_was_removed_is_an_error(tiny: EnvSpec, tmp_path: Path) -> None:
    """And while one runs, the environment is not removed."""
    env = build(tiny, home=tmp_path)
    code = "import sys; from venvoy.envs import Env; Env(*sys.argv[1:5], home=sys.argv[5]).remove()"
    arguments = [env.key, env.python, env.version, env.prefix, str(env.home)]
    script = (
        subprocess.list2cmdline([sys.executable, "-c", code, *arguments]).replace(code, f"'{code}'").replace('"', "")
    )
    done = env.run(["/bin/sh", "-c", script], env=dict(os.environ), capture_output=True, text=True)
    assert "in use by a live process" in done.stderr
    env.remove()
    with pytest.raises(EnvError, match="is gone"):
        env.run(["python", "-c", "1"])


def test_nothing_of_the_host_leaks_into_commands_and_workers(
    tiny: EnvSpec, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefix, path and `which python` are the environment's; other variables come along."""
    for name, value in POISON.items():
        monkeypatch.setenv(name, value)
    host_scripts = os.path.dirname(sys.executable)
    monkeypatch.setenv("PATH", host_scripts, prepend=os.pathsep)
    monkeypatch.setenv("UNRELATED", "kept")
    env = build(tiny, home=home)
    code = "[i('sys').prefix, i('sys').path, i('shutil').which('python'), dict(i('os').environ)]"
    with vv.Pool(env, workers=1, home=home) as pool:
        in_worker = pool.eval(code.replace("i(", "__import__("))
    in_command = json.loads(say(env, f"i = __import__; print(i('json').dumps({code}))"))
    for prefix, path, which, environ in (in_command, in_worker):
        assert prefix == env.prefix
        assert which == env.python
        assert not any(entry.startswith(("/nowhere", host_scripts)) for entry in path)
        assert environ["UNRELATED"] == "kept"
        assert environ["PATH"].split(os.pathsep)[0] == os.path.dirname(env.python)
        assert not set(POISON) & set(environ)


def test_what_is_asked_for_reaches_the_worker(tiny: EnvSpec, home: Path, tmp_path: Path) -> None:
    """`env_vars` and `paths` are the ways in."""
    (tmp_path / "beside.py").write_text("WORD = 'beside'\n")
    options = vv.WorkerOptions(env_vars={"PYTHONHASHSEED": "0", "MINE": "1"}, paths=[tmp_path])
    with vv.Pool(tiny, workers=1, worker=options, home=home) as pool:
        assert pool.call("beside:WORD.upper") == "BESIDE"
        assert pool.call("os:getenv", "MINE") == "1"
        assert pool.call("os:getenv", "PYTHONHASHSEED") == "0"


def test_an_environment_does_not_change_while_it_is_used(home: Path) -> None:
    """Everything is compiled at build, by either installer, so that imports write nothing."""
    for installer in ("uv", "pip"):
        env = build(EnvSpec(["iniconfig", "markupsafe"], installer=installer), home=home)
        before = files_in(Path(env.prefix))
        assert any("markupsafe/__pycache__" in name for name in before)
        options = vv.WorkerOptions(env_vars={"PYTHONDONTWRITEBYTECODE": ""})
        with vv.Pool(env, workers=2, worker=options, home=home) as pool:
            assert [pool.call("markupsafe:escape.__name__.upper") for _ in range(100)] == ["ESCAPE"] * 100
            pool.call("iniconfig:IniConfig.__name__.upper")
        assert files_in(Path(env.prefix)) == before


def test_edits_of_a_project_are_seen_by_the_next_worker(wheels: Path, home: Path, tmp_path: Path) -> None:
    """In the same pool: the worker that runs keeps what it has imported."""
    project = make_project(tmp_path / "project", "first")
    spec = EnvSpec.project(project, find_links=[wheels], offline=True)
    with vv.Pool(spec, workers=1, home=home) as pool:
        assert pool.call("sample:WORD.upper") == "FIRST"
        write_word(project, "changed")
        assert pool.call("sample:WORD.upper") == "FIRST"
        pool.terminate(pool.workers()[0].id)
        assert pool.call("sample:WORD.upper") == "CHANGED"


@pytest.mark.slow
def test_one_bad_environment_of_twenty_leaves_nineteen_serving(wheels: Path, home: Path) -> None:
    """With versions that clash; the bad one raises its own error."""
    specs = [
        EnvSpec([f"tiny=={1 + n % 2}.0"], constraints=[f"unused=={n}"], find_links=[wheels], offline=True)
        for n in range(20)
    ]
    specs[7] = EnvSpec(["tiny==9.9"], find_links=[wheels], offline=True)
    pools = [vv.Pool(spec, workers=1, home=home) for spec in specs]
    try:
        futures = [pool.submit("importlib.metadata:version", "tiny") for pool in pools]
        with pytest.raises(EnvBuildError, match="unsatisfiable"):
            futures.pop(7).result(60)
        answers = [future.result(60) for future in futures]
    finally:
        for pool in pools:
            pool.close(0)
    assert sorted(answers) == ["1.0"] * 10 + ["2.0"] * 9


# --- interpreters ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_interpreter_serves_a_pure_and_a_binary_package(interpreter: str, home: Path) -> None:
    """Built for it, and called into."""
    env = build(EnvSpec(["iniconfig", "markupsafe"], python=interpreter), home=home)
    with vv.Pool(env, workers=1, home=home) as pool:
        assert str(pool.call("markupsafe._speedups:__name__.upper")) == "MARKUPSAFE._SPEEDUPS"
        assert pool.call("iniconfig:__name__.upper") == "INICONFIG"


def test_an_environment_made_from_another_venv_keeps_its_own_packages(tmp_path: Path, wheels: Path, home: Path) -> None:
    """What is installed in the one it is made from stays there."""
    venv.create(tmp_path / "other", symlinks=True)
    site = next((tmp_path / "other" / "lib").glob("python*/site-packages"))
    (site / "only_in_the_other.py").touch()
    env = build(EnvSpec(["tiny"], python=tmp_path / "other", find_links=[wheels], offline=True), home=home)
    find = "import importlib.util as u; print(u.find_spec('only_in_the_other'), u.find_spec('tiny') is not None)"
    assert say(env, find) == "None True"


# --- no network -----------------------------------------------------------------------------------


def test_a_folder_of_wheels_is_enough_without_a_network(wheels: Path, tmp_path: Path) -> None:
    """In a network namespace with nothing in it, with an empty cache, by either installer; a cached one starts too."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rn", "true"], capture_output=True).returncode != 0:
        pytest.skip("this user may not make a network namespace")
    code = """
import sys
from venvoy.envs import EnvSpec, build
for installer in ("uv", "pip", "uv"):
    env = build(EnvSpec(["tiny"], installer=installer, find_links=[sys.argv[1]], offline=True), home=sys.argv[2])
    env.run(["python", "-c", "import tiny; print(tiny.WORD)"], check=True)
"""
    environ = {**os.environ, "UV_CACHE_DIR": str(tmp_path / "cache"), "PIP_NO_CACHE_DIR": "1"}
    command = [unshare, "-rn", sys.executable, "-c", code, str(wheels), str(tmp_path / "home")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.stdout.split() == ["here"] * 3, done.stderr
