"""The outbound listener: the service's own calls enter here in clear text on loopback and leave through the mesh.

The Host header names the destination, as a proxy's client sends it (RFC 9112, 3.2.2). Bodies stream both ways; the
fields that belong to one connection only are taken off on both sides (RFC 9110, 7.6.1).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import httpx

from meshsdk.errors import CallError, DeadlineExceeded, MeshError

__all__ = ["Outbound"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Fields = list[tuple[bytes, bytes]]

ONE_CONNECTION = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)


class Outbound:
    """An ASGI application that carries every request to where its Host header says.

    Args:
        transport: the mesh's, or any other that httpx could use.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; websockets are refused by closing, which uvicorn answers with 403."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003, "reason": "not carried by this sidecar"})
            return
        try:
            response = await self._transport.handle_async_request(_request(scope, receive))
        except (MeshError, httpx.HTTPError, httpx.InvalidURL) as error:
            await _refuse(send, error)
            return
        await _answer(send, response)


def _request(scope: Scope, receive: Receive) -> httpx.Request:
    fields: Fields = list(scope["headers"])
    host = next((value for name, value in fields if name == b"host"), b"")
    if not host:
        raise httpx.InvalidURL("no Host header: it names the service to call")
    target = scope.get("raw_path") or scope["path"].encode()
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    has_body = any(name in {b"content-length", b"transfer-encoding"} for name, _ in fields)
    return httpx.Request(
        scope["method"],
        httpx.URL(f"http://{host.decode('latin-1')}{(target + query).decode('latin-1')}"),
        headers=_end_to_end(fields),
        content=_body(receive) if has_body else None,
    )


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise httpx.WriteError("the caller closed the connection before its request was complete")
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


async def _answer(send: Send, response: httpx.Response) -> None:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    try:
        headers = _end_to_end(response.headers.raw)
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        async for piece in response.stream:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        await response.aclose()


async def _refuse(send: Send, error: Exception) -> None:
    body = f"{error}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    if isinstance(error, CallError):
        headers.append((b"x-mesh-flag", error.flag.encode()))
    await send({"type": "http.response.start", "status": _status(error), "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _status(error: Exception) -> int:
    """504 for time, 503 where the mesh or the network said no, 400 where the request itself cannot be carried."""
    if isinstance(error, (DeadlineExceeded, httpx.TimeoutException)):
        return 504
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol)):
        return 400
    return 503


def _end_to_end(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Take off the fields of one connection, those that the Connection field names included."""
    kept = [(name.lower(), value) for name, value in fields]
    named = {part.strip().lower() for name, value in kept if name == b"connection" for part in value.split(b",")}
    return [(name, value) for name, value in kept if name not in ONE_CONNECTION and name not in named]
