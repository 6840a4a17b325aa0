"""The way out: the app's own calls come in here in clear text and leave through the mesh.

Rule 1  The Host field names the destination, or an absolute target, as a proxy's client sends it (RFC 9112, 3.2.2);
        at the port of one upstream, that upstream is the destination whatever the request says.
Rule 2  A name of the mesh is found, balanced, retried and secured. Any other host is reached as it is, with the
        deadline and the first bytes' safety, and nothing of the mesh.
Rule 3  The deadline a caller sends bounds the call here and is sent on; its trace context is sent on as it is.
Rule 4  CONNECT leads to hosts outside only: a tunnel to a service would carry requests that no policy sees.
Rule 5  A call to the sidecar itself would come back for ever: refused.
Rule 6  A host outside is called only where `egress` of the policy lets it through; every request is asked about, and
        every CONNECT. A tunnel that stands stays.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

from meshsdk.core.model import Call
from meshsdk.core.names import NoName, service_of
from meshsdk.errors import CallError, DeadlineExceeded, MeshError
from meshsdk.server.deadline import ENVOY_HEADER, GRPC_HEADER, read_timeout
from meshsdk_sidecar.proxy.connect import Connecting
from meshsdk_sidecar.proxy.downstream import Downstream
from meshsdk_sidecar.proxy.fields import request_head
from meshsdk_sidecar.proxy.forwarding import Forwarding
from meshsdk_sidecar.proxy.hops import COUNTED, last_hop
from meshsdk_sidecar.proxy.work import Waiting

if TYPE_CHECKING:
    from meshsdk.core.cluster import Cluster
    from meshsdk.wire.http1.requests import Asked, Refused
    from meshsdk_sidecar.proxy.plane import Plane

__all__ = [
    "Forwards",
    "Looking",
    "Misdirected",
    "OutboundDoor",
    "authority",
    "idempotent",
    "origin",
    "path_of",
    "timeouts",
]

log = logging.getLogger("meshsdk.sidecar")

# RFC 9110, 9.2.2.
_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})


class Misdirected(Exception):
    """The request names nobody to whom it can be carried.

    Attributes:
        status: what the caller is answered.
        reason: the metric's label.
        flag: the response flag, empty for none.
    """

    def __init__(self, status: int, reason: str, why: str, flag: bytes = b"") -> None:
        super().__init__(why)
        self.status = status
        self.reason = reason
        self.flag = flag


class Forwards(Protocol):
    """Carries a request once its service is known."""

    def forward(
        self, downstream: Downstream, asked: Asked, cluster: Cluster, target: bytes, deadline: float | None = None
    ) -> None:
        """Carry it there.

        Args:
            target: in origin form.
            deadline: that of the request, where it has been running for a while.
        """
        ...


class OutboundDoor:
    """Takes the app's requests.

    Args:
        plane: where it belongs.
        service: the one service behind this port; None where the request names it.
    """

    def __init__(self, plane: Plane, service: str | None = None) -> None:
        self._plane = plane
        self._service = service

    def opened(self, downstream: Downstream) -> None:
        """A connection stands."""
        self._plane.opened(downstream)

    def closed(self, downstream: Downstream) -> None:
        """It is gone."""
        self._plane.closed(downstream)

    def refused(self, downstream: Downstream, refused: Refused) -> None:
        """What came is no request."""
        del downstream
        self._plane.refused("outbound", refused.kind, str(refused))

    def begin(self, downstream: Downstream, asked: Asked) -> None:
        """Carry a request to where it wants to go."""
        plane = self._plane
        try:
            if asked.method == b"CONNECT":
                self._connect(downstream, asked)
                return
            if asked.method in COUNTED and (answer := last_hop(asked)) is not None:
                downstream.reply(*answer)
                return
            cluster, target, name = self._destination(downstream, asked)
        except (Misdirected, NoName) as error:
            status, reason = (error.status, error.reason) if isinstance(error, Misdirected) else (400, "no-name")
            plane.refused("outbound", reason, str(error))
            flag = error.flag if isinstance(error, Misdirected) else b""
            downstream.reply(status, f"{error}\n".encode(), ((b"x-mesh-flag", flag),) if flag else ())
            return
        if cluster is None:
            looking = Looking(self, downstream, asked, target, _deadline(timeouts(asked), plane.clock()))
            downstream.work = looking
            looking.begin(plane, name)
        else:
            self.forward(downstream, asked, cluster, target)

    def forward(
        self, downstream: Downstream, asked: Asked, cluster: Cluster, target: bytes, deadline: float | None = None
    ) -> None:
        """Carry a request to a service that is known."""
        plane = self._plane
        head = request_head(asked, target, upgrade=bool(asked.upgrade))
        if head.timeouts and deadline is None:
            deadline = _deadline(head.timeouts, plane.clock())
        method = asked.method
        call = Call(
            plane.method(method),
            path_of(target),
            method in _IDEMPOTENT or head.keyed,
            replayable=True,
            deadline=deadline,
            traceparent=head.traceparent,
        )
        forwarding = Forwarding(downstream, asked, head, plane.follow(cluster), cluster, call)
        downstream.work = forwarding
        forwarding.begin()

    def _destination(self, downstream: Downstream, asked: Asked) -> tuple[Cluster | None, bytes, str]:
        """The cluster, None where it has to be looked up; the target in origin form; the service's name."""
        target = asked.target
        plane, name = self._plane, self._service
        absolute = target[0] != 0x2F and target != b"*"
        scheme = b"http"
        if absolute:
            scheme, target = origin(target)
            if asked.method == b"OPTIONS" and target == b"/" and asked.target[-1] != 0x2F:
                target = b"*"  # RFC 9112, 3.2.4
        if name is None:
            host = asked.host
            if host is None:
                raise Misdirected(400, "host", "the request names no host; send one, such as Host: payments")
            if scheme != b"http":
                raise _not_http(scheme, host)
            name = _service(host)
            if name is None:
                return self._outside(downstream, host), target, ""
        if asked.host is None:
            asked.host = name.encode()
        return plane.peek(name), target, name

    def _connect(self, downstream: Downstream, asked: Asked) -> None:
        """Carry bytes to a host outside; what the mesh carries to its services are requests."""
        plane, target = self._plane, asked.target
        host = target.rpartition(b":")[0].strip(b"[]")
        if self._service is not None or service_of(host) is not None:
            name = (self._service or host.decode("latin-1")).removesuffix(".mesh")
            raise Misdirected(
                403,
                "connect",
                f"CONNECT {target.decode('latin-1')}: services of the mesh are called by http://{name}/, and the "
                "mesh encrypts; CONNECT leads to hosts outside only",
            )
        cluster = self._outside(downstream, target)
        connecting = Connecting(downstream, cluster, plane.pools, _deadline(timeouts(asked), plane.clock()))
        downstream.work = connecting
        connecting.begin()

    def _outside(self, downstream: Downstream, host: bytes) -> Cluster:
        self._not_ourselves(downstream, host)
        plan = self._plane.own_plan()
        name, port = authority(host)
        if not plan.egress.permits(name, port):
            why = f"the policy ({plan.version}) lets this service call no {name} at port {port}"
            raise Misdirected(403, "egress", f"{why}: see `egress` in mesh/policy/_mesh", b"NR")
        return self._plane.egress(host)

    def _not_ourselves(self, downstream: Downstream, host: bytes) -> None:
        name, _, port = host.decode("latin-1").rpartition(":")
        here = downstream.transport.get_extra_info("sockname")
        if not (isinstance(here, tuple) and port.isdigit() and int(port) == here[1]):
            return
        if _is_local(name.strip("[]"), here[0]):
            raise Misdirected(
                421,
                "itself",
                f"Host: {name}:{port} is this sidecar: send the name of the service to call, such as Host: payments",
            )


