"""The life of a swarm: opened, fed, ended, reported on; what both faces, the blocking and the asynchronous, share.

Owns the I/O thread, the desk, the encoders. Laws: encoders run in the thread that feeds or in the encoding threads,
never in ours; closing takes the processes' ends in order: drained, end of file, waited for, SIGTERM, SIGKILL.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from time import monotonic
from typing import Any

from .. import collector as _collector
from ..collector import Collector
from ..errors import FeedStalled, SwarmClosed, SwarmError
from .blocks import BLOCK_BYTES, Block, cost_of
from .delivery import cut_lines
from .desk import Desk, State
from .encoding import Encoders, have_state, key_index, split_by
from .options import Plan
from .pump import Pump
from .report import ProcessReport, SwarmReport, summary
from .routes import Routes

_FEWEST, _MOST = 64, 8192  # items encoded in one go
_MOST_STAGED = 128  # items between two looks at the bounds


class Core:
    """A swarm without a face.

    Args:
        plan: of the swarm.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.desk = Desk(plan, self._wake)
        self.has_state = have_state(plan.channels)
        self.encoders = None if self.has_state else Encoders(plan.channels, None)
        self._own_encoders: dict[int, tuple[int, Encoders]] = {}
        self._encode_locks = [threading.Lock() for _ in range(plan.count)]  # one encoder runs for one item at a time
        self._turn_lock = threading.Lock()  # guards the number of the next item, for "round-robin"
        self._number = 0
        self._close_lock = threading.RLock()  # one thread closes, the others wait for it
        self._loop: Collector | None = None
        self._pump: Pump | None = None
        self._routes: Routes | None = None
        self._began = 0.0
        self._report: SwarmReport | None = None
        self._pid = os.getpid()

    def _wake(self) -> None:
        if self._loop is not None and self._pump is not None:
            self._loop.call_soon(self._pump.turn)

    # Opening.

    def start(self) -> None:
        """Start all processes; return when the first is there.

        Raises:
            SwarmError: none could be started.
            SwarmClosed: it was started before.
            OSError: a file of the outputs cannot be opened.
        """
        with self.desk.changed:
            if self.desk.state is not State.NEW:
                raise SwarmClosed(f"{self.plan.name} was started before: it {self.desk.state.value}")
            self.desk.set_state(State.RUNNING)
        self._began = monotonic()
        self._loop = Collector("venvoy-feed", self._on_defect)
        _collector.tell_after_fork(self)
        try:
            self._routes = Routes(self.plan, self._loop, self._on_output_failure)
            self._pump = Pump(self.plan, self.desk, self._loop, self._routes)
            self._routes.open_files()
            self._pump.on_over = self._routes.lines_box.close
            for child in self._pump.children:
                self._loop.call_soon(partial(self._pump.start, child))
            with self.desk.changed:
                while not (self.desk.has_started or self.desk.failure):
                    self.desk.changed.wait()
            if self.desk.failure is not None and not self.desk.has_started:
                raise self.desk.failure
        except BaseException:
            self.abort()
            raise

    def _on_defect(self, error: BaseException) -> None:
        """On the I/O thread: a defect of ours fails the swarm, and nobody waits in vain."""
        if self._pump is not None:
            self._pump.fail(f"internal error: {error!r}", error)

    def _on_output_failure(self, error: BaseException) -> None:
        pump, loop = self._pump, self._loop
        if pump is not None and loop is not None:
            loop.call_soon(lambda: pump.fail(f"what consumes the output raised {type(error).__name__}: {error}", error))

    # Feeding.

    def feed_one(self, item: Any, timeout: float | None) -> None:
        """Feed one item that goes to a certain process, or whose bytes depend on the process."""
        target = None if self.plan.distribute == "ready" else self.target_of(item)
        if self.encoders is None:
            self.feed_encoded_by_process(item, target, timeout)
            return
        pieces = [[piece] for piece in self.encoders.one(item)]
        self.desk.put(Block([item], pieces, cost_of(pieces)), target, timeout)

    def feed_batch(self, items: list[Any], timeout: float | None) -> None:
        """Feed items that were drawn already; those that are not taken are among the undelivered.

        Raises:
            Exception: what an encoder raised; the items before were fed.
        """
        done = 0
        try:
            for target, part in self._parts(items):
                if self.has_state:
                    for item in part:
                        self.feed_encoded_by_process(item, target, timeout)
                        done += 1
                    continue
                assert self.encoders is not None
                block, failure = self.encoders.many(part)
                if block.items:
                    self.desk.put(block, target, timeout)
                done += len(block.items)
                if failure is not None:
                    raise failure
        except BaseException:
            with self.desk.changed:
                self.desk.lost += items[done:]
            raise

    def _parts(self, items: list[Any]) -> Iterator[tuple[int | None, list[Any]]]:
        """Yield (process, items) as the items are to be distributed; None for the process is whoever has room."""
        if self.plan.distribute == "ready":
            yield None, items
            return
        parts = split_by([self.target_of(item) for item in items], self.plan.count, items)
        for target, part in enumerate(parts):
            if part:
                yield target, part

    def target_of(self, item: Any) -> int:
        """Return the process that an item goes to."""
        if self.plan.key is not None:
            return key_index(self.plan.key(item), self.plan.count)
        with self._turn_lock:
            self._number += 1
            return (self._number - 1) % self.plan.count

    def feed_encoded_by_process(self, item: Any, target: int | None, timeout: float | None) -> None:
        """Feed one item whose bytes depend on the process that gets it."""
        self.encode_anew()
        self._feed_with_state([item], target, timeout)

    def _feed_with_state(self, items: list[Any], target: int | None, timeout: float | None) -> None:
        while True:
            process_id, generation = self.desk.choose(target, timeout)
            with self._encode_locks[process_id]:
                encoders = self._encoders_of(process_id, generation)
                block, failure = encoders.many(items)
                if block.items and not self.desk.put_encoded(process_id, generation, block):
                    continue
            if failure is not None:
                raise failure
            return

    def _encoders_of(self, process_id: int, generation: int) -> Encoders:
        found = self._own_encoders.get(process_id)
        if found is None or found[0] != generation:
            found = self._own_encoders[process_id] = generation, Encoders(self.plan.channels, process_id)
        return found[1]

    def encode_anew(self) -> None:
        """Encode for the others what processes that are gone did not receive."""
        while self.desk.raw:
            with self.desk.changed:
                if not self.desk.raw:
                    return
                items = self.desk.raw.popleft()
            target = None if self.plan.distribute == "ready" else self.target_of(items[0])
            try:
                self._feed_with_state(items, target, None)
            except BaseException:
                with self.desk.changed:
                    self.desk.lost += items
                raise

    def feed_sequence(self, items: Sequence[Any], timeout: float | None) -> int:
        """Feed a list, tuple or range in large batches; return how many there were."""
        size, begin = _FEWEST, 0
        while begin < len(items):
            batch = list(items[begin : begin + size])
            self.feed_batch(batch, timeout)
            begin += len(batch)
            size = min(_MOST, 2 * size) if self.desk.shared.cost < 4 * BLOCK_BYTES else size
        return begin

    def feed_eagerly(self, iterable: Iterable[Any], timeout: float | None) -> int:
        """Feed an iterable that may take its time for each item; return how many there were."""
        assert self.encoders is not None
        desk, one, stage = self.desk, self.encoders.one, self.desk.open_stage()
        add_item, add_row = stage.items.append, stage.rows.append
        iterator = iter(iterable)
        count, size = 0, 1
        try:
            while True:
                before = count
                for item in islice(iterator, size):
                    try:
                        row = one(item)
                    except BaseException:
                        self.lose([item])
                        raise
                    add_item(item)
                    add_row(row)
                    count += 1
                    if not desk.is_awake:
                        desk.wake_now()
                desk.hand_over(stage, timeout)
                if count - before < size:
                    return count
                size = min(2 * size, _MOST_STAGED)
        finally:
            desk.close_stage(stage)

    # Ending.

    def close(self, timeout: float | None) -> SwarmReport:
        """Let the processes finish their input and end.

        Raises:
            SwarmError: one has failed.
        """
        with self._close_lock:
            if self._report is None:
                self._close(timeout)
            assert self._report is not None
            self._raise_what_failed(self._report)
            return self._report

    def _close(self, timeout: float | None) -> None:
        deadline = None if timeout is None else monotonic() + timeout
        try:
            if self._pump is None:
                with self.desk.changed:
                    self.desk.set_state(State.CLOSED)
                self._report = SwarmReport((), 0, 0, 0, 0.0)
                return
            self.end_input()
            if self._routes is not None:
                self._routes.lines_box.drop_unread()
            self._wait_until_over(deadline)
        except BaseException:  # Ctrl-C, or an encoder that raised: whoever waits no longer wants them gone
            self.abort()
            raise
        self._finish()

    def end_input(self) -> None:
        """Take no more items; what was fed is still delivered, then the processes get their end of file.

        Raises:
            Exception: what an encoder raised.
        """
        with self.desk.changed:
            if self.desk.state is not State.RUNNING:
                return
            self.desk.is_open = self.has_state  # what has to be encoded anew still is
        if self.has_state:
            self._write_endings()
        with self.desk.changed:
            if self.desk.state is State.RUNNING:
                self.desk.set_state(State.ENDING)
        assert self._loop is not None
        assert self._pump is not None
        self._loop.call_soon(self._pump.turn)

    def _write_endings(self) -> None:
        """Ask the encoders of each process for what they write before the end of file."""
        try:
            self._await_rerouting()
            for process_id in range(self.plan.count):
                if self.desk.is_alive[process_id]:
                    with self._encode_locks[process_id]:
                        encoders = self._encoders_of(process_id, self.desk.generation[process_id])
                        self.desk.endings[process_id] = encoders.endings()
        except SwarmError:  # it failed meanwhile, which closing tells
            return

    def _await_rerouting(self) -> None:
        """Where processes may be replaced: wait until everything was received, and encode anew what was not."""
        while True:
            self.encode_anew()
            if self.plan.on_exit == "fail":
                return
            with self.desk.changed:
                self.desk.is_draining = True
                while not self.desk.raw and self.desk.failure is None and self._is_undelivered():
                    self.desk.changed.wait()
                if self.desk.failure is not None or not self.desk.raw:
                    return

    def _is_undelivered(self) -> bool:
        return any(self.desk.given) or any(self.desk.lanes) or bool(self.desk.shared)

    def _wait_until_over(self, deadline: float | None) -> None:
        pump = self._pump
        assert pump is not None
        with self.desk.changed:
            while not pump.is_over:
                remaining = None if deadline is None else deadline - monotonic()
                if remaining is not None and remaining <= 0:
                    break
                self.desk.changed.wait(remaining)
        if not pump.is_over:
            reports = pump.reports()
            text = summary(self.plan.name, "processes had not ended when the time for closing was over", reports)
            self.desk.fail(FeedStalled(text, processes=reports))
            self.abort()

    def abort(self) -> None:
        """End all processes now: SIGTERM, after the grace period SIGKILL; what they have not received is kept."""
        with self.desk.changed:
            if self.desk.state in (State.NEW, State.RUNNING, State.ENDING):
                self.desk.set_state(State.CLOSED)
        pump, loop = self._pump, self._loop
        if pump is not None and loop is not None:
            loop.call_soon(pump.end_processes)
        with self._close_lock:
            if pump is not None and self._report is None:
                with self.desk.changed:
                    while not pump.is_over:
                        self.desk.changed.wait()
            self._finish()

    def abandon(self) -> None:
        """Nobody holds the swarm any more: end it without waiting. Takes no lock: finalizers may call this."""
        pump, loop = self._pump, self._loop
        if pump is None or loop is None or self._report is not None or self._pid != os.getpid():
            return

        def over() -> None:
            assert self._routes is not None
            self._routes.finish()
            loop.stop()

        def end() -> None:
            pump.on_over = over
            pump.end_processes()
            if pump.is_over:
                over()

        loop.call_soon(end)

    def _finish(self) -> None:
        """Everything has ended: deliver the rest of the output, end the threads, write the report."""
        if self._report is not None:
            return
        if self._routes is not None:
            self._routes.finish()
        if self._loop is not None:
            self._loop.stop()
            if threading.current_thread() is not self._loop.thread:
                self._loop.thread.join()
        with self.desk.changed:
            if self.desk.state is not State.FAILED:
                self.desk.set_state(State.CLOSED)
        self._report = self.report()

    def _raise_what_failed(self, report: SwarmReport) -> None:
        if self.desk.failure is not None:
            raise self.desk.failure
        bad = [process for process in report.processes if self._is_bad(process)]
        if bad and self.plan.check:
            raise SwarmError(summary(self.plan.name, _bad_words(bad), report.processes), processes=report.processes)

    def _is_bad(self, process: ProcessReport) -> bool:
        is_replaced = process.is_early and self.plan.on_exit == "reroute"
        return process.status != 0 and not is_replaced and process.pid is not None

    def report(self) -> SwarmReport:
        """Return how everything stands."""
        if self._report is not None:
            return self._report
        processes = self._pump.reports() if self._pump is not None else ()
        return SwarmReport(
            processes,
            sum(process.items for process in processes),
            sum(sum(process.written.values()) for process in processes),
            len(self.undelivered()),
            monotonic() - self._began if self._began else 0.0,
        )

    def lose(self, items: list[Any]) -> None:
        """Count items that were drawn and could not be fed among the undelivered."""
        with self.desk.changed:
            self.desk.lost += items

    def desk_is_closed(self) -> None:
        """Let threads that feed give up."""
        with self.desk.changed:
            if self.desk.state in (State.RUNNING, State.ENDING):
                self.desk.set_state(State.CLOSED)

    def undelivered(self) -> list[Any]:
        """Return the items that no process received whole."""
        return self.desk.left()

    def lines(self) -> Iterator[tuple[int, Any]]:
        """Yield (process id, line) until all processes have ended."""
        if self._routes is None or "lines" not in (self.plan.stdout.kind, self.plan.stderr.kind):
            raise SwarmError(f"{self.plan.name}: lines() needs stdout='lines' or stderr='lines', and a started swarm")
        encoding = (self.plan.stdout if self.plan.stdout.kind == "lines" else self.plan.stderr).encoding
        for reader, data in self._routes.lines_box:
            whole = reader.splitter.whole_lines(data) if data else reader.splitter.rest()
            for line in cut_lines(whole, encoding):
                yield reader.process_id, line

    def after_fork_in_child(self) -> None:
        """In a process the host forked: the swarm is the parent's."""
        self.desk.lock = threading.Lock()
        self.desk.changed = threading.Condition(self.desk.lock)
        self.desk.state, self.desk.is_open = State.CLOSED, False
        self._close_lock = threading.RLock()
        self._report = SwarmReport((), 0, 0, 0, 0.0)
        pump, loop, self._pump, self._loop = self._pump, self._loop, None, None
        for child in pump.children if pump is not None else ():
            child.close_in_fork()
        if loop is not None:
            loop.close()


def _bad_words(bad: Sequence[ProcessReport]) -> str:
    first = f"process {bad[0].id} {bad[0].reason}"
    return first if len(bad) == 1 else f"{first}, and {len(bad) - 1} more failed"
