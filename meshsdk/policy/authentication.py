"""`authentication`: which end users' tokens a service takes, and where it asks for one."""

# ruff: noqa: RUF009 - `setting` returns dataclasses.field

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

from meshsdk.core.tokens import Issuer, Jwt
from meshsdk.policy.authorization import path
from meshsdk.policy.durations import duration, duration_text, seconds
from meshsdk.policy.kinds import Kind, flag, passing
from meshsdk.policy.section import Section, each, omitted, section, setting, single

__all__ = ["Authentication", "JwtSection", "TokenIssuer"]

MAX_ISSUERS = 8
MAX_SKEW = 300.0

_WORD = r"[!-~]{1,512}"
_JWKS = r"/[ -~]{1,1023}|https?://[!-~]{1,1016}"
_HOST = re.compile(r"[A-Za-z0-9.-]+|[0-9A-Fa-f:.]+")


def _check_word(value: str) -> None:
    if not re.fullmatch(_WORD, value):
        raise ValueError("write 1 to 512 letters of ASCII without spaces, as the token has them")


def _check_location(value: str) -> None:
    if not re.fullmatch(_JWKS, value):
        raise ValueError(
            "not where keys are; write a file's absolute path, such as /etc/keys.json, or a URL, https://…"
        )
    if not value.startswith("/"):
        _check_url(value)


def _check_url(value: str) -> None:
    try:
        url = urlsplit(value)
        host, port = url.hostname or "", url.port
    except ValueError:
        host, port = "", 0
    if not _HOST.fullmatch(host) or port == 0:
        raise ValueError(
            "not a URL with a host and a port from 1 to 65535; write one such as https://id.example/jwks.json"
        )
    if "@" in value.split("/")[2] or "#" in value:
        raise ValueError("keys are public and whole; write the URL without a user, a password and #…")


def _skew(value: object) -> float:
    if (found := seconds(value)) > MAX_SKEW:
        raise ValueError("write 5m or less; clocks that are further apart are to be set right")
    return found


def _some(value: tuple[str, ...]) -> None:
    if not value:
        raise ValueError("nobody's token would be taken; write who it must be for, such as the service's own name")


def _somewhere(value: tuple[str, ...]) -> None:
    if not value:
        raise ValueError(
            "would hold nowhere; leave the key out for every path, or write `issuers: []` to turn tokens off"
        )


def _few(value: tuple[TokenIssuer, ...]) -> None:
    if len(value) > MAX_ISSUERS:
        raise ValueError(f"write at most {MAX_ISSUERS} issuers")
    names = [issuer.issuer for issuer in value]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{twice} stands there twice; write its audiences as one list")


