"""Consul's intentions for this process's own service, followed on the background loop.

Rule 1  What Consul said last stays in force while Consul is away, for as long as it takes.
Rule 2  Before its first answer there are none. Who opens a port waits for the gate: it opens when they are known, and
        when Consul failed or kept silent for too long. Then what the disk remembers is in force.
Rule 3  What holds where none is about a caller is Consul's to say, too: the default of its ACL system, asked for at the
        start and after each of its absences, as a change takes a restart. Where it does not tell, callers may pass.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import aclosing
from pathlib import Path

from meshsdk.core.intentions import Intentions
from meshsdk.core.request import ANYONE
from meshsdk.discovery.background import Background
from meshsdk.discovery.disk import Disk
from meshsdk.discovery.gate import Gate
from meshsdk.discovery.keeper import Keeper
from meshsdk.discovery.memory import KeptIntentions, Memory
from meshsdk_registry import (
    Back,
    Changed,
    Consul,
    Denied,
    Intention,
    Lost,
    RegistryError,
    Rejected,
    watch_intentions,
)

__all__ = ["OwnIntentions"]

_log = logging.getLogger("meshsdk.discovery")

PAUSE = 1.0
"""Seconds until something that failed without a word about intentions is tried again."""


class OwnIntentions:
    """Who may call this service, as Consul's intentions say.

    Args:
        consul: makes a client of Consul; called on the background loop.
        service: our own name.
        background: where the watch runs; it begins with the first question.
        default_allow: what holds where none is about a caller; None asks Consul (rule 3).
        state_dir: where the last known ones are kept for a start without Consul; None keeps nothing.
        first_wait: seconds after which Consul has kept silent for too long.
    """

    def __init__(
        self,
        consul: Callable[[], Consul],
        service: str,
        *,
        background: Background,
        default_allow: bool | None = None,
        state_dir: Path | None = None,
        first_wait: float = 2.0,
    ) -> None:
        self._consul = consul
        self._service = service
        self._background = background
        self._set_default = default_allow
        self._state_dir = state_dir
        self._first_wait = first_wait
        self._entries: tuple[Intention, ...] = ()
        self._default = ""  # as Consul says
        self._assumed = False
        self._heard = False  # of Consul, in this process or the one that it was forked from
        self._refusals: tuple[str, ...] = ()
        self._intentions: Intentions | None = None
        self._publish()
        self.forked()
        _all.add(self)

    def forked(self) -> None:
        """What each process starts with; a forked child keeps what its parent knew."""
        self._lock = threading.Lock()
        self._life: Future[None] | None = None
        self._gate = Gate()
        self._known = False
        self._answered = False  # Consul told the intentions to this process
        self._default_answered = self._set_default is not None

    def __repr__(self) -> str:
        return f"<OwnIntentions of {self._service!r}: {'some' if self._intentions else 'none'}>"

    @property
    def name(self) -> str:
        """Under which they are remembered: beside what callers of the service remember of it."""
        return f"{self._service}.intentions"

    def current(self) -> Intentions | None:
        """Those in force; None where none is about this service and the default is to allow."""
        if self._life is None:
            self._start()
        return self._intentions

    def gate(self) -> Gate:
        """Return what opens when they are known, or nobody will tell them soon; begins to follow them."""
        self.current()
        return self._gate

    async def await_known(self, seconds: float) -> None:
        """Wait for the gate, at most `seconds`; from any event loop."""
        await self.gate().await_open(seconds)

    def known(self) -> bool:
        """Whether Consul or the disk has said what they are, if only that there are none."""
        return self._known

    def close(self) -> None:
        """Stop following; what is known stays in force."""
        if self._life is not None:
            self._life.cancel()

    def _start(self) -> None:
        with self._lock:
            if self._life is None:
                self._life = self._background.submit(self._live)

    # --- on the background loop -------------------------------------------------------------------------

    async def _live(self) -> None:
        while True:
            try:
                await self._follow_both()
            except Exception:  # noqa: BLE001  # a mistake of ours must neither end it nor be unseen
                _log.exception("following the intentions broke off; it goes on in %g s", PAUSE)
            await asyncio.sleep(PAUSE)

    async def _follow_both(self) -> None:
        consul = await self._client()
        disk = Disk(self._state_dir, f"{consul.url} {consul.datacenter or ''}".strip())
        self._remembered = disk.load(self.name)
        self._keeper = Keeper(disk, lambda _: self._memory())
        self._returned = asyncio.Event()
        silence = asyncio.get_running_loop().call_later(self._first_wait * 0.95, self._give_up)
        try:
            async with asyncio.TaskGroup() as following:
                following.create_task(self._keeper.run())
                following.create_task(self._follow(consul))
                if self._set_default is None:
                    following.create_task(self._follow_default(consul))
        finally:
            silence.cancel()
            await consul.aclose()

    async def _client(self) -> Consul:
        while True:
            try:
                return self._consul()
            except (OSError, ValueError) as error:  # a token file or certificate that cannot be read
                _log.warning("no client of Consul could be made, trying again in %g s: %s", PAUSE, error)
                self._gate.open()
            await asyncio.sleep(PAUSE)

    async def _follow(self, consul: Consul) -> None:
        async with aclosing(watch_intentions(consul)) as events:
            async for event in events:
                self._hear(event)

    def _hear(self, event: Changed[tuple[Intention, ...]] | Lost | Back) -> None:
        match event:
            case Changed(answer):
                about = (entry for entry in answer.value if entry.destination in {self._service, ANYONE})
                self._entries = tuple(entry for entry in about if not entry.foreign)
                self._answered = self._heard = True
                self._learned()
            case Lost(error, _):
                if isinstance(error, Denied | Rejected):
                    _log.warning("Consul refuses to tell of intentions, the last known stay in force: %s", error)
                else:  # the services' own watches tell of Consul's absence
                    _log.debug("intentions cannot be asked for: %s", error)
                self._give_up()
            case Back():
                _log.debug("intentions are told again")
                self._returned.set()

    async def _follow_default(self, consul: Consul) -> None:
        while True:
            self._returned.clear()
            try:
                default = (await consul.agent_info()).intention_default
            except (Denied, Rejected) as error:
                self._assume(str(error))
            except RegistryError as error:  # the watch of the intentions has failed, too, or soon will
                _log.debug("the default of intentions cannot be asked for: %s", error)
                await asyncio.sleep(PAUSE)
                continue
            else:
                if default:
                    self._default = default
                else:
                    self._assume("its agent does not say")
            self._default_answered = True
            self._learned()
            await self._returned.wait()

    def _assume(self, why: str) -> None:
        """Go on with what was known; the usual token under a default of deny may not read the agent's settings."""
        if not self._assumed:
            self._assumed = True
            _log.warning(
                "where no intention is about a caller, %r holds, because Consul's own default is not known (%s): give"
                " the token agent:read, or set MESH_INTENTION_DEFAULT to what acl.default_policy is in Consul",
                self._default or "allow", why,
            )  # fmt: skip

    def _learned(self) -> None:
        """Consul told something of it; entries without their default, remembered, would let in whom it denies."""
        self._publish()
        if self._answered and self._default_answered:
            self._keeper.mark(self.name)
            self._known = True
            self._gate.open()

    def _give_up(self) -> None:
        """Consul failed or kept silent: what it has not told is taken from the disk, where that remembers anything."""
        if self._gate.is_open:
            return
        kept = self._remembered.intentions if self._remembered is not None else None
        if kept is not None:
            self._entries = self._entries if self._heard else kept.entries
            self._default = self._default or kept.default
            self._publish()
        self._known = self._heard or kept is not None
        self._gate.open()

    def _memory(self) -> Memory | None:
        """What is worth keeping: only what Consul said."""
        return Memory(intentions=KeptIntentions(self._entries, self._default)) if self._answered else None

    def _publish(self) -> None:
        default_allow = self._default != "deny" if self._set_default is None else self._set_default
        made = Intentions(self._entries, self._service, default_allow=default_allow)
        if made.refusals != self._refusals:
            for refusal in made.refusals:
                _log.warning("an intention cannot be judged and never lets pass: %s", refusal)
        self._refusals = tuple(made.refusals)
        self._intentions = made if self._entries or not default_allow else None


_all: weakref.WeakSet[OwnIntentions] = weakref.WeakSet()


def _after_fork() -> None:
    for intentions in list(_all):
        intentions.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
