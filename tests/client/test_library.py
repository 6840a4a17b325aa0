"""Which library and which engine a client is made of: chosen with words, refused with words."""

from __future__ import annotations

import json
import types
from typing import Any

import httpx
import httpx2
import pytest

from meshsdk import Mesh as RealMesh
from meshsdk import errors
from meshsdk.client import AsyncMeshTransport, MeshTransport, async_client, client, library
from meshsdk.client.engines import DEFAULT
from meshsdk.wire.aio import AsyncioEngine
from meshsdk.wire.blocking import BlockingEngine
from meshsdk.wire.httpcore_engine import AsyncHttpcoreEngine, HttpcoreEngine
from tests.client.colours import Mesh

DIRECTORY = Mesh().directory


def test_httpx_is_the_default_and_made_once() -> None:
    assert library() is library(httpx)
    assert library(httpx2) is library(httpx2)
    assert (library().MeshTransport, library().AsyncMeshTransport) == (MeshTransport, AsyncMeshTransport)
    made = library(httpx2)
    assert issubclass(made.MeshTransport, httpx2.BaseTransport)
    assert issubclass(made.AsyncMeshTransport, httpx2.AsyncBaseTransport)
    assert not issubclass(made.MeshTransport, httpx.BaseTransport)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (json, "the module json"),
        (types.ModuleType("httpx3"), "the module httpx3"),
        ("httpx2", "'httpx2'"),
        (httpx2.Client, "httpx2"),
    ],
)
def test_any_other_is_refused(given: Any, says: str) -> None:
    with pytest.raises(errors.ConfigError, match=f"library=.*{says}.*write library=httpx or library=httpx2"):
        library(given)


def test_a_mesh_makes_clients_of_either() -> None:
    with RealMesh("caller") as mesh:
        assert isinstance(mesh.client(), httpx.Client)
        assert isinstance(mesh.async_client(), httpx.AsyncClient)
        assert isinstance(mesh.client(library=httpx2, base_url="http://payments"), httpx2.Client)
        assert isinstance(mesh.async_client(library=httpx2), httpx2.AsyncClient)
        assert mesh.client(library=httpx2).timeout == httpx2.Timeout(None)
        assert isinstance(mesh.transport(library=httpx2, egress=httpx2.HTTPTransport()), httpx2.BaseTransport)
        assert isinstance(mesh.async_transport(library=httpx2), httpx2.AsyncBaseTransport)
        with pytest.raises(errors.ConfigError, match=r"must be an httpx2\.BaseTransport"):
            mesh.transport(library=httpx2, egress=httpx.HTTPTransport())  # type: ignore[arg-type]
        with pytest.raises(errors.ConfigError, match="write library=httpx"):
            mesh.async_client(library=json)  # type: ignore[call-overload]


def test_engines_by_name() -> None:
    assert DEFAULT == "meshsdk"
    assert type(MeshTransport(DIRECTORY)._engine) is BlockingEngine
    assert type(AsyncMeshTransport(DIRECTORY)._engine) is AsyncioEngine
    with RealMesh("caller") as mesh:
        assert type(mesh.transport(engine="httpcore")._engine) is HttpcoreEngine
        assert type(mesh.async_transport(engine="httpcore")._engine) is AsyncHttpcoreEngine
        assert type(mesh.client(engine="httpcore")._transport._engine) is HttpcoreEngine
        assert type(mesh.async_client(engine="httpcore")._transport._engine) is AsyncHttpcoreEngine
    made = HttpcoreEngine()
    assert MeshTransport(DIRECTORY, engine=made)._engine is made


@pytest.mark.parametrize("transport", [MeshTransport, AsyncMeshTransport])
def test_an_engine_that_is_none(transport: Any) -> None:
    with pytest.raises(errors.ConfigError, match=r"engine='aiohttp': .* write 'meshsdk' or 'httpcore'"):
        transport(DIRECTORY, engine="aiohttp")


# --- what a client would ignore -----------------------------------------------------------------------


@pytest.mark.parametrize("option", ["verify", "cert", "http1", "http2", "limits", "trust_env", "proxy", "mounts"])
@pytest.mark.parametrize("module", [httpx, httpx2], ids=lambda module: module.__name__)
def test_options_that_would_do_nothing_or_lead_around_the_mesh(module: Any, option: str) -> None:
    made = library(module)
    with pytest.raises(errors.ConfigError, match=rf"{option}=.*mesh\.transport\(.*egress={module.__name__}\.HTTPTra"):
        client(made.MeshTransport(DIRECTORY), **{option: "x"})
    with pytest.raises(
        errors.ConfigError, match=rf"{option}=.*async_transport\(.*egress={module.__name__}\.AsyncHTTPTr"
    ):
        async_client(made.AsyncMeshTransport(DIRECTORY), **{option: "x"})


def test_another_transport() -> None:
    with pytest.raises(errors.ConfigError, match=r"transport=: .*egress="):
        client(MeshTransport(DIRECTORY), transport=httpx.HTTPTransport())


def test_what_says_how_it_is_anyway_does_no_harm() -> None:
    harmless: dict[str, Any] = {"http1": True, "http2": False, "proxy": None, "mounts": None, "trust_env": False}
    client(MeshTransport(DIRECTORY), verify=True, cert=None, **harmless).close()


def test_options_nobody_knows() -> None:
    with pytest.raises(TypeError, match="retries"):
        client(MeshTransport(DIRECTORY), retries=3)
