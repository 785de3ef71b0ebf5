"""From items to bytes: an encoder for each channel, run over one item or over many in tight loops.

Laws: an item is encoded for all channels or for none; a batch that meets an error keeps the items before it; encoders
with a state see one item after the other, on all channels, and belong to one process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import EncodingError
from .blocks import Block, cost_of
from .channels import Channel, as_is

_BYTES = {bytes}

Finish = Callable[[], Any]


class Encoders:
    """The encoders of all channels, for one process or, where they have no state, for all.

    Args:
        channels: by name.
        process_id: for which they are; None where no encoder has a state.
    """

    __slots__ = ("_functions", "_names", "_settings", "finishes", "has_state", "one")

    def __init__(self, channels: Mapping[str, Channel], process_id: int | None) -> None:
        self.has_state = process_id is not None
        self._names = list(channels)
        self._functions: list[Callable[[Any], Any]] = []
        self._settings: list[tuple[str | None, bool]] = []
        self.finishes: list[Finish | None] = []
        for name, channel in channels.items():
            function, finish = _bound(name, channel, process_id)
            self._functions.append(function)
            self._settings.append((channel.encoding, channel.encoder is as_is))
            self.finishes.append(finish)
        self.one = self._make_one()  # encodes one item, raising what an encoder raises, with a note, or EncodingError

    def _make_one(self) -> Callable[[Any], Sequence[bytes]]:
        """Return the function that encodes one item; written out for one and two channels, since it is hot."""
        if len(self._functions) == 1:
            return self._one_for_one(self._functions[0])
        return self._one_for_two(*self._functions) if len(self._functions) == 2 else self._one_for_many

    def _one_for_one(self, function: Callable[[Any], Any]) -> Callable[[Any], Sequence[bytes]]:
        def one(item: Any) -> Sequence[bytes]:
            try:
                piece = function(item)
            except BaseException as error:
                raise self._noted(error, 0) from None
            return (piece if type(piece) is bytes else self._mend(piece, 0),)

        return one

    def _one_for_two(
        self, function: Callable[[Any], Any], other: Callable[[Any], Any]
    ) -> Callable[[Any], Sequence[bytes]]:
        def one(item: Any) -> Sequence[bytes]:
            number = 0
            try:
                first = function(item)
                number = 1
                second = other(item)
            except BaseException as error:
                raise self._noted(error, number) from None
            if type(first) is bytes and type(second) is bytes:
                return first, second
            return self._mended(first, 0), self._mended(second, 1)

        return one

    def _one_for_many(self, item: Any) -> Sequence[bytes]:
        pieces: list[bytes] = []
        for function in self._functions:
            try:
                piece = function(item)
            except BaseException as error:
                raise self._noted(error, len(pieces)) from None
            pieces.append(self._mended(piece, len(pieces)))
        return pieces

    def _mended(self, piece: Any, number: int) -> bytes:
        return piece if type(piece) is bytes else self._mend(piece, number)

    def many(self, items: list[Any]) -> tuple[Block, BaseException | None]:
        """Return the block of the items up to the first that cannot be encoded, and why that one cannot."""
        if self.has_state:
            return self._one_by_one(items)
        columns: list[list[bytes]] = []
        failure: BaseException | None = None
        for number, function in enumerate(self._functions):
            column: list[Any] = []
            try:
                column.extend(map(function, items))  # what came before an exception stays in the list
            except BaseException as error:
                failure = self._noted(error, number)
            if set(map(type, column)) != _BYTES:
                failure = self._mend_column(column, number) or failure
            columns.append(column)
            if len(column) < len(items):
                items = items[: len(column)]
        columns = [column[: len(items)] for column in columns] if failure is not None else columns
        return Block(items, columns, cost_of(columns)), failure

    def _one_by_one(self, items: list[Any]) -> tuple[Block, BaseException | None]:
        columns: list[list[bytes]] = [[] for _ in self._functions]
        for index, item in enumerate(items):
            try:
                pieces = self.one(item)
            except BaseException as error:
                return Block(items[:index], columns, cost_of(columns)), error
            for column, piece in zip(columns, pieces, strict=True):
                column.append(piece)
        return Block(items, columns, cost_of(columns)), None

    def _mend_column(self, column: list[Any], number: int) -> BaseException | None:
        for index, piece in enumerate(column):
            if type(piece) is not bytes:
                try:
                    column[index] = self._mend(piece, number)
                except (EncodingError, UnicodeError) as error:
                    del column[index:]
                    return error
        return None

    def _mend(self, piece: Any, number: int) -> bytes:
        """Return the bytes of what an encoder returned other than bytes."""
        if piece is None:
            return b""
        encoding, takes_both = self._settings[number]
        if isinstance(piece, str) and (encoding is not None or takes_both):
            try:
                return piece.encode(encoding or "utf-8")
            except UnicodeError as error:
                raise self._noted(error, number) from None
        if isinstance(piece, bytes) and encoding is None:
            return bytes(piece)
        wanted = "bytes or str" if takes_both else "bytes" if encoding is None else "str"
        hint = "; give the channel an encoding= to return str" if isinstance(piece, str) else ""
        raise EncodingError(
            f"the encoder of channel {self._names[number]!r} returned {type(piece).__name__} {_short(piece)}"
            f" where it should return {wanted}, or None for nothing{hint}"
        )

    def _noted(self, error: BaseException, number: int) -> BaseException:
        error.add_note(f"raised by the encoder of channel {self._names[number]!r}; the item was not fed")
        return error

    def endings(self) -> list[bytes]:
        """Return what the encoders with a state write before the end of each channel."""
        endings = []
        for number, finish in enumerate(self.finishes):
            ending = finish() if finish is not None else b""
            endings.append(ending if type(ending) is bytes else self._mend(ending, number))
        return endings


def _bound(name: str, channel: Channel, process_id: int | None) -> tuple[Callable[[Any], Any], Finish | None]:
    """Return the function that encodes, and the one that ends."""
    made: Any = channel.encoder
    if channel.is_per_process and process_id is not None:
        made = made(process_id)
    function = made if callable(made) else getattr(made, "encode", None)
    if not callable(function):
        raise EncodingError(f"the encoder of channel {name!r} made {made!r}, which is no function and has no encode()")
    return function, getattr(made, "finish", None) if channel.is_per_process else None


def have_state(channels: Mapping[str, Channel]) -> bool:
    """Return whether an encoder has a state for each process."""
    return any(channel.is_per_process for channel in channels.values())


def _short(value: object, most: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def key_index(key: Any, count: int) -> int:
    """Return the same index below `count` for the same key, in every run for text, bytes and numbers."""
    import zlib  # hash() of text differs from run to run

    if isinstance(key, str):
        return zlib.crc32(key.encode("utf-8", "surrogatepass")) % count
    if isinstance(key, bytes):
        return zlib.crc32(key) % count
    return hash(key) % count


def split_by(indices: Sequence[int], count: int, items: list[Any]) -> list[list[Any]]:
    """Return the items of each process, in order."""
    parts: list[list[Any]] = [[] for _ in range(count)]
    for index, item in zip(indices, items, strict=True):
        parts[index].append(item)
    return parts
