"""The policy of this process's own service: when it is known for the first time, and what of it is remembered.

Rule 1: what the disk remembers is in force from the start, but counts as known only when Consul failed or kept silent
        for too long: what Consul says is newer.
Rule 2: who judges requests waits for the gate. It opens when the policy is known, or when nobody will tell soon.
"""

from __future__ import annotations

import logging

from meshsdk.discovery.gate import Gate
from meshsdk.discovery.memory import Memory
from meshsdk.discovery.policies import Policies

__all__ = ["OwnPolicy"]

_log = logging.getLogger("meshsdk.discovery")


class OwnPolicy:
    """What one process knows of its own documents. Changes on the background loop only.

    Attributes:
        gate: rule 2.
        known: Consul or the disk has said which documents there are, if only that there are none.
        service: empty until it is followed.
    """

    def __init__(self, policies: Policies) -> None:
        self.gate = Gate()
        self.known = False
        self.service = ""
        self._policies = policies
        self._remembered: Memory | None = None
        self._answered = False

    @property
    def name(self) -> str:
        """Under which it is remembered: beside what callers of the service remember of it."""
        return f"{self.service}.own" if self.service else ""

    def follow(self, service: str, remembered: Memory | None) -> None:
        """Begin to obey a service's documents."""
        self.service, self._remembered = service, remembered
        self._policies.use(service, remembered.documents if remembered is not None else {})
        if self._answered:
            self.answered()

    def answered(self) -> None:
        """Consul told its documents."""
        self._answered = True
        if self.service:
            self.known = True
            self.gate.open()

    def give_up(self) -> None:
        """Consul failed or kept silent: the disk counts, where it remembers anything."""
        if not self.service or self.gate.is_open:
            return
        if self._remembered is not None:
            self.known = True
            _log.warning(
                "%s: Consul does not answer; the policy remembered on disk is in force, %.0f s old",
                self.service, self._remembered.age,
            )  # fmt: skip
        self.gate.open()

    def memory(self) -> Memory | None:
        """What is worth keeping: only what Consul said."""
        return Memory(documents=self._policies.documents(self.service)) if self._answered and self.service else None
