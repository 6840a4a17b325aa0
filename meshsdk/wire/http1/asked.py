"""One request as it comes in, and what its fields mean: for whom, how long, and what happens after it.

Rule 1  A length is digits, once. A transfer coding is `chunked`, once, in HTTP/1.1, and without a length beside it.
        Whatever else two parsers could read in two ways is refused, not corrected (RFC 9112, 6.3 and 11.2).
Rule 2  HTTP/1.1 has one Host, and it is a name or address. The authority in an absolute target outranks it (3.2.2).
Rule 3  `Connection` may name no field that is meant for the last recipient: who dropped it on our word would decide by
        less than the client sent (CVE-2022-31813). RFC 9110, 7.6.1 forbids it; Envoy refuses some of them too.
Rule 4  `Content_Length` is no Content-Length here, and is one to applications behind CGI's names. Such doubles of the
        fields above are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from meshsdk.wire.http1.body import Framing
from meshsdk.wire.http1.fields import TOKEN
from meshsdk.wire.http1.refused import Refused
from meshsdk.wire.http1.targets import check_authority, read_target
from meshsdk.wire.http1.targets import known as _hosts

__all__ = ["Asked", "understand"]

_PROTOCOL: Final = re.compile(TOKEN.pattern + rb"(?:/" + TOKEN.pattern + rb")?")
_DIGITS: Final = 19
_LARGEST: Final = 2**63 - 1  # so many digits; what nginx counts to; others count in doubles and stop sooner

# A number is found in bytes in a quarter of the time.
_PERCENT: Final = 0x25
_DOT: Final = 0x2E
_SLASH: Final = 0x2F
_WITH_BODY: Final = (b"POST", b"PUT", b"PATCH")
_WITHOUT_BODY: Final = (b"CONNECT", b"TRACE")
_PLAIN: Final = 0
_HOST: Final = 1
_LENGTH: Final = 2
_CODING: Final = 3
_CONNECTION: Final = 4
_EXPECT: Final = 5
_UPGRADE: Final = 6
_SPECIAL: Final = {
    b"host": _HOST,
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"connection": _CONNECTION,
    b"expect": _EXPECT,
    b"upgrade": _UPGRADE,
}

# Meant for the last recipient, or for us: not to be named by `Connection`, nor written with underscores.
_END_TO_END: Final = frozenset(_SPECIAL.keys() - {b"connection", b"upgrade"}) | {
    b"authorization", b"baggage", b"cache-control", b"content-encoding", b"content-type", b"cookie", b"date",
    b"forwarded", b"grpc-timeout", b"idempotency-key", b"origin", b"range", b"traceparent", b"tracestate",
    b"true-client-ip", b"via", b"x-real-ip", b"x-request-id",
}  # fmt: skip
_PREFIXES: Final = (b"x-forwarded-", b"x-envoy-")


# What each name seen before means to us; begun anew when there are many, as they come from outside.
_kinds: dict[bytes, int] = {}
_REMEMBERED: Final = 500
_MEMORABLE: Final = 40


class Asked:
    """One request as it comes in; the reader fills it, and whoever forwards it reads it.

    Attributes:
        version: `1.1` or `1.0`.
        fields: in the order and case they came in.
        host: the authority in the target if there is one, else the Host field; None where an HTTP/1.0 request has
            neither.
        length: of the body; 0 for none, `Framing.CHUNKED` for one in chunks.
        keeps_alive: the client would send another request on the connection (RFC 9112, 9.3).
        expects: it waits for `100 Continue` before it sends the body.
        upgrade: the protocols it asks for, empty for none; CONNECT is told by its method. What is not here is not to be
            passed on: h2c, and any that a request with a body asks for.
        headed: the head is complete.
        complete: the last byte of the body is here.
        pieces: of the body, that nobody took yet, in order.
        trailers: those after a chunked body that may be passed on.
    """

    __slots__ = (
        "complete",
        "expects",
        "fields",
        "headed",
        "host",
        "keeps_alive",
        "length",
        "method",
        "pieces",
        "target",
        "trailers",
        "upgrade",
        "version",
    )

    method: bytes
    target: bytes
    version: str
    fields: list[tuple[bytes, bytes]]

    def __init__(self) -> None:
        self.host: bytes | None = None
        self.length = 0
        self.keeps_alive = True
        self.expects = False
        self.upgrade = b""
        self.headed = False
        self.complete = False
        self.pieces: list[bytes] = []
        self.trailers: list[tuple[bytes, bytes]] = []


def understand(asked: Asked) -> None:
    """Find out from method, target, version and fields all else about a request.

    Raises:
        Refused: they contradict each other or the RFCs.
    """
    kinds = _kinds
    host: bytes | None = None
    special: list[tuple[int, bytes]] = []
    for name, value in asked.fields:
        try:
            kind = kinds[name]
        except KeyError:
            kind = _learn(name)
        if kind:
            if kind == _HOST and host is None:
                host = value
            elif kind != _CONNECTION or value != b"keep-alive" or asked.version == "1.0":  # which says nothing in 1.1
                special.append((kind, value))
    if host not in _hosts:
        _check_host(host, asked.version)
    target = asked.target
    if target[0] != _SLASH or _PERCENT in target or (_DOT in target and b".." in target) or asked.method == b"CONNECT":
        host = read_target(asked.method, target) or host
    asked.host = host
    if special or asked.version == "1.0":
        _heed(asked, special)


def _check_host(host: bytes | None, version: str) -> None:
    if host is not None:
        check_authority(host, "the Host field")
    elif version == "1.1":
        raise Refused(400, "host", "the request has no Host field; HTTP/1.1 needs one (RFC 9112, 3.2)")


def _learn(name: bytes) -> int:
    lower = name.lower()
    if b"_" in name:
        double = lower.replace(b"_", b"-")
        if double in _SPECIAL or double in _END_TO_END or double.startswith(_PREFIXES):
            raise Refused(400, "syntax", f"the field {name.decode()} can be taken for {double.decode()}; write that")
    kind = _SPECIAL.get(lower, _PLAIN)
    if len(_kinds) >= _REMEMBERED:
        _kinds.clear()
    if len(name) <= _MEMORABLE:
        _kinds[name] = kind
    return kind


def _heed(asked: Asked, special: list[tuple[int, bytes]]) -> None:
    """Obey the fields that say how the message is framed and what happens to the connection."""
    if len(special) == 1 and special[0][0] == _LENGTH and asked.version == "1.1" and asked.method in _WITH_BODY:
        asked.length = _number(special[0][1])  # most requests with a body
        return
    said: dict[int, list[bytes]] = {}
    for kind, value in special:
        said.setdefault(kind, []).append(value)
    if _HOST in said:
        raise Refused(400, "host", f"the request has {len(said[_HOST]) + 1} Host fields; it may have one")
    old = asked.version == "1.0"
    asked.length = _length(said.get(_LENGTH, []), said.get(_CODING, []), old)
    if asked.length and asked.method in _WITHOUT_BODY:
        raise Refused(400, "framing", f"{asked.method.decode()} has a body, which it cannot have (RFC 9110, 9.3)")
    options = _options(said.get(_CONNECTION, ()))
    asked.keeps_alive = b"close" not in options and (not old or b"keep-alive" in options)
    for value in said.get(_EXPECT, ()):
        if value.lower() != b"100-continue":
            raise Refused(417, "expect", f"Expect: {_shown(value)} cannot be met; only `100-continue` can")
        asked.expects = asked.length != 0 and not old  # RFC 9110, 10.1.1
    if _UPGRADE in said and b"upgrade" in options and not old:  # RFC 9110, 7.8
        protocols = _protocols(said[_UPGRADE])
        # Anybody may leave the protocol as it is; and Node takes a body, if there is one, for the new protocol's bytes.
        asked.upgrade = b"" if asked.length else protocols


def _length(lengths: list[bytes], codings: list[bytes], old: bool) -> int:
    if codings:
        return _coded(codings, lengths, old)
    if len(lengths) > 1:
        raise Refused(400, "framing", f"the request has {len(lengths)} Content-Length fields; it may have one")
    return _number(lengths[0]) if lengths else 0


def _number(value: bytes) -> int:
    if not value.isdigit() or len(value) > _DIGITS:
        raise Refused(400, "framing", f"Content-Length: {_shown(value)} is not a number of bytes")
    length = int(value)
    if length > _LARGEST:
        raise Refused(413, "size", f"Content-Length: {length} is more than can be counted")
    return length


def _coded(codings: list[bytes], lengths: list[bytes], old: bool) -> int:
    """Rule 1 for a request with a Transfer-Encoding."""
    if lengths:
        raise Refused(400, "framing", "the request has Content-Length and Transfer-Encoding; leave one out")
    if old:
        raise Refused(400, "framing", "the request is HTTP/1.0 and has Transfer-Encoding, which came with HTTP/1.1")
    if len(codings) == 1 and codings[0].lower() == b"chunked":
        return Framing.CHUNKED
    value = b", ".join(codings)
    names = [name.strip(b" \t").lower() for name in value.split(b",")]
    if b"chunked" in names[:-1] or not all(TOKEN.fullmatch(name) for name in names):
        raise Refused(400, "framing", f"Transfer-Encoding: {_shown(value)} has not `chunked` once, at its end")
    raise Refused(501, "framing", f"Transfer-Encoding: {_shown(value)} is not understood; only `chunked` is")


def _options(values: Iterable[bytes]) -> list[bytes]:
    options: list[bytes] = []
    for value in values:
        lower = value.lower()
        if lower in (b"close", b"keep-alive"):
            options.append(lower)
            continue
        options += (option for option in (part.strip(b" \t") for part in lower.split(b",")) if option)
    for option in options:
        if option in _END_TO_END or option.startswith(_PREFIXES):
            text = f"Connection: {_shown(option)} names a field that is not for one hop (RFC 9110, 7.6.1)"
            raise Refused(400, "connection", text)
        if not TOKEN.fullmatch(option):
            raise Refused(400, "connection", f"Connection: {_shown(option)} is no token (RFC 9110, 5.6.2)")
    return options


def _protocols(values: list[bytes]) -> bytes:
    """What is asked for; nothing where h2c is: a tunnel for it would carry requests that no policy sees."""
    value = b", ".join(values)
    protocols = [part.strip(b" \t") for part in value.split(b",")]
    for protocol in protocols:
        if not _PROTOCOL.fullmatch(protocol):
            raise Refused(400, "connection", f"Upgrade: {_shown(value)} is no list of protocols (RFC 9110, 7.8)")
    return b"" if any(protocol.lower() == b"h2c" for protocol in protocols) else value


def _shown(value: bytes) -> str:
    return value[:80].decode("ascii", "backslashreplace")
