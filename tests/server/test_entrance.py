"""Where callers come in: what is registered, when, and what a setting that must hold makes of a missing certificate."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from meshsdk.config import Settings
from meshsdk.server import entrance as entering
from meshsdk.server import wsgi
from meshsdk.server.entrance import Entrance, entrance_at
from meshsdk.server.sniffing import SniffingContext
from meshsdk.server.verified import Verified
from meshsdk.server.wsgi import MeshWSGI
from tests.identity.certificates import id_of
from tests.real_consul import free_ports


class Certificate:
    """An identity as the test has it."""

    def __init__(self, material: object | None = "some") -> None:
        self.material = material

    def server_context(self) -> ssl.SSLContext:
        return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    async def await_answer(self, seconds: float) -> None:
        pass


async def nothing() -> None:
    pass


class Place:
    """An entrance with everything around it held by the test."""

    def __init__(self, identity: str = "auto", certificate: Certificate | None = None, **settings: Any) -> None:
        self.mode = "permissive"
        self.certificate = certificate
        given = {"port": free_ports(1)[0], "address": "127.0.0.1", "first_wait": 0.2, "identity": identity, **settings}
        self.entrance = Entrance(
            Settings("shop", **given),
            identity=certificate,
            mode=lambda: self.mode,
            known=nothing,
            alone=lambda: True,
        )


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Never called here."""


async def closed(entrance: Entrance) -> None:
    async with asyncio.timeout(5):
        while entrance.is_open:  # noqa: ASYNC110
            await asyncio.sleep(0)


@pytest.fixture
def other_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The application's loop, in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


