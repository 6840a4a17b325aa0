"""Which tokens are good. Invariant: only one signed by a key of the very issuer it names is, with everything in force;
all else ends in BadToken, whatever it is."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshsdk.core.tokens import MAX_TOKEN, BadToken, Issuer, Jwt, bearer
from meshsdk.tokens.keys import MAX_TRIED, KeySet, read_keys
from meshsdk.tokens.verify import verify
from tests.tokens.issuing import AUDIENCE, NAME, POLICY, by_hand, by_secret, claims, jwk, jwks, part, private, token

ONE = read_keys(jwks())
HEADER = {"alg": "RS256", "typ": "JWT", "kid": "RSA#0"}


def judged(
    text: str, policy: Jwt = POLICY, keys: KeySet | None = ONE, missed: list[str] | None = None
) -> Mapping[str, Any]:
    return verify(text, policy, lambda _: keys, (missed if missed is not None else []).append)


def refusal(text: str, policy: Jwt = POLICY, keys: KeySet | None = ONE) -> str:
    with pytest.raises(BadToken) as refused:
        judged(text, policy, keys)
    return refused.value.code


@pytest.mark.parametrize(
    ("kind", "algorithms"),
    [
        ("RSA", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]),
        ("P-256", ["ES256"]),
        ("P-384", ["ES384"]),
        ("P-521", ["ES512"]),
        ("Ed25519", ["EdDSA"]),
        ("Ed448", ["EdDSA"]),
    ],
)
def test_every_asymmetric_algorithm_is_taken(kind: str, algorithms: list[str]) -> None:
    keys = read_keys(jwks(jwk(kind)))
    for algorithm in algorithms:
        assert judged(token(kind, alg=algorithm, role="admin"), keys=keys)["role"] == "admin"


def test_what_a_good_token_says_is_told_whole() -> None:
    assert judged(token(aud=["other", AUDIENCE], x={"a": [1]}))["x"] == {"a": [1]}


# --- algorithms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", "HS256", "HS512", "RS1", None, 5, ["RS256"], {}])
@pytest.mark.parametrize("signature", [b"", b"x" * 256])
def test_no_other_algorithm_is_taken(algorithm: Any, signature: bytes) -> None:
    assert refusal(by_hand({**HEADER, "alg": algorithm}, claims(), signature)) in {"algorithm", "malformed"}


def test_a_good_signature_is_no_reason_to_take_none() -> None:
    _, payload, signature = token().split(".")
    assert refusal(f"{part({**HEADER, 'alg': 'none'})}.{payload}.{signature}") == "algorithm"


@pytest.mark.parametrize("form", ["PEM", "DER", "JWK"])
def test_a_public_key_is_no_secret(form: str) -> None:
    """The oldest trick: HS256 with the public key, which everybody has."""
    public = private().public_key()
    written = serialization.PublicFormat.SubjectPublicKeyInfo
    secret = {
        "PEM": public.public_bytes(serialization.Encoding.PEM, written),
        "DER": public.public_bytes(serialization.Encoding.DER, written),
        "JWK": json.dumps(jwk()).encode(),
    }[form]
    assert refusal(by_secret(secret, {**HEADER, "alg": "HS256"}, claims())) == "algorithm"
    assert refusal(by_secret(secret, HEADER, claims())) == "signature"


def test_a_key_that_names_its_algorithm_is_for_no_other() -> None:
    keys = read_keys(jwks(jwk(alg="RS256")))
    assert judged(token(), keys=keys)
    assert refusal(token(alg="PS256"), keys=keys) == "algorithm"
    assert refusal(token(alg="RS512"), keys=keys) == "algorithm"


def test_a_key_is_not_for_the_algorithm_of_another_kind() -> None:
    keys = read_keys(jwks(jwk(), jwk("P-256")))
    assert refusal(token("P-256", alg="ES256", head={"kid": "RSA#0"}), keys=keys) == "algorithm"


# --- keys -----------------------------------------------------------------------------------------------


def test_an_unknown_key_is_refused_and_asked_for() -> None:
    missed: list[str] = []
    with pytest.raises(BadToken, match="no such key"):
        judged(token("RSA", 1), missed=missed)
    assert missed == ["/keys.json"]


def test_another_key_under_a_known_name_does_not_fit() -> None:
    assert refusal(token("RSA", 1, head={"kid": "RSA#0"})) == "signature"


def test_a_token_brings_no_key_of_its_own() -> None:
    for header in ({"jwk": jwk("RSA", 1)}, {"jku": "http://127.0.0.1:1/keys"}, {"x5u": "http://127.0.0.1:1/c"}):
        assert refusal(token("RSA", 1, head={"kid": "RSA#0", **header})) == "signature"


def nameless(number: int = 0, **more: Any) -> str:
    return jwt.encode(claims(**more), private("RSA", number), "RS256")


def test_without_a_name_any_key_may_be_meant() -> None:
    """As while an issuer changes its key."""
    keys = read_keys(jwks(jwk("P-256"), jwk(), jwk("RSA", 1)))
    for number in (0, 1):
        assert judged(nameless(number), keys=keys)["sub"] == "ada"
        assert refusal(nameless(number, exp=1), keys=keys) == "expired"
        assert refusal(token("RSA", number, head={"kid": "RSA#2"}), keys=keys) == "key"
    assert judged(jwt.encode(claims(), private("P-256"), "ES256"), keys=keys)
    assert refusal(jwt.encode(claims(), private("Ed25519"), "EdDSA"), keys=keys) == "algorithm"


def test_without_a_name_a_key_that_fits_is_asked_for() -> None:
    missed: list[str] = []
    with pytest.raises(BadToken, match="signature"):
        judged(nameless(2), keys=read_keys(jwks(jwk(), jwk("RSA", 1))), missed=missed)
    assert missed == ["/keys.json"]


def test_among_many_keys_a_token_must_name_its_own() -> None:
    many = [jwk(kid=f"key {number}") for number in range(MAX_TRIED)]
    assert judged(nameless(), keys=read_keys(jwks(*many)))
    assert refusal(nameless(), keys=read_keys(jwks(*many, jwk()))) == "key"


def test_names_of_keys_are_only_names() -> None:
    for kid in ("", "../../etc/passwd", "' or 1=1 --", "RSA#0\x00", "RSA#00"):
        assert refusal(token(head={"kid": kid})) == "key"
    for header in ({"kid": 1}, {"kid": ["RSA#0"]}):
        assert refusal(by_hand({**HEADER, **header}, claims(), b"x")) == "malformed"


def test_as_long_as_no_keys_are_known_nothing_is_said_of_the_token() -> None:
    assert refusal(token(), keys=None) == "unavailable"
    assert refusal(token(exp=1), keys=None) == "unavailable"
    assert refusal(token(iss="https://elsewhere.example/"), keys=None) == "issuer"


def test_keys_vouch_for_their_own_issuer_alone() -> None:
    policy = Jwt((*POLICY.issuers, Issuer("other", "/other.json", (AUDIENCE,))))
    keys = {"/keys.json": ONE, "/other.json": read_keys(jwks(jwk("RSA", 1, kid="RSA#0")))}
    good = token("RSA", 1, head={"kid": "RSA#0"}, iss="other")
    assert verify(good, policy, keys.get, print)["iss"] == "other"
    with pytest.raises(BadToken, match="signature"):
        verify(token(iss="other"), policy, keys.get, print)


# --- claims ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"exp": int(time.time()) - 60}, "expired"),
        ({"nbf": int(time.time()) + 1000}, "early"),
        ({"iat": int(time.time()) + 1000}, "early"),
        ({"aud": "other"}, "audience"),
        ({"aud": ["other", "shop2"]}, "audience"),
        ({"aud": []}, "claims"),
        ({"aud": None}, "claims"),
        ({"aud": "SHOP"}, "audience"),
        ({"exp": None}, "claims"),
        ({"iss": "https://id.example"}, "issuer"),
        ({"iss": None}, "issuer"),
    ],
)
def test_what_a_token_must_say(more: dict[str, Any], code: str) -> None:
    assert refusal(token(**more)) == code


ODD_CLAIMS: list[tuple[str, Any]] = [
    *(("exp", value) for value in ("soon", [], {}, float("inf"), float("nan"), True)),
    *(("nbf", "x"), ("iat", "x"), ("iat", 1e999), ("sub", 7), ("aud", 7), ("aud", [7]), ("iss", [NAME]), ("iss", {})),
]


@pytest.mark.parametrize(("name", "value"), ODD_CLAIMS)
def test_claims_of_another_kind_are_refused_though_they_are_signed(name: str, value: Any) -> None:
    signed = jwt.api_jws.encode(json.dumps({**claims(), name: value}).encode(), private(), "RS256", {"kid": "RSA#0"})
    assert refusal(signed) in {"claims", "malformed", "audience", "issuer", "expired"}


def test_clocks_may_be_apart_as_far_as_the_policy_says() -> None:
    now = int(time.time())
    for more in ({"exp": now - 20}, {"nbf": now + 20}, {"iat": now + 20}):
        assert judged(token(**more))
        assert refusal(token(**more), Jwt(POLICY.issuers, 0.0)) in {"expired", "early"}


def test_extensions_that_must_be_understood_are_not() -> None:
    assert refusal(token(head={"crit": ["exp"], "exp": 1})) == "malformed"
    assert refusal(token(head={"crit": ["b64"], "b64": True})) == "malformed"


# --- anything -------------------------------------------------------------------------------------------


def test_what_is_nested_too_deep_or_too_large_is_refused() -> None:
    deep = "[" * 3000 + "]" * 3000
    assert refusal(f"{part(HEADER)}.{part(deep.encode())}.AA") == "malformed"
    assert refusal(f"{part(deep.encode())}.{part(claims())}.AA") == "malformed"
    assert refusal(by_hand(HEADER, b'{"exp":' + b"9" * 5000 + b"}")) == "malformed"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
MEMBERS = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "crit", "b64", "iss", "aud", "exp", "nbf", "sub"]), JSON
)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.text("ey.J-_A=", max_size=60))
def test_no_text_is_a_token(text: str) -> None:
    assert refusal(text)


@settings(max_examples=300, deadline=None)
@given(MEMBERS | JSON, MEMBERS | JSON, st.booleans(), st.booleans())
@example({"crit": 5}, {}, True, True)
def test_nothing_unsigned_is_good(header: Any, payload: Any, like_ours: bool, named: bool) -> None:
    if like_ours and isinstance(header, dict):
        header = {**header, **HEADER}
    if named and isinstance(payload, dict):
        payload = {**payload, **claims()}
    assert refusal(by_hand(header, payload, b"0" * 256))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whoever_changes_a_letter_loses(data: st.DataObject) -> None:
    good = token()
    place = data.draw(st.integers(0, len(good) - 2))  # the last letter may carry bits that mean nothing
    other = data.draw(st.sampled_from("ABCXYZabcxyz0189-_."))
    changed = good[:place] + other + good[place + 1 :]
    if changed != good:
        assert refusal(changed)


# --- where tokens stand ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c ", "Bearer a.b."])
def test_a_token_stands_after_its_scheme(value: str) -> None:
    assert (bearer([value]) or "").startswith("a.b.")


@pytest.mark.parametrize("values", [[], [""], ["Basic YTpi"], ["Bearerx a.b.c"], ["a.b.c"], ["Digest a=b, Bearer c"]])
def test_other_schemes_bring_no_token(values: list[str]) -> None:
    assert bearer(values) is None


@pytest.mark.parametrize(
    ("values", "code"),
    [
        (["Bearer a.b.c", "Bearer a.b.c"], "ambiguous"),
        (["Basic x", "Bearer a.b.c"], "ambiguous"),
        (["Bearer a.b.c,Bearer d.e.f"], "malformed"),
        (["Bearer a.b.c, Basic x"], "malformed"),
        (["Bearer"], "malformed"),
        (["Bearer "], "malformed"),
        (["Bearer\ta.b.c\x00"], "malformed"),
        (["Bearer\x0ba.b.c"], "malformed"),
        (["Bearer opaque"], "malformed"),
        (["Bearer a.b.c.d.e"], "malformed"),
        (["Bearer a.b.c\n"], "malformed"),
        (["Bearer é.b.c"], "malformed"),
        (["Bearer a.b." + "c" * MAX_TOKEN], "oversize"),
    ],
)
def test_what_is_no_token_after_the_scheme_is_refused(values: list[str], code: str) -> None:
    with pytest.raises(BadToken) as refused:
        bearer(values)
    assert refused.value.code == code
