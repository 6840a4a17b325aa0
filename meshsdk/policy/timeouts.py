"""`timeouts`: how long a call and its parts may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from meshsdk.core import plan as core
from meshsdk.policy.durations import duration, duration_text
from meshsdk.policy.section import Section, setting

__all__ = ["Timeouts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts(Section):
    """How long a call and its parts may take.

    `connect` fits into `attempt`, and `attempt` into `request`. A document that breaks this is refused, because the
    longer value could never be reached; a later document that shortens the outer one shortens the inner ones with it.
    """

    request: float = setting(
        duration,
        "15s",
        """The whole call: every attempt, every pause between them, the last byte of the body. `0` is no limit. A
        shorter deadline of the caller wins. 15s is Envoy's route timeout: longer than nearly every honest answer,
        shorter than the minute after which browsers and load balancers hang up.""",
    )
    attempt: float = setting(
        duration,
        "5s",
        """One attempt, from its start to the head of the reply. `0` leaves it to `request`; then an attempt that
        times out is never tried again, because no time is left. 5s is a third of `request`, so that three attempts
        fit.""",
    )
    connect: float = setting(
        duration,
        "1s",
        """Opening a connection. `0` leaves it to `attempt`. A data centre connects in milliseconds, and a lost SYN is
        repeated after 1s (RFC 6298, 2.1): by then another instance is the better bet. Linkerd uses the same.""",
    )
    idle: float = setting(
        duration,
        "5m",
        """Silence between two pieces of a body. `0` is no limit. It matters where `request` is `0`, for streams: 5m
        is Envoy's stream idle timeout, and outlasts the usual keep-alive message of 30 to 60 seconds.""",
    )

    def plan(self) -> core.Timeouts:
        """As the core reads it, in seconds."""
        return core.Timeouts(request=self.request, attempt=self.attempt, connect=self.connect, idle=self.idle)

    @staticmethod
    def dump(timeouts: core.Timeouts) -> dict[str, Any]:
        """As a document would write it."""
        return {key: duration_text(getattr(timeouts, key)) for key in Timeouts.fields()}
