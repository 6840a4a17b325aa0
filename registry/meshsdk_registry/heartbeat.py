"""Keeps an instance registered: registers it, beats at a third of its TTL, registers anew when Consul forgot.

Rule 1  A registration is followed by a beat: Consul keeps an old check's status, critical included.
Rule 2  Absence of Consul is waited out, with back-off; never longer than the time to the next beat.
Rule 3  A maintenance with our own reason is a leftover of a drain whose process is gone, and is cleared at
        registration. Any other is an operator's and stays.
Rule 4  A changed output is followed by a registration: Consul tells the catalog of a new output without a new status
        only within `check_update_interval` (5 minutes), but of all it has when a service is registered.
Rule 5  While there is `trouble` the check is critical and says what it is: callers go elsewhere, operators see why.
Rule 6  After `drain` a registration anew goes into maintenance again; after `deregister` there is none.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from meshsdk_registry.consul import Consul
from meshsdk_registry.errors import Missing, RegistryError
from meshsdk_registry.index import BackOff
from meshsdk_registry.model import Registration
from meshsdk_registry.names import check_registration
from meshsdk_registry.outage import Back, Lost, Outage

__all__ = ["DRAINING", "Event", "Heartbeat", "Held", "Registered"]

DRAINING = "meshsdk: draining"
"""The reason of our own maintenance."""


@dataclass(frozen=True, slots=True)
class Registered:
    """The instance is in Consul, passing unless there is trouble. `again`: Consul had forgotten it."""

    registration: Registration
    again: bool


@dataclass(frozen=True, slots=True)
class Held:
    """An operator holds the instance in maintenance, for `reason`; callers leave it out until that ends."""

    reason: str


Event = Registered | Held | Lost | Back


class Heartbeat:
    """An instance's presence in Consul while `run` runs.

    Args:
        output: gives the check's output at each beat, such as the policy versions in force; it must not raise.
        trouble: says why callers must go elsewhere, empty while all is well; call `beat` when that changes.
        notify: told what happened, for logging; it must not raise or block.
        clock: monotonic seconds.

    Raises:
        ValueError: the registration cannot be used; see `Consul.register`.
    """

    def __init__(
        self,
        consul: Consul,
        registration: Registration,
        *,
        output: Callable[[], str] = lambda: "",
        trouble: Callable[[], str] = lambda: "",
        notify: Callable[[Event], None] = lambda _event: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self.registration = check_registration(registration)
        self._consul = consul
        self._output = output
        self._trouble = trouble
        self._notify = notify
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._outage = Outage()
        self._back_off = BackOff()
        self._shown: str | None = None  # what the catalog is known to show
        self._registered = False
        self._draining = False
        self._gone = False
        self._turn = asyncio.Lock()  # a beat under way must not register anew what `deregister` takes out

    def __repr__(self) -> str:
        state = (
            "gone" if self._gone else "draining" if self._draining else "registered" if self._registered else "absent"
        )
        return f"<Heartbeat {self.registration.id} {state}>"

    @property
    def registered(self) -> bool:
        """Whether Consul has confirmed the registration and, as far as known, not forgotten it."""
        return self._registered and not self._gone

    async def run(self) -> None:
        """Register and beat until `deregister` or cancellation. Raises nothing of Consul's: `notify` is told."""
        while not self._gone:
            await self._sleep(await self.beat())

    async def beat(self) -> float:
        """Beat once, registering where needed; return the seconds until the next beat."""
        interval = self.registration.ttl / 3
        async with self._turn:
            if self._gone:
                return 0.0
            try:
                await self._confirm()
            except RegistryError as error:
                if lost := self._outage.failed(error, self._clock()):
                    self._notify(lost)
                return min(interval, self._back_off.failed(self._rng))
            self._back_off.succeeded()
            if back := self._outage.answered(self._clock()):
                self._notify(back)
            return interval

    async def drain(self) -> None:
        """Ask callers to go elsewhere: maintenance with the reason `DRAINING`. Beats go on."""
        async with self._turn:
            self._draining = True
            if not self._gone:
                await self._consul.maintenance(self.registration.id, enable=True, reason=DRAINING)

    async def deregister(self) -> None:
        """Take the instance out of Consul and end `run` at its next beat; it ends even if this raises."""
        self._gone = True
        async with self._turn:
            await self._consul.deregister(self.registration.id)

    async def _confirm(self) -> None:
        if not self._registered:
            await self._register(again=False)
            return
        try:
            output = await self._pass()
        except Missing:  # Consul restarted without its data, or reaped us while we were away
            await self._register(again=True)
            return
        if output != self._shown:
            await self._consul.register(self.registration)
            self._shown = output

    async def _register(self, *, again: bool) -> None:
        await self._consul.register(self.registration)
        held = await self._settle_maintenance()
        await self._pass()
        self._registered = True
        self._notify(Registered(self.registration, again))
        if held:
            self._notify(Held(held))

    async def _settle_maintenance(self) -> str:
        """Apply rules 3 and 6; return an operator's reason, or an empty text."""
        checks = await self._consul.local_checks()
        name = f"_service_maintenance:{self.registration.id}"
        if name not in checks:
            if self._draining:
                await self._consul.maintenance(self.registration.id, enable=True, reason=DRAINING)
            return ""
        reason = checks[name].notes
        if reason != DRAINING:
            return reason or "no reason given"
        if not self._draining:
            await self._consul.maintenance(self.registration.id, enable=False)
        return ""

    async def _pass(self) -> str:
        if trouble := self._trouble():
            await self._consul.fail_ttl(self.registration.check_id, trouble)
            return trouble
        output = self._output()
        await self._consul.pass_ttl(self.registration.check_id, output)
        return output
