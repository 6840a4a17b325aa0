"""Header fields at the border: what clients may not say, what services are told of them, and browsers of us.

Rule 1  What the mesh believes among its own comes off when it comes from outside: `x-mesh-*`, `x-envoy-*`, the
        certificate's header, and everything about how a request was forwarded, which is said anew.
Rule 2  Of a trusted proxy, X-Forwarded-Proto and -Host are believed too, one value each.
Rule 3  What a service says itself in an answer stands; what is missing is added. The mesh's own fields stay inside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
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


class _Names(dict[bytes, int]):
    """What is known of names seen before, in every spelling; bounded, as names come from outside.

    Args:
        kind: of a name in small letters.
    """

    __slots__ = ("_kind",)

    _MOST, _LONGEST = 500, 40

    def __init__(self, kind: Callable[[bytes], int]) -> None:
        super().__init__()
        self._kind = kind

    def __missing__(self, name: bytes) -> int:
        kind = self._kind(name.lower())
        if len(self) >= self._MOST:
            self.clear()  # so that junk does not stay in it
        if len(name) <= self._LONGEST:
            self[name] = kind
        return kind


def _from_outside(name: bytes) -> int:
    """1 for what comes off; `x_mesh_…` too, as behind CGI's names it is the same."""
    name = name.replace(b"_", b"-")
    return int(name in _SAID_OF_CLIENTS or name.startswith(_OUTER))


_outside = _Names(_from_outside)


def cleansed(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """The fields of a request from outside that go on."""
    known = _outside
    return [pair for pair in fields if not known[pair[0]]]


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

    __slots__ = ("_hidden", "_kinds", "_told", "fields")

    def __init__(self, headers: HeadersSection) -> None:
        self.fields = tuple(_spoken(headers))
        self._told = {name.lower(): 1 << number for number, (name, _) in enumerate(self.fields)}
        self._hidden = frozenset({*(name.encode() for name in headers.hide), XFCC})
        self._kinds = _Names(self._kind)

    def put_on(self, fields: Fields) -> Fields:
        """The fields of an answer as the client sees them."""
        kinds, said, kept = self._kinds, 0, []
        for pair in fields:
            kind = kinds[pair[0]]
            if kind >= 0:
                said |= kind
                kept.append(pair)
        if not said:
            kept += self.fields
        else:
            kept += [pair for number, pair in enumerate(self.fields) if not said >> number & 1]
        return kept

    def stripped(self, fields: Fields) -> Fields:
        """Fields that come before or after an answer's own, without what is hidden."""
        kinds = self._kinds
        return [pair for pair in fields if kinds[pair[0]] >= 0]

    def _kind(self, name: bytes) -> int:
        """-1 for what is hidden, a bit of its own for each field that would be added, else 0."""
        return -1 if name in self._hidden or name.startswith(_INNER) else self._told.get(name, 0)


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
