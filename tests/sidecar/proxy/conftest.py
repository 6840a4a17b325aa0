from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvloop

from tests.sidecar.proxy.rig import Rig


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test of this folder runs on both loops, but for those that are marked for one."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Awaitable[Rig]]]:
    """Opens rigs that end with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def opened(*args: object, **options: object) -> Rig:
            rig = await Rig(*args, **options).open()  # type: ignore[arg-type]
            stack.push_async_callback(rig.close)
            return rig

        yield opened


@pytest.fixture
async def rig(make: Callable[..., Awaitable[Rig]]) -> Rig:
    return await make()


@pytest.fixture(params=["out", "in"])
def way(request: pytest.FixtureRequest) -> str:
    """Through the sidecar of the caller, or that of the called."""
    return request.param
