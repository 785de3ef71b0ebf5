"""Channels: frames cross a socket whole, in both directions, with deadlines, ends and slow readers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from venvoy_worker.contract import channel, frames
from venvoy_worker.contract.channel import Channel, rest_of
from venvoy_worker.contract.frames import FrameError, pack

LARGE = 5_000_000
Pair = tuple[Channel, Channel]
Pieces = list[bytes | bytearray | memoryview]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two connected channels."""
    one, other = map(Channel, socket.socketpair())
    yield one, other
    one.close()
    other.close()


class Background:
    """A function on a thread; `join` returns what it returned."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._result: list[object] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result.append(self._function())
        except Exception as error:
            self._result.append(error)

    def join(self) -> object:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self._result[0]


def soon() -> float:
    return time.monotonic() + 30


def numbered(number: int, size: int = 0) -> Pieces:
    return pack(3, number=number, body=[bytes([number % 251]) * size])


def joined(pieces: Pieces) -> bytes:
    return b"".join(pieces)


@pytest.mark.parametrize("has_deadline", [False, True])
@pytest.mark.parametrize("size", [0, 100, LARGE])
def test_frames_cross_in_both_directions(pair: Pair, size: int, has_deadline: bool) -> None:
    """What one end sends the other receives, small or larger than any socket buffer, timed or not."""
    deadline = soon() if has_deadline else None
    for sender, receiver in (pair, pair[::-1], pair):
        buffer = bytes(range(256)) * (size // 256)
        pieces = pack(3, 1, 2, 3, 4, 5, b"target", [bytes(size), b"tail"], [buffer])
        sending = Background(lambda pieces=pieces, sender=sender: sender.send(pieces, deadline))
        frame = receiver.receive(deadline)
        assert sending.join() is None
        assert frame is not None
        assert (frame.number, frame.target, bytes(frame.body)) == (5, b"target", bytes(size) + b"tail")
        assert list(map(bytes, frame.buffers)) == [buffer]
        assert not sender.is_torn


def test_large_frames_cross_at_the_same_time(pair: Pair) -> None:
    """Both ends may write at once as long as both are read too."""
    one, other = pair
    threads = [Background(lambda end=end: end.send(numbered(7, LARGE))) for end in pair]
    readers = [Background(lambda end=end: end.receive()) for end in pair]
    assert [thread.join() for thread in threads] == [None, None]
    assert [len(reader.join().body) for reader in readers] == [LARGE, LARGE]  # type: ignore[attr-defined]
    assert one.buffered() is other.buffered() is None


@pytest.mark.parametrize("has_deadline", [False, True])
@pytest.mark.parametrize("count", [channel._IOV_MAX - 1, channel._IOV_MAX, 5000])
def test_more_pieces_than_one_write_takes(pair: Pair, count: int, has_deadline: bool) -> None:
    """Thousands of buffers are sent in as many writes as the system wants."""
    one, other = pair
    buffers = [b"%d" % number for number in range(count)]
    sending = Background(lambda: one.send(pack(3, body=[b"x"], buffers=buffers), soon() if has_deadline else None))
    frame = other.receive(soon())
    assert sending.join() is None
    assert frame is not None
    assert frame.buffers == buffers


@pytest.mark.parametrize("has_deadline", [False, True])
def test_a_slow_reader_gets_everything(pair: Pair, has_deadline: bool) -> None:
    """Partial writes continue where they stopped, in the middle of any piece."""
    one, other = pair
    one.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    buffers = [bytes([index]) * 997 for index in range(200)]
    pieces = pack(3, body=[bytes(70_001)], buffers=buffers)
    expected = joined(pieces)
    sending = Background(lambda: one.send(pieces, soon() if has_deadline else None))
    got = bytearray()
    while len(got) < len(expected):
        got += other.sock.recv(1003)
    assert sending.join() is None
    assert got == expected
    assert not one.is_torn


def test_a_channel_never_changes_its_socket(pair: Pair) -> None:
    """The socket still blocks, without a time-out, after operations that did not."""
    one, other = pair
    one.try_receive()
    with pytest.raises(TimeoutError):
        one.receive(time.monotonic())
    other.send(numbered(1), soon())
    other.try_send(numbered(2))
    assert one.receive(soon()) is not None
    for end in pair:
        assert (end.sock.gettimeout(), end.sock.getblocking()) == (None, True)


# --- deadlines ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 1, 40, -1])
@pytest.mark.parametrize("size", [10, LARGE // 100, 3 * frames.SMALL])
def test_a_deadline_keeps_what_came(pair: Pair, size: int, cut: int) -> None:
    """A frame half received when the deadline passes is whole once the rest has come."""
    one, other = pair
    data = joined(numbered(9, size))
    other.sock.sendall(data[:cut])
    with pytest.raises(TimeoutError):
        one.receive(time.monotonic() + 0.02)
    other.sock.sendall(data[cut:])
    frame = one.receive(soon())
    assert frame is not None
    assert frame.body == bytes([9]) * size


def test_what_is_here_is_received_after_the_deadline(pair: Pair) -> None:
    """A deadline limits the waiting, so a frame that is here already is not lost to it."""
    one, other = pair
    other.send(numbered(1) + numbered(2))
    assert [one.receive(time.monotonic() - 1).number for _ in range(2)] == [1, 2]  # type: ignore[union-attr]


def test_a_deadline_while_sending_tears_the_channel(pair: Pair) -> None:
    """A frame written in part cannot be taken back: the channel says that it is of no more use."""
    one, _ = pair
    with pytest.raises(TimeoutError):
        one.send(numbered(1, LARGE), time.monotonic() + 0.05)
    assert one.is_torn


@pytest.mark.parametrize("seconds", [1e6, 1e8, 1e12, float("inf")])
def test_a_far_deadline_is_just_far(pair: Pair, seconds: float) -> None:
    """Deadlines beyond what the system can wait for in one go wait all the same."""
    one, other = pair
    reading = Background(lambda: one.receive(time.monotonic() + seconds))
    other.send(numbered(3, LARGE), time.monotonic() + seconds)
    assert reading.join().number == 3  # type: ignore[attr-defined]


# --- not waiting --------------------------------------------------------------------------------------------------


def test_trying_to_receive_does_not_wait(pair: Pair) -> None:
    """None until a frame is whole; each call takes what is there."""
    one, other = pair
    assert one.try_receive() is None
    data = joined(numbered(4, 100_000))
    for part in (data[:20], data[20:50], data[50:-1]):
        other.sock.sendall(part)
        assert one.try_receive() is None
    other.sock.sendall(data[-1:])
    frame = one.try_receive()
    assert frame is not None
    assert len(frame.body) == 100_000
    assert one.try_receive() is None


def test_buffered_frames_need_no_socket(pair: Pair) -> None:
    """Frames that came along with another are there without a further read."""
    one, other = pair
    other.send(numbered(1) + numbered(2) + numbered(3))
    assert one.buffered() is None
    assert one.receive(soon()).number == 1  # type: ignore[union-attr]
    other.send(numbered(4))
    assert [one.buffered().number for _ in range(2)] == [2, 3]  # type: ignore[union-attr]
    assert one.buffered() is None
    assert one.receive(soon()).number == 4  # type: ignore[union-attr]


def test_trying_to_send_writes_what_fits(pair: Pair) -> None:
    """Nothing when the buffer is full; with `rest_of` a frame crosses piece by piece."""
    one, other = pair
    pieces = pack(3, body=[bytes(LARGE)], buffers=[b"abc", b"def"])
    rest = rest_of(pieces, one.try_send(pieces))
    while sent := one.try_send(rest):
        rest = rest_of(rest, sent)
    assert rest
    reading = Background(lambda: other.receive(soon()))
    while rest:
        channel.wait(one.fileno(), soon(), for_writing=True)
        rest = rest_of(rest, one.try_send(rest))
    assert reading.join().buffers == [b"abc", b"def"]  # type: ignore[attr-defined]


@given(st.lists(st.binary(max_size=5)), st.data())
def test_the_rest_of_pieces_is_what_was_not_written(pieces: list[bytes], data: st.DataObject) -> None:
    """After any number of bytes, exactly the others remain, and no empty piece leads them."""
    whole = b"".join(pieces)
    sent = data.draw(st.integers(0, len(whole)))
    rest = rest_of(list(pieces), sent)
    assert b"".join(rest) == whole[sent:]
    assert not rest or len(rest[0])


# --- ends ---------------------------------------------------------------------------------------------------------


def receive(end: Channel) -> object:
    return end.receive(soon())


def try_receive(end: Channel) -> object:
    """Give the end of the stream in the words of `receive`."""
    try:
        return end.try_receive()
    except EOFError:
        return None


@pytest.mark.parametrize("read", [receive, try_receive, Channel.receive])
@pytest.mark.parametrize("frames_before", [0, 2])
def test_the_end_between_frames_is_an_end(pair: Pair, read: Callable[[Channel], object], frames_before: int) -> None:
    """End-of-file between frames comes after the frames, and comes again when asked again."""
    one, other = pair
    for number in range(frames_before):
        other.send(numbered(number))
    other.close()
    assert [read(one).number for _ in range(frames_before)] == list(range(frames_before))  # type: ignore[attr-defined]
    assert read(one) is None
    assert read(one) is None


def test_trying_to_receive_tells_the_end_from_nothing(pair: Pair) -> None:
    """Nothing yet is None, the end is an EOFError."""
    one, other = pair
    assert one.try_receive() is None
    other.close()
    with pytest.raises(EOFError):
        one.try_receive()


@pytest.mark.parametrize("read", [receive, try_receive, Channel.receive])
@pytest.mark.parametrize("cut", [1, frames.HEADER_SIZE, 70_000])
def test_the_end_inside_a_frame_is_an_error(pair: Pair, read: Callable[[Channel], object], cut: int) -> None:
    """A stream that stops in a header, or in a small or large body, is damaged, not ended."""
    one, other = pair
    data = joined(numbered(1, 100_000))
    other.send(numbered(8))
    other.sock.sendall(data[:cut])
    other.close()
    assert read(one).number == 8  # type: ignore[attr-defined]
    with pytest.raises(FrameError, match="inside a frame"):
        read(one)


@pytest.mark.parametrize("read", [receive, try_receive])
def test_a_reset_is_an_end(pair: Pair, read: Callable[[Channel], object]) -> None:
    """An end that went away without reading what it was sent is gone like any other."""
    one, other = pair
    one.send(numbered(1))
    other.close()
    assert read(one) is None


@pytest.mark.parametrize("has_deadline", [False, True])
@pytest.mark.parametrize("size", [0, LARGE])
def test_sending_to_nobody_is_an_os_error(pair: Pair, size: int, has_deadline: bool) -> None:
    """The other end gone: an OSError that is no time-out, and the channel is done for."""
    one, other = pair
    other.close()
    with pytest.raises(OSError) as caught:
        one.send(numbered(1, size), soon() if has_deadline else None)
    assert not isinstance(caught.value, TimeoutError)
    assert one.is_torn


def test_shutting_wakes_a_reader_and_a_writer(pair: Pair) -> None:
    """Whoever sleeps in a read or write of the channel is woken by `shut`, on both ends."""
    one, other = pair
    readers = [Background(one.receive), Background(lambda: other.send(numbered(1, LARGE)))]
    other.shut()
    assert isinstance(readers[1].join(), OSError)
    result = readers[0].join()
    assert result is None or isinstance(result, FrameError)
    one.shut()
    one.shut()


def test_shutting_the_writing_half_lets_answers_come(pair: Pair) -> None:
    """The other end reads what was sent, meets the end, and may still answer."""
    one, other = pair
    one.send(numbered(1))
    one.shut_writing()
    assert other.receive().number == 1  # type: ignore[union-attr]
    assert other.receive() is None
    other.send(numbered(2))
    assert one.receive().number == 2  # type: ignore[union-attr]


def test_closing_twice_is_harmless(pair: Pair) -> None:
    """A closed channel has no descriptor any more and can be closed and shut again."""
    one, _ = pair
    assert one.fileno() >= 0
    for _ in range(2):
        one.close()
        one.shut()
        one.shut_writing()
    assert one.fileno() == -1


def test_bytes_that_are_no_frames_are_an_error(pair: Pair) -> None:
    """A foreign writer is a FrameError for whoever reads, waiting or not."""
    one, other = pair
    other.sock.sendall(b"Hello, is this the right number? I would like a frame.")
    with pytest.raises(FrameError):
        one.receive(soon())
    with pytest.raises(FrameError):
        one.try_receive()


def test_gathering_sleeps_until_enough_has_come(pair: Pair) -> None:
    """Several small frames are one wake-up; with too few of them, the time ends it and nothing is lost."""
    near, far = pair
    frame = pack(4, call_id=1)[0]
    assert near.gather(4 * len(frame), 0.01) is None
    sender = threading.Timer(0.05, lambda: [far.send([frame]) for _ in range(4)])
    sender.start()
    assert near.gather(4 * len(frame), 10.0) is not None
    rest = [near.buffered() for _ in range(4)]
    sender.join()
    assert [one is None for one in rest] == [False, False, False, True]
    far.send([frame])
    assert near.receive() is not None  # as before: the first byte wakes
    far.close()
    with pytest.raises(EOFError):
        near.gather(1000, 10.0)
