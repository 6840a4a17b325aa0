"""Whether Consul is there: what a watch and a heartbeat tell about it, each once."""

from __future__ import annotations

from dataclasses import dataclass

from meshsdk_registry.errors import RegistryError

__all__ = ["Back", "Lost", "Outage"]


@dataclass(frozen=True, slots=True)
class Lost:
    """Consul cannot be used. `since`: the clock's seconds at the first failure of this outage."""

    error: RegistryError
    since: float


@dataclass(frozen=True, slots=True)
class Back:
    """Consul answers again, after `away` seconds; what was last known was confirmed or is corrected next."""

    away: float


class Outage:
    """Turns a row of failures and answers into one `Lost` for each distinct error and one `Back`."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._told: set[tuple[type[RegistryError], str]] = set()

    def failed(self, error: RegistryError, now: float) -> Lost | None:
        """Return what to tell about this failure; None if this outage showed the same before."""
        if self._since is None:
            self._since = now
        known = (type(error), str(error))
        if known in self._told:
            return None
        if len(self._told) < 100:  # an error text that differs each time must not grow for ever
            self._told.add(known)
        return Lost(error, self._since)

    def answered(self, now: float) -> Back | None:
        """Return `Back` if an outage ends here."""
        if self._since is None:
            return None
        away = now - self._since
        self._since = None
        self._told.clear()
        return Back(away)
