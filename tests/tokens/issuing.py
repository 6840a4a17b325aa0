"""An issuer of the tests' own: keys of each kind, key sets, and tokens good and bad."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from functools import lru_cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from meshsdk.core.tokens import Issuer, Jwt

NAME = "https://id.example/"
AUDIENCE = "shop"
JWKS = "/keys.json"
POLICY = Jwt((Issuer(NAME, JWKS, (AUDIENCE, "second")),))
REQUIRED = Jwt(POLICY.issuers, required=True)

MADE = {
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "RSA-1024": lambda: rsa.generate_private_key(65537, 1024),
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
}


def private(kind: str = "RSA", number: int = 0) -> Any:
    return _private(kind, number)


@lru_cache
def _private(kind: str, number: int) -> Any:
    return MADE[kind]()


def jwk(kind: str = "RSA", number: int = 0, **more: Any) -> dict[str, Any]:
    """The public key as a key set has it; its name is the kind and the number."""
    public = private(kind, number).public_key()
    writer: Any = RSAAlgorithm if kind.startswith("RSA") else OKPAlgorithm if kind.startswith("Ed") else ECAlgorithm
    return {**writer.to_jwk(public, as_dict=True), "kid": f"{kind}#{number}", **more}


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys or [jwk()]}).encode()


def claims(**more: Any) -> dict[str, Any]:
    """What a good token says; None takes a claim out."""
    now = int(time.time())
    usual = {"iss": NAME, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 300}
    return {name: value for name, value in {**usual, **more}.items() if value is not None}


def token(
    kind: str = "RSA", number: int = 0, *, alg: str = "RS256", head: dict[str, Any] | None = None, **more: Any
) -> str:
    headers = {"kid": f"{kind}#{number}", **(head or {})}
    return jwt.encode(claims(**more), private(kind, number), alg, headers=headers)


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def by_hand(header: Any, payload: Any, signature: bytes = b"") -> str:
    """A token that no library would make."""
    return f"{part(header)}.{part(payload)}.{part(signature)}"


def by_secret(secret: bytes, header: dict[str, Any], payload: dict[str, Any]) -> str:
    """A token signed with HMAC, whatever its secret is."""
    signed = f"{part(header)}.{part(payload)}"
    return f"{signed}.{part(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"
