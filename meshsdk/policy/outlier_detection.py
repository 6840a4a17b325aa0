"""`outlier_detection`: when one instance is set aside because of how it answers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from meshsdk.core import plan as core
from meshsdk.policy.durations import Duration, duration_text
from meshsdk.policy.section import Percent, Section, Share, number, setting

__all__ = ["OutlierDetection"]

_DURATIONS = ("interval", "base_ejection", "max_ejection")


class OutlierDetection(Section):
    """When one instance is set aside because of how it answers; both rules hold, either ejects.

    With two or more instances at least one may go, and never all. `base_ejection` fits into `max_ejection`.
    """

    consecutive_failures: Annotated[int, Field(ge=0, le=1_000_000)] = setting(
        5,
        """Failures in a row that eject; `0` turns this rule off. 5 is the number of Envoy, Istio and Finagle: chance
        brings it once in 3 million for an instance that fails 5 % of the time.""",
    )
    success_rate: Share = setting(
        0.8,
        """Least share of good answers within `interval`; `0` turns this rule off. 0.8 is Finagle's and Linkerd's: it
        catches an instance that fails every third call and therefore never five in a row.""",
    )
    min_requests: Annotated[int, Field(ge=1, le=1_000_000)] = setting(
        20,
        """Answers within `interval` below which the rate says nothing. With 20, five failures by chance are needed to
        fall below 0.8.""",
    )
    interval: Duration = setting(
        "10s",
        "How long answers are counted before the rate is judged and counted anew. 10s as in Envoy and Linkerd.",
    )
    base_ejection: Duration = setting(
        "30s",
        """How long the first ejection lasts; the n-th in a row lasts n times as long. 30s as in Envoy: a restart with
        its health checks.""",
    )
    max_ejection: Duration = setting(
        "5m",
        """The longest ejection. 5m as in Envoy and Finagle: an instance that was repaired is back before anyone asks
        why it is not.""",
    )
    max_ejected_percent: Percent = setting(
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
