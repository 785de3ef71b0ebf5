"""Environments described by files: projects, requirements files, scripts, lock files; what is installed from them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import uv

from venvoy.envs import Env, EnvSpec, build, environments
from venvoy.errors import EnvBuildError, EnvError

from .projects import files_in, make_project, write_word

INSTALLERS = ["uv", "pip"]


def run(env: Env, code: str) -> str:
    """Return what a line of Python prints in the environment; it writes no byte code beside a project's source."""
    command = [env.python, "-I", "-B", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def packages(env: Env) -> list[str]:
    """Return the names and versions of what is installed."""
    return next(list(info.packages) for info in environments(home=env.home) if info.env.key == env.key)


@pytest.fixture
def options(wheels: Path) -> dict[str, object]:
    """The fields that keep every spec of these tests off the network."""
    return {"find_links": [wheels], "offline": True}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of its own for each test."""
    return make_project(tmp_path / "project")


def lock(project: Path, wheels: Path) -> None:
    """Write the project's uv.lock."""
    command = [uv.find_uv_bin(), "lock", "--quiet", "--offline", "--project", str(project), "--no-index"]
    environ = {**os.environ, "UV_FIND_LINKS": wheels.as_uri().replace(",", "%2C")}
    subprocess.run(command, check=True, env=environ)


# --- projects -------------------------------------------------------------------------------------


@pytest.mark.parametrize("installer", INSTALLERS)
def test_a_project_is_installed_editable_and_never_written_to(
    project: Path, options: dict[str, object], home: Path, installer: str
) -> None:
    """Its dependencies, the extra, the group and the packages given come along; an edit is seen at once."""
    before = files_in(project)
    spec = EnvSpec.project(project, extras=["more"], packages=["tiny<2"], installer=installer, **options)
    env = build(spec, home=home)
    assert packages(env) == ["other==1.0", "sample==1.0", "tiny==1.0"]
    assert run(env, "import sample; print(sample.WORD)") == "first"
    write_word(project, "second")
    assert build(spec, home=home) == env
    assert run(env, "import sample; print(sample.WORD)") == "second"
    write_word(project, "first")
    assert files_in(project) == before


def test_the_source_of_a_project_that_is_not_editable_is_part_of_the_key(
    project: Path, options: dict[str, object], home: Path
) -> None:
    """Each state of the tree is an environment, and going back finds the first one again."""
    spec = EnvSpec.project(project, editable=False, **options)
    first = build(spec, home=home)
    write_word(project, "second")
    second = build(spec, home=home)
    assert [run(env, "import sample; print(sample.WORD)") for env in (first, second)] == ["first", "second"]
    write_word(project, "first")
    assert build(spec, home=home) == first
    (project / ".git").mkdir()
    (project / ".git" / "index").write_text("not a part of the source")
    (project / "src" / "__pycache__").mkdir()
    assert build(spec, home=home) == first


def test_groups_are_taken_only_when_asked_for(project: Path, options: dict[str, object], home: Path) -> None:
    """An included group comes with the group that includes it."""
    assert packages(build(EnvSpec.project(project, **options), home=home)) == ["sample==1.0", "tiny==2.0"]
    with_group = EnvSpec.project(project, groups=["all"], **options)
    assert "other==1.0" in packages(build(with_group, home=home))


def test_a_uv_lock_is_installed_exactly_and_into_our_folder(
    project: Path, wheels: Path, options: dict[str, object], home: Path
) -> None:
    """Not the newest version but the locked one; packages are added without moving it; the project stays as it is."""
    text = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(text.replace('"tiny"', '"tiny<2"'))
    lock(project, wheels)
    (project / "pyproject.toml").write_text(text)  # frozen: what the lock says, not what would be resolved now
    before = files_in(project)
    env = build(EnvSpec.project(project, groups=["all"], **options), home=home)
    assert packages(env) == ["other==1.0", "sample==1.0", "tiny==1.0"]
    assert run(env, "import sample; print(sample.WORD)") == "first"
    added = build(EnvSpec.project(project, packages=["other"], **options), home=home)
    assert packages(added) == ["other==1.0", "sample==1.0", "tiny==1.0"]
    with pytest.raises(EnvBuildError, match="tiny"):
        build(EnvSpec.project(project, packages=["tiny>=2"], **options), home=home)
    assert files_in(project) == before
    assert not (project / ".venv").exists()
    for word in ("second", "third"):
        write_word(project, word)
        copied = build(EnvSpec.project(project, editable=False, **options), home=home)
        assert run(copied, "import sample; print(sample.WORD)") == word


def test_a_uv_lock_and_pip_do_not_go_together(project: Path, options: dict[str, object], home: Path) -> None:
    """Something other than what is locked would be wrong without a sign of it."""
    (project / "uv.lock").write_text("version = 1\n")
    with pytest.raises(EnvError, match=r"pip cannot install from uv\.lock; use installer='uv'"):
        build(EnvSpec.project(project, installer="pip", **options), home=home)


def test_setuptools_leaves_nothing_beside_the_source(tmp_path: Path, home: Path) -> None:
    """Neither `*.egg-info` nor `build`, editable or not."""
    folder = tmp_path / "old-school"
    (folder / "src" / "schooled").mkdir(parents=True)
    (folder / "src" / "schooled" / "__init__.py").write_text("")
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools>=64"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "schooled"\nversion = "1"\n'
    )
    before = files_in(folder)
    for editable in (True, False):
        env = build(EnvSpec.project(folder, editable=editable), home=home)
        assert (run(env, "import schooled; print(schooled.__file__)").startswith(str(folder))) is editable
        assert files_in(folder) == before


