"""Programs with identities of Consul's CA that are not ours, Consul's own proxy and Envoy, and applications for them.

Consul decides for both of them who may call: its proxy asks the agent at each connection, and so does Envoy here, as
Consul before 1.9 has it configured (`ext_authz`). Consul 1.8 speaks the second version of that interface, Envoy 1.40
only the third, and they differ in their name: one more listener of the same Envoy writes the other and passes it on.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response

from meshsdk import Mesh
from tests.integration.programs import ConsulView
from tests.real_consul import BINARY
from tests.wire.real_servers import TYPES, envoy, envoy_cluster, envoy_config, envoy_listener

__all__ = ["Certified", "called", "connect_proxy", "envoy_pair", "meshed", "unmeshed"]

HTTP2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": f"{TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}


# --- applications -------------------------------------------------------------------------------------


def unmeshed() -> FastAPI:
    """An application that knows nothing of any mesh; it says back what it is sent."""
    return _application(lambda: None)


def meshed() -> FastAPI:
    """The same in the mesh, as MESH_* variables have it; it also says who calls."""
    mesh = Mesh()
    app = _application(mesh.peer)
    mesh.instrument(app)
    return app


def _application(peer: Callable[[], str | None]) -> FastAPI:
    app = FastAPI()

    @app.get("/who")
    def who() -> dict[str, str | None]:
        return {"peer": peer()}

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    return app


def called(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Call in clear text on a connection of its own; raises OSError or HTTPException where no answer comes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


# --- Consul's own proxy -------------------------------------------------------------------------------


def connect_proxy(consul: str, service: str, *options: str) -> list[str]:
    """The command of Consul's built-in proxy, standing for `service`; `options` say what it listens for."""
    command = [str(BINARY), "connect", "proxy", "-http-addr", consul.removeprefix("http://"), "-log-level", "debug"]
    return [*command, "-service", service, *options]


# --- Envoy --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Certified:
    """A service's certificate and the CA's roots, as Envoy reads them from files."""

    service: str
    id: str
    trust_domain: str
    folder: Path

    @classmethod
    def by(cls, consul: ConsulView, service: str, folder: Path) -> Certified:
        leaf = consul.ask("GET", f"agent/connect/ca/leaf/{service}")
        roots = consul.ask("GET", "agent/connect/ca/roots")
        (folder / f"{service}.pem").write_text(leaf["CertPEM"])
        (folder / f"{service}.key").write_text(leaf["PrivateKeyPEM"])
        (folder / "roots.pem").write_text("".join(root["RootCert"] for root in roots["Roots"]))
        return cls(service, leaf["ServiceURI"], roots["TrustDomain"], folder)

    def id_of(self, service: str) -> str:
        return self.id.removesuffix(self.service) + service

    def common(self, matcher: dict[str, str], **parameters: Any) -> dict[str, Any]:
        """Of either end: what to show, and whom to believe."""
        pair = {name: {"filename": str(self.folder / f"{self.service}.{end}")} for name, end in _PAIR.items()}
        return {
            "tls_params": parameters,
            "tls_certificates": [pair],
            "validation_context": {
                "trusted_ca": {"filename": str(self.folder / "roots.pem")},
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": matcher}],
            },
        }


_PAIR = {"certificate_chain": "pem", "private_key": "key"}


def envoy_pair(
    config: Path, caller: Certified, served: Certified, *, agent: int, app: int, inbound: int, outbound: int, **to: int
) -> list[str]:
    """The command of one Envoy that is `served`'s sidecar, in front of the port `app`, and `caller`'s.

    Args:
        agent: Consul's gRPC port, asked about each inbound connection.
        inbound: the port that takes mutual TLS.
        outbound: the port from where calls in clear text go to `to`, a service and its port, over mutual TLS.
    """
    (destination, port), translating = next(iter(to.items())), config.with_suffix(".sock")
    named = {"regex_rewrite": {"pattern": {"regex": "v3"}, "substitution": "v2"}}
    translator = envoy_listener(0, "consul", action=named)
    translator["address"] = {"pipe": {"path": str(translating)}}
    translated = envoy_cluster("translator", typed_extension_protocol_options=HTTP2)
    translated["load_assignment"]["endpoints"] = [
        {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(translating)}}}}]}
    ]
    return envoy(
        config,
        envoy_config(
            [_inbound(inbound, served), envoy_listener(outbound, destination), translator],
            [
                envoy_cluster("app", app),
                envoy_cluster(destination, port, transport_socket=_calling(caller, destination)),
                translated,
                envoy_cluster("consul", agent, typed_extension_protocol_options=HTTP2),
            ],
        ),
    )


def _inbound(port: int, served: Certified) -> dict[str, Any]:
    """Mutual TLS, anybody of the trust domain; whom Consul's intentions let pass reaches the application."""
    accepting = {
        "@type": f"{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": served.common({"prefix": f"spiffe://{served.trust_domain}/"}),
    }
    tls = {"name": "envoy.transport_sockets.tls", "typed_config": accepting}
    listener = envoy_listener(port, "app", transport_socket=tls)
    asking = {
        "@type": f"{TYPES}.filters.network.ext_authz.v3.ExtAuthz",
        "stat_prefix": "intentions",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "translator"}, "timeout": "5s"},
    }
    filters = listener["filter_chains"][0]["filters"]
    filters.insert(0, {"name": "envoy.filters.network.ext_authz", "typed_config": asking})
    return listener


def _calling(caller: Certified, destination: str) -> dict[str, Any]:
    """Mutual TLS to `destination` and nobody else. As a client Envoy stays at TLS 1.2 unless it is told otherwise."""
    calling = {
        "@type": f"{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": destination,
        "common_tls_context": caller.common(
            {"exact": caller.id_of(destination)}, tls_maximum_protocol_version="TLSv1_3"
        ),
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": calling}
