"""Options of single calls: how long to wait for a worker, what to try again, what to leave running."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import venvoy as vv

MakePool = Callable[..., vv.Pool]
Until = Callable[..., None]
IsSettled = Callable[..., None]
WAYS = ["call", "submit"]


def run(pool: Any, way: str, *args: Any) -> Any:
    """Run a call in one of the two ways."""
    return pool.call(*args) if way == "call" else pool.submit(*args).result(30)


# --- waiting in the queue -------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_queue_timeout_zero_fails_at_once_when_all_are_busy_having_grown_first(
    make_pool: MakePool, tmp_path: Path, until: Until, way: str
) -> None:
    """While other callers wait."""
    pool = make_pool(workers=(1, 2))
    impatient = pool.options(queue_timeout=0)
    assert run(impatient, way, "poolwork:double", 1) == 2  # the pool opens for it
    gate = tmp_path / "gate"
    first = pool.submit("poolwork:wait_for", str(gate), 20.0, 1)
    second = impatient.submit("poolwork:wait_for", str(gate), 20.0, 2)  # the pool grows for it
    until(lambda: pool.stats().workers["busy"] == 2)
    patient = pool.submit("poolwork:double", 3)
    begin = time.monotonic()
    with pytest.raises(vv.TooManyWaiting, match="busy"):
        run(impatient, way, "poolwork:double", 1)
    assert time.monotonic() - begin < 0.3
    assert pool.stats().waiting == 1
    gate.touch()
    assert [first.result(20), second.result(20), patient.result(20)] == [1, 2, 6]


@pytest.mark.parametrize("way", WAYS)
def test_queue_timeout_bounds_the_wait_and_not_the_work(
    make_pool: MakePool, tmp_path: Path, until: Until, way: str
) -> None:
    """A call that has got its worker in time may take as long as it likes."""
    pool = make_pool(workers=1)
    view = pool.options(queue_timeout=0.2)
    pool.warm()
    assert run(view, way, "poolwork:nap", 0.5, "slept") == "slept"
    gate, side = tmp_path / "gate", tmp_path / "ran"
    running = pool.submit("poolwork:wait_for", str(gate))
    until(lambda: pool.stats().workers["busy"] == 1)
    begin = time.monotonic()
    with pytest.raises(vv.TooManyWaiting, match=r"0\.2 s"):
        run(view, way, "poolwork:touch", str(side))
    assert 0.15 < time.monotonic() - begin < 1.0
    gate.touch()
    running.result(20)
    assert pool.call("poolwork:double", 1) == 2
    assert not side.exists()


def test_the_deadline_comes_first_if_it_is_earlier(make_pool: MakePool, tmp_path: Path, until: Until) -> None:
    """And is a `CallTimeout` then."""
    pool = make_pool(workers=1)
    gate = tmp_path / "gate"
    running = pool.submit("poolwork:wait_for", str(gate))
    until(lambda: pool.stats().workers["busy"] == 1)
    for way in WAYS:
        with pytest.raises(vv.CallTimeout):
            run(pool.options(timeout=0.1, queue_timeout=5), way, "poolwork:pid")
        with pytest.raises(vv.TooManyWaiting):
            run(pool.options(timeout=5, queue_timeout=0.1), way, "poolwork:pid")
    gate.touch()
    running.result(20)


def test_max_waiting_bounds_the_queue(make_pool: MakePool, tmp_path: Path, until: Until) -> None:
    """One more is refused at once, by `call`, `submit` and `lease` alike; there is room again afterwards."""
    pool = make_pool(workers=1, max_waiting=2)
    pool.warm()
    gate = tmp_path / "gate"
    running = pool.submit("poolwork:wait_for", str(gate))
    until(lambda: pool.stats().workers["busy"] == 1)
    waiting = [pool.submit("poolwork:double", n) for n in range(2)]
    for use in (
        lambda: pool.call("poolwork:pid"),
        lambda: pool.submit("poolwork:pid"),
        lambda: pool.lease(timeout=5).__enter__(),
    ):
        with pytest.raises(vv.TooManyWaiting, match="max_waiting"):
            use()
    assert isinstance(vv.TooManyWaiting("x"), vv.PoolError)
    gate.touch()
    running.result(20)
    assert [future.result(20) for future in waiting] == [0, 2]
    assert pool.submit("poolwork:double", 4).result(20) == 8


# --- trying again -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [*WAYS, "lease.call", "lease.submit", "named"])
def test_retry_on_runs_a_call_again_after_these_errors_of_its_own(
    make_pool: MakePool, tmp_path: Path, way: str
) -> None:
    """As often as `retries` says, in every way to call."""
    pool = make_pool(workers=1)
    path = str(tmp_path / "attempts")
    options: dict[str, Any] = {"retries": 2, "retry_on": (KeyError, OSError)}
    if way.startswith("lease"):
        with pool.lease() as lease:
            assert run(lease.options(**options), way.partition(".")[2], "poolwork:succeed_at", path, 3) == 3
            with pytest.raises(OSError, match="attempt 6"):
                run(lease.options(**options), way.partition(".")[2], "poolwork:succeed_at", path, 9)
        return
    view = pool.named("alice").options(**options) if way == "named" else pool.options(**options)
    assert run(view, way, "poolwork:succeed_at", path, 3) == 3
    with pytest.raises(OSError, match="attempt 6"):
        run(view, way, "poolwork:succeed_at", path, 9)
    with pytest.raises(ValueError, match="as asked"):
        run(view, way, "poolwork:fail")


def test_a_retry_at_the_end_of_a_lease_or_pool_loses_no_future(make_pool: MakePool, tmp_path: Path) -> None:
    """Leaving the block waits for the last attempt."""
    options: dict[str, Any] = {"retries": 5, "retry_on": OSError}
    pool = make_pool(workers=1)
    with pool:
        with pool.lease() as lease:
            first = lease.options(**options).submit("poolwork:succeed_at", str(tmp_path / "a"), 4)
        second = pool.options(**options).submit("poolwork:succeed_at", str(tmp_path / "b"), 4)
    assert (first.result(10), second.result(10)) == (4, 4)


def test_a_retry_that_comes_after_the_end_is_told_so(make_pool: MakePool, tmp_path: Path) -> None:
    """A pool that is closed under calls that fail and are tried again completes every future."""
    for number in range(6):
        pool = make_pool(workers=2)
        pool.warm()
        view = pool.options(retries=10**6, retry_on=ValueError)
        futures = [view.submit("poolwork:fail") for _ in range(8)]
        time.sleep(0.01 * number)
        pool.close(0)
        for future in futures:
            assert isinstance(future.exception(10), vv.VenvoyError | ValueError)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"retry_on": KeyError}, ValueError),
        ({"retry_on": "KeyError", "retries": 1}, TypeError),
        ({"retry_on": (KeyError, 5), "retries": 1}, TypeError),
        ({"on_timeout": "ignore"}, ValueError),
        ({"queue_timeout": -1}, ValueError),
        ({"queue_timeout": "1"}, TypeError),
        ({"kill_on_exception": "yes"}, TypeError),
    ],
)
def test_wrong_options_are_refused_with_their_name(
    make_pool: MakePool, options: dict[str, Any], error: type[Exception]
) -> None:
    """When the view is made."""
    with pytest.raises(error, match=next(iter(options))):
        make_pool().options(**options)


# --- leaving work running -----------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_abandoned_work_goes_on_unseen_and_its_answer_reaches_nobody(
    make_pool: MakePool, tmp_path: Path, is_settled: IsSettled, way: str
) -> None:
    """The worker serves again once it has ended; another one serves meanwhile."""
    pool = make_pool(workers=(1, 2))
    pid, side = pool.call("poolwork:pid"), tmp_path / "side"
    view = pool.options(timeout=0.1, on_timeout="abandon")
    begin = time.monotonic()
    with pytest.raises(vv.CallTimeout):
        run(view, way, "poolwork:nap_and_touch", 1.2, str(side))
    assert time.monotonic() - begin < 0.8
    assert pool.call("poolwork:double", 4) == 8
    is_settled(pool)
    assert side.read_text().split() == [str(pid)]
    assert pool.stats().workers_ended == {}
    assert sorted(pool.map("poolwork:double", range(50))) == [2 * n for n in range(50)]


@pytest.mark.parametrize("way", WAYS)
def test_a_call_that_waits_is_dropped_at_its_deadline_also_with_abandon(
    make_pool: MakePool, tmp_path: Path, until: Until, way: str
) -> None:
    """What has not started never starts, sent ahead or not."""
    pool = make_pool(workers=1)
    for future in [pool.submit("poolwork:double", n) for n in range(50)]:
        future.result(20)  # quick calls are sent ahead from now on
    gate, side = tmp_path / "gate", tmp_path / "side"
    running = pool.submit("poolwork:wait_for", str(gate))
    until(lambda: pool.stats().workers["busy"] == 1)
    with pytest.raises(vv.CallTimeout):
        run(pool.options(timeout=0.15, on_timeout="abandon"), way, "poolwork:touch", str(side))
    gate.touch()
    running.result(20)
    assert pool.call("poolwork:double", 1) == 2
    assert not side.exists()


# --- ending workers whose call raised -------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("level", ["pool", "call"])
def test_kill_on_exception_ends_a_worker_whose_call_raised(
    make_pool: MakePool, way: str, level: str, until: Until
) -> None:
    """The error is the call's own; the next call has another worker, and no crash is counted."""
    pool = make_pool(workers=1, options={"kill_on_exception": True} if level == "pool" else {})
    view: Any = pool if level == "pool" else pool.options(kill_on_exception=True)
    for _ in range(3):
        pid = run(view, way, "poolwork:pid")
        assert run(view, way, "poolwork:pid") == pid
        with pytest.raises(ValueError, match="as asked"):
            run(view, way, "poolwork:fail")
        assert run(view, way, "poolwork:pid") != pid
        until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"))
    assert pool.stats().workers_crashed == 0
    spared: Any = pool.options(kill_on_exception=False)
    pid = spared.call("poolwork:pid")
    with pytest.raises(ValueError, match="as asked"):
        run(spared, way, "poolwork:fail")
    assert run(spared, way, "poolwork:pid") == pid


