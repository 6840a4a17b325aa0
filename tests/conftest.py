"""Fixtures every test folder may use: a real Consul, and the dev agent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshsdk_registry.agent import AgentThread, running_agent
from tests.real_consul import RealConsul, free_ports

__all__ = ["RealConsul", "free_ports"]


@pytest.fixture(scope="session")
def real_consul() -> Iterator[RealConsul]:
    """One Consul for the whole session: use names of your own, and leave it running."""
    with RealConsul() as consul:
        yield consul


@pytest.fixture
def own_consul() -> Iterator[RealConsul]:
    """A Consul of the test's own, running: for tests that stop it."""
    with RealConsul() as consul:
        yield consul


@pytest.fixture
def dev_agent() -> Iterator[AgentThread]:
    """A dev agent of the test's own on a thread of its own: `.url`, `.stop()`, `.start(empty=True)`."""
    with running_agent() as agent:
        yield agent
