"""Consul's intentions, decided here: which one speaks for a caller, and what it says about a request.

Rule 1: of the intentions for this destination or for `*`, the one of highest precedence whose source is the caller or
        `*` decides alone: exact to exact 9, `*` to exact 8, exact to `*` 6, `*` to `*` 5.
Rule 2: with permissions, the first that matches decides; where none does, the default holds, as where there is no
        intention. The default is Consul's own: its ACL default policy, or `DefaultIntentionPolicy`.
Rule 3: a source is a service of our trust domain, in any datacenter. Consul does not look at the trust domain; we do.
        Callers without such an identity have no name: `*` denies them, and does not let them in.
Rule 4: as in `access`, a permission that denies matches when any reading of the request does, one that allows when
        every reading does. A condition that cannot be judged (a pattern that `patterns` refuses, an unknown condition
        such as JWT, a text too long) may be either; `Intentions.refusals` names those known beforehand.
Rule 5: prefixes are those of text, as in Consul: `/v2` takes `/v20` too. A header that is not there matches an inverted
        condition where it denies and not where it allows; Envoy lets it match neither.
Rule 6: intentions come first, then the policy. Both must let a request pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy

from meshsdk.core.access import Access, Decision
from meshsdk.core.entries import Entry
from meshsdk.core.permissions import Permission, said
from meshsdk.core.request import ANYONE, Request, service

__all__ = ["Intentions", "decide"]


class _Intention:
    """An intention made ready."""

    __slots__ = ("_decision", "_otherwise", "_permissions", "rank")

    def __init__(self, entry: Entry, rank: int, refusals: list[str], *, default_allow: bool) -> None:
        self.rank = rank
        name = f"intention {entry.source} => {entry.destination}"
        refusals += [f"{name}: {condition} is not judged" for condition in entry.unknown]
        self._decision = None if entry.permissions else _whole(entry, name)
        self._otherwise = Decision(default_allow and not entry.unknown, name, "no permission matches")
        self._permissions = [
            Permission(permission, f"{name} permissions[{number}]", refusals)
            for number, permission in enumerate(entry.permissions)
            if permission.action != "allow" or not entry.unknown
        ]

    def decide(self, request: Request) -> Decision:
        if self._decision:
            return self._decision
        matching = (permission.decision for permission in self._permissions if permission.matches(request))
        return next(matching, self._otherwise)

    def for_connections(self) -> _Intention:
        """Without permissions; see `Intentions.for_connections`."""
        if self._decision is not None:
            return self
        unread = copy(self)
        why = "its permissions are about requests nobody reads"
        unread._decision = Decision(False, self._otherwise.rule, why)  # noqa: SLF001 - a copy of our own
        return unread


def _whole(entry: Entry, name: str) -> Decision:
    if entry.unknown and entry.action == "allow":
        return Decision(False, name, "it has conditions that are not judged here")
    return said(entry.action, name, "intention")


class Intentions:
    """The intentions for one destination.

    Args:
        entries: any intentions; those for other destinations, and those about services elsewhere, are left out.
        destination: the service that is called.
        default_allow: what holds where none speaks, or no permission matches.

    Attributes:
        refusals: what is written in them and cannot be judged here, for the log; such conditions never let pass.
    """

    __slots__ = ("_default", "_intentions", "refusals")

    def __init__(self, entries: Iterable[Entry], destination: str, *, default_allow: bool) -> None:
        self._default = Decision(default_allow, "intentions default", "no intention is about the caller")
        refusals: list[str] = []
        self._intentions: dict[str, _Intention] = {}
        for rank, entry in enumerate(sorted(_about(entries, destination), key=_order)):
            if entry.source not in self._intentions:  # a later one about the same source has no say
                self._intentions[entry.source] = _Intention(entry, rank, refusals, default_allow=default_allow)
        self.refusals = tuple(refusals)

    def decide(self, request: Request) -> Decision:
        """Whether the request may pass, with the intention or permission that says so."""
        name = service(request.peer, request.trust_domain)
        anyone = self._intentions.get(ANYONE)
        if name is None:
            decision = anyone.decide(request) if anyone else self._default
            return self._default if decision.allowed else decision
        own = self._intentions.get(name)
        if own and anyone:
            return min(own, anyone, key=_rank).decide(request)
        speaking = own or anyone
        return speaking.decide(request) if speaking else self._default

    def for_connections(self) -> Intentions:
        """The same for connections whose requests nobody reads, as of plain TCP: one that has permissions denies.

        So does Consul for a service whose protocol is tcp.
        """
        unread = copy(self)
        known = self._intentions.items()
        unread._intentions = {source: found.for_connections() for source, found in known}  # noqa: SLF001 - as above
        return unread


def _about(entries: Iterable[Entry], destination: str) -> list[Entry]:
    return [
        entry
        for entry in entries
        if entry.destination in {destination, ANYONE} and not entry.foreign and entry.source_type == "consul"
    ]


def _order(entry: Entry) -> tuple[int, bool, bool]:
    return -entry.precedence, entry.destination == ANYONE, entry.source == ANYONE


def _rank(intention: _Intention) -> int:
    return intention.rank


def decide(access: Access, intentions: Intentions | None, request: Request) -> Decision:
    """Intentions first, then the policy; what the first refuses the second is not asked about.

    Args:
        intentions: None where nobody keeps any, as with identities from files.
    """
    if intentions is not None:
        decision = intentions.decide(request)
        if not decision.allowed:
            return decision
    return access.decide(request)
