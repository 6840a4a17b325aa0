"""Which service a request goes to, by host and path.

Rule 1  The most specific route wins, wherever it stands in the file: the very host before a wildcard before any host;
        among the host's routes the very path before the longest prefix. So a file may be sorted, and a route that is
        added never takes requests from one that says more. Two routes for the same are a mistake.
Rule 2  A host's routes are those of its most specific name alone: what a wildcard exposes is not exposed by a host that
        is written out. Unknown hosts are 421 (RFC 9110, 15.5.20), unknown paths of known ones 404.
Rule 3  A path that servers may read in several ways (`meshsdk.core.paths`) is carried where every reading leads to the
        same route, as it was sent, for the service to judge; where they part, or where part of it is to be stripped,
        it is 400: whichever reading were taken, somebody might have meant another.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshsdk.core.paths import read
from meshsdk_sidecar.gateway.certificates import wildcard_of
from meshsdk_sidecar.gateway.config import RouteSection

__all__ = ["NoRoute", "Routes", "name_of"]


class NoRoute(Exception):
    """The request leads nowhere.

    Attributes:
        status: what the client is answered.
        reason: the metric's label.
    """

    def __init__(self, status: int, reason: str, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.reason = reason


class _Host:
    """The routes of one host."""

    __slots__ = ("exact", "prefixes")

    def __init__(self, routes: Iterable[RouteSection]) -> None:
        self.exact: dict[str, RouteSection] = {}
        self.prefixes: list[tuple[str, RouteSection]] = []
        for route in routes:
            if route.path.exact is not None:
                self.exact[route.path.exact] = route
            else:
                self.prefixes.append((route.path.stem.rstrip("/"), route))
        self.prefixes.sort(key=lambda pair: len(pair[0]), reverse=True)

    def find(self, path: str) -> RouteSection | None:
        if (route := self.exact.get(path)) is not None:
            return route
        for prefix, route in self.prefixes:
            if path.startswith(prefix) and (len(path) == len(prefix) or path[len(prefix)] == "/"):
                return route
        return None


class Routes:
    """All of them."""

    def __init__(self, routes: Iterable[RouteSection]) -> None:
        by_host: dict[str, list[RouteSection]] = {}
        for route in routes:
            by_host.setdefault(route.host, []).append(route)
        self._hosts = {host: _Host(found) for host, found in by_host.items()}

    def knows(self, host: str) -> bool:
        """Whether there are routes for a host."""
        return self._host(host) is not None

    def find(self, host: str, target: bytes) -> tuple[RouteSection, bytes]:
        """The route of a request, and the target to send on.

        Args:
            target: in origin form.

        Raises:
            NoRoute: there is none, or it cannot be told which.
        """
        routes = self._host(host)
        if routes is None:
            raise NoRoute(421, "host", f"{host or 'no host'}: nothing is served here under this name")
        paths = read(target.decode("latin-1"))
        if paths.unclear:
            raise NoRoute(400, "path", f"the path has {paths.unclear}")
        found = [routes.find(path) for path in paths.readings]
        route = found[0]
        if any(other is not route for other in found):
            raise NoRoute(400, "path", "the path can be read in several ways that lead to different places")
        if route is None:
            raise NoRoute(404, "path", "nothing is served under this path")
        if route.strip is None:
            return route, target
        if len(found) > 1:
            raise NoRoute(400, "path", "the path can be read in several ways")
        rest = paths.readings[0][len(route.strip) :] or "/"
        _, mark, query = target.partition(b"?")
        return route, rest.encode("latin-1") + mark + query

    def _host(self, host: str) -> _Host | None:
        hosts = self._hosts
        return hosts.get(host) or hosts.get(wildcard_of(host)) or hosts.get("*")


def name_of(authority: bytes | None) -> str:
    """The host name of an authority, in small letters and without its port."""
    if authority is None:
        return ""
    text = authority.decode("latin-1").lower()
    name = text.partition("]")[0] + "]" if text.startswith("[") else text.partition(":")[0]
    return name.removesuffix(".")
