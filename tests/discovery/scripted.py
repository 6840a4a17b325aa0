"""A Consul that says what a test wants, and what tests of discovery share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from meshsdk_registry import Answer, Health, Instance, KeyValue, RegistryError


class Scripted:
    """Stands in for `Consul`: blocks until the answer changes, or fails as the test says. Use from any thread."""

    url = "http://scripted:8500"
    datacenter = None

    def __init__(self) -> None:
        self.failure: RegistryError | None = None
        self.policy_failure: RegistryError | None = None
        self.hanging = False
        self.made = 0
        self.closed = 0
        self.asked: list[str] = []
        self._index = 1
        self._instances: dict[str, tuple[Instance, ...]] = {}
        self._keys: tuple[KeyValue, ...] = ()

    def __call__(self) -> Scripted:
        self.made += 1
        return self

    def place(self, service: str, *instances: Instance) -> None:
        self._instances[service] = instances
        self._index += 1

    def write(self, **documents: bytes | str) -> None:
        values = ((name, text.encode() if isinstance(text, str) else text) for name, text in documents.items())
        self._index += 1
        self._keys = tuple(KeyValue(f"mesh/policy/{name}", text, self._index) for name, text in values)

    async def instances(self, service: str, *, index: int, wait: float, datacenter: str | None) -> Answer[Any]:
        if index == 0:
            self.asked.append(service)
        return await self._answer(index, lambda: self._instances.get(service, ()), lambda: self.failure)

    async def keys(self, prefix: str, *, index: int, wait: float) -> Answer[Any]:
        assert prefix == "mesh/policy/"
        return await self._answer(index, lambda: self._keys, lambda: self.failure or self.policy_failure)

    async def aclose(self) -> None:
        self.closed += 1

    async def _answer(
        self, index: int, value: Callable[[], Any], failure: Callable[[], RegistryError | None]
    ) -> Answer[Any]:
        while True:
            if (error := failure()) is not None:
                raise error
            if not self.hanging and index != self._index:
                return Answer(value(), self._index)
            await asyncio.sleep(0.002)


def instance(number: int = 1, *, service: str = "payments", **facts: Any) -> Instance:
    """An instance at port 8000 + number."""
    known: dict[str, Any] = {"node": "n1", "address": "10.0.0.1", "port": 8000 + number, "health": Health.PASSING}
    return Instance(id=f"{service}-{number}", service=service, **known | facts)


def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait for what another thread brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.002)
