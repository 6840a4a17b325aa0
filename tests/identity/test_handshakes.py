"""Real handshakes, on blocking sockets, asyncio and uvloop: who is let in, who is not, and what is said about it."""

from __future__ import annotations

import logging
import ssl
from datetime import timedelta

import pytest

from meshsdk.identity.contexts import client_context, server_context
from meshsdk.identity.material import Material
from meshsdk.identity.verify import expecting
from meshsdk.wire.security import PeerRejected, Security
from tests.identity.certificates import DOMAIN, NOW, Pair, id_of, issue, leaf, material, unchecked
from tests.identity.ends import KINDS, Exchange, on_threads


@pytest.fixture(params=list(KINDS))
def exchange(request: pytest.FixtureRequest) -> Exchange:
    return KINDS[request.param]


def calling(service: str, made: Material, domains: tuple[str, ...] = (DOMAIN,)) -> Security:
    return Security(client_context(made), service, expecting(service, domains))


def test_both_ends_know_each_other(exchange: Exchange, ca: Pair):
    seen = exchange(server_context(material("web", ca)), calling("web", material("api", ca)))
    assert (seen.error, seen.answer, seen.read) == (None, b"pong", b"ping")
    assert (seen.peer, seen.version) == (id_of("api"), "TLSv1.3")


SERVERS = {
    "another service": (lambda ca: material("api", ca), f"the peer is {id_of('api')}; it should be service web"),
    "another trust domain": (
        lambda ca: material("web", ca, domain="evil.consul"),
        f"the peer is {id_of('web', 'evil.consul')}, of a foreign trust domain; it should be service web",
    ),
    "two URI names": (
        lambda ca: unchecked(issue("web", ca, (id_of("web"), id_of("api"))), ca),
        "has 2 URI names .*exactly one SPIFFE id",
    ),
    "an id in the CN only": (lambda ca: unchecked(issue("spiffe://test.consul/x", ca), ca), "has no URI name"),
    "another URI": (lambda ca: unchecked(issue("web", ca, ("https://web/",)), ca), "the peer is nobody"),
    "expired": (
        lambda ca: unchecked(leaf("web", ca, start=NOW - timedelta(9), end=NOW - timedelta(minutes=1)), ca),
        "certificate has expired",
    ),
    "not yet valid": (lambda ca: unchecked(leaf("web", ca, start=NOW + timedelta(minutes=50)), ca), "not yet valid"),
    "self-signed": (
        lambda ca: unchecked(issue("web", None, (id_of("web"),), ca=False), ca),
        "self-signed certificate",
    ),
    "another CA": (lambda ca: unchecked(leaf("web", issue("test ca")), ca), "certificate verify failed"),
}


@pytest.mark.parametrize("case", list(SERVERS))
def test_a_client_sends_nothing_to(exchange: Exchange, ca: Pair, case: str):
    make, words = SERVERS[case]
    context = server_context(make(ca))
    context.trust_domains = (DOMAIN,)
    seen = exchange(context, calling("web", material("api", ca)))
    assert (seen.read, seen.answer) == (b"", b"")
    assert isinstance(seen.error, PeerRejected | ssl.SSLCertVerificationError)
    with pytest.raises(type(seen.error), match=words):
        raise seen.error


CLIENTS = {
    "another trust domain": (
        lambda ca: material("api", ca, domain="evil.consul"),
        f"the peer is {id_of('api', 'evil.consul')}, of a foreign trust domain; it should be of spiffe://{DOMAIN}",
    ),
    "two URI names": (
        lambda ca: unchecked(issue("api", ca, (id_of("web"), id_of("api"))), ca),
        "has 2 URI names",
    ),
    "an id in the CN only": (lambda ca: unchecked(issue("spiffe://test.consul/x", ca), ca), "has no URI name"),
    "expired": (
        lambda ca: unchecked(leaf("api", ca, start=NOW - timedelta(9), end=NOW - timedelta(minutes=1)), ca),
        "certificate has expired",
    ),
    "not yet valid": (lambda ca: unchecked(leaf("api", ca, start=NOW + timedelta(minutes=50)), ca), "not yet valid"),
    "self-signed": (
        lambda ca: unchecked(issue("api", None, (id_of("api"),), ca=False), ca),
        "self-signed certificate",
    ),
    "another CA": (lambda ca: unchecked(leaf("api", issue("test ca")), ca), "certificate verify failed"),
}


@pytest.mark.parametrize("case", list(CLIENTS))
def test_a_server_reads_nothing_from(exchange: Exchange, ca: Pair, case: str, caplog: pytest.LogCaptureFixture):
    make, words = CLIENTS[case]
    with caplog.at_level(logging.WARNING, "meshsdk.identity"):
        context = server_context(material("web", ca))
        seen = exchange(context, calling("web", make(ca)))
    assert (seen.read, seen.peer, seen.answer) == (b"", "", b"")
    [line] = [record.getMessage() for record in caplog.records if record.name == "meshsdk.identity"]
    assert line.startswith("a caller's TLS handshake failed: ")
    assert words in line
    assert context.refusals.total == 1


def test_a_client_without_a_certificate(exchange: Exchange, ca: Pair, caplog: pytest.LogCaptureFixture):
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname = False
    bare.load_verify_locations(cadata=ca.pem.decode())
    seen = exchange(server_context(material("web", ca)), Security(bare, "web", expecting("web", [DOMAIN])))
    assert (seen.read, seen.peer, seen.answer) == (b"", "", b"")
    assert "peer did not return a certificate" in caplog.text


def test_a_client_of_tls_1_2(exchange: Exchange, ca: Pair, caplog: pytest.LogCaptureFixture):
    client = calling("web", material("api", ca))
    client.context.minimum_version = ssl.TLSVersion.TLSv1_2
    client.context.maximum_version = ssl.TLSVersion.TLSv1_2
    seen = exchange(server_context(material("web", ca)), client)
    assert isinstance(seen.error, OSError)
    assert (seen.read, seen.answer) == (b"", b"")
    assert "unsupported protocol" in caplog.text


def test_a_server_of_tls_1_2(exchange: Exchange, ca: Pair):
    server = server_context(material("web", ca))
    server.minimum_version = ssl.TLSVersion.TLSv1_2
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    seen = exchange(server, calling("web", material("api", ca)))
    assert isinstance(seen.error, OSError)
    assert (seen.read, seen.answer) == (b"", b"")


def test_a_trust_domain_that_is_listed(exchange: Exchange, ca: Pair):
    server = server_context(material("web", ca, domain="dc2.consul"), trust_domains=[DOMAIN])
    seen = exchange(server, calling("web", material("api", ca), (DOMAIN, "dc2.consul")))
    assert (seen.error, seen.read, seen.peer) == (None, b"ping", id_of("api"))


def test_no_session_can_be_resumed(ca: Pair):
    """The first half shows that the second could fail: with tickets, Python's client does resume."""
    careless = server_context(material("web", ca))
    careless.num_tickets = 2
    client = calling("web", material("api", ca))
    session = on_threads(careless, client).session
    assert on_threads(careless, client, session).resumed is True

    session = on_threads(server_context(material("web", ca)), client).session
    assert session is not None
    assert not session.has_ticket
