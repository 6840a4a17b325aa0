"""HTTP/1.1 messages without a socket: a request is written to bytes, bytes are read to a reply (RFC 9110, RFC 9112)."""

from __future__ import annotations

from meshsdk.wire.http1.asked import Asked
from meshsdk.wire.http1.body import CONTINUE_WITHIN, BodyWriter, Framing
from meshsdk.wire.http1.limits import Limits, RequestLimits
from meshsdk.wire.http1.refused import Refused
from meshsdk.wire.http1.replies import answer, status_line
from meshsdk.wire.http1.request import Head, write_head
from meshsdk.wire.http1.requests import RequestReader
from meshsdk.wire.http1.response import Incoming, ProtocolError, ResponseReader

__all__ = [
    "CONTINUE_WITHIN",
    "Asked",
    "BodyWriter",
    "Framing",
    "Head",
    "Incoming",
    "Limits",
    "ProtocolError",
    "Refused",
    "RequestLimits",
    "RequestReader",
    "ResponseReader",
    "answer",
    "status_line",
    "write_head",
]