class Looking(Waiting):
    """A request whose service is asked for the first time, until its deadline, if it has one."""

    __slots__ = ("_asked", "_deadline", "_door", "_downstream", "_target", "_task")

    def __init__(
        self, door: Forwards, downstream: Downstream, asked: Asked, target: bytes, deadline: float | None
    ) -> None:
        self._door = door
        self._downstream = downstream
        self._asked = asked
        self._target = target
        self._deadline = deadline
        self._task: asyncio.Task[Cluster] | None = None

    def begin(self, plane: Plane, service: str) -> None:
        """Ask for the service."""
        self._task = asyncio.get_running_loop().create_task(self._look_up(plane, service))
        self._task.add_done_callback(self._found)

    def abandon(self) -> None:
        """The client is gone."""
        if self._task is not None:
            self._task.cancel()

    async def _look_up(self, plane: Plane, service: str) -> Cluster:
        bound = asyncio.timeout(None if self._deadline is None else self._deadline - plane.clock())
        try:
            async with bound:
                return await plane.look_up(service)
        except TimeoutError:
            if not bound.expired():
                raise
            problem = "the time was over before anything was known of the service"
            raise DeadlineExceeded(problem, service=service, reason="deadline") from None

    def _found(self, task: asyncio.Task[Cluster]) -> None:
        downstream = self._downstream
        if task.cancelled() or downstream.work is not self:
            return
        downstream.work = None
        error = task.exception()
        if error is None:
            self._door.forward(downstream, self._asked, task.result(), self._target, self._deadline)
            return
        if not isinstance(error, MeshError):
            log.error("a service could not be looked up", exc_info=error)
        elif isinstance(error, CallError):
            log.warning("%s", error)
            downstream.fail(error)
            return
        downstream.reply(503, f"{error}\n".encode(), ((b"x-mesh-flag", b"NR"),))


