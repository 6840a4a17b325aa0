"""Which HTTP engine carries the calls, chosen by name or made of a transport: this is the one place that knows them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Literal, Protocol, TypeVar

from meshsdk.client.transport_engine import AsyncTransportEngine, TransportEngine
from meshsdk.errors import ConfigError
from meshsdk.runs import Run, running
from meshsdk.wire.aio import AsyncioEngine
from meshsdk.wire.blocking import BlockingEngine
from meshsdk.wire.engine import AsyncEngine, Engine
from meshsdk.wire.httpcore_engine import AsyncHttpcoreEngine, HttpcoreEngine
from meshsdk.wire.security import Secure

__all__ = ["AWAITING", "BLOCKING", "DEFAULT", "Engine", "EngineName", "async_engine", "engine", "loop_of"]


class _Transport(Protocol):
    """A transport of httpx or httpx2; which library and colour it must be of is checked when it is handed in."""

    def handle_request(self, request: Any, /) -> Any: ...


class _AsyncTransport(Protocol):
    async def handle_async_request(self, request: Any, /) -> Any: ...


# How users say which engine they want.
EngineName = Literal["meshsdk", "httpcore"] | _Transport | _AsyncTransport

DEFAULT: Literal["meshsdk"] = "meshsdk"

E_co = TypeVar("E_co", covariant=True)

Clock = Callable[[], float]


class _Making(Protocol[E_co]):
    def __call__(self, clock: Clock, /, *, secure: Secure | None) -> E_co: ...


BLOCKING: dict[str, _Making[Engine]] = {"meshsdk": BlockingEngine, "httpcore": HttpcoreEngine}
AWAITING: dict[str, _Making[AsyncEngine]] = {"meshsdk": AsyncioEngine, "httpcore": AsyncHttpcoreEngine}

M = TypeVar("M")


def engine(chosen: Any, library: ModuleType, clock: Clock, secure: Secure | None) -> Engine:
    """The engine of that name, or made of that transport; one that is made already is returned as it is.

    Raises:
        ConfigError: there is none of that name, or it is no transport for `library`.
    """
    if isinstance(chosen, str):
        return _named(BLOCKING, chosen)(clock, secure=secure)
    if isinstance(chosen, library.BaseTransport):
        return TransportEngine(chosen, library, clock, secure)
    made: Engine = _made(chosen, f"{library.__name__}.BaseTransport")
    return made


def async_engine(chosen: Any, library: ModuleType, clock: Clock, secure: Secure | None) -> AsyncEngine:
    """The same for asyncio and trio."""
    if isinstance(chosen, str):
        return _named(AWAITING, chosen)(clock, secure=secure)
    if isinstance(chosen, library.AsyncBaseTransport):
        return AsyncTransportEngine(chosen, library, clock, secure)
    made: AsyncEngine = _made(chosen, f"{library.__name__}.AsyncBaseTransport")
    return made


def loop_of(engine: AsyncEngine) -> Callable[[], Run]:
    """What finds the loop that a call on `engine` runs in; it raises ConfigError where there is none for it."""
    return _loop_or_run if isinstance(engine, (AsyncHttpcoreEngine, AsyncTransportEngine)) else _loop


def _named(engines: Mapping[str, M], name: str) -> M:
    try:
        return engines[name]
    except KeyError:
        names = " or ".join(repr(known) for known in engines)
        raise ConfigError(f"engine={name!r}: there is none of that name; write {names}") from None


def _made(chosen: Any, wanted: str) -> Any:
    if hasattr(chosen, "send") and hasattr(chosen, "retire"):
        return chosen
    kind = type(chosen)
    names = ", ".join(repr(known) for known in BLOCKING)
    raise ConfigError(
        f"engine={kind.__module__}.{kind.__qualname__}: it carries none of these calls; write {names}, or a transport "
        f"that is an {wanted}"
    )


def _loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigError(
            "the mesh's own engine runs on asyncio or uvloop, and neither runs here; under trio write "
            'mesh.async_client(engine="httpcore"), or call with mesh.client() in a thread: '
            "await trio.to_thread.run_sync(http.get, url)"
        ) from None


def _loop_or_run() -> Run:
    try:
        return running()
    except RuntimeError:
        raise ConfigError("this engine runs on asyncio, uvloop or trio, and none of them runs here") from None
