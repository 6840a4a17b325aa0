"""Carries py-consul's requests over one httpx.AsyncClient and turns every failure into a `RegistryError`.

py-consul offers `HTTPClient` as its extension point; its own transports (requests, aiohttp) know no unix socket,
forget the token on some requests, let CONSUL_HTTP_TOKEN override an explicit one, follow proxy variables and drop all
headers but the index.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from consul import base
from consul.exceptions import ConsulException

from meshsdk_registry import errors
from meshsdk_registry.address import ConsulAddress
from meshsdk_registry.index import listen_for
from meshsdk_registry.refusals import refusal

__all__ = ["MAX_CONNECTIONS", "PyConsul", "Reply", "Transport", "misunderstood", "unanswered"]

MAX_CONNECTIONS = 128
"""Of one process. The agent allows one address 200 (`limits.http_max_conns_per_client`): a second process still finds
room."""

HUNG_UP_AT_ONCE = 1.0
"""Seconds: the agent closes a connection over its limit on arrival; a blocking query cut off later is something
else."""

Params = Sequence[tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class Reply:
    """What py-consul's callback made of an answer, and the answer's headers, which the callback drops."""

    value: Any
    headers: Mapping[str, str]
    source: str


class _Trace:
    """Notes whether a request opened a connection of its own and whether an answer began: httpcore tells."""

    def __init__(self, now: float) -> None:
        self.started = now
        self.fresh = False
        self.answered = False

    async def __call__(self, event: str, _info: Mapping[str, Any]) -> None:
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


class Transport(base.HTTPClient):
    """py-consul's HTTP client on httpx: each method returns an awaitable of a `Reply`.

    Args:
        address: where Consul listens.
        token: gives the ACL token of the moment, sent with every request.
        tls: for https; None trusts the system's authorities.
        timeout: seconds for connecting, writing and waiting for an answer that does not block.
    """

    def __init__(
        self, address: ConsulAddress, *, token: Callable[[], str | None], tls: ssl.SSLContext | None, timeout: float
    ) -> None:
        super().__init__(address.host, address.port, address.scheme)
        host = f"[{address.host}]" if ":" in address.host else address.host
        self.base_uri = f"{address.scheme}://{host}:{address.port}"
        self._address = address
        self._token = token
        self._timeout = timeout
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(
                verify=_context(address, tls),
                uds=address.socket,
                trust_env=False,
                limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=16, keepalive_expiry=30),
            ),
            # identity: nearly always loopback, where gzip of 1,000 instances costs more than it saves
            headers={"Accept-Encoding": "identity", "User-Agent": "meshsdk"},
            trust_env=False,
        )

    def get(self, callback: Any, path: str, params: Any = None, headers: Any = None, raw: bool = False) -> Any:  # noqa: ARG002
        """See `request`."""
        return self.request("GET", path, params or (), callback=callback)

    def put(self, callback: Any, path: str, params: Any = None, data: Any = "", headers: Any = None) -> Any:  # noqa: ARG002
        """See `request`."""
        return self.request("PUT", path, params or (), data, callback=callback)

    def post(self, callback: Any, path: str, params: Any = None, data: Any = "", headers: Any = None) -> Any:  # noqa: ARG002
        """See `request`."""
        return self.request("POST", path, params or (), data, callback=callback)

    def delete(self, callback: Any, path: str, params: Any = None, data: Any = "", headers: Any = None) -> Any:  # noqa: ARG002
        """See `request`."""
        return self.request("DELETE", path, params or (), data, callback=callback)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def request(
        self,
        method: str,
        path: str,
        params: Params = (),
        data: str | bytes | None = None,
        *,
        callback: Callable[[base.Response], Any],
    ) -> Reply:
        """Send one request and hand the answer to `callback`; a `wait` among `params` extends the time allowed.

        Raises:
            RegistryError: of the class that says who can do something about it.
        """
        answer = await self._send(method, path, params, data)
        what = f"{method} {path}"
        missing_value = answer.status_code == 404 and "X-Consul-Index" in answer.headers
        if not answer.is_success and not missing_value:
            raise refusal(self._address.url, what, answer.status_code, answer.text)
        source = f"{what} at {self._address.url}"
        try:
            value = callback(base.Response(answer.status_code, answer.headers, answer.text))
        except (ConsulException, ValueError, TypeError, LookupError, AttributeError) as error:
            raise misunderstood(source, error) from error
        return Reply(value, answer.headers, source)

    async def _send(self, method: str, path: str, params: Params, data: str | bytes | None) -> httpx.Response:
        token = self._token()
        clock = asyncio.get_running_loop().time
        trace = _Trace(clock())
        patience = listen_for(_wait(params), self._timeout)
        request = self._client.build_request(
            method,
            self.uri(path, list(params)),
            content=data or None,
            headers={"X-Consul-Token": token} if token else {},
            timeout=httpx.Timeout(self._timeout, read=patience),
            extensions={"trace": trace},
        )
        try:
            # httpx bounds each read; a body that drips is bounded by the whole.
            async with asyncio.timeout(patience + self._timeout):
                return await self._client.send(request)
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            source = f"{method} {path} at {self._address.url}"
            if trace.not_http(error):
                raise misunderstood(source, error) from error
            raise unanswered(source, error, hung_up=trace.hung_up(error, clock())) from error


class PyConsul(base.Consul):
    """py-consul's API classes on our `Transport`, which alone knows the token.

    Args:
        dc: the datacenter to ask; None means the agent's own.
    """

    def __init__(self, transport: Transport, dc: str | None) -> None:
        self._transport = transport
        super().__init__(transport.host, transport.port, scheme=transport.scheme, verify=True, dc=dc)
        self.token = None  # py-consul took CONSUL_HTTP_TOKEN here, which must not override ours

    def http_connect(self, host: str, port: int, scheme: str, verify: Any = True, cert: Any = None) -> Any:  # noqa: ARG002
        """Return the transport; py-consul's extension point."""
        return self._transport


