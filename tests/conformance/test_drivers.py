"""The drivers agree: every script of outcomes leads to one trace, and interruption anywhere leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import product

import pytest

from meshsdk.core.model import Failure, Phase
from meshsdk.drive import TransportFailure, adrive, drive
from meshsdk.errors import CallError, ConnectFailed, ConnectionLost, NoEndpoint
from tests.conformance.scripts import OUTCOMES, Heard, Interrupted, Run, Through, finish
from tests.core.world import World, plan

TRY_OUTCOMES = ("ok", "unavailable", "refused", "reset", "late")
SCRIPTS = list(product(TRY_OUTCOMES, repeat=3))
DRIVERS = pytest.mark.parametrize("through", [Run.blocking, Run.awaiting], ids=["drive", "adrive"])


@pytest.mark.parametrize("replayable", [True, False])
@pytest.mark.parametrize("idempotent", [True, False])
async def test_every_script_gives_the_same_trace(idempotent: bool, replayable: bool) -> None:
    facts = {"method": "PUT", "idempotent": idempotent, "replayable": replayable}
    lengths = set()
    for script in SCRIPTS:
        blocking = Run(World(), script, facts).blocking()
        awaiting = await Run(World(), script, facts).awaiting()
        assert blocking.trace() == awaiting.trace(), script
        assert blocking.world.cluster.in_flight == 0
        assert len(blocking.world.ended()) == 1
        lengths.add(len(blocking.attempts))
    assert lengths == {1, 2, 3}, "the scripts must reach every depth"


@pytest.mark.parametrize("deadline", [100.0, 100.001, 100.3, 101.0, 105.0, 108.0])
async def test_the_same_under_any_deadline_and_with_every_outcome(deadline: float) -> None:
    for script in product(OUTCOMES, repeat=2):
        runs = [Run(World(plan(retries={"attempts": 2})), script, {"deadline": deadline}) for _ in range(2)]
        assert runs[0].blocking().trace() == (await runs[1].awaiting()).trace(), script
        assert all(a.deadline <= deadline for a in runs[0].attempts)
        assert runs[0].world.cluster.in_flight == 0


async def test_a_whole_history_stays_equal() -> None:
    """State carries over: the breaker trips, endpoints are ejected, the budget runs dry, in both worlds alike."""
    policy = plan(retries={"budget_min_per_second": 0.5}, breaker={"consecutive_failures": 8})
    one, other = World(policy), World(policy)
    reasons = set()
    for script in SCRIPTS:
        blocking = Run(one, script).blocking()
        awaiting = await Run(other, script).awaiting()
        assert blocking.trace() == awaiting.trace(), script
        reasons |= {event.reason for event in one.ended()}
        one.events.clear()
        other.events.clear()
    assert {"answered", "budget-empty", "breaker-open"} <= reasons


# --- what a driver hands over ------------------------------------------------------------------------


@DRIVERS
async def test_a_final_reply_is_open_and_the_thrown_away_ones_are_closed(through: Through) -> None:
    run = await finish(Run(World(), ("unavailable", "later", "ok")), through)
    assert run.result == 200
    assert [reply.closed for reply in run.replies] == [1, 1, 0]
    assert run.steps == ["send", "close", "sleep", "send", "close", "sleep", "send"]
    assert run.world.pauses[1] == 1.0


@DRIVERS
async def test_a_final_failure_is_raised_from_what_caused_it(through: Through) -> None:
    run = await finish(Run(World(plan(retries={"attempts": 2})), ("refused", "refused")), through)
    assert isinstance(run.result, ConnectFailed)
    assert run.result.__cause__ is not None
    assert "connection refused" in str(run.result)
    assert (run.result.attempts, run.result.reason) == (2, "attempts-used")


@DRIVERS
async def test_a_failure_without_a_cause_shows_none(through: Through) -> None:
    run = await finish(Run(World(plan(retries={"attempts": 1})), ("late",)), through)
    assert isinstance(run.result, CallError)
    assert run.result.__cause__ is None
    assert run.result.__suppress_context__


@DRIVERS
async def test_a_refusal_is_raised_and_nothing_is_sent(through: Through) -> None:
    run = await finish(Run(World(count=0), ("ok",)), through)
    assert isinstance(run.result, NoEndpoint)
    assert run.steps == []


@DRIVERS
async def test_a_strategy_that_raises_closes_the_reply(through: Through) -> None:
    def stop(state: object) -> bool:
        raise Interrupted("strategy")

    run = await finish(Run(World(stop=stop), ("unavailable",)), through)
    assert isinstance(run.result, Interrupted)
    assert [reply.closed for reply in run.replies] == [1]
    assert (run.world.cluster.in_flight, len(run.world.ended())) == (0, 1)


@DRIVERS
async def test_a_transport_that_raises_stop_iteration_is_not_a_reply(through: Through) -> None:
    """An error that is no fault of the wire passes as it is, and the attempt is abandoned."""
    run = Run(World(), ())
    with pytest.raises((StopIteration, RuntimeError)):
        await finish(run, through)
    assert (run.world.cluster.in_flight, run.world.ended()[0].flag) == (0, "DC")


# --- interruptions -----------------------------------------------------------------------------------

LONG = ("unavailable", "refused", "ok")  # send, close, sleep, send, sleep, send


def assert_nothing_left(world: World) -> None:
    cluster = world.cluster
    assert (cluster.in_flight, cluster.pending, cluster.breaker.permits) == (0, 0, 0)
    assert all(not state.inflight and not state.probing for state in cluster.states())
    assert len(world.ended()) == 1


def probing_world() -> World:
    """A world whose breaker is half-open to the next call, so that a leaked permit would show."""
    world = World(plan(breaker={"consecutive_failures": 1, "open_for": 1.0, "probes": 3}))
    world.fail()
    world.now += 2.0
    world.events.clear()
    return world


@DRIVERS
@pytest.mark.parametrize("at", range(1, 7))
async def test_an_interrupt_at_every_step_leaves_nothing_behind(through: Through, at: int) -> None:
    run = await finish(Run(World(), LONG, interrupt=at), through)
    assert isinstance(run.result, Interrupted)
    assert len(run.steps) == at
    assert_nothing_left(run.world)
    assert run.world.ended()[0].flag == "DC"


@DRIVERS
async def test_an_interrupted_probe_gives_the_breakers_permit_back(through: Through) -> None:
    run = await finish(Run(probing_world(), ("ok",), interrupt=1), through)
    assert isinstance(run.result, Interrupted)
    assert run.world.cluster.breaker_state == "half-open"
    assert_nothing_left(run.world)


@pytest.mark.parametrize(
    ("make", "script", "awaits"), [(World, LONG, 6), (probing_world, ("ok",), 1)], ids=["three tries", "a probe"]
)
async def test_a_task_cancelled_at_every_await_leaves_nothing_behind(
    make: Callable[[], World], script: tuple[str, ...], awaits: int
) -> None:
    """Cancel after 1, 2 … turns of the loop; each turn ends at the next await of the driver."""
    for turns in range(1, awaits + 1):
        world = make()
        task = asyncio.create_task(Run(world, script).awaiting())
        for _ in range(turns):
            await asyncio.sleep(0)
        assert task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert_nothing_left(world)
        assert world.ended()[0].flag == "DC"
    world = make()
    task = asyncio.create_task(Run(world, script).awaiting())
    for _ in range(awaits + 1):
        await asyncio.sleep(0)
    assert task.done(), "there were no more awaits than were cancelled"


async def test_a_timeout_around_a_call_is_the_callers_own_affair() -> None:
    world = World()

    async def hang(attempt: object) -> Heard:
        await asyncio.sleep(3600)
        raise AssertionError("unreachable")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await adrive(world.call(), hang)
    assert_nothing_left(world)
    assert sum(state.total for state in world.cluster.states()) == 0


def test_the_error_of_a_reply_that_will_not_close_passes() -> None:
    world = World()

    class Stuck(Heard):
        def close(self) -> None:
            raise OSError("will not close")

    with pytest.raises(OSError, match="will not close"):
        drive(world.call(), lambda attempt: Stuck(503, None, lambda name: None), world.sleep)
    assert_nothing_left(world)


def test_a_failure_keeps_its_text() -> None:
    error = TransportFailure(Failure(Phase.WRITTEN, "reset", "closed the connection"))
    assert str(error) == "reset: closed the connection"
    with pytest.raises(ConnectionLost):
        drive(World(plan(retries={"attempts": 1})).call(), lambda attempt: (_ for _ in ()).throw(error), lambda s: None)
