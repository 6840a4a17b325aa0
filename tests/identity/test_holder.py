"""What is in force: swapped whole, refused material replaces nothing, and nothing expired is used."""

from __future__ import annotations

import logging
import ssl
from dataclasses import replace
from datetime import timedelta

import pytest

from meshsdk.identity import Aged, Expired, Issued, NoIdentity, Recovered, Trouble
from meshsdk.telemetry import catalogue
from tests.identity.certificates import DOMAIN, NOW, Pair, assemble, id_of, issue, leaf, material
from tests.identity.conftest import Held, Nowhere, WallClock
from tests.identity.ends import KINDS, Exchange


@pytest.fixture(params=list(KINDS))
def exchange(request: pytest.FixtureRequest) -> Exchange:
    return KINDS[request.param]


def readings(held: Held) -> dict[str, float]:
    found = list(held.readings())
    for name, labels, _ in found:
        assert len(labels) == len(catalogue.GAUGES[name].labels)
    return {".".join((name, *labels)): value for name, labels, value in found}


def test_before_the_first(held: Held):
    assert held.state.name == "none"
    assert held.material is None
    assert held.trust_domains == frozenset()
    with pytest.raises(NoIdentity, match="no certificate yet: none was given"):
        held.client_security("web")
    held.publish(Trouble("away", "Consul is away"))
    with pytest.raises(NoIdentity, match="no certificate yet: Consul is away"):
        held.client_security("web")
    assert repr(held) == "<Identity none>"
    assert "mesh.identity.expiry" not in readings(held)


def test_what_is_published_is_in_force(held: Held, ca: Pair):
    made = material("web", ca)
    held.publish(made)
    assert held.material is made
    assert held.trust_domains == {DOMAIN}
    assert held.state.name == "valid"
    assert repr(held) == f"<Identity {id_of('web')} valid>"
    assert held.told == [Issued(made, first=True)]
    security = held.client_security("api")
    assert security is held.client_security("api")
    assert security.server_hostname == "api"
    assert readings(held) == {
        "mesh.identity.expiry": 3600.0 - NOW.microsecond / 1e6,
        "mesh.identity.renewals": 1,
        "mesh.identity.handshake_failures": 0,
    }


def test_the_same_again_changes_nothing(held: Held, ca: Pair):
    web = leaf("web", ca)
    held.publish(assemble(web, ca))
    security = held.client_security("api")
    held.publish(Trouble("away", "x"))
    assert held.state.reason == "x"
    held.publish(assemble(web, ca))
    assert held.client_security("api") is security
    assert (held.generation, held.renewals, held.state.reason) == (1, 1, "")


def test_what_tls_refuses_replaces_nothing(held: Held, ca: Pair):
    good = material("web", ca)
    held.publish(good)
    held.publish(replace(good, key_pem=leaf("api", ca).key_pem().decode()))
    assert held.material is good
    assert isinstance(held.told[-1], Trouble)
    assert "KEY_VALUES_MISMATCH" in held.told[-1].words
    assert readings(held)["mesh.identity.failures.refused"] == 1


def test_without_descriptors_it_is_tried_again(held: Held, ca: Pair, monkeypatch: pytest.MonkeyPatch):
    first, second = material("web", ca), material("web", ca)
    held.publish(first)

    def full(context: ssl.SSLContext, *_: object) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(ssl.SSLContext, "load_cert_chain", full)
        held.publish(second)
        assert held.tick() == 5
        assert held.tick() == 5
        assert held.material is first
    words = "no TLS context can be made, trying again in 5 s: [Errno 24] Too many open files"
    assert held.state.reason == words
    assert held.tick() == 30
    assert held.material is second
    assert held.told[1:] == [Trouble("refused", words), Issued(second, first=False), Recovered(words)]
    assert held.failures == {"refused": 3}


def test_ages_are_told_once_each(held: Held, wall: WallClock, ca: Pair, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "meshsdk.identity")
    made = material("web", ca, start=NOW, end=NOW + timedelta(seconds=100))
    wall.now = made.not_before
    held.publish(made)
    told = []
    for _ in range(102):
        pause = held.tick()
        told.append((held.told[-1], held.state.name))
        assert 0 < pause <= 30
        wall.forward(seconds=1)
    changes = [one for n, one in enumerate(told) if n == 0 or told[n - 1] != one]
    assert changes == [
        (Issued(made, first=True), "valid"),
        (Aged(made, 0.5, 50.0), "valid"),
        (Aged(made, 0.75, 25.0), "valid"),
        (Aged(made, 0.9, 10.0), "expiring"),
        (Expired(made), "expired"),
    ]
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO", "INFO", "WARNING", "ERROR"]
    assert "not renewed yet" in caplog.text
    assert readings(held)["mesh.identity.expiry"] < 0


def test_the_next_look_is_at_the_next_age(held: Held, wall: WallClock, ca: Pair):
    assert held.tick() == 30
    made = material("web", ca, start=NOW, end=NOW + timedelta(seconds=10))
    wall.now = made.not_before
    held.publish(made)
    assert held.tick() == 5.0
    wall.forward(seconds=5)
    assert held.tick() == 2.5
    wall.forward(hours=1)
    assert held.tick() == 30
    assert held.told[-1] == Expired(made)


def test_ages_that_were_over_when_it_came_are_not_told(held: Held, wall: WallClock, ca: Pair):
    made = material("web", ca, start=NOW - timedelta(seconds=80), end=NOW + timedelta(seconds=20))
    held.publish(made)
    held.tick()
    assert held.told == [Issued(made, first=True)]
    wall.forward(seconds=15)
    held.tick()
    assert [event.share for event in held.told if isinstance(event, Aged)] == [0.9]


