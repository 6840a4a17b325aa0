"""What Consul Connect says, typed: certificates, the CA's roots, and intentions, which say who may call whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

__all__ = ["CaConfiguration", "HeaderMatch", "Intention", "Leaf", "Permission", "Root", "Roots"]

Action = Literal["allow", "deny", ""]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A service's certificate with its key, as the agent renews it.

    Attributes:
        uri: its SPIFFE id, `spiffe://<trust domain>/ns/default/dc/<datacenter>/svc/<service>`.
        serial: hexadecimal.
        cert_pem: the whole chain, the leaf first; after a rotation of the CA a cross-signed intermediate follows.
        key_pem: the private key, SEC 1 or PKCS #8; left out of `repr`.
        valid_after, valid_before: with a time zone.
    """

    service: str
    uri: str
    serial: str
    cert_pem: str
    key_pem: str = field(repr=False)
    valid_after: datetime
    valid_before: datetime
    modify_index: int


@dataclass(frozen=True, slots=True)
class Root:
    """A root certificate of the CA.

    Attributes:
        intermediates: PEM; the former root's signature over this one's key, for those who know only the former.
        active: whether it signs now; the others are still to be trusted until their leafs have run out.
    """

    id: str
    name: str
    pem: str
    intermediates: tuple[str, ...]
    active: bool
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Roots:
    """All roots to trust, the active one first.

    Attributes:
        trust_domain: the host of every SPIFFE id of this mesh, `<uuid>.consul`.
    """

    active_id: str
    trust_domain: str
    roots: tuple[Root, ...]


@dataclass(frozen=True, slots=True)
class CaConfiguration:
    """How the CA signs: `provider` "consul" or another, and what Consul keeps for it, the private key included."""

    provider: str
    config: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """A condition on one header: present, or one of the texts. `invert`: it must not be so."""

    name: str
    present: bool = False
    exact: str = ""
    prefix: str = ""
    suffix: str = ""
    contains: str = ""
    regex: str = ""
    invert: bool = False
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class Permission:
    """A rule for some calls (Consul 1.9 and later); the first that matches decides. Empty conditions match any call.

    Attributes:
        path_regex: in RE2's syntax, for the whole path.
        unknown: names of conditions that this package does not read, such as "JWT": an `allow` with one allows less
            than is written here, and must not be taken for one.
    """

    action: Action
    path_exact: str = ""
    path_prefix: str = ""
    path_regex: str = ""
    headers: tuple[HeaderMatch, ...] = ()
    methods: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Intention:
    """Whether `source` may call `destination`; either may be "*".

    Attributes:
        id: a UUID; empty where Consul 1.9 and later keep it as a config entry.
        action: for all calls, or "" where `permissions` decide.
        precedence: 9 for two names down to 5 for two wildcards; the highest that fits decides.
        foreign: where source or destination is, if not among this datacenter's own ("namespace 'team'", "peer 'east'");
            such an intention says nothing about local services of the same name.
        unknown: as of `Permission`.
    """

    id: str
    source: str
    destination: str
    action: Action
    precedence: int
    permissions: tuple[Permission, ...] = ()
    source_type: str = "consul"
    description: str = ""
    meta: Mapping[str, str] = field(default_factory=dict)
    foreign: str = ""
    unknown: tuple[str, ...] = ()
    modify_index: int = 0
