from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

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


@pytest.fixture(params=[Blocking, Awaiting])
def colour(request: pytest.FixtureRequest) -> Colour:
    return request.param()
