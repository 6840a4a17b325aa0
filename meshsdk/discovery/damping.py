"""What to do about endpoints that vanish from the registry without a word. Pure: time is an argument.

Rule 1: a new endpoint is used at once.
Rule 2: an endpoint that was well when it vanished stays in limbo until the registry has been healthy for `grace`
        seconds. Each time the registry comes back, the wait of all in limbo starts over (Finagle's StabilizingAddr): a
        registry that restarts empty must not empty its callers.
Rule 3: one that was critical when it vanished is dropped at once (Envoy's matrix: health is trusted over membership).
Rule 4: so is one whose instance is still listed: in maintenance, at weight 0, at another address. That is a word.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from meshsdk.core.model import Endpoint
from meshsdk.discovery.endpoints import Listing

__all__ = ["Damping"]


@dataclass(slots=True)
class _Limbo:
    endpoint: Endpoint
    since: float


class Damping:
    """The endpoints of one service as callers should see them.

    Args:
        grace: seconds of a healthy registry after which a vanished endpoint is believed to be gone.

    Attributes:
        healthy: the registry answered last time it was asked.
    """

    def __init__(self, grace: float) -> None:
        self.healthy = False
        self._grace = grace
        self._listed: dict[str, Endpoint] = {}
        self._limbo: dict[str, _Limbo] = {}

    def __repr__(self) -> str:
        state = "healthy" if self.healthy else "unhealthy"
        return f"<Damping {state}, {len(self._listed)} listed, {len(self._limbo)} in limbo>"

    @property
    def limbo(self) -> int:
        """How many endpoints are kept although the registry no longer lists them."""
        return len(self._limbo)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Those listed, in the registry's order, then those in limbo."""
        return (*self._listed.values(), *(limbo.endpoint for limbo in self._limbo.values()))

    @property
    def next_expiry(self) -> float:
        """When `expire` has work next; `inf` while nothing is in limbo or the registry is away."""
        if not self.healthy:
            return inf
        return min((limbo.since + self._grace for limbo in self._limbo.values()), default=inf)

    def remember(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Start from what an earlier process knew."""
        self._listed = {endpoint.key: replace(endpoint, limbo=False) for endpoint in endpoints}

    def listed(self, listing: Listing, now: float) -> None:
        """Take an answer of the registry."""
        self.back(now)
        new = {endpoint.key: endpoint for endpoint in listing.endpoints}
        for key, endpoint in self._listed.items():
            if key not in new and endpoint.healthy:
                self._limbo[key] = _Limbo(replace(endpoint, limbo=True), now)
        self._listed = new
        self._limbo = {
            key: limbo
            for key, limbo in self._limbo.items()
            if key not in new and _name(limbo.endpoint) not in listing.named
        }
        self.expire(now)

    def lost(self) -> None:
        """The registry cannot be asked: nothing is removed until it is back."""
        self.healthy = False

    def back(self, now: float) -> None:
        """The registry answers again; the waits of those in limbo start over."""
        if not self.healthy:
            self.healthy = True
            for limbo in self._limbo.values():
                limbo.since = now

    def expire(self, now: float) -> bool:
        """Drop those that were in limbo long enough; say whether there were any."""
        if not self.healthy:
            return False
        staying = {key: limbo for key, limbo in self._limbo.items() if now < limbo.since + self._grace}
        changed = len(staying) != len(self._limbo)
        self._limbo = staying
        return changed


def _name(endpoint: Endpoint) -> str:
    """`node/id` of an endpoint; its key is that with the address and port behind it."""
    return endpoint.key.removesuffix(f"/{endpoint.address}:{endpoint.port}")
