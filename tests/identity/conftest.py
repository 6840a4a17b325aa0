"""A CA for the session, as making keys takes time; a wall clock that stands; identities of hand-given material."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from datetime import datetime, timedelta
from typing import Any

import pytest

from meshsdk.discovery.background import Background
from meshsdk.identity import Identity, Material, Trouble
from meshsdk.identity.events import Event
from meshsdk.identity.providers.provider import Publish
from tests.identity.certificates import NOW, Pair, issue


@pytest.fixture(scope="session")
def ca() -> Pair:
    return issue("test ca")


class WallClock:
    """Stands until told to move on."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **by: float) -> None:
        self.now += timedelta(**by)


@pytest.fixture
def wall() -> WallClock:
    return WallClock()


class Nowhere:
    """In the place of the background loop: nothing runs, so the test itself publishes and ticks."""

    is_current = True

    def __init__(self) -> None:
        self.submitted = 0

    def submit(self, function: Callable[[], Coroutine[Any, Any, None]], /) -> Future[None]:
        self.submitted += 1
        return Future()


@pytest.fixture
def nowhere() -> Nowhere:
    return Nowhere()


class Silent:
    """A provider that waits for the test to publish."""

    async def run(self, publish: Publish) -> None:
        await asyncio.Event().wait()


class Scripted:
    """A provider that publishes what it is told to, in each run from the start, and then waits."""

    def __init__(self, *found: Material | Trouble | Exception) -> None:
        self.found = found
        self.runs = 0

    async def run(self, publish: Publish) -> None:
        self.runs += 1
        for one in self.found:
            if isinstance(one, Exception):
                raise one
            publish(one)
        await asyncio.Event().wait()


class Held(Identity):
    """An identity with nothing in the background, which keeps what it told."""

    def __init__(self, wall: WallClock, loop: Nowhere, **options: Any) -> None:
        super().__init__(Silent(), loop, now=wall, **options)
        self.told: list[Event] = []
        self.listen(self.told.append)


@pytest.fixture
def held(wall: WallClock, nowhere: Nowhere) -> Held:
    return Held(wall, nowhere)


@pytest.fixture
def background() -> Iterator[Background]:
    found = Background("test identity")
    yield found
    found.stop(5)
