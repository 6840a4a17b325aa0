"""Large bodies, half-read ones and cancelled ones through mesh clients: nothing is held afterwards."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from meshsdk import Mesh
from tests.integration.programs import ConsulView, Starter, until

MEBIBYTES = 20
PIECE = b"y" * 65536
COUNT = MEBIBYTES * 16


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def in_flight(mesh: Mesh, service: str) -> float:
    cluster = mesh.directory.peek(service)
    assert cluster is not None
    return cluster.in_flight


@pytest.fixture(scope="module")
def shop(consul: ConsulView, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two instances behind one name, for the tests of this file."""
    starter = Starter(consul, tmp_path_factory.mktemp("shop"))
    for _ in range(2):
        starter.uvicorn("it-streaming")
    starter.wait()
    yield "it-streaming"
    starter.end()


def test_sync(mesh: Mesh, shop: str) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(COUNT):
            yield PIECE

    with mesh.client() as warm:
        warm.get(f"http://{shop}/who")
    before = open_files()
    with mesh.client() as http:
        assert http.post(f"http://{shop}/upload", content=body()).json() == {"bytes": MEBIBYTES << 20}
        with http.stream("GET", f"http://{shop}/download/{MEBIBYTES}") as answer:
            assert in_flight(mesh, shop) == 1
            assert sum(len(piece) for piece in answer.iter_raw()) == MEBIBYTES << 20
        for _ in range(8):
            with http.stream("GET", f"http://{shop}/download/{MEBIBYTES}") as answer:
                assert len(next(answer.iter_raw())) > 0
        assert in_flight(mesh, shop) == 0
        assert http.get(f"http://{shop}/who").status_code == 200
        assert open_files() <= before + 4, "half-read connections are closed, whole ones kept"
    until(lambda: open_files() <= before, 3, lambda: (open_files(), before))


async def test_asyncio(mesh: Mesh, shop: str) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(COUNT):
            yield PIECE

    async with mesh.async_client() as warm:
        await warm.get(f"http://{shop}/who")
    before = open_files()
    async with mesh.async_client() as http:
        answer = await http.post(f"http://{shop}/upload", content=body())
        assert answer.json() == {"bytes": MEBIBYTES << 20}
        async with http.stream("GET", f"http://{shop}/download/{MEBIBYTES}") as answer:
            assert in_flight(mesh, shop) == 1
            assert sum([len(piece) async for piece in answer.aiter_raw()]) == MEBIBYTES << 20
        for _ in range(8):
            async with http.stream("GET", f"http://{shop}/download/{MEBIBYTES}") as answer:
                assert len(await anext(answer.aiter_raw())) > 0
        assert in_flight(mesh, shop) == 0
        await asyncio.gather(*(cancelled(http, shop, delay / 400) for delay in range(24)))
        assert in_flight(mesh, shop) == 0
        assert (await http.get(f"http://{shop}/who")).status_code == 200
        assert open_files() <= before + 40
    async with asyncio.timeout(5):  # the ends of TLS take turns of this loop
        while open_files() > before:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def cancelled(http: httpx.AsyncClient, service: str, after: float) -> None:
    """Read a long body for a moment, as one whose own caller goes away."""

    async def reading() -> None:
        async with http.stream("GET", f"http://{service}/download/400") as answer:
            async for _ in answer.aiter_raw():
                pass

    task = asyncio.create_task(reading())
    await asyncio.sleep(after)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


def test_upload_that_breaks_is_the_callers(mesh: Mesh, shop: str) -> None:
    """The generator raises amid the body: its own error comes out, and the slot is free."""

    def body() -> Iterator[bytes]:
        yield PIECE
        raise LookupError("the file is gone")

    with mesh.client() as http:
        with pytest.raises(LookupError, match="the file is gone"):
            http.post(f"http://{shop}/upload", content=body())
        assert in_flight(mesh, shop) == 0
        assert http.get(f"http://{shop}/who").status_code == 200


def test_server_is_left_with_nothing(starter: Starter, mesh: Mesh, service: str) -> None:
    program = starter.uvicorn(service)
    starter.wait()
    with mesh.client() as http:
        for _ in range(5):
            with http.stream("GET", f"http://{service}/download/{MEBIBYTES}") as answer:
                next(answer.iter_raw())
        until(lambda: program.metric("http_server_active_requests") == 0)
        assert http.get(f"http://{service}/who").status_code == 200
