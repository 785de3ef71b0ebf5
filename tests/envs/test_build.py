"""Building environments: what is in them, what goes wrong, and that nothing half-built is ever left or used."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from venvoy.envs import Cancel, Env, EnvSpec, Progress, build, home_folder, resolve
from venvoy.errors import EnvBuildError, EnvError

SRC = Path(__file__).parents[2] / "src"


def run(env: Env, code: str) -> str:
    """Return what a line of Python prints in the environment."""
    return subprocess.run([env.python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def left_in(home: Path) -> list[str]:
    """Return the environments' folders, complete or not."""
    return sorted(os.listdir(home / "envs")) if (home / "envs").exists() else []


def test_two_versions_of_one_package_live_side_by_side(home: Path, wheels: Path) -> None:
    """The point of it all, with a package small enough to need no network."""
    one, two = (build(EnvSpec([f"tiny=={v}"], find_links=[wheels], offline=True), home=home) for v in ("1.0", "2.0"))
    version = "import importlib.metadata as m; print(m.version('tiny'))"
    assert run(one, version) == "1.0"
    assert run(two, version) == "2.0"
    assert one.key != two.key


def test_packages_of_the_index_are_installed_and_compiled(home: Path) -> None:
    """A binary package of the public index imports, and its bytecode is there already."""
    env = build(EnvSpec(["numpy", "iniconfig"]), home=home)
    where = run(env, "import numpy, iniconfig; print(numpy.__file__)")
    assert where.startswith(env.prefix)
    assert list((Path(where).parent / "__pycache__").glob("__init__.*.pyc"))
    about = json.loads((Path(env.prefix) / "ready.json").read_text())
    assert any(package.startswith("numpy==") for package in about["packages"])
    assert about["key"] == env.key


def test_an_empty_spec_is_a_bare_interpreter(home: Path) -> None:
    """No package, no installer run, and no pip inside."""
    env = build(EnvSpec(), home=home)
    assert run(env, "import importlib.util as u; print(u.find_spec('pip'))") == "None"


def test_constraints_narrow_versions_down(home: Path, wheels: Path) -> None:
    """The newest version is 2.0; the constraint makes it 1.0."""
    env = build(EnvSpec(["tiny"], constraints=["tiny<2"], find_links=[wheels], offline=True), home=home)
    assert run(env, "import importlib.metadata as m; print(m.version('tiny'))") == "1.0"


def test_a_second_build_starts_no_process_and_needs_no_uv(tiny: EnvSpec, home: Path) -> None:
    """In a fresh process, the environment is found by reading files only."""
    env = build(tiny, home=home)
    code = """
import sys, time
started = []
sys.addaudithook(lambda event, _: started.append(event) if event in STARTS else None)
STARTS = ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.exec", "os.system")
from venvoy.envs import EnvSpec, build
spec = EnvSpec(["tiny==1.0"], find_links=[sys.argv[2]], offline=True)
env = build(spec, home=sys.argv[1])
times = []
for _ in range(50):
    begin = time.perf_counter()
    build(spec, home=sys.argv[1])
    times.append(time.perf_counter() - begin)
print(env.key, len(started), "uv" in sys.modules, min(times) < 0.005)
"""
    argv = [sys.executable, "-c", code, str(home), str(tiny.find_links[0])]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(SRC)})
    assert said.stdout.split() == [env.key, "0", "False", "True"]


def test_progress_tells_the_phases_in_order(tiny: EnvSpec, tmp_path: Path) -> None:
    """A build looks for an interpreter, creates, installs and is ready; a cached one is ready at once."""
    seen: list[Progress] = []
    build(tiny, home=tmp_path / "home", progress=seen.append)
    phases = list(dict.fromkeys(step.phase for step in seen))
    assert phases == ["interpreter", "create", "install", "ready"]
    assert any("tiny==1.0" in step.message for step in seen)
    seen.clear()
    build(tiny, home=tmp_path / "home", progress=seen.append)
    assert [step.phase for step in seen] == ["ready"]


def test_an_unsatisfiable_pin_fails_with_the_resolvers_words(wheels: Path, tmp_path: Path) -> None:
    """Message and output say why, and nothing is left."""
    spec = EnvSpec(["tiny==9.9"], find_links=[wheels], offline=True)
    with pytest.raises(EnvBuildError) as caught:
        build(spec, home=tmp_path)
    assert "tiny==9.9" in str(caught.value)
    assert "unsatisfiable" in str(caught.value)
    assert "unsatisfiable" in caught.value.output
    assert left_in(tmp_path) == []


