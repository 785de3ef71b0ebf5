"""Channels: frames cross a socket or pipes whole, in both directions, with deadlines, ends and slow readers."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from venvoy_worker.contract import channel, frames
from venvoy_worker.contract.channel import Channel, PipeEnd, rest_of
from venvoy_worker.contract.frames import FrameError, pack

LARGE = 5_000_000
Pair = tuple[Channel, Channel]
Pieces = list[bytes | bytearray | memoryview]


@pytest.fixture(params=["socket", "pipes"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two connected channels: a host's and a worker's."""
    one, other = map(Channel, socket.socketpair()) if request.param == "socket" else over_pipes()
    yield one, other
    one.close()
    other.close()


def over_pipes() -> Pair:
    """Return channels over two pipes, as host and worker have them."""
    (answers, answer), (call, calls) = os.pipe(), os.pipe()
    os.set_blocking(calls, False)
    one = Channel(PipeEnd(answers), PipeEnd(calls, "w"), PipeEnd(call))
    return one, Channel(PipeEnd(os.dup(call)), PipeEnd(answer, "w"))


def is_pipes(end: Channel) -> bool:
    return isinstance(end.sock, PipeEnd)


def write(end: Channel, data: bytes) -> None:
    """Write what need not be a frame."""
    assert os.write(end.fileno_to_write(), data) == len(data)


class Background:
    """A function on a thread; `join` returns what it returned."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._result: list[object] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
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
    if not is_pipes(one):
        one.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    buffers = [bytes([index]) * 997 for index in range(200)]
    pieces = pack(3, body=[bytes(70_001)], buffers=buffers)
    expected = joined(pieces)
    sending = Background(lambda: one.send(pieces, soon() if has_deadline else None))
    got = bytearray()
    while len(got) < len(expected):
        got += os.read(other.fileno(), 1003)
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
    other.offer(numbered(2))
    assert one.receive(soon()) is not None
    for end in pair:
        assert os.get_blocking(end.fileno())
        assert is_pipes(end) or end.sock.gettimeout() is None


# --- deadlines ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 1, 40, -1])
@pytest.mark.parametrize("size", [10, LARGE // 100, 3 * frames.SMALL])
def test_a_deadline_keeps_what_came(pair: Pair, size: int, cut: int) -> None:
    """A frame half received when the deadline passes is whole once the rest has come."""
    one, other = pair
    data = joined(numbered(9, size))
    writing = Background(lambda: write(other, data[:cut]))
    with pytest.raises(TimeoutError):
        one.receive(time.monotonic() + 0.02)
    rest = Background(lambda: [writing.join(), write(other, data[cut:])])
    frame = one.receive(soon())
    rest.join()
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
    for part in (data[:20], data[20:50], data[50:60_000], data[60_000:-1]):
        write(other, part)
        assert one.try_receive() is None
    write(other, data[-1:])
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
    """Nothing when there is no room; a frame crosses piece by piece."""
    one, other = pair
    pieces = pack(3, body=[bytes(LARGE)], buffers=[b"abc", b"def"])
    before, rest = pieces, one.offer(pieces)
    while joined(rest) != joined(before):
        before, rest = rest, one.offer(rest)
    assert rest
    assert one.is_torn
    reading = Background(lambda: other.receive(soon()))
    while rest:
        channel.wait(one.fileno_to_write(), soon(), for_writing=True)
        rest = one.offer(rest)
    assert not one.is_torn
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
@pytest.mark.parametrize("cut", [1, frames.HEADER_SIZE, 60_000])
def test_the_end_inside_a_frame_is_an_error(pair: Pair, read: Callable[[Channel], object], cut: int) -> None:
    """A stream that stops in a header, or in a small or large body, is damaged, not ended."""
    one, other = pair
    data = joined(numbered(1, 100_000))
    other.send(numbered(8))
    write(other, data[:cut])
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
    if is_pipes(one):
        one._kept.close()  # type: ignore[union-attr]
    with pytest.raises(OSError) as caught:
        one.send(numbered(1, size), soon() if has_deadline else None)
    assert not isinstance(caught.value, TimeoutError)
    assert one.is_torn


def test_shutting_wakes_a_reader_and_a_writer() -> None:
    """Whoever sleeps in a read or write of a socket is woken by `shut`, on both ends."""
    one, other = map(Channel, socket.socketpair())
    readers = [Background(one.receive), Background(lambda: other.send(numbered(1, LARGE)))]
    other.shut()
    assert isinstance(readers[1].join(), OSError)
    result = readers[0].join()
    assert result is None or isinstance(result, FrameError)
    one.shut()
    one.shut()
    one.close()
    other.close()


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
    assert one.fileno() == one.fileno_to_write() == one.sock.fileno() == -1


@pytest.mark.parametrize("has_deadline", [False, True])
def test_a_closed_channel_has_ended(pair: Pair, has_deadline: bool) -> None:
    """For those who do not know yet: a process that was forked while it read, say."""
    one, _ = pair
    one.close()
    for size in (1, LARGE):
        with pytest.raises(OSError):
            one.send(numbered(1, size), soon() if has_deadline else None)
    for read in (Channel.receive, try_receive):
        with suppress(OSError, EOFError):
            assert read(one) is None


def test_bytes_that_are_no_frames_are_an_error(pair: Pair) -> None:
    """A foreign writer is a FrameError for whoever reads, waiting or not."""
    one, other = pair
    write(other, b"Hello, is this the right number? I would like a frame.")
    with pytest.raises(FrameError):
        one.receive(soon())
    with pytest.raises(FrameError):
        one.try_receive()


# --- pipes ---------------------------------------------------------------------------------------------------------


class Struck(list[int | None]):
    """What was written, noted by a thread that is interrupted at once."""

    def __iadd__(self, counts: Iterable[int | None]) -> Self:  # type: ignore[misc, override]
        super().__iadd__(counts)
        raise KeyboardInterrupt


def ends(end: Channel, read: Callable[[Channel], object]) -> bool:
    """Return True if the stream has ended, in one way or the other."""
    try:
        return read(end) is None
    except FrameError:
        return True


@pytest.fixture
def pipes() -> Iterator[Pair]:
    """Two channels over pipes, and in whose processes a fork holds the worker's ends as well."""
    one, other = over_pipes()
    held = os.dup(other.fileno()), os.dup(other.fileno_to_write())
    yield one, other
    for fd in held:
        os.close(fd)
    one.close()
    other.close()


