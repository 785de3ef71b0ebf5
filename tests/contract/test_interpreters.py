"""The contract on every interpreter: it imports lean, needs nothing but the standard library, and decodes arrays."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import venvoy_worker
from venvoy_worker.contract import codec
from venvoy_worker.contract.arrays import ArrayRecord

PACKAGE = Path(venvoy_worker.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
CONTRACT = ["venvoy_worker.contract"] + [
    f"venvoy_worker.contract.{path.stem}" for path in (PACKAGE / "contract").glob("*.py") if path.stem != "__init__"
]
# Each of these, or what it imports, costs a starting worker milliseconds.
COSTLY = {
    "asyncio",
    "dataclasses",
    "enum",
    "inspect",
    "logging",
    "pickle",
    "re",
    "select",
    "signal",
    "socket",
    "struct",
    "subprocess",
    "tempfile",
    "threading",
    "traceback",
    "typing",
}


def run(interpreter: str, code: str, given: bytes = b"", flags: tuple[str, ...] = ("-I", "-S")) -> Any:
    """Run code in a bare interpreter that knows the package's folder as `argv[1]`; return the JSON it prints."""
    command = [interpreter, *flags, "-c", code, str(PACKAGE.parent)]
    done = subprocess.run(command, input=given, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    assert not done.stderr, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.parametrize("flags", [("-I",), ("-I", "-S")], ids=" ".join)
def test_the_contract_imports_lean(interpreter: str, flags: tuple[str, ...]) -> None:
    """Every module imports on every supported Python, and brings in nothing that makes starting slow."""
    code = (
        "import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1])\n"
        f"for name in {CONTRACT!r}: __import__(name)\n"
        "new = sorted(set(sys.modules) - before)\n"
        "import json; print(json.dumps(new))\n"
    )
    new = set(run(interpreter, code, flags=flags))
    assert set(CONTRACT) <= new
    assert not new & COSTLY


@pytest.mark.parametrize("name", CONTRACT)
def test_each_module_imports_alone(name: str) -> None:
    """No module of the contract depends on another having been imported before it."""
    code = f"import sys; sys.path.insert(0, sys.argv[1]); __import__({name!r}); print(1)"
    assert run(sys.executable, code) == 1


def test_every_file_of_the_worker_compiles(interpreter: str) -> None:
    """The syntax of the whole package is that of the oldest Python a worker may have; warnings are errors."""
    code = (
        "import sys, json, pathlib, warnings; warnings.simplefilter('error')\n"
        f"for path in {[str(path) for path in FILES]!r}: compile(pathlib.Path(path).read_bytes(), path, 'exec')\n"
        "print(json.dumps(True))\n"
    )
    assert run(interpreter, code) is True


def imports(tree: ast.Module) -> Iterator[tuple[str, int, bool]]:
    """Return (module, level of relative import, whether an ImportError is expected) of each import."""
    expected = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.Try)
        and any(isinstance(handler.type, ast.Name) and handler.type.id == "ImportError" for handler in block.handlers)
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, 0, id(node) in expected
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level, id(node) in expected


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_worker_needs_the_standard_library_only(path: Path) -> None:
    """No file imports the host or a third party; numpy and its like only where their absence is provided for."""
    for module, level, may_be_missing in imports(ast.parse(path.read_text(encoding="utf-8"))):
        top = module.partition(".")[0]
        if level or top in sys.stdlib_module_names or top == "venvoy_worker":
            continue
        assert top in ("numpy", "pandas", "polars", "pyarrow"), f"{path.name} imports {module}"
        assert may_be_missing, f"{path.name} imports {module} as if it were always there"


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "contract"], ids=lambda path: path.name)
def test_the_contract_stands_alone(path: Path) -> None:
    """It knows neither the runtime nor the package around it, so that the host can import it by itself."""
    for module, level, _ in imports(ast.parse(path.read_text(encoding="utf-8"))):
        assert level <= 1, f"{path.name} imports from outside the contract"
        assert not module.startswith("venvoy_worker")


# --- a receiver without numpy -------------------------------------------------------------------------------------

