"""A lease: one worker for one user."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]
Until = Callable[..., None]
IsSettled = Callable[..., None]


def test_a_lease_is_one_worker_with_state(make_pool: MakePool) -> None:
    """All its calls run in one process, in one namespace; state of modules stays too."""
    pool = make_pool(workers=2)
    with pool.lease() as worker:
        assert {worker.call("poolwork:pid") for _ in range(5)} == {worker.pid}
        assert worker.submit("poolwork:pid").result(20) == worker.pid
        worker.exec("import math\nx = a + 1\ndef f(n): return n * x", a=4)
        assert worker.eval("f(math.floor(2.5))") == 10
        worker.call("poolwork:remember", "key", "value")
        assert worker.eval("y + x", y=1) == 6
        assert worker.call("poolwork:recall", "key") == "value"


def test_the_namespace_ends_with_the_lease(make_pool: MakePool) -> None:
    """The next user of the same worker finds nothing of it, and eval of the pool never does."""
    pool = make_pool(workers=1)
    with pool.lease() as worker:
        worker.exec("secret = 1")
        pid = worker.pid
    with pool.lease() as worker:
        assert worker.pid == pid
        with pytest.raises(NameError):
            worker.eval("secret")
    with pytest.raises(NameError):
        pool.eval("secret")


def test_no_lease_ever_finds_names_of_an_earlier_one(make_pool: MakePool) -> None:
    """Also when the earlier one has been collected, and its memory is that of the new one."""
    pool = make_pool(workers=1)
    for _ in range(20):
        with pool.lease() as worker:
            assert worker.eval("'secret' in globals()") is False
            worker.exec("secret = 1")
        del worker


def test_nobody_else_gets_a_leased_worker(make_pool: MakePool) -> None:
    """Calls, submits, maps and other leases go to the other workers, or wait."""
    pool = make_pool(workers=3)
    with pool.lease() as one, pool.lease() as two:
        assert one.pid != two.pid
        others = {pool.call("poolwork:pid") for _ in range(5)}
        others |= {pool.submit("poolwork:pid").result(20) for _ in range(5)}
        others |= set(pool.map(vv.by_source(pid_of_worker), range(30)))
        assert others.isdisjoint({one.pid, two.pid})


def pid_of_worker(_: object) -> int:
    """Return where it runs."""
    import os

    return os.getpid()


def test_a_pool_grows_for_calls_beside_a_lease(make_pool: MakePool) -> None:
    """A leased worker counts as busy."""
    pool = make_pool(workers=(1, 2))
    with pool.lease() as worker:
        assert pool.call("poolwork:pid") != worker.pid


def test_a_lease_waits_for_a_worker_up_to_its_timeout(make_pool: MakePool, is_settled: IsSettled) -> None:
    """CallTimeout after that; granted as soon as one is free otherwise."""
    pool = make_pool(workers=1)
    with pool.lease() as worker:
        began = time.monotonic()
        with pytest.raises(vv.CallTimeout), pool.lease(timeout=0.3):
            pass
        assert 0.29 <= time.monotonic() - began < 2
        assert worker.call("poolwork:double", 1) == 2
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(pool.lease(timeout=20).__enter__)
            time.sleep(0.1)
            assert not waiting.done()
            worker.__exit__(None, None, None)
            other = waiting.result(20)
    assert other.call("poolwork:double", 2) == 4
    other.__exit__(None, None, None)
    is_settled(pool, 1)


def test_submitted_calls_run_in_their_order(make_pool: MakePool) -> None:
    """One after another, also between calls; leaving the block waits for them."""
    pool = make_pool(workers=2)
    with pool.lease() as worker:
        worker.exec("seen = []")
        worker.eval("seen.append('first')")
        futures = [worker.submit("poolwork:nap", 0.01, n) for n in range(10)]
        assert [future.result(20) for future in futures] == list(range(10))
        last = worker.submit("poolwork:nap", 0.2, "last")
    assert last.result(0) == "last"


def test_threads_share_a_lease(make_pool: MakePool) -> None:
    """Their calls run one after another, and each gets its own answer."""
    pool = make_pool(workers=1)
    with pool.lease() as worker, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: worker.call("poolwork:double", n), range(100)))
    assert answers == [2 * n for n in range(100)]


@pytest.mark.parametrize("end", ["crash", "timeout", "kill", "terminate"])
def test_a_lease_whose_worker_is_gone_says_so(make_pool: MakePool, is_settled: IsSettled, end: str) -> None:
    """The first call has the reason, all after it WorkerError: state is never lost silently. The pool is full again."""
    pool = make_pool(workers=1)
    with pool.lease() as worker:
        worker.exec("x = 1")
        if end == "crash":
            with pytest.raises(vv.WorkerCrashed):
                worker.call("poolwork:die")
        elif end == "timeout":
            with pytest.raises(vv.CallTimeout):
                worker.options(timeout=0.2).call("poolwork:nap", 60)
        else:
            getattr(worker, end)()
            with pytest.raises(vv.WorkerError):
                worker.call("poolwork:nap", 20)
        for use in (lambda: worker.eval("x"), lambda: worker.call("poolwork:pid"), lambda: worker.pid):
            with pytest.raises(vv.WorkerError):
                use()
    is_settled(pool, 1)
    assert pool.call("poolwork:double", 2) == 4


def test_errors_of_calls_leave_the_lease_as_it_is(make_pool: MakePool) -> None:
    """What the code raises, what cannot be encoded, unknown targets: the state is still there."""
    pool = make_pool(workers=1)
    with pool.lease() as worker:
        worker.exec("x = 1")
        for target, error in [
            ("poolwork:fail", ValueError),
            ("poolwork:unpicklable", vv.EncodingError),
            ("poolwork:nothing", vv.TargetNotFound),
        ]:
            with pytest.raises(error):
                worker.call(target)
        with pytest.raises(vv.EncodingError):
            worker.call("poolwork:double", threading.Lock())
        with pytest.raises(SyntaxError):
            worker.eval("x +")
        with pytest.raises(ZeroDivisionError):
            worker.exec("x = 1 / 0")
        assert worker.eval("x") == 1


@pytest.mark.parametrize("way", ["call", "submit", "eval", "exec", "pid", "kill", "terminate"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lease_is_used_inside_its_block(make_pool: MakePool, way: str, when: str) -> None:
    """Before and after it, every use is a WorkerError, and harms nobody who has the worker now."""
    pool = make_pool(workers=1)
    lease = pool.lease()
    if when == "after":
        with lease:
            lease.call("poolwork:pid")
    pid = pool.call("poolwork:pid")
    uses: dict[str, Callable[[], object]] = {
        "call": lambda: lease.call("poolwork:pid"),
        "submit": lambda: lease.submit("poolwork:pid").result(20),
        "eval": lambda: lease.eval("1"),
        "exec": lambda: lease.exec("1"),
        "pid": lambda: lease.pid,
        "kill": lease.kill,
        "terminate": lease.terminate,
    }
    with pytest.raises(vv.WorkerError):
        uses[way]()
    assert pool.call("poolwork:pid") == pid


def test_leaving_with_an_error_returns_the_worker(make_pool: MakePool, is_settled: IsSettled) -> None:
    """Also while a submitted call runs, which is not waited for more than the pool's own rules say."""
    pool = make_pool(workers=1)
    with pytest.raises(KeyError), pool.lease() as worker:  # noqa: PT012 - the block is what is tested
        worker.submit("poolwork:nap", 0.1)
        raise KeyError
    assert pool.call("poolwork:double", 2) == 4
    is_settled(pool, 1)


