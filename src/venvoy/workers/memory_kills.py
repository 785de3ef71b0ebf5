"""How often the kernel's out-of-memory killer has struck: the counters behind `WorkerCrashed.oom_hint`.

Stateless: a count is read when a worker starts and compared when it was killed by a SIGKILL that nobody here sent. The
counters are those of the cgroup where there is one with a count (v2 `memory.events`, v1 `memory.oom_control`; see
"cgroup-v2" in the kernel's documentation), and that of the whole machine (`/proc/vmstat`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_WORD = "oom_kill"


@dataclass(frozen=True, slots=True)
class Kills:
    """Processes killed for lack of memory so far; None where the system does not say.

    Args:
        in_group: in the control group that this process, and so its workers, belong to.
        on_machine: anywhere.
    """

    in_group: int | None
    on_machine: int | None

    def hint(self, now: Kills) -> str:
        """Return what the counts of now say about a process that was killed since, or "" for nothing."""
        if self.in_group is not None and now.in_group is not None:
            if now.in_group > self.in_group:
                return "the kernel's out-of-memory killer has struck in this control group since the worker began"
            return ""
        if self.on_machine is not None and now.on_machine is not None and now.on_machine > self.on_machine:
            return "the kernel's out-of-memory killer has struck on this machine since the worker began"
        return ""


def read(root: Path = Path("/")) -> Kills:
    """Return the counts of now.

    Args:
        root: where `proc` and `sys` are.
    """
    return Kills(_of_group(root), _count(root / "proc/vmstat"))


def _of_group(root: Path) -> int | None:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:  # "0::/path" is v2's, "4:memory:/path" v1's
        _, controllers, path = line.split(":", 2)
        folder, name = "", "memory.events"
        if controllers:
            folder, name = "memory", "memory.oom_control"
        if not controllers or "memory" in controllers.split(","):
            for below in (path.strip("/"), ""):  # inside a container, its own group is the top of what can be seen
                count = _count(root / "sys/fs/cgroup" / folder / below / name)
                if count is not None:
                    return count
    return None


def _count(path: Path) -> int | None:
    try:
        for line in path.read_text().splitlines():
            word, _, number = line.partition(" ")
            if word == _WORD:
                return int(number)
    except (OSError, ValueError):
        pass
    return None
