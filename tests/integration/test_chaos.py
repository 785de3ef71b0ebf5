"""Everything at once: deaths, cancels, time-outs, reloads, prints and big values under eight callers."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv

CALLERS = 8
WORK = """
import os, sys, time


def echo(token, data=b""):
    return token, data[::-1]


def chat(token):
    print("chatter of", token, "x" * 500)
    os.write(2, b"raw " * 100)
    return token


def nap(token, seconds):
    time.sleep(seconds)
    return token


def spin(token, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return token


def fail(token):
    raise LookupError(token)


def die(token):
    os._exit(7)


def stubborn(token, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.02)
        except BaseException:
            pass
    return token
"""

KILLED = (vv.WorkerCrashed, vv.CallCancelled)  # killed, or asked to stop by `terminate`


class Caller:
    """One of those who call: draws what to do by chance, and keeps what went wrong."""

    def __init__(self, pool: vv.Pool, seed: int, end: float) -> None:
        self._pool = pool
        self._chance = random.Random(seed)
        self._end = end
        self._seed = seed
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        self.thread = threading.Thread(target=self._run, name=f"caller-{seed}")
        self.thread.start()

    def _run(self) -> None:
        ways = [self.plain, self.plain, self.big, self.chat, self.later, self.late, self.cancelled, self.failing]
        ways += [self.dying, self.leased, self.named, self.mapped, self.impatient, self.abandoned]
        number = 0
        while time.monotonic() < self._end:
            number += 1
            way = self._chance.choice(ways)
            self.counts[way.__name__] += 1
            try:
                way((self._seed, number))
            except BaseException as error:
                self.wrong.append(f"{way.__name__} {number}: {error!r}")

    def _expect(self, answer: Any, expected: Any) -> None:
        if answer != expected:
            self.wrong.append(f"stale or wrong: {answer!r:.100}, not {expected!r:.100}")

    def _survives(self, call: Callable[[], Any], expected: Any, *allowed: type[BaseException]) -> None:
        try:
            answer = call()
        except (*KILLED, *allowed) as error:
            self.counts[type(error).__name__] += 1
        else:
            self._expect(answer, expected)

    def plain(self, token: Any) -> None:
        self._survives(lambda: self._pool.call("chaoswork:echo", token), (token, b""))

    def big(self, token: Any) -> None:
        data = self._chance.randbytes(self._chance.choice([40_000, 300_000, 2_000_000]))
        self._survives(lambda: self._pool.call("chaoswork:echo", token, data), (token, data[::-1]))

    def chat(self, token: Any) -> None:
        self._survives(lambda: self._pool.call("chaoswork:chat", token), token)

    def later(self, token: Any) -> None:
        futures = [self._pool.submit("chaoswork:echo", (token, n)) for n in range(self._chance.randrange(1, 30))]
        for n, future in enumerate(futures):
            self._survives(lambda future=future: future.result(30), ((token, n), b""))

    def late(self, token: Any) -> None:
        name = self._chance.choice(["nap", "spin", "stubborn"])
        view = self._pool.options(timeout=self._chance.choice([0.0, 0.01, 0.1]))
        begin = time.monotonic()
        is_call = self._chance.random() < 0.5
        with pytest.raises((vv.CallTimeout, *KILLED)):
            (view.call if is_call else lambda *args: view.submit(*args).result(30))(f"chaoswork:{name}", token, 30)
        if time.monotonic() - begin > 5.0:
            self.wrong.append("a deadline was left behind")

    def cancelled(self, token: Any) -> None:
        future = self._pool.submit("chaoswork:nap", token, 5)
        time.sleep(self._chance.random() * 0.05)
        future.cancel()
        self._survives(lambda: future.result(30), token, CancelledError)

    def failing(self, token: Any) -> None:
        try:
            self._pool.call("chaoswork:fail", token)
        except LookupError as error:
            self._expect(error.args, (token,))
        except KILLED:
            pass

    def dying(self, token: Any) -> None:
        if self._chance.random() < 0.4:
            with pytest.raises(KILLED):
                self._pool.call("chaoswork:die", token)
            retried = self._pool.options(retries=20).call("chaoswork:echo", token)
            self._expect(retried, (token, b""))

    def leased(self, token: Any) -> None:
        def use() -> Any:
            with self._pool.lease(timeout=20) as lease:
                lease.exec("x = token", token=token)
                future = lease.submit("chaoswork:echo", token)
                return lease.eval("x"), future.result(30)

        self._survives(use, (token, (token, b"")), vv.WorkerError)

    def named(self, token: Any) -> None:
        name = self._chance.choice(["ann", "bob"])

        def use() -> Any:
            worker = self._pool.named(name)
            answer = worker.call("chaoswork:echo", token)
            if self._chance.random() < 0.1:
                worker.kill()
            return answer

        self._survives(use, (token, b""), vv.WorkerError)

    def mapped(self, token: Any) -> None:
        items = [(token, n) for n in range(self._chance.randrange(1, 100))]
        self._survives(lambda: list(self._pool.map("chaoswork:echo", items)), [(item, b"") for item in items])

    def impatient(self, token: Any) -> None:
        view = self._pool.options(queue_timeout=self._chance.choice([0, 0.02]))
        self._survives(lambda: view.call("chaoswork:echo", token), (token, b""), vv.TooManyWaiting)

    def abandoned(self, token: Any) -> None:
        view = self._pool.options(timeout=0.02, on_timeout="abandon")
        self._survives(lambda: view.call("chaoswork:nap", token, 0.1), token, vv.CallTimeout)


def disturb(pool: vv.Pool, end: float, seed: int) -> Counter[str]:
    """Until then, do to the pool what may happen to one; return how often each."""
    chance, done = random.Random(seed), Counter[str]()
    while time.monotonic() < end:
        time.sleep(0.05 + chance.random() * 0.15)
        what = chance.choice(["kill", "kill", "kill", "stop", "terminate", "reload", "reap", "look"])
        done[what] += 1
        workers = [info for info in pool.workers() if info.pid]
        try:
            if what in ("kill", "stop") and workers:
                os.kill(chance.choice(workers).pid or 0, signal.SIGKILL if what == "kill" else signal.SIGTERM)
            elif what == "terminate" and workers:
                pool.terminate(chance.choice(workers).id)
            elif what == "reload":
                pool.reload()
            elif what == "reap":
                pool.reap()
            elif what == "look":
                pool.stats()
        except (ProcessLookupError, LookupError, vv.WorkerError) as error:
            done[type(error).__name__] += 1
    return done


@pytest.mark.slow
def test_every_call_ends_once_with_its_own_answer_or_a_typed_error(
    home: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """A while of it (`--chaos SECONDS`); at the end nothing is left, which each test here is checked for."""
    (tmp_path / "chaoswork.py").write_text(WORK)
    seed = int(os.environ.get("VENVOY_CHAOS_SEED", time.time_ns() % 10_000))
    print(f"VENVOY_CHAOS_SEED={seed}")
    seconds = pytestconfig.getoption("--chaos")
    events: list[vv.Event] = []
    options = vv.WorkerOptions(paths=[tmp_path], output="discard", grace_period=0.3, max_calls=300)
    pool = vv.Pool(
        module="chaoswork",
        workers=(2, 4),
        worker=options,
        home=home,
        on_event=events.append,
        scale=vv.ScalePolicy(idle_timeout=0.3),
        restart=vv.RestartPolicy(max_failures=1000, max_backoff=0.2),
    )
    with pool:
        pool.call("chaoswork:echo", 0)
        files = sum(1 for _ in home.rglob("*"))
        end = time.monotonic() + seconds
        callers = [Caller(pool, seed + number, end) for number in range(CALLERS)]
        done = disturb(pool, end, seed)
        for caller in callers:
            caller.thread.join(40)
        assert not [caller.thread.name for caller in callers if caller.thread.is_alive()], "hangs"
        assert [text for caller in callers for text in caller.wrong] == []
        assert pool.call("chaoswork:echo", "after") == ("after", b"")
        stats = pool.stats()
        assert stats.waiting == 0
    print(sum((caller.counts for caller in callers), Counter()), done, stats)
    ends = Counter((e.pool, e.worker) for e in events if e.kind in ("crashed", "retired", "start_failed"))
    assert set(ends.values()) == {1}, "one death, one event"
    assert set(ends) == {(e.pool, e.worker) for e in events if e.kind == "spawned"}
    assert sum(1 for _ in home.rglob("*")) == files
    assert done["kill"] > seconds / 4
