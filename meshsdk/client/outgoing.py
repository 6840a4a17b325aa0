"""From an httpx request to what the core and the engine are told: pure, the same for both colours."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import httpx

from meshsdk.core.model import Call, Failure, Phase
from meshsdk.wire.engine import Bounds, Request

if TYPE_CHECKING:
    from meshsdk.core.attempt import Attempt
    from meshsdk.core.upstream import Upstream

__all__ = ["Outgoing", "facts", "with_trace"]

Headers = Sequence[tuple[bytes, bytes]]

# RFC 9110, 9.2.2.
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

# The mesh speaks for itself in these: a caller's own would tell the instance a deadline that is not kept.
_OURS: Final = frozenset({b"x-envoy-expected-rq-timeout-ms", b"x-envoy-attempt-count"})
_LENGTHS_OF_OURS: Final = frozenset(map(len, _OURS))
_name = itemgetter(0)


def facts(request: httpx.Request, deadline: float | None, raw_path: bytes | None = None) -> Call:
    """What decisions need to know of `request`.

    Args:
        deadline: absolute, None where nothing bounds the caller.
        raw_path: that of the request's URL where it is known already; httpx makes it anew each time it is asked.
    """
    method = request.method
    idempotent = method in _IDEMPOTENT or "idempotency-key" in request.headers
    path = (raw_path or request.url.raw_path).partition(b"?")[0].decode("ascii")
    return Call(method, path, idempotent, True, deadline)


class Outgoing(Request):
    """One call's request, as each of its tries sends it: tries come one after the other, so it is one object.

    A body of bytes is sent again as often as needed. A stream is handed out as it is, never buffered: from the moment
    a try first asks for a piece, the call is not replayable.

    Args:
        upstream: what is called; its limits may change between two tries.
        known: the library's `ByteStream`, the class of bodies that are bytes.
        raw_path: as for `facts`.
    """

    __slots__ = ("_fields", "_upstream", "_waits")

    def __init__(
        self,
        request: httpx.Request,
        call: Call,
        upstream: Upstream,
        known: type[Iterable[bytes]] = httpx.ByteStream,
        raw_path: bytes | None = None,
    ) -> None:
        extensions, stream = request.extensions, request.stream
        self.method = request.method
        self.target = extensions.get("target") or raw_path or request.url.raw_path
        # `headers.raw` and `read()` say the same in more steps.
        fields = [(name, value) for name, _, value in request.headers._list]  # noqa: SLF001
        # Lengths are compared first: nearly always they say that there is nothing to take out.
        may_have_ours = not _LENGTHS_OF_OURS.isdisjoint(map(len, map(_name, fields)))
        self.headers = self._fields = _without_ours(fields) if may_have_ours else fields
        self.extensions = extensions
        self.service = upstream.service
        # Asking for `content` would fail after a redirect, which hands the stream on and not the bytes.
        if isinstance(stream, known):
            content = request.__dict__.get("_content")
            self.body = request.read() if content is None else content
        else:
            self.body = _Once(stream, call)
        waits = extensions.get("timeout")
        self._waits = _waits(waits) if waits and waits != _NONE_GIVEN else _UNBOUNDED
        self._upstream = upstream

    def prepare(self, attempt: Attempt, trace: Headers) -> Bounds:
        """Become the request of the next try.

        Returns:
            How long it may take: the policy's bounds and those httpx was given for one operation.
        """
        headers = [*self._fields, *attempt.headers]
        self.headers = with_trace(headers, trace) if trace else headers
        connect, read, write, pool = self._waits
        most = attempt.connect_timeout
        return Bounds(
            attempt.deadline,
            attempt.body_deadline,
            most if most < connect else connect,
            attempt.idle_timeout,
            read,
            write,
            pool,
            self._upstream.plan.limits.max_connections_per_endpoint,
        )

    def told(self, failure: Failure) -> Failure:
        """A try's failure as the core must hear of it: what was taken of a stream is gone, whoever read it or not."""
        if failure.phase <= Phase.NOT_WRITTEN and isinstance(self.body, _Once) and self.body.begun:
            failure.phase = Phase.WRITTEN
        return failure


def _without_ours(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [field for field in fields if field[0].lower() not in _OURS]


def with_trace(headers: list[tuple[bytes, bytes]], trace: Headers) -> list[tuple[bytes, bytes]]:
    """Add trace headers, unless the caller wrote a `traceparent` (or `baggage`) by hand: theirs stands."""
    written = set(map(bytes.lower, map(_name, headers)))
    if written.isdisjoint(map(bytes.lower, map(_name, trace))):
        return [*headers, *trace]
    if b"traceparent" in written:
        written.add(b"tracestate")  # it belongs to the traceparent it came with
    return headers + [field for field in trace if field[0].lower() not in written]


# Not Final, as mypyc takes a Final tuple of floats for one that was never set.
_UNBOUNDED = (math.inf, math.inf, math.inf, math.inf)
_NONE_GIVEN: Final = {"connect": None, "read": None, "write": None, "pool": None}


def _waits(given: Mapping[str, Any]) -> tuple[float, float, float, float]:
    connect, read, write, pool = (
        math.inf if (seconds := given.get(operation)) is None else float(seconds)
        for operation in ("connect", "read", "write", "pool")
    )
    return connect, read, write, pool


class _Once:
    """A streamed body: tells the call when it is first touched. The client saw to it that it is of our colour."""

    __slots__ = ("_call", "_stream")

    def __init__(self, stream: Any, call: Call) -> None:
        self._stream = stream
        self._call = call

    @property
    def begun(self) -> bool:
        return not self._call.replayable

    def __iter__(self) -> Iterator[bytes]:
        self._call.replayable = False
        return iter(self._stream)

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._call.replayable = False
        return aiter(self._stream)