def test_no_call_runs_on_a_worker_after_one_that_raised(make_pool: MakePool) -> None:
    """Among many that are quick and might be sent ahead."""
    pool = make_pool(workers=2, options={"kill_on_exception": True})
    for future in [pool.submit("poolwork:double", n) for n in range(100)]:
        future.result(20)
    futures = [pool.submit("poolwork:raise_then_pid", n % 10 == 5) for n in range(40)]
    pids, dead = [], []
    for future in futures:
        error = future.exception(30)
        if error is None:
            pids.append(future.result())
        else:
            dead.append(int(str(error)))
    assert len(dead) == 4 == len(set(dead))
    assert len(pids) == 36


@pytest.mark.parametrize("threads", [8])
def test_all_options_at_once_from_many_threads(make_pool: MakePool, tmp_path: Path, threads: int) -> None:
    """Every call ends with its own answer or an error that one of the options allows."""
    pool = make_pool(workers=(1, 2), max_waiting=6)
    wrong: list[object] = []

    def use(seed: int) -> None:
        view = pool.options(timeout=2.0, queue_timeout=0.05 * (seed % 3), retries=1, retry_on=OSError)
        for n in range(40):
            try:
                answer = view.call("poolwork:double", (seed, n))
                if answer != (seed, n, seed, n):
                    wrong.append(answer)
            except vv.TooManyWaiting:
                pass
            except BaseException as error:
                wrong.append(error)

    users = [threading.Thread(target=use, args=(seed,)) for seed in range(threads)]
    for user in users:
        user.start()
    for user in users:
        user.join(40)
    assert wrong == []


def test_a_word_that_is_none_of_the_options_is_named_with_the_right_one() -> None:
    """Or with the place where it belongs."""
    with pytest.raises(TypeError, match=r"Pool\(\) has no option 'wrokers'; did you mean 'workers'\?"):
        vv.Pool(wrokers=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"no option 'timeout'; write pool\.options\(timeout=\.\.\.\)"):
        vv.Pool(timeout=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"no option 'paths'; write worker=WorkerOptions\(paths=\.\.\.\)"):
        vv.Pool(paths=["."])  # type: ignore[call-arg]
    with vv.Pool(workers=1) as pool:
        with pytest.raises(TypeError, match=r"options\(\) has no option 'timout'; did you mean 'timeout'\?"):
            pool.options(timout=2)  # type: ignore[call-arg]
        with pytest.raises(vv.TargetNotFound, match=r"'math\.sqrt' is a bare name.* use 'math:sqrt'"):
            pool.call("math.sqrt", 4)
