"""How many workers there should be, and when: the policy alone, without a process."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import venvoy as vv
from venvoy.options import Size, WorkerOptions
from venvoy.policies import RestartPolicy, ScalePolicy
from venvoy.pool import leaving, policy
from venvoy.pool.phase import Phase
from venvoy.pool.restarts import Restarts
from venvoy.pool.roster import Roster, Rules, Ticket
from venvoy.workers.limits import Limits
from venvoy.workers.state import Reason, State
from venvoy.workers.worker import Worker

NOBODY = SimpleNamespace(responder=None)


def make_roster(least: int, most: int, *states: State, cooldown: float = 0.0, backoff: float = 1.0) -> Roster:
    """Return an open pool's facts, with workers in these states."""
    rules = Rules(scale=ScalePolicy(cooldown=cooldown), restart=RestartPolicy(backoff=backoff))
    roster = Roster(Size(least, most), "test", rules)
    roster.phase, roster.has_recipe = Phase.OPEN, True
    for number, state in enumerate(states, 1):
        worker = Worker(number, None, NOBODY, number - 1)  # type: ignore[arg-type]  # neither is asked for anything
        worker.lanes[0].state = state
        roster.workers[number] = worker
        if state is State.IDLE:
            roster.idle.append(worker.lanes[0])
    return roster


def let_wait(roster: Roster, count: int) -> None:
    """Let so many calls wait."""
    for _ in range(count):
        Ticket().wait_in(roster.waiting)


@pytest.mark.parametrize(
    ("states", "waiting", "wanted"),
    [
        ((), 0, 1),
        ((State.IDLE,), 0, 1),
        ((State.BUSY,), 0, 1),
        ((State.BUSY,), 1, 2),
        ((State.BUSY, State.ABANDONED), 5, 4),
        ((State.IDLE, State.IDLE), 0, 1),
    ],
)
def test_as_many_workers_are_wanted_as_there_is_work(states: tuple[State, ...], waiting: int, wanted: int) -> None:
    """Those at work and those that calls wait for, between the least and the most."""
    roster = make_roster(1, 4, *states)
    let_wait(roster, waiting)
    assert policy.wanted(roster) == wanted


def test_the_pool_grows_at_most_once_in_its_cooldown() -> None:
    """Below the least number the cooldown does not count."""
    roster = make_roster(1, 4, State.BUSY, cooldown=10.0)
    roster.last_grown = 100.0
    let_wait(roster, 2)
    assert policy.may_start(roster, 104.0) == (False, 6.0)
    assert policy.may_start(roster, 110.0) == (True, 0.0)
    roster.workers.clear()
    assert policy.may_start(roster, 104.0) == (True, 0.0)


def test_nobody_is_started_again_and_again_when_nobody_asks() -> None:
    """After a failed start the next one waits for its time and for somebody who wants it."""
    roster = make_roster(1, 4)
    roster.restarts.failed(100.0, lambda: vv.WorkerStartError("no"))
    assert policy.may_start(roster, 200.0) == (False, 0.0)
    let_wait(roster, 1)
    may, wait = policy.may_start(roster, 100.0)
    assert not may
    assert 1.0 <= wait <= 1.2
    assert policy.may_start(roster, 101.3) == (True, 0.0)


def test_who_is_due_may_go_only_when_others_can_do_the_work() -> None:
    """A worker past its limit is replaced first."""
    roster = make_roster(2, 2, State.BUSY, State.IDLE)
    old = roster.workers[2]
    old.due = Reason.AGE
    assert policy.wanted(roster) - len(policy.staying(roster)) == 1
    assert policy.spare(roster) == 0
    assert leaving.let_due_go(roster) == []
    fresh = roster.workers[3] = Worker(3, None, NOBODY, policy.free_slot(roster))  # type: ignore[arg-type]
    assert policy.spare(roster) == 0  # it is starting
    fresh.lanes[0].state = State.IDLE
    assert leaving.let_due_go(roster) == [old]
    assert (old.state, old.reason) == (State.RETIRING, Reason.AGE)
    assert fresh.slot == old.slot


def test_slots_are_the_lowest_free_numbers() -> None:
    """A trial of new code, one worker too many, takes the place of the oldest."""
    roster = make_roster(1, 3, State.BUSY, State.BUSY, State.BUSY)
    assert policy.free_slot(roster) == 0
    del roster.workers[2]
    assert policy.free_slot(roster) == 1


