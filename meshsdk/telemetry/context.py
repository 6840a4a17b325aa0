"""The request being served, as a context variable that outgoing calls read: nobody copies headers by hand."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Protocol

from meshsdk.telemetry.propagate import TraceContext

__all__ = ["Inbound", "current", "remaining_deadline"]


class _Traced(Protocol):
    """A request's span, as far as it matters here."""

    @property
    def inbound_trace(self) -> TraceContext | None: ...


class Inbound:
    """What outgoing calls inherit from the request being served.

    Args:
        span: the request's; in place of `trace`, which is then read from it when somebody asks.

    Attributes:
        deadline: absolute, on `time.monotonic`, in seconds; None where the caller gave none.
        peer: the verified SPIFFE id of the caller; None where nothing was verified.
        claims: what the end user's token says, which was verified; None where none was.
        ended: the reply is out. Work that outlives its request (background tasks, detached threads) is no longer
            bounded by its deadline, but still belongs to its trace.
        denied: the rule in the application's own code that refused the caller; empty where none did.
    """

    __slots__ = ("_span", "_trace", "claims", "deadline", "denied", "ended", "peer")

    def __init__(
        self,
        deadline: float | None = None,
        trace: TraceContext | None = None,
        peer: str | None = None,
        *,
        ended: bool = False,
        span: _Traced | None = None,
    ) -> None:
        self.deadline = deadline
        self.peer = peer
        self.ended = ended
        self.denied = ""
        self.claims: Mapping[str, Any] | None = None
        self._trace = trace
        self._span = span

    @property
    def trace(self) -> TraceContext | None:
        """The trace headers as they came in, or as our own span continues them; None without any."""
        return self._trace if self._span is None else self._span.inbound_trace


current: ContextVar[Inbound | None] = ContextVar("meshsdk.inbound", default=None)


def remaining_deadline() -> float | None:
    """The absolute deadline (`time.monotonic`, seconds) of the request being served, None when nothing bounds us."""
    inbound = current.get()
    return None if inbound is None or inbound.ended else inbound.deadline
