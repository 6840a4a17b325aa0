"""TLS to an endpoint: whom to trust, the check before the first byte, and the same bodies as in clear text."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import os
import ssl
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from meshsdk.core.model import Phase
from meshsdk.wire.blocking import BlockingEngine
from meshsdk.wire.pooling import Pooling
from meshsdk.wire.security import PeerRejected, Security
from tests.wire.callers import Pieces, at, called, failing, failing_read, get, within
from tests.wire.scripted import Peer, Script, Server, answering, eventually, reply

LARGE = b"x" * 5_000_000


class Authority:
    """Signs itself, and is the server's certificate too."""

    def __init__(self, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "payments")])
        now = datetime.datetime.now(datetime.UTC)
        names = x509.SubjectAlternativeName(
            [x509.DNSName("payments"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.file = folder / "pair.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))

    def serving(self, script: Script) -> Script:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file)

        def secured(peer: Any) -> None:
            with context.wrap_socket(peer.sock, server_side=True) as sock:
                peer.sock = sock
                script(peer)

        return secured

    def trusting(self, hostname: str = "payments", check: Any = None, version: Any = None) -> Any:
        context = ssl.create_default_context(cafile=str(self.file))
        if version:
            context.minimum_version = context.maximum_version = version
        return lambda endpoint, service: Security(context, hostname, check)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_calls(ours_with: Any, serve: Callable[..., Server], authority: Authority, version: Any) -> None:
    server = serve(authority.serving(answering(reply(LARGE))))
    seen: list[str] = []
    ours = ours_with(secure=authority.trusting(check=lambda tls: seen.append(tls.version()), version=version))
    for body in (LARGE, Pieces(*[LARGE[:500_000]] * 10), None):
        assert await called(ours, at(server), within(20), get(body, "POST")) == LARGE
    assert server.bodies == [LARGE, LARGE, b""]
    assert server.connections == 1
    assert seen == [version.name.replace("_", ".")], "checked once"


async def test_a_reply_tells_of_its_tls_when_the_connection_is_closed(
    ours_with: Any, serve: Callable[..., Server], authority: Authority
) -> None:
    """A log line, or a check of the peer, may come after the reply was read and the server has closed."""
    closing = reply(b"ok", 200, b"connection: close\r\n")
    server = serve(authority.serving(answering(closing)))
    ours = ours_with(secure=authority.trusting())
    answer = await ours.send(at(server), get(), within(5))
    tls = answer.extensions["network_stream"].get_extra_info("ssl_object")
    before = tls.version(), tls.cipher(), tls.getpeercert(binary_form=True)
    assert before[0] == "TLSv1.3"
    assert await ours.read(answer) == b"ok"
    await ours.let_go(answer)
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
    tls = answer.extensions["network_stream"].get_extra_info("ssl_object")
    assert (tls.version(), tls.cipher(), tls.getpeercert(binary_form=True)) == before
    assert tls.getpeercert()["subject"] == ((("commonName", "payments"),),)


@pytest.mark.parametrize("goodbye", [True, False])
async def test_a_reply_that_ends_with_its_connection_is_whole_if_tls_says_so(
    ours_with: Any, serve: Callable[..., Server], authority: Authority, goodbye: bool
) -> None:
    """RFC 9112, 9.8: without TLS's `close_notify` anybody may have cut it."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")
        if goodbye:
            peer.sock.unwrap()

    ours = ours_with(secure=authority.trusting())
    answer = await ours.send(at(serve(authority.serving(script))), get(), within(5))
    if goodbye:
        assert await ours.read(answer) == b"half of it"
    else:
        assert (await failing_read(ours, answer)).phase == Phase.REPLY_STARTED
    await ours.let_go(answer)


@pytest.mark.parametrize(("pooling", "connections"), [(Pooling(keep_alive=0), 1), (Pooling(keep_secured=0), 2)])
async def test_a_secured_connection_is_kept_for_its_own_time(
    ours_with: Any, serve: Callable[..., Server], authority: Authority, pooling: Pooling, connections: int
) -> None:
    """The other end belongs to a mesh and keeps it for long; each new one costs both a handshake."""
    server = serve(authority.serving(answering(reply(b"ok"), reply(b"ok"))))
    ours = ours_with(secure=authority.trusting(), pooling=pooling)
    for _ in range(2):
        assert await called(ours, at(server), within(5)) == b"ok"
    assert server.connections == connections


async def test_a_warm_connection_is_used(ours_with: Any, serve: Callable[..., Server], authority: Authority) -> None:
    """The tickets of TLS 1.3, which come unasked, are not taken for the end of it."""
    server = serve(authority.serving(answering()))
    ours = ours_with(secure=authority.trusting())
    await ours.warm(at(server), 1, within(5))
    await asyncio.to_thread(eventually, lambda: server.connections == 1)
    await asyncio.sleep(0.1)
    assert await called(ours, at(server), within(5)) == b"ok"
    assert server.connections == 1


async def test_an_upgrade_of_which_the_peer_has_ended_its_direction(
    ours_with: Any, serve: Callable[..., Server], authority: Authority
) -> None:
    """Ours stays open until we end it (RFC 8446, 6.1)."""
    heard: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nhello")
        peer.sock.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError):  # for our goodbye, which has time
            peer.sock._sslobj.shutdown()  # type: ignore[attr-defined]
        peer.sock.setblocking(True)
        heard.append(peer.sock.recv(100))

    ours = ours_with(secure=authority.trusting())
    server = serve(authority.serving(script))
    request = get(None, "GET", (b"Connection", b"upgrade"), (b"Upgrade", b"x"))
    answer = await ours.send(at(server), request, within(5))
    assert [await ours.duplex(answer, "read", 100, 5.0) for _ in range(2)] == [b"hello", b""]
    await ours.duplex(answer, "write", b"the rest", 5.0)
    await asyncio.to_thread(eventually, lambda: heard == [b"the rest"])
    await ours.duplex(answer, "aclose")
    await ours.let_go(answer)
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)


def test_two_threads_take_turns_at_the_tls_of_an_upgraded_connection(
    serve: Callable[..., Server], authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: dict[ssl.SSLSocket, threading.Lock] = defaultdict(threading.Lock)
    met: list[str] = []

    def watched(name: str) -> Callable[..., Any]:
        call = getattr(ssl.SSLSocket, name)

        def alone(sock: ssl.SSLSocket, *given: Any) -> Any:
            if not inside[sock].acquire(blocking=False):
                met.append(name)
                return call(sock, *given)
            try:
                os.sched_yield()
                return call(sock, *given)
            finally:
                inside[sock].release()

        return alone

    def echo(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
        while data := peer.sock.recv(65536):
            peer.send(data)

    engine = BlockingEngine(secure=authority.trusting())
    request = get(None, "GET", (b"Connection", b"upgrade"), (b"Upgrade", b"x"))
    answer = engine.send(at(serve(authority.serving(echo))), request, within(20))
    stream = answer.extensions["network_stream"]
    for name in ("recv", "send"):
        monkeypatch.setattr(ssl.SSLSocket, name, watched(name))
    with ThreadPoolExecutor(1) as writer:
        written = writer.submit(lambda: [stream.write(b"x" * 10_000, 20.0) for _ in range(200)])
        left = 2_000_000
        while left:
            left -= len(stream.read(left, 20.0))
        written.result(20)
    answer.close()
    engine.close()
    assert not met


@pytest.mark.parametrize("error", [PeerRejected("it is orders, not payments"), ValueError("no certificate")])
async def test_a_peer_that_is_rejected_hears_nothing(
    ours_with: Any, serve: Callable[..., Server], authority: Authority, error: Exception
) -> None:
    heard: list[bytes] = []
    server = serve(authority.serving(lambda peer: heard.append(peer.sock.recv(100))))

    def reject(tls: Any) -> None:
        raise error

    ours = ours_with(secure=authority.trusting(check=reject))
    failure = await failing(ours, at(server), within(3), get(b"secret", "POST"))
    assert (failure.phase, failure.kind) == (Phase.NOT_CONNECTED, "connect-failure")
    assert str(error) in failure.detail
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
    assert heard in ([], [b""])
    assert ours.kept == (0, 0)


@pytest.mark.parametrize("how", ["another authority", "another name", "no name", "clear text", "silent"])
async def test_no_connection(
    ours_with: Any, serve: Callable[..., Server], authority: Authority, tmp_path: Path, how: str
) -> None:
    trusted = Authority(tmp_path) if how == "another authority" else authority
    unsecured: dict[str, Script] = {
        "clear text": lambda peer: (peer.send(reply()), peer.stall()),
        "silent": Peer.stall,
    }
    script = unsecured.get(how) or authority.serving(answering())
    server = serve(script)
    ours = ours_with(secure=trusted.trusting({"another name": "orders", "no name": ""}.get(how, "payments")))
    failure = await failing(ours, at(server), within(0.5 if how == "silent" else 5), get(b"secret", "POST"))
    assert (failure.phase, failure.kind) == (
        Phase.NOT_CONNECTED,
        "timeout" if how == "silent" else "connect-failure",
    ), failure
    assert server.heads == []
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
