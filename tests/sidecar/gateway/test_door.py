"""Requests from outside: where they go, what they say of themselves, and what their answers wear."""

from __future__ import annotations

import asyncio

import pytest

from meshsdk_sidecar.gateway import front
from tests.sidecar.gateway.conftest import get
from tests.sidecar.proxy.ends import Cut, Peer, answering, ok, until

SECURITY = {
    b"Strict-Transport-Security": b"max-age=31536000",
    b"X-Frame-Options": b"DENY",
    b"X-Content-Type-Options": b"nosniff",
    b"Referrer-Policy": b"strict-origin-when-cross-origin",
}


async def silent(peer: Peer) -> None:
    await peer.request()
    await peer.rest()


# --- where it goes ----------------------------------------------------------------------------------------


async def test_a_request_goes_to_the_service_of_its_route(rig):
    client = await rig.client()
    assert (await client.ask(get("/basket?x=1"))).body == b"GET /basket?x=1 "
    assert (await client.ask(get("/api/charge?x=/api"))).body == b"GET /charge?x=/api "
    assert (await client.ask(get("/api"))).body == b"GET / "
    assert (await client.ask(get("/apis"))).body == b"GET /apis "
    assert (await client.ask(get("https://shop.example.com/api/a"))).body == b"GET /a "
    assert (await client.ask(get("/%61pi/%7Ex"))).body == b"GET /~x "
    assert [request.target for request in rig.apps["payments"].requests] == [b"/charge?x=/api", b"/", b"/a", b"/~x"]
    assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"


async def test_what_leads_nowhere_is_said_so(make):
    rig = await make(routes=[{"host": "shop.example.com", "path": {"prefix": "/a"}, "to": "shop"}])
    for path, host, status in (
        ("/b", "shop.example.com", 404),
        ("/a", "SHOP.example.com.:443", 200),
        ("/a", "evil.example.com", 421),
        ("/a", "127.0.0.1", 421),
        ("/a/../b", "shop.example.com", 400),
        ("/a/%2e%2e/b", "shop.example.com", 400),
        ("/a/..%2fb", "shop.example.com", 400),
        ("/a%00", "shop.example.com", 400),
        ("/%2561", "shop.example.com", 400),
        ("/a//b", "shop.example.com", 200),
        ("/a;x=1", "shop.example.com", 400),
        ("/a/b;x=1", "shop.example.com", 200),
    ):
        reply = await rig.ask(path, host)
        assert (path, host, reply.status) == (path, host, status), reply.body
    assert [request.target for request in rig.apps["shop"].requests] == [b"/a", b"/a//b", b"/a/b;x=1"]
    assert {("gateway", "path"), ("gateway", "host")} <= rig.plane.refusals.keys()


async def test_a_connection_goes_on_after_a_refusal(rig):
    client = await rig.client()
    assert [(await client.ask(get("/", host))).status for host in ("x.example.net", "shop.example.com")] == [421, 200]


@pytest.mark.parametrize("line", [b"CONNECT shop:80 HTTP/1.1", b"TRACE / HTTP/1.1"])
async def test_connect_and_trace_are_refused(rig, line):
    client = await rig.client()
    reply = await client.ask(line + b"\r\nHost: shop.example.com\r\n\r\n")
    assert reply.status in {400, 405}
    assert not rig.apps["shop"].requests


async def test_a_path_that_is_stripped_must_be_read_in_one_way(rig):
    client = await rig.client()
    for path in ("/api//evil.example.com/", "/api/%2e", "/api/a;x/b"):
        assert (await client.ask(get(path))).status == 400, path
    assert not rig.apps["payments"].requests


async def test_the_route_bounds_the_time_of_a_request(make):
    routes = [{"host": "*", "to": "shop"}, {"host": "shop.example.com", "to": "shop", "timeout": "50ms"}]
    rig = await make(script=silent, routes=routes)
    async with asyncio.timeout(3):  # the policy would give it longer
        assert (await rig.ask()).status == 504
        assert (await rig.ask("/", "any.example.net", "grpc-timeout: 20m")).status == 504


async def test_the_route_bounds_the_wait_for_a_service_that_is_looked_up(make):
    async def acluster(service):
        await asyncio.Event().wait()

    rig = await make(routes=[{"host": "*", "to": "shop", "timeout": "50ms"}])
    services = rig.plane._parts.services
    services.peek, services.acluster = lambda _: None, acluster
    async with asyncio.timeout(3):
        assert (await rig.ask()).status == 504


