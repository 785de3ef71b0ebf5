"""The source texts that every worker of a pool has, in one namespace, where bare names are looked up first.

Owns the module `venvoy_sources`, and the number of texts it has run. Laws: texts run in order, each once; one that
raises leaves no name behind, and is tried again before the next call.
"""

from __future__ import annotations

import _thread
import sys
from collections import deque

NAME = "venvoy_sources"
_lock = _thread.RLock()  # held while a text runs, which may call what calls us
_count = 0  # texts that were run
pending: deque[Callable[[], tuple[int, str, Place]]] = deque()  # not decoded yet: (number, text, place)


def add(number: int, text: str, place: Place) -> None:
    """Run a text in the namespace, unless that was done.

    Args:
        number: its place among all texts, from 1.
        place: of its first line; see `snippets`.

    Raises:
        SyntaxError: it cannot be parsed. Besides this, what it raises.
    """
    global _count
    from . import snippets  # most workers never need it

    with _lock:
        if number <= _count:
            return
        names = _names()
        code = snippets.compiled(text, place)
        before = dict(names)
        try:
            exec(code, names)
        except BaseException:
            for name in set(names).difference(before):
                del names[name]
            names.update(before)  # never empty in between: calls on other threads look names up
            raise
        _count = number


def append(text: str, place: Place) -> None:
    """Run one more text in the namespace, as `add`."""
    with _lock:
        add(_count + 1, text, place)


def catch_up() -> None:
    """Run the texts that came since the last call."""
    with _lock:
        while pending:
            add(*pending[0]())
            pending.popleft()


def _names() -> dict[str, object]:
    module = sys.modules.get(NAME)
    if module is None:
        module = sys.modules[NAME] = type(sys)(NAME)
    return module.__dict__


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

    from .snippets import Place
