"""Spans that record nothing and only hand headers on: no SDK is there, or its sampler said no."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshsdk.telemetry.propagate import TraceContext

__all__ = ["NO_CALL", "NO_REQUEST", "UnrecordedAttempt", "UnrecordedCall", "UnrecordedRequest"]

Headers = Sequence[tuple[bytes, bytes]]


class UnrecordedAttempt:
    """A try that carries `headers`."""

    __slots__ = ("_headers",)

    def __init__(self, headers: Headers) -> None:
        self._headers = headers

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """A list of the caller's own: this object is shared."""
        return list(self._headers)

    def end(self, status: int | None, error_type: str | None) -> None:
        """Nothing was begun."""


class UnrecordedCall:
    """A call of which every try carries `headers`."""

    __slots__ = ("_attempt",)

    def __init__(self, headers: Headers) -> None:
        self._attempt = UnrecordedAttempt(headers)

    def attempt(self, number: int, address: str, port: int) -> UnrecordedAttempt:  # noqa: ARG002 (CallSpan's shape)
        """The same object for every try."""
        return self._attempt

    def end(self, status: int | None, error: BaseException | None, attempts: int) -> None:
        """Nothing was begun."""


class UnrecordedRequest:
    """A request of which only the trace headers are remembered."""

    __slots__ = ("inbound_trace",)

    def __init__(self, inbound: TraceContext | None) -> None:
        self.inbound_trace = inbound

    @property
    def trace_id(self) -> str:
        """The id that came in, for log lines."""
        return self.inbound_trace.trace_id if self.inbound_trace else ""

    def set_route(self, route: str) -> None:
        """Nothing to name."""

    def set_peer(self, spiffe_id: str) -> None:
        """Nothing to tell."""

    def end(self, status: int | None, error: BaseException | None = None) -> None:
        """Nothing was begun."""


NO_CALL = UnrecordedCall(())
NO_REQUEST = UnrecordedRequest(None)
