"""What is said of an instance's presence in Consul: to Consul within bounded time, in the log, in the health check."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any

from meshsdk_registry import Back, Event, Heartbeat, Held, Lost, Missing, Registered, RegistryError

__all__ = ["CONSUL_WAIT", "last_word", "log_presence", "obeyed"]

log = logging.getLogger("meshsdk.server")

CONSUL_WAIT = 0.5
"""Seconds each of the last words waits for Consul, of which there are two: maintenance and deregistration."""


async def last_word(what: str, heartbeat: Heartbeat, work: Coroutine[Any, Any, None]) -> None:
    """Do the last `work` for an instance, such as `drain`; that Consul is away is logged and not waited out.

    Args:
        what: what the instance is then, for the log, such as "deregistered".
    """
    name = heartbeat.registration.id
    try:
        async with asyncio.timeout(CONSUL_WAIT):
            await work
    except Missing:
        log.debug("%s was not %s: Consul does not know it", name, what)
    except (RegistryError, TimeoutError) as error:
        why = str(error) or f"Consul did not answer within {CONSUL_WAIT:g} s"
        log.warning("%s was not %s: %s", name, what, why)
    else:
        log.info("%s %s", name, what)


def log_presence(event: Event) -> None:
    """Log what a heartbeat reports; hand it in as `notify`."""
    match event:
        case Registered(registration, again):
            log.info("%s registered%s", registration.id, " again: Consul had forgotten it" if again else "")
        case Held(reason):
            log.warning("held in maintenance by an operator: %s", reason)
        case Lost(error):
            log.warning("Consul cannot be told that this process lives: %s", error)
        case Back():
            # As loud as the loss was: whoever read of that wants to read of its end.
            log.warning("Consul can be told again that this process lives")


def obeyed(versions: Mapping[str, str]) -> str:
    """Return the health check's output: the policy versions in force, given by service."""
    return "policies: " + (", ".join(sorted(set(versions.values()))) or "defaults")
