"""Mutual TLS of whole servers in processes of their own, certificates of the dev agent's CA, and changing policies."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from meshsdk.identity.contexts import client_context
from meshsdk.identity.examination import examined
from meshsdk.identity.material import Material
from meshsdk_registry import Consul

GUNICORN = ["gunicorn", "identified_wsgi:app", "--log-level", "warning", "--no-control-socket"]
HOOKS = ["--config", "python:meshsdk.server.gunicorn"]
SERVERS = {
    "uvicorn": ["uvicorn", "identified_asgi:app", "--log-level", "warning"],
    "uvicorn-workers": ["uvicorn", "identified_asgi:app", "--log-level", "warning", "--workers", "2"],
    "gunicorn-sync": [*GUNICORN, *HOOKS],
    "gunicorn-gthread-preload": [*GUNICORN, *HOOKS, "--threads", "4", "--preload"],
    "gunicorn-asgi": [*GUNICORN, *HOOKS, "--worker-class", "asgi"],
    "werkzeug": ["identified_wsgi"],
}


class Caller:
    """A service with a certificate of the agent's, calling with raw requests."""

    def __init__(self, url: str, service: str) -> None:
        self.context = client_context(asyncio.run(self._material(url, service)))

    async def _material(self, url: str, service: str) -> Material:
        async with Consul(url) as consul:
            leaf, roots = (await consul.leaf(service)).value, (await consul.roots()).value
        pem = "".join(root.pem for root in roots.roots)
        return examined(leaf.cert_pem, leaf.key_pem, pem, now=datetime.now(UTC), trust_domain=roots.trust_domain)

    def get(self, port: int, path: str, *, tls: bool = True) -> tuple[int, str]:
        plain = socket.create_connection(("127.0.0.1", port), 5)
        with plain, self.context.wrap_socket(plain, server_hostname="shop") if tls else plain as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n".encode())
            reply = b""
            while piece := connection.recv(65536):
                reply += piece
        head, _, body = reply.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()


