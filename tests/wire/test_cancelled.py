"""Whoever goes away, wherever they are, leaves nothing behind: no slot, no connection, no error nobody looked at."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from meshsdk.core.model import TransportFailure
from meshsdk.wire.blocking import BlockingEngine
from tests.wire.callers import Awaiting, Blocking, OnUvloop, Pieces, at, called, get, within
from tests.wire.scripted import Peer, Server, answering, eventually, reply

REQUESTS = {
    "known": lambda: get(b"charge", "POST"),
    "pieces": lambda: get(Pieces(b"char", b"ge"), "POST"),
    "expecting": lambda: get(b"charge", "POST", (b"Expect", b"100-continue")),
}


def in_pieces(peer: Peer) -> None:
    while (found := peer.request()) is not None:
        assert found[1] in (b"charge", b""), found
        for piece in (b"HTTP/1.1 100 Continue\r\n\r\n", reply()[:10], reply()[10:-1], reply()[-1:]):
            peer.send(piece)


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("caller", [Awaiting, OnUvloop])
async def test_after_any_number_of_steps(caller: Any, serve: Callable[..., Server], kind: str, limit: int) -> None:
    """Cancelled after k turns of the loop, with two others in the same place: one goes on, and so does the engine."""
    server = serve(in_pieces)
    ours = caller()
    bounds = within(30, max_connections=limit)

    async def round_(steps: int) -> None:
        tasks = [
            asyncio.create_task(called(_Here(ours.engine), at(server), bounds, REQUESTS[kind]())) for _ in range(3)
        ]
        for _ in range(steps):
            await asyncio.sleep(0 if steps < 25 else 0.0002)
        for task in tasks[:2]:
            task.cancel()
        first, second, third = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(first), type(second)} <= {bytes, asyncio.CancelledError}
        assert third == b"ok", third
        assert await called(_Here(ours.engine), at(server), bounds, get(b"charge", "POST")) == b"ok"
        homes = [found[0] for found in ours.engine._loops._loops.values()]
        assert sum(len(pool._open) + pool._dialing for home in homes for pool in home._pools.values()) <= limit

    async def rounds() -> None:
        for steps in range(50):
            await round_(steps)

    quick = rounds if kind != "expecting" else lambda: round_(3)
    await ours.run(quick)
    await ours.end()
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)


class _Here:
    """Calls an engine on the loop it runs on."""

    def __init__(self, engine: Any) -> None:
        self.send = engine.send

    async def read(self, answer: Any) -> bytes:
        return b"".join([piece async for piece in answer])

    async def let_go(self, answer: Any) -> None:
        await answer.aclose()


async def test_cancelled_as_it_is_refused(serve: Callable[..., Server]) -> None:
    """The refusal has come and nobody will look at it."""
    ours = Awaiting()
    server = serve(Peer.stall)
    task = asyncio.create_task(ours.send(at(server), get(), within(5)))
    await asyncio.sleep(0)
    homes = [found[0] for found in ours.engine._loops._loops.values()]
    (pool,) = homes[0]._pools.values()
    pool.drop()  # refuses all who wait
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    await ours.end()


async def test_the_engine_closes_under_those_who_wait(serve: Callable[..., Server]) -> None:
    """In a pool that was retired too: its limit changed."""
    ours = Awaiting()
    server = serve(Peer.stall)
    sends = []
    for limit in (1, 1, 2):
        sends.append(asyncio.create_task(ours.send(at(server), get(), within(30, max_connections=limit))))
        await asyncio.sleep(0.02)
    await ours.close()
    told = await asyncio.wait_for(asyncio.gather(*sends, return_exceptions=True), 2)
    assert all(isinstance(error, TransportFailure) for error in told)
    assert [error.failure.kind for error in told if isinstance(error, TransportFailure)] == ["closed"] * 3
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
    await ours.end()


# --- threads ------------------------------------------------------------------------------------------


class Interrupting:
    """A clock that is interrupted at its `turn`-th look."""

    def __init__(self) -> None:
        self.turn = -1

    def __call__(self) -> float:
        self.turn -= 1
        if self.turn == 0:
            raise KeyboardInterrupt
        return time.monotonic()


@pytest.mark.parametrize("half_read", [False, True])
def test_interrupted_at_any_look_at_the_clock(serve: Callable[..., Server], half_read: bool) -> None:
    server = serve(in_pieces)
    clock = Interrupting()
    engine = BlockingEngine(clock)
    bounds = within(30, max_connections=1, read=9)
    interrupted = 0
    for turn in range(1, 40):
        clock.turn = turn
        try:
            answer = engine.send(at(server), get(Pieces(b"char", b"ge"), "POST"), bounds)
            assert half_read or b"".join(answer) == b"ok"
            answer.close()
        except KeyboardInterrupt:
            interrupted += 1
        clock.turn = -1
        answer = engine.send(at(server), get(b"charge", "POST"), within(2, max_connections=1))
        assert b"".join(answer) == b"ok"
        answer.close()
        (lane,) = engine._lanes._lanes.values()
        assert (lane.users, len(lane.open), len(lane.idle)) == (0, 1, 1), f"at look {turn}"
    assert interrupted >= 5
    engine.close()
    eventually(lambda: server.open_connections == 0)


async def test_closed_under_a_thread_that_writes(serve: Callable[..., Server]) -> None:
    ours = Blocking()
    server = serve(lambda peer: peer.stopped.wait(5))
    send = asyncio.create_task(ours.send(at(server), get(b"x" * 20_000_000, "POST"), within(30)))
    await asyncio.sleep(0.3)
    await ours.close()
    with pytest.raises(TransportFailure) as caught:
        await asyncio.wait_for(send, 3)
    assert caught.value.failure.kind == "closed"


# --- fork ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_leaves_the_parents_connections_alone(serve: Callable[..., Server]) -> None:
    server = serve(answering())
    engine = BlockingEngine()

    def call() -> bytes:
        answer = engine.send(at(server), get(), within(5))
        try:
            return b"".join(answer)
        finally:
            answer.close()

    assert call() == b"ok"
    child = os.fork()
    if child == 0:
        os._exit(0 if engine._lanes._lanes == {} and call() == b"ok" and call() == b"ok" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert call() == b"ok"
    assert server.connections == 2, "one of the parent's, one of the child's"
    engine.close()
