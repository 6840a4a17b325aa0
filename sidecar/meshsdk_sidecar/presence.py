"""The service's presence in Consul: registered while the sidecar lives, passing while the app is well.

Rule 1  The instance is registered once callers may come in, at the inbound port, with what that port takes now; where
        that changes, it is registered anew.
Rule 2  Its check says whether the app is well. An app that is not, or has not come yet, is critical and not missing:
        callers leave it out all the same, and operators read why in the check's output.
Rule 3  Consul is told of a change at once, not at the next heartbeat.
Rule 4  The end: callers are told (maintenance), have `wait` seconds to have seen it, and the instance leaves; unless
        another process speaks for it by then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from meshsdk.server.announce import last_word, log_presence
from meshsdk_registry import Consul, Heartbeat, Registration

__all__ = ["Presence"]

log = logging.getLogger("meshsdk.sidecar")

FOLLOW = 0.5
"""Seconds until a change of the policy's tls.mode or of the certificate is acted upon, as in SDK services."""


class Presence:
    """Keeps one instance registered.

    Args:
        told: what Consul is to be told now; None while callers must not come in.
        trouble: why the app is not well; empty while it is.
        output: what the check says of an instance that is well, such as the policy versions in force.
        why_not: why callers must not come in, where `told` is None.
    """

    def __init__(
        self,
        consul: Consul,
        *,
        told: Callable[[], Registration | None],
        trouble: Callable[[], str],
        output: Callable[[], str],
        why_not: Callable[[], str] = lambda: "",
    ) -> None:
        self._consul = consul
        self._told = told
        self._trouble = trouble
        self._output = output
        self._why_not = why_not
        self._heartbeat: Heartbeat | None = None
        self._beats: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._leaving = False
        self._handed_over = False
        self._last_words = asyncio.Lock()
        self._said = ""

    @property
    def why_absent(self) -> str:
        """Why callers are not sent to the app; empty while they are."""
        if self._leaving:
            return "draining: callers are sent elsewhere"
        if trouble := self._trouble():
            return trouble
        if self._heartbeat is None:
            return f"not registered: {self._why_not() or 'the sidecar is starting'}"
        if not self._heartbeat.registered:
            return f"not registered: Consul at {self._consul.url} has not confirmed it"
        return ""

    def turned(self) -> None:
        """The app's health has changed: tell Consul now."""
        self._changed.set()

    async def run(self) -> None:
        """Be in Consul until cancelled or `leave`."""
        try:
            while not self._leaving:
                self._follow(self._told())
                if self._changed.is_set():
                    self._changed.clear()
                    if self._heartbeat is not None:
                        await self._heartbeat.beat()
                await self._pause()
        finally:
            if not self._leaving:
                await self._rest()

    async def leave(self, wait: float) -> None:
        """Rule 4.

        Args:
            wait: seconds between telling callers and leaving; 0 where nobody is there to be called.
        """
        if self._leaving:
            return
        self._leaving = True
        heartbeat = self._heartbeat
        if heartbeat is None:
            return
        if wait:
            async with self._last_words:
                await last_word("put into maintenance", heartbeat, heartbeat.drain())
            await asyncio.sleep(wait)
        async with self._last_words:
            if not self._handed_over:
                # A beat under way would register anew what is taken out here.
                await self._rest()
                await last_word("deregistered", heartbeat, heartbeat.deregister())

    async def hand_over(self) -> None:
        """Say no more to Consul: from now on another process speaks for the instance, even if we were leaving.

        What is being said is said first, so that it is not taken for what that one says.
        """
        self._leaving = self._handed_over = True
        async with self._last_words:
            await self._rest()

    def _follow(self, told: Registration | None) -> None:
        if told is None:
            self._tell(f"not registered: {self._why_not()}")
            return
        if self._heartbeat is not None and told == self._heartbeat.registration:
            return
        if self._beats is not None:
            self._beats.cancel()
        self._heartbeat = Heartbeat(self._consul, told, output=self._output, trouble=self._trouble, notify=log_presence)
        self._beats = asyncio.create_task(self._heartbeat.run())

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(FOLLOW):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _rest(self) -> None:
        if self._beats is not None:
            self._beats.cancel()
            await asyncio.wait({self._beats})

    def _tell(self, words: str) -> None:
        if words != self._said:
            self._said = words
            log.warning("%s", words)
