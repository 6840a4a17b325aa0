"""The request being served, as a context variable that outgoing calls read: nobody copies headers by hand."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from meshsdk.telemetry.propagate import TraceContext

__all__ = ["Inbound", "current", "remaining_deadline"]


@dataclass(slots=True)
class Inbound:
    """What outgoing calls inherit from the request being served.

    Attributes:
        deadline: absolute, on `time.monotonic`, in seconds; None where the caller gave none.
        trace: the trace headers as they came in; None without any.
        peer: the verified SPIFFE id of the caller; None where nothing was verified.
        claims: what the end user's token says, which was verified; None where none was.
        ended: the reply is out. Work that outlives its request (background tasks, detached threads) is no longer
            bounded by its deadline, but still belongs to its trace.
        denied: the rule in the application's own code that refused the caller; empty where none did.
    """

    deadline: float | None = None
    trace: TraceContext | None = None
    peer: str | None = None
    ended: bool = False
    denied: str = ""
    claims: Mapping[str, Any] | None = None


current: ContextVar[Inbound | None] = ContextVar("meshsdk.inbound", default=None)


def remaining_deadline() -> float | None:
    """The absolute deadline (`time.monotonic`, seconds) of the request being served, None when nothing bounds us."""
    inbound = current.get()
    return None if inbound is None or inbound.ended else inbound.deadline
