"""Frames: however a stream is cut, what was packed comes out; hostile bytes are a `FrameError` and cost nothing."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import venvoy_worker
from venvoy_worker.contract import frames
from venvoy_worker.contract.frames import ENTRY, HEADER, HEADER_SIZE, Frame, FrameError, FrameParser, pack

SMALL = frames.SMALL
SOURCES = Path(venvoy_worker.__file__).parents[1]
Facts = tuple[Any, ...]

_edges = [0, 1, 2, HEADER_SIZE - 1, HEADER_SIZE, HEADER_SIZE + 1]
_edges += [size + delta for size in (SMALL - HEADER_SIZE, SMALL) for delta in (-1, 0, 1)]
sizes = st.one_of(st.integers(0, 100), st.sampled_from([*_edges, 3 * SMALL + 5]))
chunk_sizes = st.lists(
    st.sampled_from([1, 2, 7, HEADER_SIZE - 1, HEADER_SIZE, 1000, SMALL - 1, SMALL, SMALL + 1, 10**6]), min_size=1
)


def filled(size: int, seed: int) -> bytes:
    """Return recognisable bytes: a mistake in order or place shows."""
    pattern = bytes((seed + step * step) % 251 for step in range(257))
    return (pattern * (size // 257 + 1))[:size]


@st.composite
def packed(draw: st.DrawFn) -> tuple[Facts, bytes]:
    """Return a frame's facts and its bytes on the wire."""
    opcode, flags, codec = draw(st.tuples(*[st.integers(0, 255)] * 3))
    epoch, number = draw(st.tuples(*[st.integers(0, 2**32 - 1)] * 2))
    call_id = draw(st.integers(0, 2**64 - 1))
    target = filled(draw(st.one_of(st.integers(0, 30), st.sampled_from([frames.MAX_TARGET]))), 3)
    body = filled(draw(sizes), 5)
    buffers = [filled(size, index) for index, size in enumerate(draw(st.lists(sizes, max_size=4)))]
    cut = draw(st.integers(0, len(body)))
    pieces = pack(opcode, flags, codec, epoch, call_id, number, target, [body[:cut], body[cut:]], buffers)
    return (opcode, flags, codec, epoch, call_id, number, target, body, buffers), b"".join(pieces)


def facts(frame: Frame) -> Facts:
    buffers = [bytes(buffer) for buffer in frame.buffers]
    head = (frame.opcode, frame.flags, frame.codec, frame.epoch, frame.call_id, frame.number)
    return (*head, frame.target, bytes(frame.body), buffers)


def cut_up(stream: bytes, steps: list[int]) -> Iterator[bytes]:
    start = 0
    for step in cycle(steps):
        if start >= len(stream):
            return
        yield stream[start : start + step]
        start += step


def by_hand(parser: FrameParser, data: bytes) -> list[Frame]:
    """Do what whoever owns a socket does; frames are taken only when all the data is in, where that is possible."""
    found = []
    view = memoryview(data)
    while len(view):
        room = parser.writable()
        assert len(room)
        count = min(len(room), len(view))
        room[:count] = view[:count]
        parser.counts.append(count)
        view = view[count:]
        frame = parser.next_frame()
        while frame is not None:
            found.append(frame)
            frame = parser.next_frame()
    return found


def header(
    *, version: int = frames.PROTOCOL_VERSION, target: int = 0, buffers: int = 0, body: int = 0, opcode: int = 4
) -> bytes:
    return HEADER.pack(opcode, 0, 1, version, 0, 1, 0, target, buffers, body)


@settings(max_examples=150, deadline=None)
@given(st.lists(packed(), min_size=1, max_size=4), chunk_sizes.filter(lambda steps: min(steps) > 7 or len(steps) > 3))
def test_frames_survive_any_cutting_of_the_stream(sent: list[tuple[Facts, bytes]], steps: list[int]) -> None:
    """Frames come out whole and in order however the stream is cut, and earlier ones are not overwritten by later."""
    parser = FrameParser()
    received: list[Frame] = []
    for chunk in cut_up(b"".join(data for _, data in sent), steps):
        received += parser.feed(chunk)
    assert [facts(frame) for frame in received] == [expected for expected, _ in sent]
    assert parser.is_between_frames


