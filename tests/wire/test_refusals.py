"""A server that refuses our certificate: in TLS 1.3 it says so after we are done with the handshake, by an alert."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from meshsdk.core.model import Failure, Phase, TransportFailure
from meshsdk.wire.aio.connection import Connection
from meshsdk.wire.aio.dial import dial
from meshsdk.wire.failures import refused, unconnected
from meshsdk.wire.security import Security
from tests.identity.certificates import NOW, Pair, issue
from tests.wire.callers import OURS, Blocking, Pieces, at, called, failing, get, within
from tests.wire.scripted import Peer, Script, Server, answering, eventually

OLD, NEW = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
MEGABYTE = b"x" * 1024 * 1024

# A thread neither reads before it has sent nor leaves a moment between being given a connection and using it.
ON_A_LOOP = pytest.mark.parametrize(
    "ours_with", [name for name, (caller, _) in OURS.items() if caller is not Blocking], indirect=True
)


class Authorities:
    """The one that servers trust, and certificates of callers by what is wrong with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        root = issue("root")
        self.root = root.write(folder, "root")[0]
        self.server = issue("payments", root).write(folder, "server")
        self.callers: dict[str, Pair] = {
            "good": issue("orders", root),
            "expired": issue("orders", root, end=NOW - timedelta(minutes=5)),
            "unknown": issue("orders", issue("another root")),
        }

    def serving(self, script: Script, version: ssl.TLSVersion = NEW, *, abrupt: bool = False) -> Script:
        """A server that asks for certificates; unless `abrupt`, it lets whom it refuses read why before it resets."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.server)
        context.load_verify_locations(self.root)
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = context.maximum_version = version

        def secured(peer: Peer) -> None:
            with context.wrap_socket(peer.sock, server_side=True, do_handshake_on_connect=False) as sock:
                try:
                    sock.do_handshake()
                except ssl.SSLError:
                    if not abrupt:
                        _linger(sock)
                    return
                peer.sock = sock
                script(peer)

        return secured

    def showing(self, certificate: str, *, later: bool = False) -> Any:
        """What an engine secures connections with; `later` lets servers ask for certificates after the handshake."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.root)
        context.post_handshake_auth = later
        if certificate != "none":
            context.load_cert_chain(*self.callers[certificate].write(self.folder, certificate))
        return lambda endpoint, service: Security(context, "payments")


def _linger(sock: ssl.SSLSocket) -> None:
    """Take what still comes, so that the kernel does not answer it with a reset."""
    with socket.socket(fileno=sock.detach()) as raw:
        raw.shutdown(socket.SHUT_WR)
        while raw.recv(65536):
            pass


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    return Authorities(tmp_path_factory.mktemp("refusals"))


WORDS = {"expired": "certificate expired", "unknown": "unknown ca", "none": "certificate required"}


@pytest.mark.parametrize("certificate", WORDS)
@pytest.mark.parametrize(
    "request_",
    [get(), get(b"charge", "POST"), get(MEGABYTE * 3, "POST"), get(Pieces(*[MEGABYTE] * 3), "POST")],
    ids=["get", "post", "large", "pieces"],
)
async def test_a_refusal_is_no_reset(
    ours_with: Any, serve: Callable[..., Server], authorities: Authorities, certificate: str, request_: Any
) -> None:
    """It names the alert, and says that nobody read the request, which is so: no certificate, no request."""
    server = serve(authorities.serving(answering()))
    ours = ours_with(secure=authorities.showing(certificate))
    for _ in range(3):
        failure = await failing(ours, at(server), within(5), request_)
        assert (failure.phase, failure.kind) == (Phase.NOT_WRITTEN, "tls"), failure
        assert failure.detail == f"the peer refused our certificate: alert {WORDS[certificate]}"
        assert isinstance(failure.cause, ssl.SSLError)
    assert server.heads == []
    assert ours.kept == (0, 0)


