"""What one process remembers of one endpoint: load, latency, outcomes. Changes only under the cluster's lock."""

from __future__ import annotations

from dataclasses import dataclass

from meshsdk.core.model import Endpoint

__all__ = ["EndpointState"]


@dataclass(slots=True, eq=False)
class EndpointState:
    """The live counters of an endpoint; they outlive a snapshot and are found again by `Endpoint.key`.

    Attributes:
        endpoint: the newest facts of the registry; replaced in place by `Cluster.update`.
        inflight: attempts open to it, body included.
        ewma: peak-sensitive mean latency in seconds; 0 while nothing was observed.
        ewma_at: when `ewma` and `faults` were last brought up to date.
        faults: recent share of failures and refusals, 0 to 1; fades with time like `ewma`.
        ejected_until: absolute time until which it is set aside; 0 while it is in rotation.
        ejections: the multiplier of the next ejection's length, minus one.
        probing: the one probe of a returning endpoint is under way.
        consecutive: failures in a row.
        ok, total, window_start: outcomes counted since `window_start` for the success rate.
    """

    endpoint: Endpoint
    inflight: int = 0
    ewma: float = 0.0
    ewma_at: float = 0.0
    faults: float = 0.0
    ejected_until: float = 0.0
    ejections: int = 0
    probing: bool = False
    consecutive: int = 0
    ok: int = 0
    total: int = 0
    window_start: float = 0.0
