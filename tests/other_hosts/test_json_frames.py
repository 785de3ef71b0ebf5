"""Frames of JSON that are none: each says what is wrong with it, and what was understood of it."""

from __future__ import annotations

import json
import os

import pytest

from venvoy_worker.runtime import json_frames
from venvoy_worker.runtime.json_frames import Malformed


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"type": NaN}', "NaN is no JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "a frame is a JSON object, not a list"),
        (b'{"type": "sing"}', "unknown type 'sing'; there are "),
        (b'{"type": 3}', "unknown type 3"),
        (b'{"type": "call", "callID": "a"}', "call: the field '.*' is missing"),
    ],
)
def test_what_is_no_frame_says_why(body: bytes, words: str) -> None:
    """With the frame, as far as it is one."""
    with pytest.raises(Malformed, match=words) as caught:
        json_frames.parse(body)
    assert isinstance(caught.value.frame, dict)


def test_a_field_of_another_type_is_named() -> None:
    """With what it is and what it should be."""
    fields = next(iter(json_frames.FIELDS.items()))
    kind, wanted = fields[0], dict(fields[1])
    message = {"type": kind, **{name: kinds() for name, kinds in wanted.items()}}
    name = next(iter(wanted))
    with pytest.raises(Malformed, match=f"{kind}: the field '{name}' is a float, not a {wanted[name].__name__}"):
        json_frames.parse(json.dumps({**message, name: 1.5}).encode())


def test_a_stream_that_ends_inside_a_frame_is_no_end() -> None:
    """Between two frames it is one."""
    ours, theirs = os.pipe()
    frame = json_frames.pack({"type": "ready"})
    os.write(theirs, frame + frame[:-1])
    os.close(theirs)
    try:
        assert json.loads(json_frames.read(ours, 1000) or b"") == {"type": "ready"}
        with pytest.raises(EOFError):
            json_frames.read(ours, 1000)
        assert json_frames.read(ours, 1000) is None
    finally:
        os.close(ours)
