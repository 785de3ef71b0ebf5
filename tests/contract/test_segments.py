"""Both sides of segments in one process: what is lent, given back, given away, refused."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from venvoy_worker.contract import codec, frames, messages
from venvoy_worker.contract.descriptors import DescriptorChannel
from venvoy_worker.contract.loans import Loans
from venvoy_worker.contract.mapping import Mapping, make_file

if not hasattr(os, "memfd_create"):
    pytest.skip("this system has no anonymous files", allow_module_level=True)

LEAST = 1000


class End:
    """One end of a control line, and the segments that are talked about on it."""

    def __init__(self, sock: socket.socket, terms: tuple[int | None, int, bool]) -> None:
        self.channel = DescriptorChannel(sock)
        self.is_deaf = False
        self.loans = Loans(self, terms, self.listen)
        self.parser = frames.FrameParser()
        self.parser.borrower = self.loans.borrower

    def announce(self, pieces: Any, fd: int) -> bool:
        return not self.is_deaf and self.channel.try_send_with(pieces, fd) > 0

    def tell(self, pieces: Any) -> bool:
        return not self.is_deaf and self.channel.try_send_with(pieces) > 0

    def listen(self) -> bool:
        frame = self.channel.try_receive()
        while frame is not None:
            fd = self.channel.take_descriptor() if frame.opcode == messages.SEGMENT else None
            self.loans.hear(frame, fd)
            frame = self.channel.try_receive()
        return True

    def send(self, value: object, tag: int = 1) -> bytes:
        """Return the bytes of a frame with a value, large parts of which are in segments."""
        body, buffers = self.loans.lender.place(tag, *codec.encode(value))
        return b"".join(frames.pack(messages.CALL, codec=codec.PICKLE, body=body, buffers=buffers))

    def receive(self, data: bytes) -> Any:
        """Return the value of the bytes of a frame."""
        (frame,) = self.parser.feed(data)
        self.parser.last = None
        return codec.decode_frame(frame)


@pytest.fixture
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[End, End]]:
    """A lender and a borrower; the parameter says the most bytes that may be lent."""
    pair = socket.socketpair()
    terms = (LEAST, getattr(request, "param", 1 << 30), False)
    one, two = (End(sock, terms) for sock in pair)
    yield one, two
    for end in (one, two):
        end.loans.close()
        end.channel.close()


def value(size: int, fill: int = 1) -> memoryview:
    """Return memory that travels out of band."""
    return memoryview(bytearray(bytes([fill]) * size))


def test_a_frame_with_segments_is_small(ends: tuple[End, End]) -> None:
    """It has the place of what is large, not its bytes; of bytes in the body too."""
    one, two = ends
    data = one.send([value(1_000_000, 5), b"x" * 2_000_000])
    assert len(data) < 500
    view, text = two.receive(data)
    assert bytes(view) == bytes([5]) * 1_000_000
    assert text == b"x" * 2_000_000


def test_a_segment_is_given_back_when_nothing_refers_to_it(ends: tuple[End, End]) -> None:
    """A slice of a view is enough to keep it; then the same serves again."""
    one, two = ends
    part = two.receive(one.send(value(1_000_000, 5)))[10:20]
    two.loans.borrower.give_back()
    one.listen()
    (segment,) = one.loans.lender._segments
    assert segment.tag == 1
    assert bytes(part) == bytes([5]) * 10
    del part
    two.loans.borrower.give_back()
    one.listen()
    assert segment.tag is None
    assert bytes(two.receive(one.send(value(900_000, 6), 2))) == bytes([6]) * 900_000
    assert one.loans.lender._segments == [segment]


def test_a_frame_that_is_never_read_to_its_end_gives_back_too(ends: tuple[End, End]) -> None:
    """Its views go with it."""
    one, two = ends
    data = one.send([value(100_000), value(40_000), value(100)])
    assert two.parser.feed(data[:-10]) == []
    two.parser.feed(data[-10:])
    two.parser.last = None
    two.loans.borrower.give_back()
    one.listen()
    assert [segment.tag for segment in one.loans.lender._segments] == [None]


def test_what_was_not_sent_is_taken_back(ends: tuple[End, End]) -> None:
    """By the tag of its frame; what went with others stays lent."""
    one, _ = ends
    one.send(value(100_000), 1)
    one.send(value(100_000), 2)
    one.loans.lender.take_back(2)
    assert [segment.tag for segment in one.loans.lender._segments] == [1, None]


@pytest.mark.parametrize("ends", [3_000_000], indirect=True)
def test_more_than_the_limit_is_given_away_or_goes_inline(ends: tuple[End, End]) -> None:
    """Large values are given away, less large ones go inline; idle segments make room."""
    one, two = ends
    held = [two.receive(one.send(value(1_000_000, 1), 1)), two.receive(one.send(value(1_500_000, 2), 2))]
    inline = one.send(value(1_000_000, 3), 3)
    assert len(inline) > 1_000_000
    given = two.receive(one.send(value(20_000_000, 4), 4))
    assert given[-1] == 4
    assert len(one.loans.lender._segments) == 2
    assert len(two.loans.borrower._known) == 2
    held.clear()
    two.loans.borrower.give_back()
    one.listen()
    assert two.receive(one.send(value(2_500_000, 5), 5))[-1] == 5
    two.listen()
    assert len(one.loans.lender._segments) == 1
    assert len(two.loans.borrower._known) == 1


def test_many_small_ones_that_are_held_use_few_descriptors(ends: tuple[End, End]) -> None:
    """The rest goes inline."""
    one, two = ends
    held = [two.receive(one.send(value(50_000, index), index)) for index in range(50)]
    assert [view[0] for view in held] == list(range(50))
    assert len(one.loans.lender._segments) <= 8


def test_a_borrower_that_does_not_hear_gets_all_inline(ends: tuple[End, End]) -> None:
    """A descriptor that cannot be passed is no reason to fail."""
    one, two = ends
    one.is_deaf = True
    assert bytes(two.receive(one.send(value(100_000, 7)))) == bytes([7]) * 100_000


def test_giving_back_is_said_again_when_it_was_not_heard(ends: tuple[End, End]) -> None:
    """A segment is not lost."""
    one, two = ends
    two.receive(one.send(value(100_000)))
    two.is_deaf = True
    two.loans.borrower.give_back()
    two.is_deaf = False
    two.loans.borrower.give_back()
    one.listen()
    assert [segment.tag for segment in one.loans.lender._segments] == [None]


def test_a_segment_that_was_never_announced_is_an_error(ends: tuple[End, End]) -> None:
    """The frame is none of ours; nobody waits for ever."""
    _, two = ends
    stretch = frames.Stretch(frames.BUFFER_SEGMENT, 99, 0, 10)
    with pytest.raises(frames.FrameError, match="never announced"):
        two.parser.feed(b"".join(frames.pack(messages.CALL, buffers=[stretch])))


def test_a_stretch_beyond_its_segment_is_an_error(ends: tuple[End, End]) -> None:
    """So is one of a kind that nobody knows."""
    one, two = ends
    one.send(value(100_000))
    for kind, offset in ((frames.BUFFER_SEGMENT, 10**6), (7, 0)):
        stretch = frames.Stretch(kind, 1, offset, 10)
        with pytest.raises(frames.FrameError):
            two.parser.feed(b"".join(frames.pack(messages.CALL, buffers=[stretch])))
        two.parser = frames.FrameParser()
        two.parser.borrower = two.loans.borrower


def test_without_segments_their_rows_are_errors() -> None:
    """A side that has not said it can."""
    with pytest.raises(frames.FrameError):
        frames.FrameParser().feed(
            b"".join(frames.pack(messages.CALL, buffers=[frames.Stretch(frames.BUFFER_SEGMENT, 1, 0, 10)]))
        )


def test_memory_that_could_be_made_smaller_is_not_mapped(ends: tuple[End, End]) -> None:
    """Reading what is not there any more would kill the reader."""
    one, two = ends
    fd = os.memfd_create("loose")
    os.ftruncate(fd, 10_000)
    with pytest.raises(ValueError, match="not sealed"):
        Mapping(os.dup(fd))
    one.announce(frames.pack(messages.SEGMENT, call_id=1), fd)
    os.close(fd)
    stretch = frames.Stretch(frames.BUFFER_SEGMENT, 1, 0, 10)
    (frame,) = two.parser.feed(b"".join(frames.pack(messages.CALL, codec=codec.PICKLE, buffers=[stretch])))
    with pytest.raises(codec.CodecError, match="could not be mapped"):
        codec.decode_frame(frame)


def test_sealed_memory_keeps_its_size() -> None:
    """On both sides."""
    fd = make_file(10_000)
    for size in (0, 20_000):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    os.close(fd)


def test_descriptors_come_in_the_order_of_their_frames() -> None:
    """However many frames lie between and before them, and however they are cut."""
    ours, theirs = (DescriptorChannel(sock) for sock in socket.socketpair())
    files = [make_file(1000 * (index + 1)) for index in range(5)]
    for index, fd in enumerate(files):
        theirs.send(frames.pack(messages.PING, call_id=100 + index))
        assert theirs.try_send_with(frames.pack(messages.SEGMENT, call_id=index), fd)
        theirs.send(frames.pack(messages.PING, call_id=200 + index) * 3)
        os.close(fd)
    seen = []
    frame = ours.receive(time.monotonic() + 5)
    while frame is not None:
        if frame.opcode == messages.SEGMENT:
            fd = ours.take_descriptor()
            assert fd is not None
            assert not os.get_inheritable(fd)
            seen.append((frame.call_id, os.fstat(fd).st_size))
            os.close(fd)
        frame = ours.try_receive()
    assert seen == [(index, 1000 * (index + 1)) for index in range(5)]
    ours.close()
    theirs.close()
