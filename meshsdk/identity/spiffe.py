"""SPIFFE ids: parsed, written and compared, by the rules of the SPIFFE-ID specification (section 2).

Rule 1  `spiffe://<trust domain><path>`, nothing else: no user, port, query, fragment or percent sign.
Rule 2  A trust domain is lower case letters, digits, dots, dashes and underscores, 1 to 255 of them.
Rule 3  A path is empty, or segments of letters, digits, dots, dashes and underscores, none empty, none `.` or `..`,
        and no slash at its end. It is case-sensitive.
Rule 4  The whole id has at most 2,048 bytes.
Rule 5  Consul's path of a service is `/ns/<namespace>/dc/<datacenter>/svc/<service>`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from meshsdk.core.value import Value

__all__ = ["SpiffeId"]

MAX_BYTES: Final = 2048

_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._-]+")
_SERVICE: Final = re.compile(r"/ns/([^/]+)/dc/([^/]+)/svc/([^/]+)")


@dataclass(frozen=True, slots=True)
class SpiffeId(Value):
    """An identity. Two are the same when trust domain and path are, letter by letter.

    Raises:
        ValueError: the parts break a rule of the specification; says which and shows the part.
    """

    trust_domain: str
    path: str = ""
    _text: str = field(init=False, repr=False, compare=False)  # asked for at every request of a connection

    def __post_init__(self) -> None:
        object.__setattr__(self, "_text", f"spiffe://{self.trust_domain}{self.path}")
        if not _TRUST_DOMAIN.fullmatch(self.trust_domain):
            allowed = "1 to 255 of a-z, 0-9, '.', '-' and '_' are allowed"
            raise ValueError(f"trust domain {_shown(self.trust_domain)} of a SPIFFE id: {allowed}")
        if self.path:
            _check_path(self.path)
        if len(str(self)) > MAX_BYTES:
            raise ValueError(f"SPIFFE id {_shown(str(self))}: {len(str(self))} bytes, at most {MAX_BYTES} are allowed")

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Read `spiffe://<trust domain>[/<path>]`.

        Raises:
            ValueError: it is no SPIFFE id; says why.
        """
        scheme, separator, rest = text.partition("://")
        if not separator or scheme != "spiffe":
            raise ValueError(f"{_shown(text)} is no SPIFFE id: it must start with spiffe://")
        trust_domain, slash, path = rest.partition("/")
        return cls(trust_domain, slash + path)

    @classmethod
    def of_workload(cls, text: str) -> SpiffeId:
        """Read the id in the certificate of a workload: it has a path (X.509-SVID, section 2).

        Raises:
            ValueError: it is no SPIFFE id, or that of a trust domain, whose certificate is to sign others; says why.
        """
        found = cls.parse(text)
        if not found.path:
            raise ValueError(f"{text} is a whole trust domain; a workload's id has a path")
        return found

    @classmethod
    def of_service(cls, trust_domain: str, datacenter: str, service: str, namespace: str = "default") -> SpiffeId:
        """The id that Consul's CA gives a service.

        Raises:
            ValueError: a part cannot be in an id.
        """
        for part in (namespace, datacenter, service):
            if "/" in part or not part:
                raise ValueError(f"{_shown(part)} cannot be a part of a SPIFFE id: it is empty or has a slash")
        return cls(trust_domain, f"/ns/{namespace}/dc/{datacenter}/svc/{service}")

    @property
    def service(self) -> str | None:
        """The service, None where the path is not that of a service in Consul."""
        return self._part(3)

    @property
    def datacenter(self) -> str | None:
        """The service's datacenter, None where the path is not that of a service in Consul."""
        return self._part(2)

    @property
    def namespace(self) -> str | None:
        """The service's namespace, None where the path is not that of a service in Consul."""
        return self._part(1)

    def _part(self, group: int) -> str | None:
        match = _SERVICE.fullmatch(self.path)
        return match[group] if match else None

    def __str__(self) -> str:
        return self._text


def _check_path(path: str) -> None:
    if not path.startswith("/"):
        raise ValueError(f"path {_shown(path)} of a SPIFFE id must start with a slash")
    for segment in path[1:].split("/"):
        if segment in ("", ".", ".."):
            raise ValueError(f"path {_shown(path)} of a SPIFFE id: a segment is {segment!r}, which is not allowed")
        if not _SEGMENT.fullmatch(segment):
            raise ValueError(
                f"segment {_shown(segment)} of a SPIFFE id: only letters, digits, '.', '-' and '_' are allowed"
            )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "…")
