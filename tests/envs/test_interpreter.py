"""Finding interpreters: every version that is there, nothing that is not what was asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from venvoy.envs import Env, EnvSpec, build, interpreters, resolve
from venvoy.envs.discovery import find_interpreter
from venvoy.envs.interpreter import host_base
from venvoy.envs.limit import Limit
from venvoy.envs.requirement import VersionRequest
from venvoy.errors import EnvBuildError, EnvError, InterpreterNotFound

VERSIONS = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"


def pyenv_versions() -> list[str]:
    """Return the full versions in pyenv's folder that a worker runs on."""
    names = [path.name for path in VERSIONS.glob("3.*") if path.name.replace(".", "").isdigit()]
    return sorted(name for name in names if tuple(map(int, name.split("."))) >= (3, 8))


@pytest.mark.parametrize("version", pyenv_versions() or [pytest.param("", marks=pytest.mark.skip("no pyenv"))])
def test_each_version_of_pyenv_is_found_and_built_from(version: str, home: Path, wheels: Path) -> None:
    """The environment of a version runs that version, with its package, and starts without pyenv."""
    env = build(EnvSpec(["tiny==1.0"], python=version, find_links=[wheels], offline=True), home=home)
    code = "import sys, tiny; print('%d.%d.%d' % sys.version_info[:3], sys.prefix, tiny.WORD)"
    said = subprocess.run([env.python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == [version, env.prefix, "here"]
    assert env.version == version


def test_a_version_prefix_means_its_newest_match_of_the_folder(home: Path, tmp_path: Path) -> None:
    """`3.11` is found by its two numbers, and what is found is run before it is believed."""
    wanted = "{}.{}".format(*sys.version_info)
    found = find_interpreter(wanted, home=str(home), limit=Limit(60))
    assert found.version.startswith(f"{wanted}.")
    assert os.path.isabs(found.path)


def test_without_a_request_it_is_the_hosts_base_interpreter(home: Path) -> None:
    """An environment is not made from the host's virtual environment but from what that was made from."""
    found = find_interpreter(None, home=str(home), limit=Limit(60))
    assert found.version == "{}.{}.{}".format(*sys.version_info)
    assert found.prefix == found.base_prefix == sys.base_prefix
    assert found.path == host_base()


def test_a_version_that_is_not_there_is_refused_with_the_list_of_those_that_are(home: Path) -> None:
    """The message says what could be asked for instead, and where it is."""
    with pytest.raises(InterpreterNotFound) as caught:
        build(EnvSpec(["six"], python="3.99"), home=home)
    assert "no CPython 3.99" in str(caught.value)
    own = find_interpreter(None, home=str(home), limit=Limit(60))
    assert own.version in str(caught.value)
    assert own.path in str(caught.value)


def test_names_that_lie_are_not_believed(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program on PATH called python3.98 that is another Python, or none, is passed over."""
    (tmp_path / "python3.98").symlink_to(host_base() or sys.executable)
    (tmp_path / "python3.97").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "python3.97").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for version in ("3.98", "3.97"):
        with pytest.raises(InterpreterNotFound):
            find_interpreter(version, home=str(home), limit=Limit(60))


def test_the_list_of_interpreters_is_usable(home: Path) -> None:
    """Newest first, each one CPython of a version workers run on."""
    found = interpreters(home=home)
    assert [i.numbers for i in found] == sorted((i.numbers for i in found), reverse=True)
    assert all(i.implementation == "cpython" and i.numbers >= (3, 8) for i in found)


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("/no/such/python", InterpreterNotFound, "no interpreter at /no/such/python"),
        ("/etc/passwd", EnvError, "not an executable file"),
        ("/bin/true", EnvError, "does not answer as CPython 3.8 or later"),
    ],
)
def test_a_path_that_is_no_interpreter_is_refused(path: str, error: type[Exception], words: str, home: Path) -> None:
    """The message names the path and what is wrong with it."""
    with pytest.raises(error, match=words):
        resolve(path, home=home)


@pytest.mark.parametrize("old", ["3.7.16", "3.6.15", "2.7.18"])
def test_interpreters_older_than_3_8_are_refused(old: str, home: Path) -> None:
    """Whatever its syntax, an old Python is refused for its age."""
    path = VERSIONS / old / "bin" / "python"
    if not path.exists():
        pytest.skip(f"no Python {old} here")
    with pytest.raises(EnvError, match=r"CPython 3\.8"):
        resolve(path, home=home)


def test_an_interpreter_that_hangs_is_given_up(tmp_path: Path, home: Path) -> None:
    """The deadline holds while an interpreter is asked what it is."""
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nsleep 987\n")
    script.chmod(0o755)
    with pytest.raises(EnvBuildError, match=r"not finished within 0\.5 s, while asking"):
        resolve(script, home=home, timeout=0.5)


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory, home: Path, wheels: Path) -> Env:
    """An environment with a package of its own."""
    return build(EnvSpec(["other"], find_links=[wheels], offline=True), home=home)


def test_the_link_of_a_virtual_environment_is_kept(venv: Env, tmp_path: Path, home: Path) -> None:
    """Its interpreter is the link; what it points to is another environment. A link to the folder is kept too."""
    assert os.path.islink(venv.python)
    for path in (venv.python, venv.prefix):
        found = resolve(path, home=home)
        assert found.python == venv.python
        assert found.prefix == venv.prefix
        assert found.version == venv.version
        assert not found.is_current
        assert found.home is None
    link = tmp_path / "link"
    link.symlink_to(venv.prefix)
    assert resolve(link, home=home).python == str(link / "bin" / "python")


def test_an_environment_made_from_a_virtual_environment_is_its_own(venv: Env, home: Path, wheels: Path) -> None:
    """It has its packages and none of the other's."""
    env = build(EnvSpec(["tiny"], python=venv.python, find_links=[wheels], offline=True), home=home)
    code = "import sys, tiny, importlib.util as u; print(sys.prefix, u.find_spec('other'))"
    said = subprocess.run([env.python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == [env.prefix, "None"]


def test_none_is_the_hosts_own_environment(home: Path) -> None:
    """Nothing is run, and it is known to be the host's."""
    for env in (resolve(None, home=home), build(EnvSpec.current()), resolve(sys.executable, home=home)):
        assert env.is_current
        assert env.prefix == sys.prefix
        assert env.python == os.path.abspath(sys.executable)
        assert env.version == "{}.{}.{}".format(*sys.version_info)
        with pytest.raises(EnvError, match="not built by venvoy"):
            env.remove()


def test_a_script_is_asked_each_time(tmp_path: Path, home: Path) -> None:
    """A shim may start another interpreter tomorrow, so its answer is not remembered."""
    shim = tmp_path / "python"
    shim.write_text(f'#!/bin/sh\necho run >> {tmp_path}/runs\nexec {host_base()} "$@"\n')
    shim.chmod(0o755)
    assert resolve(shim, home=home).python == str(shim)
    resolve(shim, home=home)
    assert (tmp_path / "runs").read_text().count("run") == 2


def test_a_replaced_interpreter_is_asked_again(tmp_path: Path, home: Path) -> None:
    """What is remembered counts only for the file that was run."""
    others = [i for i in interpreters(home=home) if i.version != "{}.{}.{}".format(*sys.version_info)]
    if not others:
        pytest.skip("one interpreter only")
    link = tmp_path / "python"
    link.symlink_to(host_base() or sys.executable)
    before = resolve(link, home=home)
    link.unlink()
    link.symlink_to(others[0].path)
    after = resolve(link, home=home)
    assert after.version == others[0].version != before.version
    assert after.key != before.key


def test_another_interpreter_at_the_same_path_is_another_environment(tmp_path: Path, home: Path) -> None:
    """The key covers what the interpreter is, not only how it was asked for; and the old one stays usable."""
    one, *others = interpreters(home=home)
    if not others:
        pytest.skip("one interpreter only")
    link = tmp_path / "python"
    spec = EnvSpec(python=link)
    link.symlink_to(one.path)
    before = build(spec, home=home)
    link.unlink()
    link.symlink_to(others[0].path)
    after = build(spec, home=home)
    assert before.key != after.key
    for env, interpreter in ((before, one), (after, others[0])):
        said = subprocess.run([env.python, "-V"], capture_output=True, text=True, check=True).stdout
        assert said.split()[1] == interpreter.version == env.version


@pytest.mark.parametrize(
    ("request_text", "yes", "no"),
    [
        ("3.11", ["3.11.0", "3.11.7"], ["3.1.1", "3.10.11", "3.12.0"]),
        ("3.11.7", ["3.11.7"], ["3.11.70", "3.11.2"]),
        ("3", ["3.8.0", "3.14.1"], ["4.0.0"]),
        (">=3.9", ["3.9.0", "3.13.0"], ["3.8.18"]),
        (">= 3.9, <3.12", ["3.9.0", "3.11.9"], ["3.12.0", "3.8.1"]),
        ("~=3.9", ["3.9.0", "3.12.0"], ["4.0.0", "3.8.0"]),
        ("~=3.9.2", ["3.9.2", "3.9.18"], ["3.9.1", "3.10.0"]),
        ("==3.10.*", ["3.10.1"], ["3.11.1"]),
        ("!=3.10.*,>=3.9", ["3.9.1", "3.11.0"], ["3.10.4"]),
        ("==3.10", ["3.10.0"], ["3.10.1"]),
        (">3.10", ["3.10.1", "3.11.0"], ["3.10.0"]),
        ("<=3.10.2", ["3.10.2", "3.8.0"], ["3.10.3"]),
    ],
)
def test_version_requests_mean_what_pep_440_says(request_text: str, yes: list[str], no: list[str]) -> None:
    """Each operator on versions around its border."""
    wanted = VersionRequest.parse(request_text)
    for version in yes:
        assert wanted.matches(tuple(map(int, version.split("."))))
        assert wanted.may_match(tuple(map(int, version.split(".")))[:2])
    for version in no:
        assert not wanted.matches(tuple(map(int, version.split("."))))
