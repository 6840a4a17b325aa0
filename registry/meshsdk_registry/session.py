"""What all calls of the client share: address, token, connections, blocking reads, and answers made types."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from meshsdk_registry.address import ConsulAddress
from meshsdk_registry.index import MAX_WAIT
from meshsdk_registry.model import Answer
from meshsdk_registry.pyconsul import CB
from meshsdk_registry.token import Token, token_source
from meshsdk_registry.transport import PyConsul, Reply, Transport, misunderstood

__all__ = ["Session", "duration", "read"]

T = TypeVar("T")


class Session:
    """The connections to one Consul agent. See `Consul`."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8500",
        *,
        token: Token = None,
        token_file: str | os.PathLike[str] | None = None,
        datacenter: str | None = None,
        tls: ssl.SSLContext | None = None,
        stale: bool = True,
        timeout: float = 5.0,
    ) -> None:
        address = ConsulAddress.parse(url)
        self.url = address.url
        self.datacenter = datacenter
        self._stale = stale
        self._transport = Transport(address, token=token_source(token, token_file), tls=tls, timeout=timeout)
        self._api: Any = PyConsul(self._transport, datacenter)  # Any: py-consul is half typed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections; blocked queries end with an error."""
        await self._transport.close()

    async def raw(self, method: str, path: str, params: Sequence[tuple[str, Any]] = (), data: str | None = None) -> Any:
        """Send any request of Consul's API and return the parsed JSON, None for an empty body."""
        asked = self._transport.request(
            method, path, params, data, callback=lambda answer: json.loads(answer.body) if answer.body.strip() else None
        )
        return (await asked).value

    @property
    def _any_server(self) -> list[tuple[str, str]]:
        return [("stale", "")] if self._stale else []

    async def _get(self, path: str, index: int, wait: float, datacenter: str | None, *params: tuple[str, str]) -> Reply:
        where = [("dc", datacenter)] if datacenter else []
        asked = [*_blocking(index, wait), *where, *params]
        return await self._transport.request("GET", path, asked, callback=CB.json(index=True))


def read(reply: Reply, decoder: Callable[[Any], T]) -> Answer[T]:
    """Type a reply's body and headers, or raise `Misunderstood`."""
    headers = reply.headers
    try:
        return Answer(
            decoder(reply.value),
            index=int(headers.get("X-Consul-Index", 0)),
            known_leader=headers.get("X-Consul-KnownLeader", "true") == "true",
            last_contact=int(headers.get("X-Consul-LastContact", 0)) / 1000,
        )
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise misunderstood(reply.source, error) from error


def _blocking(index: int, wait: float) -> list[tuple[str, Any]]:
    if index <= 0:
        return []
    if not 0 <= wait <= MAX_WAIT:
        raise ValueError(f"wait {wait}: write 0 to {MAX_WAIT:g} seconds")
    return [("index", index), ("wait", duration(max(wait, 0.001)))]


def duration(seconds: float) -> str:
    """Return seconds as Consul reads them, in milliseconds."""
    return f"{round(seconds * 1000)}ms"
