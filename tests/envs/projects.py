"""Projects for the tests: with a build backend of their own, so that they need no network and build in a moment."""

from __future__ import annotations

from pathlib import Path

BACKEND = """
import pathlib, zipfile
def _write(folder, files):
    name = "sample-1.0-py3-none-any.whl"
    info = "sample-1.0.dist-info"
    files = {
        **files,
        info + "/METADATA": METADATA,
        info + "/WHEEL": "Wheel-Version: 1.0\\nGenerator: tests\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        wheel.writestr(info + "/RECORD", "".join(path + ",,\\n" for path in (*files, info + "/RECORD")))
    return name
def build_wheel(folder, config_settings=None, metadata_directory=None):
    return _write(folder, {"sample.py": pathlib.Path("src/sample.py").read_text()})
def build_editable(folder, config_settings=None, metadata_directory=None):
    return _write(folder, {"sample.pth": str(pathlib.Path("src").resolve())})
"""
METADATA = """Metadata-Version: 2.1
Name: sample
Version: 1.0
Requires-Python: >=3.8
Provides-Extra: more
Requires-Dist: tiny
Requires-Dist: other; extra == "more"
"""
PYPROJECT = """[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "sample"
version = "1.0"
requires-python = ">=3.8"
dependencies = ["tiny"]

[project.optional-dependencies]
more = ["other"]

[dependency-groups]
extra-tools = ["other"]
all = [{include-group = "extra-tools"}]
"""


def make_project(folder: Path, word: str = "first") -> Path:
    """Write a project named `sample` that depends on the small wheel `tiny`, and return its folder."""
    (folder / "src").mkdir(parents=True)
    (folder / "backend.py").write_text(f"METADATA = {METADATA!r}\n{BACKEND}")
    (folder / "pyproject.toml").write_text(PYPROJECT)
    write_word(folder, word)
    return folder


def write_word(folder: Path, word: str) -> None:
    """Change the project's source."""
    (folder / "src" / "sample.py").write_text(f"WORD = {word!r}\n")


def files_in(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
