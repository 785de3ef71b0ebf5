"""The blocking face of a swarm."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from types import TracebackType
from typing import Any, Self, Unpack

from .channels import Channel, Destination, Encoder
from .core import Core
from .encode_threads import EncodeThreads
from .options import SwarmOptions, make_plan
from .report import SwarmReport

Output = Any
"""`"inherit"`, `"discard"`, `"collect"`, `"lines"`, a path with `{id}`, an open file, `function(process_id, line)`,
or what `file`, `handle`, `collect`, `lines` and `blocks` make."""


class Swarm:
    """Some processes of one command that are fed a stream of items, each item going to exactly one of them.

    Args:
        command: a list of arguments; one string only with `shell=True`.
        count: how many processes.
        inputs: channels by name, each an encoder `item -> bytes | None` or a `pipe`, `fifo`, `file` or `handle` with
            one. `stdin` is the standard input, any other name that of an environment variable in which the process
            finds the number of a descriptor, or a path. None: items are bytes or text and go to stdin.
        stdout: where outputs go: "inherit" (line by line with the process id before it), "discard", "collect",
            "lines" (for `lines()`), a path (`{id}` is the process id), an open file, `function(process_id, line)`, or
            what `file`, `handle`, `collect`, `lines` and `blocks` make.
        stderr: as stdout; its end is in reports wherever it goes.
        options: `SwarmOptions`; `options.Plan` says what each means.

    Raises:
        TypeError, ValueError, OSError: an argument is wrong; nothing was started.

    Examples:
        >>> from venvoy.feed import Swarm
        >>> with Swarm(["sort", "-n"], inputs={"stdin": lambda n: b"%d\\n" % n}, stdout="collect") as swarm:
        ...     swarm.feed_many([10, 9, 8])
        3
        >>> swarm.report.processes[0].stdout.split()
        [b'8', b'9', b'10']
    """

    def __init__(
        self,
        command: str | Sequence[str],
        count: int = 1,
        inputs: Mapping[str, Encoder | Channel] | None = None,
        stdout: Output | Destination = "inherit",
        stderr: Output | Destination = "inherit",
        **options: Unpack[SwarmOptions],
    ) -> None:
        plan = make_plan(command, count, inputs, (stdout, stderr), options)
        self._core = Core(plan)
        self._threads: EncodeThreads | None = None
        encoders = self._core.feeding.encoders
        is_plain = plan.distribute == "ready" and not plan.encode_threads
        self._encode_one = encoders.one if is_plain and encoders is not None else None
        self._put_one = self._core.feeding.intake.put_one
        self._finalizer = weakref.finalize(self, self._core.abandon)

    def start(self) -> Self:
        """Start the processes; the first that runs is enough to return.

        Raises:
            SwarmError: none can be started, or the swarm was started before.
        """
        self._core.start()
        if self._core.plan.encode_threads:
            self._threads = EncodeThreads(self._core, self._core.plan.encode_threads)
        return self

    def feed(self, item: Any, timeout: float | None = None) -> None:
        """Give an item to the process that takes it; waits where there is no room. Any thread may feed.

        Args:
            timeout: seconds to wait for room; None waits until there is some, or the swarm has failed.

        Raises:
            SwarmError: the swarm has failed or is closed; the item was not taken.
            FeedStalled: there was no room in time; the item was not taken, and the swarm goes on.
            Exception: what an encoder raised; the item was not taken, and the swarm goes on.
        """
        if self._encode_one is not None:
            self._put_one(item, self._encode_one(item), timeout)
        elif self._threads is not None:
            self._threads.feed(item, timeout)
        else:
            self._core.feeding.feed_one(item, timeout)

    def feed_many(self, iterable: Iterable[Any], timeout: float | None = None) -> int:
        """Feed all items of an iterable, and return how many there were.

        Lists, tuples and ranges are encoded in large batches. Of any other iterable, each item is on its way before
        the next is drawn. Items that were drawn and not taken because of an error are among the `undelivered`.

        Args:
            timeout: seconds to wait for room, each time there is none.

        Raises:
            As `feed`; what the iterable raises.
        """
        if isinstance(iterable, list | tuple | range) and self._threads is None:
            return self._core.feeding.feed_sequence(iterable, timeout)
        if self._encode_one is not None:
            return self._core.feeding.feed_eagerly(iterable, timeout)
        count = 0
        feed = self.feed
        for item in iterable:
            try:
                feed(item, timeout)
            except BaseException:
                self._core.feeding.lose([item])
                raise
            count += 1
        return count

    def end_input(self) -> None:
        """Take no more items; the processes get their end of file once they have received what was fed."""
        if self._threads is not None:
            self._threads.close()
        self._core.end_input()

    def close(self, timeout: float | None = None) -> SwarmReport:
        """Let the processes receive what was fed, send the end of file, wait for them; then end what is left.

        Args:
            timeout: seconds for all this; processes that take longer are ended with SIGTERM, then SIGKILL.

        Raises:
            SwarmError: the swarm failed, or a process ended with a status other than 0.
            FeedStalled: the time was over.
        """
        try:
            if self._threads is not None:
                self._threads.close()
        except BaseException:
            self.abort()
            raise
        return self._core.close(timeout)

    def abort(self) -> None:
        """End all processes now, with SIGTERM and after the grace period SIGKILL; no error is raised."""
        self._core.desk_is_closed()
        if self._threads is not None:
            self._threads.close(is_aborted=True)
        self._core.abort()

    def lines(self, items: Iterable[Any] | None = None) -> Iterator[tuple[int, Any]]:
        """Yield `(process_id, line)` of outputs that go to "lines", as they come, until all processes have ended.

        Args:
            items: fed by a thread meanwhile, after which the input is ended. None: the input is ended now, so that
                the processes come to their end; what was fed before is received.

        Raises:
            SwarmError: the swarm has failed.
            Exception: what feeding the items raised.

        Examples:
            >>> from venvoy.feed import Swarm
            >>> with Swarm(["tr", "a-z", "A-Z"], stdout="lines") as swarm:
            ...     for process_id, line in swarm.lines(["one\\n", "two\\n"]):
            ...         print(process_id, line)
            0 ONE
            0 TWO
        """
        routes = self._core.routes()
        routes.check_lines()
        feeder = _Feeder(self, items)
        feeder.start()
        try:
            yield from routes.lines()
        except GeneratorExit:
            feeder.is_unwanted = True  # nobody listens any more; it may wait for an item, so nobody waits for it
            self._core.stop_listening()
            raise
        feeder.join()
        feeder.raise_failure()

    @property
    def undelivered(self) -> list[Any]:
        """The items that were fed and that no process received whole; complete once the swarm is closed."""
        return self._core.undelivered()

    @property
    def report(self) -> SwarmReport:
        """How the swarm and each process stand, or have ended."""
        return self._core.report()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; after an exception abort, since processes must not take a part of the input for the whole."""
        if kind is None:
            self.close()
        else:
            self.abort()

    def __repr__(self) -> str:
        plan = self._core.plan
        return f"<Swarm {plan.name!r}: {plan.count} x {plan.command!r}, {self._core.desk.state.value}>"


class _Feeder(threading.Thread):
    """Feeds items while their results are read."""

    def __init__(self, swarm: Swarm, items: Iterable[Any] | None) -> None:
        super().__init__(name="venvoy-feed-items", daemon=True)
        self.is_unwanted = False
        self._swarm = swarm
        self._items = items
        self._failure: BaseException | None = None

    def run(self) -> None:
        try:
            if self._items is not None:
                self._swarm.feed_many(takewhile(lambda item: not self.is_unwanted, self._items))
            self._swarm.end_input()
        except BaseException as error:
            if not self.is_unwanted:
                self._failure = error
                self._swarm._core.abort()

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
        failure = self._swarm._core.desk.failure
        if failure is not None:
            raise failure
