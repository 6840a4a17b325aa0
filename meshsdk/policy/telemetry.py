"""`telemetry`: what is written down about calls to the service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from meshsdk.policy.kinds import choice
from meshsdk.policy.section import Section, setting

__all__ = ["Telemetry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry(Section):
    """What is written down about calls to the service. Metrics are always kept."""

    access_log: Literal["off", "errors", "all"] = setting(
        choice("off", "errors", "all"),
        "errors",
        """Which calls get a line in the access log. `errors` are calls without a
        reply, or with a status from 500 on; the
        others are in the metrics, and a line for each would cost more than the call's own bookkeeping.""",
    )

    def plan(self) -> str:
        """As the core reads it."""
        return self.access_log

    @staticmethod
    def dump(access_log: str) -> dict[str, Any]:
        """As a document would write it."""
        return {"access_log": access_log}
