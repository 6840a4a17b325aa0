"""Whether the peer of a finished handshake is who it should be, before a byte of the request is sent or read.

Rule 1  OpenSSL has verified the chain, its dates and the key. What remains is the name: exactly one URI, a SPIFFE id.
Rule 2  Its trust domain is ours or one that is listed. A root may sign ids of another domain, and Consul does not ask.
Rule 3  A called service must be the one that was called: `/ns/<namespace>/dc/<datacenter>/svc/<service>`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

from meshsdk.identity.spiffe import SpiffeId
from meshsdk.wire.security import PeerRejected

__all__ = ["Check", "Connection", "expecting", "verified_peer"]

Connection = ssl.SSLObject | ssl.SSLSocket
Check = Callable[[Connection], None]


def expecting(service: str, trust_domains: Collection[str]) -> Check:
    """The client's check, for `meshsdk.wire.security.Security`: the peer must be `service` of one of the trust domains.

    What is returned raises `PeerRejected`, which says who the peer is and who it should be.
    """
    domains = frozenset(trust_domains)
    wanted = f"service {service} ({_listed(domains, f'/ns/…/svc/{service}')})"

    def check(connection: Connection) -> None:
        found = _verified(connection, domains, wanted)
        if found.service != service:
            raise PeerRejected(f"the peer is {found}; it should be {wanted}")

    return check


def verified_peer(connection: Connection, trust_domains: Collection[str]) -> SpiffeId:
    """The server's check: who calls. Which of them may is for the policy to say.

    Raises:
        PeerRejected: no certificate, none with exactly one SPIFFE id, or a foreign trust domain.
    """
    domains = frozenset(trust_domains)
    return _verified(connection, domains, f"of {_listed(domains)}")


def _verified(connection: Connection, domains: frozenset[str], wanted: str) -> SpiffeId:
    certificate = cast("Mapping[str, Any]", connection.getpeercert() or {})
    if not certificate:
        raise PeerRejected(f"the peer showed no certificate that was verified; it should be {wanted}")
    names = cast("Sequence[tuple[str, str]]", certificate.get("subjectAltName", ()))
    uris = [value for kind, value in names if kind == "URI"]
    if len(uris) != 1:
        has = f"{len(uris)} URI names ({', '.join(map(_short, uris))})" if uris else "no URI name"
        raise PeerRejected(
            f"the peer's certificate ({_subject(certificate)}) has {has}, and exactly one SPIFFE id says who somebody"
            f" is; it should be {wanted}"
        )
    try:
        found = SpiffeId.of_workload(uris[0])
    except ValueError as error:
        raise PeerRejected(f"the peer is nobody: {error}; it should be {wanted}") from error
    if found.trust_domain not in domains:
        raise PeerRejected(f"the peer is {found}, of a foreign trust domain; it should be {wanted}")
    return found


def _listed(domains: frozenset[str], path: str = "") -> str:
    return " or ".join(f"spiffe://{domain}{path}" for domain in sorted(domains))


def _subject(certificate: Mapping[str, Any]) -> str:
    parts = (f"{name}={_short(value)}" for relative in certificate.get("subject", ()) for name, value in relative)
    return ", ".join(parts) or "without a subject"


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "…")
