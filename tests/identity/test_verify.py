"""The checks of a peer's name, on what OpenSSL tells of a certificate."""

from __future__ import annotations

import ssl
from typing import Any, cast

import pytest

from meshsdk.identity.spiffe import SpiffeId
from meshsdk.identity.verify import Connection, expecting, verified_peer
from meshsdk.wire.security import PeerRejected
from tests.identity.certificates import DOMAIN, id_of


class Told:
    """In the place of a connection: what its `getpeercert` tells."""

    def __init__(self, *uris: str, subject: str = "web", dns: tuple[str, ...] = ()) -> None:
        self._certificate: dict[str, Any] = {"subject": ((("commonName", subject),),)}
        if uris or dns:
            names = (*(("URI", uri) for uri in uris), *(("DNS", name) for name in dns))
            self._certificate["subjectAltName"] = names

    def getpeercert(self) -> dict[str, Any]:
        return self._certificate


def told(*uris: str, **options: Any) -> Connection:
    return cast("Connection", Told(*uris, **options))


def nobody() -> Connection:
    found = Told()
    found._certificate = {}
    return cast("Connection", found)


def test_the_called_service_is_let_pass():
    expecting("web", [DOMAIN])(told(id_of("web")))
    expecting("web", [DOMAIN, "other"])(told(id_of("web", "other")))
    expecting("web", [DOMAIN])(told(id_of("web"), dns=("web", "localhost")))
    expecting("web", [DOMAIN])(told(f"spiffe://{DOMAIN}/ns/default/dc/dc2/svc/web"))


@pytest.mark.parametrize(
    ("connection", "why"),
    [
        (
            told(id_of("api")),
            rf"^the peer is {id_of('api')}; it should be service web \(spiffe://{DOMAIN}/ns/…/svc/web\)$",
        ),
        (told(id_of("Web")), "it should be service web"),
        (told(f"spiffe://{DOMAIN}/svc/web"), "it should be service web"),
        (told(f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/web/more"), "it should be service web"),
        (told(f"spiffe://{DOMAIN}"), "whole trust domain; .*; it should be service web"),
        (told(id_of("web", "evil")), "of a foreign trust domain; it should be service web"),
        (told(id_of("web", f"x.{DOMAIN}")), "of a foreign trust domain"),
        (told(id_of("web"), id_of("web")), "has 2 URI names"),
        (told(subject=id_of("web")), rf"\(commonName='{id_of('web')}'\) has no URI name"),
        (told(dns=("web",)), "has no URI name"),
        (told("https://web"), "the peer is nobody: 'https://web' is no SPIFFE id"),
        (told("spiffe://x/" + "y" * 3000), "the peer is nobody"),
        (nobody(), "showed no certificate that was verified; it should be service web"),
    ],
)
def test_nobody_else_is(connection: Connection, why: str):
    with pytest.raises(PeerRejected, match=why) as caught:
        expecting("web", [DOMAIN])(connection)
    assert len(str(caught.value)) < 500


def test_a_server_is_told_who_calls():
    assert verified_peer(told(id_of("api")), [DOMAIN]) == SpiffeId.parse(id_of("api"))
    assert verified_peer(told(f"spiffe://{DOMAIN}/person/ann"), [DOMAIN]).service is None
    two, domain = told(id_of("api"), id_of("web")), told(f"spiffe://{DOMAIN}")
    for connection in (told(id_of("api", "evil")), told(), nobody(), two, domain):
        with pytest.raises(PeerRejected, match=f"it should be of spiffe://{DOMAIN}$"):
            verified_peer(connection, [DOMAIN])


def test_a_connection_that_did_not_ask_has_no_verified_peer():
    """OpenSSL tells nothing of a certificate that it was not told to verify."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
    with pytest.raises(ValueError, match="handshake not done"):
        expecting("web", [DOMAIN])(connection)
