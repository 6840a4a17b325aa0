"""The prefix under which an application is mounted or published, and what it routes of a path that begins with it.

Rule 1  Whoever moves it, by `SCRIPT_NAME` or `root_path`, in a configuration or, as gunicorn lets callers on
        forwarded_allow_ips, in a header: what is left is what the application routes, so access rules see it as well.
Rule 2  What is left begins with a slash, as routers take it: `/api` is `/`, and of `/apiadmin` Flask makes `/admin`.
"""

from __future__ import annotations

__all__ = ["rooted", "without"]


def without(prefix: str, path: str) -> str:
    """The path as it is routed; empty where it does not begin with the prefix, and so is routed as it is."""
    return rooted(path[len(prefix) :]) if path.startswith(prefix) else ""


def rooted(rest: str) -> str:
    """What is left of a path, from its slash on."""
    return rest if rest.startswith("/") else f"/{rest}"
