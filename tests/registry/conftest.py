"""The same tests against the dev agent and a real Consul: `consul` is a client of either."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable

import pytest

from meshsdk_registry import Consul
from meshsdk_registry.agent import running_agent

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def shared_agent():
    """One dev agent for the session, as `real_consul` is."""
    with running_agent() as agent:
        yield agent


@pytest.fixture(params=["shared_agent", "real_consul"])
def server(request):
    """Something that speaks Consul's API at `.url`."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["dev_agent", "own_consul"])
def restartable(request):
    """A server with `.url`, `.stop()` and `.start(empty=True)` that no other test uses."""
    return request.getfixturevalue(request.param)


@pytest.fixture
async def consul(server) -> AsyncIterator[Consul]:
    async with Consul(server.url) as client:
        yield client


@pytest.fixture
def name() -> str:
    """A name no other test uses, for services, ids and key prefixes."""
    return f"web-{next(_numbers)}"


class Clock:
    """Virtual seconds; `sleep` passes them."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def notes() -> tuple[list[object], Callable[[object], None]]:
    """A list, and what appends to it."""
    kept: list[object] = []
    return kept, kept.append
