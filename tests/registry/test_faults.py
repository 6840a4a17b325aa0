"""What Consul's address may hold instead of a healthy Consul: each fault has its error, its words and its remedy."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import random
import ssl
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshsdk_registry import (
    Back,
    Changed,
    Consul,
    Denied,
    Heartbeat,
    Lost,
    Misunderstood,
    NoLeader,
    Registration,
    RegistryError,
    Rejected,
    ServerFault,
    TooManyConnections,
    Unreachable,
    transport,
    watch_keys,
)
from meshsdk_registry.agent import DevAgent
from meshsdk_registry.model import Operation
from tests.conftest import RealConsul


def http(status: int, body: str, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body.encode())}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", body]).encode()


DENY = 'acl { enabled = true default_policy = "deny" tokens { master = "root" agent = "root" } }'
INDEXED = "X-Consul-Index: 5"


@asynccontextmanager
async def answering(*answers: bytes | None):
    """A server that gives the n-th connection the n-th answer, and later ones the last; None is silence."""
    given, held = list(answers), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            answer = given.pop(0) if len(given) > 1 else given[0]
            if answer is None:
                await held.wait()
            else:
                writer.write(answer)
                await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        held.set()
        server.close()


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (http(200, "<html>hello</html>", INDEXED), Misunderstood, "answer is not Consul's"),
        (http(200, '[{"Node": {"Node"', INDEXED), Misunderstood, "answer is not Consul's"),
        (http(200, "\x00\x01\x02", INDEXED), Misunderstood, "answer is not Consul's"),
        (http(200, "[]"), Misunderstood, "Missing index header"),
        (http(200, "[]", "X-Consul-Index: x"), Misunderstood, "answer is not Consul's"),
        (http(200, '{"a": 1}', INDEXED), Misunderstood, "body: expected list, got"),
        (http(200, "[1]", INDEXED), Misunderstood, r"\[0\]: expected dict"),
        (http(200, "null", INDEXED), Misunderstood, "expected list"),
        (http(302, "", "Location: /login"), Misunderstood, "does not redirect"),
        (http(403, "Permission denied"), Denied, "Permission denied. Give a token whose policy allows this"),
        (http(500, "No cluster leader"), NoLeader, "electing"),
        (http(500, "rpc error: broken"), ServerFault, "500 rpc error: broken. Consul's own log says more"),
        (http(502, "<html>bad gateway</html>"), ServerFault, "502"),
        (http(400, "Bad request"), Rejected, "400 Bad request"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", Misunderstood, "Does another program or a proxy listen there"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[]", Unreachable, "closed before the answer was complete"),
        (b"", TooManyConnections, "closed a new connection without an answer.*http_max_conns_per_client"),
    ],
)
async def test_each_fault_has_its_error(answer, kind, told):
    async with answering(answer) as url, Consul(url) as consul:
        with pytest.raises(kind, match=told) as error:
            await consul.instances("web")
        assert type(error.value) is kind
        assert f"GET /v1/health/service/web at {url}" in str(error.value)


@pytest.mark.parametrize(
    ("call", "body"),
    [
        (lambda consul: consul.leader(), "[]"),
        (lambda consul: consul.agent_info(), "{}"),
        (lambda consul: consul.services(), "[]"),
        (lambda consul: consul.local_services(), '{"a": 1}'),
        (lambda consul: consul.local_checks(), '{"a": {}}'),
        (lambda consul: consul.key("a"), '[{"Key": "a", "ModifyIndex": 1, "Value": "%"}]'),
        (lambda consul: consul.checks("a"), "[1]"),
        (lambda consul: consul.key("a"), "[1]"),
        (lambda consul: consul.keys("a"), '{"Key": 1}'),
        (lambda consul: consul.put("a", b"1"), '"yes"'),
        (lambda consul: consul.delete("a"), "{}"),
        (lambda consul: consul.txn([Operation("get", "a")]), '{"Results": [{"KV": 1}]}'),
        (lambda consul: consul.txn([]), "[]"),
    ],
)
async def test_garbage_is_misunderstood_everywhere(call, body):
    async with answering(http(200, body, INDEXED)) as url, Consul(url) as consul:
        with pytest.raises(Misunderstood, match="answer is not Consul's"):
            await call(consul)


async def test_silence_ends_with_the_timeout():
    async with answering(None) as url, Consul(url, timeout=0.1) as consul, asyncio.timeout(5):
        with pytest.raises(Unreachable, match="no answer in time"):
            await consul.leader()
        with pytest.raises(Unreachable, match="no answer in time"):
            await consul.keys("a", index=1, wait=0.2)


async def test_nobody_there():
    async with Consul("http://127.0.0.1:1") as consul:
        with pytest.raises(
            Unreachable, match=r"GET /v1/status/leader at http://127.0.0.1:1: nobody accepts connections.*Start Consul"
        ):
            await consul.leader()
    async with Consul("http://no-such-host.invalid:8500", timeout=2) as consul:
        with pytest.raises(Unreachable, match="correct the address"):
            await consul.leader()


async def test_a_watch_turns_every_fault_into_lost_and_recovers(clock):
    good = http(200, "[]", INDEXED)
    answers = [b"", http(500, "x"), http(403, "no"), http(200, "<html>"), http(200, "{", INDEXED), None, good]
    async with answering(*answers) as url, Consul(url, timeout=0.2) as consul:
        watching = watch_keys(consul, "a", wait=0.1, clock=clock, sleep=clock.sleep, rng=random.Random(1))
        async with aclosing(watching) as events, asyncio.timeout(20):
            seen = [await anext(events) for _ in range(8)]
    assert [type(event) for event in seen] == [Lost] * 6 + [Back, Changed]
    kinds = [TooManyConnections, ServerFault, Denied, Misunderstood, Misunderstood, Unreachable]
    assert [type(event.error) for event in seen[:6]] == kinds


async def test_the_201st_connection_is_refused_with_clear_words(restartable):
    host, port = restartable.url.removeprefix("http://").split(":")
    idle = [await asyncio.open_connection(host, int(port)) for _ in range(200)]
    try:
        async with Consul(restartable.url) as consul:
            with pytest.raises(TooManyConnections, match=r"allows one address 200 connections; raise limits\.http_max"):
                await consul.leader()
            freed = idle.pop()[1]
            freed.close()
            await freed.wait_closed()
            async with asyncio.timeout(5):
                while True:
                    try:
                        assert await consul.leader()
                        break
                    except TooManyConnections:
                        await asyncio.sleep(0.01)
    finally:
        for _, writer in idle:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in idle), return_exceptions=True)


async def test_our_own_pool_ends_before_consuls_limit(dev_agent, monkeypatch):
    assert transport.MAX_CONNECTIONS < 200
    monkeypatch.setattr(transport, "MAX_CONNECTIONS", 4)
    async with Consul(dev_agent.url, timeout=1) as consul:
        waits = [asyncio.create_task(consul.keys("a", index=10**9, wait=30)) for _ in range(4)]
        await asyncio.sleep(0)  # each has asked the pool before the fifth does
        with pytest.raises(TooManyConnections, match=r"all 4 connections of this process .* Watch fewer services"):
            await consul.leader()
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        assert await consul.leader()


async def test_a_cancelled_query_frees_its_connection(dev_agent):
    async with Consul(dev_agent.url) as consul:
        for _ in range(2 * transport.MAX_CONNECTIONS):
            waiting = asyncio.create_task(consul.keys("a", index=10**9, wait=30))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        assert await consul.leader()


@pytest.fixture
def certificate(tmp_path):
    """A self-signed certificate for 127.0.0.1 as (certfile, keyfile)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "consul")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certfile, keyfile = tmp_path / "cert.pem", tmp_path / "key.pem"
    certfile.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    keyfile.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certfile, keyfile


