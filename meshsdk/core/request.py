"""What access decisions look at in a request: who calls, and what for. Read by `access` and `intentions`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from meshsdk.core.paths import Paths, joined, read
from meshsdk.core.value import Value

__all__ = ["ANONYMOUS", "ANYONE", "Condition", "Header", "Request", "callers", "service"]

ANYONE: Final = "*"
"""As a source: every caller with a verified identity."""

ANONYMOUS: Final = "anonymous"
"""As a source: callers without a verified identity. A service of that name is written as its SPIFFE id."""

_SERVICE: Final = re.compile(r"spiffe://([^/]+)/ns/default/dc/[^/]+/svc/([^/]+)")


class Condition(Protocol):
    """What a header must be; values are one per line of the header, and none where it is absent."""

    @property
    def name(self) -> str:
        """The header's, in small letters."""
        ...

    def surely(self, values: Sequence[str], /) -> bool:
        """Whether these values are so, however they are read."""
        ...

    def possibly(self, values: Sequence[str], /) -> bool:
        """Whether they are so in any way of reading them."""
        ...


class Request:
    """What decisions look at; each part is read when a rule asks for it.

    Args:
        peer: the caller's verified SPIFFE id; None where it has none.
        trust_domain: our own, such as `1a2b….consul`.
        method: as sent.
        target: the request target as sent, not decoded: the `raw_path` of ASGI, `RAW_URI` or `REQUEST_URI` of WSGI.
        headers: all values of a header by its name in small letters, one per line of it; empty where it is not there.
        doubles: all values of the headers that are the same to an application behind CGI's names, as `x_user` and
            `x-user` are.
        routed: the path, escaped, that the application routes, where a prefix is taken off before; empty where none is.
    """

    __slots__ = ("_paths", "doubles", "headers", "method", "peer", "routed", "target", "trust_domain")

    def __init__(
        self,
        peer: str | None,
        trust_domain: str,
        method: str,
        target: str,
        headers: Callable[[str], Sequence[str]],
        *,
        doubles: Callable[[str], Sequence[str]] = lambda _: (),
        routed: str = "",
    ) -> None:
        self.peer = peer or None
        self.trust_domain = trust_domain
        self.method = method
        self.target = target
        self.headers = headers
        self.doubles = doubles
        self.routed = routed
        self._paths: Paths | None = None

    @property
    def paths(self) -> Paths:
        """The readings of the target."""
        if self._paths is None:
            sent = read(self.target)
            self._paths = joined(sent, read(self.routed)) if self.routed else sent
        return self._paths

    def surely(self, conditions: Sequence[Condition]) -> bool:
        """Whether every reading of its headers meets all conditions."""
        return all(condition.surely(values) for condition in conditions for values in self._readings(condition.name))

    def possibly(self, conditions: Sequence[Condition]) -> bool:
        """Whether each condition is met by any reading of its header."""
        return all(any(map(condition.possibly, self._readings(condition.name))) for condition in conditions)

    def _readings(self, header: str) -> tuple[Sequence[str], ...]:
        """All values that a header may have: without its doubles, and with them."""
        values, doubles = self.headers(header), self.doubles(header)
        return (values, [*values, *doubles]) if doubles else (values,)


def callers(peer: str | None, trust_domain: str) -> tuple[str, ...]:
    """Every exact source that names the caller."""
    if peer is None:
        return (ANONYMOUS,)
    if not peer.startswith("spiffe://"):
        return (ANYONE,)  # a name of another form may read like a service's, and is not one
    name = service(peer, trust_domain)
    return (peer, ANYONE) if name is None or name == ANONYMOUS else (peer, ANYONE, name)


def service(peer: str | None, trust_domain: str) -> str | None:
    """The calling service, None where it is not one of our trust domain."""
    found = _SERVICE.fullmatch(peer or "")
    return found[2] if found and found[1] == trust_domain else None


@dataclass(frozen=True, slots=True)
class Header(Value):
    """What a header must be; exactly one of `exact`, `prefix` and `present` is given.

    Attributes:
        name: in small letters.
        exact, prefix: of the value.
        present: True where the header must be there with any value, False where it must not be there.
    """

    name: str
    exact: str | None = None
    prefix: str | None = None
    present: bool | None = None

    def fits(self, value: str) -> bool:
        """Whether one value is the one asked for."""
        if self.exact is not None:
            return value == self.exact
        return value.startswith(self.prefix or "")

    def surely(self, values: Sequence[str]) -> bool:
        """Whether every value fits, and there is one."""
        if self.present is not None:
            return bool(values) is self.present
        return bool(values) and all(map(self.fits, values))

    def possibly(self, values: Sequence[str]) -> bool:
        """Whether any value fits, or any part of one: several lines may have been joined by commas (RFC 9110, 5.3)."""
        if self.present is not None:
            return bool(values) is self.present
        return any(self.fits(value) or any(self.fits(part.strip()) for part in value.split(",")) for value in values)
