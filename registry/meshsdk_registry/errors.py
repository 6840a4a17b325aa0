"""What can go wrong between this machine and Consul, named for who can do something about it.

RegistryError
├── Unreachable         nobody answers at Consul's address, or not in time
├── TooManyConnections  the agent hangs up on the 201st connection of one address
├── Denied              403: the token lacks a permission
├── NoLeader            500 "No cluster leader": the servers are electing
├── Misunderstood       the answer is not what Consul's API documents
├── Rejected            400-class answers: the request itself is wrong
│   ├── Missing         404 where something had to exist (an unknown check or service)
│   ├── Conflict        409: a transaction's compare-and-set lost; nothing of it was written
│   └── TooLarge        413, or a value over Consul's 512 KiB
└── ServerFault         any other 5xx
"""

from __future__ import annotations

__all__ = [
    "Conflict",
    "Denied",
    "Missing",
    "Misunderstood",
    "NoLeader",
    "RegistryError",
    "Rejected",
    "ServerFault",
    "TooLarge",
    "TooManyConnections",
    "Unreachable",
]


class RegistryError(Exception):
    """Consul could not do what was asked; the message names its address, the request and the remedy."""


class Unreachable(RegistryError):
    """No answer from Consul's address: refused, reset, timed out, or the name does not resolve."""


class TooManyConnections(Unreachable):
    """The agent closed a new connection without a word (`limits.http_max_conns_per_client`, 200)."""


class Denied(RegistryError):
    """Consul answered 403: the ACL token is missing, unknown or lacks the permission."""


class NoLeader(RegistryError):
    """Consul's servers have no leader at the moment; asking again later is right."""


class Misunderstood(RegistryError):
    """The answer is not what Consul documents: another program listens there, or a proxy answered."""


class Rejected(RegistryError):
    """Consul refused the request itself (4xx)."""


class Missing(Rejected):
    """What had to exist does not (404, or Consul's 500 for an unknown check or service)."""


class Conflict(Rejected):
    """A transaction was rolled back: an index was stale or a key missing. Read again and retry."""


class TooLarge(Rejected):
    """A value over Consul's limit of 512 KiB."""


class ServerFault(RegistryError):
    """Consul failed inside (5xx)."""