async def test_a_reset_may_be_faster_than_the_alert(
    ours_with: Any, serve: Callable[..., Server], authorities: Authorities
) -> None:
    """A server that closes with our bytes unread resets; asyncio then tells of that alone, if it was just writing.

    A thread reads what came before the reset in any case.
    """
    server = serve(authorities.serving(answering(), abrupt=True))
    ours = ours_with(secure=authorities.showing("none"))
    told = []
    for _ in range(30):
        failure = await failing(ours, at(server), within(5), get(b"charge", "POST"))
        told.append((failure.phase, failure.kind))
    assert told.count((Phase.NOT_WRITTEN, "tls")) >= (30 if isinstance(ours, Blocking) else 10), told
    assert set(told) <= {(Phase.NOT_WRITTEN, "tls"), (Phase.WRITTEN, "reset")}


@pytest.mark.parametrize("certificate", ["expired", "unknown"])
async def test_in_tls_1_2_it_is_part_of_the_handshake(
    ours_with: Any, serve: Callable[..., Server], authorities: Authorities, certificate: str
) -> None:
    server = serve(authorities.serving(answering(), OLD))
    ours = ours_with(secure=authorities.showing(certificate))
    failure = await failing(ours, at(server), within(5), get(b"charge", "POST"))
    assert (failure.phase, failure.kind) == (Phase.NOT_CONNECTED, "tls")
    assert failure.detail == f"the peer refused our certificate: alert {WORDS[certificate]}"


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_a_good_certificate(
    ours_with: Any, serve: Callable[..., Server], authorities: Authorities, version: Any
) -> None:
    server = serve(authorities.serving(answering(), version))
    ours = ours_with(secure=authorities.showing("good"))
    for _ in range(2):
        assert await called(ours, at(server), within(5), get(b"charge", "POST")) == b"ok"
    assert (server.connections, server.bodies) == (1, [b"charge"] * 2)
    await ours.close()


async def test_where_servers_may_ask_later_the_request_may_have_been_read(
    ours_with: Any, serve: Callable[..., Server], authorities: Authorities
) -> None:
    server = serve(authorities.serving(answering()))
    ours = ours_with(secure=authorities.showing("expired", later=True))
    failure = await failing(ours, at(server), within(5), get(b"charge", "POST"))
    assert failure.kind == "tls"
    assert failure.phase == Phase.WRITTEN or not isinstance(ours, Blocking), "a loop may hear of it before it writes"


async def test_a_warm_connection_that_was_refused_is_not_used(
    ours_with: Any, serve: Callable[..., Server], authorities: Authorities
) -> None:
    """The alert comes while nobody waits for anything; the next send learns why from a connection of its own."""
    server = serve(authorities.serving(answering(), abrupt=True))
    ours = ours_with(secure=authorities.showing("expired"))
    await ours.warm(at(server), 1, within(5))
    await asyncio.to_thread(eventually, lambda: server.connections == 1 and server.open_connections == 0)
    if not isinstance(ours, Blocking):  # a thread sees what came when it looks for a connection
        await asyncio.to_thread(eventually, lambda: ours.kept == (0, 0))
    failure = await failing(ours, at(server), within(5))
    assert failure.kind in {"tls", "reset"}
    await asyncio.to_thread(eventually, lambda: server.connections == 2)
    assert server.heads == []


@ON_A_LOOP
@pytest.mark.interpreted
async def test_a_refusal_that_comes_before_the_connection_is_used(
    ours_with: Any, serve: Callable[..., Server], authorities: Authorities, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy loop the alert is read before the send goes on; it does not try for ever."""
    server = serve(authorities.serving(answering()))
    ours = ours_with(secure=authorities.showing("expired"))
    monkeypatch.setattr("meshsdk.wire.aio.pool.dial", _late())
    failure = await failing(ours, at(server), within(5), get(b"charge", "POST"))
    assert (failure.phase, failure.kind) == (Phase.NOT_WRITTEN, "tls"), failure
    assert server.connections == 1
    assert ours.kept == (0, 0)


@ON_A_LOOP
@pytest.mark.interpreted
async def test_a_connection_that_is_closed_before_it_is_used(
    ours_with: Any, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told as such, and does not count as open for ever."""
    server = serve(lambda peer: None)
    ours = ours_with()
    monkeypatch.setattr("meshsdk.wire.aio.pool.dial", _late())
    failure = await failing(ours, at(server), within(5, max_connections=1), get(b"charge", "POST"))
    assert (failure.phase, failure.kind, failure.detail) == (
        Phase.NOT_WRITTEN,
        "reset",
        "closed the connection before any reply",
    )
    assert ours.kept == (0, 0)


def _late() -> Any:
    """Dials, and gives the connection away when it has ended."""

    async def late(*args: Any) -> Connection:
        connection = await dial(*args)
        while connection.alive:  # noqa: ASYNC110 - nobody else tells
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)  # a transport that closes tells so on a later turn
        return connection

    return late


