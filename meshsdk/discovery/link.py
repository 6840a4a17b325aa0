"""Says in the log when Consul goes and comes back: once, however many watches notice.

The return is as loud as the loss: whoever read of the one, with no logging set up, wants to read of the other.
"""

from __future__ import annotations

import logging

from meshsdk_registry import Denied, RegistryError, Rejected

__all__ = ["Link"]

_log = logging.getLogger("meshsdk.discovery")


class Link:
    """The watches that cannot reach Consul, and those that Consul refuses (which concerns one question only)."""

    def __init__(self) -> None:
        self._away: set[str] = set()
        self._refused: dict[str, str] = {}

    def lost(self, what: str, error: RegistryError) -> None:
        """A watch failed; `what` names it for people."""
        if isinstance(error, Denied | Rejected):
            self._refuse(what, error)
            return
        if not self._away:
            _log.warning("Consul cannot be asked, what was last known stays in force: %s", error)
        self._away.add(what)

    def back(self, what: str, away: float) -> None:
        """The watch works again, after `away` seconds."""
        if self._refused.pop(what, None) is not None:
            _log.warning("Consul answers for %s again", what)
        if what in self._away:
            self._away.discard(what)
            if not self._away:
                _log.warning("Consul is back after %.1f s", away)

    def forget(self, what: str) -> None:
        """The watch was given up."""
        self._away.discard(what)
        self._refused.pop(what, None)

    def _refuse(self, what: str, error: RegistryError) -> None:
        if self._refused.get(what) != str(error):
            self._refused[what] = str(error)
            _log.warning("Consul refuses to tell of %s: %s", what, error)
