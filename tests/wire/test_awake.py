"""A loop stays awake for a reply only where that is likely to be cheaper, and for one wait at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from meshsdk.core.model import TransportFailure
from meshsdk.wire.aio import AsyncioEngine
from meshsdk.wire.aio.awake import Awake, Wait
from meshsdk.wire.looking import LOOKS, Looking
from meshsdk.wire.pooling import Pooling
from tests.wire.callers import at, get, within
from tests.wire.scripted import Peer, Server, after_request, answering, eventually, reply

LOOK = 0.001
EACH = 0.0001  # what one turn of the loop takes here


class Loop:
    """A loop whose turns the test runs, and its clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[Callable[[], None]] = []
        self.awake = Awake(cast("asyncio.AbstractEventLoop", self), lambda: self.now)

    def call_soon(self, call: Callable[[], None]) -> None:
        self.due.append(call)

    def turns(self, most: int) -> int:
        """Run as many, until it would sleep; how many there were."""
        for done in range(most):
            if not self.due:
                return done
            due, self.due = self.due, []
            self.now += EACH
            for call in due:
                call()
        return most


@pytest.fixture
def loop() -> Loop:
    return Loop()


def soon() -> Looking:
    """The last reply came soon."""
    looking = Looking(LOOK)
    looking.slept(LOOK)
    assert not looking.sleeps
    return looking


def test_it_stays_awake_until_the_reply_is_here(loop: Loop) -> None:
    wait = loop.awake.wait(soon())
    assert loop.turns(5) == 5
    wait.end()
    assert loop.turns(5) == 1, "the one that was asked for before"
    assert loop.awake.waiting == 0


def test_it_sleeps_where_the_last_reply_took_long(loop: Loop) -> None:
    looking = Looking(LOOK)
    wait = loop.awake.wait(looking)
    assert loop.turns(5) == 0
    loop.now += LOOK
    wait.end()
    assert looking.sleeps == 0, "this one came soon"


def test_it_stays_awake_no_longer_than_it_may(loop: Loop) -> None:
    looking = soon()
    wait = loop.awake.wait(looking)
    assert loop.turns(100) == pytest.approx(LOOK / EACH, abs=1)
    assert looking.sleeps == 16
    wait.end()
    assert looking.sleeps == 15, "the rest of this wait was one"


def test_nor_where_the_clock_stands_still() -> None:
    loop = Loop()
    loop.awake.clock = lambda: 0.0
    loop.awake.wait(soon())
    assert loop.turns(10 * LOOKS) == LOOKS


def test_it_stays_awake_for_one_alone(loop: Loop) -> None:
    first, second = soon(), soon()
    one = loop.awake.wait(first)
    assert loop.turns(2) == 2
    other = loop.awake.wait(second)
    assert loop.turns(5) == 1
    one.end()
    other.end()
    assert (first.sleeps, second.sleeps) == (0, 0), "neither was in vain"
    loop.awake.wait(first)
    assert loop.turns(3) == 3


# --- in the engine ------------------------------------------------------------------------------------


class Counted(Wait):
    """A wait that counts its turns."""

    __slots__ = ()

    looked = 0

    def turn(self) -> None:
        Counted.looked += 1
        super().turn()


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    monkeypatch.setattr("meshsdk.wire.aio.awake.Wait", Counted)

    def since() -> int:
        found, Counted.looked = Counted.looked, 0
        return found

    since()
    return since


async def answered(engine: AsyncioEngine, server: Server) -> None:
    answer = await engine.send(at(server), get(), within(5))
    await answer.aclose()


def waiting(engine: AsyncioEngine) -> int:
    pools: Any = engine._loops.current()
    return pools.awake.waiting


@pytest.mark.interpreted
async def test_calls_look_once_the_first_came_soon(
    serve: Callable[..., Server], looked: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshsdk.wire.aio.awake.LOOKS", 10**9)  # the server's thread may take longer than 1,024 turns
    engine, server = AsyncioEngine(pooling=Pooling(look=5.0)), serve(answering(reply(b"hello")))
    found = []
    for _ in range(3):
        await answered(engine, server)
        found.append(looked() > 0)
    assert found == [False, True, True]
    await engine.aclose()


@pytest.mark.interpreted
async def test_calls_at_the_same_time_do_not(serve: Callable[..., Server], looked: Callable[[], int]) -> None:
    engine, server = AsyncioEngine(pooling=Pooling(look=5.0)), serve(answering(reply(b"hello")))
    await engine.warm(at(server), 8, within(5))
    await asyncio.to_thread(eventually, lambda: server.connections == 8)
    await answered(engine, server)
    assert looked() == 0
    await asyncio.gather(*(answered(engine, server) for _ in range(8)))
    assert 0 < looked() <= 2, "the first of them, until the second began"
    assert waiting(engine) == 0
    await engine.aclose()


async def test_a_wait_ends_whatever_comes_of_it(serve: Callable[..., Server]) -> None:
    engine, silent = AsyncioEngine(), serve(after_request(Peer.stall))
    with pytest.raises(TransportFailure):
        await engine.send(at(silent), get(), within(0.05))
    assert waiting(engine) == 0
    for turns in range(8):
        task = asyncio.create_task(engine.send(at(silent), get(), within(5)))
        for _ in range(turns):
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert waiting(engine) == 0
    await engine.aclose()