@ON_A_LOOP
@pytest.mark.interpreted
async def test_a_refusal_between_being_granted_and_being_noticed(
    ours_with: Any, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each new connection would be refused in the same moment: the send ends, and does not open one after another."""
    server = serve(answering())
    ours = ours_with()
    told = Failure(Phase.NOT_WRITTEN, "tls", "the peer refused our certificate: alert unknown ca")

    def refused_at_once(connection: Connection, transport: Any) -> None:
        made(connection, transport)
        asyncio.get_running_loop().call_soon(setattr, connection, "ended", told)

    made = Connection.connection_made
    monkeypatch.setattr(Connection, "connection_made", refused_at_once)
    monkeypatch.setattr(Connection, "startable", property(lambda connection: connection.ended is None))
    with pytest.raises(TransportFailure) as caught:
        await ours.send(at(server), get(b"charge", "POST"), within(3))
    assert caught.value.failure is told
    await asyncio.to_thread(eventually, lambda: server.connections == 1)
    await asyncio.sleep(0.05)
    assert server.connections == 1


# --- what an alert proves -----------------------------------------------------------------------------


def alert(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] something")
    error.reason = reason
    return error


class Tls:
    """A connection of this version."""

    def __init__(self, version: str, later: bool = False) -> None:
        self.version = version
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.post_handshake_auth = later

    def cipher(self) -> tuple[str, str, int]:
        return "AES", self.version, 256


EXPIRED = alert("SSLV3_ALERT_CERTIFICATE_EXPIRED")


@pytest.mark.parametrize(
    ("phase", "tls", "first", "told"),
    [
        (Phase.WRITTEN, Tls("TLSv1.3"), True, Phase.NOT_WRITTEN),
        (Phase.NOT_WRITTEN, Tls("TLSv1.3"), True, Phase.NOT_WRITTEN),
        (Phase.WRITTEN, Tls("TLSv1.3"), False, Phase.WRITTEN),
        (Phase.WRITTEN, Tls("TLSv1.3", later=True), True, Phase.WRITTEN),
        (Phase.WRITTEN, Tls("TLSv1.2"), True, Phase.WRITTEN),
        (Phase.WRITTEN, None, True, Phase.WRITTEN),
        (Phase.REPLY_STARTED, Tls("TLSv1.3"), True, None),
    ],
)
def test_how_far_the_request_got(phase: Phase, tls: Any, first: bool, told: Phase | None) -> None:
    failure = refused(phase, EXPIRED, tls, first)
    assert (failure and failure.phase) == told


@pytest.mark.parametrize(
    "error",
    [
        None,
        ConnectionResetError(104, "reset"),
        ssl.SSLError(1, "no reason"),
        alert("TLSV1_ALERT_INTERNAL_ERROR"),
        alert("SSLV3_ALERT_HANDSHAKE_FAILURE"),
        alert("CERTIFICATE_VERIFY_FAILED"),
        socket.gaierror(-2, "unknown"),
    ],
    ids=repr,
)
def test_other_ends_are_no_refusal(error: Any) -> None:
    assert refused(Phase.WRITTEN, error, Tls("TLSv1.3"), first=True) is None  # type: ignore[arg-type]
    assert unconnected(error or OSError()).kind == "connect-failure"