async def test_https_with_an_authority_of_ones_own(certificate):
    certfile, keyfile = certificate
    async with DevAgent(certfile=certfile, keyfile=keyfile) as agent:
        assert agent.url.startswith("https://127.0.0.1:")
        async with Consul(agent.url, tls=ssl.create_default_context(cafile=str(certfile))) as consul:
            assert await consul.leader()
        async with Consul(agent.url) as consul:
            with pytest.raises(Unreachable, match="certificate"):
                await consul.leader()
        async with Consul(agent.url.replace("https", "http"), timeout=1) as consul:
            with pytest.raises(Unreachable):
                await consul.leader()


async def test_a_unix_socket(tmp_path):
    async with DevAgent(uds=str(tmp_path / "s")) as agent:
        assert agent.url == f"unix://{tmp_path}/s"
        async with Consul(agent.url) as consul:
            await consul.register(Registration("web", "web-1", "10.0.0.1", 80))
            assert [one.id for one in (await consul.instances("web")).value] == ["web-1"]
    async with Consul(agent.url) as consul:
        with pytest.raises(Unreachable, match="unix://"):
            await consul.leader()


async def test_the_token_given_is_sent_with_every_request_and_the_environments_is_not(monkeypatch):
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "from-the-environment")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    seen: list[str] = []

    async def serve(reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        seen.append(next((line for line in head.split("\r\n") if line.lower().startswith("x-consul-token")), "none"))
        writer.write(http(403, "Permission denied"))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    tokens = iter(["one", "two", "three", "four"])
    async with server, Consul(url, token=lambda: next(tokens)) as consul, Consul(url) as bare:
        for call in (
            consul.agent_info,
            consul.leader,
            lambda: consul.txn([]),
            consul.services,
            bare.agent_info,
        ):
            with pytest.raises(Denied):
                await call()
    assert [line.lower().removeprefix("x-consul-token: ") for line in seen] == ["one", "two", "three", "four", "none"]


async def test_access_rules_of_a_real_consul(tmp_path):
    path = tmp_path / "token"
    server = RealConsul("-hcl", DENY)
    try:
        await asyncio.to_thread(server.start)
        async with Consul(server.url) as nobody:
            assert (await nobody.instances("web")).value == ()  # Consul hides what may not be read
            for call in (nobody.agent_info(), nobody.put("a", b"1"), nobody.register(Registration("web", "w", "", 80))):
                with pytest.raises(Denied, match="403"):
                    await call
        path.write_text("wrong")
        async with Consul(server.url, token_file=path) as consul:
            with pytest.raises(Denied, match="ACL not found"):
                await consul.put("a", b"1")
            path.write_text("root\n")
            assert await consul.put("a", b"1")
            assert (await consul.agent_info()).node == "real"
            await consul.txn([Operation("set", "a", b"2")])
            assert (await consul.key("a")).value.value == b"2"
    finally:
        server.stop()


async def test_the_rules_of_the_readme_are_enough_and_no_more(tmp_path):
    readme = (Path(__file__).parents[2] / "registry/README.md").read_text("utf-8")
    rules = readme.split("```hcl\n")[1].split("```")[0]
    server = RealConsul("-hcl", DENY)
    try:
        await asyncio.to_thread(server.start)
        async with Consul(server.url, token="root") as root:
            await root.raw("PUT", "/v1/acl/policy", data=json.dumps({"Name": "mesh", "Rules": rules}))
            made = await root.raw("PUT", "/v1/acl/token", data=json.dumps({"Policies": [{"Name": "mesh"}]}))
            await root.put("mesh/policy/web", b"1")
        async with Consul(server.url, token=made["SecretID"]) as consul:
            heartbeat = Heartbeat(consul, Registration("checkout", "checkout-1", "10.0.0.1", 80))
            await heartbeat.beat()
            assert heartbeat.registered
            assert [one.health for one in (await consul.instances("checkout")).value] == ["passing"]
            assert [one.value for one in (await consul.keys("mesh/policy/")).value] == [b"1"]
            assert (await consul.agent_info()).node == "real"
            await heartbeat.drain()
            await heartbeat.deregister()
            for call in (consul.put("mesh/policy/web", b"2"), consul.register(Registration("web", "w", "", 80))):
                with pytest.raises(Denied, match=r"registry/README\.md lists the rules"):
                    await call
    finally:
        server.stop()


async def test_after_closing_no_request_is_sent(dev_agent):
    consul = Consul(dev_agent.url)
    await consul.aclose()
    with pytest.raises((RegistryError, RuntimeError)):
        await consul.leader()
