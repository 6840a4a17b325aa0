"""Shows the dev agent's CA and intentions as Consul's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from meshsdk_registry.agent import certificates
from meshsdk_registry.agent.authority import Authority, Leaf, Root
from meshsdk_registry.agent.intentions import Intention

__all__ = ["configuration", "intention", "leaf", "roots"]


def roots(authority: Authority) -> dict[str, Any]:
    """`/v1/agent/connect/ca/roots` and `/v1/connect/ca/roots`."""
    shown = sorted((_root(root, authority.trust_domain) for root in authority.roots), key=lambda root: str(root["ID"]))
    return {
        "ActiveRootID": certificates.fingerprint(authority.active.signer.certificate),
        "TrustDomain": authority.trust_domain,
        "Roots": shown,
    }


def leaf(shown: Leaf) -> dict[str, Any]:
    """`/v1/agent/connect/ca/leaf/:service`."""
    serial = shown.serial.to_bytes((shown.serial.bit_length() + 7) // 8)
    return {
        "SerialNumber": serial.hex(":"),
        "CertPEM": shown.chain,
        "PrivateKeyPEM": shown.key,
        "Service": shown.service,
        "ServiceURI": shown.uri,
        "ValidAfter": _time(shown.valid_after),
        "ValidBefore": _time(shown.valid_before),
        "CreateIndex": shown.created,
        "ModifyIndex": shown.modified,
    }


def configuration(authority: Authority) -> dict[str, Any]:
    """`/v1/connect/ca/configuration`, with the key that was given, as Consul 1.8.7 shows it."""
    now = authority.configuration
    return {
        "Provider": "consul",
        "Config": now.config,
        "State": None,
        "ForceWithoutCrossSigning": now.force,
        "CreateIndex": now.created,
        "ModifyIndex": now.modified,
    }


def intention(shown: Intention) -> dict[str, Any]:
    """An intention; those with permissions have no action, as of Consul 1.9."""
    decides: Mapping[str, Any] = (
        {"Permissions": list(shown.permissions)} if shown.permissions else {"Action": shown.action}
    )
    return {
        "ID": shown.id,
        "Description": shown.description,
        "SourceNS": shown.source_ns,
        "SourceName": shown.source,
        "DestinationNS": shown.destination_ns,
        "DestinationName": shown.destination,
        "SourceType": shown.source_type,
        **decides,
        "DefaultAddr": shown.default_addr,
        "DefaultPort": shown.default_port,
        "Meta": shown.meta,
        "Precedence": shown.precedence,
        "CreatedAt": _time(shown.created_at),
        "UpdatedAt": _time(shown.updated_at),
        "Hash": shown.digest,
        "CreateIndex": shown.created,
        "ModifyIndex": shown.modified,
    }


def _root(shown: Root, trust_domain: str) -> dict[str, Any]:
    certificate, key = shown.signer.certificate, shown.signer.key
    return {
        "ID": certificates.fingerprint(certificate),
        "Name": "Consul CA Root Cert",
        "SerialNumber": certificate.serial_number,
        "SigningKeyID": certificates.key_id(key).hex(":"),
        "ExternalTrustDomain": trust_domain.removesuffix(".consul"),
        "NotBefore": _time(certificate.not_valid_before_utc),
        "NotAfter": _time(certificate.not_valid_after_utc),
        "RootCert": certificates.pem(certificate),
        "IntermediateCerts": list(shown.intermediates) or None,
        "Active": shown.active,
        "PrivateKeyType": "ec" if isinstance(key, ec.EllipticCurvePrivateKey) else "rsa",
        "PrivateKeyBits": key.key_size,
        "CreateIndex": shown.created,
        "ModifyIndex": shown.modified,
    }


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None
