"""The way in: requests of callers are let in or refused by who the caller is, and carried to the app.

Rule 1  Who calls is what TLS has verified, once for a connection; a certificate that has expired since ends it.
Rule 2  What the policy lets in goes to the app as it came, but for the fields of one connection, the deadline, which is
        what is left of it, and what the mesh says of the caller.
Rule 3  A request is tried again only where the app was not asked yet: it closed the connection that was kept for it, or
        nothing accepted one.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from meshsdk.core.model import Call
from meshsdk.core.plan import Breaker, Outlier, Plan, Retries, Timeouts
from meshsdk.server.forwarded import XFCC
from meshsdk.server.verified import Verified, verified
from meshsdk_sidecar.proxy.downstream import Downstream
from meshsdk_sidecar.proxy.fields import request_head
from meshsdk_sidecar.proxy.forwarding import Forwarding
from meshsdk_sidecar.proxy.hops import COUNTED, last_hop
from meshsdk_sidecar.proxy.outbound import idempotent, origin

if TYPE_CHECKING:
    from meshsdk.server.inbound import ServedRequest
    from meshsdk.wire.http1.requests import Asked, Refused
    from meshsdk_sidecar.proxy.plane import Plane

__all__ = ["InboundDoor", "local_plan"]

log = logging.getLogger("meshsdk.sidecar")


class _Small(dict[bytes, bytes]):
    """Names in small letters by every spelling seen; bounded, as names come from outside."""

    def __missing__(self, name: bytes) -> bytes:
        small = name.lower()
        if len(self) < _REMEMBERED:
            self[name] = small
        return small


_REMEMBERED: Final = 500
_small = _Small()


def local_plan(plan: Plan) -> Plan:
    """What holds between the sidecar and its app: the limits of its policy, and rule 3. Its callers' timeouts, breaker
    and balancing are theirs to keep, and one app is not balanced, broken or ejected.
    """
    return replace(
        plan,
        timeouts=Timeouts(request=0.0, attempt=0.0, connect=plan.timeouts.connect, idle=plan.timeouts.idle),
        retries=Retries(2, True, False, frozenset(), False, 0.0, 0.0, 1.0, 10.0, 10.0),
        breaker=Breaker(0, 1.0, 1),
        outlier=Outlier(0, 0.0, 0, 1.0, 1.0, 1.0, 0.0),
        access_log="off",  # the request is logged where it is let in
    )


class InboundDoor:
    """Takes callers' requests.

    Args:
        plane: where it belongs.
    """

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    def opened(self, downstream: Downstream) -> None:
        """A connection stands: read who calls."""
        downstream.who = verified(downstream.transport.get_extra_info("ssl_object"))
        peer = downstream.transport.get_extra_info("peername")
        downstream.address = str(peer[0]) if isinstance(peer, tuple) else ""
        self._plane.opened(downstream)

    def closed(self, downstream: Downstream) -> None:
        """It is gone."""
        self._plane.closed(downstream)

    def refused(self, downstream: Downstream, refused: Refused) -> None:
        """What came is no request."""
        del downstream
        self._plane.refused("inbound", refused.kind, str(refused))

    def begin(self, downstream: Downstream, asked: Asked) -> None:
        """Let a request in, or refuse it."""
        plane, who = self._plane, downstream.who
        if who is not None and who.expired:
            self._expired(downstream, who)
            return
        if asked.method == b"CONNECT":
            plane.refused("inbound", "connect", "CONNECT leads nowhere from here")
            downstream.reply(501, b"CONNECT is not carried into a service\n")
            return
        method, target = plane.method(asked.method), _origin_form(asked.target)
        path = target.partition(b"?")[0].decode("latin-1")
        served = plane.intake.admit(
            method,
            path,
            _small_names(asked.fields),
            client=downstream.address,
            peer=None if who is None else who.peer,
            target=asked.target,
        )
        if served.refusal is not None:
            self._refuse(downstream, served)
            return
        if asked.method in COUNTED and (answer := last_hop(asked)) is not None:
            served.status = answer[0]
            served.end()
            downstream.reply(*answer)
            return
        if asked.host is None:
            asked.host = plane.config.service.name.encode()
        head = request_head(asked, target, upgrade=bool(asked.upgrade))
        if served.certificate is not None:
            head.lines += b"%b: %b\r\n" % (XFCC, served.certificate)
        call = Call(method, path, idempotent(asked.method) or head.keyed, True, served.inbound.deadline)
        forwarding = Forwarding(downstream, asked, head, plane.app_pools, plane.app(), call, served)
        downstream.work = forwarding
        forwarding.begin()

    def _refuse(self, downstream: Downstream, served: ServedRequest) -> None:
        refusal = served.refusal
        assert refusal is not None
        served.status = refusal.status
        served.end()
        fields = tuple(pair for pair in refusal.headers if pair[0] != b"content-length")
        downstream.reply(refusal.status, refusal.body, fields)

    def _expired(self, downstream: Downstream, who: Verified) -> None:
        log.info("the certificate of %s has expired: its connection is closed, not served", who.peer)
        self._plane.refused("inbound", "certificate-expired", "")
        downstream.cut()


def _origin_form(target: bytes) -> bytes:
    if target[0] == 0x2F or target == b"*":
        return target
    return origin(target)[1]


def _small_names(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    small = _small
    return [(small[name], value) for name, value in fields]
