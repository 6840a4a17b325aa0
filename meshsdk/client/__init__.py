"""httpx clients that call mesh services by name, and the transports to put under clients of one's own.

`import meshsdk.client` gives `client`, `async_client`, `MeshTransport` and `AsyncMeshTransport`, and `library(httpx2)`
the same for httpx2; the errors they raise are in `meshsdk.client.errors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import httpx

from meshsdk.client.engines import DEFAULT, EngineName
from meshsdk.client.library import Library, library
from meshsdk.client.transport import AsyncMeshTransport, Clusters, MeshTransport
from meshsdk.errors import ConfigError

__all__ = [
    "DEFAULT",
    "AsyncMeshTransport",
    "Clusters",
    "EngineName",
    "Library",
    "MeshTransport",
    "async_client",
    "client",
    "library",
]

C = TypeVar("C", httpx.Client, httpx.AsyncClient)

# httpx hands these to the transport it makes, and says nothing when it is given one instead. What stands beside each
# says what is so anyway, and does no harm. (`app` and `proxies` are httpx 0.27's.)
_TRANSPORT_OPTIONS: dict[str, tuple[object, ...]] = {
    "verify": (True,),
    "cert": (None,),
    "http1": (True,),
    "http2": (False,),
    "limits": (),
    "trust_env": (False,),
    "app": (None,),
}

# These put another transport before ours, for some URLs or all of them.
_DETOURS = ("proxy", "proxies", "mounts")


def client(transport: MeshTransport, /, **options: Any) -> httpx.Client:
    """An `httpx.Client` on the mesh; an `httpx2.Client` where the transport is for httpx2.

    `timeout` is None unless given: the policy bounds a call, and what is given here bounds single operations on top.
    Proxy variables of the environment are not heeded, as a proxy would take the calls to mesh services. HTTP/2 and
    proxies are for the transport: `mesh.client(engine=httpx.HTTPTransport(proxy=...))`.

    Args:
        options: any of `httpx.Client`'s, such as `base_url`, `headers` or `event_hooks`.

    Raises:
        ConfigError: an option that would have no effect, or take calls away from the mesh.
    """
    made = library(transport.library)
    _check(options, made.module.__name__, "")
    return _sparing(made.Client(transport=transport, **{"timeout": None, **options}), made)


def async_client(transport: AsyncMeshTransport, /, **options: Any) -> httpx.AsyncClient:
    """An `httpx.AsyncClient` on the mesh; as `client`."""
    made = library(transport.library)
    _check(options, made.module.__name__, "Async")
    return _sparing(made.AsyncClient(transport=transport, **{"timeout": None, **options}), made)


def _sparing(http: C, of: Library) -> C:
    """Give the client cookies of ours; `client.cookies = ...` gives it httpx's own again."""
    http._cookies = of.Cookies(http.cookies)  # noqa: SLF001 - there is no other way in
    return http


def _check(options: Mapping[str, Any], library: str, prefix: str) -> None:
    """Refuse what would do nothing or lead around the mesh, with what to write; `prefix` is `Async` or nothing."""
    maker = "async_transport" if prefix else "transport"
    if "transport" in options:
        raise ConfigError(
            f"transport=: this client's is the mesh's; write mesh.{maker}(egress=...) for hosts outside the mesh"
        )
    for name in _DETOURS:
        if options.get(name):
            problem = "it would take calls to mesh services too, past the policy"
            raise ConfigError(f"{name}=: {problem}; {_instead(library, prefix, 'proxy=...', 'proxy=...')}")
    for name, harmless in _TRANSPORT_OPTIONS.items():
        if name in options and not any(options[name] is value for value in harmless):
            problem = "has no effect on a mesh client, whose connections follow the policy"
            inside = {"http2": "http1=False, http2=True", "limits": "limits=..."}.get(name, "")
            given = "http2=True" if name == "http2" else f"{name}=..."
            raise ConfigError(f"{name}=: {problem}; {_instead(library, prefix, inside, given)}")


def _instead(library: str, prefix: str, inside: str, outside: str) -> str:
    """What to write for mesh services, where there is something, and for hosts outside the mesh."""
    kind, colour = f"{library}.{prefix}HTTPTransport", "async_" if prefix else ""
    module = "" if library == "httpx" else f"library={library}, "
    ours = f"for mesh services write mesh.{colour}client({module}engine={kind}({inside})), " if inside else ""
    made = f"mesh.{colour}transport({module}egress={kind}({outside}))"
    return f"{ours}for hosts outside the mesh write {library}.{prefix}Client(transport={made})"
