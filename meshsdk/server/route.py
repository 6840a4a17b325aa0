"""The template of the route that Starlette or FastAPI matched, such as `/shops/{shop}/items/{item}`.

A label must never hold what a client sent. The matched route itself has its template, but of the mounts around it the
scope only keeps the path they took, parameters filled in: their templates are found again among the application's
routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["route_of"]


def route_of(scope: Mapping[str, Any], app: Any) -> str:
    """The route's template; empty where none matched.

    Args:
        scope: as the framework left it.
        app: the outermost application; a mounted one puts itself into the scope.
    """
    path = getattr(scope.get("route"), "path", None)
    if not isinstance(path, str):
        return ""
    # Starlette appends what a mount took to root_path, and keeps the server's own root in app_root_path.
    root: str = scope.get("root_path", "")
    taken = root.removeprefix(scope.get("app_root_path", root))
    return _mounts(getattr(app, "routes", ()), taken) + path if taken else path


def _mounts(routes: Iterable[Any], taken: str) -> str:
    for route in routes:
        pattern, inner = getattr(route, "path_regex", None), getattr(route, "routes", None)
        if pattern is None or inner is None:
            continue
        # A mount's pattern ends in `/{path:path}`: what is left for the mounts inside it.
        if match := pattern.match(f"{taken}/"):
            rest = str(match.groupdict().get("path", "")).rstrip("/")
            return str(route.path) + (_mounts(inner, f"/{rest}") if rest else "")
    return ""
