"""Functions of the host's that a call in a worker calls: where they run, what travels; nothing waits for itself."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import venvoy as vv
from venvoy.pool.drivers import Drive

MakePool = Callable[..., vv.Pool]


@pytest.fixture
def pool(make_pool: MakePool) -> vv.Pool:
    return make_pool(module="asking", workers=1)


def test_a_callback_runs_here_while_the_call_runs(make_pool: MakePool, interpreter: str) -> None:
    """On every Python: arguments and results travel, in order."""
    pool = make_pool(interpreter, "asking", workers=1)
    seen: list[int] = []

    def double(number: int) -> int:
        seen.append(number)
        return 2 * number

    assert pool.call("each", vv.callback(double), 4) == [0, 2, 4, 6]
    assert seen == [0, 1, 2, 3]


def test_it_runs_in_the_thread_that_waits(pool: vv.Pool) -> None:
    """As a function that is called does; for futures on a thread of the pool's."""
    here = threading.get_ident()
    thread = vv.callback(lambda _: threading.get_ident())
    assert pool.call("each", thread, 1) == [here]
    assert pool.submit("each", thread, 1).result() != [here]


def test_callbacks_can_be_anywhere_in_the_arguments(pool: vv.Pool) -> None:
    """Nested in containers, several of them, in keyword arguments, and in those of a map."""
    functions = {"add": vv.callback(lambda a, b: a + b), "all": [vv.callback(max), vv.callback(min)]}
    text = "functions['add'](1, 2), [f(3, 4) for f in functions['all']]"
    assert pool.call(lambda functions: eval(text), functions=functions) == (3, [4, 3])
    assert list(pool.map(lambda f, x: f(x), [vv.callback(abs)] * 3, [-1, -2, -3])) == [1, 2, 3]


def test_large_values_travel_both_ways(pool: vv.Pool) -> None:
    """More than any socket holds at a time."""
    large = os.urandom(3_000_000)
    assert pool.call(lambda f, data: f(data) == data[::-1], vv.callback(lambda data: data[::-1]), large)


def test_exposed_functions_are_called_by_name(make_pool: MakePool) -> None:
    """`expose` goes to all workers of a pool, leased and named ones too."""
    log: list[Any] = []

    def write(*row: Any, **more: Any) -> int:
        log.append((row, more))
        return len(log)

    pool = make_pool(module="asking", workers=1, expose={"log": write})
    assert pool.call("exposed", "log", 1, level=2) == 1
    assert pool.submit("exposed", "log", "b").result() == 2
    with pool.lease() as lease:
        assert lease.call("exposed", "log") == 3
        assert lease.submit("exposed", "log").result() == 4
    assert pool.named("other").call("exposed", "log") == 5
    assert log[:2] == [((1,), {"level": 2}), (("b",), {})]


def test_a_name_that_is_not_exposed_is_an_error_that_lists_the_others(make_pool: MakePool) -> None:
    """Also where nothing is exposed."""
    pool = make_pool(module="asking", workers=1, expose={"log": print})
    with pytest.raises(LookupError, match=r"exposes no function 'lag'.*'log'"):
        pool.call("exposed", "lag")
    with pytest.raises(LookupError, match="it exposes none"):
        make_pool(module="asking", workers=1).submit("exposed", "log").result()


class Odd(ValueError):
    """An error that no worker has."""


def raise_odd(number: int) -> None:
    raise Odd(f"odd: {number}")


def test_exceptions_travel_both_ways(make_pool: MakePool, interpreter: str) -> None:
    """As themselves where the worker has the class, else on the nearest builtin; with the host's traceback as cause."""
    pool = make_pool(interpreter, "asking", workers=1)
    name, kinds, text, cause = pool.call("outcome", vv.callback(lambda: {}["key"]))
    assert (name, text) == ("KeyError", "'key'")
    assert "test_callbacks.py" in cause
    name, kinds, text, cause = pool.call("outcome", vv.callback(raise_odd), 3)
    assert (name, text) == ("Odd", "odd: 3")
    assert "ValueError" in kinds
    with pytest.raises(KeyError):  # nobody there catches it
        pool.call("each", vv.callback(lambda _: {}["key"]), 1)


def test_what_cannot_travel_is_an_error_where_it_is_used(pool: vv.Pool) -> None:
    """A result of the host's in the worker, an argument of the worker's there; the worker serves on."""
    name, _, text, _ = pool.call("outcome", vv.callback(threading.Lock))
    assert "TypeError" in name or "EncodingError" in name
    assert "the result (a lock) of callback 0" in text
    with pytest.raises(vv.EncodingError, match="pickle"):
        pool.call(lambda f: f(open("/dev/null")), vv.callback(print))  # noqa: SIM115
    with pytest.raises(vv.EncodingError, match="belongs to the call it came with"):
        pool.call(lambda f: f, vv.callback(print))
    with pytest.raises(vv.EncodingError, match="argument of a call only"):
        pool.eval("f(1)", f=vv.callback(print))
    assert pool.call("each", vv.callback(abs), 1) == [0]