def test_an_extra_group_or_folder_that_is_not_there_is_named(project: Path, tmp_path: Path) -> None:
    """At once, when the spec is made."""
    with pytest.raises(EnvError, match=r"no extra 'nope'; it has more"):
        EnvSpec.project(project, extras=["nope"])
    with pytest.raises(EnvError, match=r"no dependency group 'nope'; it has all, extra-tools"):
        EnvSpec.project(project, groups=["nope"])
    with pytest.raises(EnvError, match="there is none in"):
        EnvSpec.project(tmp_path / "nowhere")
    (project / "pyproject.toml").write_text("project = 3\n")
    with pytest.raises(EnvError, match="project must be a table"):
        EnvSpec.project(project)
    (project / "pyproject.toml").write_text("[project\n")
    with pytest.raises(EnvError, match=r"pyproject\.toml is not valid TOML.*line 1"):
        EnvSpec.project(project)


def test_a_python_the_project_does_not_support_is_refused(project: Path, home: Path) -> None:
    """Before anything is installed, with both versions."""
    text = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(text.replace(">=3.8", ">=3.8,<3.9"))
    with pytest.raises(EnvError, match=r"requires Python .*<3\.9.*but"):
        build(EnvSpec.project(project, python=">=3.9"), home=home)


def test_a_file_that_changes_during_the_build_fails_it(
    tmp_path: Path, options: dict[str, object], installer: Callable[[str], Path], use: Callable[[Path], None]
) -> None:
    """What was built would bear the wrong key."""
    file = tmp_path / "requirements.txt"
    file.write_text("tiny==1.0\n")
    use(installer(f'if [ "$1" = pip ]; then echo other >> {file}; fi'))
    with pytest.raises(EnvBuildError, match="a file changed"):
        build(EnvSpec.requirements(file, **options), home=tmp_path / "home")
    assert os.listdir(tmp_path / "home" / "envs") == []


# --- requirements files ---------------------------------------------------------------------------


@pytest.mark.parametrize("installer", INSTALLERS)
def test_a_requirements_file_with_all_it_may_hold_is_installed(
    tmp_path: Path, wheels: Path, home: Path, installer: str
) -> None:
    """Included files, constraints, options and continued lines; packages given come on top."""
    (tmp_path / "more").mkdir()
    (tmp_path / "requirements.txt").write_text(
        f'--no-index\n--find-links {wheels.as_uri()}\n-r more/base.txt  # included\n-c "more/limits.txt"\n'.replace(
            '"', ""
        )
    )
    (tmp_path / "more" / "base.txt").write_text("tiny>=1.0\n")
    (tmp_path / "more" / "limits.txt").write_text("tiny<2\n")
    spec = EnvSpec.requirements(tmp_path / "requirements.txt", packages=["other"], installer=installer)
    assert packages(build(spec, home=home)) == ["other==1.0", "tiny==1.0"]


