"""Fixtures of the product as a whole: one real Consul, meshes, servers in processes and in threads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from meshsdk import Mesh
from tests.integration.programs import ConsulView, Site, Starter
from tests.real_consul import RealConsul


@pytest.fixture(scope="session")
def consul(real_consul: RealConsul) -> ConsulView:
    """The session's Consul: every test takes service names of its own."""
    return ConsulView(real_consul.url)


@pytest.fixture
def service(request: pytest.FixtureRequest) -> str:
    """A service name nobody else uses."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    return f"it-{name[:44].strip('-')}"


@pytest.fixture
def make_mesh(tmp_path: Path) -> Iterator[Callable[..., Mesh]]:
    """Makes meshes of processes that only call; they are closed with the test."""
    with ExitStack() as stack:

        def making(consul: str, **settings: Any) -> Mesh:
            given = {"state_dir": tmp_path / "caller", "runtime_dir": tmp_path / "run", **settings}
            return stack.enter_context(Mesh("caller", consul_url=consul, **given))

        yield making


@pytest.fixture
def mesh(make_mesh: Callable[..., Mesh], consul: ConsulView) -> Mesh:
    return make_mesh(consul.url)


@pytest.fixture
def starter(tmp_path: Path, consul: ConsulView) -> Iterator[Starter]:
    """Starts programs; they are ended with the test."""
    starting = Starter(consul, tmp_path)
    yield starting
    starting.end()


@pytest.fixture
def site() -> Iterator[Callable[..., Site]]:
    """Serves ASGI applications under uvicorn for as long as the test runs."""
    with ExitStack() as stack:
        yield lambda app, host="127.0.0.1": stack.enter_context(Site(app, host))