def is_full(fd: int) -> bool:
    """Return True if a pipe has no room."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return not poll.poll(0)


def is_idle(fd: int, events: int) -> bool:
    """Return True once nothing is left to read, or there is no room to write."""
    poll = select.poll()
    poll.register(fd, events)
    deadline = soon()
    while poll.poll(0):
        assert time.monotonic() < deadline
    return True


@pytest.mark.parametrize("read", [receive, Channel.receive])
@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_reader_is_woken_although_a_fork_holds_the_end(
    pipes: Pair, read: Callable[[Channel], object], missing: int
) -> None:
    """What a dead worker wrote in part is no frame, however little is missing; what it wrote whole is one."""
    one, other = pipes
    data = joined(numbered(1, 50_000))
    write(other, data[: len(data) - missing])
    reading = Background(lambda: (read(one), read(one)) if not missing else read(one))
    assert is_idle(one.fileno(), select.POLLIN)
    other.close()
    one.shut()
    result = reading.join()
    assert isinstance(result, FrameError)
    for again in (Channel.receive, receive, try_receive, Channel.receive):
        assert ends(one, again)


@pytest.mark.parametrize("read", [Channel.receive, receive, try_receive])
@pytest.mark.parametrize("is_fork_gone", [False, True])
def test_no_frame_is_completed_by_the_byte_that_wakes(read: Callable[[Channel], object], is_fork_gone: bool) -> None:
    """Nor where all is read at once, or the fork has closed its end meanwhile; and nobody finds it later."""
    one, other = over_pipes()
    held = os.dup(other.fileno_to_write())
    write(other, joined(numbered(1, 100))[:-1])
    other.close()
    one.shut()
    if is_fork_gone:
        os.close(held)
    with pytest.raises(FrameError):
        read(one)
    assert one.parser.last is None
    assert ends(one, read)
    one.close()
    if not is_fork_gone:
        os.close(held)


def test_a_full_pipe_is_read_to_its_end_after_shutting(pipes: Pair) -> None:
    """There is no room for a byte of ours, and nobody is left to wait for."""
    one, other = pipes
    frame = joined(numbered(1, 4096 - frames.HEADER_SIZE))
    count = 0
    while not is_full(other.fileno_to_write()):
        write(other, frame)
        count += 1
    other.close()
    one.shut()
    reading = Background(lambda: [one.receive() for _ in range(count)] and one.receive())
    assert isinstance(reading.join(), FrameError)


def test_what_was_written_whole_is_read_after_shutting(pipes: Pair) -> None:
    """The byte that wakes readers comes behind it, and belongs to no frame."""
    one, other = pipes
    other.send(numbered(1) + numbered(2, 3))
    other.close()
    one.shut()
    assert [one.receive().number, one.try_receive().number] == [1, 2]  # type: ignore[union-attr]
    with pytest.raises(FrameError):
        one.receive()


def test_a_writer_is_woken_although_a_fork_holds_the_end(pipes: Pair) -> None:
    """Whoever waits for room in the pipe of a dead worker gets an error, and the channel is done for."""
    one, other = pipes
    sending = Background(lambda: one.send(numbered(1, LARGE)))
    assert is_idle(one.fileno_to_write(), select.POLLOUT)
    other.close()
    one.shut()
    assert isinstance(sending.join(), BrokenPipeError)
    assert one.is_torn


def test_a_writer_is_woken_that_was_about_to_fill_the_pipe(pipes: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who found the channel open, and writes when it has been shut, does not wait for somebody to make room."""
    one, _ = pipes
    writev = os.writev

    def late(fd: int, pieces: Pieces) -> int:
        one.shut()
        return writev(fd, pieces)

    monkeypatch.setattr(channel.os, "writev", late)
    sending = Background(lambda: one.send(numbered(1, LARGE)))
    assert isinstance(sending.join(), BrokenPipeError)
    assert one.is_torn


