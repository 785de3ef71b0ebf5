"""What a fresh worker is: clean paths, an empty `__main__`, few imports, and the environment it was asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv
import venvoy_worker

HEAVY = {
    "asyncio", "typing", "inspect", "dataclasses", "logging", "threading", "socket", "pickle", "subprocess",
    "signal", "enum", "re", "tempfile", "traceback", "selectors", "ctypes", "json",
}  # fmt: skip
SOURCES = Path(venvoy_worker.__file__).parent


def test_sys_path_is_that_of_the_bare_interpreter(interpreter: str, open_pool: Callable[..., vv.Pool]) -> None:
    """A worker of another environment sees its own `sys.path`: nothing of the host's, nor of venvoy's folders."""
    if interpreter == sys.executable:
        pytest.skip("the host's own environment is given the host's own path")
    pool = open_pool(interpreter, paths=[])
    bare = subprocess.run(
        [interpreter, "-I", "-c", "import sys; print(*sys.path, sep='\\n')"], capture_output=True, text=True
    )
    assert pool.eval("__import__('sys').path") == bare.stdout.split()


def test_paths_come_first_and_in_order(extreme: str, open_pool: Callable[..., vv.Pool], tmp_path: Path) -> None:
    """The folders of `paths` head `sys.path`, so that a module there wins."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    for name in ("one", "two"):
        (tmp_path / name / "colorsys.py").write_text(f"WHICH = {name!r}")
    pool = open_pool(extreme, paths=[tmp_path / "two", tmp_path / "one"])
    assert pool.eval("__import__('sys').path[:2]") == [str(tmp_path / "two"), str(tmp_path / "one")]
    assert pool.eval("__import__('colorsys').WHICH") == "two"


def test_venvoy_itself_is_neither_there_nor_importable(interpreter: str, open_pool: Callable[..., vv.Pool]) -> None:
    """A worker of another environment never imports the host's package."""
    if interpreter == sys.executable:
        pytest.skip("the host's own environment has venvoy")
    pool = open_pool(interpreter)
    assert "venvoy" not in pool.eval("list(__import__('sys').modules)")
    with pytest.raises(vv.TargetNotFound):
        pool.call("venvoy:Pool")


def test_venvoy_is_not_imported_in_a_worker_of_the_hosts_own_environment(open_pool: Callable[..., vv.Pool]) -> None:
    """Though it could be."""
    assert "venvoy" not in open_pool().eval("list(__import__('sys').modules)")


def test_user_code_may_import_venvoy_worker(extreme: str, open_pool: Callable[..., vv.Pool]) -> None:
    """It is there without being installed, outside of `sys.path`."""
    assert open_pool(extreme).call("deeds:call_numbers") == (1, False)


def test_main_is_empty_and_there_are_no_arguments(extreme: str, open_pool: Callable[..., vv.Pool]) -> None:
    """Neither the start file nor its arguments show in a worker."""
    pool = open_pool(extreme)
    names = pool.eval("[name for name in vars(__import__('__main__')) if not name.startswith('__')]")
    assert names == []
    assert pool.eval("getattr(__import__('__main__'), '__file__', None)") is None
    assert pool.eval("__import__('sys').argv") == [""]


def test_nothing_heavy_is_imported_at_start(interpreter: str, open_pool: Callable[..., vv.Pool]) -> None:
    """A worker has only such modules that the bare interpreter has too, or that are light."""
    code = "import sys; print(*sys.modules, sep='\\n')"
    bare = subprocess.run([interpreter, "-I", "-c", code], capture_output=True, text=True).stdout.split()
    loaded = set(open_pool(interpreter, paths=[]).eval("list(__import__('sys').modules)"))
    assert loaded & HEAVY <= set(bare)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_of_multiprocessing_work_in_a_worker(
    extreme: str, method: str, open_pool: Callable[..., vv.Pool]
) -> None:
    """A `multiprocessing.Pool` of a module's function works, whatever its start method."""
    assert open_pool(extreme).call("deeds:use_processes", method) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_of_multiprocessing_work_in_a_function_sent_as_source(
    extreme: str, method: str, open_pool: Callable[..., vv.Pool]
) -> None:
    """A `multiprocessing.Pool` inside a by-source function finds the functions that travelled with it."""

    def cube(number):  # type: ignore[no-untyped-def]
        return number**3

    def run(method):  # type: ignore[no-untyped-def]
        import multiprocessing

        with multiprocessing.get_context(method).Pool(2) as pool:
            return pool.map_async(top_cube, range(4)).get(20)

    assert cube(3) == top_cube(3)
    assert open_pool(extreme).call(vv.by_source(run), method) == [0, 1, 8, 27]