def test_only_functions_can_be_called_back() -> None:
    """Refused before anything is sent."""
    with pytest.raises(TypeError, match="takes a function"):
        vv.callback(3)  # type: ignore[arg-type]
    for wrong in ({"a": 3}, {3: print}, [print]):
        with pytest.raises(TypeError, match="expose is a dict of names to functions"):
            vv.Pool(expose=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["call", "submit"])
def test_what_would_end_a_thread(pool: vv.Pool, how: str) -> None:
    """`sys.exit` in a callback ends who waits for the call; for a future, whose thread is ours, it is an error."""

    def leave() -> None:
        raise SystemExit(3)

    if how == "call":
        with pytest.raises(SystemExit):
            pool.call("outcome", vv.callback(leave))
    else:
        name, kinds, _, _ = pool.submit("outcome", vv.callback(leave)).result()
        assert name == "SystemExit"
        assert "SystemExit" not in kinds[1:]
    assert pool.call("each", vv.callback(abs), 1) == [0]


def test_a_coroutine_function_needs_another_face(pool: vv.Pool) -> None:
    """It is not left unawaited."""

    async def later() -> int:
        return 1

    assert "coroutine" in pool.call("outcome", vv.callback(later))[2]


# --- threads of the worker ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["call", "submit"])
def test_any_thread_of_the_worker_may_ask(make_pool: MakePool, interpreter: str, how: str) -> None:
    """Each gets its own answer, whoever reads it, and whether or not the main thread asks too."""
    pool = make_pool(interpreter, "asking", workers=1)
    run = pool.call if how == "call" else lambda *args: pool.submit(*args).result()
    assert run("from_threads", vv.callback(lambda x: x * x), 12) == [x * x for x in range(12)]
    assert run("beside_a_thread", vv.callback(lambda x: x), 30) == (list(range(30)), [-x for x in range(30)])


def test_a_callback_ends_with_its_call(pool: vv.Pool) -> None:
    """Used later it is a clear error, in the worker alone; so is `host()` between calls."""
    pool.call("keep", vv.callback(abs))
    with pytest.raises(RuntimeError, match="this callback belongs to has ended"):
        pool.call("use_kept", 1)


@pytest.mark.parametrize("workers", ["one call at a time", "two"])
@pytest.mark.parametrize("face", ["call", "submit"])
def test_answers_that_nobody_reads_do_not_stand_in_the_way_of_a_reply(
    make_pool: MakePool, workers: str, face: str
) -> None:
    """A call ends while threads of its own wait: the reply and the answers are more than a channel takes at a time."""
    size = 200_000 if workers == "one call at a time" else 3_000_000  # sockets take more
    options = {"segment_bytes": None, "concurrency": 2 if workers == "two" else 1}
    pool = make_pool(module="asking", workers=1, options=options)
    view = pool.options(timeout=20)
    arguments = ("leave_asking", vv.callback(lambda _: bytes(size)), 8, size)
    for _ in range(3):
        result = view.call(*arguments) if face == "call" else view.submit(*arguments).result()
        assert result == bytes(size)
    assert pool.stats().workers_started == 1


def test_who_waits_for_an_answer_when_its_call_ends_gets_none(make_pool: MakePool, until: Callable[..., None]) -> None:
    """A thread that outlives its call holds up neither the next call nor itself."""
    pool = make_pool(module="asking", workers=1)
    held = threading.Event()
    future = pool.submit("ask_late", vv.callback(lambda: held.wait(10)))
    time.sleep(0.1)
    held.set()
    future.result(10)
    until(lambda: pool.call("what_is_kept"), what="the thread left behind has ended")
    assert pool.call("each", vv.callback(abs), 2) == [0, 1]


# --- calls within calls ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("inner", ["call", "submit", "map"])
@pytest.mark.parametrize("outer", ["call", "submit"])
def test_a_callback_may_call_its_own_pool(make_pool: MakePool, workers: int, inner: str, outer: str) -> None:
    """Where all workers are at work, on the very worker that waits for it."""
    pool = make_pool(module="asking", workers=workers)
    ways: dict[str, Callable[[int], Any]] = {
        "call": lambda x: pool.call("operator:neg", x),
        "submit": lambda x: pool.submit("operator:neg", x).result(),
        "map": lambda x: next(iter(pool.map("operator:neg", [x]))),
    }
    run = pool.call if outer == "call" else lambda *args: pool.submit(*args).result(20)
    assert run("each", vv.callback(ways[inner]), 3) == [0, -1, -2]
    assert run("from_threads", vv.callback(ways[inner]), 6) == [-5, -4, -3, -2, -1, 0]


