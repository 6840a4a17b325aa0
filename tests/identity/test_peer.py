"""The verified peer, out of what each kind of server tells; out of nothing else."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest

from meshsdk.identity.peer import asgi_peer, certificate_peer, socket_peer, wsgi_peer
from meshsdk.identity.spiffe import SpiffeId
from tests.identity.certificates import Pair, issue

WEB = SpiffeId.of_service("test.consul", "dc1", "web")


@pytest.fixture(scope="session")
def web(ca: Pair) -> Pair:
    return issue("web", ca, (str(WEB),))


def server_end(folder: Path, ca: Pair, client: Pair | None, mode: ssl.VerifyMode) -> ssl.SSLSocket:
    """The server's end of a real TLS connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*issue("server", ca).write(folder, "server"))
    context.load_verify_locations(cadata=ca.pem.decode())
    context.verify_mode = mode
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.check_hostname, theirs.verify_mode = False, ssl.CERT_NONE
    if client is not None:
        theirs.load_cert_chain(*client.write(folder, "client"))
    one, other = socket.socketpair()
    for end in (one, other):
        end.settimeout(10)

    def connect() -> None:
        with theirs.wrap_socket(one) as connection:
            connection.recv(1)

    thread = threading.Thread(target=connect)
    thread.start()
    connection = context.wrap_socket(other, server_side=True)
    connection.sendall(b"x")
    thread.join()
    return connection


@pytest.mark.parametrize("name", ["gunicorn.socket", "werkzeug.socket"])
def test_wsgi_servers_that_give_their_socket(tmp_path: Path, ca: Pair, web: Pair, name: str):
    with server_end(tmp_path, ca, web, ssl.CERT_REQUIRED) as connection:
        assert wsgi_peer({name: connection}) == WEB


def test_no_certificate_is_no_peer(tmp_path: Path, ca: Pair):
    with server_end(tmp_path, ca, None, ssl.CERT_OPTIONAL) as connection:
        assert wsgi_peer({"gunicorn.socket": connection}) is None


def test_a_certificate_nobody_verified_is_no_peer(tmp_path: Path, ca: Pair, web: Pair):
    with server_end(tmp_path, ca, web, ssl.CERT_NONE) as connection:
        assert socket_peer(connection) is None


def test_a_plain_socket_is_no_peer_whatever_else_is_claimed(web: Pair):
    claim = {"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_CERT": web.pem.decode()}
    with socket.socket() as plain:
        assert wsgi_peer({"gunicorn.socket": plain, **claim}) is None


def test_a_socket_before_its_handshake_is_no_peer():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert socket_peer(context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="x")) is None


@pytest.mark.parametrize(
    ("verify", "peer"), [("SUCCESS", WEB), ("NONE", None), ("GENEROUS", None), ("FAILED:expired", None), (None, None)]
)
def test_a_pem_counts_only_when_the_server_says_it_verified(web: Pair, verify: str | None, peer: SpiffeId | None):
    environ = {"SSL_CLIENT_CERT": web.pem.decode()} | ({} if verify is None else {"SSL_CLIENT_VERIFY": verify})
    assert wsgi_peer(environ) == peer


def test_headers_never_count(web: Pair):
    assert wsgi_peer(
        {
            "HTTP_SSL_CLIENT_VERIFY": "SUCCESS",
            "HTTP_SSL_CLIENT_CERT": web.pem.decode(),
            "HTTP_X_FORWARDED_CLIENT_CERT": f"URI={WEB}",
        }
    ) is None  # fmt: skip
    assert asgi_peer({"headers": [(b"x-forwarded-client-cert", f"URI={WEB}".encode())]}) is None


@pytest.mark.parametrize(
    ("tls", "peer"),
    [
        ({}, None),
        ({"client_cert_chain": []}, None),
        ({"client_cert_chain": ["WEB"]}, WEB),
        ({"client_cert_chain": ["WEB"], "client_cert_error": None}, WEB),
        ({"client_cert_chain": ["WEB"], "client_cert_error": "self-signed"}, None),
    ],
)
def test_asgi(web: Pair, tls: dict[str, object], peer: SpiffeId | None):
    if tls.get("client_cert_chain"):
        tls = tls | {"client_cert_chain": [web.pem.decode()]}
    assert asgi_peer({"extensions": {"tls": tls}}) == peer


@pytest.mark.parametrize("scope", [{}, {"extensions": None}, {"extensions": {}}, {"extensions": {"tls": None}}])
def test_asgi_without_tls(scope: dict[str, object]):
    assert asgi_peer(scope) is None


@pytest.mark.parametrize(
    "uris", [(), ("https://example.org/",), (str(WEB), "spiffe://test.consul/other"), ("spiffe://test.consul",)]
)
def test_a_certificate_without_exactly_one_id_of_a_workload_is_no_peer(ca: Pair, uris: tuple[str, ...]):
    assert certificate_peer(issue("x", ca, uris).pem) is None


def test_a_certificate_without_names_is_no_peer(ca: Pair):
    assert certificate_peer(ca.pem) is None


def test_garbage_is_no_peer():
    assert certificate_peer("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n") is None
    assert wsgi_peer({"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_CERT": b"\xff"}) is None