@pytest.mark.parametrize("installer", INSTALLERS)
def test_hashes_are_checked_and_packages_can_still_be_added(
    tmp_path: Path, wheels: Path, options: dict[str, object], home: Path, installer: str
) -> None:
    """A wrong hash is a build error that says so; a right one goes together with `packages=`."""
    import hashlib

    digest = hashlib.sha256((wheels / "tiny-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    file = tmp_path / "requirements.txt"
    file.write_text(f"tiny==1.0 \\\n    --hash=sha256:{digest}\n")
    env = build(EnvSpec.requirements(file, packages=["other"], installer=installer, **options), home=home)
    assert packages(env) == ["other==1.0", "tiny==1.0"]
    file.write_text(f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
    if installer == "pip":
        return  # which takes long to say the same
    with pytest.raises(EnvBuildError, match=r"[Hh]ash|HASH"):
        build(EnvSpec.requirements(file, installer=installer, **options), home=home)


def test_layout_of_a_requirements_file_does_not_change_the_key_and_content_does(tmp_path: Path) -> None:
    """Comments, blank lines, order, spelling, includes and the folder it lies in are layout."""
    (tmp_path / "other folder").mkdir()
    one, two = tmp_path / "one.txt", tmp_path / "other folder" / "two.txt"
    one.write_text("numpy>=1,<3\nsix\n")
    two.write_text("# a comment\n\nSix   # why not\n-r three.txt\n")
    (two.parent / "three.txt").write_text("numpy <3, \\\n >=1\n")
    assert EnvSpec.requirements(one).key == EnvSpec.requirements(two).key
    two.write_text("six\n-c three.txt\n")
    assert EnvSpec.requirements(one).key != EnvSpec.requirements(two).key
    before = EnvSpec.requirements(one).key
    one.write_text("numpy>=1,<4\nsix\n")
    assert EnvSpec.requirements(one).key != before


LINES = ["--index-url https://a.example/simple", "-f ./wheels", "--pre", "-e ./local", "./local/x.whl", "-r b.txt"]
LINES += ["-r https://a.example/r.txt", "pipe", "folder", "tiny \\"]


@pytest.mark.parametrize("line", LINES)
def test_every_kind_of_line_counts_in_the_key(tmp_path: Path, line: str) -> None:
    """Options, addresses and local paths too, whatever is there; the last line may be continued by nothing."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "b.txt").write_text("other\n")
    file = tmp_path / "a.txt"
    file.write_text("six\n")
    before = EnvSpec.requirements(file).key
    file.write_text(f"six\n{line}\n")
    assert EnvSpec.requirements(file).key != before


def test_a_local_wheel_that_is_replaced_is_another_environment(
    tmp_path: Path, wheels: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path is the same, the content is not; variables in the file are expanded."""
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    wheel.write_bytes((wheels / wheel.name).read_bytes())
    monkeypatch.setenv("WHERE", str(tmp_path))
    (tmp_path / "r.txt").write_text(f"${{WHERE}}/{wheel.name}\n")
    spec = EnvSpec.requirements(tmp_path / "r.txt", offline=True)
    assert packages(build(spec, home=home)) == ["tiny==1.0"]
    before = spec.key
    wheel.write_bytes(b"something else")
    assert spec.key != before


def test_credentials_in_a_requirements_file_are_shown_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installer: Callable[[str], Path], use: Callable[[Path], None]
) -> None:
    """Written there or put in by a variable; the key does not depend on them."""
    use(
        installer(
            'if [ "$1" = pip ]; then cat "${@: -1}" $(ls -d /*.none 2>/dev/null); cat '
            + f"{tmp_path}/r.txt; exit 3; fi"
        )
    )
    monkeypatch.setenv("TOKEN", "t0kent0ken")
    file = tmp_path / "r.txt"
    file.write_text(
        "--index-url https://me:pw1pw1@a.example/simple\n--extra-index-url https://${TOKEN}@b.example\nsix\n"
    )
    spec = EnvSpec.requirements(file)
    with pytest.raises(EnvBuildError) as caught:
        build(spec, home=tmp_path / "home")
    files = b"".join(path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file())
    for text in (str(caught.value), caught.value.output, repr(spec), files.decode("utf-8", "replace")):
        assert "pw1pw1" not in text
        assert "t0kent0ken" not in text
    before = spec.key
    monkeypatch.setenv("TOKEN", "another-one")
    assert spec.key == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, r"r\.txt cannot be read: No such file"),
        ("-r missing.txt\n", r"missing\.txt cannot be read"),
        ("-r r.txt\n", "includes itself"),
        (b"\xff\xfe", r"r\.txt is not UTF-8"),
    ],
)
def test_a_requirements_file_that_cannot_be_read_is_named(
    tmp_path: Path, content: str | bytes | None, words: str
) -> None:
    """When the spec is made."""
    if content is not None:
        (tmp_path / "r.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(EnvError, match=words):
        EnvSpec.requirements(tmp_path / "r.txt")


def test_a_pipe_is_refused_and_waited_for_by_nobody(tmp_path: Path) -> None:
    """A requirements file is read for the key, and again by the installer."""
    os.mkfifo(tmp_path / "r.txt")
    with pytest.raises(EnvError, match="not a regular file"):
        EnvSpec.requirements(tmp_path / "r.txt")


# --- lock files of PEP 751 ------------------------------------------------------------------------


def write_pylock(path: Path, wheels: Path) -> None:
    """Write a lock file that names one local wheel."""
    import hashlib

    wheel = wheels / "tiny-1.0-py3-none-any.whl"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    path.write_text(
        f'lock-version = "1.0"\ncreated-by = "tests"\nrequires-python = ">=3.8"\n\n[[packages]]\nname = "tiny"\n'
        f'version = "1.0"\nwheels = [{{ path = "{wheel}", hashes = {{ sha256 = "{digest}" }} }}]\n'
    )


def test_a_pylock_is_installed_exactly(
    tmp_path: Path, project: Path, wheels: Path, options: dict[str, object], home: Path
) -> None:
    """By itself, with packages added, and beside a pyproject.toml, whose project is installed too."""
    write_pylock(tmp_path / "pylock.toml", wheels)
    write_pylock(project / "pylock.toml", wheels)
    alone = EnvSpec.requirements(tmp_path / "pylock.toml", packages=["other"], **options)
    assert packages(build(alone, home=home)) == ["other==1.0", "tiny==1.0"]
    assert packages(build(EnvSpec.project(project, **options), home=home)) == ["sample==1.0", "tiny==1.0"]
    (tmp_path / "pylock.toml").write_text("x = 1\n")
    with pytest.raises(EnvError, match="PEP 751"):
        EnvSpec.requirements(tmp_path / "pylock.toml")


# --- scripts --------------------------------------------------------------------------------------


def test_a_scripts_own_words_make_its_environment(tmp_path: Path, wheels: Path, home: Path) -> None:
    """Dependencies, constraints and index settings of the block; packages given come on top."""
    (tmp_path / "wheels").symlink_to(wheels)
    script = tmp_path / "script.py"
    script.write_text(
        '# /// script\n# requires-python = ">=3.8"\n# dependencies = ["tiny"]\n# [tool.uv]\n# no-index = true\n'
        '# find-links = ["wheels"]\n# constraint-dependencies = ["tiny<2"]\n# ///\nimport tiny\n'
    )
    env = build(EnvSpec.script(script, packages=["other"]), home=home)
    assert packages(env) == ["other==1.0", "tiny==1.0"]


def test_a_script_is_run_by_the_python_it_requires(tmp_path: Path, home: Path, oldest_and_newest: list[str]) -> None:
    """`requires-python` chooses the interpreter; the rest of the script is no part of the key."""
    for version in oldest_and_newest:
        script = tmp_path / "script.py"
        script.write_text(f'# /// script\n# requires-python = "=={version}.*"\n# ///\nprint(1)\n')
        spec = EnvSpec.script(script)
        assert build(spec, home=home).version.startswith(f"{version}.")
        before = spec.key
        script.write_text(script.read_text().replace("print(1)", "print(2)"))
        assert spec.key == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("print(1)\n", r"has no '# /// script' block"),
        ("# /// script\n# dependencies = [\n# ///\n", "is not valid TOML"),
        ("# /// script\n# dependencies = 'six'\n# ///\n", "dependencies must be a list of strings"),
        ("# /// script\n# dependencies = ['six=1']\n# ///\n", "'six=1' is not a requirement"),
        ("# /// script\n# requires-python = 'three'\n# ///\n", "requires-python.*'three'"),
        ("# /// script\n# tool = 3\n# ///\n", "tool must be a table"),
        ("# /// script\n# [tool.uv]\n# index = [3]\n# ///\n", r"tool\.uv\.index.*must be tables with a url"),
        ("# /// script\n# ///\n\n# /// script\n# ///\n", "has no|more than one"),
        ("# /// script\n# requires-python = 3\n# ///\n", "requires-python must be a string"),
        ("# /// script\n# dependencies = ['a']\n# [tool.uv.sources]\n# a = {}\n# ///\n", r"sources\.a: only path, url"),
    ],
)
def test_a_script_that_cannot_be_understood_is_refused(tmp_path: Path, content: str, words: str) -> None:
    """When the spec is made."""
    (tmp_path / "script.py").write_text(content)
    with pytest.raises(EnvError, match=words):
        EnvSpec.script(tmp_path / "script.py")


