"""docs/protocol.md says what the code does: its tables and its examples, byte by byte."""

from __future__ import annotations

import ast
import re
import struct
import types
import typing
from pathlib import Path
from typing import Any

import pytest

import venvoy_worker
from venvoy_worker.contract import (
    arrays,
    arrow_values,
    codec,
    failures,
    frames,
    messages,
    pandas_values,
    records,
    standard,
)
from venvoy_worker.contract.frames import Frame, FrameParser

PACKAGE = Path(venvoy_worker.__file__).parent
ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
HEADER_FIELDS = [
    "opcode",
    "flags",
    "codec",
    "version",
    "epoch",
    "call_id",
    "number",
    "target_size",
    "buffer_count",
    "body_size",
]

Row = dict[str, str]


def tables() -> list[list[Row]]:
    """Return the tables of the document, each a list of rows by column name."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", TEXT, re.MULTILINE):
        lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines()]
        assert {len(line) for line in lines} == {len(lines[0])}, f"a ragged table: {lines[0]}"
        found.append([dict(zip(lines[0], line, strict=True)) for line in lines[2:]])
    return found


def table(*columns: str, number: int = 0) -> list[Row]:
    """Return one of the tables with these columns, counted from the top."""
    return [rows for rows in tables() if tuple(rows[0]) == columns][number]


def names(rows: list[Row], column: str) -> list[str]:
    return [row[column].strip("`") for row in rows]


def constants(module: Any, *starts: str) -> dict[str, int]:
    return {name: value for name, value in vars(module).items() if name.startswith(starts) and type(value) is int}


@pytest.mark.parametrize(
    ("number", "layout"),
    [(0, frames.HEADER), (1, frames.ENTRY), (2, struct.Struct("<QQ"))],
    ids=["header", "row", "page"],
)
def test_layouts_are_those_of_the_code(number: int, layout: struct.Struct) -> None:
    """Offsets and sizes of header, buffer row and status page."""
    rows = table("offset", "size", "field", "meaning", number=number)
    sizes = [struct.calcsize("<" + letter) for letter in layout.format.removeprefix("<")]
    assert [int(row["size"]) for row in rows] == sizes
    assert [int(row["offset"]) for row in rows] == [sum(sizes[:index]) for index in range(len(sizes))]
    assert sum(sizes) == layout.size


def test_the_fields_are_named_in_order() -> None:
    """The header's fields are the frame's."""
    assert names(table("offset", "size", "field", "meaning"), "field") == HEADER_FIELDS
    assert set(Frame.__slots__) == {*HEADER_FIELDS[:3], *HEADER_FIELDS[4:7], "target", "body", "buffers"}
    assert f"header ({frames.HEADER_SIZE} bytes)" in TEXT


def test_the_opcodes_are_those_of_the_code() -> None:
    """Value, name and sender of each; small numbers are on the call channel."""
    rows = table("value", "opcode", "from", "socket", "when")
    assert {row["opcode"]: int(row["value"]) for row in rows} == {
        name: value
        for name, value in vars(messages).items()
        if name.isupper() and type(value) is int and not name.startswith(("FLAG_", "KIND_"))
    }
    senders = {"host": messages.FROM_HOST, "worker": messages.FROM_WORKER, "template": messages.FROM_WORKER}
    for row in rows:
        for sender in ("host", "worker") if row["from"] == "both" else [row["from"]]:
            assert int(row["value"]) in senders[sender]
        assert row["socket"] == ("control" if int(row["value"]) >= messages.PING else "call")
        assert f"**{row['opcode']}**" in TEXT


def test_flags_codecs_limits_and_capabilities_are_those_of_the_code() -> None:
    """Every constant of these families is there with its value."""
    flags = {row["flag"].strip("`"): int(row["bits"]) for row in table("flag", "bits", "on", "meaning")}
    mask = {"KIND_MASK": messages.KIND_MASK}
    assert flags | mask == constants(messages, "FLAG_", "KIND_")
    for opcode in ("CALL", "RESULT", "ERROR", "ASK", "ANSWER"):
        on_it = [flags[row["flag"].strip("`")] for row in table("flag", "bits", "on", "meaning") if opcode in row["on"]]
        assert len(set(on_it)) == len(on_it), f"flags of {opcode} collide"
    codecs = {row["name"].strip("`"): int(row["codec"]) for row in table("codec", "name", "body")}
    assert codecs == {"NONE": codec.NONE, "PICKLE": codec.PICKLE}
    limits = {row["constant"].strip("`"): int(row["value"].split()[0]) for row in table("limit", "value", "constant")}
    assert limits == constants(frames, "MAX_")
    assert tuple(names(table("capability", "meaning"), "capability")) == messages.CAPABILITIES
    kinds = {row["constant"].strip("`"): int(row["kind"]) for row in table("kind", "constant", "the bytes are")}
    assert kinds == constants(frames, "BUFFER_")
    said = {row["flag"].strip("`"): int(row["bits"]) for row in table("flag", "bits", "of", "meaning")}
    assert said == constants(frames, "SEGMENT_")
    assert f"of {codec._OUT_OF_BAND} bytes and more" in TEXT
    assert f"Version {frames.PROTOCOL_VERSION}." in TEXT


def test_settings_are_what_host_and_worker_use() -> None:
    """The keys of HELLO's body: those the host writes, and those the worker reads."""
    documented = set(names(table("setting", "value"), "setting"))
    greeting = ast.parse((PACKAGE / "runtime" / "greeting.py").read_text(encoding="utf-8"))
    read = {
        node.slice.value
        for node in ast.walk(greeting)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and _is_name(node.value, "settings")
    }
    recipe = ast.parse((ROOT / "src" / "venvoy" / "pool" / "recipe.py").read_text(encoding="utf-8"))
    assert documented == read == _keys_returned_by(recipe, "_settings")


