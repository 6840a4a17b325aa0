"""Reads requests by the reader alone, in given pieces, and says all that came of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from meshsdk.wire.http1 import Asked, Refused, RequestLimits, RequestReader

Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Request:
    """One request as it was read."""

    method: bytes
    target: bytes
    version: str
    fields: Fields
    host: bytes | None
    length: int
    keeps_alive: bool
    expects: bool
    upgrade: bytes
    complete: bool
    body: bytes
    trailers: Fields


@dataclass(frozen=True)
class Heard:
    """What became of some bytes; `status` and `kind` of the refusal are 0 and empty if there is none."""

    requests: list[Request]
    status: int
    kind: str
    surplus: bytes
    mid_head: bool
    buffered: int

    @property
    def only(self) -> Request:
        assert not self.status, self
        (request,) = self.requests
        return request


def ask(pieces: Iterable[bytes], limits: RequestLimits | None = None) -> Heard:
    """What the requests are that come in `pieces`."""
    return _ask(pieces, limits)[0]


def words(data: bytes, limits: RequestLimits | None = None) -> str:
    """What the refusal of `data` says."""
    _, refused = _ask([data], limits)
    assert refused is not None, data
    return str(refused)


def _ask(pieces: Iterable[bytes], limits: RequestLimits | None) -> tuple[Heard, Refused | None]:
    reader = RequestReader(limits or RequestLimits())
    refused = None
    try:
        for piece in pieces:
            reader.feed(piece)
    except Refused as error:
        refused = error
    requests = [_request(asked) for asked in reader.queue]
    if refused is None:
        heard = Heard(requests, 0, "", reader.surplus, reader.mid_head, reader.buffered)
    else:
        heard = Heard(requests, refused.status, refused.kind, b"", False, reader.buffered)
    return heard, refused


def _request(asked: Asked) -> Request:
    assert asked.headed
    return Request(
        asked.method,
        asked.target,
        asked.version,
        asked.fields,
        asked.host,
        asked.length,
        asked.keeps_alive,
        asked.expects,
        asked.upgrade,
        asked.complete,
        b"".join(asked.pieces),
        asked.trailers,
    )


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def whole_and_bytewise(data: bytes, limits: RequestLimits | None = None) -> Heard:
    whole = ask([data], limits)
    assert ask(bytewise(data), limits) == whole
    return whole
