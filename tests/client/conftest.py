from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import httpx
import httpx2
import pytest

from meshsdk.client.engines import AWAITING, BLOCKING
from tests.client.colours import Awaiting, Blocking, Colour
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


# Both engines under httpx, the default one under httpx2 too.
COLOURS: list[Colour] = [
    *(Blocking(httpx, engine) for engine in BLOCKING),
    *(Awaiting(httpx, engine) for engine in AWAITING),
    Blocking(httpx2),
    Awaiting(httpx2),
]


@pytest.fixture(params=COLOURS, ids=lambda colour: f"{type(colour).__name__}-{colour.httpx.__name__}-{colour.engine}")
def colour(request: pytest.FixtureRequest) -> Colour:
    return request.param