def top_cube(number):  # type: ignore[no-untyped-def]
    return number**3


def test_byte_code_goes_to_the_home_folder(
    extreme: str, start_host: Callable[..., Any], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A foreign interpreter compiles venvoy_worker into the home folder, and writes nothing beside the sources."""
    if version_tag(extreme) == sys.implementation.cache_tag:
        pytest.skip("the host compiles the contract for itself")
    shutil.copytree(SOURCES.parent, tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "src"))
    host = start_host(
        f"""
        import venvoy as vv
        import venvoy_worker

        with vv.Pool({extreme!r}, workers=1) as pool:
            try:
                pool.call("operator:truediv", 1, 0)  # rendering a traceback imports more
            except ZeroDivisionError:
                print(venvoy_worker.__file__)
        """
    )
    assert host.rest() == (0, str(tmp_path / "src" / "venvoy_worker" / "__init__.py") + "\n", "")
    compiled = f"*.{version_tag(extreme)}.pyc"
    assert list((home / "pycache").rglob("serve" + compiled[1:]))
    assert not list((tmp_path / "src").rglob(compiled))
    assert list((tmp_path / "src").rglob("*.pyc"))  # the host's own: this test would see them


def version_tag(python: str) -> str:
    """Return what an interpreter puts into the names of byte code files."""
    code = "import sys; print(sys.implementation.cache_tag)"
    return subprocess.run([python, "-I", "-c", code], capture_output=True, text=True).stdout.strip()


def test_modules_of_the_user_are_cached_where_python_always_does(
    extreme: str, open_pool: Callable[..., vv.Pool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only venvoy's own byte code is redirected."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    (tmp_path / "mine.py").write_text("VALUE = 1")
    pool = open_pool(extreme, paths=[tmp_path])
    assert pool.eval("__import__('mine').VALUE") == 1
    assert pool.eval("__import__('sys').pycache_prefix") is None
    assert list((tmp_path / "__pycache__").glob("mine.*.pyc"))


PYTHON_VARIABLES = [
    ("PYTHONUNBUFFERED", "1", "__import__('sys').stdout.write_through", True),
    ("PYTHONHASHSEED", "0", "__import__('sys').flags.hash_randomization", 0),
    ("PYTHONDONTWRITEBYTECODE", "1", "__import__('sys').dont_write_bytecode", True),
    ("PYTHONOPTIMIZE", "1", "__import__('sys').flags.optimize", 1),
    ("PYTHONUTF8", "1", "__import__('sys').flags.utf8_mode", 1),
    ("PYTHONWARNINGS", "error", "__import__('sys').warnoptions", ["error"]),
    ("PYTHONPATH", "/nowhere/at/all", "'/nowhere/at/all' in __import__('sys').path", True),
]


@pytest.mark.parametrize(
    ("name", "value", "probe", "effect"), PYTHON_VARIABLES, ids=[row[0] for row in PYTHON_VARIABLES]
)
def test_python_variables_of_env_vars_take_effect(
    extreme: str, name: str, value: str, probe: str, effect: object, open_pool: Callable[..., vv.Pool]
) -> None:
    """A `PYTHON*` variable in `env_vars` does what it does on a command line."""
    pool = open_pool(extreme, env_vars={name: value})
    assert pool.eval(probe) == effect
    assert pool.eval("__import__('os').environ[name]", name=name) == value


def test_a_hash_seed_makes_workers_agree(open_pool: Callable[..., vv.Pool]) -> None:
    """With PYTHONHASHSEED, the hash of a string is the same in every worker."""
    hashes = {open_pool(env_vars={"PYTHONHASHSEED": "7"}).call("builtins:hash", "text") for _ in range(2)}
    assert len(hashes) == 1


def test_sys_path_stays_clean_when_python_variables_are_given(extreme: str, open_pool: Callable[..., vv.Pool]) -> None:
    """Without -I, too: neither venvoy_worker's folder, nor the user's site-packages, nor the working folder."""
    pool = open_pool(extreme, env_vars={"PYTHONUNBUFFERED": "1"}, paths=[])
    path = pool.eval("__import__('sys').path")
    assert not [entry for entry in path if entry == "" or entry.startswith(str(SOURCES))]
    assert pool.eval("__import__('sys').flags.no_user_site") == 1


@pytest.mark.parametrize("more", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["isolated", "with PYTHON*"])
def test_variables_of_the_hosts_python_do_not_leak(
    extreme: str, more: dict[str, str], open_pool: Callable[..., vv.Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's PYTHON*, VIRTUAL_ENV and CONDA_* say nothing to another environment's worker, or to its children."""
    leaking = {
        "PYTHONPATH": "/leaked",
        "PYTHONHOME": "/leaked",
        "PYTHONSTARTUP": "/leaked",
        "PYTHONOPTIMIZE": "2",
        "VIRTUAL_ENV": "/leaked",
        "VIRTUAL_ENV_PROMPT": "leaked",
        "CONDA_PREFIX": "/leaked",
        "CONDA_DEFAULT_ENV": "leaked",
        "CONDA_PROMPT_MODIFIER": "(leaked)",
        "CONDA_PREFIX_1": "/leaked",
    }
    if extreme == sys.executable:
        pytest.skip("the host's own environment keeps them")
    pool = open_pool(extreme, env_vars={**more, "GIVEN": "yes"})
    for name, value in leaking.items():
        monkeypatch.setenv(name, value)
    environ = pool.eval("dict(__import__('os').environ)")
    assert [name for name in leaking if name in environ] == []
    assert environ["GIVEN"] == "yes"
    assert environ["HOME"] == os.environ["HOME"]
    assert "/leaked" not in pool.eval("__import__('sys').path")


def test_programs_of_the_environment_come_first(extreme: str, open_pool: Callable[..., vv.Pool]) -> None:
    """PATH begins with the environment's bin, so `python` in a worker is that environment's."""
    pool = open_pool(extreme)
    assert pool.eval("__import__('os').environ['PATH']").split(os.pathsep)[0] == str(Path(extreme).parent)


def test_the_working_folder_is_that_of_the_options(
    extreme: str, open_pool: Callable[..., vv.Pool], tmp_path: Path
) -> None:
    """`cwd` is where the worker runs; without it, where the host does."""
    assert open_pool(extreme, cwd=tmp_path).call("os:getcwd") == str(tmp_path)
    assert open_pool(extreme).call("os:getcwd") == os.getcwd()


def test_standard_input_is_empty(extreme: str, open_pool: Callable[..., vv.Pool]) -> None:
    """`input()` is an EOFError, and reading stdin gives nothing."""
    pool = open_pool(extreme)
    with pytest.raises(EOFError):
        pool.call("deeds:ask")
    assert pool.eval("__import__('sys').stdin.read()") == ""


def test_programs_started_by_user_code_inherit_no_descriptor_of_the_protocol(
    extreme: str, open_pool: Callable[..., vv.Pool]
) -> None:
    """Even with close_fds=False, a child has 0, 1 and 2 alone."""
    pool = open_pool(extreme)
    code = "__import__('subprocess').check_output(['ls', '/proc/self/fd'], close_fds=False)"
    assert len(pool.eval(code).split()) == 4  # and the folder that `ls` reads


def test_code_runs_on_the_main_thread(extreme: str, open_pool: Callable[..., vv.Pool]) -> None:
    """Calls run where signals, asyncio and GUI toolkits work."""
    pool = open_pool(extreme)
    assert pool.eval("(lambda t: t.current_thread() is t.main_thread())(__import__('threading'))")