def closed(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


class Shop:
    """One program, seen through the agent."""

    def __init__(self, url: str, program: Any, eventually: Callable[..., Any]) -> None:
        self.url = url
        self.program = program
        self.eventually = eventually

    def service(self) -> Any:
        with urllib.request.urlopen(f"{self.url}/v1/health/service/shop?passing=1", timeout=5) as answer:
            found = json.load(answer)
        return found[0]["Service"] if found else None

    def told(self, mode: str | None) -> int:
        """Wait until callers are told this mode; return the port they are told."""

        def said() -> Any:
            service = self.service()
            return service if service and service["Meta"].get("mesh-tls") == mode else None

        return int(self.eventually(said, about=lambda: (self.service(), self.program.log))["Port"])

    def policy(self, text: str) -> None:
        body = f"version: 1\n{text}\n".encode()
        request = urllib.request.Request(f"{self.url}/v1/kv/mesh/policy/shop", body, method="PUT")
        urllib.request.urlopen(request, timeout=5).close()

    def intention(self, source: str, action: str | None) -> None:
        async def write() -> None:
            async with Consul(self.url) as consul:
                if action is None:
                    await consul.delete_intention(source, "shop")
                else:
                    await consul.put_intention(source, "shop", "deny" if action == "deny" else "allow")

        asyncio.run(write())


@pytest.fixture
def shop(start: Callable[..., Any], consul: Any, port: int, eventually: Any) -> Callable[..., Shop]:
    def starting(kind: str, *more: str, **env: str) -> Shop:
        command = [*SERVERS[kind], *more]
        if command[0] == "gunicorn":
            command += ["--bind", f"127.0.0.1:{port}"]
        elif command[0] == "uvicorn":
            command += ["--port", str(port)]
        if kind == "gunicorn-asgi":
            command[1] = "identified_asgi:app"
        return Shop(consul.url, start(*command, port=port, MESH_ADDRESS="127.0.0.1", **env), eventually)

    return starting


@pytest.mark.parametrize("kind", SERVERS)
def test_modes_rules_and_intentions_follow_consul(shop: Callable[..., Shop], port: int, kind: str) -> None:
    here = shop(kind)
    mesh_port = here.told("permissive")
    assert (mesh_port == port) is (kind in {"gunicorn-sync", "gunicorn-gthread-preload", "werkzeug"})
    checkout, guest = Caller(here.url, "checkout"), Caller(here.url, "guest")

    def ask(caller: Caller, path: str = "/who", to: int = mesh_port, **more: Any) -> tuple[int, str]:
        return caller.get(to, path, **more)

    status, body = ask(checkout)
    assert (status, json.loads(body)["peer"].rpartition("/")[2]) == (200, "checkout")
    assert json.loads(ask(checkout, tls=False)[1])["peer"] is None
    if "scheme" in body:
        assert json.loads(body)["scheme"] == "https"
        assert json.loads(ask(checkout, tls=False)[1])["scheme"] == "http"
    assert [ask(checkout, "/only")[0], ask(guest, "/only")[0], ask(guest, "/only", tls=False)[0]] == [200, 403, 403]

    here.policy("tls: {mode: strict}\nauthorization: {rules: [{name: no guests, deny: {from: [guest]}}]}")
    assert here.told("strict") == mesh_port
    here.eventually(lambda: ask(guest)[0] == 403, about=lambda: here.program.log)
    assert ask(checkout)[0] == 200
    for to in {port, mesh_port}:
        status, body = ask(checkout, to=to, tls=False)
        assert status in {400, 403}
        assert "mutual TLS only" in body
    here.eventually(lambda: here.program.text("/-/mesh/ready") == (200, "ready\n"))  # of two workers either answers
    assert "no guests" in here.program.log
    assert "no guests" not in ask(guest)[1]

    here.intention("checkout", "deny")
    began = time.monotonic()
    here.eventually(lambda: ask(checkout)[0] == 403, 5.0)
    assert time.monotonic() - began < 3.0  # a busy machine's; an idle one needs some 10 ms
    here.intention("checkout", None)
    here.eventually(lambda: ask(checkout)[0] == 200, 5.0)

    here.policy("tls: {mode: 'off'}")
    assert here.told(None) == port
    assert ask(checkout, to=port, tls=False)[0] == 200
    if mesh_port != port:
        here.eventually(lambda: closed(mesh_port))  # each worker closes its own
    here.program.signal(signal.SIGTERM)
    assert here.program.wait() in {0, -signal.SIGTERM}
    assert "Traceback" not in here.program.log


def test_ready_means_that_the_mesh_port_takes_handshakes(shop: Callable[..., Shop], port: int) -> None:
    """Also of a process that takes the place of one that was killed: Consul still lists that one as passing."""
    mesh_port = port + 10_000 if port + 10_000 <= 65535 else port - 10_000
    here = shop("uvicorn")
    caller = Caller(here.url, "checkout")
    for killed in (False, True):
        if killed:
            here.program.process.kill()
            here.program.wait()
            assert here.service()["Port"] == mesh_port, "its TTL is not over"
            here = shop("uvicorn")
        here.eventually(lambda: here.program.text("/-/mesh/ready")[0] == 200, about=lambda: here.program.log)  # noqa: B023
        status, body = caller.get(mesh_port, "/who")
        assert (status, json.loads(body)["pid"]) == (200, here.program.process.pid)
        assert here.told("permissive") == mesh_port


def test_tls_to_a_plain_port_fails_and_harms_nothing(shop: Callable[..., Shop], port: int) -> None:
    here = shop("uvicorn")
    here.told("permissive")
    checkout = Caller(here.url, "checkout")
    with pytest.raises(ssl.SSLError):
        checkout.get(port, "/who")
    assert checkout.get(port, "/who", tls=False)[0] == 200


@pytest.mark.parametrize("kind", ["gunicorn-sync", "gunicorn-gthread-preload"])
def test_half_open_handshakes_hold_a_worker_for_a_bounded_time(shop: Callable[..., Shop], port: int, kind: str) -> None:
    here = shop(kind)
    here.told("permissive")
    checkout = Caller(here.url, "checkout")
    half = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
    half[0].sendall(b"\x16\x03\x01\x02")  # and nothing more
    began = time.monotonic()
    waiting = socket.create_connection(("127.0.0.1", port), 20)
    with waiting, checkout.context.wrap_socket(waiting, server_hostname="shop") as secured:
        assert secured.version() == "TLSv1.3"
    assert time.monotonic() - began < 10
    for made in half:
        made.close()
    assert checkout.get(port, "/who")[0] == 200
    assert "Traceback" not in here.program.log


def test_requests_on_the_mesh_port_finish_when_the_process_is_told_to_end(shop: Callable[..., Shop]) -> None:
    here = shop("uvicorn")
    mesh_port = here.told("permissive")
    checkout = Caller(here.url, "checkout")
    failed: list[BaseException] = []
    ended = threading.Event()

    def calling() -> None:
        try:
            while here.service():  # as callers do: as long as Consul says so
                assert checkout.get(mesh_port, "/who")[0] == 200
        except BaseException as error:
            failed.append(error)
        ended.set()

    threading.Thread(target=calling).start()
    here.program.signal(signal.SIGTERM)
    assert ended.wait(10)
    here.program.wait()
    assert failed == []


def test_a_taken_mesh_port_is_told_and_the_application_stays_in_clear_text(
    shop: Callable[..., Shop], port: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        here = shop("uvicorn", MESH_TLS_PORT=str(number))
        assert here.told(None) == port
        assert f"port {number} at 127.0.0.1" in here.program.log
        assert "MESH_TLS_PORT" in here.program.log
