from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import httpx
import httpx2
import pytest

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


COLOURS = [Blocking(httpx), Awaiting(httpx), Blocking(httpx2), Awaiting(httpx2)]


@pytest.fixture(params=COLOURS, ids=lambda colour: f"{type(colour).__name__}-{colour.httpx.__name__}")
def colour(request: pytest.FixtureRequest) -> Colour:
    return request.param
