"""Material: what belongs together is taken, anything else refused with words that say what to do."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from meshsdk.identity.examination import examined
from meshsdk.identity.material import BadMaterial, Material
from meshsdk.identity.spiffe import SpiffeId
from tests.identity.certificates import NOW, Pair, assemble, id_of, issue, leaf

SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


def of(pair: Pair, roots: bytes, *, key: bytes | None = None, chain: bytes = b"", **options: object) -> Material:
    pem = (pair.pem + chain).decode()
    return examined(pem, (key or pair.key_pem()).decode(), roots.decode(), **{"now": NOW} | options)  # type: ignore[arg-type]


def test_what_it_says(ca: Pair):
    web = leaf("web", ca, uses=(SERVER, CLIENT))
    found = of(web, ca.pem, trust_domain="test.consul")
    assert found.spiffe_id == SpiffeId.parse(id_of("web"))
    assert found.trust_domain == "test.consul"
    assert (found.not_before, found.not_after) == (
        web.certificate.not_valid_before_utc,
        web.certificate.not_valid_after_utc,
    )
    assert found.used_up(0.5) == found.not_before + timedelta(hours=1)
    assert found.serial == f"{web.certificate.serial_number:x}"
    assert str(found).startswith(f"{id_of('web')}, serial ")
    assert "PRIVATE" not in repr(found)


def test_all_roots_are_trusted_and_one_expired_among_them_is_no_mistake(ca: Pair):
    old = issue("old ca", start=NOW - timedelta(9), end=NOW - timedelta(1))
    assert of(leaf("web", ca), old.pem + ca.pem).roots_pem.count("BEGIN") == 2


def test_the_chain_leads_to_a_root_over_intermediates_in_any_order():
    root = issue("root")
    upper = issue("upper", root, ca=True)
    lower = issue("lower", upper, ca=True)
    web = leaf("web", lower)
    for chain in (lower.pem + upper.pem, upper.pem + lower.pem):
        assert of(web, root.pem, chain=chain).chain_pem.count("BEGIN") == 3
    with pytest.raises(BadMaterial, match=r"leads to none of the 1 roots.*'CN=upper'"):
        of(web, root.pem, chain=lower.pem)


def test_a_cross_signed_intermediate_leads_to_the_old_root():
    old, new = issue("old"), issue("new")
    cross = issue("new", old, ca=True, key=new.key)
    web = leaf("web", new)
    of(web, old.pem, chain=cross.pem)
    of(web, new.pem, chain=cross.pem)


def test_remarks_around_certificates_are_left_out(ca: Pair):
    found = of(leaf("web", ca), b"Subject: CN = x\xc3\xa9\n" + ca.pem)
    assert found.roots_pem == ca.pem.decode()


def test_a_key_of_the_old_form_is_taken(ca: Pair):
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    web = leaf("web", ca)
    of(web, ca.pem, key=web.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda ca: of(issue("web", ca), ca.pem), r"certificate of CN=web: exactly one URI name .* it has none"),
        (
            lambda ca: of(issue("web", ca, (id_of("web"), id_of("api"))), ca.pem),
            r"exactly one URI name .* it has 'spiffe:.*/web' and 'spiffe:.*/api'",
        ),
        (lambda ca: of(issue("spiffe://x/y", ca), ca.pem), r"exactly one URI name"),
        (lambda ca: of(issue("web", ca, ("https://web",)), ca.pem), r"must start with spiffe://"),
        (lambda ca: of(issue("web", ca, ("spiffe://test.consul",)), ca.pem), r"whole trust domain"),
        (lambda ca: of(leaf("web", ca), ca.pem, trust_domain="other.consul"), r"not that of the roots, other\.consul"),
        (lambda ca: of(leaf("web", ca), issue("test ca").pem), r"leads to none of the 1 roots"),
        (lambda ca: of(leaf("web", ca), leaf("api", ca).pem), r"roots: CN=api is no CA"),
        (
            lambda ca: of(leaf("web", ca), issue("o", start=NOW - timedelta(9), end=NOW - timedelta(1)).pem),
            r"roots: none is valid now: the first one expired on",
        ),
        (lambda ca: of(leaf("web", ca), b""), r"roots: no PEM certificate"),
        (lambda ca: of(leaf("web", ca), b"hello"), r"roots: no PEM certificate"),
        (lambda ca: of(leaf("web", ca), ca.pem[:200]), r"roots: no PEM certificate"),
        (lambda ca: of(leaf("web", ca), ca.pem, key=b"hello"), r"key: no PEM private key"),
        (lambda ca: of(leaf("web", ca), ca.pem, key=ca.key_pem()), r"key: not that of the first certificate"),
        (lambda ca: of(leaf("web", ca), ca.pem, key=leaf("web", ca).key_pem(b"x")), r"key: it is encrypted"),
        (lambda ca: of(leaf("web", ca, end=NOW - timedelta(seconds=1)), ca.pem), r"expired on"),
        (lambda ca: of(leaf("web", ca, start=NOW + timedelta(seconds=5)), ca.pem), r"not valid before .*clock"),
        (lambda ca: of(leaf("web", ca, uses=(SERVER,)), ca.pem), r"leaves out client authentication"),
        (lambda ca: of(leaf("web", ca, uses=(CLIENT,)), ca.pem), r"leaves out server authentication"),
        (lambda ca: of(issue("web", ca, ca=True), ca.pem), r"exactly one URI name"),
        (lambda ca: assemble(ca, ca), r"exactly one URI name"),
        (lambda ca: examined("", "", "", now=NOW), r"certificate: no PEM certificate"),
    ],
)
def test_what_is_wrong_is_told(ca: Pair, make, why: str):
    with pytest.raises(BadMaterial, match=why):
        make(ca)


def test_a_self_signed_workload_is_none_of_the_roots(ca: Pair):
    key = ec.generate_private_key(ec.SECP256R1())
    alone = issue("web", None, (id_of("web"),), ca=False, key=key)
    with pytest.raises(BadMaterial, match="leads to none"):
        of(alone, ca.pem)
    with pytest.raises(BadMaterial, match="is no CA"):
        of(alone, alone.pem)


def test_roots_may_be_believed_while_the_certificate_leads_to_none(ca: Pair):
    of(leaf("web", issue("dropped")), ca.pem, rooted=False)
