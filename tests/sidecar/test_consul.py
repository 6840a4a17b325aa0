"""Requests to Consul over the engine: the same answers, and the same words where there is none, as over httpx."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager

import pytest

from meshsdk_registry import Consul, Denied, Misunderstood, Registration, TooManyConnections, Unreachable
from meshsdk_registry import transport as transports
from meshsdk_sidecar.consul import Fields, WireCarrier
from tests.real_consul import free_ports
from tests.sidecar.certificates import self_signed


@pytest.fixture(params=["wire", "httpx"])
def carried(request):
    """Both carriers are asked the same."""
    transports.carry_by(WireCarrier if request.param == "wire" else None)
    yield request.param
    transports.carry_by(None)


@asynccontextmanager
async def saying(text: bytes, *, path: str = "", first: float = 0.0, then: float = 0.0, tls=None):
    """A server that says `text` to whatever it is asked, half of it after `first` seconds, the rest after `then`."""
    seen: list[bytes] = []

    async def serve(reader, writer):
        try:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            await asyncio.sleep(first)
            writer.write(text[: len(text) // 2] if then else text)
            if then:
                await writer.drain()
                await asyncio.sleep(then)
                writer.write(text[len(text) // 2 :])
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    if path:
        server, url = await asyncio.start_unix_server(serve, path), f"unix://{path}"
    else:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield url, seen


def reply(body: bytes, *fields: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 " + status + b"\r\n" + b"".join(each + b"\r\n" for each in fields)
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def test_a_whole_life_on_the_dev_agent(carried, dev_agent):
    async with Consul(dev_agent.url, token="secret") as consul:
        one = Registration("pay", "pay-1", "127.0.0.1", 80, {"zone": "grün"})
        await consul.register(one)
        await consul.pass_ttl(one.check_id, "fine")
        answer = await consul.instances("pay")
        assert [dict(each.meta) for each in answer.value] == [{"zone": "grün"}]
        waiting = asyncio.create_task(consul.instances("pay", index=answer.index, wait=10.0))
        await asyncio.sleep(0)
        await consul.deregister("pay-1")
        assert (await waiting).value == ()
        assert await consul.put("a/b c", b"\xff\x00")
        assert (await consul.key("a/b c")).value.value == b"\xff\x00"
        assert (await consul.key("none")).value is None
        await asyncio.gather(*(consul.services() for _ in range(30)))


async def test_what_is_sent(carried):
    async with (
        saying(reply(b"{}", b"x-consul-index: 7")) as (url, seen),
        Consul(url, token="t-1", datacenter="d") as consul,
    ):
        answer = await consul.services(index=3, wait=1.0)
    assert answer.index == 7
    head = seen[0].lower()
    assert head.startswith(b"get /v1/catalog/services?index=3&wait=1000ms&dc=d&stale= http/1.1\r\n")
    for field in (b"x-consul-token: t-1", b"accept-encoding: identity", b"user-agent: meshsdk", b"host: 127.0.0.1:"):
        assert b"\r\n" + field in head


async def test_a_unix_socket(carried, tmp_path):
    path = str(tmp_path / "consul.sock")
    async with saying(reply(b'"10.0.0.1:8300"'), path=path) as (url, _), Consul(url) as consul:
        assert await consul.leader() == "10.0.0.1:8300"
    async with Consul(f"unix://{path}x") as consul:
        with pytest.raises(Unreachable, match="nobody accepts connections"):
            await consul.leader()


@pytest.mark.parametrize(
    ("text", "slow", "error", "said"),
    [
        (reply(b"ACL not found", status=b"403 Forbidden"), {}, Denied, "ACL not found"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", {}, Misunderstood, "Does another program or a proxy listen there"),
        (reply(b"<html>"), {}, Misunderstood, "the answer is not Consul's"),
        (b"", {}, TooManyConnections, "the agent closed a new connection without an answer"),
        (b"", {"first": 1.2}, Unreachable, "the connection "),
        (reply(b'"10.0.0.1:8300"'), {"first": 1.5}, Unreachable, "no answer in time"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nabc",
            {},
            Unreachable,
            "the connection closed before the answer",
        ),
    ],
)
async def test_no_answer_or_none_of_consuls(carried, text, slow, error, said):
    timeout = 1.0 if slow.get("first") == 1.5 else 4.0
    async with saying(text, **slow) as (url, _), Consul(url, timeout=timeout) as consul:
        with pytest.raises(error, match=said) as caught:
            await consul.leader()
    assert url in str(caught.value)


async def test_nobody_listens_and_no_such_host(carried):
    (port,) = free_ports(1)
    for url in (f"http://127.0.0.1:{port}", "http://no-such-host.invalid:8500"):
        async with Consul(url) as consul:
            with pytest.raises(Unreachable, match="nobody accepts connections"):
                await consul.leader()


async def test_an_authority_that_is_not_trusted(carried, tmp_path):
    context = self_signed(tmp_path, "127.0.0.1")
    async with saying(reply(b'""'), tls=context) as (url, _):
        async with Consul(url) as consul:
            with pytest.raises(Unreachable, match="certificate verify failed"):
                await consul.leader()
        trusting = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        async with Consul(url, tls=trusting) as consul:
            assert await consul.leader() is None


async def test_a_query_in_flight_ends_when_the_client_is_closed(carried):
    async with saying(reply(b"{}"), first=30.0) as (url, seen):
        consul = Consul(url)
        waiting = asyncio.create_task(consul.leader())
        async with asyncio.timeout(10):
            while not seen:  # noqa: ASYNC110 - the server runs on this loop
                await asyncio.sleep(0.01)
            await consul.aclose()
            with pytest.raises(Unreachable):
                await waiting


def test_fields_are_found_in_any_case():
    fields = Fields([(b"X-Consul-Index", b"7"), (b"x-consul-index", b"8")])
    assert (fields["x-consul-INDEX"], "X-CONSUL-INDEX" in fields, fields.get("other"), len(fields)) == (
        "7",
        True,
        None,
        1,
    )
