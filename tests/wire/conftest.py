from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from tests.wire.callers import ALL, OURS
from tests.wire.scripted import Script, Server


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers that end with the test."""
    with contextlib.ExitStack() as stack:

        def start(script: Script, **options: object) -> Server:
            server = Server(script, **options)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture(params=ALL)
async def wire(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Each engine on each loop, httpcore's too."""
    caller, engine = ALL[request.param]
    wire = caller(engine)
    yield wire
    await wire.end()


@pytest.fixture(params=OURS)
async def ours(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Each engine of our own on each loop."""
    caller, engine = OURS[request.param]
    ours = caller(engine)
    yield ours
    await ours.end()


@pytest.fixture(params=OURS)
async def ours_with(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Any]]:
    """Makes an engine of our own with options."""
    caller, engine = OURS[request.param]
    made: list[Any] = []

    def make(**options: Any) -> Any:
        made.append(caller(engine, **options))
        return made[-1]

    yield make
    for wire in made:
        await wire.end()