@settings(max_examples=60, deadline=None)
@given(st.lists(packed(), min_size=1, max_size=3), chunk_sizes.filter(lambda steps: min(steps) > 7 or len(steps) > 3))
def test_feeding_and_filling_by_hand_agree(sent: list[tuple[Facts, bytes]], steps: list[int]) -> None:
    """`feed` and the trio writable, counts, next_frame give the same frames after every chunk."""
    fed, filled_in = FrameParser(), FrameParser()
    for chunk in cut_up(b"".join(data for _, data in sent), steps):
        expected = [facts(frame) for frame in fed.feed(chunk)]
        assert [facts(frame) for frame in by_hand(filled_in, chunk)] == expected
        assert filled_in.is_between_frames == fed.is_between_frames


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.binary(max_size=30), st.binary(max_size=90), st.lists(st.binary(max_size=9), max_size=3))),
    st.binary(max_size=5),
)
def test_single_bytes_make_frames(sent: list[tuple[bytes, bytes, list[bytes]]], rest: bytes) -> None:
    """Fed byte by byte, each frame comes out with its own last byte and not before."""
    parser = FrameParser()
    for target, body, buffers in sent:
        data = b"".join(pack(3, target=target, body=[body], buffers=buffers))
        for index in range(len(data)):
            found = parser.feed(data[index : index + 1])
            assert bool(found) == (index == len(data) - 1)
        assert (found[0].target, found[0].body, found[0].buffers) == (target, body, buffers)
    parser.feed(rest)
    assert parser.is_between_frames == (not rest)


@pytest.mark.parametrize("with_buffer", [False, True])
@pytest.mark.parametrize("over", [-1, 0, 1])
@pytest.mark.parametrize("target", [b"", b"module:name"])
def test_the_limit_of_small_frames_is_no_seam(target: bytes, over: int, with_buffer: bool) -> None:
    """Frames just below, at and just above the size collected in the receive buffer are the same frames."""
    body = filled(SMALL - HEADER_SIZE - len(target) + over, 1)
    buffers = [filled(SMALL + over, 2)] if with_buffer else []
    data = b"".join(pack(3, target=target, body=[body], buffers=buffers))
    found = FrameParser().feed(data * 3)
    assert [(frame.target, frame.body, frame.buffers) for frame in found] == [(target, body, buffers)] * 3


@pytest.mark.parametrize("body", [b"", b"x", bytes(SMALL)])
@pytest.mark.parametrize("lengths", [[0], [0, 0, 0], [0, 5, 0], [5, 0, SMALL, 0]])
def test_empty_buffers_keep_their_places(body: bytes, lengths: list[int]) -> None:
    """Buffers of no bytes take nothing on the wire behind the table and are there all the same."""
    buffers = [filled(length, index) for index, length in enumerate(lengths)]
    parser = FrameParser()
    pieces = pack(3, body=[body], buffers=buffers)
    assert all(len(piece) for piece in pieces[2:])
    (found,) = parser.feed(b"".join(pieces))
    assert found.buffers == buffers
    assert parser.is_between_frames


def test_received_buffers_are_writable_and_separate() -> None:
    """What becomes the memory of arrays may be written, without a change elsewhere."""
    data = b"".join(pack(3, body=[b"body"], buffers=[b"one", b"two"]))
    first, second = FrameParser().feed(data + data)
    first.buffers[0][:] = b"ONE"
    assert (first.buffers[1], second.buffers[0]) == (b"two", b"one")


@settings(max_examples=40, deadline=None)
@given(st.lists(packed(), min_size=1, max_size=3), st.data())
def test_a_truncated_stream_gives_what_is_whole(sent: list[tuple[Facts, bytes]], data: st.DataObject) -> None:
    """Cut anywhere, a stream yields the frames before the cut, and says whether it was cut inside one."""
    stream = b"".join(piece for _, piece in sent)
    ends = [sum(len(piece) for _, piece in sent[: index + 1]) for index in range(len(sent))]
    cut = data.draw(st.one_of(st.integers(0, len(stream)), st.sampled_from(ends), st.sampled_from(ends).map(_before)))
    parser = FrameParser()
    found = parser.feed(stream[:cut])
    assert len(found) == sum(end <= cut for end in ends)
    assert parser.is_between_frames == (cut in (0, *ends))


def _before(end: int) -> int:
    return end - 1


# --- packing ------------------------------------------------------------------------------------------------------


def test_large_pieces_are_not_copied() -> None:
    """Body pieces and buffers beyond the small size are sent from where they are."""
    body, buffer = bytes(SMALL + 1), bytearray(10)
    pieces = pack(3, body=[body], buffers=[buffer])
    assert pieces[1] is body
    assert pieces[2] is buffer


def test_a_small_frame_is_one_piece() -> None:
    """A usual call costs one write."""
    assert len(pack(3, target=b"math:sqrt", body=[b"a", b"b"])) == 1


@pytest.mark.parametrize(
    ("target", "buffers"), [(frames.MAX_TARGET + 1, 0), (0, frames.MAX_BUFFERS + 1)], ids=["target", "buffers"]
)
def test_packing_beyond_the_limits_is_refused(target: int, buffers: int) -> None:
    """What the other end would refuse is not sent."""
    with pytest.raises(FrameError, match="too many"):
        pack(3, target=bytes(target), buffers=[b""] * buffers)