def test_sources_of_a_script_are_followed(tmp_path: Path, options: dict[str, object], home: Path) -> None:
    """A path in `[tool.uv.sources]` is relative to the script."""
    make_project(tmp_path / "project")
    (tmp_path / "script.py").write_text(
        '# /// script\n# dependencies = ["sample"]\n# [tool.uv.sources]\n# sample = { path = "project" }\n# ///\n'
    )
    env = build(EnvSpec.script(tmp_path / "script.py", **options), home=home)
    assert packages(env) == ["sample==1.0", "tiny==2.0"]


@pytest.mark.parametrize(
    ("source", "requirement"),
    [
        ("{ url = 'https://a.example/a.whl' }", "a[x] @ https://a.example/a.whl"),
        ("{ git = 'https://a.example/a' }", "a[x] @ git+https://a.example/a"),
        ("{ git = 'https://a.example/a', tag = 'v1' }", "a[x] @ git+https://a.example/a@v1"),
        ("{ index = 'ours' }", "a[x]>=1"),
    ],
)
def test_addresses_of_a_scripts_sources_take_the_place_of_versions(
    tmp_path: Path, source: str, requirement: str
) -> None:
    """Of files and of repositories; an index only says where to look."""
    script = tmp_path / "script.py"
    script.write_text(f"# /// script\n# dependencies = ['a[x]>=1']\n# [tool.uv.sources]\n# a = {source}\n# ///\n")
    assert EnvSpec.script(script).read().packages == (requirement,)


