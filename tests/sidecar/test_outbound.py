"""Calls through a sidecar process, over real sockets: what is carried, what is taken off, what is refused."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess

import httpx
import pytest

from meshsdk_registry import Consul
from tests.sidecar.conftest import told


async def echo(scope, receive, send) -> None:
    """Answers with what arrived."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    seen = {
        "method": scope["method"],
        "target": (scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")).decode(),
        "headers": [[name.decode(), value.decode()] for name, value in scope["headers"]],
        "body": body.decode(),
    }
    text = json.dumps(seen).encode()
    headers = [(b"content-type", b"application/json"), (b"x-kept", b"1"), (b"keep-alive", b"timeout=9")]
    headers += [(b"connection", b"x-hop"), (b"x-hop", b"1"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else text})


async def raw(port: int, request: bytes) -> bytes:
    """Send bytes and read to the end; every request here says `connection: close`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await told(writer, request)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


def direct() -> httpx.AsyncClient:
    return httpx.AsyncClient(trust_env=False, timeout=10)


async def test_host_names_the_service_and_all_else_arrives_as_it_was(sidecar, upstream):
    async with upstream(echo) as service, direct() as http:
        headers = {"host": service.name, "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "x-own": "1"}
        answer = await http.put(f"{sidecar.proxy}/a%2Fb/%7Ec?q=1&q=%20|", headers=headers, content=b"payload")
    seen = answer.json()
    arrived = dict(seen["headers"])
    assert (answer.status_code, seen["method"], seen["body"]) == (200, "PUT", "payload")
    assert seen["target"] == "/a%2Fb/%7Ec?q=1&q=%20|"
    assert arrived["host"] == service.name
    assert arrived["traceparent"] == headers["traceparent"]
    assert arrived["x-own"] == "1"


async def test_fields_of_one_connection_are_taken_off_both_ways(sidecar, upstream):
    async with upstream(echo) as service:
        answer = await raw(
            sidecar.out,
            f"GET / HTTP/1.1\r\nhost: {service.name}\r\nconnection: close, x-mine\r\nx-mine: 1\r\nkeep-alive: 5\r\n"
            "te: trailers\r\nproxy-connection: keep-alive\r\nproxy-authorization: secret\r\n"
            "upgrade: h2c\r\nx-own: 1\r\n\r\n".encode(),
        )
    head, _, body = answer.partition(b"\r\n\r\n")
    arrived = {name for name, _ in json.loads(body)["headers"]}
    assert "x-own" in arrived
    assert not arrived & {"x-mine", "keep-alive", "te", "proxy-connection", "proxy-authorization", "upgrade"}
    fields = {line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]}
    assert b"x-kept" in fields
    assert not fields & {b"x-hop", b"keep-alive", b"server", b"date"}


async def test_absolute_form_as_a_proxy_client_sends_it(sidecar, upstream):
    async with upstream(echo) as service, httpx.AsyncClient(proxy=sidecar.proxy, trust_env=False) as http:
        answer = await http.post(f"http://{service.name}/charge?id=7", content=b"x")
    assert (answer.json()["target"], answer.json()["body"]) == ("/charge?id=7", "x")


async def test_an_absolute_target_outranks_the_host_field(sidecar, upstream):
    async with upstream(echo) as service:
        request = f"GET http://{service.name}/x?y=1 HTTP/1.1\r\nhost: other\r\nconnection: close\r\n\r\n"
        answer = await raw(sidecar.out, request.encode())
    seen = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (seen["target"], dict(seen["headers"])["host"]) == ("/x?y=1", service.name)


async def test_head_keeps_its_length_and_has_no_body(sidecar, upstream):
    async with upstream(echo) as service, direct() as http:
        answer = await http.head(sidecar.proxy, headers={"host": service.name})
    assert int(answer.headers["content-length"]) > 0
    assert answer.content == b""


async def test_an_answer_streams(sidecar, upstream):
    go_on = asyncio.Event()

    async def slow(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"two"})

    async with (
        upstream(slow) as service,
        direct() as http,
        http.stream("GET", sidecar.proxy, headers={"host": service.name}) as answer,
    ):
        pieces = answer.aiter_raw()
        first = await anext(pieces)  # arrives while the upstream still waits
        go_on.set()
        rest = [piece async for piece in pieces]
    assert (first, b"".join(rest)) == (b"one", b"two")


async def test_a_request_streams(sidecar, upstream):
    arrived = asyncio.Event()

    async def counting(scope, receive, send) -> None:
        first = await receive()
        arrived.set()
        rest = await receive()
        total = first["body"] + rest["body"]
        while rest["more_body"]:
            rest = await receive()
            total += rest["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": total})

    async def body():
        yield b"one"
        await arrived.wait()  # the first piece is there before the second one exists
        yield b"two"

    async with upstream(counting) as service, direct() as http:
        answer = await http.post(sidecar.proxy, headers={"host": service.name}, content=body())
    assert answer.content == b"onetwo"


async def test_a_megabyte_each_way(sidecar, upstream):
    async with upstream(echo) as service, direct() as http:
        answer = await http.post(sidecar.proxy, headers={"host": service.name}, content=b"x" * (1 << 20))
    assert len(answer.json()["body"]) == 1 << 20


async def test_a_caller_that_leaves_takes_its_call_along(sidecar, upstream):
    began, left = asyncio.Event(), asyncio.Event()

    async def hanging(scope, receive, send) -> None:
        began.set()
        await receive()
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()

    async with upstream(hanging) as service:
        _, writer = await asyncio.open_connection("127.0.0.1", sidecar.out)
        await told(writer, f"GET / HTTP/1.1\r\nhost: {service.name}\r\n\r\n".encode())
        async with asyncio.timeout(5):
            await began.wait()
            writer.close()
            await left.wait()


async def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(sidecar, upstream):
    async def half(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"20000")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    async with upstream(half) as service, direct() as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get(sidecar.proxy, headers={"host": service.name})
    assert "Traceback" not in sidecar.log.read_text()
    assert "reason=body-reset" in sidecar.log.read_text()


async def test_unknown_service_is_503_and_says_why(sidecar):
    async with direct() as http:
        answer = await http.get(sidecar.proxy, headers={"host": "nobody"})
    assert answer.status_code == 503
    assert answer.headers["x-mesh-flag"] == "UH"
    assert "nobody" in answer.text
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        ("GET / HTTP/1.1\r\n", 400, "no Host field"),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n", 400, "2 Host fields"),
        ("GET / HTTP/1.1\r\nhost: a/b\r\n", 400, "no `host` or `host:port`"),
        ("GET / HTTP/1.1\r\nhost: canary.payments.mesh\r\n", 400, "write payments.mesh"),
        (
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n",
            503,
            "no instance is registered",
        ),
        ("GET / HTTP/1.1\r\nhost: localhost:PORT\r\n", 421, "this sidecar"),
        ("GET / HTTP/1.1\r\nhost: 127.0.0.1:PORT\r\n", 421, "this sidecar"),
        ("GET / HTTP/1.1\r\nhost: [::1]:PORT\r\n", 421, "this sidecar"),
        ("GET https://payments/ HTTP/1.1\r\nhost: payments\r\n", 400, "services are called by http://"),
        ("GET http:///x HTTP/1.1\r\nhost: a\r\n", 400, ""),
        ("CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n", 403, "CONNECT leads to"),
    ],
)
async def test_what_cannot_be_carried_is_refused_with_the_reason(sidecar, given, status, said):
    text = given.replace("PORT", str(sidecar.out))
    answer = (await raw(sidecar.out, f"{text}connection: close\r\n\r\n".encode())).decode()
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert said in answer


async def test_policy_is_obeyed(sidecar, upstream, shared_agent):
    async def slow(scope, receive, send) -> None:
        await asyncio.sleep(0.3)
        await echo(scope, receive, send)

    async with upstream(slow) as service, direct() as http, Consul(shared_agent) as consul:
        await consul.put(f"mesh/policy/{service.name}", b"version: 1\ntimeouts: {request: 100ms, attempt: 100ms}\n")
        answer = await http.get(sidecar.proxy, headers={"host": service.name})
        await consul.delete(f"mesh/policy/{service.name}")
    assert answer.status_code == 504
    assert f"policy {service.name}@" in answer.text


async def test_the_callers_deadline_bounds_the_call_and_is_handed_on(sidecar, upstream):
    left = []

    async def slow(scope, receive, send) -> None:
        left.append(int(dict(scope["headers"])[b"x-envoy-expected-rq-timeout-ms"]))
        await asyncio.sleep(0.5)

    async with upstream(slow) as service, direct() as http:
        headers = {"host": service.name, "x-envoy-expected-rq-timeout-ms": "200"}
        answer = await http.get(sidecar.proxy, headers=headers)
    assert answer.status_code == 504
    assert 0 < left[0] <= 200


async def test_connections_are_kept_on_both_sides(sidecar, upstream):
    clients = set()

    async def noting(scope, receive, send) -> None:
        clients.add(scope["client"])
        await echo(scope, receive, send)

    async with upstream(noting) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", sidecar.out)
        for _ in range(5):
            await told(writer, f"GET / HTTP/1.1\r\nhost: {service.name}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(length.partition(b":")[2]))
        writer.close()
    assert len(clients) == 1


NODE = """
const http = require('http');
const [port, name] = process.argv.slice(1);
const send = (options, body) => new Promise((resolve, reject) => {
  const agent = new http.Agent({keepAlive: true});
  const request = http.request({host: '127.0.0.1', port, agent, ...options}, (answer) => {
    let text = '';
    answer.setEncoding('utf8').on('data', (piece) => { text += piece; });
    answer.on('end', () => resolve([answer.statusCode, text]));
  });
  request.on('error', reject);
  if (body) { request.write(body); request.write(body); }
  request.end();
});
(async () => {
  const found = [
    await send({path: '/by-host?x=1', headers: {Host: name}}),
    await send({path: `http://${name}/absolute`, headers: {Host: name}}),
    await send({method: 'POST', path: '/chunked', headers: {Host: name}}, 'ab'),
    await send({path: '/', headers: {Host: 'nobody-here'}}),
  ];
  console.log(JSON.stringify(found));
  process.exit(0);
})();
"""


async def test_a_node_service_calls_through_it(sidecar, upstream):
    node = shutil.which("node")
    assert node, "Node is needed to try the sidecar from another language"
    async with upstream(echo) as service:
        command = [node, "-e", NODE, str(sidecar.out), service.name]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert [status for status, _ in answers] == [200, 200, 200, 503]
    assert [json.loads(text)["target"] for _, text in answers[:3]] == ["/by-host?x=1", "/absolute", "/chunked"]
    assert json.loads(answers[2][1])["body"] == "abab"
