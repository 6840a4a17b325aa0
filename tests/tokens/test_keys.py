"""Which keys of a key set are used. Invariant: reading one ends in a KeySet or in BadKeys, and only public keys of the
known kinds are in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsdk.tokens.keys import ALGORITHMS, MAX_BYTES, BadKeys, read_keys
from tests.tokens.issuing import jwk, jwks


def test_one_key_that_cannot_be_used_does_not_cost_the_others() -> None:
    odd: list[Any] = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "secret", "alg": "HS256"},
        jwk("secp256k1"),
        jwk("RSA-1024"),
        jwk(use="enc"),
        jwk(key_ops=["sign"]),
        jwk(key_ops=7),
        jwk(alg="HS256"),
        jwk(alg="ES256"),
        jwk(kid=7),
        {**jwk(), "n": 5},
        {**jwk(), "n": "é"},
        {**jwk("P-256"), "x": "AAAA"},
        {"kty": "RSA"},
        {"kty": ["RSA"]},
        {},
        "key",
        None,
    ]
    found = read_keys(jwks(*odd, jwk("P-384")))
    assert [key.kid for key in found.keys] == ["P-384#0"]
    assert len(found.left_out) == len(odd)


def test_only_what_is_public_is_read() -> None:
    (key,) = read_keys(jwks(jwk(d="AQAB", p="AQAB", q="AQAB", dp="AQAB", dq="AQAB", qi="AQAB"))).keys
    assert not hasattr(key.public, "sign")
    assert "public" not in repr(key)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no list"),
        (b'{"keys": {}}', "no list"),
        (b'{"keys": []}', "none of its keys"),
        (json.dumps({"keys": [{}] * 101}).encode(), "at most 100"),
        (b" " * (MAX_BYTES + 1), "bytes"),
        (json.dumps(jwk()).encode(), "no list"),
    ],
)
def test_what_is_no_key_set_is_refused_in_words(text: bytes, words: str) -> None:
    with pytest.raises(BadKeys, match=words):
        read_keys(text)


VALUES = st.none() | st.integers() | st.text(max_size=6) | st.lists(st.text(max_size=6), max_size=2)
KEYS = st.dictionaries(st.sampled_from(["kty", "crv", "n", "e", "x", "y", "d", "kid", "use", "key_ops", "alg"]), VALUES)


@settings(max_examples=300, deadline=None)
@given(st.lists(KEYS, max_size=3), st.sampled_from(["RSA", "P-256", "Ed25519"]))
def test_nothing_else_comes_of_it(changes: list[dict[str, Any]], kind: str) -> None:
    try:
        found = read_keys(jwks({}, *({**jwk(kind), **change} for change in changes)))
    except BadKeys:
        return
    for key in found.keys:
        assert set(key.algorithms) <= ALGORITHMS
        assert not hasattr(key.public, "sign")