def misunderstood(source: str, error: Exception) -> errors.Misunderstood:
    """Return the error for an answer that is not what Consul documents, such as an HTML page."""
    return errors.Misunderstood(
        f"{source}: the answer is not Consul's ({error.__class__.__name__}: {str(error)[:200]})."
        " Does another program or a proxy listen there?"
    )


def unanswered(source: str, error: Exception, *, hung_up: bool) -> errors.Unreachable:
    """Return the error for a request that got no answer."""
    if isinstance(error, httpx.PoolTimeout):
        return errors.TooManyConnections(
            f"{source}: all {MAX_CONNECTIONS} connections of this process to Consul are waiting. Watch fewer services."
        )
    if hung_up:
        return errors.TooManyConnections(
            f"{source}: the agent closed a new connection without an answer. It allows one address 200 connections;"
            " raise limits.http_max_conns_per_client in Consul's configuration or run fewer processes."
        )
    detail = str(error) or error.__class__.__name__
    told = next(text for kind, text in _TOLD if isinstance(error, kind))
    remedy = "Start Consul there (`consul agent -dev` on a laptop), or correct the address."
    return errors.Unreachable(f"{source}: {told} ({detail}). {remedy}")


_TOLD: tuple[tuple[type[Exception], str], ...] = (
    (httpx.ConnectTimeout, "no connection in time"),
    (httpx.ConnectError, "nobody accepts connections"),
    (httpx.TimeoutException, "no answer in time"),
    (TimeoutError, "no complete answer in time"),
    (httpx.ReadError, "the connection broke"),
    (httpx.RemoteProtocolError, "the connection closed before the answer was complete"),
    (Exception, "the request failed"),
)


def _wait(params: Params) -> float:
    """Seconds of a query's `wait`, which this package always writes in milliseconds."""
    return float(dict(params).get("wait", "0ms").removesuffix("ms")) / 1000


def _context(address: ConsulAddress, tls: ssl.SSLContext | None) -> ssl.SSLContext:
    if tls is not None:
        return tls
    # Without https a bare context: loading the authorities takes 20 ms and nobody asks them.
    return ssl.create_default_context() if address.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
