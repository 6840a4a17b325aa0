"""The mesh's own port under attack: who is let in, who is not, and what a caller may cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from meshsdk.core.access import Access, Rule
from meshsdk.core.plan import Plan
from meshsdk.policy.effective import effective
from meshsdk.server import listener as listening
from meshsdk.server.guard import Guard
from meshsdk.server.inbound import Intake
from meshsdk.server.listener import Listener
from meshsdk.server.verified import Verified
from tests.identity.certificates import DOMAIN, NOW, id_of, issue, leaf
from tests.server.mesh_port import CHECKOUT, GUEST, ROOT, mesh_port, of

OTHER_ROOT = issue("other root")
ADMIN = Access("allow", (Rule("no guests", "deny", ("guest",)), Rule("no admin", "deny", (), (), ("/admin/*",))))


def plan(**changes: Any) -> Plan:
    return replace(effective("", "shop", None, None), **changes)


async def test_verified_caller_is_known_for_every_request_of_its_connection(intake: Intake) -> None:
    async with mesh_port(intake) as port:
        reader, writer = await port.connect()
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            assert json.loads(await reader.readexactly(length)) == {"peer": id_of("checkout"), "chain": 1, "xfcc": []}
            assert b"date: " in head.lower()
        writer.close()
        assert [scope["scheme"] for scope in port.seen] == ["https", "https"]


UNWELCOME = {
    "other trust domain": of(issue("x", ROOT, (id_of("checkout", "foreign.consul"),))),
    "expired": of(leaf("checkout", ROOT, start=NOW - timedelta(hours=2), end=NOW - timedelta(hours=1))),
    "not yet valid": of(leaf("checkout", ROOT, start=NOW + timedelta(hours=1), end=NOW + timedelta(hours=2))),
    "self-signed": of(issue("checkout", None, (id_of("checkout"),), ca=False)),
    "another root": of(leaf("checkout", OTHER_ROOT)),
    "two URI names": of(issue("checkout", ROOT, (id_of("checkout"), id_of("admin")))),
    "id in the common name only": of(issue(id_of("checkout")[:60], ROOT)),
    "no SPIFFE id": of(issue("checkout", ROOT, ("https://checkout.example/",))),
}


@pytest.mark.parametrize("who", UNWELCOME)
@pytest.mark.parametrize("strict", [True, False])
async def test_unwelcome_certificate_never_reaches_the_application(intake: Intake, who: str, strict: bool) -> None:
    async with mesh_port(intake, strict=lambda: strict) as port:
        assert await port.get("/", UNWELCOME[who]) == (0, "")
        assert port.seen == []
        assert port.refusals.total == 1
        assert (await port.get("/"))[0] == 200


async def test_no_certificate_and_old_tls_are_refused(intake: Intake) -> None:
    nameless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nameless.check_hostname = False
    nameless.verify_mode = ssl.CERT_NONE
    old = of(leaf("checkout", ROOT))
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with mesh_port(intake) as port:
        assert await port.get("/", nameless) == (0, "")
        assert await port.get("/", old) == (0, "")
        assert port.seen == []


async def test_clear_text_is_served_or_refused_as_the_policy_says_now(intake: Intake) -> None:
    strict = False
    async with mesh_port(intake, strict=lambda: strict) as port:
        status, body = await port.get("/", None)
        assert (status, json.loads(body)["peer"], port.seen[0]["scheme"]) == (200, "", "http")
        strict = True
        status, body = await port.get("/", None)
        assert status == 400
        assert "mutual TLS only" in body
        assert len(port.seen) == 1


async def test_other_service_passes_tls_and_is_refused_by_the_rules(make_intake: Any, told: Any) -> None:
    guarded = make_intake(guard=Guard(lambda: plan(access=ADMIN, tls="strict"), trust_domain=lambda: DOMAIN))
    async with mesh_port(guarded, strict=lambda: True) as port:
        status, body = await port.get("/", GUEST)
        assert status == 403
        assert id_of("guest") in body
        assert "no guests" not in body
        event = told.ended[-1]
        assert (event.flag, event.rule, event.peer, event.refused) == ("UAEX", "no guests", id_of("guest"), True)
        assert (await port.get("/", CHECKOUT))[0] == 200
        assert len(port.seen) == 1


TRICKS = [
    "/admin",
    "/admin/",
    "/admin/users",
    "/x/../admin/users",
    "/%2e%2e/admin/users",
    "/x/%2e%2e/admin/users",
    "//admin/users",
    "/./admin/users",
    "/admin;v=1/users",
    "/%61dmin/users",
    "/admin%2fusers",
    "/x/..;/admin/users",
    "/admin/%00",
    "/admin%",
    "http://shop/admin/users",
    "HTTP://other/admin/users",
    "/admin?x=1",
    "/admin\\users",
]


@pytest.mark.parametrize("target", TRICKS)
async def test_no_spelling_of_a_path_gets_around_a_rule(make_intake: Any, target: str) -> None:
    guarded = make_intake(guard=Guard(lambda: plan(access=ADMIN), trust_domain=lambda: DOMAIN))
    async with mesh_port(guarded) as port:
        status, _ = await port.get(target)
        assert status in {400, 403}
        assert port.seen == []
        assert (await port.get("/adminton"))[0] == 200


@pytest.mark.parametrize("start", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\nx: "])
async def test_a_mebibyte_of_garbage_costs_one_connection(intake: Intake, start: bytes) -> None:
    async with mesh_port(intake) as port:
        garbage = start + bytes((n * 37 + n // 251) % 256 for n in range(1 << 20))
        await port.raw(garbage, None)
        assert port.seen == []
        assert (await port.get("/"))[0] == 200


async def test_half_open_handshakes_are_bounded_in_number_and_time(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "WAITING", 8)
    monkeypatch.setattr(listening, "HANDSHAKE", 1.0)
    async with mesh_port(intake) as port:
        silent = []
        for number in range(40):
            made = socket.create_connection(("127.0.0.1", port.port))
            if number % 2:
                made.sendall(b"\x16\x03\x01\x02")  # a handshake that never goes on
            silent.append(made)
            await asyncio.sleep(0)
        began = time.monotonic()
        assert (await port.get("/"))[0] == 200
        assert time.monotonic() - began < 1.0
        assert port.listener.unfinished <= 8
        while port.listener.unfinished:
            assert time.monotonic() - began < 10
            await asyncio.sleep(0.02)
        for made in silent:
            made.setblocking(False)
            with contextlib.suppress(ConnectionResetError):
                await asyncio.wait_for(asyncio.get_running_loop().sock_recv(made, 64), 5)  # an alert, or the end
            made.close()


@pytest.fixture
def expire(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Ends every certificate when it is called."""
    return lambda: monkeypatch.setattr(Verified, "expired", True)