DECODE = """
import sys, json; sys.path.insert(0, sys.argv[1])
from venvoy_worker.contract import codec, frames, arrays
(frame,) = frames.FrameParser().feed(sys.stdin.buffer.read())
value = codec.decode(frame.body, frame.buffers)
assert "numpy" not in sys.modules
"""
ARRAYS = [
    np.arange(6, dtype=">i2").reshape(2, 3),
    np.asfortranarray(np.arange(10_000.0).reshape(100, 100)),
    np.arange(6)[::-2],
    np.array(5.5),
    np.zeros((0, 3), "U5"),
    np.array([(1, 2.5)], np.dtype([("a", "i1"), ("b", "f8", (2,))], align=True)),
    np.array(["2024-02-29"], "M8[D]"),
]


def frame_of(value: object) -> bytes:
    from venvoy_worker.contract import frames

    body, buffers = codec.encode(value)
    return b"".join(frames.pack(4, body=body, buffers=buffers))


def test_an_array_without_numpy_is_a_record(interpreter: str) -> None:
    """Where there is no numpy an array is its dtype, shape, order and bytes, and can be sent on unchanged."""
    code = DECODE + (
        "assert all(type(record) is arrays.ArrayRecord for record in value)\n"
        "body, buffers = codec.encode(value)\n"
        "back = b''.join(frames.pack(4, body=body, buffers=buffers)).hex()\n"
        "records = [[repr(one), list(one.shape), one.order, bytes(one.data).hex()] for one in value]\n"
        "print(json.dumps([records, back]))\n"
    )
    records, back = run(interpreter, code, frame_of(ARRAYS))
    for array, (text, shape, order, data), result in zip(ARRAYS, records, _decoded(bytes.fromhex(back)), strict=True):
        assert "numpy is not installed" in text
        assert tuple(shape) == array.shape
        assert bytes.fromhex(data) == array.tobytes(order)
        assert result.dtype == array.dtype
        assert result.tobytes() == array.tobytes()
        result[...] = array


def _decoded(data: bytes) -> Any:
    from venvoy_worker.contract import frames

    (frame,) = frames.FrameParser().feed(data)
    return codec.decode(frame.body, frame.buffers)


def test_what_is_not_an_array_needs_no_numpy(interpreter: str) -> None:
    """Text scalars are text, arrays of objects are lists, and values around arrays are themselves."""
    value = {
        "text": np.str_("é"),
        "bytes": np.bytes_(b"b"),
        "objects": np.array([1, "x", None], object),
        "rest": (1, 2),
    }
    code = DECODE + "value['bytes'] = value['bytes'].decode(); print(json.dumps(value))\n"
    assert run(interpreter, code, frame_of(value)) == {
        "text": "é",
        "bytes": "b",
        "objects": [1, "x", None],
        "rest": [1, 2],
    }


def test_numbers_without_numpy_are_numbers(interpreter: str) -> None:
    """A mean, a sum, a flag: scalars of a plain value arrive as that."""
    value = [np.float64(1.5), np.int16(-2), np.bool_(True), np.float32(0.5)]
    code = DECODE + "print(json.dumps([[type(item).__name__, item] for item in value]))\n"
    assert run(interpreter, code, frame_of(value)) == [["float", 1.5], ["int", -2], ["bool", True], ["float", 0.5]]


def test_a_record_is_its_buffer() -> None:
    """An `ArrayRecord` made by hand travels as an array does."""
    record = ArrayRecord("<f8", (2, 2), "F", memoryview(np.arange(4.0).tobytes()))
    assert _decoded(frame_of(record)).tolist() == [[0.0, 2.0], [1.0, 3.0]]
    assert repr(record) == "<ArrayRecord dtype='<f8' shape=(2, 2): numpy is not installed here>"


def test_frames_of_every_interpreter_are_understood(interpreter: str) -> None:
    """What any Python encodes, this one decodes: the same protocol on both ends."""
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1])\n"
        "from venvoy_worker.contract import codec, frames\n"
        "import datetime, decimal, uuid, collections\n"
        "value = [{'a': (1, 2.5, None)}, {1, 2}, b'x' * 100000, datetime.date(2024, 2, 29), decimal.Decimal('1.1'),\n"
        "         uuid.UUID(int=7), collections.deque([1]), range(3), 'é', bytearray(b'y' * 70000), 2 ** 100]\n"
        "body, buffers = codec.encode(value)\n"
        "print(json.dumps([repr(value), b''.join(frames.pack(4, body=body, buffers=buffers)).hex()]))\n"
    )
    text, data = run(interpreter, code)
    assert repr(_decoded(bytes.fromhex(data))) == text
