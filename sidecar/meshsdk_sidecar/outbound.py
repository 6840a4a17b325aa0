"""The outbound listener: the service's own calls enter here in clear text on loopback and leave through the mesh.

Rule 1  The Host field names the destination, or an absolute target, as a proxy's client sends it (RFC 9112, 3.2.2).
Rule 2  Bodies stream both ways. Fields of one connection are taken off on both sides (RFC 9110, 7.6.1).
Rule 3  The deadline a caller sends bounds the call here and is sent on; its trace context is sent on as it is.
Rule 4  A caller that goes away takes its call with it.
Rule 5  A call to the sidecar itself would come back for ever: refused.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import httpx

from meshsdk.errors import CallError, DeadlineExceeded, MeshError
from meshsdk.server.deadline import ENVOY_HEADER, GRPC_HEADER, read_timeout
from meshsdk.telemetry.context import Inbound, current
from meshsdk_sidecar.caller import Caller, Receive

__all__ = ["Outbound", "Refusal"]

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Fields = list[tuple[bytes, bytes]]

ONE_CONNECTION = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_HOST = re.compile(rb"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")

log = logging.getLogger("meshsdk.sidecar")


class Refusal(Exception):
    """The request itself cannot be carried.

    Attributes:
        status: what the caller is answered.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Outbound:
    """An ASGI application that carries every request to where its Host field says.

    Args:
        transport: the mesh's, or any other that httpx could use.
        clock: the one that deadlines are counted on.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, clock: Callable[[], float] = time.monotonic) -> None:
        self._transport = transport
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        has_body = any(name in {b"content-length", b"transfer-encoding"} for name, _ in scope["headers"])
        caller = Caller(receive, has_body=has_body)
        carrying = asyncio.ensure_future(self._carry(scope, caller.body() if has_body else None, send))
        leaving = asyncio.ensure_future(caller.left())
        try:
            await asyncio.wait({carrying, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            left = not carrying.done()
            carrying.cancel()
            leaving.cancel()
            await asyncio.wait({carrying, leaving})
        if not left:
            carrying.result()

    async def _carry(self, scope: Scope, body: Any, send: Send) -> None:
        try:
            request = _request(scope, body)
            current.set(Inbound(deadline=self._deadline(scope)))
            response = await self._transport.handle_async_request(request)
        except (Refusal, MeshError, httpx.HTTPError, httpx.InvalidURL) as error:
            await _refuse(send, error)
            return
        await _answer(send, response)

    def _deadline(self, scope: Scope) -> float | None:
        given = read_timeout(field for field in scope["headers"] if field[0] in {ENVOY_HEADER, GRPC_HEADER})
        for junk in given.junk:
            log.warning("a call's deadline cannot be read and does not bound it: %s", junk)
        return None if given.seconds is None else self._clock() + given.seconds


def _request(scope: Scope, body: Any) -> httpx.Request:
    fields: Fields = list(scope["headers"])
    host = _destination(scope, [value for name, value in fields if name == b"host"])
    target = scope["raw_path"]
    if not target.startswith(b"/") and target != b"*":
        raise Refusal(400, f"the request's target {target[:100]!r} is no path: write it as /path")
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    path = (b"/" if target == b"*" else target) + query
    return httpx.Request(
        scope["method"],
        httpx.URL(f"{scope['scheme']}://{host.decode()}{path.decode('latin-1')}"),
        headers=_end_to_end(fields),
        content=body,
        extensions={"target": target + query},  # as it came: httpx would spell some characters anew
    )


def _destination(scope: Scope, hosts: list[bytes]) -> bytes:
    """The one Host field, if it names somebody else.

    Raises:
        Refusal: it is none, or the request is of a kind that is not carried.
    """
    if scope["method"] == "CONNECT":
        raise Refusal(501, "CONNECT is not carried: call services by http://name/, and hosts outside directly")
    if any(name == b"upgrade" and value.lower() == b"websocket" for name, value in scope["headers"]):
        raise Refusal(501, "websockets are not carried by this sidecar")
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        found = b", ".join(hosts).decode("latin-1")[:100]
        raise Refusal(
            400, f"one Host field with the name of a service is needed, such as Host: payments; got {found!r}"
        )
    if _is_ours(hosts[0].decode(), scope.get("server")):
        raise Refusal(
            421,
            f"Host: {hosts[0].decode()} is this sidecar: send the name of the service to call, such as Host: payments",
        )
    return hosts[0]


def _is_ours(host: str, server: tuple[str, int] | None) -> bool:
    name, _, port = host.rpartition(":")
    if server is None or not port.isdigit() or int(port) != server[1]:
        return False
    name = name.strip("[]")
    if name in {"localhost", server[0]}:
        return True
    try:
        return ipaddress.ip_address(name).is_loopback or ipaddress.ip_address(name).is_unspecified
    except ValueError:
        return False


async def _answer(send: Send, response: httpx.Response) -> None:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    try:
        headers = _end_to_end(response.headers.raw)
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        async for piece in response.stream:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    except (MeshError, httpx.HTTPError) as error:
        # Returning without an end makes the server cut the connection: the caller must not take half for the whole.
        log.warning("an answer broke off: %s", error)
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
    if isinstance(error, Refusal):
        return error.status
    if isinstance(error, (DeadlineExceeded, httpx.TimeoutException)):
        return 504
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError)):
        return 400
    return 503


def _end_to_end(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Take off the fields of one connection, those that the Connection field names included."""
    kept = [(name.lower(), value) for name, value in fields]
    named = {part.strip().lower() for name, value in kept if name == b"connection" for part in value.split(b",")}
    return [(name, value) for name, value in kept if name not in ONE_CONNECTION and name not in named]
