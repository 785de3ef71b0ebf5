"""What an EnvSpec accepts, what its key depends on, and what it never shows."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from venvoy.envs import EnvSpec, build, resolve
from venvoy.errors import EnvError


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["six", "numpy==1.26.4"], ["numpy==1.26.4", "six"]),
        (["numpy == 1.26.4 "], [" numpy==1.26.4"]),
        (["numpy >=1.26, <3"], ["numpy<3,>=1.26"]),
        (["Foo_Bar.baz"], ["foo-bar-baz"]),
        (["uvicorn[standard, a]"], ["uvicorn[a,standard]"]),
        (["six", "six"], ["six"]),
        (["six (>=1.0)"], ["six>=1.0"]),
        (['six ;  python_version  < "3.9"'], ['six; python_version < "3.9"']),
        (("six",), iter(["six"])),
    ],
)
def test_spelling_and_order_of_packages_do_not_change_the_key(one: list[str], other: list[str]) -> None:
    """Two specs that mean the same are equal, hash alike and have one key."""
    first, second = EnvSpec(one), EnvSpec(other)
    assert first == second
    assert hash(first) == hash(second)
    assert first.key == second.key


def test_every_field_changes_the_key(tmp_path: Path) -> None:
    """What can change the result changes the key; the key fits a folder name."""
    specs = [
        EnvSpec(["six"]),
        EnvSpec(["six==1.17.0"]),
        EnvSpec(["six"], python="3.11"),
        EnvSpec(["six"], python=">=3.11"),
        EnvSpec(["six"], index_url="https://a.example/simple"),
        EnvSpec(["six"], extra_index_urls=["https://a.example/simple"]),
        EnvSpec(["six"], find_links=[tmp_path]),
        EnvSpec(["six"], constraints=["six<2"]),
        EnvSpec(["six"], offline=True),
        EnvSpec.existing(tmp_path / "python"),
        EnvSpec.current(),
    ]
    keys = {spec.key for spec in specs}
    assert len(keys) == len(specs)
    assert all(key.isalnum() and len(key) == 32 for key in keys)


@pytest.mark.parametrize("name", ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_FIND_LINKS", "PIP_INDEX_URL"])
def test_index_variables_change_the_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages from elsewhere are another environment."""
    before = EnvSpec(["six"]).key
    monkeypatch.setenv(name, "https://mirror.example/simple")
    assert EnvSpec(["six"]).key != before