@lru_cache(maxsize=4096)
def _service(host: bytes) -> str | None:
    """The service that an authority names; None for a host outside the mesh. `:80` says what http says already."""
    name = host.removesuffix(b":80")
    return None if b":" in name else service_of(name)


def _not_http(scheme: bytes, host: bytes) -> Misdirected:
    return Misdirected(
        400,
        "scheme",
        f"{scheme.decode('latin-1')}://{host.decode('latin-1')}: services are called by http://, the mesh encrypts; "
        "hosts outside the mesh are called by https directly",
    )


def origin(target: bytes) -> tuple[bytes, bytes]:
    """Scheme and path of an absolute target, the query with it."""
    scheme, _, rest = target.partition(b"://")
    path, mark, query = rest.partition(b"?")
    return scheme.lower(), b"/" + path.partition(b"/")[2] + mark + query


def authority(host: bytes) -> tuple[str, int]:
    """Name and port, 80 where there is none."""
    text = host.decode("latin-1")
    name, colon, port = text.rpartition(":")
    if colon and port.isdigit() and not name.endswith(":"):
        return name.strip("[]"), int(port)
    return text.strip("[]"), 80


def _is_local(name: str, here: str) -> bool:
    name = name.lower().rstrip(".")
    if name in {"localhost", here, socket.gethostname().lower()} or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def timeouts(asked: Asked) -> list[tuple[bytes, bytes]]:
    """The deadline a request names, names in small letters; what of `request_head` is needed before there is one."""
    fields = ((name.lower(), value) for name, value in asked.fields)
    return [(name, value) for name, value in fields if name in {ENVOY_HEADER, GRPC_HEADER}]


def _deadline(fields: list[tuple[bytes, bytes]], now: float) -> float | None:
    given = read_timeout(fields)
    for junk in given.junk:
        log.debug("a call's deadline cannot be read and does not bound it: %s", junk)
    return None if given.seconds is None else now + given.seconds


def idempotent(method: bytes) -> bool:
    """Whether a method may be repeated (RFC 9110, 9.2.2)."""
    return method in _IDEMPOTENT


def path_of(target: bytes) -> str:
    """Without the query: that is nobody's to log."""
    return target.partition(b"?")[0].decode("latin-1")
