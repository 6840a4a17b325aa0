"""Spans that record nothing and only hand headers on: no SDK is there, or its sampler said no."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from meshsdk.telemetry.propagate import TraceContext, extract

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
    """A request of which only the headers are remembered: its trace is read when somebody asks, which few do."""

    __slots__ = ("_headers", "_trace")

    def __init__(self, headers: Headers) -> None:
        self._headers: Headers | None = headers
        self._trace: TraceContext | None = None

    @property
    def inbound_trace(self) -> TraceContext | None:
        """What came in; None without any."""
        if self._headers is not None:
            self._trace, self._headers = extract(self._headers), None
        return self._trace

    @property
    def trace_id(self) -> str:
        """The id that came in, for log lines."""
        trace = self.inbound_trace
        return trace.trace_id if trace else ""

    def set_route(self, route: str) -> None:
        """Nothing to name."""

    def set_peer(self, spiffe_id: str) -> None:
        """Nothing to tell."""

    def end(self, status: int | None, error: BaseException | None = None) -> None:
        """Nothing was begun."""


NO_CALL: Final = UnrecordedCall(())
NO_REQUEST: Final = UnrecordedRequest(())