def test_what_fork_asks_for_is_what_the_template_reads() -> None:
    """The keys of FORK's body."""
    template = ast.parse((PACKAGE / "runtime" / "template.py").read_text(encoding="utf-8"))
    read = {
        node.slice.value
        for node in ast.walk(template)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and _is_name(node.value, "wanted")
    }
    assert set(names(table("key of FORK", "value"), "key of FORK")) == read


def test_facts_are_what_the_worker_sends() -> None:
    """The keys of READY's body."""
    greeting = ast.parse((PACKAGE / "runtime" / "greeting.py").read_text(encoding="utf-8"))
    assert set(names(table("fact", "value"), "fact")) == _keys_returned_by(greeting, "_facts")


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _keys_returned_by(tree: ast.Module, function: str) -> set[Any]:
    (found,) = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == function)
    (returned,) = (node.value for node in ast.walk(found) if isinstance(node, ast.Return))
    assert isinstance(returned, ast.Dict)
    return {key.value for key in returned.keys if isinstance(key, ast.Constant)}


def test_snapshots_have_the_documented_keys() -> None:
    """Both kinds of error body, and the codes the host understands."""
    from venvoy.values.failures import _OURS

    raised, failed = (rows for rows in tables() if tuple(rows[0]) == ("key", "value"))
    assert names(raised, "key") == list(failures.snapshot(ValueError(), "/none/"))
    assert names(failed, "key") == list(failures.failure("code", "message"))
    assert "`size` and `limit`" in TEXT
    codes = re.findall(r"`(\w+)`", failed[0]["value"])
    assert set(codes) == {*_OURS, "remote_error"}


@pytest.mark.parametrize("module", [arrays, arrow_values, pandas_values, records, standard], ids=lambda m: m.__name__)
def test_the_functions_that_bodies_name_are_there(module: types.ModuleType) -> None:
    """Each function of these modules that rebuilds a value is documented, in the table that names its module."""
    after = TEXT[TEXT.index(f"`{module.__name__}`") :]
    found: list[str] = []
    for block in after.split("\n\n|")[1:]:
        if block.startswith(" function"):
            found += re.findall(r"^\| `(\w+)` \|", block.partition("\n\n")[0], re.M)
            break
    made = [name for name, value in vars(module).items() if _rebuilds(name, value, module)]
    assert sorted(found) == sorted(made)
    assert "fill_object" in TEXT


