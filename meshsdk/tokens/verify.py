"""Whether a token is good, by PyJWT; with keys at hand, so that nothing here waits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from meshsdk.core.tokens import BadToken, Issuer, Jwt
from meshsdk.tokens.keys import ALGORITHMS, Key, KeySet

__all__ = ["verify"]

_BROKEN = (ValueError, TypeError, KeyError, OverflowError, RecursionError)  # what a hostile token may set off within


def verify(
    token: str, jwt: Jwt, keys: Callable[[str], KeySet | None], miss: Callable[[str], None]
) -> Mapping[str, Any]:
    """What a token says, once all of it is found good.

    Args:
        token: as `core.tokens.bearer` found it.
        jwt: whose tokens are taken.
        keys: those at a location (`Issuer.jwks`); None as long as they were never read.
        miss: told of a location that is to be read soon, because a token needs a key that is not there.

    Raises:
        BadToken: it is not; says why.
        ImportError: PyJWT is not installed.
    """
    from jwt.exceptions import InvalidSignatureError, PyJWTError

    header, issuer = _claimed(token, jwt)
    known, name = keys(issuer.jwks), header.get("kid")
    candidates = known.named(name) if known else ()
    if not candidates:
        miss(issuer.jwks)
        raise BadToken("key" if known else "unavailable")
    try:
        return _tried(token, _fitting(candidates, header), issuer, jwt.clock_skew)
    except InvalidSignatureError:
        if name is None:  # a newer key may fit
            miss(issuer.jwks)
        raise BadToken("signature") from None
    except PyJWTError as refused:
        raise BadToken(_code(refused)) from None
    except _BROKEN:
        raise BadToken("malformed") from None


def _claimed(token: str, jwt: Jwt) -> tuple[Mapping[str, Any], Issuer]:
    """The header, and the issuer the token claims to be of: it decides which keys count, and nothing else yet."""
    from jwt import decode_complete
    from jwt.exceptions import PyJWTError

    try:
        unproved = decode_complete(token, options={"verify_signature": False})
    except (PyJWTError, *_BROKEN):
        raise BadToken("malformed") from None
    header, name = unproved["header"], unproved["payload"].get("iss")
    if "crit" in header:  # extensions we would have to understand (RFC 7515, 4.1.11)
        raise BadToken("malformed")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise BadToken("algorithm")
    issuer = next((issuer for issuer in jwt.issuers if issuer.name == name), None)
    if issuer is None:
        raise BadToken("issuer")
    return header, issuer


def _fitting(candidates: tuple[Key, ...], header: Mapping[str, Any]) -> list[Key]:
    fitting = [key for key in candidates if header.get("alg") in key.algorithms]
    if not fitting:
        raise BadToken("algorithm")
    return fitting


def _tried(token: str, keys: list[Key], issuer: Issuer, skew: float) -> Mapping[str, Any]:
    """By the key that the token is signed with: signatures come before claims, so what a token says changes nothing."""
    from jwt.exceptions import InvalidSignatureError

    for key in keys[:-1]:
        with contextlib.suppress(InvalidSignatureError):
            return _decoded(token, key, issuer, skew)
    return _decoded(token, keys[-1], issuer, skew)


def _decoded(token: str, key: Key, issuer: Issuer, skew: float) -> Mapping[str, Any]:
    from jwt import decode

    claims: Mapping[str, Any] = decode(
        token,
        key=key.public,
        algorithms=list(key.algorithms),
        issuer=issuer.name,
        audience=list(issuer.audiences),
        leeway=skew,
        options={"require": ["exp", "iss", "aud"]},
    )
    return claims


def _code(refused: Exception) -> str:
    from jwt import exceptions

    codes: dict[type[Exception], str] = {
        exceptions.ExpiredSignatureError: "expired",
        exceptions.ImmatureSignatureError: "early",
        exceptions.InvalidAudienceError: "audience",
        exceptions.InvalidIssuerError: "issuer",
        exceptions.InvalidAlgorithmError: "algorithm",
        exceptions.DecodeError: "malformed",
    }
    return codes.get(type(refused), "claims")
