"""A streamed body that was begun is not begun again, however little of it the instance has read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpx
import pytest

from meshsdk import errors
from meshsdk.client import AsyncMeshTransport, MeshTransport, async_client, client
from meshsdk.core.model import Failure, Phase, TransportFailure
from tests.client.colours import AsyncPieces, Mesh, Pieces

UNREAD = (Phase.NOT_WRITTEN, "reset"), (Phase.NOT_WRITTEN, "tls")


class Unread:
    """An engine whose every try fails where nobody has read the request; sends bodies as engines do."""

    def __init__(self, phase: Phase, kind: str) -> None:
        self.failure = phase, kind
        self.sent: list[bytes] = []

    def send(self, endpoint: Any, request: Any, bounds: Any) -> Any:
        body = request.body
        self.sent.append(body if isinstance(body, bytes) else b"".join(body))
        raise TransportFailure(Failure(*self.failure, "unread"))

    def retire(self, gone: Iterable[Any], service: str = "") -> None:
        pass

    def close(self) -> None:
        pass


class AsyncUnread(Unread):
    async def send(self, endpoint: Any, request: Any, bounds: Any) -> Any:
        body = request.body
        self.sent.append(body if isinstance(body, bytes) else b"".join([piece async for piece in body]))
        raise TransportFailure(Failure(*self.failure, "unread"))

    async def retire(self, gone: Iterable[Any], service: str = "") -> None:  # type: ignore[override]
        pass

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize("failure", UNREAD)
@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_it_is_sent_once(failure: tuple[Phase, str], method: str) -> None:
    mesh, engine, body = Mesh("10.0.0.1:80"), Unread(*failure), Pieces(b"one", b"two")
    with client(MeshTransport(mesh.directory, engine=engine)) as http, pytest.raises(errors.ConnectionLost):
        http.request(method, "http://payments/", content=body)
    assert (engine.sent, body.begun) == ([b"onetwo"], 1)
    mesh.assert_at_rest()

    awaiting, later = AsyncUnread(*failure), AsyncPieces(b"one", b"two")
    async with async_client(AsyncMeshTransport(mesh.directory, engine=awaiting)) as ahttp:
        with pytest.raises(errors.ConnectionLost):
            await ahttp.request(method, "http://payments/", content=later)
    assert (awaiting.sent, later.begun) == ([b"onetwo"], 1)
    mesh.assert_at_rest()


@pytest.mark.parametrize("failure", UNREAD)
async def test_bytes_are_sent_again(failure: tuple[Phase, str]) -> None:
    mesh, engine, awaiting = Mesh("10.0.0.1:80"), Unread(*failure), AsyncUnread(*failure)
    with client(MeshTransport(mesh.directory, engine=engine)) as http, pytest.raises(httpx.TransportError):
        http.post("http://payments/", content=b"charge")
    async with async_client(AsyncMeshTransport(mesh.directory, engine=awaiting)) as ahttp:
        with pytest.raises(httpx.TransportError):
            await ahttp.post("http://payments/", content=b"charge")
    assert engine.sent == awaiting.sent == [b"charge"] * 3
