"""httpx or httpx2 as the mesh uses it: the transports, bodies and errors made for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Protocol, TypeVar

import httpx

from meshsdk.client.body import AsyncBody, Body
from meshsdk.client.clients import AsyncClient, Client, parser
from meshsdk.client.cookies import Cookies
from meshsdk.client.errors import Errors, errors_of
from meshsdk.client.rebase import check_library, rebased
from meshsdk.client.response import AsyncResponse, Response, blank
from meshsdk.client.sending import Parts
from meshsdk.client.transport import AsyncMeshTransport, MeshTransport

__all__ = ["AsyncClientLibrary", "AsyncTransportLibrary", "ClientLibrary", "Library", "TransportLibrary", "library"]

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Library:
    """Ours, made for one HTTP library.

    Attributes:
        module: httpx or httpx2.
        errors: each class of `meshsdk.client.errors` for it, by the same name.
    """

    module: ModuleType
    errors: Errors
    MeshTransport: type[MeshTransport]
    AsyncMeshTransport: type[AsyncMeshTransport]
    Client: type[Client]
    AsyncClient: type[AsyncClient]
    Cookies: type[Cookies]


def library(module: object = None) -> Library:
    """What is made for `module`, httpx where it is None; made once.

    Raises:
        ConfigError: it is neither httpx nor httpx2.
    """
    return _made(httpx if module is None else check_library(module))


@cache
def _made(module: ModuleType) -> Library:
    errors = errors_of(module)
    body = rebased(Body, module, _errors=errors)
    abody = rebased(AsyncBody, module, _errors=errors)
    made = {"_plain": module.Response, "_blank": blank(module), "_headers": module.Headers, "_bytes": module.ByteStream}
    response, aresponse = rebased(Response, module, **made), rebased(AsyncResponse, module, **made)
    parts = {"_parsed": parser(module.URL), "_unset": module.USE_CLIENT_DEFAULT, "_none": module.Auth()}
    parts["_parts"] = Parts(module)
    return Library(
        module,
        errors,
        rebased(MeshTransport, module, library=module, _errors=errors, _body=body, _response=response),
        rebased(AsyncMeshTransport, module, library=module, _errors=errors, _body=abody, _response=aresponse),
        rebased(Client, module, **parts),
        rebased(AsyncClient, module, **parts),
        rebased(Cookies, module),
    )


# What type checkers see of a library that is handed in, so that `mesh.client(library=httpx2)` is an httpx2.Client to
# them. A module is matched by what is in it (PEP 544), so nothing of httpx2 is needed to say this.


class ClientLibrary(Protocol[T_co]):
    """A module with a `Client`."""

    @property
    def Client(self) -> type[T_co]: ...  # noqa: D102, N802


class AsyncClientLibrary(Protocol[T_co]):
    """A module with an `AsyncClient`."""

    @property
    def AsyncClient(self) -> type[T_co]: ...  # noqa: D102, N802


class TransportLibrary(Protocol[T_co]):
    """A module with a `BaseTransport`."""

    @property
    def BaseTransport(self) -> type[T_co]: ...  # noqa: D102, N802


class AsyncTransportLibrary(Protocol[T_co]):
    """A module with an `AsyncBaseTransport`."""

    @property
    def AsyncBaseTransport(self) -> type[T_co]: ...  # noqa: D102, N802
