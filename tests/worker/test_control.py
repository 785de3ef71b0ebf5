"""The control socket by hand: what is asked of one call never reaches another, in whatever order things come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from venvoy_worker.contract import codec, messages


@pytest.fixture
def worker(extreme: str, wire: Callable[[str], Any]) -> Any:
    """A worker that is ready, and is spoken to by hand."""
    started = wire(extreme)
    started.start()
    return started


def value_of(frame: Any) -> Any:
    assert frame.opcode == messages.RESULT
    return codec.decode(frame.body, frame.buffers)


@pytest.mark.parametrize("number", [0, 1, 3, 2**63])
def test_a_request_to_stop_another_call_does_nothing_to_the_one_that_runs(worker: Any, number: int) -> None:
    """CANCEL with the id of a call that is over, or not there, is without effect, however late it comes."""
    worker.send_call(1, "math:sqrt", 4)
    assert value_of(worker.receive()) == 2.0
    worker.send_call(2, "time:sleep", 0.3)
    for _ in range(20):
        worker.say(messages.CANCEL, number)
    assert value_of(worker.receive()) is None


def test_requests_to_stop_an_idle_worker_do_nothing(worker: Any) -> None:
    """CANCEL between calls neither ends the worker nor stops the next call."""
    for number in range(1, 50):
        worker.send_call(number, "math:sqrt", 4)
        assert value_of(worker.receive()) == 2.0
        worker.say(messages.CANCEL, number)
        worker.say(messages.CANCEL, 0)


def test_the_call_that_is_meant_is_stopped_and_says_so(worker: Any) -> None:
    """CANCEL with the id of the running call ends it with an ERROR that is flagged as clean."""
    worker.send_call(1, "time:sleep", 60)
    while True:
        worker.say(messages.CANCEL, 1)
        frame = worker.call.try_receive()
        if frame is not None:
            break
    report: Any = codec.decode(frame.body, frame.buffers)
    assert (frame.opcode, frame.call_id, frame.flags) == (messages.ERROR, 1, 0)
    assert report["code"] == "call_cancelled"
    worker.send_call(2, "math:sqrt", 9)
    assert value_of(worker.receive()) == 3.0


def test_a_call_that_is_stopped_before_it_comes_never_runs(worker: Any) -> None:
    """CANCEL that overtakes its CALL stops it at its first step."""
    worker.say(messages.CANCEL, 1)
    worker.send_call(1, "time:sleep", 60)
    frame = worker.receive()
    assert (frame.opcode, frame.flags) == (messages.ERROR, 0)


def test_calls_that_have_not_started_are_taken_back_and_no_others(worker: Any) -> None:
    """RETRACT names what it took back; that never runs, the rest does."""
    worker.send_call(1, "time:sleep", 0.4)
    for number in (2, 3, 4):
        worker.send_call(number, "math:sqrt", number)
    worker.say(messages.RETRACT, body=messages.pack_ids([1, 2, 4]))
    frames = [worker.receive(), worker.receive()]
    if all(frame.call_id != 3 for frame in frames):
        frames.append(worker.receive())
    [taken] = [messages.read_ids(frame.body) for frame in frames if frame.opcode == messages.RETRACTED]
    answered = [frame.call_id for frame in frames if frame.opcode == messages.RESULT]
    if 1 in taken:  # it had not begun yet
        assert (taken, answered) == ([1, 2, 4], [3])
    else:
        assert (taken, answered) == ([2, 4], [1, 3])


def test_pings_are_answered_while_a_call_runs(worker: Any) -> None:
    """The control thread is awake while the main thread is busy in Python code."""
    worker.send_call(1, "builtins:eval", "[i for i in range(3_000_000)] and 7")
    for _ in range(20):
        worker.say(messages.CANCEL, 99)  # and a PING, whose answer it waits for
    assert value_of(worker.receive()) == 7