async def test_connection_of_an_expired_certificate_is_closed_at_its_next_request(
    intake: Intake, expire: Callable[[], None]
) -> None:
    async with mesh_port(intake) as port:
        reader, writer = await port.connect()
        writer.write(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
        expire()
        writer.write(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n")
        assert await reader.read() == b""
        writer.close()
        assert len(port.seen) == 1


async def test_connection_of_an_expired_certificate_is_closed_although_a_request_waits_on_it(
    intake: Intake, expire: Callable[[], None]
) -> None:
    async with mesh_port(intake) as port:
        reader, writer = await port.connect()
        writer.write(b"GET /wait HTTP/1.1\r\nhost: shop\r\n\r\n" + b"GET /next HTTP/1.1\r\nhost: shop\r\n\r\n")
        await port.called()
        expire()
        port.release.set()
        assert (await asyncio.wait_for(reader.read(), 5)).count(b"HTTP/1.1 200") == 1
        writer.close()
        assert [scope["path"] for scope in port.seen] == ["/wait"]


async def test_nobody_becomes_a_websocket_with_an_expired_certificate(
    intake: Intake, expire: Callable[[], None]
) -> None:
    async with mesh_port(intake) as port:
        reader, writer = await port.connect()
        writer.write(b"GET /wait HTTP/1.1\r\nhost: shop\r\n\r\n")
        await port.called()
        expire()
        writer.write(
            b"GET /talk HTTP/1.1\r\nhost: shop\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        assert [scope["path"] for scope in port.seen] == ["/wait"]


async def test_draining_finishes_what_is_in_flight_and_closes_the_rest(intake: Intake) -> None:
    async with mesh_port(intake) as port:
        idle, idle_writer = await port.connect()
        busy, busy_writer = await port.connect()
        busy_writer.write(b"GET /wait HTTP/1.1\r\nhost: shop\r\n\r\n")
        await port.called()
        closing = asyncio.create_task(port.listener.close(5.0))
        assert await asyncio.wait_for(idle.read(), 5) == b""
        with pytest.raises(ConnectionRefusedError):
            await port.connect()
        port.release.set()
        reply = await asyncio.wait_for(busy.read(), 5)
        assert reply.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in reply.lower()
        await closing
        idle_writer.close()
        busy_writer.close()


async def test_draining_does_not_wait_for_ever(intake: Intake) -> None:
    async with mesh_port(intake) as port:
        reader, writer = await port.connect()
        writer.write(b"GET /wait HTTP/1.1\r\nhost: shop\r\n\r\n")
        await port.called()
        await asyncio.wait_for(port.listener.close(0.1), 5)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_a_taken_port_is_an_error_unless_workers_share_it(intake: Intake) -> None:
    async with mesh_port(intake) as port:

        def another() -> Listener:
            listener = port.listener
            return Listener(
                listener._serving, context=CHECKOUT, strict=lambda: False, host="127.0.0.1", port=listener.port
            )

        with pytest.raises(OSError, match=f"port {port.port} at 127.0.0.1"):
            await another().open(alone=True)
        second = another()
        await second.open(alone=False)
        await second.close(0.1)


async def test_header_about_the_certificate_is_ours_or_none(make_intake: Any) -> None:
    forged = "x-forwarded-client-cert: URI=spiffe://test.consul/admin\r\nX-Forwarded-Client-Cert: Hash=1\r\n"
    async with mesh_port(make_intake()) as port:
        for context in (CHECKOUT, None):
            assert json.loads((await port.get("/", context, forged))[1])["xfcc"] == []
    async with mesh_port(make_intake(own_id=lambda: id_of("shop"))) as port:
        found = json.loads((await port.get("/", CHECKOUT, forged))[1])["xfcc"]
        assert found == [f"By={id_of('shop')};URI={id_of('checkout')}"]
        assert json.loads((await port.get("/", None, forged))[1])["xfcc"] == []