def test_a_lease_ends_with_its_pool(make_pool: MakePool, until: Until) -> None:
    """close() is bounded although somebody holds a worker; the holder gets an error."""
    pool = make_pool(workers=1)
    with pool.lease() as worker:
        began = time.monotonic()
        pool.close(0.2)
        assert time.monotonic() - began < 3.5
        with pytest.raises(vv.VenvoyError):
            worker.call("poolwork:pid")


def test_stats_and_infos_show_a_leased_worker_as_busy(make_pool: MakePool, until: Until, tmp_path: Path) -> None:
    """And what waits, what was done, and the name."""
    pool = make_pool(workers=1, name="shown")
    for n in range(3):
        pool.call("poolwork:double", n)
    with pool.lease() as worker:
        [info] = pool.workers()
        assert (info.pid, info.state) == (worker.pid, "busy")
        assert info.age > 0
        waiting = pool.submit("poolwork:pid")
        stats = pool.stats()
        assert (stats.name, stats.phase, stats.waiting, stats.workers["busy"]) == ("shown", "open", 1, 1)
    waiting.result(20)
    until(lambda: pool.stats().calls_done >= 4)
    with pytest.raises(AttributeError):
        stats.waiting = 0  # type: ignore[misc]
    assert "shown" in repr(pool)


def test_output_is_kept_per_worker_and_stream(make_pool: MakePool, until: Until) -> None:
    """Of one worker, of all, of one that has ended."""
    pool = make_pool(workers=2)
    with pool.lease() as one, pool.lease() as two:
        one.call("poolwork:out", "from one")
        two.call("poolwork:out", "from two")
        two.exec("import sys; print('to stderr', file=sys.stderr, flush=True)")
        ids = {info.pid: info.id for info in pool.workers()}
        first, second = ids[one.pid], ids[two.pid]
    until(lambda: "from one" in pool.output(first) and "to stderr" in pool.output(second))
    assert "from two" not in pool.output(first)
    assert "to stderr" not in pool.output(second, "stdout")
    assert pool.output(second, "stderr").strip() == "to stderr"
    assert {"from one", "from two"} <= set(pool.output().split("\n"))
    pool.kill(first)
    until(lambda: first not in [info.id for info in pool.workers()])
    assert "from one" in pool.output(first)


def test_a_lease_that_has_ended_is_of_no_use_at_once(make_pool: MakePool) -> None:
    """Not only once its worker has been taken back, which happens on another thread a moment later."""
    pool = make_pool(workers=1)
    for _ in range(30):
        with pool.lease() as lease:
            pass
        with pytest.raises(vv.WorkerError, match="has ended"):
            lease.call("poolwork:pid")


