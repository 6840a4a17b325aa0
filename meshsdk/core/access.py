"""Who may do what at a service: rules compiled once, one decision per request, each naming its rule.

Rule 1: deny rules first: one that matches refuses. Then allow rules: one that matches lets pass. Then the default.
Rule 2: as soon as there is an allow rule, what no allow rule matches is refused, whatever the default. Who lists the
        callers of a service means these and no others; under the other reading `default: allow`, which holds where
        nobody wrote anything, would make every allow rule a line without effect. Istio decides the same way; Linkerd
        and Kuma refuse what they have no rule for as well.
Rule 3: an audited rule decides nothing. The decision is the one without it, and names it where enforcing all audited
        rules would turn the decision round.
Rule 4: only the verified identity says who calls. Service names are those of our own trust domain, in Consul's
        namespace `default` and in any datacenter, as in Consul's own intentions.
Rule 5: what can be read in more than one way is refused: a deny rule matches when any reading of path, method or
        header does, an allow rule when every one does (`paths` has the readings of a path).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from meshsdk.core.paths import Paths
from meshsdk.core.request import Header, Request, callers
from meshsdk.core.value import Value

__all__ = ["SOURCE", "Access", "Action", "Decision", "Rule", "check_source", "narrow"]

_NAME: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"  # a DNS label, as MESH_SERVICE and `from:` are
_ID: Final = r"spiffe://[a-z0-9._-]{1,255}(/(?!\.{1,2}(/|$))[A-Za-z0-9._-]+)*(/\*)?"

SOURCE: Final = re.compile(rf"{_NAME}|{_ID}|\*")
"""What `Rule.sources` may hold; ANONYMOUS has the form of a service's name."""

Action = Literal["allow", "deny"]


@dataclass(frozen=True, slots=True)
class Rule(Value):
    """One rule; what it leaves out matches everything.

    Attributes:
        name: what decisions call it, such as `rules[1].deny`.
        action: `allow` or `deny`.
        sources: who calls: service names, `spiffe://…` ids, ids ending in `/*`, ANYONE, ANONYMOUS; empty for all.
        methods: in capitals; empty for all. HEAD is not GET.
        paths: exact or ending in `/*`, which takes the path before it too; in normal form (`paths.check_path`).
        headers: all must be as they say.
        audit: True reports what the rule would do, and does not do it.
    """

    name: str
    action: Action
    sources: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    headers: tuple[Header, ...] = ()
    audit: bool = False


@dataclass(frozen=True, slots=True)
class Decision(Value):
    """Whether a request may pass, and why.

    Attributes:
        allowed: True lets it pass.
        rule: the rule that decided, or `default`.
        reason: one of few sentences, so that metrics may have it as a label.
        audited: the audited rule that would have turned the decision round; None where none would.
    """

    allowed: bool
    rule: str
    reason: str
    audited: str | None = None

    def __str__(self) -> str:
        would = f"; {self.audited} is audited and would have {'refused' if self.allowed else 'allowed'} it"
        return f"{'allowed' if self.allowed else 'denied'} by {self.rule}: {self.reason}{would if self.audited else ''}"


class _Match:
    """A rule made ready."""

    __slots__ = ("_headers", "_ids_below", "_methods", "_sources", "below", "decision", "exact", "looks_at_path")

    def __init__(self, rule: Rule) -> None:
        self.decision = Decision(rule.action == "allow", rule.name, f"{_ARTICLE[rule.action]} rule matches")
        self.looks_at_path = bool(rule.paths)
        self._sources = frozenset(rule.sources)
        self._ids_below = tuple(source[:-1] for source in rule.sources if source.endswith("/*"))
        self._methods = frozenset(rule.methods)
        stems = [path.removesuffix("/*").removesuffix("/") for path in rule.paths]
        self.exact = frozenset(spelling for stem in stems for spelling in (stem or "/", f"{stem}/"))
        self.below = tuple(path[:-1] for path in rule.paths if path.endswith("/*"))
        self._headers = rule.headers

    def concerns(self, peer: str | None, trust_domain: str, method: str) -> bool:
        """Whether one of its sources names the caller, and one of its methods is this."""
        if self._methods and method not in self._methods:
            return False
        if not self._sources or not self._sources.isdisjoint(callers(peer, trust_domain)):
            return True
        return peer is not None and peer.startswith(self._ids_below)

    def surely(self, paths: Paths, request: Request) -> bool:
        """Whether every reading of path and headers matches."""
        if self.looks_at_path:
            if paths.unclear:
                return False
            for path in paths.readings:
                if path not in self.exact and not path.startswith(self.below):
                    return False
        return not self._headers or request.surely(self._headers)

    def possibly(self, paths: Paths, request: Request) -> bool:
        """Whether any reading of path and headers matches."""
        if self.looks_at_path and not paths.unclear:
            for path in paths.readings:
                if path in self.exact or path.startswith(self.below):
                    break
            else:
                return False
        return not self._headers or request.possibly(self._headers)


_ARTICLE: Final = {"allow": "an allow", "deny": "a deny"}
_NO_PATH: Final = Paths()
_NO_METHOD: Final = ("",)  # as those of an allow rule that matches nothing
# Times methods: as many as a mesh has instances calling; whoever makes up methods costs no memory.
_MOST_CALLERS: Final = 4096

_Concern = tuple[tuple[_Match, ...], tuple[_Match, ...], bool]


