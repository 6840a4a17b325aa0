"""The dev agent's intentions, pure: the legacy API by id of Consul 1.8.7, and the later one by names."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from meshsdk_registry.agent.journal import Journal

__all__ = ["Intention", "Intentions", "Unfit"]

WILDCARD = "*"


class Unfit(Exception):
    """A refusal in Consul's words."""


@dataclass(frozen=True, slots=True)
class Intention:
    """Who may call whom. `permissions`: as they came, for Consul's JSON of 1.9 and later; they exclude `action`."""

    source: str
    destination: str
    action: str = ""
    permissions: tuple[Any, ...] = ()
    source_ns: str = "default"
    destination_ns: str = "default"
    source_type: str = "consul"
    description: str = ""
    meta: Mapping[str, str] = field(default_factory=dict)
    default_addr: str = ""
    default_port: int = 0
    id: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    created: int = 0
    modified: int = 0

    @property
    def names(self) -> tuple[str, str, str, str]:
        """What may stand only once."""
        return self.source_ns, self.source, self.destination_ns, self.destination

    @property
    def precedence(self) -> int:
        """Of two exact names 9, down to 1; the destination counts more."""
        highest = 3 * (1 + _exact(self.destination_ns, self.destination))
        return highest - (2 - _exact(self.source_ns, self.source))

    @property
    def digest(self) -> str:
        """A hash of what it says."""
        said = [*self.names, self.action, self.permissions, self.description, sorted(self.meta.items())]
        return base64.b64encode(hashlib.sha256(json.dumps(said).encode()).digest()).decode()

    def __str__(self) -> str:
        what = self.action.upper() if self.action else f"{len(self.permissions)} PERMISSIONS"
        ends = f"{self.source_ns}/{self.source} => {self.destination_ns}/{self.destination}"
        return f"{what} {ends} (ID: {self.id}, Precedence: {self.precedence})"

    def takes(self, by: str, name: str) -> bool:
        """Whether the end `by` ("source" or "destination") is this name, which may say its namespace before a slash."""
        space, _, name = name.rpartition("/")
        own = (self.source_ns, self.source) if by == "source" else (self.destination_ns, self.destination)
        return own[0] in {space or "default", WILDCARD} and own[1] in {name, WILDCARD}


class Intentions:
    """All intentions, what decides first comes first."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._by_id: dict[str, Intention] = {}
        self.index = 0

    def all(self) -> list[Intention]:
        """In Consul's order: by precedence, then by names."""
        return sorted(self._by_id.values(), key=lambda one: (-one.precedence, *one.names))

    def get(self, key: str) -> Intention | None:
        """One by id; Unfit for what is no id."""
        _check_id(key)
        return self._by_id.get(key)

    def exact(self, source: str, destination: str) -> Intention | None:
        """One by its names."""
        return self._other(("default", source, "default", destination), "")

    def create(self, new: Intention, now: datetime) -> str:
        """Add one and return its id; Unfit for mistakes and for names that are taken."""
        self._check(new, "")
        key = str(uuid.uuid4())
        index = self._advance()
        self._by_id[key] = replace(new, id=key, created_at=now, updated_at=now, created=index, modified=index)
        return key

    def replace(self, key: str, new: Intention, now: datetime) -> None:
        """Write another in place of the one with this id."""
        old = self._by_id[key]
        self._check(new, key)
        index = self._advance()
        kept = replace(new, id=key, created_at=old.created_at, created=old.created)
        self._by_id[key] = replace(kept, updated_at=now, modified=index)

    def delete(self, key: str) -> None:
        """Take one away."""
        del self._by_id[key]
        self._advance()

    def matching(self, by: str, name: str) -> list[Intention]:
        """Those that may decide for the end `by`, what decides first comes first."""
        return [one for one in self.all() if one.takes(by, name)]

    def deciding(self, source: str, destination: str) -> Intention | None:
        """The one that decides whether `source` may call `destination`."""
        return next((one for one in self.matching("destination", destination) if one.takes("source", source)), None)

    def _check(self, new: Intention, key: str) -> None:
        mistakes = list(_mistakes(new))
        if mistakes:
            title = "1 error occurred:" if len(mistakes) == 1 else f"{len(mistakes)} errors occurred:"
            raise Unfit("\n\t* ".join((title, *mistakes)) + "\n\n")
        if other := self._other(new.names, key):
            raise Unfit(f"duplicate intention found: {other}")

    def _other(self, names: tuple[str, str, str, str], key: str) -> Intention | None:
        return next((one for one in self._by_id.values() if one.names == names and one.id != key), None)

    def _advance(self) -> int:
        self.index = self._journal.advance()
        return self.index


def _exact(namespace: str, name: str) -> int:
    return 0 if namespace == WILDCARD else 1 if name == WILDCARD else 2


def _check_id(key: str) -> None:
    if len(key) != 36:
        raise Unfit("failed intention lookup: index error: UUID must be 36 characters")
    if wrong := re.search("[^0-9a-fA-F-]", key):
        code = f"U+{ord(wrong.group()):04X} '{wrong.group()}'"
        raise Unfit(f"failed intention lookup: index error: Invalid UUID: encoding/hex: invalid byte: {code}")


def _mistakes(one: Intention) -> Iterable[str]:
    if not one.source:
        yield "SourceName must be set"
    if not one.destination:
        yield "DestinationName must be set"
    yield from _mistakes_of("Source", one.source_ns, one.source)
    yield from _mistakes_of("Destination", one.destination_ns, one.destination)
    if len(one.description) > 512:
        yield "Description exceeds maximum length 512"
    if one.permissions and one.destination == WILDCARD:
        yield "Permissions cannot be specified on intentions with wildcarded destinations"
    if not one.permissions and one.action not in {"allow", "deny"}:
        yield "Action must be set to 'allow' or 'deny'"
    if one.source_type != "consul":
        yield "SourceType must be set to 'consul'"


def _mistakes_of(end: str, namespace: str, name: str) -> Iterable[str]:
    if namespace != WILDCARD and WILDCARD in namespace:
        yield f"{end}NS: wildcard character '*' cannot be used with partial values"
    if name != WILDCARD and WILDCARD in name:
        yield f"{end}Name: wildcard character '*' cannot be used with partial values"
    if name and name != WILDCARD and namespace == WILDCARD:
        yield f"{end}Name: exact value cannot follow wildcard namespace"
