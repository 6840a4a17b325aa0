from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from meshsdk.wire.aio.gathered import gather
from tests.sidecar.proxy.rig import Rig


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test of this folder runs on both loops, gathering as a sidecar does, but for those marked for one."""
    return {"asyncio": lambda: gather(asyncio.new_event_loop()), "uvloop": lambda: gather(uvloop.new_event_loop())}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest way on the loop that sidecars run on only: what differs by loop is found on the shorter ones."""
    items[:] = [item for item in items if not _twice(item)]


def _twice(item: pytest.Item) -> bool:
    return "pair" in item.name and "asyncio" in item.name and item.path.parent == Path(__file__).parent


@pytest.fixture
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Awaitable[Rig]]]:
    """Opens rigs that end with the test."""
    secured = "way" in request.fixturenames and request.getfixturevalue("way") == "pair"
    async with contextlib.AsyncExitStack() as stack:

        async def opened(*args: object, **options: object) -> Rig:
            rig = await Rig(*args, secured=secured, **options).open()  # type: ignore[arg-type]
            stack.push_async_callback(rig.close)
            return rig

        yield opened


@pytest.fixture
async def rig(make: Callable[..., Awaitable[Rig]]) -> Rig:
    return await make()


@pytest.fixture(params=["out", "in", "pair"])
def way(request: pytest.FixtureRequest) -> str:
    """Through the sidecar of the caller, that of the called, or both and mutual TLS between."""
    return request.param
