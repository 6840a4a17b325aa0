"""Requests to Consul over one httpx.AsyncClient."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any

import httpx

from meshsdk_registry.address import ConsulAddress
from meshsdk_registry.carrier import Answered, Silence, Unanswered

__all__ = ["HUNG_UP_AT_ONCE", "HttpxCarrier", "Trace"]

HUNG_UP_AT_ONCE = 1.0
"""Seconds: the agent closes a connection over its limit on arrival; a blocking query cut off later is something
else."""


class Trace:
    """Notes whether a request opened a connection of its own and whether an answer began: httpcore tells."""

    def __init__(self, now: float) -> None:
        self.started = now
        self.fresh = False
        self.answered = False

    async def __call__(self, event: str, _info: Mapping[str, Any]) -> None:
        """Told by httpcore."""
        if event in {"connection.connect_tcp.complete", "connection.connect_unix_socket.complete"}:
            self.fresh = True
        elif event == "http11.receive_response_headers.complete":
            self.answered = True

    def hung_up(self, error: Exception, now: float) -> bool:
        """Whether a connection of the request's own was closed on arrival, without a word."""
        closed = isinstance(error, httpx.ReadError | httpx.WriteError) or "disconnected" in str(error)
        return closed and self.fresh and not self.answered and now - self.started < HUNG_UP_AT_ONCE

    def not_http(self, error: Exception) -> bool:
        """Whether what came back is not HTTP: another program listens there."""
        return isinstance(error, httpx.RemoteProtocolError) and not self.answered and "disconnected" not in str(error)

    def why(self, error: Exception, now: float) -> Silence:
        """Why there is no answer."""
        if isinstance(error, httpx.PoolTimeout):
            return Silence.CROWDED
        if self.not_http(error):
            return Silence.FOREIGN
        if self.hung_up(error, now):
            return Silence.HUNG_UP
        return next(why for kind, why in _WHY if isinstance(error, kind))


class HttpxCarrier:
    """See `meshsdk_registry.carrier`."""

    def __init__(self, address: ConsulAddress, tls: ssl.SSLContext | None, timeout: float, connections: int) -> None:
        self._timeout = timeout
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(
                verify=_context(address, tls),
                uds=address.socket,
                trust_env=False,
                limits=httpx.Limits(max_connections=connections, max_keepalive_connections=16, keepalive_expiry=30),
            ),
            # identity: nearly always loopback, where gzip of 1,000 instances costs more than it saves
            headers={"Accept-Encoding": "identity", "User-Agent": "meshsdk"},
            trust_env=False,
        )

    async def send(self, method: str, url: str, fields: Mapping[str, str], body: bytes, *, patience: float) -> Answered:
        """See `meshsdk_registry.carrier.Carrier`."""
        clock = asyncio.get_running_loop().time
        trace = Trace(clock())
        request = self._client.build_request(
            method,
            url,
            content=body or None,
            headers=dict(fields),
            timeout=httpx.Timeout(self._timeout, read=patience),
            extensions={"trace": trace},
        )
        try:
            # httpx bounds each read; a body that drips is bounded by the whole.
            async with asyncio.timeout(patience + self._timeout):
                answer = await self._client.send(request)
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            raise Unanswered(trace.why(error, clock()), str(error) or error.__class__.__name__) from error
        return Answered(answer.status_code, answer.headers, answer.text)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()


_WHY: tuple[tuple[type[Exception], Silence], ...] = (
    (httpx.ConnectTimeout, Silence.LATE_CONNECTING),
    (httpx.ConnectError, Silence.REFUSED),
    (httpx.TimeoutException, Silence.LATE),
    (TimeoutError, Silence.INCOMPLETE),
    (httpx.ReadError, Silence.BROKEN),
    (httpx.RemoteProtocolError, Silence.CUT),
    (Exception, Silence.FAILED),
)


def _context(address: ConsulAddress, tls: ssl.SSLContext | None) -> ssl.SSLContext:
    if tls is not None:
        return tls
    # Without https a bare context: loading the authorities takes 20 ms and nobody asks them.
    return ssl.create_default_context() if address.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
