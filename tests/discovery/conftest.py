"""Virtual seconds, a scripted Consul, and directories that are closed at the test's end."""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from meshsdk.discovery import Background, Directory
from tests.discovery.scripted import Scripted


class Clock:
    """Virtual seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def consul() -> Scripted:
    return Scripted()


@pytest.fixture
def background() -> Iterator[Background]:
    found = Background("test")
    yield found
    found.stop(5)


@pytest.fixture
def directory(background, consul) -> Iterator[Callable[..., Directory]]:
    """Makes directories of the scripted Consul, or of another one given."""
    made: list[Directory] = []

    def make(source: Any = None, caller: str = "checkout", **options: Any) -> Directory:
        options = {"background": background, "sink": lambda event: None, "rng": random.Random(1)} | options
        made.append(Directory(source or consul, caller, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


_numbers = itertools.count(1)


@pytest.fixture
def service() -> str:
    """A service no other test uses, for the Consul that the session shares."""
    return f"pay-{next(_numbers)}"