# --- several at once ------------------------------------------------------------------------------


def test_leases_are_so_many_workers_at_once(make_pool: MakePool, is_settled: IsSettled) -> None:
    """Each another one, grown if need be; all are given back at the end, after an error too."""
    pool = make_pool(workers=(1, 3))
    with pool.leases(3) as leases:
        assert len({lease.pid for lease in leases}) == 3
        assert [lease.call("poolwork:double", n) for n, lease in enumerate(leases)] == [0, 2, 4]
    is_settled(pool, 3)
    with pytest.raises(ValueError, match="as asked"), pool.leases(3) as leases:
        leases[1].call("poolwork:fail")
    is_settled(pool, 3)


def test_leases_give_what_was_there_in_time(make_pool: MakePool) -> None:
    """Fewer than asked for, at least one; none is an error."""
    pool = make_pool(workers=2)
    with pool.lease(), pool.leases(2, timeout=0.3) as leases:
        assert len(leases) == 1
        with pytest.raises(vv.CallTimeout), pool.leases(1, timeout=0.1):
            pass
    with pool.leases(2, timeout=10) as leases:
        assert len(leases) == 2


@pytest.mark.parametrize("count", [0, -1, 3])
def test_more_leases_than_workers_are_refused(make_pool: MakePool, count: int) -> None:
    """As they would never all be there."""
    with pytest.raises(ValueError, match="at most 2"), make_pool(workers=2).leases(count):
        pass


def test_two_that_take_several_do_not_wait_for_each_other(make_pool: MakePool) -> None:
    """Each gets all it wants, one after the other."""
    pool = make_pool(workers=2)
    sizes: list[int] = []

    def take() -> None:
        for _ in range(10):
            with pool.leases(2, timeout=20) as leases:
                sizes.append(len(leases))

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert sizes == [2] * 30


def test_calls_on_a_lease_count_in_the_books(make_pool: MakePool, is_settled: IsSettled) -> None:
    """Of its worker and of the pool."""
    pool = make_pool(workers=1)
    with pool.lease() as lease:
        for n in range(3):
            lease.call("poolwork:double", n)
        lease.submit("poolwork:double", 3).result(10)
    is_settled(pool, 1)
    assert pool.workers()[0].calls == pool.stats().calls_done
    assert pool.stats().calls_done >= 4


def test_a_submitted_call_can_be_cancelled_while_it_runs(make_pool: MakePool, until: Until, tmp_path: Path) -> None:
    """It is stopped, its future says so, and the lease goes on."""
    with make_pool(workers=1).lease() as worker:
        future = worker.submit("poolwork:begin_and_wait_for", str(tmp_path / "began"), str(tmp_path / "never"))
        until((tmp_path / "began").exists)
        assert future.cancel()
        with pytest.raises(vv.CallCancelled):
            future.result(20)
        assert not future.cancel()
        assert worker.call("poolwork:pid") == worker.pid


def test_what_goes_wrong_with_a_submitted_call_is_its_futures_error(make_pool: MakePool) -> None:
    """An argument that cannot travel, and the death of the worker."""
    with make_pool(workers=1).lease() as worker:
        assert isinstance(worker.submit("poolwork:double", threading.Lock()).exception(20), vv.EncodingError)
        assert isinstance(worker.submit("poolwork:die").exception(20), vv.WorkerCrashed)


def test_a_stream_of_a_lease_waits_for_its_turn_up_to_its_deadline(
    make_pool: MakePool, until: Until, tmp_path: Path
) -> None:
    """Nothing else can run there meanwhile; afterwards it has it."""
    with make_pool(workers=1).lease() as worker:
        future = worker.submit("poolwork:begin_and_wait_for", str(tmp_path / "began"), str(tmp_path / "end"), then=7)
        until((tmp_path / "began").exists)
        with pytest.raises(vv.CallTimeout):
            next(worker.options(timeout=0.1).stream("builtins:range", 3))
        (tmp_path / "end").touch()
        assert list(worker.stream("builtins:range", 3)) == [0, 1, 2]
        assert future.result(20) == 7


def test_whoever_takes_several_waits_for_who_does_so_already_up_to_a_timeout(make_pool: MakePool, until: Until) -> None:
    """One at a time gathers workers; whoever gives up leaves nothing behind."""
    pool = make_pool(workers=1)
    got: list[int] = []

    def take() -> None:
        with pool.leases(1, timeout=20) as workers:
            got.append(workers[0].pid)

    with pool.lease() as worker:
        first = threading.Thread(target=take, daemon=True)
        first.start()
        until(lambda: pool.stats().waiting)
        with pytest.raises(vv.CallTimeout, match=r"leases\(\): no worker was free"), pool.leases(1, timeout=0.1):
            pass
        pid = worker.pid
    first.join(20)
    assert got == [pid]
    with pool.leases(1, timeout=20) as workers:
        assert workers[0].pid == pid
