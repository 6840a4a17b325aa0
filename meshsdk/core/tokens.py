"""What a service asks of its end users' tokens (JWT, RFC 7519), and why one is refused.

Rule 1: an issuer's keys vouch for that issuer alone, and each token names one audience of ours: what another service
        was given is no key to this one (RFC 8725, 3.8 and 3.9).
Rule 2: where the path can be read in more than one way, a token is looked at if any reading asks for one.
Rule 3: reasons are fixed sentences without anything of the token's, so that logs and answers may have them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from meshsdk.core.access import Access, Decision, Rule
from meshsdk.core.request import Request

__all__ = ["MAX_TOKEN", "REASONS", "BadToken", "Issuer", "Jwt", "bearer"]

MAX_TOKEN = 8192
"""Characters of a token, as many as nginx takes in all of a header; one of 1 KiB is usual."""

_BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr](?![A-Za-z0-9!#$%&'*+.^_`|~-])")  # schemes ignore case (RFC 9110, 11.1)
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")  # RFC 7515, 7.1; refuses encrypted ones

REASONS: Mapping[str, str] = {
    "missing": "no token came with the request",
    "preflight": "a browser's preflight brings no token; authentication.jwt.allow_preflight lets it pass",
    "ambiguous": "more than one Authorization header came with the request",
    "malformed": "what came is no signed JWT",
    "oversize": f"the token is longer than {MAX_TOKEN} characters",
    "algorithm": "the token's algorithm is none of those that its key is for",
    "issuer": "the token's issuer is not one of those trusted here",
    "audience": "the token is for somebody else",
    "key": "the issuer has no such key",
    "signature": "the signature does not fit",
    "expired": "the token has expired",
    "early": "the token is not valid yet",
    "claims": "the token lacks exp or aud, or one of its claims is not what it should be",
    "unavailable": "the issuer's keys are not known yet",
}
"""By code: why a request is refused."""


class BadToken(Exception):
    """A request whose token cannot be taken.

    Args:
        code: one of REASONS.
    """

    def __init__(self, code: str) -> None:
        super().__init__(REASONS[code])
        self.code = code

    @property
    def decision(self) -> Decision:
        """As logs and metrics call it, such as `authentication.jwt.expired`."""
        return Decision(False, f"authentication.jwt.{self.code}", REASONS[self.code])


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs tokens.

    Attributes:
        name: the claim `iss`, letter by letter.
        jwks: where its public keys are (RFC 7517): a file's absolute path, or a URL.
        audiences: one of them must be among the token's `aud`.
    """

    name: str
    jwks: str
    audiences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Jwt:
    """Whose tokens are taken, and where.

    Args:
        issuers: those trusted.
        clock_skew: seconds that our clock and the issuer's may be apart.
        required: whether a request without a token is refused.
        paths: where, as in access rules.
        allow_preflight: whether a preflight without a token passes where one is required.
    """

    issuers: tuple[Issuer, ...]
    clock_skew: float = 30.0
    required: bool = False
    paths: tuple[str, ...] = ("/*",)
    allow_preflight: bool = False
    _where: Access = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_where", Access("allow", (Rule("where", "deny", paths=self.paths),)))

    def check_missing(self, request: Request) -> None:
        """Judge a request that brought no token.

        Raises:
            BadToken: it had to bring one.
        """
        if not self.required:
            return
        if not _is_preflight(request):
            raise BadToken("missing")
        if not self.allow_preflight:
            raise BadToken("preflight")

    def concerns(self, request: Request) -> bool:
        """Whether tokens are looked at, for this request."""
        return "/*" in self.paths or not self._where.decide(request).allowed


def _is_preflight(request: Request) -> bool:
    """A browser's question before a call to another origin, which never has credentials (Fetch, 4.8)."""
    asks = request.method == "OPTIONS" and request.headers("origin")
    return bool(asks and request.headers("access-control-request-method"))


def bearer(values: Sequence[str]) -> str | None:
    """The token in the values of the header Authorization (RFC 6750, 2.1); None where there is none.

    Raises:
        BadToken: there is something that is none, or more than one header.
    """
    if len(values) > 1:
        raise BadToken("ambiguous")
    value = values[0].strip(" \t") if values else ""
    scheme = _BEARER.match(value)
    if scheme is None:
        return None
    token = value[scheme.end() :].strip(" ")
    if len(token) > MAX_TOKEN:
        raise BadToken("oversize")
    if not _TOKEN.fullmatch(token):
        raise BadToken("malformed")
    return token
