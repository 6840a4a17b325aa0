"""The configuration of Envoys as sidecars: retries and outlier detection, mutual TLS by SPIFFE ids, RBAC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.identity.certificates import issue
from tests.wire.real_servers import ROUTER, TYPES, envoy_cluster, envoy_config, envoy_listener

__all__ = ["certificates", "inbound", "outbound", "single"]

_DOMAIN = "spiffe://mesh.example/"
_API, _WEB = f"{_DOMAIN}api", f"{_DOMAIN}web"
_FILES = {"certificate_chain": ".pem", "private_key": ".key"}
_RETRIES = {"retry_policy": {"retry_on": "connect-failure,reset,5xx", "num_retries": 2}}


def certificates(folder: Path) -> None:
    """Write a CA, and a certificate of it for each side."""
    ca = issue("ca")
    ca.write(folder, "ca")
    issue("api", ca, (_API,)).write(folder, "api")
    issue("web", ca, (_WEB,)).write(folder, "web")


def single(port: int, app: int) -> dict[str, Any]:
    """One Envoy before the app, in clear text."""
    listener = envoy_listener(port, "app", action=_RETRIES)
    return envoy_config([listener], [envoy_cluster("app", app, outlier_detection={})])


def outbound(folder: Path, port: int, inbound: int) -> dict[str, Any]:
    """The caller's sidecar: retries, outlier detection, and TLS to the other one."""
    listener = envoy_listener(port, "api", action=_RETRIES)
    tls = _tls(folder, "Upstream", "web", _API)
    return envoy_config([listener], [envoy_cluster("api", inbound, transport_socket=tls, outlier_detection={})])


def inbound(folder: Path, port: int, app: int) -> dict[str, Any]:
    """The called service's sidecar: lets in who has a certificate of the mesh."""
    principal = {"authenticated": {"principal_name": {"prefix": _DOMAIN}}}
    rules = {"action": "ALLOW", "policies": {"mesh": {"permissions": [{"any": True}], "principals": [principal]}}}
    rbac = {
        "name": "envoy.filters.http.rbac",
        "typed_config": {"@type": f"{TYPES}.filters.http.rbac.v3.RBAC", "rules": rules},
    }
    manager = {"http_filters": [rbac, ROUTER], "forward_client_cert_details": "SANITIZE_SET"}
    listener = envoy_listener(port, "app", manager=manager, transport_socket=_tls(folder, "Downstream", "api", _WEB))
    return envoy_config([listener], [envoy_cluster("app", app)])


def _tls(folder: Path, side: str, own: str, peer: str) -> dict[str, Any]:
    """The transport socket of one side, which shows the certificate `own` and wants to see that of `peer`."""
    matcher = {"san_type": "URI", "matcher": {"exact": peer}}
    files = {key: {"filename": str(folder / own) + end} for key, end in _FILES.items()}
    trust = {"trusted_ca": {"filename": str(folder / "ca.pem")}, "match_typed_subject_alt_names": [matcher]}
    common = {"tls_certificates": [files], "validation_context": trust}
    config: dict[str, Any] = {
        "@type": f"{TYPES}.transport_sockets.tls.v3.{side}TlsContext",
        "common_tls_context": common,
    }
    if side == "Downstream":
        config["require_client_certificate"] = True
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}
