"""Who may pass: asked once for each request, before the application sees it.

Rule 1  Only the identity that TLS verified counts. `tls: strict` refuses whoever has none, on whatever port it came:
        loopback is no exception, because a proxy on this machine calls from there too. The mesh's own pages are
        answered before anybody is asked, so `/-/mesh/ready` serves for health checks.
Rule 2  Then Consul's intentions, then the policy's rules: both must let a request pass. Both are the last known ones.
Rule 3  Rules see the request target as it was received, not what a server made of it; and, where a prefix of it is
        taken off before the application routes it (SCRIPT_NAME, root_path), what is left as well.
Rule 4  Where nothing is restricted this costs two comparisons.
Rule 5  The end user's token comes last (`claims`): whom the rules refuse costs no signature check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol
from urllib.parse import quote

from meshsdk.core.access import Access, Decision
from meshsdk.core.plan import Plan
from meshsdk.core.request import Request
from meshsdk.core.tokens import BadToken
from meshsdk.server.bearer import claims_of
from meshsdk.tokens.keeper import Tokens

__all__ = ["CONNECTION", "STRICT", "Guard", "Intentions"]

STRICT: Final = "tls.mode"
"""What logs call the rule that refuses callers without a verified identity."""

CONNECTION: Final = "TCP"
"""What stands in a method's place where a connection is judged, or told of, whose requests nobody reads."""

Headers = Sequence[tuple[bytes, bytes]]

_NO_IDENTITY: Final = Decision(False, STRICT, "the service takes callers with a verified identity only")


class Intentions(Protocol):
    """What Consul's intentions say of the service: `meshsdk.core.intentions.Intentions`."""

    def decide(self, request: Request) -> Decision:
        """Whether the request may pass, with the intention that says so."""
        ...

    def for_connections(self) -> Intentions:
        """The same for connections whose requests nobody reads."""
        ...


class Guard:
    """The rules in force, made ready for the path of every request.

    Args:
        plan: the policy in force for this service.
        intentions: those in force; None where none is about this service and the default is to allow.
        trust_domain: our own; empty as long as there is no identity.
        tokens: judges end users' tokens; None where the policy asks for none.
    """

    def __init__(
        self,
        plan: Callable[[], Plan],
        *,
        intentions: Callable[[], Intentions | None] = lambda: None,
        trust_domain: Callable[[], str] = lambda: "",
        tokens: Tokens | None = None,
    ) -> None:
        self._plan = plan
        self._intentions = intentions
        self._trust_domain = trust_domain
        self._tokens = tokens
        self._known_plan: Plan | None = None
        self._known_intentions: Intentions | None = None
        self._open = False
        self._strict = False
        self._unread: tuple[Access, Intentions | None] | None = None  # the rules for connections, once there is one

    @property
    def mode(self) -> str:
        """`strict`, `permissive` or `off`."""
        return self._plan().tls

    def judge(
        self,
        peer: str | None,
        method: str,
        path: str,
        target: bytes | str | None,
        headers: Headers,
        *,
        routed: str = "",
    ) -> Decision | None:
        """Return the decision, None where nothing is restricted and nothing is to be told.

        Args:
            peer: the verified SPIFFE id; None without one.
            path: decoded; stands in for the target where the server does not keep it.
            target: the request target as received; None where unknown.
            headers: names in small letters.
            routed: the path without the prefix that is taken off before the application routes it, decoded; empty where
                none is.
        """
        plan, intentions = self._plan(), self._intentions()
        if plan is not self._known_plan or intentions is not self._known_intentions:
            self._learn(plan, intentions)
        if self._open and (peer is not None or not self._strict):
            return None
        if peer is None and self._strict:
            return _NO_IDENTITY
        sent = _text(target, path)
        request = Request(
            peer,
            self._trust_domain(),
            method,
            sent,
            _look_up(headers),
            doubles=_doubles(headers),
            routed=routed and _quoted(routed),
        )
        return _decide(plan.access, intentions, request)

    def judge_connection(self, peer: str | None) -> Decision | None:
        """Return the decision on a connection whose requests nobody reads, as of plain TCP; None as of `judge`.

        What a rule asks of requests cannot be seen in it: `meshsdk.core.access.Access.for_connections` says what then.
        """
        plan, intentions = self._plan(), self._intentions()
        if plan is not self._known_plan or intentions is not self._known_intentions:
            self._learn(plan, intentions)
        if peer is None and self._strict:
            return _NO_IDENTITY
        if plan.jwt is not None and plan.jwt.required:
            return BadToken("missing").decision
        if self._open:
            return None
        if self._unread is None:
            self._unread = plan.access.for_connections(), intentions and intentions.for_connections()
        request = Request(peer, self._trust_domain(), CONNECTION, "", _no_header)
        return _decide(*self._unread, request)

    def claims(
        self, method: str, path: str, target: bytes | str | None, headers: Headers, *, routed: str = ""
    ) -> Mapping[str, Any] | None:
        """What the end user's token says; None without one, or where the policy asks for none. Args as of `judge`.

        Raises:
            BadToken: the request is to be refused.
        """
        jwt = (self._known_plan or self._plan()).jwt  # that of `judge`, which a request is asked of first
        if jwt is None:
            return None
        if self._tokens is None:
            raise BadToken("unavailable")
        sent = _text(target, path)
        request = Request(None, "", method, sent, _look_up(headers), routed=routed and _quoted(routed))
        return claims_of(request, jwt, self._tokens)

    def wait_known(self, seconds: float) -> None:
        """Wait, at most so many seconds and blocking the thread, until the keys of the policy's issuers are known."""
        if self._tokens is not None:
            self._tokens.wait_known(self._plan().jwt, seconds)

    async def await_known(self, seconds: float) -> None:
        """The same on an asyncio loop."""
        if self._tokens is not None:
            await self._tokens.await_known(self._plan().jwt, seconds)

    def _learn(self, plan: Plan, intentions: Intentions | None) -> None:
        self._open = plan.access.default == "allow" and not plan.access.rules and intentions is None
        self._strict = plan.tls == "strict"
        if self._tokens is not None:
            self._tokens.follow(plan.jwt)
        self._known_plan, self._known_intentions = plan, intentions
        self._unread = None


def _decide(access: Access, intentions: Intentions | None, request: Request) -> Decision:
    if intentions is not None:
        decision = intentions.decide(request)
        if not decision.allowed:
            return decision
    return access.decide(request)


def _no_header(name: str) -> list[str]:  # noqa: ARG001 - the interface of Request
    return []


def _text(target: bytes | str | None, path: str) -> str:
    if target is None:
        return _quoted(path)
    return target.decode("latin-1") if isinstance(target, bytes) else target


def _quoted(path: str) -> str:
    return quote(path, safe="/:@!$&'()*+,;=~-._")


def _look_up(headers: Headers) -> Callable[[str], list[str]]:
    def values(name: str) -> list[str]:
        wanted = name.encode("latin-1")
        return [value.decode("latin-1") for header, value in headers if header == wanted]

    return values


def _doubles(headers: Headers) -> Callable[[str], list[str]]:
    def values(name: str) -> list[str]:
        wanted = name.encode("latin-1")
        double = wanted.replace(b"_", b"-")
        return [
            value.decode("latin-1")
            for header, value in headers
            if header != wanted and header.replace(b"_", b"-") == double
        ]

    return values
