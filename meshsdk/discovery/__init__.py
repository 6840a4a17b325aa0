"""What this process knows of others: endpoints and policy, kept up to date in the background.

Rule 1: calls read what is known and never wait for it, but for the first call to a service, and that one for a bounded
time.
Rule 2: one thread with one event loop per process changes it (`background`), and swaps it whole.
Rule 3: "Consul says there is none" is not "Consul cannot be asked": the one empties, the other leaves as it was.
Rule 4: what was good stays until something good replaces it, over Consul's absence, bad documents and restarts.

An answer's way: `meshsdk_registry.watch_instances` → `endpoints` (what can be called) → `damping` (what vanished) →
`Cluster.update`; `watch_keys` → `policies` → `Cluster.adopt`; both → `disk`.
"""

from __future__ import annotations

from meshsdk.discovery.background import Background
from meshsdk.discovery.directory import Directory
from meshsdk.discovery.status import ServiceStatus

__all__ = ["Background", "Directory", "ServiceStatus"]