def test_back_off_doubles_up_to_its_most_and_ends_with_success() -> None:
    """With up to a fifth added by chance."""
    restarts = Restarts(RestartPolicy(backoff=1.0, max_backoff=5.0, max_failures=100))
    delays = []
    for _ in range(5):
        restarts.failed(50.0, lambda: vv.WorkerStartError("no"))
        delays.append(restarts.delay(50.0))
    for delay, least in zip(delays, [1.0, 2.0, 4.0, 5.0, 5.0], strict=True):
        assert least <= delay <= least * 1.2
    restarts.succeeded()
    assert restarts.delay(50.0) <= 0
    assert not restarts.is_hopeless


def test_the_circuit_opens_after_failures_within_the_time_and_is_half_open_after_its_back_off() -> None:
    """While it is open, calls hear what the last start had to say."""
    restarts = Restarts(RestartPolicy(backoff=1.0, max_failures=3, within=10.0))
    for now in (0.0, 20.0, 21.0):  # too far apart
        restarts.failed(now, lambda: vv.WorkerStartError("no"))
    assert not restarts.is_open
    restarts.failed(22.0, lambda: vv.WorkerStartError("no such module", output="Traceback"))
    assert restarts.is_open
    with pytest.raises(vv.WorkerStartError, match="no such module") as caught:
        restarts.check(22.5)
    assert caught.value.output == "Traceback"
    restarts.check(22.0 + restarts.delay(22.0) + 0.01)  # half open: one may try
    restarts.reset()
    restarts.check(22.5)


def test_a_worker_that_is_ready_and_dies_at_once_goes_on_with_the_back_off() -> None:
    """Being ready for a moment is no success; having worked for long is."""
    restarts = Restarts(RestartPolicy(backoff=1.0, max_failures=3, within=10.0))
    for now in (1.0, 2.0, 3.0):
        restarts.failed(now, lambda: vv.WorkerStartError("no"), is_relapse=now > 1.0)
        restarts.succeeded() if now < 3.0 else None
    assert restarts.is_open
    assert restarts.delay(3.0) >= 4.0
    restarts.succeeded()
    restarts.failed(90.0, lambda: vv.WorkerStartError("no"), is_relapse=True)
    assert not restarts.is_open
    assert restarts.delay(90.0) <= 1.2


def test_limits_of_many_workers_are_spread() -> None:
    """At most a tenth earlier, never later."""
    many = [Limits(WorkerOptions(max_calls=1000, max_age=100.0)) for _ in range(300)]
    ages = [limits.age for limits in many if limits.age is not None]
    assert 90.0 <= min(ages) < 92.0
    assert 98.0 < max(ages) <= 100.0
    assert {limits.check(899, 1)[0] for limits in many} == {None}
    assert {limits.check(1000, 1)[0] for limits in many} == {Reason.MAX_CALLS}
    assert len({limits.check(950, 1)[0] for limits in many}) == 2


def test_a_ticket_is_decided_once() -> None:
    """A pool that closes during a reload tells its caller twice."""
    ticket = Ticket()
    ticket.arm()
    ticket.grant(None, lambda: vv.PoolClosed("first"))
    ticket.grant(None, lambda: vv.PoolClosed("second"))
    assert ticket.error is not None
    assert str(ticket.error()) == "first"


@pytest.mark.parametrize(
    ("kind", "options", "error"),
    [
        (vv.ScalePolicy, {"idle_timeout": -1}, ValueError),
        (vv.ScalePolicy, {"cooldown": "1"}, TypeError),
        (vv.RestartPolicy, {"backoff": float("nan")}, ValueError),
        (vv.RestartPolicy, {"max_failures": 0}, ValueError),
        (vv.RestartPolicy, {"max_failures": True}, ValueError),
        (vv.WorkerOptions, {"max_calls": 0}, ValueError),
        (vv.WorkerOptions, {"max_age": 0}, ValueError),
        (vv.WorkerOptions, {"max_rss": 1.5}, ValueError),
        (vv.WorkerOptions, {"kill_on_exception": "yes"}, TypeError),
    ],
)
def test_wrong_policies_are_refused_where_they_are_made(
    kind: type, options: dict[str, object], error: type[Exception]
) -> None:
    """With the name of the option."""
    with pytest.raises(error, match=next(iter(options))):
        kind(**options)
