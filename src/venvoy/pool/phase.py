"""What a pool as a whole is doing."""

from __future__ import annotations

import enum


class Phase(enum.Enum):
    """See the module."""

    NEW = "new"  # nothing started; also after a failed opening
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"  # takes no new calls; those it has are finished
    CLOSED = "closed"
