"""Requests to Consul over the engine that carries calls: it is there anyway, and httpx would be 8 MB more."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from meshsdk.core.model import Endpoint, Failure, Phase, TransportFailure
from meshsdk.wire.aio.engine import AsyncioEngine
from meshsdk.wire.engine import AsyncReply, Bounds, Request
from meshsdk.wire.failures import PoolTimeout
from meshsdk.wire.security import Security
from meshsdk_registry.address import ConsulAddress
from meshsdk_registry.carrier import Answered, Silence, Unanswered

__all__ = ["Fields", "WireCarrier"]

AT_ONCE = 1.0
"""Seconds within which the agent closes a connection over its limit; what is cut off later is something else."""


class Fields(Mapping[str, str]):
    """An answer's fields, found in any case; the first of a name that comes twice."""

    def __init__(self, fields: list[tuple[bytes, bytes]]) -> None:
        self._values = {name.lower().decode("latin-1"): value.decode("latin-1") for name, value in reversed(fields)}

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class WireCarrier:
    """See `meshsdk_registry.carrier`."""

    def __init__(self, address: ConsulAddress, tls: ssl.SSLContext | None, timeout: float, connections: int) -> None:
        security = None
        if address.scheme == "https":
            security = Security(tls or ssl.create_default_context(), address.host)
        self._endpoint = Endpoint(address.url, address.socket or address.host, address.port)
        self._engine = AsyncioEngine(secure=lambda *_: security)
        self._timeout = timeout
        self._connections = connections
        self._closed = False

    async def send(self, method: str, url: str, fields: Mapping[str, str], body: bytes, *, patience: float) -> Answered:
        """See `meshsdk_registry.carrier.Carrier`."""
        if self._closed:
            raise RuntimeError("this client of Consul is closed")
        parts = urlsplit(url)
        steps = _Steps()
        sent = [(b"Host", parts.netloc.encode()), (b"Accept-Encoding", b"identity"), (b"User-Agent", b"meshsdk")]
        sent += [(name.encode(), value.encode("latin-1", "replace")) for name, value in fields.items()]
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        request = Request(method, target.encode(), sent, body, {"trace": steps}, "consul")
        try:
            async with asyncio.timeout(patience + self._timeout):
                reply = await self._engine.send(self._endpoint, request, self._bounds(patience))
                text = await _body(reply)
        except TransportFailure as error:
            raise Unanswered(steps.why(error.failure), error.failure.detail) from error
        except TimeoutError as error:
            raise Unanswered(Silence.INCOMPLETE, f"{patience + self._timeout:g} s") from error
        return Answered(reply.status, Fields(list(reply.headers)), text)

    async def aclose(self) -> None:
        """Close all connections; nothing is sent after that."""
        self._closed = True
        await self._engine.aclose()

    def _bounds(self, patience: float) -> Bounds:
        now, timeout = time.monotonic(), self._timeout
        return Bounds(
            deadline=now + patience + timeout,
            body_deadline=now + patience + timeout,
            connect=timeout,
            read=patience,
            write=timeout,
            pool=timeout,
            max_connections=self._connections,
        )


async def _body(reply: AsyncReply) -> str:
    try:
        return b"".join([piece async for piece in reply]).decode("utf-8", "replace")
    finally:
        with contextlib.suppress(TransportFailure):  # of what was read there is an answer, or a reason already
            await reply.aclose()


class _Steps:
    """Notes how far a request got: the engine's `trace`."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._fresh = False
        self._answered = False

    async def __call__(self, event: str, _facts: Mapping[str, Any]) -> None:
        if event in {"connection.connect_tcp.complete", "connection.connect_tcp.failed"}:
            self._fresh = True  # or it was opened, and closed before it could be used
        elif event == "http11.receive_response_headers.complete":
            self._answered = True

    def why(self, failure: Failure) -> Silence:
        """Why there is no answer."""
        if isinstance(failure.cause, PoolTimeout):
            return Silence.CROWDED
        if failure.kind == "protocol" and not self._answered:
            return Silence.FOREIGN
        if failure.phase == Phase.NOT_CONNECTED:
            late = isinstance(failure.cause, TimeoutError)
            return Silence.LATE_CONNECTING if late else Silence.REFUSED
        if failure.kind == "reset":
            if failure.phase == Phase.REPLY_STARTED:
                return Silence.CUT
            at_once = self._fresh and time.monotonic() - self._started < AT_ONCE
            return Silence.HUNG_UP if at_once else Silence.BROKEN
        return Silence.LATE if failure.kind == "timeout" else Silence.FAILED