def test_an_expired_certificate_is_not_used_and_a_new_one_is(
    exchange: Exchange, held: Held, wall: WallClock, ca: Pair, caplog: pytest.LogCaptureFixture
):
    """No tick happens in here: the dates are looked at when somebody asks."""
    context = held.server_context()
    held.publish(material("web", ca, end=NOW + timedelta(minutes=40)))
    client = held.client_security("web")
    assert exchange(context, client).answer == b"pong"
    wall.forward(minutes=40, seconds=1)
    held.publish(Trouble("away", "Consul hides"))
    with pytest.raises(NoIdentity, match=r"svc/web, serial .* has expired; it cannot be renewed: Consul hides"):
        held.client_security("web")
    seen = exchange(context, client)
    assert (seen.answer, seen.read) == (b"", b"")
    assert isinstance(seen.error, OSError)
    assert "a caller's TLS handshake failed: the certificate of" in caplog.text
    assert held.material is None
    held.publish(material("web", ca, now=wall()))
    assert exchange(context, held.client_security("web")).answer == b"pong"
    assert held.state.reason == ""


def test_handshakes_before_the_first_are_refused(
    exchange: Exchange, held: Held, ca: Pair, wall: WallClock, nowhere: Nowhere
):
    other = Held(wall, nowhere)
    other.publish(material("api", ca))
    seen = exchange(held.server_context(), other.client_security("web"))
    assert (seen.answer, seen.read) == (b"", b"")
    assert isinstance(seen.error, OSError)
    assert held.refusals.total == 1


def test_refused_handshakes_do_not_flood_the_log(held: Held, ca: Pair, caplog: pytest.LogCaptureFixture):
    for _ in range(50):
        held.refusals.add("no reason")
    assert len(caplog.records) == 1
    assert held.refusals.total == 50


def test_the_ca_rotates_under_one_server_context(
    exchange: Exchange, wall: WallClock, nowhere: Nowhere, caplog: pytest.LogCaptureFixture
):
    """Both roots trusted: leafs of both are let in. The old one removed: refused, with the very context that was
    let in before, over a server context that was handed out at the start."""
    old, new = issue("old"), issue("new")
    web, api = Held(wall, nowhere), Held(wall, nowhere)
    served = web.server_context()
    web.publish(material("web", old))
    api.publish(material("api", old))
    before = api.client_security("web")
    assert exchange(served, before).answer == b"pong"

    web.publish(material("web", old, new))  # Consul tells the new root first
    api.publish(material("api", old, new))
    both = api.client_security("web")
    assert exchange(served, both).answer == b"pong"
    cross = issue("new", old, ca=True, key=new.key)
    web.publish(assemble(leaf("web", new), new, old, chain=(cross,)))  # then renews the leafs, one by one
    assert exchange(served, both).answer == b"pong"
    assert exchange(served, before).answer == b"pong", "the cross-signed chain leads to the old root"

    web.publish(material("web", new))  # and drops the old root at last
    for stale in (both, before):
        seen = exchange(served, stale)
        assert (seen.answer, seen.read) == (b"", b"")
    assert "certificate verify failed" in caplog.text
    api.publish(material("api", new))
    assert exchange(served, api.client_security("web")).answer == b"pong"
    assert served is web.server_context()


def test_what_a_root_let_in_is_not_resumed_without_it(wall: WallClock, nowhere: Nowhere):
    """On blocking sockets, which can keep a session; the first half shows that the second could fail."""
    on_threads = KINDS["threads"]
    old, new = issue("old"), issue("new")
    web, api = Held(wall, nowhere), Held(wall, nowhere)
    api.publish(material("api", old, new))
    client = api.client_security("web")
    for tickets, resumed in ((2, True), (0, False)):
        served = web.server_context()
        served.num_tickets = tickets  # what the switching context says counts
        web.publish(material("web", old, new))
        session = on_threads(served, client).session
        assert session is not None
        web.publish(material("web", new))
        seen = on_threads(served, client, session)
        assert (seen.answer == b"pong") is resumed
        assert (seen.resumed is True) is resumed


def test_a_rotation_does_not_break_open_connections(held: Held, ca: Pair):
    """In memory: the connection was made under what is no longer in force."""
    held.publish(material("web", ca))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = held.client_security("web").context.wrap_bio(to_client, to_server, server_hostname="web")
    server = held.server_context().wrap_bio(to_server, to_client, server_side=True)
    for end in (client, server, client, server):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    held.publish(material("web", issue("other")))
    client.write(b"ping")
    assert server.read(4) == b"ping"


def test_a_broken_listener_costs_nothing(held: Held, ca: Pair, caplog: pytest.LogCaptureFixture):
    def broken(event: object) -> None:
        raise KeyError("x")

    told: list[object] = []
    held.listen(broken)
    held.listen(told.append)
    held.publish(material("web", ca))
    assert len(told) == 1
    assert "a listener of the identity failed" in caplog.text


def test_every_use_starts_the_provider_once(held: Held, nowhere: Nowhere, ca: Pair):
    assert (held.state.name, repr(held), nowhere.submitted) == ("none", "<Identity none>", 0)
    held.publish(material("web", ca))
    held.client_security("api")
    held.server_context()
    held.client_security("api")
    assert nowhere.submitted == 1
