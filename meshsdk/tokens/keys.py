"""The public keys of one issuer, read from a JSON Web Key Set (RFC 7517).

Rule 1: a key decides by its kind which algorithms it is for; a token chooses among those only. Symmetric keys are left
        out, so no public key can ever be the secret of an HMAC.
Rule 2: only a key's public members are read, whatever else stands beside them.
Rule 3: a token that names no key may be signed with any of few: two are there while an issuer changes its key. Where
        there are more it must name one, as each that is tried costs as much as the one that fits.
Rule 4: one key that cannot be used does not cost the others: it is left out, and said so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["ALGORITHMS", "MAX_BYTES", "MAX_TRIED", "BadKeys", "Key", "KeySet", "read_keys"]

MAX_BYTES = 512 * 1024
"""Of a key set: a key has a kilobyte, with its certificates some more."""

MAX_KEYS = 100

MAX_TRIED = 8
"""Keys of a set whose tokens need not name theirs: a check that fails takes 0.1 ms with RSA, 0.7 ms with P-521."""

_RSA_BITS = range(2048, 8193)  # RFC 7518, 3.3 from below; from above a check would take milliseconds

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_ALGORITHMS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("RSA", ""): _RSA,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("OKP", "Ed448"): ("EdDSA",),
}
ALGORITHMS = frozenset(name for names in _ALGORITHMS.values() for name in names)
"""All that a token may be signed with."""

_PUBLIC = ("kty", "n", "e", "crv", "x", "y")


class BadKeys(Exception):
    """A key set that cannot be used; says why."""


@dataclass(frozen=True, slots=True)
class Key:
    """One public key.

    Attributes:
        kid: its name; empty where it has none.
        algorithms: those that it is for.
        public: the key as `cryptography` has it.
    """

    kid: str
    algorithms: tuple[str, ...]
    public: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of an issuer.

    Attributes:
        keys: in the order of the document.
        left_out: why others are not among them.
        text: the document, for whoever passes it on.
    """

    keys: tuple[Key, ...]
    left_out: tuple[str, ...] = ()
    text: bytes = field(default=b"", repr=False, compare=False)

    def named(self, kid: str | None) -> tuple[Key, ...]:
        """The keys a token may mean that names this one; one that names none may mean any (rule 3)."""
        if kid is None:
            return self.keys if len(self.keys) <= MAX_TRIED else ()
        return tuple(key for key in self.keys if key.kid == kid)


def read_keys(text: bytes) -> KeySet:
    """Read a key set.

    Raises:
        BadKeys: it is none, or has no key that can be used.
        ImportError: PyJWT is not installed.
    """
    if len(text) > MAX_BYTES:
        raise BadKeys(f"it has more than {MAX_BYTES} bytes")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise BadKeys("it is not JSON") from None
    found = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(found, list):
        raise BadKeys('it has no list "keys", as a JSON Web Key Set does')
    if len(found) > MAX_KEYS:
        raise BadKeys(f"it has {len(found)} keys, at most {MAX_KEYS} are read")
    return replace(_usable(found), text=text)


def _usable(found: Sequence[Any]) -> KeySet:
    keys: list[Key] = []
    left_out: list[str] = []
    for number, content in enumerate(found):
        try:
            keys.append(_key(content))
        except BadKeys as why:
            left_out.append(f"keys[{number}] {why}")
        except (TypeError, ValueError):
            left_out.append(f"keys[{number}] has a member that is not what it should be")
    if not keys:
        raise BadKeys("; ".join(["none of its keys can be used", *left_out[:3]]))
    return KeySet(tuple(keys), tuple(left_out))


def _key(content: Any) -> Key:
    if not isinstance(content, dict):
        raise BadKeys("is no key")
    algorithms = _algorithms(content)
    kid = content.get("kid", "")
    if not isinstance(kid, str):
        raise BadKeys("has a kid that is no text")
    return Key(kid, algorithms, _public(content, algorithms[0]))


def _algorithms(content: Mapping[str, Any]) -> tuple[str, ...]:
    kind = str(content.get("kty")), "" if content.get("kty") == "RSA" else str(content.get("crv"))
    known = _ALGORITHMS.get(kind)
    if known is None:
        raise BadKeys("is of a kind that is not used: RSA, P-256, P-384, P-521, Ed25519 and Ed448 are")
    if content.get("use", "sig") != "sig" or "verify" not in content.get("key_ops", ["verify"]):
        raise BadKeys("is not for checking signatures")
    named = content.get("alg")
    if named is not None and named not in known:
        raise BadKeys(f"names an algorithm it cannot be for, or one that is not used: {', '.join(known)} are")
    return known if named is None else (named,)


def _public(content: Mapping[str, Any], algorithm: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from jwt import PyJWK
    from jwt.exceptions import PyJWTError

    try:
        public = PyJWK({name: content[name] for name in _PUBLIC if name in content}, algorithm).key
    except (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, AttributeError, KeyError) as wrong:
        raise BadKeys(f"cannot be read: {str(wrong)[:100]}") from None
    if algorithm in _RSA and public.key_size not in _RSA_BITS:
        raise BadKeys(f"has {public.key_size} bits, 2048 to 8192 are taken")
    return public
