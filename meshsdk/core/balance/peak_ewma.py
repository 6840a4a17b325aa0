"""Peak EWMA: of two endpoints, the one where one more request is expected to wait less.

Rule 1. Cost = estimate × (requests under way / weight + 1) ÷ (share of good answers)³.
Rule 2. The estimate jumps to any slower answer at once and comes down slowly, by e^(−Δt/τ) with τ = 10 s, and keeps
        coming down while nothing is heard (Finagle, Linkerd). A slow endpoint loses its traffic after one answer, and
        stays away for a time that grows with the logarithm of how slow it was: 2 s among peers of 10 ms comes back
        after 53 s at the latest, a timeout of 5 minutes after 103 s. So no request is ever forced onto an endpoint.
Rule 3. An endpoint never heard of costs nothing while idle and more than any known one while it is being tried: a new
        one gets a single request, and traffic once that is answered (Finagle).
Rule 4. A failure says nothing good: it holds the estimate or raises it. Fast failures would otherwise be the best
        latency in the cluster and draw all traffic (Linkerd's load biaser counts a 429 as 5 s for the same reason).
Rule 5. Instead, failures count. The share of failures moves by a tenth per outcome, so that ten in a row multiply the
        cost by 23 and twenty by 560, while 1 % of stray errors on every endpoint changes next to nothing; a fixed
        latency penalty would let one stray error empty an endpoint for a minute. The share fades with τ too: an
        endpoint that refuses everything keeps about 3 % of its part of the traffic, and is found within about 15 s once
        it has recovered.
"""

from __future__ import annotations

from math import exp
from typing import Final

from meshsdk.core.balance.p2c import PowerOfTwoChoices
from meshsdk.core.state import EndpointState

__all__ = ["DEFAULT_RTT", "TAU", "PeakEwma"]

TAU: Final = 10.0  # seconds in which an estimate fades to 37 %
DEFAULT_RTT: Final = 0.030  # seconds; what an endpoint is credited with whose first outcome is a fast failure (Linkerd)
UNSEEN: Final = 1e9  # seconds; above any estimate
FLOOR: Final = 1e-6  # seconds; after hours of silence estimates fade to 0, and then load alone must still count
STEP: Final = 0.1  # what one outcome moves the share of failures
NEGLIGIBLE: Final = 0.01  # share of failures below which the factor, at most 1.03, is not worth its time
MOST_FAULTS: Final = 0.99  # bounds the factor at 1e6


class PeakEwma(PowerOfTwoChoices):
    """Power of two choices over expected waiting time."""

    __slots__ = ()

    def cost(self, state: EndpointState, now: float) -> float:
        """Expected seconds of waiting for one more request, raised by failures."""
        queue = state.inflight / state.endpoint.weight + 1.0 if state.inflight else 1.0
        estimate = state.ewma
        if not estimate:
            return UNSEEN * queue if state.inflight else 0.0
        fade = exp((state.ewma_at - now) / TAU)
        estimate *= fade
        cost = estimate * queue if estimate > FLOOR else FLOOR * queue
        if state.faults < NEGLIGIBLE:
            return cost
        faults = state.faults * fade
        return cost if faults < NEGLIGIBLE else cost / (1.0 - min(faults, MOST_FAULTS)) ** 3

    def observe(self, state: EndpointState, seconds: float, ok: bool, now: float) -> None:
        """Bring the estimate and the share of failures up to date."""
        fade = exp((state.ewma_at - now) / TAU) if state.ewma else 0.0
        faults = state.faults * fade
        if ok:
            mean = state.ewma * fade + seconds * (1.0 - fade)
            state.ewma = max(seconds if seconds > state.ewma else mean, FLOOR)
            state.faults = faults * (1.0 - STEP)
        else:
            state.ewma = max(seconds, state.ewma or DEFAULT_RTT)
            state.faults = faults + (1.0 - faults) * STEP
        state.ewma_at = now