async def test_an_upgrade_is_carried(make):
    async def websocket(peer: Peer) -> None:
        await peer.head()
        await peer.send(
            b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: y\r\n\r\n"
        )
        await peer.send(await peer.reader.readexactly(4))
        assert await peer.closed()

    rig = await make(script=websocket)
    client = await rig.client()
    await client.send(get("/", "shop.example.com", "Connection: Upgrade", "Upgrade: websocket"))
    assert (await client.reply()).status == 101
    await client.send(b"ping")
    assert await client.reader.readexactly(4) == b"ping"
    await client.close()
    await rig.settled()


# --- what is told of it -----------------------------------------------------------------------------------

FORGED = (
    "X-Forwarded-For: 1.2.3.4",
    "x-forwarded-proto: http",
    "X-Forwarded-Host: evil",
    "X-Forwarded-Client-Cert: URI=spiffe://a/b",
    "X-Forwarded-Prefix: /",
    "Forwarded: for=1.2.3.4",
    "X-Real-IP: 1.2.3.4",
    "x-envoy-internal: true",
    "X-Envoy-Expected-Rq-Timeout-Ms: 1",
    "X-Mesh-Anything: 1",
)


def told(request) -> dict[bytes, bytes]:
    names = [name.lower() for name in request.names]
    assert len(names) == len(set(names)), names
    return {name: value for name, value in zip(names, (value for _, value in request.fields), strict=True)
            if name not in {b"x-envoy-attempt-count", b"x-envoy-expected-rq-timeout-ms"}}  # fmt: skip


async def test_what_clients_say_of_themselves_comes_off(rig):
    await rig.ask("/", "shop.example.com:443", *FORGED, "Authorization: Bearer x", "X-Own: 1", "traceparent: t")
    (request,) = rig.apps["shop"].requests
    assert told(request) == {
        b"host": b"shop.example.com:443",
        b"authorization": b"Bearer x",
        b"x-own": b"1",
        b"traceparent": b"t",
        b"x-forwarded-for": b"127.0.0.1",
        b"x-forwarded-proto": b"https",
        b"x-forwarded-host": b"shop.example.com:443",
    }
    assert b"1" not in request.all(b"x-envoy-expected-rq-timeout-ms")


async def test_a_trusted_proxy_is_believed_as_far_as_it_saw(make):
    rig = await make(trusted_proxies=["127.0.0.0/8", "10.0.0.0/8"])
    said = ("X-Forwarded-For: 6.6.6.6, 203.0.113.9", "X-Forwarded-For: 10.1.1.1", "X-Forwarded-Proto: HTTP")
    await rig.ask("/", "shop.example.com", *said, "X-Forwarded-Host: www.example.com", "X-Forwarded-Prefix: /x")
    (request,) = rig.apps["shop"].requests
    assert told(request) == {
        b"host": b"shop.example.com",
        b"x-forwarded-for": b"203.0.113.9, 10.1.1.1, 127.0.0.1",
        b"x-forwarded-proto": b"http",
        b"x-forwarded-host": b"www.example.com",
    }


# --- what answers wear ------------------------------------------------------------------------------------


async def test_answers_wear_the_security_headers_and_hide_what_is_inside(make):
    inner = b"Server: x/1\r\nX-Powered-By: y\r\nX-Mesh-Flag: UF\r\nx-frame-options: SAMEORIGIN\r\nSet-Cookie: a\r\n"
    rig = await make(script=answering(ok(fields=inner)))
    reply = await rig.ask()
    expected = SECURITY | {b"x-frame-options": b"SAMEORIGIN", b"Set-Cookie": b"a", b"Content-Length": b"2"}
    del expected[b"X-Frame-Options"]
    assert dict(reply.fields) == expected
    refused = await rig.ask("/", "evil.example.com")
    assert SECURITY.items() <= dict(refused.fields).items()


