"""The source texts that every worker of a pool has: those of its options, then those of `Pool.define`, in order.

Owns the list of them. Laws: a text has a number, its place in the list, by which a worker knows it again, so that it
runs it once though told of it twice; one text is added at a time; a worker learns of a new one before its next call.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from typing import Any

from venvoy_worker.contract import codec, frames, messages

from ..exchange import Pieces
from ..places import Source


class Sources:
    """See the module.

    Args:
        texts: of the pool's options.
    """

    def __init__(self, texts: Iterable[Any] = ()) -> None:
        self.texts: list[Source] = list(texts)
        self.turn = threading.Lock()  # one `define` at a time; held while its text is tried in a worker

    def append(self, source: Source) -> int:
        """Add a text for the workers to come; return its number."""
        self.texts.append(source)
        return len(self.texts)


def check_parses(source: Source, version: str) -> None:
    """Refuse a text that no worker could parse, before any is asked.

    Args:
        version: of the workers' Python; one that is newer than ours may understand what we do not.

    Raises:
        SyntaxError: with the place in the file of whoever wrote it.
    """
    text, (filename, line, _) = source
    if tuple(map(int, version.split(".")[:2])) <= sys.version_info[:2]:
        compile("\n" * (line - 1) + text, filename, "exec", dont_inherit=True)


def news_of(number: int, source: Source) -> Pieces:
    """Return what tells a worker of a text."""
    body = [codec.encode_inline(source)]
    return frames.pack(messages.DEFINE, messages.FLAG_SHARED, codec.PICKLE, number=number, body=body)
