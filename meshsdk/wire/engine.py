"""What an HTTP engine is given and gives back; `meshsdk.wire.httpcore_engine` is the one in use."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from meshsdk.core.model import Endpoint

__all__ = ["AsyncEngine", "AsyncReply", "Bounds", "Engine", "InvalidRequest", "Reply", "Request"]

Headers = Sequence[tuple[bytes, bytes]]


class InvalidRequest(ValueError):
    """The request itself cannot be sent as HTTP/1.1, whatever the endpoint; the message says why."""


@dataclass(slots=True)
class Request:
    """One request as it goes out; the `Host` header is among the headers.

    Attributes:
        target: what stands in the request line, such as `b"/charge?id=1"`.
        body: bytes, or what is iterated once per try; an async iterable for an `AsyncEngine`.
        extensions: what httpx calls by that name; `trace` is understood, `timeout` is not.
        service: what the endpoint is called as, and must prove to be where the connection is secured. Services that
            share an endpoint share no connection.
    """

    method: str
    target: bytes
    headers: Headers
    body: bytes | Iterable[bytes] | AsyncIterable[bytes]
    extensions: Mapping[str, Any]
    service: str = ""


@dataclass(slots=True, init=False)
class Bounds:
    """How long one try may take and how many connections it may add to.

    The deadlines are absolute, in seconds on the engine's clock, and nothing the server does moves them. The rest are
    seconds that one wait may take. Infinity is no bound.

    Attributes:
        deadline: until the reply's head is complete.
        body_deadline: until the last byte of the reply's body.
        connect: opening a connection.
        idle: silence between two pieces of the reply's body.
        read, write, pool: one read before the body, one write, waiting for a free connection.
        max_connections: to this endpoint; 0 is no limit.
    """

    deadline: float = math.inf
    body_deadline: float = math.inf
    connect: float = math.inf
    idle: float = math.inf
    read: float = math.inf
    write: float = math.inf
    pool: float = math.inf
    max_connections: int = 0

    def __init__(  # noqa: PLR0917 - written out to be compiled (decision 15)
        self,
        deadline: float = math.inf,
        body_deadline: float = math.inf,
        connect: float = math.inf,
        idle: float = math.inf,
        read: float = math.inf,
        write: float = math.inf,
        pool: float = math.inf,
        max_connections: int = 0,
    ) -> None:
        self.deadline = deadline
        self.body_deadline = body_deadline
        self.connect = connect
        self.idle = idle
        self.read = read
        self.write = write
        self.pool = pool
        self.max_connections = max_connections


class Reply(Protocol):
    """A reply whose head is here; iterating reads the body and raises `TransportFailure` where it breaks."""

    @property
    def status(self) -> int:
        """The status code."""
        ...

    @property
    def headers(self) -> Headers:
        """The header fields in the order and case they came in."""
        ...

    @property
    def retry_after(self) -> float | None:
        """Seconds the server asks to wait, from Retry-After (RFC 9110, 10.2.3)."""
        ...

    @property
    def extensions(self) -> dict[str, Any]:
        """`http_version`, `reason_phrase` and `network_stream`, as httpx names them."""
        ...

    def whole(self) -> bytes | None:
        """All of the body, where it is here already and nobody has begun to read it; else None."""
        ...

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None:
        """Let go of the connection; once the body was read to its end it is used again."""
        ...


class AsyncReply(Protocol):
    """The same for asyncio."""

    @property
    def status(self) -> int:
        """The status code."""
        ...

    @property
    def headers(self) -> Headers:
        """The header fields in the order and case they came in."""
        ...

    @property
    def retry_after(self) -> float | None:
        """Seconds the server asks to wait, from Retry-After (RFC 9110, 10.2.3)."""
        ...

    @property
    def extensions(self) -> dict[str, Any]:
        """`http_version`, `reason_phrase` and `network_stream`, as httpx names them."""
        ...

    def whole(self) -> bytes | None:
        """All of the body, where it is here already and nobody has begun to read it; else None."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None:
        """Let go of the connection; once the body was read to its end it is used again."""
        ...


class Engine(Protocol):
    """Sends requests from any thread."""

    def send(self, endpoint: Endpoint, request: Request, bounds: Bounds) -> Reply:
        """Send `request` and wait for the reply's head.

        Raises:
            TransportFailure: it failed; says how far it got.
            InvalidRequest: it could not be sent to anyone.
        """
        ...

    def retire(self, gone: Collection[Endpoint], service: str = "") -> None:
        """Let go of the connections to endpoints of a service: close what is idle, let what is in flight finish."""
        ...

    def close(self) -> None:
        """Close every connection. A later `send` opens new ones."""
        ...


class AsyncEngine(Protocol):
    """Sends requests from any number of asyncio loops, each with connections of its own."""

    async def send(self, endpoint: Endpoint, request: Request, bounds: Bounds) -> AsyncReply:
        """Send `request` and wait for the reply's head; raises as `Engine.send` does."""
        ...

    async def retire(self, gone: Collection[Endpoint], service: str = "") -> None:
        """Let go of the connections to endpoints of a service: close what is idle, let what is in flight finish."""
        ...

    async def aclose(self) -> None:
        """Close every connection of the running loop; those of other loops close when their loop ends."""
        ...
