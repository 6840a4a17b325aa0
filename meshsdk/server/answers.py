"""Replies the middleware gives itself, without the application."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from meshsdk.core.access import Decision

__all__ = ["UNVERIFIED", "Answer", "denied", "expired", "method_not_allowed", "overdue"]

TEXT = "text/plain; charset=utf-8"

UNVERIFIED = (
    "this service takes mutual TLS only (policy tls.mode: strict), and no certificate of the mesh came with the "
    "request; call it by its name through the mesh; health checks find its ready page, /-/mesh/ready, on the plain port"
)
"""What a caller in clear text is told by a strict service, whatever else it may not know."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole reply.

    Attributes:
        extra: headers beside the usual ones, names in small letters.
    """

    status: int
    body: bytes
    content_type: str = TEXT
    extra: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """As ASGI wants them. Never cached: each says what is true at this moment."""
        return [
            (b"content-type", self.content_type.encode()),
            (b"content-length", str(len(self.body)).encode()),
            (b"cache-control", b"no-store"),
            *self.extra,
        ]

    @property
    def status_line(self) -> str:
        """As WSGI wants it, such as `504 Gateway Timeout`."""
        return f"{self.status} {HTTPStatus(self.status).phrase}"

    @property
    def last_words(self) -> bytes:
        """As HTTP/1.1 has it, on a connection that ends with it."""
        lines = [f"HTTP/1.1 {self.status_line}".encode(), *(b": ".join(pair) for pair in self.headers)]
        return b"\r\n".join([*lines, b"connection: close", b"", self.body])


def expired(seconds: float, header: str) -> Answer:
    """504 for a request whose time was over when it came."""
    text = f"deadline exceeded: the caller gave this request {_ms(seconds)} ({header}); it was not started"
    return Answer(504, f"{text}\n".encode())


def overdue(seconds: float, header: str) -> Answer:
    """504 for a request whose handler was cancelled at the deadline."""
    text = f"deadline exceeded: the caller gave this request {_ms(seconds)} ({header}); the handler was cancelled"
    return Answer(504, f"{text}\n".encode())


def denied(decision: Decision, peer: str | None, *, explain: bool) -> Answer:
    """403 for a caller that may not do this.

    Args:
        peer: the caller's verified SPIFFE id.
        explain: whether the caller may read which rule says so.
    """
    who = peer or "a caller without a verified identity"
    why = f" ({decision.rule}: {decision.reason})" if explain else ""
    return Answer(403, f"access denied: {who} may not do this here{why}\n".encode())


def method_not_allowed(method: str) -> Answer:
    """405 for anything but GET and HEAD on a path of the middleware's own."""
    return Answer(405, f"{method} is not answered here: use GET or HEAD\n".encode())


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:g} ms"
