"""What docs/protocol.md says of JSON frames is what the worker says and takes."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from venvoy_worker.runtime import json_frames, stdio_json

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
SECTION = TEXT[TEXT.index("## 14. JSON frames") :]
LINE = re.compile(r"^(host|worker) +((?:[0-9a-f]{2} ){4}) (\{.*\})$", re.MULTILINE)


def conversation() -> list[tuple[str, bytes]]:
    """Return who says which bytes."""
    return [(who, bytes.fromhex(head) + body.encode()) for who, head, body in LINE.findall(SECTION)]


def test_lengths_are_those_of_the_bodies() -> None:
    """Each frame of the example is whole, and those of the worker are written as it packs them."""
    assert len(conversation()) == 10
    for who, frame in conversation():
        assert struct.unpack(">I", frame[:4])[0] == len(frame) - 4
        if who == "worker":
            assert json_frames.pack(json.loads(frame[4:])) == frame


@pytest.mark.parametrize("index", [0, -1])
def test_the_conversation_takes_place(make_host: Callable[..., Any], interpreters: list[str], index: int) -> None:
    """Byte by byte, with the oldest Python and the newest."""
    host = make_host(python=interpreters[index])
    for who, frame in conversation():
        if who == "host":
            host.write(frame)
        else:
            assert json_frames.read(host.process.stdout.fileno(), 1000) == frame[4:]


def test_the_tables_are_those_of_the_code() -> None:
    """What the host may say, with which fields; options and their defaults."""
    rows = dict(re.findall(r"^\| `(\w+)` \| host \| ([^|]*)\|", SECTION, re.MULTILINE))
    assert {kind: re.findall(r"`(\w+)`", fields.partition(";")[0]) for kind, fields in rows.items()} == {
        kind: [name for name, _ in fields] for kind, fields in json_frames.FIELDS.items()
    }
    options = stdio_json.read_options([])
    assert f"on threads; {options.max_workers} |" in SECTION
    assert f"that may come; {options.max_frame} |" in SECTION
    for option in re.findall(r"^\| `(--[\w-]+)", SECTION, re.MULTILINE):
        assert option in stdio_json._USAGE
