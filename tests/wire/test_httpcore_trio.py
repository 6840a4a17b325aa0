"""httpcore's engine by itself under trio: TLS with a check of the peer, in clear text, and cancelled while it dials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from meshsdk.core.model import Phase, TransportFailure
from meshsdk.wire.httpcore_engine import AsyncHttpcoreEngine
from meshsdk.wire.security import PeerRejected
from tests.wire.callers import at, called, get, within
from tests.wire.scripted import Peer, Server, after_request, answering, deaf_port, eventually, reply
from tests.wire.test_tls import Authority

LARGE = b"x" * 1_000_000


class Trio:
    """The engine, called as the tests call all."""

    def __init__(self, **options: Any) -> None:
        self.engine = AsyncHttpcoreEngine(**options)

    async def send(self, *given: Any) -> Any:
        return await self.engine.send(*given)

    async def read(self, answer: Any) -> bytes:
        return b"".join([piece async for piece in answer])

    async def let_go(self, answer: Any) -> None:
        await answer.aclose()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def test_tls(serve: Callable[..., Server], authority: Authority) -> None:
    server = serve(authority.serving(answering(reply(LARGE))))
    seen: list[str] = []
    wire = Trio(secure=authority.trusting(check=lambda tls: seen.append(tls.version())))

    async def main() -> None:
        for body in (LARGE, b""):
            length = (b"content-length", b"%d" % len(body))
            assert await called(wire, at(server), within(20), get(body, "POST", length)) == LARGE
        await wire.engine.aclose()

    trio.run(main)
    assert server.bodies == [LARGE, b""]
    assert (server.connections, seen) == (1, ["TLSv1.3"]), "checked once"


def test_a_peer_that_is_rejected_gets_no_byte(serve: Callable[..., Server], authority: Authority) -> None:
    def reject(tls: Any) -> None:
        raise PeerRejected("not payments")

    server = serve(authority.serving(answering()))
    wire = Trio(secure=authority.trusting(check=reject))

    async def main() -> None:
        with pytest.raises(TransportFailure) as caught:
            await called(wire, at(server), within(5))
        assert (caught.value.failure.phase, caught.value.failure.detail) == (Phase.NOT_CONNECTED, "not payments")

    trio.run(main)
    assert server.heads == []
    eventually(lambda: server.open_connections == 0)


def test_cancelled_while_it_dials() -> None:
    wire = Trio()
    with deaf_port() as port:

        async def main() -> None:
            with trio.move_on_after(0.05) as scope:
                await called(wire, at(port), within(5, max_connections=1))
            assert scope.cancelled_caught
            with pytest.raises(TransportFailure) as caught:
                await called(wire, at(port), within(5, connect=0.05, max_connections=1))
            assert caught.value.failure.detail == "no connection within 0.05 s", "the one place was given back"

        trio.run(main)


def test_cancelled_while_it_waits_for_a_connection(serve: Callable[..., Server]) -> None:
    server = serve(after_request(Peer.stall))
    wire, bounds = Trio(), {"max_connections": 1}

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(called, wire, at(server), within(5, **bounds))
            await trio.testing.wait_all_tasks_blocked(0.05)
            with trio.move_on_after(0.05) as scope:
                await called(wire, at(server), within(5, **bounds))
            assert scope.cancelled_caught
            with pytest.raises(TransportFailure) as caught:
                await called(wire, at(server), within(5, pool=0.05, **bounds))
            assert "no connection came free" in caught.value.failure.detail
            nursery.cancel_scope.cancel()
        (lane,) = wire.engine._loops.current()._lanes.values()
        assert (lane.users, lane.gate.value, lane.open) == (0, 1, set())

    trio.run(main)
    eventually(lambda: server.open_connections == 0)
