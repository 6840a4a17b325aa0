"""All sections in the order of the reference, and the two kinds of documents made of them."""

# ruff: noqa: RUF009 - `setting` returns dataclasses.field

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshsdk.core.plan import Plan
from meshsdk.policy.authentication import Authentication
from meshsdk.policy.authorization import Authorization
from meshsdk.policy.circuit_breaker import CircuitBreaker
from meshsdk.policy.egress import Egress
from meshsdk.policy.kinds import Kind, passing
from meshsdk.policy.limits import Limits
from meshsdk.policy.load_balancing import LoadBalancing
from meshsdk.policy.outlier_detection import OutlierDetection
from meshsdk.policy.retries import Retries
from meshsdk.policy.section import ABSENT, Section, declared, named, required, section, setting
from meshsdk.policy.telemetry import Telemetry
from meshsdk.policy.timeouts import Timeouts
from meshsdk.policy.tls import Tls

__all__ = [
    "CALLER_NAME",
    "MAX_CALLERS",
    "CallerSections",
    "MeshCaller",
    "MeshDocument",
    "Sections",
    "ServiceDocument",
    "ServiceSections",
]

CALLER_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A service's own name is a DNS label in small letters (RFC 1035, 2.3.1)."""


MAX_CALLERS = 1000
"""Parts of one document's `from`: more than a mesh has services, and few enough to check in a moment."""


def _few(value: object) -> None:
    if isinstance(value, dict) and len(value) > MAX_CALLERS:
        raise ValueError(
            f"{len(value)} callers; write at most {MAX_CALLERS}, what most share goes to the top of the document"
        )


def _check_caller(name: str) -> None:
    if not CALLER_NAME.fullmatch(name):
        raise ValueError("not a service's name; write small letters, digits and dashes, such as checkout")


def _version(value: object) -> int:
    if type(value) is not int or value != 1:  # 1.0 and true are equal to 1 and are not it
        raise ValueError("not a form this meshsdk knows; write `version: 1`")
    return value


def _version_setting() -> Any:
    return required(Kind(_version, {"const": 1}), "`version: 1`", "The form of the document; always `1`.")


def _callers(model: type[Section], description: str) -> Any:
    parts = named(passing(_check_caller, f"^{CALLER_NAME.pattern}$"), section(model), before=_few)
    return declared(parts, None, written=ABSENT, description=description, key="from")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerSections(Section):
    """The sections that may differ from caller to caller; each may be left out."""

    timeouts: Timeouts = setting(section(Timeouts), {}, "How long a call and its parts may take.")
    retries: Retries = setting(section(Retries), {}, "What is tried again, how often and how soon.")
    circuit_breaker: CircuitBreaker = setting(
        section(CircuitBreaker), {}, "When calls to the whole service stop for a while."
    )
    limits: Limits = setting(section(Limits), {}, "How much one process may have under way towards the service.")
    outlier_detection: OutlierDetection = setting(
        section(OutlierDetection), {}, "When one instance is set aside because of how it answers."
    )
    load_balancing: LoadBalancing = setting(section(LoadBalancing), {}, "Which instance gets a call.")
    telemetry: Telemetry = setting(section(Telemetry), {}, "What is written down about calls to the service.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSections(CallerSections):
    """The sections that a service may have; each may be left out."""

    authorization: Authorization = setting(section(Authorization), {}, "Who may do what at the service.")
    tls: Tls = setting(section(Tls), {}, "Whether calls are encrypted and both ends prove who they are.")
    authentication: Authentication = setting(section(Authentication), {}, "Which end users' tokens the service takes.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sections(ServiceSections):
    """Every section; each may be left out."""

    egress: Egress = setting(section(Egress), {}, "Which hosts outside the mesh may be called.")

    def plan(self, version: str) -> Plan:
        """As the core reads it; what is left out has its built-in default."""
        return Plan(
            version=version,
            timeouts=self.timeouts.plan(),
            retries=self.retries.plan(),
            breaker=self.circuit_breaker.plan(),
            limits=self.limits.plan(),
            outlier=self.outlier_detection.plan(),
            balancing=self.load_balancing.plan(),
            access_log=self.telemetry.plan(),
            access=self.authorization.plan(),
            tls=self.tls.plan(),
            jwt=self.authentication.plan(),
            egress=self.egress.plan(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshCaller(Section):
    """What `_mesh` says of one caller, whatever it calls."""

    egress: Egress = setting(section(Egress), {}, "Which hosts outside the mesh it may call.")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshDocument(Sections):
    """Defaults for every service, in `mesh/policy/_mesh`."""

    version: int = _version_setting()
    callers: Mapping[str, MeshCaller] | None = _callers(MeshCaller, "By the calling service's name: its `egress`.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceDocument(ServiceSections):
    """How callers treat one service, in `mesh/policy/<service>`."""

    version: int = _version_setting()
    callers: Mapping[str, CallerSections] | None = _callers(
        CallerSections, "By the calling service's name: the sections that differ for its calls."
    )
