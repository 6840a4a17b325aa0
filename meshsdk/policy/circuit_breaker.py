"""`circuit_breaker`: when calls to the whole service stop for a while."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from meshsdk.core import plan as core
from meshsdk.policy.durations import duration_text, period
from meshsdk.policy.kinds import whole
from meshsdk.policy.section import Section, setting

__all__ = ["CircuitBreaker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreaker(Section):
    """When calls to the whole service stop for a while, instead of each waiting for its own failure.

    It counts attempts over all instances; a single bad instance is `outlier_detection`'s matter.
    """

    consecutive_failures: int = setting(
        whole(0, 1_000_000),
        20,
        """Failed attempts in a row (5xx, or no reply) that open the breaker; `0` turns it off. 20 is four times what
        ejects one instance, so instances go first and the breaker opens only where none is left that works.""",
    )
    open_for: float = setting(
        period,
        "5s",
        """How long calls are refused before probes are let through. 5s is a restart of a small process; longer would
        add an outage of its own.""",
    )
    probes: int = setting(
        whole(1, 1000),
        3,
        """Attempts let through at a time once `open_for` is over; as many successes close the breaker, one failure
        opens it again. 3 tells a service that is back from one lucky answer, and does not flood one that is
        starting.""",
    )

    def plan(self) -> core.Breaker:
        """As the core reads it."""
        return core.Breaker(consecutive_failures=self.consecutive_failures, open_for=self.open_for, probes=self.probes)

    @staticmethod
    def dump(breaker: core.Breaker) -> dict[str, Any]:
        """As a document would write it."""
        return {
            "consecutive_failures": breaker.consecutive_failures,
            "open_for": duration_text(breaker.open_for),
            "probes": breaker.probes,
        }
