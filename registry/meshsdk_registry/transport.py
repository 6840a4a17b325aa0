"""Hands py-consul's requests to a carrier, httpx as a rule, and turns every failure into a `RegistryError`.

py-consul offers `HTTPClient` as its extension point; its own transports (requests, aiohttp) know no unix socket,
forget the token on some requests, let CONSUL_HTTP_TOKEN override an explicit one, follow proxy variables and drop all
headers but the index.
"""

from __future__ import annotations

import importlib
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshsdk_registry import errors
from meshsdk_registry.address import ConsulAddress
from meshsdk_registry.carrier import Answered, Carrier, Silence, Unanswered
from meshsdk_registry.index import listen_for
from meshsdk_registry.pyconsul import ConsulException, base
from meshsdk_registry.refusals import refusal

__all__ = ["MAX_CONNECTIONS", "Making", "PyConsul", "Reply", "Transport", "carry_by", "misunderstood", "prepare"]

MAX_CONNECTIONS = 128
"""Of one process. The agent allows one address 200 (`limits.http_max_conns_per_client`): a second process still finds
room."""

Params = Sequence[tuple[str, Any]]


Making = Callable[[ConsulAddress, ssl.SSLContext | None, float, int], Carrier]
"""Makes a carrier: where Consul is; for https, None for the system's authorities; seconds for connecting and for
writing; how many connections there may be."""

_making: Making | None = None


def carry_by(making: Making | None) -> None:
    """Let clients of Consul that are made from now on, in this process, use another carrier; None is httpx again."""
    global _making
    _making = making


@dataclass(frozen=True, slots=True)
class Reply:
    """What py-consul's callback made of an answer, and the answer's headers, which the callback drops."""

    value: Any
    headers: Mapping[str, str]
    source: str


class Transport(base.HTTPClient):
    """py-consul's HTTP client on a carrier: each method returns an awaitable of a `Reply`.

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
        self._carrier = _carrier(address, tls, timeout, MAX_CONNECTIONS)

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
        await self._carrier.aclose()

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
        missing_value = answer.status == 404 and "X-Consul-Index" in answer.fields
        if not 200 <= answer.status < 300 and not missing_value:
            raise refusal(self._address.url, what, answer.status, answer.text)
        source = f"{what} at {self._address.url}"
        try:
            value = callback(base.Response(answer.status, answer.fields, answer.text))
        except (ConsulException, ValueError, TypeError, LookupError, AttributeError) as error:
            raise misunderstood(source, error) from error
        return Reply(value, answer.fields, source)

    async def _send(self, method: str, path: str, params: Params, data: str | bytes | None) -> Answered:
        token = self._token()
        patience = listen_for(_wait(params), self._timeout)
        fields = {"X-Consul-Token": token} if token else {}
        body = data.encode() if isinstance(data, str) else data or b""
        try:
            return await self._carrier.send(method, self.uri(path, list(params)), fields, body, patience=patience)
        except Unanswered as error:
            source = f"{method} {path} at {self._address.url}"
            if error.why is Silence.FOREIGN:
                raise misunderstood(source, error.__cause__ or error) from error
            raise _unanswered(source, error) from error


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


def prepare() -> None:
    """Import what carries requests, now and in this thread.

    Else a thread in the background would, while a server forks its workers: a module that is half imported then stays
    so in the child, and whoever imports it there waits for ever.
    """
    if _making is None:
        importlib.import_module("meshsdk_registry.over_httpx")


def _carrier(address: ConsulAddress, tls: ssl.SSLContext | None, timeout: float, connections: int) -> Carrier:
    if _making is not None:
        return _making(address, tls, timeout, connections)
    from meshsdk_registry.over_httpx import HttpxCarrier  # 8 MB that a process with another one does without

    return HttpxCarrier(address, tls, timeout, connections)


def misunderstood(source: str, error: BaseException) -> errors.Misunderstood:
    """Return the error for an answer that is not what Consul documents, such as an HTML page."""
    return errors.Misunderstood(
        f"{source}: the answer is not Consul's ({error.__class__.__name__}: {str(error)[:200]})."
        " Does another program or a proxy listen there?"
    )


def _unanswered(source: str, error: Unanswered) -> errors.Unreachable:
    if error.why is Silence.CROWDED:
        return errors.TooManyConnections(
            f"{source}: all {MAX_CONNECTIONS} connections of this process to Consul are waiting. Watch fewer services."
        )
    if error.why is Silence.HUNG_UP:
        return errors.TooManyConnections(
            f"{source}: the agent closed a new connection without an answer. It allows one address 200 connections;"
            " raise limits.http_max_conns_per_client in Consul's configuration or run fewer processes."
        )
    remedy = "Start Consul there (`consul agent -dev` on a laptop), or correct the address."
    return errors.Unreachable(f"{source}: {error.why} ({error}). {remedy}")


def _wait(params: Params) -> float:
    """Seconds of a query's `wait`, which this package always writes in milliseconds."""
    return float(dict(params).get("wait", "0ms").removesuffix("ms")) / 1000