class _Verdict:
    """Rules in the order they are asked, and what holds where none matches.

    Which rules concern a caller and a method is found out once and kept: 10 rules then cost 1 µs and not 5.
    """

    __slots__ = ("_allow", "_deny", "_known", "_otherwise")

    def __init__(self, default: Action, rules: Sequence[Rule]) -> None:
        self._deny = tuple(_Match(rule) for rule in rules if rule.action == "deny")
        self._allow = tuple(_Match(rule) for rule in rules if rule.action == "allow")
        self._known: dict[tuple[str | None, str, str], _Concern] = {}
        if self._allow:
            self._otherwise = Decision(False, "default", "no allow rule matches")
        else:
            self._otherwise = Decision(default == "allow", "default", "no rule matches")

    def decide(self, request: Request) -> Decision:
        caller = (request.peer, request.trust_domain, request.method)
        denials, permits, look_at_path = self._known.get(caller) or self._learn(*caller)
        paths = request.paths if look_at_path else _NO_PATH
        only = paths.readings[0] if len(paths.readings) == 1 else None
        for match in denials:
            if only and match.looks_at_path and only not in match.exact and not only.startswith(match.below):
                continue  # the usual case, without a call: 0.1 µs instead of 0.3
            if match.possibly(paths, request):
                return _explained(match, paths)
        for match in permits:
            if only and match.looks_at_path and only not in match.exact and not only.startswith(match.below):
                continue
            if match.surely(paths, request):
                return match.decision
        return self._otherwise

    def _learn(self, peer: str | None, trust_domain: str, method: str) -> _Concern:
        """Methods are case-sensitive (RFC 9110, 9.1), but Werkzeug takes `delete` for DELETE: deny rules do as well."""
        denials = tuple(match for match in self._deny if match.concerns(peer, trust_domain, method.upper()))
        permits = tuple(match for match in self._allow if match.concerns(peer, trust_domain, method))
        concern = denials, permits, any(match.looks_at_path for match in denials + permits)
        if len(self._known) >= _MOST_CALLERS:
            self._known.clear()
        self._known[peer, trust_domain, method] = concern
        return concern


def _explained(match: _Match, paths: Paths) -> Decision:
    unclear = paths.unclear if match.looks_at_path else ""
    return replace(match.decision, reason=f"the path cannot be read: {unclear}") if unclear else match.decision


@dataclass(frozen=True, slots=True)
class Access(Value):
    """The access rules of one service.

    Args:
        default: what holds where no rule matches and there is no allow rule.
        rules: in any order; deny rules are asked before allow rules, each kind in the order given.
    """

    default: Action = "allow"
    rules: tuple[Rule, ...] = ()
    _verdict: _Verdict = field(init=False, repr=False, compare=False)
    _trial: _Verdict | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        audited = any(rule.audit for rule in self.rules)
        enforced = [rule for rule in self.rules if not rule.audit]
        object.__setattr__(self, "_verdict", _Verdict(self.default, enforced))
        object.__setattr__(self, "_trial", _Verdict(self.default, self.rules) if audited else None)

    def decide(self, request: Request) -> Decision:
        """Whether the request may pass, with the rule that says so."""
        decision = self._verdict.decide(request)
        if self._trial is None:
            return decision
        trial = self._trial.decide(request)
        return decision if trial.allowed is decision.allowed else replace(decision, audited=self._audited(trial))

    def for_connections(self) -> Access:
        """These rules for connections whose requests nobody reads, as of plain TCP.

        Nobody can say what a request in them may be. By rule 5 a deny rule holds for all that its sources send, and an
        allow rule that asks for methods, paths or headers for nothing; by rule 2 it still means these and no others.
        """
        return Access(self.default, tuple(_unread(rule) for rule in self.rules))

    def _audited(self, trial: Decision) -> str:
        """Who turned it round: the rule itself, or the first audited allow rule, because none of them matched."""
        if trial.rule != "default":
            return trial.rule
        return next(rule.name for rule in self.rules if rule.audit and rule.action == "allow")


def _unread(rule: Rule) -> Rule:
    if not (rule.methods or rule.paths or rule.headers):
        return rule
    methods = () if rule.action == "deny" else _NO_METHOD
    return replace(rule, methods=methods, paths=(), headers=())


def check_source(source: str) -> None:
    """Whether a rule may name this source.

    Raises:
        ValueError: it names nobody; says what to write.
    """
    if SOURCE.fullmatch(source):
        return
    if source.startswith("spiffe://"):
        raise ValueError("no SPIFFE id; write spiffe://<trust domain>/<path>, or end it in /* for all below")
    raise ValueError("names no caller; write a service such as checkout, spiffe://…, * for any verified, or anonymous")


def narrow(from_: Iterable[str], name: str = "@mesh.allow") -> Access:
    """Access for these callers and nobody else: what code asks for beside the policy, with the policy's words.

    Args:
        from_: sources, as in `Rule.sources`; a single one may be given as text.
        name: what decisions call it, such as `@mesh.allow on refund`.

    Raises:
        ValueError: a source names nobody, or there is none.
    """
    sources = (from_,) if isinstance(from_, str) else tuple(from_)
    if not sources:
        raise ValueError(f"{name} from nobody: name the callers, such as checkout, or leave it out")
    for source in sources:
        try:
            check_source(source)
        except ValueError as wrong:
            raise ValueError(f"{name} from {source!r}: {wrong}") from None
    return Access("deny", (Rule(name, "allow", sources),))
