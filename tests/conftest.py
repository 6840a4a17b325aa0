"""Fixtures every test folder may use, a real Consul and the dev agent; and how the whole suite is run."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import meshsdk.core.exchange
from meshsdk_registry.agent import AgentThread, running_agent
from tests.real_consul import RealConsul, free_ports

__all__ = ["RealConsul", "free_ports"]

_TESTS = Path(__file__).parent

# Nothing is timed and nothing is of chance, unless more is asked for by `--hypothesis-profile=long`: 20,000 examples
# where a test does not say how many, and others each time.
settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.register_profile("long", max_examples=20_000, deadline=None, database=None)
settings.load_profile("suite")


_COMPILED = not str(meshsdk.core.exchange.__file__).endswith(".py")  # `make test-compiled`

# Folders whose tests mostly wait, for processes and for Consul.
_WAITING = {"cli", "examples", "integration", "server", "sidecar"}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the files that wait evenly among those that compute: one of each beside the other keeps a machine at work,
    and several of a kind would not.

    What hypothesis drives is not traced for coverage: unit tests cover the same, and tracing takes several times as
    long as the tests themselves.
    """
    places = _spread(list(dict.fromkeys(item.path for item in items)))
    items.sort(key=lambda item: places[item.path])
    for item in items:
        if item.get_closest_marker("hypothesis"):
            item.add_marker("no_cover")
        if _COMPILED and item.get_closest_marker("interpreted"):
            item.add_marker(pytest.mark.skip(reason="the modules are compiled"))


def _spread(files: list[Path]) -> dict[Path, float]:
    """A place from 0 to 1 for each file, in the order they have among those of their kind."""
    kinds: tuple[list[Path], list[Path]] = ([], [])
    for file in files:
        kinds[file.relative_to(_TESTS).parts[0] in _WAITING].append(file)
    return {file: (n + 0.5) / len(kind) for kind in kinds for n, file in enumerate(kind)}


def pytest_collection_finish() -> None:
    """Leave what was imported and collected out of every later collection of garbage.

    It is a million objects that live to the end; tests that collect by hand took 0.1 s each for looking through them.
    """
    gc.collect()
    gc.freeze()


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
