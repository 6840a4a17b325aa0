"""How much of a reply that is not its body is read: a server that sends headers for ever must not fill our memory."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


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
