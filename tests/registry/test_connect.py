"""Certificates and the CA, on the dev agent and a real Consul: both must agree."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from meshsdk_registry import (
    Changed,
    Consul,
    Denied,
    Misunderstood,
    Rejected,
    watch_leaf,
    watch_roots,
)
from meshsdk_registry.agent import running_agent
from tests.real_consul import RealConsul

SOON = 2.0
"""Seconds a wake-up may take on a busy machine; it takes milliseconds."""


def chain_of(leaf) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(leaf.cert_pem.encode())


def handshake(leaf, trusted: str, folder) -> dict:
    """Shake hands with oneself, each end trusting only `trusted`; return what the client sees of the server."""
    path = folder / "leaf.pem"
    path.write_text(leaf.cert_pem + leaf.key_pem)
    contexts = [ssl.SSLContext(kind) for kind in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER)]
    for context in contexts:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(path)
        context.load_verify_locations(cadata=trusted)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = contexts[0].wrap_bio(back, there)
    server = contexts[1].wrap_bio(there, back, server_side=True)
    open_ends = [client, server]
    for _ in range(10):
        for end in list(open_ends):
            try:
                end.do_handshake()
                open_ends.remove(end)
            except ssl.SSLWantReadError:
                pass
    assert not open_ends
    return client.getpeercert()


async def test_a_leaf_says_who_it_is(consul, name, tmp_path):
    leaf, roots = (await consul.leaf(name)).value, (await consul.roots()).value
    assert leaf.service == name
    assert leaf.uri == f"spiffe://{roots.trust_domain}/ns/default/dc/dc1/svc/{name}"
    assert re.fullmatch(r"[0-9a-f-]{36}\.consul", roots.trust_domain)
    certificate, *_ = chain_of(leaf)
    extension = certificate.extensions.get_extension_for_class
    assert extension(x509.SubjectAlternativeName).value.get_values_for_type(x509.UniformResourceIdentifier) == [
        leaf.uri
    ]
    usages = {usage.dotted_string for usage in extension(x509.ExtendedKeyUsage).value}
    assert usages == {"1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"}
    label = re.sub("[^a-z0-9]", "", name)
    assert certificate.subject.rfc4514_string() == f"CN={label}.svc.default.{roots.trust_domain[:8]}.consul"
    assert (leaf.valid_after, leaf.valid_before) == (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    assert leaf.valid_before - leaf.valid_after == timedelta(hours=72)
    assert int(leaf.serial.replace(":", ""), 16) == certificate.serial_number
    key = load_pem_private_key(leaf.key_pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert key.public_key() == certificate.public_key()
    trusted = "".join(root.pem for root in roots.roots)
    assert handshake(leaf, trusted, tmp_path)["subjectAltName"] == (("URI", leaf.uri),)


async def test_the_key_is_not_in_the_repr(consul, name):
    leaf = (await consul.leaf(name)).value
    assert "PRIVATE KEY" in leaf.key_pem
    assert "PRIVATE KEY" not in repr(leaf)


async def test_a_leaf_stays_while_it_is_fresh(consul, name):
    first = await consul.leaf(name)
    assert await consul.leaf(name) == first
    started = time.monotonic()
    again = await consul.leaf(name, index=first.index, wait=0.3)
    assert time.monotonic() - started >= 0.25
    assert again == first


async def test_every_service_has_a_leaf_of_its_own(consul, name):
    one, other = (await consul.leaf(name)).value, (await consul.leaf(f"{name}-b")).value
    assert one.key_pem != other.key_pem
    assert one.serial != other.serial


@pytest.mark.parametrize("bad", ["", "a/b", "a b", "*"])
async def test_a_service_that_cannot_be_one_is_refused_before_asking(consul, bad):
    with pytest.raises(ValueError, match="service name"):
        await consul.leaf(bad)
    with pytest.raises(ValueError, match="service name"):
        watch_leaf(consul, bad)


async def test_roots(consul):
    answer = await consul.roots()
    roots = answer.value
    assert answer.index >= 1
    assert answer.known_leader
    root = roots.roots[0]
    assert (root.id, root.active, root.name) == (roots.active_id, True, "Consul CA Root Cert")
    certificate = x509.load_pem_x509_certificate(root.pem.encode())
    assert root.not_after == certificate.not_valid_after_utc
    assert root.not_after > datetime.now(UTC) + timedelta(days=3000)
    certificate.verify_directly_issued_by(certificate)


async def test_a_rotation_wakes_the_roots_and_keeps_the_former_one(restartable, tmp_path):
    async with Consul(restartable.url) as consul, aclosing(watch_roots(consul)) as events:
        former = (await anext(events)).answer.value
        old = (await consul.leaf("web")).value
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.wait({waiting}, timeout=0.1)
        rotated = await consul.rotate_ca()
        event = await asyncio.wait_for(waiting, SOON)
        assert isinstance(event, Changed)
        now = event.answer.value
        assert now == rotated
        assert now.active_id != former.active_id
        assert now.trust_domain == former.trust_domain
        active, kept = now.roots
        assert (active.active, kept.active) == (True, False)
        assert kept.id == former.active_id
        (vouched,) = active.intermediates
        x509.load_pem_x509_certificate(vouched.encode()).verify_directly_issued_by(
            x509.load_pem_x509_certificate(kept.pem.encode())
        )
        fresh = (await consul.leaf("late")).value
        assert len(chain_of(fresh)) == 2
        for root in now.roots:  # who knows only the former root follows the intermediate
            assert handshake(fresh, root.pem, tmp_path)["subjectAltName"] == (("URI", fresh.uri),)
        assert handshake(old, former.roots[0].pem, tmp_path)


async def test_a_rotation_keeps_what_the_operator_configured(restartable):
    path = "/v1/connect/ca/configuration"
    async with Consul(restartable.url) as consul:
        config = {"Provider": "consul", "Config": {"LeafCertTTL": "2h", "Bogus": 1}}
        await consul.raw("PUT", path, data=json.dumps(config))
        await consul.rotate_ca()
        kept = (await consul.raw("GET", path))["Config"]
        first = kept.pop("PrivateKey")
        assert kept == {"LeafCertTTL": "2h", "Bogus": 1}
        await consul.rotate_ca()
        assert (await consul.raw("GET", path))["Config"]["PrivateKey"] != first
        leaf = (await consul.leaf("web")).value
        assert leaf.valid_before - leaf.valid_after == timedelta(hours=2)
        assert len((await consul.roots()).value.roots) == 3


def test_only_another_key_rotates(restartable):
    """As Consul: the same configuration, or a lifetime, makes no root; a key, and its absence after one, does."""
    with httpx.Client(base_url=restartable.url, trust_env=False) as http:

        def active_after(**config) -> str:
            body = {"Provider": "consul", "Config": config}
            http.put("/v1/connect/ca/configuration", json=body).raise_for_status()
            return http.get("/v1/connect/ca/roots").json()["ActiveRootID"]

        key = http.get("/v1/agent/connect/ca/leaf/web").json()["PrivateKeyPEM"]
        first = http.get("/v1/connect/ca/roots").json()["ActiveRootID"]
        assert active_after() == first
        assert active_after(LeafCertTTL="2h") == first
        second = active_after(PrivateKey=key)
        assert second != first
        assert active_after(PrivateKey=key) == second
        assert active_after(PrivateKey=key, LeafCertTTL="3h") == second
        third = active_after()
        assert third not in {first, second}
        assert active_after() == third
        roots = http.get("/v1/connect/ca/roots").json()["Roots"]
        assert {root["ID"]: root["Active"] for root in roots} == {first: False, second: False, third: True}
        assert [root["ID"] for root in roots] == sorted([first, second, third])


def test_a_key_that_is_given_signs(restartable, tmp_path):
    async def rotate(pem: str):
        async with Consul(restartable.url) as consul:
            return await consul.rotate_ca(pem), (await consul.leaf("web")).value

    key = httpx.get(f"{restartable.url}/v1/agent/connect/ca/leaf/key", trust_env=False).json()["PrivateKeyPEM"]
    roots, leaf = asyncio.run(rotate(key))
    public = x509.load_pem_x509_certificate(roots.roots[0].pem.encode()).public_key()
    assert public == load_pem_private_key(key.encode(), None).public_key()
    assert handshake(leaf, roots.roots[0].pem, tmp_path)
    with pytest.raises(Exception, match="no PEM-encoded data found"):
        asyncio.run(rotate("nonsense"))


async def test_no_connect_says_how_to_switch_it_on():
    with RealConsul("-hcl", "connect { enabled = false }") as server:
        async with Consul(server.url) as consul:
            for asked in (consul.leaf("web"), consul.roots(), consul.rotate_ca()):
                with pytest.raises(Rejected, match=r"Connect must be enabled.*Write `connect \{ enabled = true \}`"):
                    await asked
            assert (await consul.intentions()).value == ()


async def test_a_token_without_permission_is_told_what_to_give():
    acl = 'acl { enabled = true default_policy = "deny" tokens { master = "root" } }'
    with RealConsul("-hcl", acl) as server:
        async with Consul(server.url) as consul:
            for asked in (consul.leaf("web"), consul.rotate_ca(), consul.put_intention("a", "b", "deny")):
                with pytest.raises(Denied, match="registry/README"):
                    await asked
            assert (await consul.roots()).value.roots  # public: everybody must verify
        async with Consul(server.url, token="root") as consul:
            assert (await consul.leaf("web")).value.service == "web"
            await consul.put_intention("a", "b", "deny")
            assert len((await consul.intentions()).value) == 1
        async with Consul(server.url) as consul:
            assert (await consul.intentions()).value == ()  # hidden, not refused


async def token_for(rules: str, url: str) -> str:
    """Make a token with these rules; a dev agent takes any."""
    async with Consul(url, token="root") as root:
        await root.raw("PUT", "/v1/acl/policy", data=json.dumps({"Name": "some", "Rules": rules}))
        made = await root.raw("PUT", "/v1/acl/token", data=json.dumps({"Policies": [{"Name": "some"}]}))
    return str(made["SecretID"])


@pytest.mark.parametrize("policy", ["allow", "deny"])
@pytest.mark.parametrize("kind", ["dev", "real"])
async def test_the_default_of_intentions_is_told_and_obeyed(kind, policy):
    """With ACLs, it is that of the ACL system; what the agent tells is what its own `authorize` does."""
    acl = f'acl {{ enabled = true default_policy = "{policy}" tokens {{ master = "root" }} }}'
    rules = 'agent_prefix "" { policy = "read" } service "web" { policy = "write" }'
    uri = "spiffe://11111111-2222-3333-4444-555555555555.consul/ns/default/dc/dc1/svc/checkout"
    asked = json.dumps({"Target": "web", "ClientCertURI": uri, "ClientCertSerial": "01"})
    with running_agent(intention_default=policy) if kind == "dev" else RealConsul("-hcl", acl) as server:
        token = "any" if kind == "dev" else await token_for(rules, server.url)
        async with Consul(server.url, token=token) as consul:
            assert (await consul.agent_info()).intention_default == policy
            told = await consul.raw("POST", "/v1/agent/connect/authorize", data=asked)
            assert told["Authorized"] is (policy == "allow"), told


async def test_another_provider_is_not_rotated(monkeypatch, dev_agent):
    from meshsdk_registry.agent import connect_views

    shown = {"Provider": "vault", "Config": {"Token": "secret"}}
    monkeypatch.setattr(connect_views, "configuration", lambda authority: shown)
    async with Consul(dev_agent.url) as consul:
        with pytest.raises(Rejected, match=r"the CA at .* is 'vault', not Consul's own"):
            await consul.rotate_ca()


async def test_garbage_is_misunderstood(monkeypatch, dev_agent):
    from meshsdk_registry.agent import connect_views

    monkeypatch.setattr(connect_views, "leaf", lambda leaf: {"Service": "web"})
    monkeypatch.setattr(connect_views, "roots", lambda authority: [])
    async with Consul(dev_agent.url) as consul:
        with pytest.raises(Misunderstood, match=r"body.ServiceURI is missing"):
            await consul.leaf("web")
        with pytest.raises(Misunderstood, match=r"expected dict"):
            await consul.roots()


# --- what only the dev agent does fast enough for a test ------------------------------------------------


async def test_leafs_of_seconds_are_renewed_before_they_end():
    with running_agent(leaf_ttl=1) as agent:
        async with Consul(agent.url) as consul, aclosing(watch_leaf(consul, "web")) as events:
            seen = []
            while len(seen) < 4:
                event = await asyncio.wait_for(anext(events), SOON)
                assert isinstance(event, Changed)
                assert event.answer.value.valid_before > datetime.now(UTC)
                seen.append(event.answer.value)
    assert len({leaf.serial for leaf in seen}) == 4
    assert len({leaf.key_pem for leaf in seen}) == 4
    assert {leaf.uri for leaf in seen} == {seen[0].uri}


async def test_a_rotation_signs_the_leafs_anew_within_the_jitter(tmp_path):
    with running_agent(rotation_jitter=0.2) as agent:
        async with Consul(agent.url) as consul, aclosing(watch_leaf(consul, "web")) as events:
            before = (await anext(events)).answer.value
            former = (await consul.roots()).value.roots[0]
            assert len(chain_of(before)) == 1
            await consul.rotate_ca()
            after = (await asyncio.wait_for(anext(events), SOON)).answer.value
            assert len(chain_of(after)) == 2
            assert after.uri == before.uri
            assert handshake(after, former.pem, tmp_path)


async def test_a_restart_without_state_has_another_trust_domain():
    with running_agent() as agent:
        async with Consul(agent.url) as consul:
            before = (await consul.roots()).value
            agent.stop()
            agent.start()
            assert (await consul.roots()).value == before
            agent.stop()
            agent.start(empty=True)
            assert (await consul.roots()).value.trust_domain != before.trust_domain


@pytest.mark.parametrize("options", [{"leaf_ttl": 0}, {"leaf_ttl": 1e9}, {"root_ttl": 0.1}, {"rotation_jitter": -1}])
def test_lifetimes_that_no_certificate_can_have(options):
    with pytest.raises(ValueError, match="write"), running_agent(**options):
        pass


async def test_the_lifetime_of_the_root():
    with running_agent(root_ttl=60) as agent:
        async with Consul(agent.url) as consul:
            (root,) = (await consul.roots()).value.roots
            assert root.not_after - datetime.now(UTC) < timedelta(seconds=62)
