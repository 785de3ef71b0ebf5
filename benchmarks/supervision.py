"""Deadlines, crashes and reloads: how late, how long, and whether a call fails.

    python benchmarks/supervision.py [--json FILE] [--quick] [--only NAME,...]

"overshoot" is the time from a call's deadline to the raise of `CallTimeout`; "gone" the time from the deadline until
the worker's process is dead, beyond the grace period where the work cannot be stopped by asking. "after a crash" is the
time from `WorkerCrashed` to the result of the next call, "one more worker" that of a start in the same pool. The peers
of other benchmarks have no deadlines that stop work, so there is no column for them; `--only` chooses among the cases.
"""

from __future__ import annotations

import os
import select
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import monotonic, sleep

import measure
from measure import Block, Row
from venvoy import CallTimeout, Pool, WorkerCrashed, WorkerOptions

GRACE = 0.5
DEADLINE = 0.05
RATE = 50  # calls a second under a reload
CASES = {
    "sleep": ("time:sleep", 60.0),
    "Python loop": ("work:spin", 60.0),
    "C loop": ("builtins:sum", range(10**11)),  # holds the interpreter lock: nothing in the worker can run
    "queued": ("time:sleep", 60.0),
}
GONE = ("Python loop", "C loop")
CRASH, START = "after a crash", "one more worker"
WORK = """
import time

VERSION = 1


def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def version():
    return VERSION
"""


def open_pool(stack: ExitStack, folder: Path, workers: int | tuple[int, int] = 1) -> Pool:
    """Return a warm pool whose workers find the module `work`."""
    options = WorkerOptions(paths=[folder], grace_period=GRACE, output="discard")
    pool = stack.enter_context(Pool(module="work", workers=workers, worker=options))
    stack.callback(pool.close, 0)  # what still runs is not waited for
    return pool


# --- deadlines ------------------------------------------------------------------------------------


def overshoots(pool: Pool, target: str, argument: object, count: int) -> list[float]:
    """Return how much later than its deadline each of `count` calls raised; each finds a worker that is ready."""
    times = []
    for _ in range(count):
        pool.call("math:sqrt", 4)
        begin = monotonic()
        try:
            pool.options(timeout=DEADLINE).call(target, argument)
        except CallTimeout:
            times.append(monotonic() - begin - DEADLINE)
    return times


def queued_overshoots(pool: Pool, count: int) -> list[float]:
    """As `overshoots`, of calls that never get a worker."""
    with pool.lease():
        times = []
        for _ in range(count):
            begin = monotonic()
            try:
                pool.options(timeout=DEADLINE).call("time:sleep", 0)
            except CallTimeout:
                times.append(monotonic() - begin - DEADLINE)
        return times


def seconds_to_end(pool: Pool, target: str, argument: object, *, kills: bool) -> float:
    """Return the seconds from a call's deadline until its worker is dead, or, if that serves on, the work is over.

    Args:
        kills: the worker has to be killed.
    """
    pid = pool.call("os:getpid")
    begin = monotonic()
    watched = os.pidfd_open(pid)
    try:
        try:
            pool.options(timeout=DEADLINE).call(target, argument)
        except CallTimeout:
            pass
        if kills:
            select.select([watched], [], [], 30)
        else:
            pool.call("math:sqrt", 4)  # served by the one worker there is, once it is free
        return monotonic() - begin - DEADLINE
    finally:
        os.close(watched)


# --- crashes and reloads --------------------------------------------------------------------------


def after_crash(pool: Pool) -> Sequence[float]:
    """Return the seconds from the error of a crashed call to the result of the next."""
    try:
        pool.call("os:_exit", 3)
    except WorkerCrashed:
        pass
    return measure.once(partial(pool.call, "math:sqrt", 4))


def one_more(stack: ExitStack, folder: Path) -> Sequence[float]:
    """Return the seconds that one more worker takes in a pool that is open, and end it again."""
    pool = open_pool(stack, folder, (1, 2))
    times = measure.once(partial(pool.warm, 2))
    pool.close(0)
    return times


