"""Header fields at the border: what clients may not say, what services are told of them, and browsers of us.

Rule 1  What the mesh believes among its own comes off when it comes from outside: `x-mesh-*`, `x-envoy-*`, the
        certificate's header, and everything about how a request was forwarded, which is said anew.
Rule 2  Of a trusted proxy, X-Forwarded-Proto and -Host are believed too, one value each.
Rule 3  What a service says itself in an answer stands; what is missing is added. The mesh's own fields stay inside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from meshsdk.server.forwarded import XFCC
from meshsdk_sidecar.gateway.clients import Client
from meshsdk_sidecar.gateway.config import HeadersSection
from meshsdk_sidecar.gateway.routes import name_of

__all__ = ["Attire", "cleansed", "forwarded"]

Fields = list[tuple[bytes, bytes]]

_INNER = (b"x-mesh-", b"x-envoy-")
_OUTER = (*_INNER, b"x-forwarded-")
_SAID_OF_CLIENTS = frozenset({XFCC, b"forwarded", b"x-real-ip", b"true-client-ip", b"x-original-url", b"x-rewrite-url"})

_PROTO, _HOST = b"x-forwarded-proto", b"x-forwarded-host"
_AUTHORITY = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,255}")


def cleansed(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """The fields of a request from outside that go on. `x_mesh_…` is dropped too: behind CGI's names it is the same."""
    return [pair for pair in fields if not _inner(pair[0].lower().replace(b"_", b"-"))]


def _inner(name: bytes) -> bool:
    return name in _SAID_OF_CLIENTS or name.startswith(_OUTER)


def forwarded(client: Client, host: bytes, fields: Fields) -> bytes:
    """What a service is told of the client, as lines of a head.

    Args:
        host: the authority that the client asked for.
        fields: as they came, not cleansed.
    """
    proto = b"https"
    if client.vouched:
        said = {name.lower(): value for name, value in fields}
        proto = said[_PROTO].lower() if said.get(_PROTO, b"").lower() in {b"http", b"https"} else proto
        host = said[_HOST] if _AUTHORITY.fullmatch(said.get(_HOST, b"")) else host
    chain = client.chain.encode("ascii", "replace")
    lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (chain, proto)
    return lines + b"X-Forwarded-Host: %b\r\n" % host if name_of(host) else lines


class Attire:
    """What answers wear when they leave.

    Args:
        headers: the file's section.
    """

    __slots__ = ("_added", "_hidden", "fields")

    def __init__(self, headers: HeadersSection) -> None:
        self.fields = tuple(_spoken(headers))
        self._added = tuple((pair[0].lower(), pair) for pair in self.fields)
        self._hidden = frozenset(name.encode() for name in headers.hide)

    def put_on(self, fields: Fields) -> Fields:
        """The fields of an answer as the client sees them."""
        hidden = self._hidden
        names = [name.lower() for name, _ in fields]
        kept = [
            pair
            for name, pair in zip(names, fields, strict=True)
            if name not in hidden and not name.startswith(_INNER) and name != XFCC
        ]
        kept += [pair for name, pair in self._added if name not in names]
        return kept


def _spoken(headers: HeadersSection) -> Fields:
    found: Fields = []
    if headers.hsts is not False:
        below = b"; includeSubDomains" if headers.hsts_subdomains else b""
        found.append((b"Strict-Transport-Security", b"max-age=%d%b" % (headers.hsts, below)))
    if headers.frame:
        found.append((b"X-Frame-Options", b"DENY" if headers.frame == "deny" else b"SAMEORIGIN"))
    if headers.nosniff == "on":
        found.append((b"X-Content-Type-Options", b"nosniff"))
    told: tuple[tuple[bytes, str | Literal[False]], ...] = (
        (b"Referrer-Policy", headers.referrer),
        (b"Content-Security-Policy", headers.csp),
        (b"Permissions-Policy", headers.permissions),
    )
    return found + [(name, value.encode()) for name, value in told if value]
