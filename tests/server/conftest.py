"""Fixtures of the served side: an intake whose clock and events the test holds."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from meshsdk.server.inbound import Intake
from meshsdk.telemetry.requests import RequestEnded, RequestStarted
from meshsdk.telemetry.tracing import Tracing


@dataclass
class Told:
    """What telemetry was told."""

    events: list[RequestStarted | RequestEnded] = field(default_factory=list)

    def __call__(self, event: RequestStarted | RequestEnded) -> None:
        self.events.append(event)

    @property
    def ended(self) -> list[RequestEnded]:
        return [event for event in self.events if isinstance(event, RequestEnded)]

    def only(self) -> RequestEnded:
        """The one request there was: started once, ended once."""
        assert [type(event) for event in self.events] == [RequestStarted, RequestEnded]
        return self.ended[0]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def intake(told: Told) -> Intake:
    return Intake(clock=time.monotonic, tracing=Tracing(), sink=told)


@pytest.fixture
def make_intake(told: Told) -> Any:
    return lambda **more: Intake(clock=time.monotonic, tracing=Tracing(), sink=told, **more)
