"""The end user's token of a request: looked at where the policy says so, after the caller was found good.

Rule 1  Where no token is asked for, or none came and none is required, the request passes without claims.
Rule 2  A token that is not good is refused, whether one is required or not, and says why in the words of RFC 6750.
Rule 3  As long as the issuer's keys were never read the answer is 503, not 401: the token may be good, and a client
        that is told 401 throws it away and sends its user to log in again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshsdk.core.request import Request
from meshsdk.core.tokens import BadToken, Jwt, bearer
from meshsdk.server.answers import Answer
from meshsdk.tokens.keeper import Tokens

__all__ = ["challenge", "claims_of"]

_UNREADABLE = frozenset(("ambiguous", "malformed", "oversize"))


def claims_of(request: Request, jwt: Jwt, tokens: Tokens) -> Mapping[str, Any] | None:
    """What the request's token says; None without one.

    Raises:
        BadToken: the request is to be refused.
    """
    if not jwt.concerns(request):
        return None
    token = bearer(request.headers("authorization"))
    if token is not None:
        return tokens.claims(jwt, token)
    jwt.check_missing(request)
    return None


def challenge(refused: BadToken) -> Answer:
    """401, or 503 for a token that cannot be judged yet (rule 3)."""
    body = f"access denied: {refused}\n".encode()
    if refused.code == "unavailable":
        return Answer(503, body, extra=((b"retry-after", b"1"),))
    return Answer(401, body, extra=((b"www-authenticate", _words(refused).encode("ascii")),))


def _words(refused: BadToken) -> str:
    """RFC 6750, 3: who brought no token is told of no error."""
    if refused.code in {"missing", "preflight"}:
        return "Bearer"
    error = "invalid_request" if refused.code in _UNREADABLE else "invalid_token"
    return f'Bearer error="{error}", error_description="{refused}"'
