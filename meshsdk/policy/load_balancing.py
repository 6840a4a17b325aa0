"""`load_balancing`: which instance gets a call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from meshsdk.core import plan as core
from meshsdk.policy.kinds import choice, percent
from meshsdk.policy.section import Section, number, setting

__all__ = ["LoadBalancing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancing(Section):
    """Which instance gets a call. Weights that Consul knows of count with every algorithm."""

    algorithm: Literal["peak-ewma", "least-request", "round-robin", "random"] = setting(
        choice("peak-ewma", "least-request", "round-robin", "random"),
        "peak-ewma",
        """`peak-ewma` takes the better of two random instances by latency and calls under way; it avoids a slow
        instance within a few answers, and does not mistake fast errors for speed. `least-request` looks only at calls
        under way; `round-robin` and `random` at nothing. Finagle and Linkerd chose peak-ewma for the same reason.""",
    )
    panic_threshold: float = setting(
        percent,
        50,
        """Percent of usable instances below which health is ignored and all are called; `0` turns that off. When more
        than half look ill, the view is more likely wrong than all of them, and the rest could not carry the load
        (Envoy).""",
    )

    def plan(self) -> core.Balancing:
        """As the core reads it."""
        return core.Balancing(algorithm=self.algorithm, panic_threshold=self.panic_threshold)

    @staticmethod
    def dump(balancing: core.Balancing) -> dict[str, Any]:
        """As a document would write it."""
        return {"algorithm": balancing.algorithm, "panic_threshold": number(balancing.panic_threshold)}