def test_a_new_password_keeps_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens that change every day do not cost a build every day."""
    monkeypatch.setenv("UV_INDEX_URL", "https://me:monday@mirror.example/simple")
    before = EnvSpec(["six"], index_url="https://me:monday@a.example").key
    monkeypatch.setenv("UV_INDEX_URL", "https://me:tuesday@mirror.example/simple")
    assert EnvSpec(["six"], index_url="https://me:tuesday@a.example").key == before


def test_the_users_own_uv_configuration_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It names indexes, so a change of it is another environment; unless uv is told not to read it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    before = EnvSpec(["six"]).key
    (tmp_path / "uv").mkdir()
    (tmp_path / "uv" / "uv.toml").write_text('index-url = "https://mirror.example/simple"\n')
    assert EnvSpec(["six"]).key != before
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    without = EnvSpec(["six"]).key
    (tmp_path / "uv" / "uv.toml").unlink()
    assert EnvSpec(["six"]).key == without


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"packages": "numpy"}, TypeError, "packages must be a list of strings, not str"),
        ({"packages": None}, TypeError, "packages must be a list"),
        ({"packages": ["six", 3]}, TypeError, "packages.*contains int"),
        ({"packages": ["numpy=1.26"]}, EnvError, "packages: 'numpy=1.26' is not a requirement.*'=='"),
        ({"packages": ["numpy=="]}, EnvError, "packages"),
        ({"packages": ["not a name"]}, EnvError, "packages"),
        ({"packages": [""]}, EnvError, "packages.*empty"),
        ({"packages": ["six\n--index-url http://evil.example"]}, EnvError, "packages.*more than one line"),
        ({"packages": ["--pre"]}, EnvError, "packages.*options of an installer"),
        ({"packages": ["six ;"]}, EnvError, "packages"),
        ({"packages": ["six[a b]"]}, EnvError, "packages"),
        ({"packages": ["git+https://example.com/x.git"]}, EnvError, "packages.*name @ https"),
        ({"packages": ["six @ not-a-url"]}, EnvError, "packages"),
        ({"constraints": "six<2"}, TypeError, "constraints must be a list"),
        ({"constraints": ["./file.txt"]}, EnvError, "constraints"),
        ({"python": 3.11}, TypeError, "python must be a version in quotes"),
        ({"python": "python3"}, EnvError, "python: 'python3' is not a version"),
        ({"python": "3.7"}, EnvError, r"python: 3\.7 is too old; CPython 3\.8 is the minimum"),
        ({"python": "2.7.18"}, EnvError, r"3\.8 is the minimum"),
        ({"python": ">=3.x"}, EnvError, "python"),
        ({"python": ">=3.9.*"}, EnvError, "python"),
        ({"python": ""}, EnvError, "python"),
        ({"index_url": ["https://a.example"]}, TypeError, "index_url"),
        ({"index_url": "--help"}, EnvError, "index_url"),
        ({"extra_index_urls": "https://a.example"}, TypeError, "extra_index_urls must be a list"),
        ({"find_links": "/wheels"}, TypeError, "find_links must be a list"),
        ({"offline": "yes"}, TypeError, "offline"),
        ({"kind": "other"}, EnvError, "kind"),
        ({"kind": "current", "python": "3.11"}, EnvError, "kind"),
        ({"kind": "existing"}, EnvError, "kind"),
        ({"kind": "current", "packages": ["six"]}, EnvError, "cannot be given packages"),
        ({"extras": ["plots"]}, EnvError, r"extras, groups and editable belong to EnvSpec\.project"),
    ],
)
def test_wrong_input_is_refused_with_the_fields_name(
    arguments: dict[str, object], error: type[Exception], words: str
) -> None:
    """A mistake is reported where it is made, not when a worker starts."""
    with pytest.raises(error, match=words):
        EnvSpec(**arguments)  # type: ignore[arg-type]


def test_what_is_no_path_is_refused() -> None:
    """By each of the ways that take one; and what is built is a spec."""
    for make in (EnvSpec.project, EnvSpec.requirements, EnvSpec.script, EnvSpec.auto, EnvSpec.existing):
        with pytest.raises(TypeError, match=r"\(\) takes (a path|the path of an interpreter), not int"):
            make(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"build\(\) takes an EnvSpec, not str"):
        build("six")  # type: ignore[arg-type]


def test_requirements_with_urls_extras_and_markers_are_accepted() -> None:
    """The whole of PEP 508 is understood."""
    spec = EnvSpec(
        ["A[x,y]~=1.0,!=1.5; sys_platform == 'linux'", "pkg @ https://a.example/pkg-1.whl ; python_version > '3'"]
    )
    assert spec.packages == (
        "a[x,y]!=1.5,~=1.0 ; sys_platform == 'linux'",
        "pkg @ https://a.example/pkg-1.whl ; python_version > '3'",
    )


def test_credentials_are_not_shown() -> None:
    """Neither a repr nor the message of an error gives a password away."""
    spec = EnvSpec(
        ["pkg @ https://me:s3cret@a.example/pkg.whl"],
        index_url="https://me:s3cret@a.example/simple",
        extra_index_urls=["https://s3cret@b.example/simple"],
        find_links=["https://me:s3c@ret@c.example"],
    )
    assert "s3c" not in repr(spec)
    assert "a.example/simple" in repr(spec)
    with pytest.raises(EnvError) as caught:
        EnvSpec(["https://me:s3cret@a.example/pkg.whl"])
    assert "s3cret" not in str(caught.value)


def test_the_working_folder_does_not_matter_after_construction(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Relative places and paths are made absolute at once."""
    monkeypatch.chdir(tmp_path)
    spec = EnvSpec(["six"], find_links=["wheels"], python="./bin/python")
    assert spec.find_links == (str(tmp_path / "wheels"),)
    assert spec.python == str(tmp_path / "bin" / "python")


def test_specs_are_frozen_and_travel_by_pickle() -> None:
    """A spec is a value."""
    spec = EnvSpec(["six"], python="3.11")
    assert pickle.loads(pickle.dumps(spec)) == spec
    with pytest.raises(AttributeError):
        spec.python = "3.12"  # type: ignore[misc]


def test_reprs_read_like_the_call_that_made_them() -> None:
    """Only what was given is shown."""
    assert repr(EnvSpec(["six"], python="3.11")) == "EnvSpec(packages=['six'], python='3.11')"
    assert repr(EnvSpec.current()) == "EnvSpec.current()"
    assert repr(EnvSpec.existing("/x/python")) == "EnvSpec.existing('/x/python')"


def test_something_that_is_no_environment_is_a_type_error() -> None:
    """`resolve` says what it takes."""
    with pytest.raises(TypeError, match="EnvSpec, an Env, a path or None"):
        resolve(42)  # type: ignore[arg-type]