def test_a_dead_worker_raises_no_signal_here() -> None:
    """A program that has SIGPIPE back is not killed by writing to a worker that has just died."""
    one, other = over_pipes()
    other.close()
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        one.send(numbered(1))
    finally:
        signal.signal(signal.SIGPIPE, before)
    assert one.receive() is None
    one.close()


@pytest.mark.parametrize("has_deadline", [False, True])
def test_a_writer_that_is_interrupted_has_written_whole_or_not(pair: Pair, has_deadline: bool) -> None:
    """An exception that comes as soon as all is written does not make a torn frame of it."""
    one, other = pair
    one.written = Struck()
    with pytest.raises(KeyboardInterrupt):
        one.send(numbered(1), soon() if has_deadline else None)
    assert one.is_whole
    assert not one.is_torn
    one.written = list(one.written)
    one.send(numbered(2))
    assert (one.sends, one.is_whole) == (2, False)
    assert [other.receive().number for _ in range(2)] == [1, 2]  # type: ignore[union-attr]


def test_a_writer_that_is_interrupted_in_the_middle_has_torn_the_channel(pair: Pair) -> None:
    """The bytes that were written are known, although the thread that wrote them never saw their number."""
    one, _ = pair
    one.written = Struck()
    with pytest.raises(KeyboardInterrupt):
        one.send(numbered(1, LARGE), soon())
    assert one.is_torn
    assert not one.is_whole
