"""The public names as a user's type checker sees them; checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_type

import httpx
import httpx2

import meshsdk
from meshsdk import DeadlineExceeded, Mesh, MeshError


def sync_caller(mesh: Mesh) -> None:
    with mesh.client(headers={"x": "1"}) as http:
        assert_type(http, httpx.Client)
        assert_type(http.get("http://payments/charge"), httpx.Response)
    assert_type(httpx.Client(transport=mesh.transport()), httpx.Client)


async def async_caller(mesh: Mesh) -> None:
    async with mesh, mesh.async_client() as http:
        assert_type(http, httpx.AsyncClient)
        try:
            await http.get("http://payments/charge")
        except DeadlineExceeded as error:
            assert_type(error.service, str)
            assert_type(error.attempts, int)
            assert_type(error.endpoint, str | None)
    assert_type(httpx.AsyncClient(transport=mesh.async_transport()), httpx.AsyncClient)


def of_the_other_library(mesh: Mesh) -> None:
    assert_type(mesh.client(library=httpx2), httpx2.Client)
    assert_type(mesh.async_client(library=httpx2, base_url="http://payments"), httpx2.AsyncClient)
    httpx2.Client(transport=mesh.transport(library=httpx2, egress=httpx2.HTTPTransport(http2=True)))
    httpx2.AsyncClient(transport=mesh.async_transport(library=httpx2, engine="httpcore"))
    assert_type(mesh.client(library=httpx2, engine=httpx2.HTTPTransport()), httpx2.Client)
    assert_type(mesh.client(library=httpx), httpx.Client)
    mesh.client(engine="quick")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def on_other_engines(mesh: Mesh) -> None:
    assert_type(mesh.client(engine="httpcore"), httpx.Client)
    assert_type(mesh.client(engine=httpx.HTTPTransport(http1=False, http2=True)), httpx.Client)
    assert_type(mesh.async_client(engine=httpx.AsyncHTTPTransport(proxy="http://proxy:3128")), httpx.AsyncClient)
    mesh.transport().warm("payments", connections=2)
    await mesh.async_transport().warm("payments")


def served(mesh: Mesh) -> None:
    assert_type(mesh.deadline(), float | None)
    assert_type(mesh.peer(), str | None)
    assert_type(mesh.claims(), Mapping[str, Any] | None)
    for status in mesh.status():
        assert_type(status.service, str)
        assert_type(status.age, float)


def errors_are_one_tree(error: meshsdk.CallError) -> MeshError:
    return error