_word = passing(_check_word, f"^{_WORD}$")
_location = passing(_check_location, f"^({_JWKS})$")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIssuer(Section):
    """Who signs tokens: all three keys must be given."""

    SCHEMA: ClassVar[Mapping[str, Any]] = {"required": ["issuer", "jwks", "audiences"]}

    issuer: str = omitted(_word, "The claim `iss` of its tokens, letter by letter, such as `https://id.example/`.")
    jwks: str = omitted(
        _location,
        """Its public keys (a JSON Web Key Set, RFC 7517): a file's absolute path on every machine of the service, or a
        URL. A file is looked at every second; a URL is asked every five minutes, and for a key that is not known at
        most every 5 seconds. What was read last stays in force while it cannot be read. Over `http://` whoever is on
        the way can put in keys of their own: only for a host that is trusted as this one is.""",
    )
    audiences: tuple[str, ...] = omitted(
        each(single(_word), after=_some, minItems=1),
        """One of them must be among the token's `aud`. There is no default, because a token that the issuer gave for
        another service must not open this one (RFC 8725, 3.9).""",
    )

    def misfits(self) -> Iterator[tuple[str, str]]:
        """All of them."""
        if missing := [key for key in ("issuer", "jwks", "audiences") if getattr(self, key) is None]:
            yield "", f"write {', '.join(missing)} too"

    def plan(self) -> Issuer:
        """As the core reads it."""
        return Issuer(self.issuer, self.jwks, self.audiences)


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtSection(Section):
    """Tokens (JWT) of end users, in `Authorization: Bearer …`; nowhere else are they looked for.

    A token must be signed by a key of its issuer (RS256–512, PS256–512, ES256–512, EdDSA; never `none`, never HS256,
    whose key both sides know), which it must name (`kid`) only where the issuer has more than 8. It must not be longer
    than 8 KiB, must name an `exp` that is not over and an audience of the list, and its `nbf` and `iat` must not lie
    ahead. One that is none of this is answered with 401, where tokens are not required too: a caller that shows a bad
    one is not the caller it says it is. As long as an issuer's keys were never read, its tokens can be neither taken
    nor refused: 503, so that callers try again and keep them.

    `mesh.claims()` gives the application what a good token says. Access rules do not look at claims. Python's PyJWT
    does the work: `pip install 'meshsdk[jwt]'`; without it, what needs a token is answered with 503.
    """

    issuers: tuple[TokenIssuer, ...] = setting(
        each(section(TokenIssuer), after=_few, maxItems=MAX_ISSUERS),
        [],
        """Whose tokens are taken. Without any, and nothing required, tokens are not looked at. The list of a service
        replaces that of `_mesh`.""",
    )
    required: bool = setting(
        flag,
        False,
        """`true` answers a request without a token with 401. `false` lets it pass, without claims; it is the default so
        that tokens can be checked before all callers have one, as in Istio. Required without issuers refuses all.""",
    )
    paths: tuple[str, ...] = setting(
        each(single(path), after=_somewhere, minItems=1),
        ["/*"],
        """Where tokens are looked at, as in access rules: `/api/*`, `/orders`. Where a path can be read in several
        ways, one that fits is enough. The default is everywhere; elsewhere there are no claims.""",
    )
    allow_preflight: bool = setting(
        flag,
        False,
        """`true` lets a browser's preflight (`OPTIONS` with `Origin` and `Access-Control-Request-Method`) pass without
        a token where one is required: it never brings one, and pages of other origins cannot call without its answer.
        Intentions and access rules hold for it all the same. `false` is the default, as in Envoy
        (`bypass_cors_preflight`): anybody can send what looks like one, and `required` is to mean every request until
        somebody says that the application's `OPTIONS` may be asked by all.""",
    )
    clock_skew: float = setting(
        Kind(_skew, duration.schema),
        "30s",
        """How far our clock and the issuer's may be apart when `exp`, `nbf` and `iat` are read; at most `5m`. Machines
        with NTP are milliseconds apart, those without drift by seconds a day.""",
    )

    def plan(self) -> Jwt | None:
        """As the core reads it; None where tokens are not looked at."""
        if not self.issuers and not self.required:
            return None
        issuers = tuple(issuer.plan() for issuer in self.issuers)
        return Jwt(issuers, self.clock_skew, self.required, self.paths, self.allow_preflight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authentication(Section):
    """Which end users' tokens the service takes. It is about the people behind a request; who calls, among services, is
    known by certificates (`tls`).

    It is the served side's: it stands in `_mesh` and in a service's document, not in `from`.

    ```yaml
    authentication:
      jwt:
        issuers:
          - {issuer: https://id.example/, jwks: https://id.example/jwks.json, audiences: [shop]}
        required: true
        paths: [/api/*]
    ```
    """

    jwt: JwtSection = setting(section(JwtSection), {}, "Tokens of end users.")

    def plan(self) -> Jwt | None:
        """As the core reads it."""
        return self.jwt.plan()

    @staticmethod
    def dump(jwt: Jwt | None) -> dict[str, Any]:
        """As a document would write it."""
        jwt = jwt or Jwt(())
        issuers = [
            {"issuer": issuer.name, "jwks": issuer.jwks, "audiences": list(issuer.audiences)} for issuer in jwt.issuers
        ]
        return {
            "jwt": {
                "issuers": issuers,
                "required": jwt.required,
                "paths": list(jwt.paths),
                "allow_preflight": jwt.allow_preflight,
                "clock_skew": duration_text(jwt.clock_skew),
            }
        }
