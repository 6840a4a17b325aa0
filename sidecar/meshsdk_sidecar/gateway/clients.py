"""Who a client is, and what one client may take.

Rule 1  A client is the address its connection comes from. Only where that is a trusted proxy's, the client is the
        address that stands furthest right in X-Forwarded-For and is no trusted proxy's: what stands left of it is what
        the client itself has written.
Rule 2  An IPv6 client is its /64, which is what one line is given at least (RFC 6177).
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import ceil
from typing import TYPE_CHECKING

from meshsdk.core.token_bucket import Bucket, TokenBuckets
from meshsdk_sidecar.gateway.config import GatewayLimits
from meshsdk_sidecar.gateway.kinds import Network

if TYPE_CHECKING:
    from meshsdk_sidecar.gateway.ledger import Ledger

__all__ = ["Client", "Clients"]

# 100,000 keys are some 12 MiB; a client that is forgotten begins with a full bucket.
_REMEMBERED = 100_000


@dataclass(slots=True)
class Client:
    """Whom a request comes from.

    Attributes:
        address: the client's.
        chain: the addresses from the client to who connected to us: X-Forwarded-For as it is sent on.
        vouched: whether a trusted proxy sent the request, so that what it says of it holds.
    """

    address: str
    chain: str
    vouched: bool


class Clients:
    """All of them.

    Args:
        limits: of one client.
        trusted: networks of proxies.
        ledger: of the workers that serve the same clients; None where one process serves them all.
    """

    def __init__(self, limits: GatewayLimits, trusted: Sequence[Network], ledger: Ledger | None = None) -> None:
        rate = limits.requests_per_second
        burst = limits.burst or max(1, ceil(2 * (rate or 0)))
        self._take: Callable[[str, float], float] | None = None
        if rate is not None:
            self._take = (
                TokenBuckets(rate, burst, _REMEMBERED).take
                if ledger is None
                else partial(ledger.take, Bucket(rate, burst))
            )
        self._ledger = ledger
        self._alone = limits.per == "all"
        self._trusted = trusted
        self._most = limits.connections_per_client
        self._open: Counter[str] = Counter()
        self.trusts = lru_cache(maxsize=4096)(self._trusts)

    def connected(self, address: str) -> bool:
        """Count a connection; False where the client has too many, and then it is counted all the same."""
        key = _key(address)
        self._open[key] += 1
        return self._most is False or self._counted(key) <= self._most or self.trusts(address)

    def gone(self, address: str) -> None:
        """It is closed."""
        key = _key(address)
        self._open[key] -= 1
        if self._most is not False and self._ledger is not None:
            self._counted(key)
        if not self._open[key]:
            del self._open[key]

    def wait(self, address: str, now: float) -> float:
        """Seconds until the client may ask again; 0.0 where it may now, which is counted."""
        return 0.0 if self._take is None else self._take("" if self._alone else _key(address), now)

    def client(self, peer: str, fields: Sequence[tuple[bytes, bytes]]) -> Client:
        """Whom a request comes from.

        Args:
            peer: the address of the connection's other end.
        """
        if not (self._trusted and self.trusts(peer)):
            return Client(peer, peer, False)
        chain = [peer]
        said = b",".join(value for name, value in fields if name.lower() == b"x-forwarded-for")
        for word in reversed(said.decode("latin-1").split(",")):
            address = _address(word)
            if not address:
                break  # whoever wrote that, it is no address, and neither is what stands before it
            chain.append(address)
            if not self.trusts(address):
                break
        chain.reverse()
        return Client(chain[0], ", ".join(chain), True)

    def _counted(self, key: str) -> int:
        """A client's connections, those to other workers included."""
        mine = self._open[key]
        return mine if self._ledger is None else self._ledger.count(key, mine)

    def _trusts(self, address: str) -> bool:
        found = _read(address)
        return found is not None and any(found in network for network in self._trusted)


def _read(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, ipaddress.IPv6Address) else found


def _address(word: str) -> str:
    """An address of X-Forwarded-For, which some proxies write with a port; empty where it is none."""
    text = word.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    found = _read(text)
    return "" if found is None else str(found)


@lru_cache(maxsize=4096)
def _key(address: str) -> str:
    found = _read(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
    return address if found is None else str(found)
