"""`Max-Forwards`: how many proxies may still pass a TRACE or OPTIONS on (RFC 9110, 7.6.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshsdk.wire.http1.requests import Asked

__all__ = ["COUNTED", "last_hop"]

COUNTED = frozenset({b"TRACE", b"OPTIONS"})
"""The methods that have such a count; for others it is a field like any."""

# What a TRACE must not show to whoever sees its answer (RFC 9110, 9.3.8).
_SECRET = frozenset(
    {b"authorization", b"proxy-authorization", b"cookie", b"x-consul-token", b"x-forwarded-client-cert"}
)

_MESSAGE = (b"content-type", b"message/http")

Answer = tuple[int, bytes, tuple[tuple[bytes, bytes], ...]]


def last_hop(asked: Asked) -> Answer | None:
    """Count this hop off; what is answered here where none is left: the request itself to TRACE, nothing to OPTIONS.

    A count that is no number is passed on as it came: it binds nobody.
    """
    for index, (name, value) in enumerate(asked.fields):
        if name.lower() != b"max-forwards" or not value.isdigit() or len(value) > 9:
            continue
        if int(value):
            asked.fields[index] = name, b"%d" % (int(value) - 1)
        else:
            return (200, _shown(asked), (_MESSAGE,)) if asked.method == b"TRACE" else (200, b"", ())
    return None


def _shown(asked: Asked) -> bytes:
    fields = (b"%b: %b\r\n" % pair for pair in asked.fields if pair[0].lower() not in _SECRET)
    return b"".join((b"%b %b HTTP/%b\r\n" % (asked.method, asked.target, asked.version.encode()), *fields, b"\r\n"))