# --- hostile input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        header(version=frames.PROTOCOL_VERSION + 1),
        header(version=0),
        header(version=255),
        header(target=frames.MAX_TARGET + 1),
        header(target=2**32 - 1),
        header(buffers=frames.MAX_BUFFERS + 1),
        header(buffers=2**32 - 1),
        header(body=frames.MAX_FRAME + 1),
        header(body=2**64 - 1),
        header(buffers=1) + ENTRY.pack(1, 0, 0, 5),
        header(buffers=1) + ENTRY.pack(2**32 - 1, 0, 0, 0),
        header(buffers=1) + ENTRY.pack(0, 0, 0, 2**64 - 1),
        header(buffers=2, body=5) + ENTRY.pack(0, 0, 0, frames.MAX_FRAME) * 2,
        header(body=frames.MAX_FRAME, buffers=1) + ENTRY.pack(0, 0, 0, 1),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + bytes(40),
        b"Traceback (most recent call last):\n  File",
    ],
    ids=lambda data: f"{len(data)} bytes",
)
@pytest.mark.parametrize("step", [1, 10**6])
def test_hostile_bytes_are_a_frame_error(data: bytes, step: int) -> None:
    """Wrong versions, sizes, counts and kinds are refused at once, however they arrive."""
    with pytest.raises(FrameError):
        _feed_all(FrameParser(), data, step)


def _feed_all(parser: FrameParser, data: bytes, step: int) -> None:
    for chunk in cut_up(data, [step]):
        parser.feed(chunk)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.builds(
            lambda numbers, rest: HEADER.pack(*numbers[:3], frames.PROTOCOL_VERSION, *numbers[3:]) + rest,
            st.tuples(
                *[st.integers(0, 255)] * 3,
                st.integers(0, 2**32 - 1),
                st.integers(0, 2**64 - 1),
                st.integers(0, 2**32 - 1),
                st.one_of(st.integers(0, 50), st.integers(0, 2**32 - 1)),
                st.one_of(st.integers(0, 5), st.integers(0, 2**32 - 1)),
                st.one_of(st.integers(0, 50), st.integers(0, 2**64 - 1)),
            ),
            st.binary(max_size=300),
        ),
    )
)
@example(header(buffers=frames.MAX_BUFFERS))
@example(header(buffers=1000, body=1 << 19) + ENTRY.pack(0, 0, 0, 1 << 19) * 1000)
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    """Arbitrary bytes give frames, nothing, or a FrameError, within the memory the limits allow."""
    tracemalloc.start()
    try:
        FrameParser(limit=1 << 20).feed(data)
    except FrameError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < ENTRY.size * frames.MAX_BUFFERS + (4 << 20)


@pytest.mark.parametrize("body", [1001, 2000])
def test_a_limit_of_ones_own_holds(body: int) -> None:
    """A receiver may accept less than the protocol allows; body and buffers count together."""
    with pytest.raises(FrameError, match="limit"):
        FrameParser(limit=1000).feed(header(body=body))
    with pytest.raises(FrameError, match="limit"):
        FrameParser(limit=1000).feed(header(body=body - 1000, buffers=1) + ENTRY.pack(0, 0, 0, 1000))
    assert FrameParser(limit=1000).feed(b"".join(pack(3, body=[bytes(900)], buffers=[bytes(100)])))


def test_a_claim_alone_costs_no_memory() -> None:
    """A header that promises a large body takes memory when the bytes come, not when they are promised."""
    code = (
        "import resource, sys; sys.path.insert(0, sys.argv[1])\n"
        "from venvoy_worker.contract import frames\n"
        "resident = lambda: int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize()\n"
        "before, parser = resident(), frames.FrameParser()\n"
        "parser.feed(bytes.fromhex(sys.argv[2]))\n"
        "print(resident() - before)\n"
    )
    command = [sys.executable, "-I", "-c", code, str(SOURCES), header(body=1 << 28).hex()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) < 32 << 20


def test_memory_that_is_not_there_is_a_frame_error() -> None:
    """A frame within the limit but beyond the machine is refused, not a MemoryError in whoever reads."""
    code = (
        "import resource, sys; sys.path.insert(0, sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "from venvoy_worker.contract import frames\n"
        "try: frames.FrameParser().feed(bytes.fromhex(sys.argv[2]))\n"
        "except frames.FrameError: print('refused')\n"
    )
    command = [sys.executable, "-I", "-c", code, str(SOURCES), header(body=frames.MAX_FRAME).hex()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "refused\n", done.stderr
