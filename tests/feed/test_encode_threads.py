"""Encoders on threads of their own: what they raise is told, and their queue is bounded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from venvoy.feed import FeedStalled, Swarm, SwarmClosed

LARGE = bytes(3 << 20)


def picky(item: int) -> bytes:
    """An encoder that refuses 13."""
    if item == 13:
        raise ValueError("an item of bad luck")
    return b"%d\n" % item


def feed_without_end(swarm: Swarm) -> None:
    """Feed until there is no room."""
    while True:
        swarm.feed(LARGE, timeout=0.1)


def test_what_an_encoder_raises_is_told_to_whoever_feeds_next(until: Callable[..., None]) -> None:
    """Once; the swarm goes on, and everything else arrives."""
    with Swarm(["cat"], inputs={"stdin": picky}, stdout="collect", encode_threads=1) as swarm:
        swarm.feed(13)

        def is_told() -> bool:
            try:
                swarm.feed(1)
            except ValueError as error:
                return "bad luck" in str(error)
            return False

        until(is_told)
        swarm.feed(2)
    assert swarm.report.processes[0].stdout.split()[-1] == b"2"


def test_what_an_encoder_raises_is_told_by_closing() -> None:
    """Where nobody feeds any more; the processes are ended."""
    with (
        pytest.raises(ValueError, match="bad luck"),
        Swarm(["cat"], inputs={"stdin": picky}, stdout="discard", encode_threads=2) as swarm,
    ):
        swarm.feed_many([1, 2, 13])
    assert [process.status for process in swarm.report.processes] == [None]


def test_the_queue_is_bounded() -> None:
    """Beyond some megabytes feeding waits, and stalls; what was not fed is kept by whoever fed it."""
    with Swarm(["sleep", "60"], grace_period=0.2, check=False, encode_threads=1, max_bytes=1000) as swarm:
        with pytest.raises(FeedStalled, match=r"no room within 0\.1 s"):
            feed_without_end(swarm)
        with pytest.raises(FeedStalled):
            swarm.feed_many(iter([LARGE]), timeout=0.1)
        swarm.abort()
        with pytest.raises(SwarmClosed):
            swarm.feed(LARGE)


def test_what_was_queued_is_undelivered_after_an_abort() -> None:
    """Encoded or not."""
    go_on, began = threading.Event(), threading.Event()

    def slow(item: Any) -> bytes:
        began.set()
        go_on.wait(20)
        return bytes(item)

    swarm = Swarm(["cat"], inputs={"stdin": slow}, stdout="discard", encode_threads=1, grace_period=0.2)
    swarm.start()
    swarm.feed(b"first")
    assert began.wait(20)
    swarm.feed(b"second")
    threading.Timer(0.1, go_on.set).start()
    swarm.abort()
    assert b"second" in swarm.undelivered
