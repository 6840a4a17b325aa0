"""Where requests from outside go: into the mesh from https, to https from http.

Rule 1  A client is asked for patience (429) before anything is looked up for it.
Rule 2  The path is judged as every server might read it, and the route by that (`routes`).
Rule 3  What the client says of itself and of the mesh comes off; what is known of it goes on (`fields`). Whom a service
        lets in, by token or otherwise, is the service's matter: Authorization goes on as it came.
Rule 4  CONNECT and TRACE lead nowhere: the one would be a tunnel into the mesh, the other shows scripts what browsers
        hide from them (RFC 9110, 9.3.8).
"""

from __future__ import annotations

import logging
from math import ceil
from typing import TYPE_CHECKING

from meshsdk.core.model import Call
from meshsdk.server.deadline import GRPC_HEADER, read_timeout
from meshsdk_sidecar.gateway.acme import Challenges
from meshsdk_sidecar.gateway.clients import Clients
from meshsdk_sidecar.gateway.fields import Attire, cleansed, forwarded
from meshsdk_sidecar.gateway.guest import Carried, peer_of
from meshsdk_sidecar.gateway.routes import NoRoute, Routes, name_of
from meshsdk_sidecar.proxy.fields import request_head
from meshsdk_sidecar.proxy.outbound import Looking, idempotent, origin, path_of, timeouts

if TYPE_CHECKING:
    from meshsdk.core.cluster import Cluster
    from meshsdk.wire.http1.requests import Asked, Refused
    from meshsdk_sidecar.gateway.clients import Client
    from meshsdk_sidecar.gateway.config import RouteSection
    from meshsdk_sidecar.proxy.downstream import Downstream
    from meshsdk_sidecar.proxy.plane import Plane

__all__ = ["GatewayDoor", "RedirectDoor"]

log = logging.getLogger("meshsdk.gateway")

_ALLOWED = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


class _Door:
    """What both have in common.

    Args:
        plane: of the process.
        routes: which hosts there are.
        clients: who may ask how much.
    """

    listener = "gateway"

    def __init__(self, plane: Plane, routes: Routes, clients: Clients) -> None:
        self._plane = plane
        self._routes = routes
        self._clients = clients

    def opened(self, downstream: Downstream) -> None:
        """A connection stands."""
        downstream.who = peer_of(downstream.transport)
        self._plane.opened(downstream)

    def closed(self, downstream: Downstream) -> None:
        """It is gone."""
        self._plane.closed(downstream)

    def refused(self, downstream: Downstream, refused: Refused) -> None:
        """What came is no request."""
        self._plane.refused(self.listener, refused.kind, f"{downstream.who}: {refused}")

    def _turn_away(self, downstream: Downstream, no: NoRoute, *fields: tuple[bytes, bytes]) -> None:
        self._plane.refused(self.listener, no.reason, f"{downstream.who}: {no}")
        downstream.reply(no.status, f"{no}\n".encode("ascii", "replace"), fields)

    def _must_wait(self, downstream: Downstream, address: str) -> bool:
        seconds = self._clients.wait(address, self._plane.clock())
        if seconds > 0:
            pause = max(1, ceil(seconds))  # whole seconds (RFC 9110, 10.2.3)
            no = NoRoute(429, "rate", f"too many requests; the next one is welcome in {pause} s")
            self._turn_away(downstream, no, (b"retry-after", b"%d" % pause))
        return seconds > 0


class GatewayDoor(_Door):
    """Takes clients' requests into the mesh.

    Args:
        attire: what answers wear.
    """

    def __init__(self, plane: Plane, routes: Routes, clients: Clients, attire: Attire) -> None:
        super().__init__(plane, routes, clients)
        self._attire = attire

    def begin(self, downstream: Downstream, asked: Asked) -> None:
        """Carry a request to its service."""
        client = self._clients.client(downstream.who, asked.fields)
        if self._must_wait(downstream, client.address):
            return
        if asked.method in {b"CONNECT", b"TRACE"}:
            no = NoRoute(405, "method", f"{asked.method.decode()} is not carried here")
            self._turn_away(downstream, no, (b"allow", _ALLOWED))
            return
        try:
            route, target = self._routes.find(name_of(asked.host), _origin_form(asked))
        except NoRoute as no:
            self._turn_away(downstream, no)
            return
        passage = _Passage(self._plane, self._attire, route, client)
        cluster = self._plane.peek(route.to)
        if cluster is None:
            looking = Looking(passage, downstream, asked, target, passage.deadline(timeouts(asked)))
            downstream.work = looking
            looking.begin(self._plane, route.to)
        else:
            passage.forward(downstream, asked, cluster, target)