@contextmanager
def blocked(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Within, the loop runs nothing."""
    begun, over = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        over.wait(10)

    loop.call_soon_threadsafe(block)
    assert begun.wait(5)
    try:
        yield
    finally:
        over.set()


async def test_own_port_opens_with_the_certificate_and_closes_with_the_policy() -> None:
    place = Place(certificate=Certificate())
    entrance = place.entrance
    entrance.host(app, {})
    assert entrance.told() == (None, {})
    assert await entrance.follow()
    port = entrance.port
    assert port is not None
    assert entrance.told() == (entrance._settings.mesh_port, {"mesh-tls": "permissive"})
    place.mode = "strict"
    assert entrance.told()[1] == {"mesh-tls": "strict"}
    place.mode = "off"
    assert await entrance.follow()
    assert entrance.told() == (None, {})
    await closed(entrance)
    place.mode = "permissive"
    assert await entrance.follow()
    assert entrance.is_open
    await entrance.close(0.1)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", entrance._settings.mesh_port)


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost"])
async def test_own_port_stays_on_loopback_where_callers_are_sent_there(address: str) -> None:
    entrance = Place(certificate=Certificate(), address=address).entrance
    entrance.host(app, {})
    await entrance.follow()
    listener = entrance._listener
    assert listener is not None
    assert [listening.getsockname()[0] for listening in listener._sockets] == ["127.0.0.1"]
    await entrance.close(0.1)


async def test_without_a_certificate_clear_text_is_registered_and_no_port_opened() -> None:
    place = Place(certificate=Certificate(None))
    place.entrance.host(app, {})
    assert await place.entrance.follow()
    assert not place.entrance.is_open
    assert place.entrance.told() == (None, {})


async def test_a_certificate_that_comes_late_opens_the_port() -> None:
    certificate = Certificate(None)
    place = Place(certificate=certificate)
    place.entrance.host(app, {})
    await place.entrance.follow()
    certificate.material = "some"
    await place.entrance.follow()
    assert place.entrance.is_open
    certificate.material = None  # expired: the port stays, and callers are told of no TLS
    await place.entrance.follow()
    assert place.entrance.told() == (place.entrance._settings.mesh_port, {})
    await place.entrance.close(0.1)


async def test_where_an_identity_must_be_nothing_is_registered_without(caplog: pytest.LogCaptureFixture) -> None:
    certificate = Certificate(None)
    place = Place("consul", certificate)
    place.entrance.host(app, {})
    assert not await place.entrance.follow()
    assert not await place.entrance.follow()
    assert caplog.text.count("not registered") == 1
    certificate.material = "some"
    assert await place.entrance.follow()
    await place.entrance.close(0.1)


async def test_where_an_identity_must_be_a_server_without_tls_is_not_registered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = Place("consul", Certificate())
    assert not await place.entrance.follow()
    assert "takes no TLS" in caplog.text
    assert "`from meshsdk.server.gunicorn import *`" in caplog.text
    assert isinstance(place.entrance.context(), SniffingContext)
    assert await place.entrance.follow()
    assert place.entrance.told() == (None, {"mesh-tls": "permissive"})


async def test_strict_in_clear_text_only_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    place = Place("off", None)
    place.mode = "strict"
    for _ in range(2):
        assert await place.entrance.follow()
    assert caplog.text.count("every request is refused") == 1
    assert "from meshsdk.server.gunicorn import *" in caplog.text


async def test_a_port_of_somebody_else_is_told_once_and_taken_when_it_is_free(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        place = Place(certificate=Certificate(), tls_port=number)
        place.entrance.host(app, {})
        for _ in range(2):
            assert await place.entrance.follow()
        assert caplog.text.count(f"port {number} at 127.0.0.1") == 1
    await place.entrance.follow()
    assert place.entrance.is_open
    await place.entrance.close(0.1)


async def test_requests_in_flight_are_answered_although_the_policy_closes_the_port() -> None:
    called, release = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        called.set()
        await release.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    place = Place(certificate=Certificate(), drain_timeout=5.0)
    place.entrance.host(slow, {})
    await place.entrance.follow()
    reader, writer = await asyncio.open_connection("127.0.0.1", place.entrance._settings.mesh_port)
    writer.write(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n")
    await called.wait()
    place.mode = "off"
    assert await asyncio.wait_for(place.entrance.follow(), 2)
    assert place.entrance.told() == (None, {})
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", place.entrance._settings.mesh_port)
    place.mode = "permissive"
    await place.entrance.follow()
    assert place.entrance.told()[0]
    release.set()
    assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 204")
    writer.close()
    await place.entrance.close(1.0)
    assert not place.entrance.is_open


async def hosted(place: Place, loop: asyncio.AbstractEventLoop) -> Entrance:
    async def hosting() -> None:
        place.entrance.host(app, {})

    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(hosting(), loop))
    return place.entrance


async def test_port_that_a_blocked_loop_opens_late_is_known(
    other_loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(entering, "LOOP_WAIT", 0.05)
    entrance = await hosted(Place(certificate=Certificate()), other_loop)
    with blocked(other_loop):
        await entrance.follow()
        assert not entrance.is_open
    monkeypatch.setattr(entering, "LOOP_WAIT", 5.0)
    await entrance.follow()
    assert entrance.told() == (entrance._settings.mesh_port, {"mesh-tls": "permissive"})
    assert "not opened" not in caplog.text
    await entrance.close(0.1)
    assert not entrance.is_open


async def test_blocked_loop_opens_nothing_after_the_end(
    other_loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entering, "LOOP_WAIT", 0.05)
    entrance = await hosted(Place(certificate=Certificate()), other_loop)
    with blocked(other_loop):
        await entrance.follow()
        await entrance.close(0.0)
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(nothing(), other_loop))
    assert not entrance.is_open


async def test_port_that_a_blocked_loop_closes_late_is_open_until_then(
    other_loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(certificate=Certificate())
    entrance = await hosted(place, other_loop)
    await entrance.follow()
    monkeypatch.setattr(entering, "LOOP_WAIT", 0.05)
    place.mode = "off"
    with blocked(other_loop):
        await entrance.follow()
        assert entrance.is_open
    monkeypatch.setattr(entering, "LOOP_WAIT", 5.0)
    await entrance.follow()
    await closed(entrance)


def test_a_loop_that_has_ended_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    place = Place(certificate=Certificate())

    async def hosting() -> None:
        place.entrance.host(app, {})

    asyncio.run(hosting())
    assert asyncio.run(place.entrance.follow())
    assert not place.entrance.is_open


def test_entrances_are_found_by_their_port() -> None:
    one, two = Place(), Place()
    assert entrance_at(one.entrance.port or 0) is one.entrance
    assert entrance_at(two.entrance.port or 0) is two.entrance


def test_a_request_on_a_connection_of_an_expired_certificate_is_not_served(
    make_intake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Any] = []

    def application(environ: Any, start_response: Any) -> list[bytes]:
        served.append(environ)
        start_response("200 OK", [])
        return [b"fine"]

    from meshsdk.identity.spiffe import SpiffeId

    expires = [4e9]
    peer = SpiffeId.parse(id_of("checkout"))
    monkeypatch.setattr(wsgi, "verified_of", lambda _: Verified(peer, expires[0], {}))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "https", "gunicorn.socket": ours}
        meshed = MeshWSGI(application, make_intake(own_id=lambda: id_of("shop")))
        list(meshed(dict(environ), lambda *_: None))  # type: ignore[arg-type,return-value]
        assert served[0]["HTTP_X_FORWARDED_CLIENT_CERT"] == f"By={id_of('shop')};URI={peer}"
        expires[0] = 1.0
        list(meshed(dict(environ), lambda *_: None))  # type: ignore[arg-type,return-value]
        assert len(served) == 1
        theirs.settimeout(5)
        assert theirs.recv(1) == b""
