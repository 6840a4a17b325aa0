"""`egress`: which hosts outside the mesh may be called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from meshsdk.core import egress as core
from meshsdk.core.egress import plain_host
from meshsdk.core.names import NoName, service_of
from meshsdk.policy.bounds import Layer
from meshsdk.policy.kinds import Kind, choice, text
from meshsdk.policy.section import Section, each, setting, single

__all__ = ["Egress", "unheeded"]

_ENTRY = re.compile(r"(?P<below>\*\.)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]*/@]+)(:(?P<port>[0-9]{1,5}))?")
_PATTERN = r"^(\*\.)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(:[0-9]{1,5})?$"
_ADDRESS = re.compile(r"[0-9.]+")


def _entry(value: object) -> str:
    """As the core compares it."""
    match = _ENTRY.fullmatch(text(value))
    host = plain_host(match["host"]) if match else ""
    if match is None or not host:
        raise ValueError(_instead(str(value)))
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port < 65536:
        raise ValueError("a port is 1 to 65535")
    if match["below"] and (host[0] == "[" or _ADDRESS.fullmatch(host)):
        raise ValueError("an address has nothing below it; write addresses one by one")
    if not match["below"] and port is None and _is_service(host):
        raise ValueError("a service of the mesh, which egress is not about; with a port, such as db:5432, it is none")
    return f"{match['below'] or ''}{host}{f':{port}' if port else ''}"


def _is_service(host: str) -> bool:
    try:
        return service_of(host.strip("[]").encode()) is not None
    except NoName:
        return True


def _instead(value: str) -> str:
    if value == "*":
        return "every host is what `default: allow` means; write that, or names"
    if "//" in value:
        return "not a host; write it without scheme and path, such as api.example.com or api.example.com:443"
    return "not a host; write a name such as api.example.com, *.example.com for all below it, or host:port"


_HOSTS = each(single(Kind(_entry, {"type": "string", "pattern": _PATTERN})))


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress(Section):
    """Which hosts outside the mesh services may call: with the SDK's clients, and through a sidecar's outbound port,
    `CONNECT` included. What lies outside is `localhost`, every address, and every name with dots or with a port.

    It stands in `_mesh` only, so that no service lifts it for itself. Under `from`, `_mesh` has what differs for one
    caller; a list there replaces the other. A call that is refused is an `EgressDenied` in the SDK, a 403 from the
    sidecar. What the application opens by other means, the mesh does not see: a firewall is the place to stop that.

    ```yaml
    egress: {default: deny, allow: [api.example.com:443, "*.storage.example.com", localhost]}
    from:
      reports:
        egress: {allow: [smtp.example.com:587]}     # in place of the list above
      sandbox:
        egress: {default: allow}
    ```
    """

    default: Literal["allow", "deny"] = setting(
        choice("allow", "deny"),
        "allow",
        """`allow` lets through every host, `deny` only those of `allow`. `allow` is the default so that what worked
        before the mesh still works; Istio starts there too.""",
    )
    allow: tuple[str, ...] = setting(
        _HOSTS,
        [],
        """Hosts that may be called: `api.example.com`, `*.example.com` for all below it at any depth (itself not),
        addresses, IPv6 ones in brackets; each with `:443` for that port only. It is what the application writes that
        counts: a name is not looked up to be compared. With `default: allow` it would do nothing, and is refused.""",
    )

    def plan(self) -> core.Egress:
        """As the core reads it."""
        return core.Egress(self.default, self.allow)

    @staticmethod
    def dump(egress: core.Egress) -> dict[str, Any]:
        """As a document would write it."""
        return {"default": egress.default, "allow": list(egress.allow)}


def unheeded(layers: Sequence[Layer]) -> list[tuple[str, str]]:
    """The path of a list that does nothing, because what stood there before lets through every host, and why.

    A `default: allow` over a list is no mistake: it opens on purpose.
    """
    default, wrong = "allow", ""
    for layer in layers:
        found = layer.content.get("egress")
        section = found if isinstance(found, Mapping) else {}
        default = section.get("default", default)
        if default == "allow" and section.get("allow"):
            wrong = f"{layer.prefix}egress.allow"
    why = "nothing is refused with `default: allow`, so the list would do nothing; write `default: deny` beside it"
    return [(wrong, f"{why}, or remove the list")] if wrong else []
