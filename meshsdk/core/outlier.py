"""Outlier detection: which endpoint is set aside, for how long, and what brings it back.

Rule 1. Two signs eject: `consecutive_failures` in a row, at once; or a share of good answers below `success_rate` over
        an interval of at least `min_requests`, when that interval ends. Intervals are lazy: the first outcome after
        one ended judges it, and one that ended a whole interval ago is too old to judge.
Rule 2. The n-th ejection lasts min(max_ejection, n × base_ejection). n goes back by one with each interval that was
        not poor (Envoy).
Rule 3. Never all: of n endpoints that could be called, at least one stays. Of two or more, at least one may go,
        whatever the percentage rounds to (current Envoy ejects nothing below ten endpoints at its default of 10 %).
        Only 0 % means none. Endpoints that are unhealthy or in limbo are not called anyway and do not count in n.
Rule 4. After its time an endpoint is on probation: one real request at a time is its probe. A good answer brings it
        back, a failure ejects it again with the next n, and a probe that was called off makes room for another.
Rule 5. What ends at an ejected endpoint and is no probe (begun before the ejection, or sent in panic) says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from meshsdk.core.plan import Outlier
from meshsdk.core.state import EndpointState

__all__ = ["Ejection", "OutlierDetector", "Reinstatement", "restore"]


@dataclass(slots=True)
class Ejection:
    """An endpoint was set aside for `seconds`; `reason` is a bounded set of words."""

    reason: str
    seconds: float


@dataclass(slots=True)
class Reinstatement:
    """An endpoint passed its probe and is back in rotation."""


class OutlierDetector:
    """The rules above over the counters in `EndpointState`; holds nothing but the plan."""

    __slots__ = ("_plan",)

    def __init__(self, plan: Outlier) -> None:
        self._plan = plan

    def admits(self, state: EndpointState, now: float) -> bool:
        """Say whether it may be picked: in rotation, or on probation without a probe under way."""
        return not state.ejected_until or (now >= state.ejected_until and not state.probing)

    def began(self, state: EndpointState, now: float) -> bool:
        """Note that a try begins; True when it is the probe, which `record` or `released` must then hear of."""
        if not state.ejected_until or state.probing or now < state.ejected_until:
            return False
        state.probing = True
        return True

    def released(self, state: EndpointState) -> None:
        """Make room for another probe: this one was called off."""
        state.probing = False

    def credited(self, state: EndpointState, now: float) -> bool:
        """Count a good outcome where that is all there is to do: in rotation, listed, in the middle of an interval."""
        if state.ejected_until or now - state.window_start >= self._plan.interval or state.endpoint.limbo:
            return False
        state.total += 1
        state.ok += 1
        state.consecutive = 0
        return True

    def record(
        self, state: EndpointState, ok: bool, now: float, states: Sequence[EndpointState], probe: bool = False
    ) -> Ejection | Reinstatement | None:
        """Count one outcome.

        Args:
            state: where the try went.
            ok: False for a transport failure or a 5xx.
            now: seconds.
            states: all endpoints of the service, for rule 3.
            probe: what `began` said of this try.

        Returns:
            What the outcome led to, None for nothing.
        """
        if probe:
            state.probing = False
        if state.ejected_until:
            return self._judge_probe(state, ok, now) if probe else None
        poor = now - state.window_start >= self._plan.interval and self._end_interval(state, now)
        state.total += 1
        if ok:
            state.ok += 1
            state.consecutive = 0
        else:
            state.consecutive += 1
        reason = self._reason(state, poor, ok)
        return self._eject(state, reason, now) if reason and self._may_eject(state, states) else None

    def revived(self, state: EndpointState, now: float) -> None:
        """End an ejection early, to probation: the registry saw the endpoint recover (critical, then passing)."""
        state.ejected_until = min(state.ejected_until, now)

    def _reason(self, state: EndpointState, poor: bool, ok: bool) -> str:
        if not ok and 0 < self._plan.consecutive_failures <= state.consecutive:
            return "consecutive-failures"
        return "success-rate" if poor else ""

    def _end_interval(self, state: EndpointState, now: float) -> bool:
        """Begin a new interval; True when the one that ended was poor. Good and idle ones lower the multiplier."""
        intervals = int((now - state.window_start) / self._plan.interval)
        poor = (
            intervals == 1
            and state.total >= max(self._plan.min_requests, 1)
            and state.ok < self._plan.success_rate * state.total
        )
        if not poor:
            state.ejections = max(0, state.ejections - intervals)
        _begin_interval(state, now)
        return poor

    def _may_eject(self, state: EndpointState, states: Iterable[EndpointState]) -> bool:
        if not _callable(state):
            return False
        counted = [other for other in states if _callable(other)]
        away = sum(1 for other in counted if other.ejected_until)
        # the small number keeps 18.4 % of 375 from becoming 68 by rounding in binary
        share = int(len(counted) * self._plan.max_ejected_percent / 100 + 1e-9)
        most = max(share, 1) if self._plan.max_ejected_percent > 0 else 0
        return away < min(most, len(counted) - 1)

    def _eject(self, state: EndpointState, reason: str, now: float) -> Ejection:
        state.ejections += 1
        seconds = min(self._plan.max_ejection, state.ejections * self._plan.base_ejection)
        state.ejected_until = now + seconds
        return Ejection(reason, seconds)

    def _judge_probe(self, state: EndpointState, ok: bool, now: float) -> Ejection | Reinstatement:
        if not ok:
            return self._eject(state, "probe-failed", now)
        restore(state, now)
        return Reinstatement()


def restore(state: EndpointState, now: float) -> None:
    """Put an endpoint back in rotation with clean counters; the multiplier stays until rule 2 lowers it."""
    state.ejected_until = 0.0
    state.consecutive = 0
    _begin_interval(state, now)


def _begin_interval(state: EndpointState, now: float) -> None:
    state.window_start, state.ok, state.total = now, 0, 0


def _callable(state: EndpointState) -> bool:
    return state.endpoint.healthy and not state.endpoint.limbo
