"""What the frames mean: opcodes with one direction each, flags that do not collide, greetings and lists of ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from venvoy_worker.contract import messages

OPCODES = {
    name: value
    for name, value in vars(messages).items()
    if name.isupper() and type(value) is int and not name.startswith(("FLAG_", "KIND_"))
}


@pytest.mark.parametrize("name", OPCODES)
def test_each_opcode_has_its_sender(name: str) -> None:
    """An opcode is sent by the host or by the worker, only what is said of segments by both, and is one byte."""
    opcode = OPCODES[name]
    is_of_both = name.startswith("SEGMENT")
    assert ((opcode in messages.FROM_HOST) and (opcode in messages.FROM_WORKER)) == is_of_both
    assert opcode in messages.FROM_HOST | messages.FROM_WORKER
    assert 0 < opcode < 256


def test_the_tables_hold_the_opcodes_and_nothing_else() -> None:
    """Every number in the tables has a name, each name a number of its own."""
    assert set(OPCODES.values()) == messages.FROM_HOST | messages.FROM_WORKER
    assert len(set(OPCODES.values())) == len(OPCODES)
    assert messages.TERMINAL <= messages.FROM_WORKER


def test_flags_and_kinds_do_not_collide() -> None:
    """Kinds lie in their mask; each flag of calls is one bit outside it, as are those of results among themselves."""
    kinds = {value for name, value in vars(messages).items() if name.startswith("KIND_") and name != "KIND_MASK"}
    flags = {name: value for name, value in vars(messages).items() if name.startswith("FLAG_")}
    of_results = {"FLAG_PARTIAL", "FLAG_DIRTY", "FLAG_REFERENCE"}
    of_others = {"FLAG_FAILED", "FLAG_PASSED", "FLAG_RAISED", "FLAG_SHARED", "FLAG_STDERR"}
    of_calls = flags.keys() - of_results - of_others
    assert all(not kind & ~messages.KIND_MASK for kind in kinds)
    assert len(kinds) == 5
    assert all(flag.bit_count() == 1 and flag < 256 for flag in flags.values())
    assert not any(flags[name] & messages.KIND_MASK for name in of_calls)
    for group in (of_calls, of_results):
        assert len({flags[name] for name in group}) == len(group)


names = st.lists(st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1), unique=True, max_size=4).map(tuple)


@given(st.integers(0, 999), st.integers(0, 999), names)
def test_greetings_survive(oldest: int, newest: int, capabilities: tuple[str, ...]) -> None:
    """Versions and capabilities come back, also when there are none of these."""
    assert messages.read_greeting(messages.greeting(oldest, newest, capabilities)) == (oldest, newest, capabilities)


@pytest.mark.parametrize(
    "target", [b"", b"1", b"1 1", b"a b c", b"1 x ", b"1 1 a b", b"\xff \xff ", b"HTTP/1.1 200 OK"]
)
def test_no_greeting_is_a_value_error(target: bytes) -> None:
    """Whoever says something else has not understood; that is one kind of error."""
    with pytest.raises(ValueError):
        messages.read_greeting(target)


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_ids_survive(ids: list[int]) -> None:
    """Call ids come back in their order, eight bytes each."""
    body = messages.pack_ids(ids)
    assert len(body) == 8 * len(ids)
    assert messages.read_ids(body) == messages.read_ids(bytearray(body)) == ids