def test_the_deadline_ends_the_installer(
    tiny: EnvSpec, tmp_path: Path, slow_installer: Path, use: Callable[[Path], None]
) -> None:
    """The whole group of the installer is gone, and so is what it made."""
    use(slow_installer)
    begin = time.monotonic()
    with pytest.raises(EnvBuildError, match=r"not finished within 1\.5 s, while uv runs 'pip install'") as caught:
        build(tiny, home=tmp_path / "home", timeout=1.5)
    assert time.monotonic() - begin < 3
    assert "stuck" in caught.value.output
    assert not running(tmp_path)
    assert left_in(tmp_path / "home") == []


def test_cancelling_ends_the_installer_at_once(
    tiny: EnvSpec, tmp_path: Path, slow_installer: Path, use: Callable[[Path], None]
) -> None:
    """Set the event from another thread: the build raises within a moment."""
    use(slow_installer)
    cancel = Cancel()
    times: list[float] = []

    def cancel_when_it_hangs() -> None:
        while not (tmp_path / "hangs").exists():
            time.sleep(0.01)
        times.append(time.monotonic())
        cancel.set()

    thread = threading.Thread(target=cancel_when_it_hangs)
    thread.start()
    with pytest.raises(EnvBuildError, match="cancelled while uv runs"):
        build(tiny, home=tmp_path / "home", cancel=cancel)
    thread.join()
    assert time.monotonic() - times[0] < 1
    assert not running(tmp_path)
    assert left_in(tmp_path / "home") == []


def test_an_error_of_the_progress_callback_ends_the_build(
    tiny: EnvSpec, tmp_path: Path, slow_installer: Path, use: Callable[[Path], None]
) -> None:
    """It comes out as it is, and nothing is left."""
    use(slow_installer)

    def progress(step: Progress) -> None:
        if step.message == "stuck":
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        build(tiny, home=tmp_path / "home", progress=progress)
    assert not running(tmp_path)
    assert left_in(tmp_path / "home") == []


def running(folder: Path) -> list[int]:
    """Return the processes the slow installer named that still run (a zombie does not)."""
    pids = map(int, (folder / "hangs").read_text().split())
    return [pid for pid in pids if is_running(pid)]


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def spoil_marker(env: Env) -> None:
    """Leave the marker as a power failure might."""
    (Path(env.prefix) / "ready.json").write_text("")


def lose_marker(env: Env) -> None:
    """Leave the folder as a killed builder does."""
    (Path(env.prefix) / "ready.json").unlink()


def lose_interpreter(env: Env) -> None:
    """Leave the folder as an uninstalled interpreter does."""
    Path(env.python).unlink()
    Path(env.python).symlink_to("/no/such/python")


@pytest.mark.parametrize("spoil", [spoil_marker, lose_marker, lose_interpreter])
def test_what_is_not_whole_is_built_anew(spoil: Callable[[Env], None], tiny: EnvSpec, tmp_path: Path) -> None:
    """Leftovers are removed, not mended."""
    env = build(tiny, home=tmp_path)
    (Path(env.prefix) / "leftover").touch()
    spoil(env)
    assert build(tiny, home=tmp_path) == env
    assert not (Path(env.prefix) / "leftover").exists()
    assert run(env, "import tiny; print(tiny.WORD)") == "here"


def test_a_removed_environment_is_gone_until_built_again(tiny: EnvSpec, tmp_path: Path) -> None:
    """`remove` deletes; a second one does nothing; an Env that is gone does not resolve."""
    env = build(tiny, home=tmp_path)
    assert resolve(env) is env
    env.remove()
    env.remove()
    assert left_in(tmp_path) == []
    with pytest.raises(EnvError, match="is gone"):
        resolve(env)
    assert build(tiny, home=tmp_path) == env