def test_many_threads_whose_callbacks_call_the_pool(pool: vv.Pool) -> None:
    """More of them than calls may be nested: they are no nesting."""
    assert pool.call("from_threads", vv.callback(lambda x: pool.call("operator:neg", x)), 40) == list(range(-39, 1))


def test_lease_and_named_worker_may_be_called_from_their_own_callbacks(pool: vv.Pool) -> None:
    """Whose turn it is belongs to the thread that answers."""
    with pool.lease() as lease:
        assert lease.call("each", vv.callback(lambda x: lease.call("operator:neg", x)), 2) == [0, -1]
        assert lease.submit("each", vv.callback(lambda x: lease.call("operator:neg", x)), 2).result(10) == [0, -1]
    other = pool.named("other")
    assert other.call("each", vv.callback(lambda x: other.call("operator:neg", x)), 2) == [0, -1]


def test_nesting_has_an_end(pool: vv.Pool) -> None:
    """Calls within calls without end are an error that says so; ten levels are fine."""

    def down(levels: int) -> int:
        return 1 + sum(pool.call("each", vv.callback(lambda _: down(levels - 1)), 1)) if levels else 0

    assert down(10) == 10
    with pytest.raises(vv.NestedTooDeeply, match="levels deep"):
        down(100)
    assert down(2) == 2


def test_waiting_for_a_worker_that_can_never_be_free_is_an_error(pool: vv.Pool) -> None:
    """A lease wants a worker to itself; a callback that asks for the only one would wait for ever."""

    def take(_: int) -> None:
        with pool.lease():
            raise AssertionError("it was given")

    with pytest.raises(vv.PoolError, match="wait for this very function"):  # the pool's first call: it is as any other
        pool.call("each", vv.callback(take), 1)


def test_a_nested_call_that_crashes_takes_the_outer_with_it(pool: vv.Pool) -> None:
    """They share the process; the pool goes on."""
    with pytest.raises(vv.WorkerCrashed):
        pool.call("each", vv.callback(lambda _: pool.call("os:_exit", 3)), 1)
    assert pool.call("operator:neg", 1) == -1


# --- ends -----------------------------------------------------------------------------------------


def test_the_worker_dies_while_the_callback_runs(pool: vv.Pool) -> None:
    """What the function returns is of no use any more; the call has crashed."""

    def murder(_: int) -> None:
        (pid,) = [worker.pid for worker in pool.workers() if worker.state == "busy"]  # the last one may be listed still
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)

    with pytest.raises(vv.WorkerCrashed):
        pool.call("each", vv.callback(murder), 1)
    with pytest.raises(vv.WorkerCrashed):
        pool.submit("each", vv.callback(murder), 1).result(20)
    assert pool.call("operator:neg", 1) == -1


def test_a_deadline_passes_while_the_worker_waits(make_pool: MakePool, until: Callable[..., None]) -> None:
    """The caller has its error when its own function is done; the worker is interrupted and serves on."""
    pool = make_pool(module="asking", workers=1)
    pid = pool.call("os:getpid")
    with pytest.raises(vv.CallTimeout):
        pool.options(timeout=0.15).call("cleanly", vv.callback(lambda: time.sleep(0.3)))
    until(lambda: pool.call("what_is_kept") == ["Cancelled"])
    assert pool.call("os:getpid") == pid


def test_the_deadline_of_a_future_passes_while_its_callback_runs(pool: vv.Pool) -> None:
    """Whoever waits for the future is told in time."""
    pool.warm()  # which may take longer than the call is given
    go = threading.Event()
    future = pool.options(timeout=0.15).submit("cleanly", vv.callback(lambda: go.wait(20)))
    begin = time.monotonic()
    with pytest.raises(vv.CallTimeout):
        future.result(15)
    assert time.monotonic() - begin < 5
    time.sleep(0.3)  # the interruption and the answer take different roads
    go.set()
    assert pool.call("what_is_kept") == ["Cancelled"]


