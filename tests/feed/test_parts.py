"""Blocks, lanes, the pace and the splitting of lines: decisions without processes."""

from __future__ import annotations

from itertools import count, pairwise
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from venvoy.collector import Collector
from venvoy.feed.blocks import Block, Lane, Stage, cost_of
from venvoy.feed.delivery import cut_lines
from venvoy.feed.encoding import key_index
from venvoy.feed.outputs import Kept, Mailbox, Reader, Splitter
from venvoy.feed.pace import GOAL, LARGEST, PAGE, Pace

ITEMS = st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=5)), min_size=1, max_size=60)


@given(ITEMS, st.lists(st.integers(1, 50), min_size=1, max_size=10), st.booleans())
def test_a_lane_gives_its_items_in_order_whatever_the_limits(
    rows: list[tuple[bytes, bytes]], limits: list[int], is_staged: bool
) -> None:
    """Never more bytes than asked for, but one item at least; costs add up to nothing."""
    lane, stage = Lane(), Stage()
    for index, row in enumerate(rows):
        if is_staged:
            stage.items.append(index)
            stage.rows.append(row)
        elif index % 7:
            lane.put_one(index, row)
        else:
            pieces = [[piece] for piece in row]
            lane.put(Block([index], pieces, cost_of(pieces)))
    stage.hand_over(lane)
    items, joined = [], [b"", b""]
    for turn in count():
        limit = limits[turn % len(limits)]
        block = lane.take([limit, None])
        if block is None:
            break
        data = block.joined()
        assert len(block.items) == 1 or len(data[0]) <= limit
        items += block.items
        joined = [whole + part for whole, part in zip(joined, data, strict=True)]
    assert items == list(range(len(rows)))
    assert joined == [b"".join(row[channel] for row in rows) for channel in range(2)]
    assert lane.cost == 0
    assert not lane


def test_what_was_given_back_comes_first() -> None:
    """Before what waited already."""
    lane = Lane()
    lane.put_one("second", [b"2"])
    lane.put_back(Block(["first"], [[b"1"]], 65))
    assert [block.rest() for block in lane.take_all()] == [["first"], ["second"]]


def test_the_window_grows_for_the_quick_and_shrinks_for_the_slow() -> None:
    """Doubled while a windowful lasts less than half the goal, cut in proportion beyond twice the goal."""
    pace = Pace()
    now, read = 0.0, 0
    for _ in range(40):
        pace.on_room(now, read)
        now += GOAL / 10
        read += pace.window
    assert pace.window == LARGEST == pace.pipe_size
    pace.on_room(now, read)
    assert pace.on_room(now + 100 * GOAL, read + LARGEST)
    assert pace.window == LARGEST // 100
    pace.window = 1
    assert pace.pipe_size == PAGE
    pace.restart()
    assert not pace.on_room(now + 1000, read + 10 * LARGEST)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=8))
def test_lines_are_whole_wherever_the_stream_was_cut(data: bytes, cuts: list[int]) -> None:
    """What goes in comes out; each part ends with a line end but the last."""
    splitter = Splitter()
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [splitter.whole_lines(data[a:b]) for a, b in pairwise(places) if a < b]
    assert all(part.endswith(b"\n") for part in parts if part)
    whole = b"".join([*parts, splitter.rest()])
    assert whole == data
    if data:
        assert cut_lines(data, None) == data.removesuffix(b"\n").split(b"\n")


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=100), st.integers(0, 100))
def test_the_last_bytes_are_kept(chunks: list[bytes], limit: int) -> None:
    """As many as asked for, and the number of those before them."""
    kept = Kept(limit)
    for chunk in chunks:
        kept.add(chunk)
    data = b"".join(chunks)
    assert kept.value() == (data[len(data) - min(limit, len(data)) :], max(0, len(data) - limit))


@given(st.one_of(st.text(), st.binary(), st.integers(), st.tuples(st.integers(), st.text())), st.integers(1, 9))
def test_a_key_has_one_index(key: object, size: int) -> None:
    """The same for the same key, below the number of processes."""
    assert 0 <= key_index(key, size) == key_index(key, size) < size
    assert key_index("a", 1000) == key_index(b"a", 1000) == 0xE8B7BE43 % 1000
    assert key_index(1, 5) == key_index(1.0, 5) == key_index(True, 5)


def test_a_mailbox_that_was_left_takes_nothing_more() -> None:
    """Whoever began to read and left will not come back."""

    class Loop:
        def call_soon(self, callback: object) -> None:
            pass

    box = Mailbox(cast(Collector, Loop()))
    reader = cast(Reader, object())
    box.put(reader, b"x")
    assert next(iter(box)) == (reader, b"x")
    box.drop_unread()
    box.put(reader, b"y")
    box.close()
    assert list(box) == []
