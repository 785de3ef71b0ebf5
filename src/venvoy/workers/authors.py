"""Whose is what a worker prints and logs: the number and target of the call, where somebody wants to know.

Owns the call whose output the pipes have now, and the names of the last calls. Law: where several calls run at once,
the pipes are nobody's, and the worker says of each text whose it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from ..processes.process import Output

NOBODY = (0, "")
_KEPT = 4  # names for each call that may run


class Authors:
    """See the module.

    Args:
        concurrency: how many calls run at once.
    """

    def __init__(self, concurrency: int = 1) -> None:
        self.current = NOBODY  # id and target of the call that the pipes belong to
        self._is_alone = concurrency == 1
        self._names: deque[tuple[int, str]] = deque(maxlen=_KEPT * concurrency)

    def begin(self, call_id: int, name: str) -> None:
        """A call begins."""
        if self._is_alone:
            self.current = (call_id, name)
        self._names.append((call_id, name))

    def end(self, outputs: Iterable[Output]) -> None:
        """It has ended: what is in the pipes was written before its reply was, so it is its own."""
        if self._is_alone:
            for output in outputs:
                output.drain()
            self.current = NOBODY

    def name_of(self, call_id: int) -> str:
        """Return the target of a call that runs, or has ended just now; "" where nobody wants to know."""
        return next((name for number, name in self._names.copy() if number == call_id), "")
