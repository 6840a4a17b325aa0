"""What a control process and its workers tell each other, over a socketpair that nobody else can reach.

Rule 1  Each message is its length in four bytes and a pickle. Both ends are processes of one version, started one by
        the other, so what comes is what was sent, and pickle may be trusted.
Rule 2  Messages arrive in the order they were sent: what a worker is to know before it listens is told before.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from meshsdk.core.model import Snapshot
    from meshsdk.core.plan import Plan
    from meshsdk.errors import MeshError
    from meshsdk.identity.events import Trouble
    from meshsdk.identity.material import Material
    from meshsdk_sidecar.proxy.plane import Parts

__all__ = [
    "AskKeys",
    "Begin",
    "Beside",
    "Busy",
    "Do",
    "Done",
    "Forget",
    "Identified",
    "Keys",
    "Link",
    "Own",
    "Told",
    "Watch",
]

_LENGTH = struct.Struct(">I")


# --- from the control process -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """The first message.

    Attributes:
        config: the file; a sidecar's where `make` is None.
        service: our own name, as the settings have it.
        listening: numbers of the listening sockets, by listener.
        workers: how many processes share the limits.
        defaults: the policy of destinations outside the mesh.
        identity: whether there may be a certificate.
        first_wait, idle, drain: seconds: `first_wait`, `idle_watch` and `drain_timeout` of the settings.
        explain, forward: `explain_denials` and `forward_client_cert` of the settings.
        level: from where on is logged.
        number: which of the workers it is, from 0.
        make: makes what carries, of this, what it stands on and what tells the value of the last `Beside`; None for a
            sidecar's plane.
        memory: number of a descriptor of memory that all share; None where `make` needs none.
    """

    config: Any
    service: str
    listening: Mapping[str, Sequence[int]]
    workers: int
    defaults: Plan
    identity: bool
    first_wait: float
    idle: float
    drain: float
    explain: bool
    forward: bool
    level: int
    number: int = 0
    make: Callable[[Begin, Parts, Callable[[], Any]], Any] | None = None
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Own:
    """The policy and Consul's intentions in force for the service itself."""

    plan: Plan
    intentions: Any


@dataclass(frozen=True, slots=True)
class Identified:
    """The certificate in force, or why there is none."""

    found: Material | Trouble


@dataclass(frozen=True, slots=True)
class Beside:
    """What those need to know who are no sidecars: of a gateway, its public certificates."""

    value: Any


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of tokens, as `meshsdk.tokens.keeper.Tokens.looks` tells them."""

    looks: Mapping[str, tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of a service that is watched; None where it is as it was.

    Attributes:
        error: why nothing is known; the service is not watched then.
    """

    service: str
    snapshot: Snapshot | None = None
    plan: Plan | None = None
    error: MeshError | None = None


@dataclass(frozen=True, slots=True)
class Do:
    """Something to do, answered by `Done` with the same number."""

    number: int
    what: str
    argument: Any = None


# --- from a worker ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Watch:
    """A service is called from now on: `Told` is to follow, now and at each change."""

    service: str


@dataclass(frozen=True, slots=True)
class Forget:
    """It is not called any more."""

    service: str


@dataclass(frozen=True, slots=True)
class AskKeys:
    """A token names a key that is not among those of this location: look there again."""

    location: str


@dataclass(frozen=True, slots=True)
class Done:
    """The answer to `Do`."""

    number: int
    value: Any = None


@dataclass(frozen=True, slots=True)
class Busy:
    """How many connections stand, and how many requests are under way."""

    connected: int
    in_flight: int


class Link(asyncio.Protocol):
    """One end.

    Args:
        heard: told each message.
        lost: told once when the other end has gone.
    """

    def __init__(self, heard: Callable[[Any], None], lost: Callable[[], None]) -> None:
        self._heard = heard
        self._lost = lost
        self._came = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio: messages may be sent."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Asyncio: parts of messages, one or several."""
        came = self._came
        came += data
        while len(came) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(came)[0]
            if len(came) < end:
                return
            message = pickle.loads(came[_LENGTH.size : end])
            del came[:end]
            self._heard(message)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whyever, it is gone
        """Asyncio: the other end has gone."""
        self._transport = None
        self._lost()

    @property
    def stands(self) -> bool:
        """Whether there is somebody to tell."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, message: Any) -> None:
        """Tell; one whom nobody hears any more is not told."""
        if self._transport is not None:
            text = pickle.dumps(message)
            self._transport.write(_LENGTH.pack(len(text)) + text)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()
