"""The keys in force in this process, and tokens judged by them.

Rule 1  A request never waits for keys: it is judged by those that are known now. Who opens a port waits for the first
        ones (`await_known`), a bounded time.
Rule 2  Locations are followed from the first question about them until the policy no longer names them.
Rule 3  A forked child keeps the keys its parent knew, and follows by itself.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, wait
from typing import Any, Protocol

from meshsdk.core.tokens import BadToken, Jwt
from meshsdk.tokens.keys import KeySet
from meshsdk.tokens.source import KeySource
from meshsdk.tokens.verify import verify

__all__ = ["Loop", "Source", "Tokens"]


class Loop(Protocol):
    """Where locations are followed: `meshsdk.discovery.background.Background`."""

    def submit(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Future[Any]:
        """Run `function(*args)` as a task; from any thread."""
        ...

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Call it on the loop; from any thread."""
        ...


class Source(Protocol):
    """Tells the keys of one location; `KeySource` is one."""

    def ask(self) -> None:
        """Look again soon."""
        ...

    async def run(self) -> None:
        """Tell of each look, until cancelled."""
        ...


class _Followed:
    """One location: what is known of it, and the task that follows it."""

    def __init__(self, keys: KeySet | None = None) -> None:
        self.keys = keys
        self.looks = 0
        self.tried: Future[None] = Future()
        self.source: Source | None = None
        self.task: Future[Any] | None = None
        self.asked = False

    def hear(self, keys: KeySet | None) -> None:
        self.asked = False
        if keys is not None:
            self.keys = keys
        self.looks += 1  # last, as another thread reads both
        if not self.tried.done():
            self.tried.set_result(None)


class Tokens:
    """Judges tokens.

    Args:
        background: where keys are read.
        rng: chance.
        source: makes what follows a location, and tells each key set that it has read, or None where it could not; a
            `KeySource` where it is left out.
        timing: `period`, `gap` and `file_period` of `KeySource`, in seconds.
    """

    def __init__(
        self,
        background: Loop,
        rng: random.Random | None = None,
        *,
        source: Callable[[str, Callable[[KeySet | None], object]], Source] | None = None,
        **timing: float,
    ) -> None:
        self._background = background
        self._rng = rng or random.Random()
        self._source = source or self._key_source
        self._timing = timing
        self._lock = threading.Lock()
        self._known: dict[str, _Followed] = {}
        self._jwt: Jwt | None = None
        _all.add(self)

    def __repr__(self) -> str:
        return f"<Tokens by the keys at {', '.join(self._known) or 'nowhere'}>"

    def follow(self, jwt: Jwt | None) -> None:
        """Read the keys that a policy names, and leave off those it does not name; costs nothing while it is the same.

        Args:
            jwt: the policy in force; None for one without tokens.
        """
        if jwt is self._jwt:
            return
        with self._lock:
            wanted = {issuer.jwks for issuer in jwt.issuers} if jwt else set()
            for location in self._known.keys() - wanted:
                self._stop(self._known[location])
            self._known = {location: self._followed(location) for location in wanted}
            self._jwt = jwt

    def claims(self, jwt: Jwt, token: str) -> Mapping[str, Any]:
        """What a token says, once it is found good.

        Raises:
            BadToken: it is not, or the keys are not known yet.
        """
        self.follow(jwt)
        try:
            return verify(token, jwt, self._keys, self.ask)
        except ImportError:  # the source's log says what to install
            raise BadToken("unavailable") from None

    async def await_known(self, jwt: Jwt | None, seconds: float) -> None:
        """Wait until each location was read or found unreadable once, at most `seconds`; on any asyncio loop."""
        self.follow(jwt)
        waiting = [asyncio.wrap_future(followed.tried) for followed in self._known.values()]
        if waiting:
            await asyncio.wait(waiting, timeout=seconds)

    def wait_known(self, jwt: Jwt | None, seconds: float) -> None:
        """The same, blocking the thread."""
        self.follow(jwt)
        wait([followed.tried for followed in self._known.values()], timeout=seconds)

    def looks(self) -> dict[str, tuple[int, bytes]]:
        """How often each location was looked at, and the key set that was read last; for others who judge by them."""
        known = tuple(self._known.items())
        return {location: (each.looks, each.keys.text if each.keys else b"") for location, each in known if each.looks}

    def close(self) -> None:
        """Stop following; what is known stays in force."""
        with self._lock:
            for followed in self._known.values():
                self._stop(followed)

    def _followed(self, location: str) -> _Followed:
        followed = self._known.get(location) or _Followed()
        if followed.task is None:
            followed.task = self._background.submit(self._run, location, followed)
        return followed

    def _key_source(self, location: str, publish: Callable[[KeySet | None], object]) -> Source:
        return KeySource(location, publish, rng=self._rng, **self._timing)

    async def _run(self, location: str, followed: _Followed) -> None:
        followed.source = self._source(location, followed.hear)
        await followed.source.run()

    def _stop(self, followed: _Followed) -> None:
        if followed.task is not None:
            followed.task.cancel()

    def _keys(self, location: str) -> KeySet | None:
        followed = self._known.get(location)  # another thread may obey a later policy by now
        return followed.keys if followed else None

    def ask(self, location: str) -> None:
        """Look for keys again soon: once per look, however many tokens want it, as each would wake the loop."""
        followed = self._known.get(location)
        if followed is not None and followed.source is not None and not followed.asked:
            followed.asked = True
            self._background.call_soon(followed.source.ask)

    def _forked(self) -> None:
        self._lock = threading.Lock()
        self._jwt = None
        self._known = {location: _Followed(known.keys) for location, known in self._known.items()}


_all: weakref.WeakSet[Tokens] = weakref.WeakSet()


def _after_fork() -> None:
    for tokens in list(_all):
        tokens._forked()  # noqa: SLF001  # this module's own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
