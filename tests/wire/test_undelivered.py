"""Whose word is believed that a request was never delivered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from meshsdk.core.model import Phase
from meshsdk.wire.undelivered import SAID, undelivered
from tests.wire.callers import at, get, within
from tests.wire.scripted import Server, answering, eventually, reply


class Tls:
    def __init__(self, *names: tuple[str, str]) -> None:
        self._names = names

    def getpeercert(self) -> dict[str, Any]:
        return {"subjectAltName": self._names}


class Connection:
    def __init__(self, tls: Tls | None, address: object, name: str = "peername") -> None:
        self._known = {"ssl_object": tls, name: address}

    def get_extra_info(self, name: str) -> Any:
        return self._known.get(name)


MESH = Tls(("DNS", "web"), ("URI", "spiffe://mesh/ns/default/dc/dc1/svc/web"))


@pytest.mark.parametrize(
    ("tls", "address"),
    [
        (MESH, ("10.0.0.1", 1)),
        (None, ("127.0.0.9", 1)),
        (None, ("::1", 1, 0, 0)),
        (None, ("::ffff:127.0.0.1", 1, 0, 0)),
    ],
)
def test_believed(tls: Tls | None, address: object) -> None:
    failure = undelivered(SAID, Connection(tls, address))
    assert failure is not None
    assert undelivered(SAID, Connection(tls, address, "server_addr"))  # as httpx has it
    assert (failure.phase, failure.kind) == (Phase.NOT_WRITTEN, "connect-failure")


@pytest.mark.parametrize(
    ("tls", "address"),
    [
        (None, ("10.0.0.1", 1)),
        (None, "/run/app.sock"),
        (None, None),
        (None, ("localhost", 1)),
        (Tls(("DNS", "example.org")), ("127.0.0.1", 1)),  # verified, and not as one of the mesh
        (Tls(), ("127.0.0.1", 1)),
    ],
)
def test_not_believed(tls: Tls | None, address: object) -> None:
    assert undelivered(SAID, Connection(tls, address)) is None


def test_said_in_any_case_of_letters_and_not_by_silence() -> None:
    assert undelivered([(b"X-Mesh-Undelivered", b"1")], Connection(MESH, None))
    assert undelivered([(b"x-mesh-flag", b"UF")], Connection(MESH, None)) is None


async def test_believed_when_the_connection_is_closed(ours: Any, serve: Callable[..., Server]) -> None:
    """A sidecar that ends says so in the same reply."""
    server = serve(answering(reply(b"no", 503, b"x-mesh-undelivered: 1\r\nconnection: close\r\n")))
    answer = await ours.send(at(server), get(b"charge", "POST"), within(5))
    assert await ours.read(answer) == b"no"
    await ours.let_go(answer)
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
    stream = answer.extensions["network_stream"]
    assert stream.get_extra_info("server_addr") == ("127.0.0.1", server.port)
    assert undelivered(answer.headers, stream) is not None
