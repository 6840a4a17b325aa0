"""Which HTTP engine carries the calls, chosen by name: this is the one place that knows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Protocol, TypeVar

from meshsdk.errors import ConfigError
from meshsdk.wire.aio import AsyncioEngine
from meshsdk.wire.blocking import BlockingEngine
from meshsdk.wire.engine import AsyncEngine, Engine
from meshsdk.wire.httpcore_engine import AsyncHttpcoreEngine, HttpcoreEngine
from meshsdk.wire.security import Secure

__all__ = ["AWAITING", "BLOCKING", "DEFAULT", "EngineName", "async_engine", "engine"]

EngineName = Literal["meshsdk", "httpcore"]

DEFAULT: EngineName = "meshsdk"

E_co = TypeVar("E_co", covariant=True)

Clock = Callable[[], float]


class _Making(Protocol[E_co]):
    def __call__(self, clock: Clock, /, *, secure: Secure | None) -> E_co: ...


BLOCKING: dict[str, _Making[Engine]] = {"meshsdk": BlockingEngine, "httpcore": HttpcoreEngine}
AWAITING: dict[str, _Making[AsyncEngine]] = {"meshsdk": AsyncioEngine, "httpcore": AsyncHttpcoreEngine}

M = TypeVar("M")


def engine(chosen: Engine | str, clock: Clock, secure: Secure | None) -> Engine:
    """The engine of that name; one that is made already is returned as it is.

    Raises:
        ConfigError: there is none of that name.
    """
    return _named(BLOCKING, chosen)(clock, secure=secure) if isinstance(chosen, str) else chosen


def async_engine(chosen: AsyncEngine | str, clock: Clock, secure: Secure | None) -> AsyncEngine:
    """The same for asyncio."""
    return _named(AWAITING, chosen)(clock, secure=secure) if isinstance(chosen, str) else chosen


def _named(engines: Mapping[str, M], name: str) -> M:
    try:
        return engines[name]
    except KeyError:
        names = " or ".join(repr(known) for known in engines)
        raise ConfigError(f"engine={name!r}: there is none of that name; write {names}") from None