def test_hostile_surroundings_have_no_effect(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Project files around the working folder and the home, and variables of other environments, are not seen."""
    (tmp_path / "uv.toml").write_text(
        'no-index = true\n[pip]\nindex-url = "http://127.0.0.1:9/"\ntarget = "/nowhere"\n'
    )
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.99"\n'
        '[tool.uv]\nconstraint-dependencies = ["tiny==2.0"]\noverride-dependencies = ["tiny==2.0"]\n'
    )
    (tmp_path / ".python-version").write_text("3.99\n")
    (tmp_path / "json.py").write_text("raise SystemExit('hostile')\n")
    monkeypatch.chdir(tmp_path)
    hostile = {
        "VIRTUAL_ENV": "/nowhere",
        "CONDA_PREFIX": "/nowhere",
        "PYTHONPATH": str(tmp_path),
        "PYTHONHOME": "/nowhere",
        "UV_PROJECT": "/nowhere",
        "UV_PYTHON": "3.99",
        "UV_TARGET": "/nowhere",
        "UV_SYSTEM_PYTHON": "1",
        "UV_CONSTRAINT": "/nowhere",
        "UV_WORKING_DIRECTORY": "/nowhere",
    }
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    env = build(EnvSpec(["tiny==1.0"], find_links=[wheels], offline=True), home=tmp_path / "home")
    assert run(env, "import tiny; print(tiny.WORD)") == "here"


def test_the_users_own_uv_configuration_is_honoured(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where packages come from is for the user to say once for all programs."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "uv").mkdir()
    (tmp_path / "uv" / "uv.toml").write_text(f'no-index = true\nfind-links = ["{wheels.as_uri()}"]\n')
    env = build(EnvSpec(["tiny"]), home=tmp_path / "home")
    assert run(env, "import tiny; print(tiny.WORD)") == "here"


def test_credentials_are_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installer: Callable[[str], Path], use: Callable[[Path], None]
) -> None:
    """Not in the error, its output, its causes, the progress, the arguments of a process, or a file."""
    use(installer('cat "$0" >/dev/null; echo "${UV_INDEX_URL}${UV_DEFAULT_INDEX} ${UV_INDEX_HERE_PASSWORD} pw1pw1"'))
    monkeypatch.setenv("UV_INDEX_HERE_PASSWORD", "s3cret-variable")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    url = "http://me:pw1pw1@127.0.0.1:9/simple"
    told: list[Progress] = []
    spec = EnvSpec(["six", "x @ http://me:pw2pw2@127.0.0.1:9/x-1-py3-none-any.whl"], index_url=url)
    with pytest.raises(EnvBuildError) as caught:
        build(spec, home=tmp_path / "home", progress=told.append, timeout=60)
    files = "".join(p.read_text(errors="replace") for p in (tmp_path / "home").rglob("*") if p.is_file())
    runs = (tmp_path / "runs").read_text()
    for shown in (str(caught.value), caught.value.output, repr(caught.value.__cause__), repr(told), files, runs):
        for secret in ("pw1pw1", "pw2pw2", "s3cret-variable"):
            assert secret not in shown
    assert caught.value.__context__ is None
    assert "***" in caught.value.output


def test_secrets_do_not_stay_in_the_store(tmp_path: Path, wheels: Path) -> None:
    """An environment that was built keeps no requirement and no URL with a password."""
    spec = EnvSpec(["tiny"], extra_index_urls=["http://me:pw1pw1@127.0.0.1:9/"], find_links=[wheels], offline=True)
    env = build(spec, home=tmp_path)
    assert not list(Path(env.prefix).glob("requirements*"))
    files = (p for p in tmp_path.rglob("*") if p.is_file() and p.suffix in (".json", ".txt", ".cfg", ""))
    assert not any(b"pw1pw1" in p.read_bytes() for p in files)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_that_makes_no_sense_is_refused(timeout: float, tiny: EnvSpec, tmp_path: Path) -> None:
    """Before anything starts."""
    with pytest.raises(ValueError, match="timeout must be a positive number"):
        build(tiny, home=tmp_path, timeout=timeout)


def test_a_home_that_cannot_be_written_is_a_build_error(tiny: EnvSpec, tmp_path: Path) -> None:
    """The message names it."""
    (tmp_path / "file").touch()
    with pytest.raises(EnvBuildError, match=r"file.*cannot be written"):
        build(tiny, home=tmp_path / "file")


def test_a_missing_uv_is_said_so(
    tiny: EnvSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: Callable[[Path], None]
) -> None:
    """With the ways out."""
    build(tiny, home=tmp_path / "home").remove()  # its interpreter is known then, and only uv is missing
    tiny = dataclasses.replace(tiny, installer="uv")
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvError, match="pip install uv"):
        build(tiny, home=tmp_path / "home")
    assert left_in(tmp_path / "home") == []


def test_uv_of_the_path_will_do(
    tiny: EnvSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installer: Callable[[str], Path]
) -> None:
    """Where the wheel is left out."""
    shutil.copy(installer(""), tmp_path / "uv")
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    build(tiny, home=tmp_path / "home")
    assert len((tmp_path / "runs").read_text().splitlines()) == 2


def test_the_home_folder_is_argument_then_variable_then_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one is the folder platformdirs names."""
    import platformdirs

    assert home_folder() == platformdirs.user_cache_path("venvoy", appauthor=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert home_folder() == platformdirs.user_cache_path("venvoy", appauthor=False) == tmp_path / "venvoy"
    monkeypatch.setenv("VENVOY_HOME", "~/elsewhere")
    assert home_folder() == Path.home() / "elsewhere"
    assert home_folder(tmp_path) == tmp_path