def _rebuilds(name: str, value: object, module: types.ModuleType) -> bool:
    is_own = getattr(value, "__module__", "") == module.__name__
    return is_own and name.startswith(("restore_", "make_", "new_"))


# --- examples -----------------------------------------------------------------------------------------------------

EXAMPLES = re.findall(r"^```frame\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
Line = tuple[bytes, str, Any]


def lines_of(example: str) -> list[Line]:
    """Return (bytes, field, value) of each line of an example."""
    found = []
    for line in example.splitlines():
        match = re.fullmatch(r"((?:[0-9a-f]{2} )+) *(\w+) = (.+)", line)
        assert match, f"not a line of an example: {line!r}"
        found.append((bytes.fromhex(match[1]), match[2], value_of(match[3])))
    return found


def value_of(text: str) -> Any:
    known = {**vars(messages), **vars(codec), **vars(frames)}
    return eval(text, {"__builtins__": {"bytearray": bytearray}}, known)


def parsed(example: str) -> tuple[Frame, dict[str, Any], list[Line]]:
    lines = lines_of(example)
    parser = FrameParser()
    (frame,) = parser.feed(b"".join(data for data, _, _ in lines))
    assert parser.is_between_frames
    return frame, {field: value for _, field, value in lines}, lines


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: re.search(r"opcode = (\w+)", example)[1])  # type: ignore[index]
def test_examples_mean_what_they_say(example: str) -> None:
    """The parser reads the bytes as the lines explain them."""
    frame, said, lines = parsed(example)
    assert [field for _, field, _ in lines][: len(HEADER_FIELDS)] == HEADER_FIELDS
    header = frames.HEADER.unpack(b"".join(data for data, _, _ in lines[: len(HEADER_FIELDS)]))
    assert dict(zip(HEADER_FIELDS, header, strict=True)) == {field: said[field] for field in HEADER_FIELDS}
    for field in ("opcode", "flags", "codec", "epoch", "call_id", "number"):
        assert getattr(frame, field) == said[field]
    assert frame.target.decode() == said.get("target", "")
    assert [bytes(buffer) for buffer in frame.buffers] == [value for _, field, value in lines if field == "buffer"]
    rows = [frames.ENTRY.unpack(data) for data, field, _ in lines if field == "row"]
    assert rows == [value for _, field, value in lines if field == "row"]
    if "ids" in said:
        assert messages.read_ids(frame.body) == said["ids"]
    else:
        assert codec.decode(frame.body, frame.buffers) == said["body"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: re.search(r"opcode = (\w+)", example)[1])  # type: ignore[index]
def test_examples_are_what_is_sent(example: str) -> None:
    """Packing the same frame gives the same bytes, and encoding the same value the same body."""
    frame, said, lines = parsed(example)
    data = b"".join(data for data, _, _ in lines)
    fields = {name: getattr(frame, name) for name in typing.cast(tuple[str, ...], Frame.__slots__)}
    assert b"".join(frames.pack(**{**fields, "body": [frame.body]})) == data
    if "body" in said and not frame.buffers:
        encode = codec.encode_call if frame.opcode == messages.CALL else lambda *value: codec.encode_result(value[0])
        arguments = said["body"] if frame.opcode == messages.CALL else (said["body"],)
        assert b"".join(encode(*arguments)[0]) == frame.body
    if "ids" in said:
        assert messages.pack_ids(said["ids"]) == frame.body


def test_the_examples_are_found() -> None:
    """The document has examples of the main frames, a greeting among them."""
    opcodes = {parsed(example)[0].opcode for example in EXAMPLES}
    assert opcodes >= {messages.HELLO, messages.CALL, messages.RESULT, messages.ERROR, messages.RETRACT}
    oldest, newest, _ = messages.read_greeting(b"1 1 signals")
    assert (oldest, newest) == (frames.OLDEST_PROTOCOL, frames.PROTOCOL_VERSION)


def test_the_command_line_is_that_of_the_worker() -> None:
    """The arguments of the worker's file, in order."""
    shown = "PYCACHE CALL_FD CONTROL_FD LIFELINE_FD STATUS_FD [template]"
    assert shown in TEXT
    assert shown in (PACKAGE / "__main__.py").read_text(encoding="utf-8")