class _Passage:
    """A request whose way is known."""

    __slots__ = ("_attire", "_client", "_plane", "_route")

    def __init__(self, plane: Plane, attire: Attire, route: RouteSection, client: Client) -> None:
        self._plane = plane
        self._attire = attire
        self._route = route
        self._client = client

    def forward(
        self, downstream: Downstream, asked: Asked, cluster: Cluster, target: bytes, deadline: float | None = None
    ) -> None:
        """Carry it to a service that is known."""
        plane = self._plane
        told = forwarded(self._client, asked.host or b"", asked.fields)
        asked.fields = cleansed(asked.fields)
        head = request_head(asked, target, upgrade=bool(asked.upgrade))
        head.lines += told
        call = Call(
            plane.method(asked.method),
            path_of(target),
            idempotent(asked.method) or head.keyed,
            replayable=True,
            deadline=self.deadline(head.timeouts) if deadline is None else deadline,
        )
        carried = Carried(downstream, asked, head, plane.follow(cluster), cluster, call)
        carried.wear(self._attire)
        downstream.work = carried
        carried.begin()

    def deadline(self, given: list[tuple[bytes, bytes]]) -> float | None:
        """The route's from now on, or a client's own where that is shorter."""
        bounds = [] if self._route.timeout is None else [self._route.timeout]
        own = [pair for pair in given if pair[0] == GRPC_HEADER]
        if own and (seconds := read_timeout(own).seconds) is not None:
            bounds.append(seconds)
        return self._plane.clock() + min(bounds) if bounds else None


class RedirectDoor(_Door):
    """Sends clients to https.

    Args:
        port: of https.
        challenges: answers those who look whether a host is ours; None where nobody does.
    """

    listener = "gateway-http"

    def __init__(
        self, plane: Plane, routes: Routes, clients: Clients, port: int, challenges: Challenges | None
    ) -> None:
        super().__init__(plane, routes, clients)
        self._port = port
        self._challenges = challenges

    def opened(self, downstream: Downstream) -> None:
        """A connection stands."""
        super().opened(downstream)
        if not self._clients.connected(downstream.who):
            self._plane.refused(self.listener, "connections", f"{downstream.who} has too many connections")
            downstream.transport.abort()

    def closed(self, downstream: Downstream) -> None:
        """It is gone."""
        self._clients.gone(downstream.who)
        super().closed(downstream)

    def begin(self, downstream: Downstream, asked: Asked) -> None:
        """Send a client to https; 301 keeps the method of GET and HEAD, which all clients know, 308 that of others."""
        client = self._clients.client(downstream.who, asked.fields)
        if self._must_wait(downstream, client.address):
            return
        path = path_of(_origin_form(asked))
        if self._challenges is not None and path.startswith(Challenges.PREFIX):
            status, body = self._challenges.answer(asked.method, path)
            downstream.reply(status, body)
            return
        host = name_of(asked.host)
        if not host or not self._routes.knows(host) or asked.method == b"CONNECT":
            self._turn_away(downstream, NoRoute(421, "host", f"{host or 'no host'}: nothing is served under this name"))
            return
        port = b"" if self._port == 443 else b":%d" % self._port
        target = _origin_form(asked)
        location = b"https://%b%b%b" % (host.encode("latin-1"), port, b"/" if target == b"*" else target)
        status = 301 if asked.method in {b"GET", b"HEAD"} else 308
        downstream.reply(status, b"", ((b"location", location),))


def _origin_form(asked: Asked) -> bytes:
    target = asked.target
    return target if target[0] == 0x2F or target == b"*" else origin(target)[1]
