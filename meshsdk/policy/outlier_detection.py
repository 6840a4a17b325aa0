"""`outlier_detection`: when one instance is set aside because of how it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from meshsdk.core import plan as core
from meshsdk.policy.durations import duration_text, period
from meshsdk.policy.kinds import percent, share, whole
from meshsdk.policy.section import Section, number, setting

__all__ = ["OutlierDetection"]

_DURATIONS = ("interval", "base_ejection", "max_ejection")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierDetection(Section):
    """When one instance is set aside because of how it answers; both rules hold, either ejects.

    With two or more instances at least one may go, and never all. `base_ejection` fits into `max_ejection`.
    """

    consecutive_failures: int = setting(
        whole(0, 1_000_000),
        5,
        """Failures in a row that eject; `0` turns this rule off. 5 is the number of Envoy, Istio and Finagle: chance
        brings it once in 3 million for an instance that fails 5 % of the time.""",
    )
    success_rate: float = setting(
        share,
        0.8,
        """Least share of good answers within `interval`; `0` turns this rule off. 0.8 is Finagle's and Linkerd's: it
        catches an instance that fails every third call and therefore never five in a row.""",
    )
    min_requests: int = setting(
        whole(1, 1_000_000),
        20,
        """Answers within `interval` below which the rate says nothing. With 20, five failures by chance are needed to
        fall below 0.8.""",
    )
    interval: float = setting(
        period,
        "10s",
        "How long answers are counted before the rate is judged and counted anew. 10s as in Envoy and Linkerd.",
    )
    base_ejection: float = setting(
        period,
        "30s",
        """How long the first ejection lasts; the n-th in a row lasts n times as long. 30s as in Envoy: a restart with
        its health checks.""",
    )
    max_ejection: float = setting(
        period,
        "5m",
        """The longest ejection. 5m as in Envoy and Finagle: an instance that was repaired is back before anyone asks
        why it is not.""",
    )
    max_ejected_percent: float = setting(
        percent,
        50,
        """Percent of the instances that may be away at a time. 50 leaves the other half to carry the load. Envoy's 10
        ejects nothing where there are fewer than ten instances.""",
    )

    def plan(self) -> core.Outlier:
        """As the core reads it."""
        return core.Outlier(
            consecutive_failures=self.consecutive_failures,
            success_rate=self.success_rate,
            min_requests=self.min_requests,
            interval=self.interval,
            base_ejection=self.base_ejection,
            max_ejection=self.max_ejection,
            max_ejected_percent=self.max_ejected_percent,
        )

    @staticmethod
    def dump(outlier: core.Outlier) -> dict[str, Any]:
        """As a document would write it."""
        values = {key: getattr(outlier, key) for key in OutlierDetection.fields()}
        return {key: duration_text(value) if key in _DURATIONS else number(value) for key, value in values.items()}
