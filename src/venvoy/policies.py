"""How many workers a pool has, and what it does when they fail to start: frozen, validated options."""

from __future__ import annotations

from dataclasses import dataclass

from .checks import check_seconds


@dataclass(frozen=True, slots=True)
class ScalePolicy:
    """When a pool with `workers=(least, most)` grows and shrinks. It grows when calls wait.

    Args:
        idle_timeout: seconds without a call after which a worker above the least number is ended, the one that has
            been idle longest first.
        cooldown: seconds between one worker above the least number and the next; 0 starts as many as calls wait.

    Raises:
        TypeError, ValueError: an argument is no number of seconds.
    """

    idle_timeout: float = 120.0
    cooldown: float = 0.0

    def __post_init__(self) -> None:
        check_seconds("idle_timeout", self.idle_timeout)
        check_seconds("cooldown", self.cooldown)


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """What a pool does when workers do not start, or die before they have done anything.

    After each failure the next start waits, twice as long each time, with up to a fifth added by chance. After
    `max_failures` within `within` seconds the circuit opens: calls fail at once with what the last start printed,
    until the time is over; then one start is tried. `Pool.reload()` and `Pool.warm()` try at once.

    Args:
        backoff: seconds to wait after the first failure.
        max_backoff: seconds to wait at most.
        max_failures: that open the circuit.
        within: seconds in which they count.

    Raises:
        TypeError, ValueError: an argument is not what is described here.
    """

    backoff: float = 0.1
    max_backoff: float = 30.0
    max_failures: int = 5
    within: float = 60.0

    def __post_init__(self) -> None:
        for name in ("backoff", "max_backoff", "within"):
            check_seconds(name, getattr(self, name))
        if isinstance(self.max_failures, bool) or not isinstance(self.max_failures, int) or self.max_failures < 1:
            raise ValueError(f"max_failures is a number from 1 up, not {self.max_failures!r}")