# --- auto -----------------------------------------------------------------------------------------


def test_auto_takes_what_the_folder_holds_in_the_documented_order(tmp_path: Path) -> None:
    """From what is given to a project; settings of tools are no project."""
    assert EnvSpec.auto(tmp_path, packages=["six"]) == EnvSpec(["six"])
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\n")
    (tmp_path / "requirements").mkdir()
    for name in ("requirements/base.txt", "requirements/prod.txt", "requirements.txt", "requirements.lock"):
        (tmp_path / name).write_text("six\n")
        assert EnvSpec.auto(tmp_path) == EnvSpec.requirements(tmp_path / name)
    (tmp_path / "pylock.toml").write_text('lock-version = "1.0"\npackages = []\n')
    assert EnvSpec.auto(tmp_path, packages=["six"]) == EnvSpec.requirements(tmp_path / "pylock.toml", packages=["six"])
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1"\n')
    assert EnvSpec.auto(tmp_path).kind == "project"
    with pytest.raises(EnvError, match="is not a folder"):
        EnvSpec.auto(tmp_path / "nowhere")


def test_keys_of_projects_depend_on_what_matters(project: Path) -> None:
    """Comments and the order of dependencies do not; extras, groups, editable and the lock do."""
    path = project / "pyproject.toml"
    before = EnvSpec.project(project).key
    path.write_text("# a comment\n\n" + path.read_text().replace(" = ", "="))
    assert EnvSpec.project(project).key == before
    keys = {
        before,
        EnvSpec.project(project, extras=["more"]).key,
        EnvSpec.project(project, groups=["all"]).key,
        EnvSpec.project(project, editable=False).key,
        EnvSpec.project(project, packages=["six"]).key,
        EnvSpec.project(project, installer="pip").key,
    }
    (project / "uv.lock").write_text("version = 1\n")
    assert len({*keys, EnvSpec.project(project).key}) == 7


def test_a_cached_project_and_requirements_file_resolve_without_a_process(
    project: Path, tmp_path: Path, options: dict[str, object], home: Path, count_starts: Callable[[], list[str]]
) -> None:
    """Only the files are read, in less than five milliseconds."""
    import time

    (tmp_path / "r.txt").write_text("tiny==1.0\n")
    specs = [EnvSpec.project(project, **options), EnvSpec.requirements(tmp_path / "r.txt", **options)]
    for spec in specs:
        build(spec, home=home)
    started = count_starts()
    times = []
    for _ in range(20):
        begin = time.perf_counter()
        for spec in specs:
            build(spec, home=home)
        times.append(time.perf_counter() - begin)
    assert started == []
    assert min(times) < 0.010
