"""How much of a message that is not its body is read: a peer that sends headers for ever must not fill our memory."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits", "RequestLimits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on a reply's framing; exceeding one is a breach of protocol whose error names it.

    Attributes:
        head: bytes of a reply's heads, interim ones (1xx) included. httpx's engine stops at 100 KiB, Envoy at 60, Node
            at 16; a reply that worked under httpx works here.
        field: bytes of one header field, name and value. nginx stops at 32 KiB in all; a token seldom exceeds 8.
        fields: header fields of one head. Envoy stops at 100, which large cookies exceed.
        framing: bytes of chunk lines and trailers beyond 16 for each chunk and twice the body so far, after each read.
            Go's bound, found after chunk extensions were used to make servers read what no application sees
            (CVE-2023-39326).
    """

    head: int = 128 * 1024
    field: int = 64 * 1024
    fields: int = 500
    framing: int = 16 * 1024


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Bounds on what a client sends besides bodies; exceeding one refuses the request, and the refusal names it.

    Attributes:
        line: bytes of the request line; 414 beyond. RFC 9112, 3 asks for 8,000 at least; nginx stops there, Node at 16
            KiB with all fields.
        head: bytes of a whole head; 431 beyond. Envoy stops at 60 KiB, nginx at 32, Node at 16.
        field: bytes of one field line; 431 beyond. nginx stops at 8 KiB, which some tickets of Kerberos exceed.
        fields: field lines of one head, and of one body's trailers; 431 beyond. Envoy and gunicorn stop at 100.
        framing: bytes of chunk lines and trailers beyond 16 for each chunk and twice the body so far; 400 beyond. Go's
            bound (CVE-2023-39326).
        blank: empty lines before a request, which RFC 9112, 2.2 lets old clients send; 400 beyond.
        pipelined: complete requests kept in the queue. No more is read then until `resume`: 28 bytes make a request, so
            one read of 256 KiB could otherwise make 9,000 objects.
        body: bytes of one body; 413 beyond. Bodies are handed on while they come, so nothing is bounded by it here.
    """

    line: int = 16 * 1024
    head: int = 64 * 1024
    field: int = 32 * 1024
    fields: int = 200
    framing: int = 16 * 1024
    blank: int = 8
    pipelined: int = 256
    body: int = 2**63 - 1
