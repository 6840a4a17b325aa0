"""The dev agent's CA on a virtual clock: when it renews, what it forgets, what it refuses."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cryptography import x509

from meshsdk_registry.agent.authority import Authority, Configuration, Lifetimes
from meshsdk_registry.agent.certificates import make_key, private_pem
from meshsdk_registry.agent.journal import Journal

BORN = datetime(2026, 11, 21, 12, 0, 0, 900_000, tzinfo=UTC)


@pytest.fixture
def authority(clock):
    def made(seed=7, **lifetimes) -> Authority:
        start = clock.now
        return Authority(
            Journal(),
            "dc1",
            Lifetimes(**lifetimes),
            clock=clock,
            today=lambda: BORN + timedelta(seconds=clock.now - start),
            rng=random.Random(seed),
        )

    return made


def test_a_leaf_is_renewed_at_60_to_90_percent_of_its_life(authority, clock):
    due = []
    for seed in range(200):
        made = authority(seed, leaf=100)
        due.append(made.leaf("web").renewed_at - clock.now)
    assert 60 <= min(due) < 63
    assert 87 < max(due) <= 90


def test_renewal_goes_on_while_somebody_asks_and_ends_after(authority, clock):
    made = authority(leaf=10)
    first = made.leaf("web")
    clock.now = made.next_renewal() - 0.001
    made.renew(clock.now)
    assert made.leaf("web") is first
    clock.now = made.next_renewal()
    made.renew(clock.now)
    second = made.leaf("web")
    assert second.serial > first.serial
    assert (second.created, second.modified > first.modified) == (first.created, True)
    clock.now = made.next_renewal()
    made.renew(clock.now)  # asked for: signed anew
    clock.now = made.next_renewal()
    made.renew(clock.now)  # nobody asked since
    assert made.next_renewal() is None
    assert made.leaf("web").created > second.created


@pytest.mark.parametrize("seconds", [1, 5, 3599, 3600, 72 * 3600])
def test_a_leaf_lives_as_long_as_it_is_said(authority, seconds):
    leaf = authority(leaf=seconds).leaf("web")
    now, life = BORN, timedelta(seconds=seconds)
    back_dated = timedelta(minutes=1) if seconds >= 3600 else timedelta()
    assert leaf.valid_after == now.replace(microsecond=0) - back_dated
    assert timedelta() <= leaf.valid_before - (now + life - back_dated) <= timedelta(seconds=1) or seconds >= 3600
    assert leaf.valid_before >= now.replace(microsecond=0) + life - back_dated


def test_a_rotation_brings_the_renewals_forward_into_the_jitter(authority, clock):
    made = authority(jitter=3.0)
    for number in range(50):
        made.leaf(f"web-{number}")
    made.configure(Configuration({"PrivateKey": private_pem(make_key())}))
    clock.now += 3.0
    serials = {number: made.leaf(f"web-{number}").serial for number in range(50)}
    assert made.next_renewal() <= clock.now
    made.renew(clock.now)
    assert all(made.leaf(f"web-{number}").serial > serials[number] for number in range(50))
    assert all(leaf.chain.count("BEGIN CERTIFICATE") == 2 for leaf in map(made.leaf, ["web-0", "web-49"]))


def test_every_rotation_is_vouched_for_by_the_root_before(authority):
    made = authority()
    for _ in range(3):
        made.configure(Configuration({"PrivateKey": private_pem(make_key())}))
    assert [root.active for root in made.roots] == [False, False, False, True]
    for former, root in zip(made.roots, made.roots[1:], strict=False):
        (text,) = root.intermediates
        vouched = x509.load_pem_x509_certificate(text.encode())
        vouched.verify_directly_issued_by(former.signer.certificate)
        assert vouched.public_key() == root.signer.key.public_key()
        assert vouched.not_valid_after_utc - vouched.not_valid_before_utc == timedelta(days=7)


def test_the_keys_of_the_ca_are_nowhere_in_what_it_says(authority):
    made = authority()
    assert "PRIVATE KEY" not in repr(made.leaf("web"))


@pytest.mark.parametrize("name", ["x" * 200, "a_b", "Web", "ä ö", "a.b", "1", "---"])
def test_any_name_but_a_path_has_a_leaf(authority, name):
    certificate = x509.load_pem_x509_certificate(authority().leaf(name).chain.encode())
    (common,) = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert len(common.value) <= 64
    assert certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)


REFUSED = [
    ({"PrivateKey": "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----"}, "error parsing private key"),
    ({"RootCert": "x"}, "leave RootCert out"),
    ({"PrivateKeyType": "rsa"}, "leave PrivateKeyType out"),
    ({"LeafCertTTL": "100ms"}, "must be greater or equal than 1s"),
    ({"LeafCertTTL": 5}, "must be greater or equal than 1s"),
    ({"LeafCertTTL": []}, "invalid duration"),
]


@pytest.mark.parametrize(("config", "words"), REFUSED, ids=str)
def test_what_the_dev_agent_cannot_do_it_refuses(dev_agent, config, words):
    url = f"{dev_agent.url}/v1/connect/ca/configuration"
    before = httpx.get(url, trust_env=False).json()
    answer = httpx.put(url, json={"Provider": "consul", "Config": config}, trust_env=False)
    assert (answer.status_code, words in answer.text) == (500, True)
    assert "AAAA" not in answer.text
    assert httpx.get(url, trust_env=False).json() == before


EXACT = [
    ({"Permissions": [{"Action": "x"}]}, "Permissions[0].Action must be set"),
    ({"Permissions": [{"Action": "deny"}]}, "missing required 'HTTP'"),
    ({"Permissions": [{"Action": "deny", "HTTP": {"PathExact": "/", "PathPrefix": "/"}}]}, "at most one of"),
    ({"Permissions": [{"Action": "deny", "HTTP": {"PathPrefix": "x"}}]}, "doesn't start with '/'"),
    ({"Permissions": [{"Action": "deny", "HTTP": {"Methods": ["GIT"]}}]}, "invalid method 'GIT'"),
    ({"Permissions": [{"Action": "deny", "HTTP": {"Header": [{"Exact": "x"}]}}]}, "missing required Name"),
    ({"Permissions": [{"Action": "deny", "HTTP": {"Header": [{"Name": "x"}]}}]}, "should only contain one of"),
    ({"Permissions": [{"Action": "deny", "HTTP": {"Query": 1}}]}, 'unknown field "Query"'),
    ({"Permissions": [{"Action": "deny", "HTTP": {"PathExact": "/"}}], "Action": "deny"}, "Action must be omitted"),
    ({}, "Action must be set to 'allow' or 'deny'"),
]


@pytest.mark.parametrize(("body", "words"), EXACT, ids=[words for _, words in EXACT])
def test_intentions_by_names_are_checked(dev_agent, body, words):
    url = f"{dev_agent.url}/v1/connect/intentions/exact?source=a&destination=b"
    answer = httpx.put(url, json=body, trust_env=False)
    assert answer.status_code in {400, 500}
    assert words in answer.text
    assert httpx.get(url, trust_env=False).status_code == 404


def test_permissions_for_any_destination_are_refused(dev_agent):
    url = f"{dev_agent.url}/v1/connect/intentions/exact?source=a&destination=*"
    answer = httpx.put(url, json={"Permissions": [{"Action": "deny", "HTTP": {"PathExact": "/"}}]}, trust_env=False)
    assert "wildcarded destinations" in answer.text
    assert httpx.put(f"{dev_agent.url}/v1/connect/intentions/exact?source=a", trust_env=False).status_code == 500
    assert httpx.get(f"{dev_agent.url}/v1/connect/intentions?filter=x", trust_env=False).status_code == 400