async def test_what_is_inside_does_not_come_through_trailers_or_interim_answers_either(make):
    async def chatty(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 103 Early Hints\r\nX-Mesh-A: 1\r\nLink: </x>\r\n\r\n")
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await peer.send(b"0\r\nX-Mesh-A: 1\r\nX-Sum: 2\r\n\r\n")

    rig = await make(script=chatty)
    client = await rig.client()
    head = b"POST / HTTP/1.1\r\nHost: shop.example.com\r\nTransfer-Encoding: chunked\r\n\r\n1\r\ny\r\n0\r\n"
    await client.send(head, b"X-Mesh-A: 1\r\nx_mesh_b: 1\r\nX-Sum: 2\r\n\r\n")
    hints, reply = await client.reply(), await client.reply()
    assert (hints.status, hints.fields) == (103, [(b"Link", b"</x>")])
    assert (reply.body, reply.trailers) == (b"x", [(b"X-Sum", b"2")])
    (request,) = rig.apps["shop"].requests
    assert (request.body, request.trailers) == (b"y", [(b"X-Sum", b"2")])


def test_names_that_are_seen_do_not_fill_the_memory():
    from meshsdk_sidecar.gateway import fields

    for number in range(2000):
        assert fields.cleansed([(b"X-%d" % number, b""), (b"x" * 50 + b"%d" % number, b"")])
        assert not fields.cleansed([(b"X-Mesh-%d" % number, b"")])
    assert len(fields._outside) <= 500
    assert max(map(len, fields._outside)) <= 40


async def test_each_header_can_be_turned_off(make):
    off = {"hsts": "off", "frame": "off", "nosniff": "off", "referrer": "off", "hide": []}
    rig = await make(script=answering(ok(fields=b"Server: x\r\n")), headers=off)
    assert (await rig.ask()).names == [b"Content-Length", b"Server"]


async def test_each_header_can_be_set(make):
    said = {"hsts": "180d", "hsts_subdomains": True, "frame": "same-origin", "referrer": "no-referrer",
            "csp": "default-src 'self'", "permissions": "camera=()"}  # fmt: skip
    rig = await make(headers=said)
    assert (
        dict((await rig.ask()).fields).items()
        >= {
            b"Strict-Transport-Security": b"max-age=15552000; includeSubDomains",
            b"X-Frame-Options": b"SAMEORIGIN",
            b"Referrer-Policy": b"no-referrer",
            b"Content-Security-Policy": b"default-src 'self'",
            b"Permissions-Policy": b"camera=()",
        }.items()
    )


async def test_a_client_does_not_hear_what_went_wrong_inside(rig):
    app = rig.apps["shop"]
    await app.close()
    reply = await rig.ask()
    assert (reply.status, reply.body) == (503, b"503 Service Unavailable\n")
    assert SECURITY.items() <= dict(reply.fields).items()
    assert b"x-mesh-flag" not in reply.names


# --- limits -----------------------------------------------------------------------------------------------


async def test_a_client_that_asks_too_much_is_told_when_to_come_back(make):
    now = [100.0]
    rig = await make(clock=lambda: now[0], limits={"requests_per_second": 0.5, "burst": 2})
    client = await rig.client()
    assert [(await client.ask(get())).status for _ in range(3)] == [200, 200, 429]
    reply = await client.ask(get())
    assert (reply.status, reply.get(b"retry-after")) == (429, b"2")
    assert len(rig.apps["shop"].requests) == 2
    now[0] += 2
    assert [(await client.ask(get())).status for _ in range(2)] == [200, 429]


async def test_clients_behind_a_trusted_proxy_have_a_bucket_each(make):
    limits = {"requests_per_second": 0.001, "burst": 1, "connections_per_client": 1}
    rig = await make(limits=limits, trusted_proxies=["127.0.0.1"])
    first, second = await rig.client(), await rig.client()
    statuses = [
        (await client.ask(get("/", "shop.example.com", f"X-Forwarded-For: {address}"))).status
        for client, address in ((first, "192.0.2.1"), (second, "192.0.2.1"), (second, "192.0.2.2"))
    ]
    assert statuses == [200, 429, 200]


async def test_sizes_are_bounded(make):
    rig = await make(limits={"head": "2KiB", "body": "10B"})
    client = await rig.client()
    head = b"POST / HTTP/1.1\r\nHost: shop.example.com\r\n"
    assert (await client.ask(head, b"Content-Length: 10\r\n\r\n0123456789")).status == 200
    assert (await client.ask(head, b"Content-Length: 11\r\n\r\n")).status == 413
    chunked = await rig.client()
    assert (await chunked.ask(head, b"Transfer-Encoding: chunked\r\n\r\nb\r\n0123456789a\r\n0\r\n\r\n")).status == 413
    long = await rig.client()
    assert (await long.ask(get("/", "shop.example.com", "X: " + "x" * 3000))).status == 431


async def test_a_head_that_drips_is_ended(make):
    rig = await make(limits={"head_timeout": "50ms"})
    client = await rig.client()
    await client.send(b"GET / HTTP/1.1\r\nHo")
    assert (await client.reply()).status == 408
    await client.close()
    await rig.settled()


# --- http -------------------------------------------------------------------------------------------------


async def test_http_leads_to_https(rig):
    client = await rig.plain()
    moved = await client.ask(get("/a?b=c", "Shop.example.com:8080"))
    assert (moved.status, moved.get(b"location")) == (301, b"https://shop.example.com/a?b=c")
    assert moved.get(b"strict-transport-security") is None  # RFC 6797, 7.2
    posted = await client.ask(b"POST /a HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: 2\r\n\r\nhi")
    assert (posted.status, posted.get(b"location")) == (308, b"https://shop.example.com/a")
    assert (await (await rig.plain()).ask(get("/", "evil.example.com"))).status == 421
    assert not rig.apps["shop"].requests


async def test_redirects_name_the_port_of_https_where_it_is_another(make):
    rig = await make(listeners={"https": {"port": 8443}, "http": {"port": 8080}})
    moved = await (await rig.plain()).ask(get())
    assert moved.get(b"location") == b"https://shop.example.com:8443/"


async def test_challenges_are_answered_from_their_folder_alone(make, tmp_path):
    folder = tmp_path / "acme"
    folder.mkdir()
    (folder / "token-1_x").write_text("token-1_x.thumbprint")
    (tmp_path / "secret").write_text("secret")
    rig = await make(listeners={"http": {"acme": str(folder)}})
    client = await rig.plain()
    prefix = "/.well-known/acme-challenge/"
    found = await client.ask(get(f"{prefix}token-1_x", "anything.example.net"))
    assert (found.status, found.body) == (200, b"token-1_x.thumbprint")
    for token in ("other", "", "../secret", "%2e%2e%2fsecret", ".", "token-1_x/"):
        reply = await client.ask(get(prefix + token))
        assert (token, reply.status) == (token, 404)
    assert (await client.ask(get("/.well-known/other"))).status == 301


# --- ends -------------------------------------------------------------------------------------------------


async def test_who_is_about_to_come_in_when_another_process_takes_over_is_served(rig, issuer):
    """A handshake that has begun is finished; the first answer says that the connection ends."""
    early, plain, kept = await rig.plain(rig.https), await rig.plain(), await rig.client()
    await until(lambda: rig.front.connected == 3)
    await rig.front.retire()
    await early.writer.start_tls(issuer.client(), server_hostname="shop.example.com")
    for client, status in ((early, 200), (plain, 301), (kept, 200)):
        reply = await client.ask(get())
        assert (reply.status, reply.get(b"connection")) == (status, b"close")
        assert await client.closed()
        client.reset()
    await until(lambda: not rig.front.connected)


async def test_a_handshake_that_goes_on_for_ever_does_not_hold_up_the_end(rig, monkeypatch):
    monkeypatch.setattr(front, "SHAKING", 0.05)
    slow = await rig.plain(rig.https)
    await until(lambda: rig.front.connected == 1)
    await asyncio.wait_for(rig.front.close(30), 5)
    assert await slow.closed()


async def test_a_request_in_flight_is_finished_when_the_gateway_ends(make):
    answered: list[Peer] = []

    async def slow(peer: Peer) -> None:
        await peer.request()
        answered.append(peer)
        await peer.rest()

    rig = await make(script=slow)
    client = await rig.client()
    await client.send(get())
    await until(lambda: bool(answered))
    closing = asyncio.create_task(rig.front.close(5))
    await asyncio.sleep(0)
    with pytest.raises((OSError, Cut)):
        await rig.client()
    answered[0].write(ok())
    reply = await client.reply()
    assert (reply.status, reply.get(b"connection")) == (200, b"close")
    assert await client.closed()
    await closing