def reload_under_calls(folder: Path, reloads: int) -> tuple[list[float], list[BaseException]]:
    """Reload a pool again and again under a steady stream of calls; return how long each call took, and errors."""
    times: list[float] = []
    errors: list[BaseException] = []
    is_over = threading.Event()
    with ExitStack() as stack:
        pool = open_pool(stack, folder, 2)

        def use() -> None:
            while not is_over.wait(1 / RATE):
                begin = monotonic()
                try:
                    pool.call("version")
                except BaseException as error:
                    errors.append(error)
                times.append(monotonic() - begin)

        user = threading.Thread(target=use)
        user.start()
        for version in range(2, 2 + reloads):
            (folder / "work.py").write_text(WORK.replace("VERSION = 1", f"VERSION = {version}"))
            pool.reload()
            sleep(0.1)
        is_over.set()
        user.join()
    return times, errors


class Run:
    """One run of this benchmark: measures, prints, and keeps what is to be written."""

    def __init__(self, argv: Sequence[str] | None, folder: Path) -> None:
        self._options = measure.arguments(__doc__.splitlines()[0], argv)
        self.data = measure.report("supervision", self._options)
        self._folder = folder
        self._is_quick = self._options.quick
        unknown = self._options.only - {*CASES, CRASH, "reload"}
        if unknown:
            raise SystemExit(f"no case {min(unknown)!r}; there are {', '.join([*CASES, CRASH, 'reload'])}")

    def all(self) -> None:
        """Measure everything, on the CPUs this process may use."""
        (self._folder / "work.py").write_text(WORK)
        for part in (self._deadlines, self._ends, self._crash, self._reload):
            part()
        measure.show_targets(self.data["targets"])
        measure.write(self.data, self._options.json)

    def _is_asked(self, name: str) -> bool:
        return not self._options.only or name in self._options.only

    def _deadlines(self) -> None:
        with ExitStack() as stack:
            pool = open_pool(stack, self._folder)
            blocks: dict[str, Block] = {}
            for name, (target, argument) in CASES.items():
                count = 2 if self._is_quick else (5 if name == "C loop" else 20)
                work: Callable[[], Sequence[float]] = partial(overshoots, pool, target, argument, count)
                if name == "queued":
                    work = partial(queued_overshoots, pool, count)
                if self._is_asked(name):
                    blocks[name] = work
            table = self._note("overshoot of a deadline", blocks, 1 if self._is_quick else 5)
        for row in table:
            self._aim(f"{row.name}: overshoot p99, ms", row.p99, 50.0)

    def _ends(self) -> None:
        with ExitStack() as stack:
            pool = open_pool(stack, self._folder)

            def block(name: str) -> Sequence[float]:
                kills = name == "C loop"
                seconds = seconds_to_end(pool, *CASES[name], kills=kills)
                return [max(1e-6, seconds - (GRACE if kills else 0.0))]

            blocks = {name: partial(block, name) for name in GONE if self._is_asked(name)}
            table = self._note("work over after a deadline, beyond grace", blocks, 2 if self._is_quick else 20)
        for row in table:
            self._aim(f"{row.name}: over, p99, ms", row.p99, 300.0 if row.name == "C loop" else 100.0)

    def _crash(self) -> None:
        if not self._is_asked(CRASH):
            return
        with ExitStack() as stack:
            pool = open_pool(stack, self._folder)
            blocks = {CRASH: partial(after_crash, pool), START: partial(one_more, stack, self._folder)}
            table = self._note("from a crash to the next result", blocks, 2 if self._is_quick else 20)
        self._aim("after a crash: x one more worker", table[0].ratios[START], 1.5)

    def _reload(self) -> None:
        if not self._is_asked("reload"):
            return
        times, errors = reload_under_calls(self._folder, 2 if self._is_quick else 20)
        table = self._note(f"a call under reloads, {RATE} calls/s", {"call": lambda: times}, 1)
        self._aim("reload: failed calls", len(errors), 0)
        self.data["calls_under_reload"] = len(times)
        print(f"{len(times)} calls, the longest {table[0].p99:.1f} ms (p99); {len(errors)} failed")

    def _aim(self, what: str, value: float, limit: float) -> None:
        self.data["targets"].append(measure.at_most(what, "not pinned", value, limit))

    def _note(self, name: str, made: dict[str, Block], blocks: int) -> list[Row]:
        table = measure.rows(measure.take_turns(made, blocks), "ms", lambda seconds: seconds * 1e3)
        measure.show(name, table, [START])
        self.data["passes"].append({"name": name, "cpu": None, "cpus_of_children": [], "rows": table})
        return table


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    with tempfile.TemporaryDirectory() as folder:
        Run(argv, Path(folder)).all()


if __name__ == "__main__":
    main()