def test_the_deadline_of_a_future_passes_just_before_its_callback_runs(
    pool: vv.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timer finds a call that runs, and the driver has the question in hand: one of them has to see to it."""
    asked, is_over = [], threading.Event()
    hear = Drive._hear

    def hear_late(self: Drive, frame: Any, job: Any) -> None:
        if job is not None and job.call.deadline is not None:
            time.sleep(max(0.0, job.call.deadline + 0.2 - time.monotonic()))
        hear(self, frame, job)

    monkeypatch.setattr(Drive, "_hear", hear_late)
    pool.call("os:getpid")
    future = pool.options(timeout=0.3).submit("cleanly", vv.callback(lambda: (asked.append(1), is_over.wait(20))))
    try:
        with pytest.raises(vv.CallTimeout):
            future.result(10)
        assert pool.call("what_is_kept") == ["Cancelled"]
        assert asked == []  # nobody wants to know any more
    finally:
        is_over.set()


def test_a_future_is_cancelled_while_its_callback_runs(make_pool: MakePool, until: Callable[..., None]) -> None:
    """The wait for the answer is interrupted at once; the answer that comes later is discarded."""
    pool = make_pool(module="asking", workers=1)
    entered, go = threading.Event(), threading.Event()
    future = pool.submit("cleanly", vv.callback(lambda: (entered.set(), go.wait(10))))
    assert entered.wait(10)
    assert future.cancel()
    time.sleep(0.3)
    go.set()
    with pytest.raises(vv.CallCancelled):
        future.result(10)
    until(lambda: pool.call("what_is_kept") == ["Cancelled"])


def test_a_deadline_reaches_calls_within_the_call(pool: vv.Pool) -> None:
    """A nested call has no more time than the one it runs within, and is stopped with it."""
    begin = time.monotonic()
    with pytest.raises(vv.CallTimeout):
        pool.options(timeout=0.3).call("each", vv.callback(lambda _: pool.call("time:sleep", 20)), 1)
    assert time.monotonic() - begin < 5
    assert pool.call("operator:neg", 1) == -1


def test_a_call_within_that_is_late_costs_those_after_it_nothing(make_pool: MakePool) -> None:
    """Neither another within the same call, nor the next one, though they run for longer than the grace period."""
    pool = make_pool(module="asking", workers=1)

    def answer(number: int) -> str:
        with pytest.raises(vv.CallTimeout):
            pool.options(timeout=0.1).call("time:sleep", 30)
        pool.call("time:sleep", 1.0)
        return "whole"

    assert pool.call("each", vv.callback(answer), 1) == ["whole"]
    with pytest.raises(vv.CallTimeout):
        pool.call("each", vv.callback(lambda _: pool.options(timeout=0.1).call("time:sleep", 30)), 1)
    pool.call("time:sleep", 1.0)
    assert pool.stats().workers_started == 1


def test_ctrl_c_in_a_callback_stops_the_call(make_pool: MakePool, until: Callable[..., None]) -> None:
    """As anywhere else in the thread that waits."""
    pool = make_pool(module="asking", workers=1)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.call("cleanly", vv.callback(interrupted))
    until(lambda: pool.call("what_is_kept") == ["Cancelled"])


def test_leaving_a_call_of_a_worker_that_runs_several(make_pool: MakePool, is_settled: Callable[..., None]) -> None:
    """Nothing there can be interrupted, so the wait for the answer ends with an error; the worker serves on."""
    pool = make_pool(module="asking", workers=1, options={"concurrency": 2, "grace_period": 20})
    pid = pool.call("os:getpid")

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.call("outcome", vv.callback(interrupted))
    with pytest.raises(vv.CallTimeout):
        pool.options(timeout=0.1).call("outcome", vv.callback(lambda: time.sleep(0.2)))
    is_settled(pool, 1)
    assert pool.call("os:getpid") == pid


def test_an_abandoned_call_is_told_that_nobody_answers(make_pool: MakePool, until: Callable[..., None]) -> None:
    """`on_timeout="abandon"` lets the code end by itself, so it must not wait for ever."""
    pool = make_pool(module="asking", workers=1)
    pool.warm()  # which may take longer than the call is given

    def code(ask: Callable[[], None]) -> None:
        import time

        from asking import kept, outcome

        time.sleep(0.8)
        kept[:] = [outcome(ask)[2]]

    pool.warm()  # a call whose deadline passes before it has begun never runs
    with pytest.raises(vv.CallTimeout):
        pool.options(timeout=0.4, on_timeout="abandon").call(code, vv.callback(print))
    until(lambda: pool.call("what_is_kept") == ["nobody waits for this call any more"])


def test_calls_sent_ahead_wait_for_the_one_that_asks(pool: vv.Pool) -> None:
    """They are not run within it."""
    order: list[Any] = []
    futures = [pool.submit("operator:neg", index) for index in range(20)]
    futures.append(pool.submit("each", vv.callback(order.append), 3))
    futures += [pool.submit("operator:neg", index) for index in range(20)]
    assert [future.result(20) for future in futures][20] == [None] * 3
    assert order == [0, 1, 2]


def test_attributes_of_a_callbacks_error_that_cannot_travel_are_left_out(pool: vv.Pool) -> None:
    """The error itself arrives, and comes back."""

    class Text(str):
        """Of this function, where no worker can find it."""

    def refuse(number: int) -> None:
        error = ValueError("not this one")
        error.why = Text("because")  # type: ignore[attr-defined]
        raise error

    with pytest.raises(ValueError, match="not this one"):
        pool.call("each", vv.callback(refuse), 1)
    assert pool.call("each", vv.callback(abs), 2) == [0, 1]
