"""TLS that may be half-closed: with Python's own TLS on the other end, cut off, and refused."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from meshsdk.core.model import Endpoint
from meshsdk.identity.contexts import client_context, server_context
from meshsdk.server.listener import Listener
from meshsdk.wire.security import PeerRejected, Security
from meshsdk_sidecar.proxy.held import Held, connect
from tests.identity.certificates import material
from tests.real_consul import free_ports
from tests.sidecar.tcp_ends import CA, LOOPS, OTHER_CA, App, Inbound, Outbound, ask, at, echo, listening, showing, until

CLIENT = client_context(material("web", CA))
SERVER = server_context(material("db", CA))


@pytest.fixture(params=LOOPS)
def run(request: Any) -> Any:
    return LOOPS[request.param]


@pytest.fixture(autouse=True)
def nothing_raised_in_callbacks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelname == "ERROR"] == []


# --- opening one ------------------------------------------------------------------------------------------


REASONS: dict[str, type[Exception]] = {
    "refused": ConnectionRefusedError,
    "silent": TimeoutError,
    "clear text": ssl.SSLError,
    "hangs up": ConnectionResetError,
    "another authority": ssl.SSLCertVerificationError,
    "rejected": PeerRejected,
    "name": PeerRejected,
}


@pytest.mark.parametrize("how", REASONS)
def test_a_connection_that_cannot_be_had(run: Any, how: str) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if how == "clear text":
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        if how == "silent":
            await reader.read()

    def reject(connection: Any) -> None:
        raise PeerRejected("it is orders")

    async def scene() -> None:
        app = App(talk)
        async with app.at() as clear:
            into = Inbound(clear, ca=OTHER_CA if how == "another authority" else CA)
            async with listening(into.carrier.protocol) as secured:
                endpoint = {"refused": at(free_ports(1)[0])}.get(how)
                endpoint = endpoint or (at(secured) if how in {"another authority", "rejected", "name"} else clear)
                context = client_context(material("web", CA))
                context.check_hostname = how == "name"
                security = Security(context, "", reject if how == "rejected" else None)
                with pytest.raises(REASONS[how]):
                    async with asyncio.timeout(0.2 if how == "silent" else 5):
                        await connect(endpoint, security)
                await until(lambda: app.open == 0 and into.carrier.idle and not into.carrier.unfinished)

    run(scene())


# --- with Python's own TLS on the other end ------------------------------------------------------------------


def test_a_caller_with_another_tls(run: Any) -> None:
    """asyncio's and uvloop's, which end both directions at once."""

    async def scene() -> None:
        async with App(echo).at() as app:
            into = Inbound(app)
            async with listening(into.carrier.protocol) as port:
                context = client_context(material("web", CA))
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="")
                data = b"x" * 1_000_000
                writer.write(data)
                assert await reader.readexactly(len(data)) == data
                writer.close()
                (ended,) = await into.over()
        assert (ended.status, ended.flag) == (200, "")

    run(scene())


def test_an_instance_with_another_tls(run: Any) -> None:
    async def scene() -> None:
        app = App(echo)
        server = await asyncio.start_server(app.serve, "127.0.0.1", 0, ssl=server_context(material("db", CA)))
        out = Outbound(at(server.sockets[0].getsockname()[1]), secure=showing("web"))
        async with listening(out.carrier.protocol) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            data = b"x" * 1_000_000
            writer.write(data)
            assert await reader.readexactly(len(data)) == data
            writer.write_eof()
            async with asyncio.timeout(5):
                assert await reader.read() == b""
            writer.close()
            (ended,) = await out.over()
            assert ended.flag == ""
        await until(lambda: app.open == 0)
        server.close()

    run(scene())


def test_behind_a_listener_that_shakes_hands_itself(run: Any) -> None:
    async def scene() -> None:
        async with App(echo).at() as app:
            into = Inbound(app)
            port = free_ports(1)[0]
            listener = Listener(into.carrier, context=SERVER, strict=lambda: False, host="127.0.0.1", port=port)
            await listener.open(alone=False)
            out = Outbound(at(port), secure=showing("web"))
            async with listening(out.carrier.protocol) as outer:
                reader, writer = await asyncio.open_connection("127.0.0.1", outer)
                writer.write(b"ping")
                assert await reader.readexactly(4) == b"ping"
                writer.close()
                await out.over()
                (ended,) = await into.over()
            await listener.close(1.0)
        assert ended.peer.endswith("/svc/web")

    run(scene())


# --- those who do not come in ----------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [b"\x16", b"\x16\x03\x01\x00\x05hello", b"\x16" + b"\xff" * 20_000])
def test_a_handshake_that_is_none_or_stops(run: Any, first: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshsdk_sidecar.proxy.tcp_inbound.HANDSHAKE", 0.2)

    async def scene() -> None:
        app = App(echo)
        async with app.at() as endpoint:
            into = Inbound(endpoint)
            async with listening(into.carrier.protocol) as port:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(first)
                with contextlib.suppress(ConnectionError):
                    async with asyncio.timeout(2):
                        await reader.read()
                writer.close()
                await until(lambda: not into.carrier.unfinished)
            assert (app.seen, into.ended()) == (0, [])
            assert not into.watch._waits

    run(scene())


def test_the_oldest_goes_where_too_many_dawdle(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshsdk_sidecar.proxy.tcp_inbound.WAITING", 3)

    async def scene() -> None:
        async with App(echo).at() as endpoint:
            into = Inbound(endpoint)
            async with listening(into.carrier.protocol) as port:
                dawdling = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
                for reader, _ in dawdling[:2]:
                    with pytest.raises(ConnectionError):
                        async with asyncio.timeout(2):
                            await reader.read()
                assert into.carrier.unfinished == 3
                into.carrier.abort()
                for _, writer in dawdling:
                    writer.close()
                assert into.carrier.unfinished == 0

    run(scene())


def test_looking_whether_the_port_is_open_is_no_connection(run: Any) -> None:
    async def scene() -> None:
        into = Inbound(Endpoint("app", "127.0.0.1", 9))
        async with listening(into.carrier.protocol) as port:
            assert await ask(port) == b""
            await until(lambda: not into.carrier.unfinished)
        assert into.events == []

    run(scene())


def test_what_came_while_it_waited_is_bounded(run: Any) -> None:
    async def scene() -> None:
        held: list[Held] = []

        def make() -> Held:
            held.append(Held())
            return held[-1]

        async with listening(make) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x" * 10_000_000)
            await asyncio.sleep(0.2)
            assert 64 * 1024 <= len(held[0].kept) <= 512 * 1024
            held[0].abort()
            writer.close()

    run(scene())
