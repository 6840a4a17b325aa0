"""The endpoints of one service that a call may go to now: health, ejection and panic in one precomputed answer.

Rule 1. Ordinary: healthy by the registry, still listed by it, not ejected. An endpoint on probation is a candidate
        until its probe is under way.
Rule 2. Panic: when usable endpoints are fewer than `panic_threshold` percent of all that are known (those in limbo
        count: a registry that drops most of a service at once is more likely wrong than right), health is ignored and
        every endpoint is a candidate. One in limbo that fails is believed to be gone. 0 turns panic off.
Rule 3. Ejection never empties the rotation: where every healthy endpoint is ejected, they are candidates all the same.
        Where the registry calls every endpoint unhealthy and panic is off, there is no candidate.
Rule 4. A retry goes to a candidate that was not tried; where all were, to an ejected endpoint that was not: it may be
        back (a restarted instance), while the others have just failed. What comes of it says nothing (rule 5 of
        outlier.py). Only where there is none either, a candidate is tried once more.

The answer changes only when something happens or an ejection runs out, so it is kept until then: one comparison per
call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf

from meshsdk.core.outlier import Ejection, OutlierDetector, Reinstatement, restore
from meshsdk.core.plan import Outlier
from meshsdk.core.state import EndpointState

__all__ = ["Rotation"]


class Rotation:
    """Keeps the candidates of one cluster; every method is called under the cluster's lock.

    Attributes:
        states: all known endpoints, limbo and unhealthy ones included.
        panicking: rule 2 was in force when the candidates were last sifted.
        credited: asked first of a good outcome; where it says False, `record` it.
    """

    __slots__ = ("_candidates", "_detector", "_threshold", "_until", "credited", "panicking", "states")

    def __init__(self, outlier: Outlier, panic_threshold: float, states: Iterable[EndpointState] = ()) -> None:
        self.states = tuple(states)
        self.panicking = False
        self._detector = OutlierDetector(outlier)
        self.credited = self._detector.credited
        self._threshold = panic_threshold
        self._candidates: tuple[EndpointState, ...] = ()
        self._until = -inf

    def candidates(self, now: float) -> Sequence[EndpointState]:
        """Return who may be picked at `now` (seconds); the same tuple as long as nothing changed."""
        if now >= self._until:
            self._sift(now)
        return self._candidates

    def again(self, tried: Sequence[EndpointState], now: float) -> Sequence[EndpointState]:
        """Return who a call may go to that has been to `tried` (rule 4)."""
        usable = self.candidates(now)
        if left := [state for state in usable if state not in tried]:
            return left
        aside = [s for s in self.states if s.ejected_until and s.endpoint.healthy and not s.endpoint.limbo]
        return [state for state in aside if state not in tried] or usable

    def began(self, state: EndpointState, now: float) -> bool:
        """Note that a try begins at `state`; True when it is the probe of a returning endpoint."""
        if not state.ejected_until or not self._detector.began(state, now):
            return False
        self._until = -inf
        return True

    def record(
        self, state: EndpointState, ok: bool, now: float, probe: bool = False
    ) -> Ejection | Reinstatement | None:
        """Count an outcome, as `OutlierDetector.record`; `probe` is what `began` said of this try."""
        verdict = self._detector.record(state, ok, now, self.states, probe)
        if verdict is not None or state.endpoint.limbo:
            self._until = -inf
        return verdict

    def released(self, state: EndpointState) -> None:
        """Hear that a probe was called off: nobody is blamed, and another may begin."""
        self._detector.released(state)
        self._until = -inf

    def update(self, states: Iterable[EndpointState]) -> None:
        """Take over a new set of endpoints; what was counted of those that stay is in their states."""
        self.states = tuple(states)
        self._until = -inf

    def revived(self, state: EndpointState, now: float) -> None:
        """Hear that the registry saw an endpoint go from critical to passing: its ejection turns into probation."""
        self._detector.revived(state, now)
        self._until = -inf

    def adopt(self, outlier: Outlier, panic_threshold: float, now: float) -> None:
        """Change the rules; ejections go on, unless outlier detection was turned off, which ends them all."""
        self._detector, self._threshold = OutlierDetector(outlier), panic_threshold
        self.credited = self._detector.credited
        if outlier.consecutive_failures <= 0 and outlier.success_rate <= 0:
            for state in self.states:
                if state.ejected_until:
                    restore(state, now)
        self._until = -inf

    def _sift(self, now: float) -> None:
        healthy = [s for s in self.states if s.endpoint.healthy and not s.endpoint.limbo]
        usable = sum(1 for state in healthy if not state.ejected_until)
        self.panicking = 100.0 * usable < self._threshold * len(self.states)
        if self.panicking:
            chosen = [s for s in self.states if not (s.endpoint.limbo and s.consecutive)] or self.states
        else:
            chosen = [s for s in healthy if self._detector.admits(s, now)] or healthy
        self._candidates = tuple(chosen)
        self._until = min((s.ejected_until for s in healthy if s.ejected_until > now), default=inf)
